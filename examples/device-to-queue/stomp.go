package main

import (
	"context"
	"fmt"
	"net"

	"github.com/go-stomp/stomp/v3"

	"github.com/godwitmq/godwit/examples/internal/house"
)

// startStompWorker reads the queue over STOMP: one reading at a time, each
// acknowledged when it is done. When it returns, the broker knows the worker;
// stop hangs up, and what the worker has not acknowledged goes to the other.
func startStompWorker(ctx context.Context, a house.Addresses, results chan<- worked, failed chan<- error) (stop func(), err error) {
	var d net.Dialer
	socket, err := d.DialContext(ctx, "tcp", a.STOMP)
	if err != nil {
		return nil, err
	}
	conn, err := stomp.Connect(socket, stomp.ConnOpt.Host("/"), stomp.ConnOpt.HeartBeat(0, 0))
	if err != nil {
		return nil, err
	}
	sub, err := conn.Subscribe("/queue/readings", stomp.AckClientIndividual, stomp.SubscribeOpt.Header("prefetch-count", "1"))
	if err != nil {
		return nil, err
	}
	// go-stomp cannot ask for a receipt of SUBSCRIBE; the receipt of whatever
	// comes after it says as much.
	if err := conn.Send("/topic/workers.stomp", "text/plain", []byte("here"), stomp.SendOpt.Receipt); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends when stop hangs up
		for m := range sub.C {
			if m.Err != nil {
				tell(ctx, failed, fmt.Errorf("stomp worker: %w", m.Err))
				return
			}
			if err := conn.Ack(m); err != nil {
				tell(ctx, failed, fmt.Errorf("stomp worker: %w", err))
				return
			}
			if !finish(ctx, results, worked{"stomp", m.Header.Get("destination"), string(m.Body)}) {
				return
			}
		}
	}()
	return func() { cancel(); _ = conn.Disconnect() }, nil
}

// finish hands a result over and says whether anybody still wants it.
func finish(ctx context.Context, results chan<- worked, w worked) bool {
	select {
	case results <- w:
		return true
	case <-ctx.Done():
		return false
	}
}

func tell(ctx context.Context, failed chan<- error, err error) {
	select {
	case failed <- err:
	case <-ctx.Done():
	}
}
