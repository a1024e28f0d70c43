package main

import (
	"context"
	"net"
	"strconv"

	"github.com/go-stomp/stomp/v3"

	"github.com/godwitmq/godwit/examples/internal/house"
)

func dialSTOMP(ctx context.Context, addr string) (*stomp.Conn, error) {
	var d net.Dialer
	socket, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return stomp.Connect(socket, stomp.ConnOpt.Host("/"), stomp.ConnOpt.HeartBeat(0, 0))
}

// serveSTOMP answers questions from the queue over STOMP: reply-to is a
// destination that can be sent to, whatever protocol asked.
func serveSTOMP(ctx context.Context, a house.Addresses) (stop func(), err error) {
	conn, err := dialSTOMP(ctx, a.STOMP)
	if err != nil {
		return nil, err
	}
	sub, err := conn.Subscribe("/queue/square", stomp.AckClientIndividual, stomp.SubscribeOpt.Header("prefetch-count", "1"))
	if err != nil {
		return nil, err
	}
	go func() { // ends when stop hangs up
		for m := range sub.C {
			if m.Err != nil {
				return
			}
			// Without a receipt: an answer that nobody waits for any more is no reason to end.
			err := conn.Send(m.Header.Get("reply-to"), "text/plain", []byte(square(string(m.Body))),
				stomp.SendOpt.Header("correlation-id", m.Header.Get("correlation-id")))
			if err != nil || conn.Ack(m) != nil {
				return
			}
		}
	}()
	return func() { _ = conn.Disconnect() }, nil
}

// askSTOMP asks with a temporary queue, which the broker makes for its
// connection and reads for it.
func askSTOMP(ctx context.Context, a house.Addresses, n int) (map[string]string, error) {
	conn, err := dialSTOMP(ctx, a.STOMP)
	if err != nil {
		return nil, err
	}
	defer conn.Disconnect() //nolint:errcheck // everything was answered
	sub, err := conn.Subscribe("/temp-queue/answers", stomp.AckAuto)
	if err != nil {
		return nil, err
	}
	for i := range n {
		q := strconv.Itoa(i)
		err := conn.Send("/queue/square", "text/plain", []byte(q), stomp.SendOpt.Receipt,
			stomp.SendOpt.Header("reply-to", "/temp-queue/answers"), stomp.SendOpt.Header("correlation-id", q),
			stomp.SendOpt.Header("expiration", strconv.FormatInt(lifetime.Milliseconds(), 10)))
		if err != nil {
			return nil, err
		}
	}
	answers := make(map[string]string)
	for len(answers) < n {
		select {
		case m := <-sub.C:
			if m.Err != nil {
				return answers, m.Err
			}
			answers[m.Header.Get("correlation-id")] = string(m.Body)
		case <-ctx.Done():
			return answers, context.Cause(ctx)
		}
	}
	return answers, nil
}
