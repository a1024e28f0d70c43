package main

import (
	"context"
	"fmt"
	"net"

	"github.com/go-stomp/stomp/v3"
)

// stompWorker does one task at a time over STOMP, with a stock client: ACK for
// what is done, NACK for what it cannot do.
func (d *day) stompWorker(ctx context.Context) (stop func(), err error) {
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", d.STOMP)
	if err != nil {
		return nil, err
	}
	conn, err := stomp.Connect(socket, stomp.ConnOpt.Host("/"), stomp.ConnOpt.HeartBeat(0, 0))
	if err != nil {
		return nil, err
	}
	sub, err := conn.Subscribe("/queue/tasks", stomp.AckClientIndividual, stomp.SubscribeOpt.Header("prefetch-count", "1"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends when stop hangs up
		for m := range sub.C {
			if m.Err != nil {
				d.fail(ctx, fmt.Errorf("stomp worker: %w", m.Err))
				return
			}
			w := doing{by: "stomp", task: string(m.Body), again: m.Header.Get("redelivered") == "true", done: d.try(string(m.Body))}
			settle := conn.Ack
			if !w.done {
				settle = conn.Nack
			}
			if err := settle(m); err != nil {
				d.fail(ctx, fmt.Errorf("stomp worker: %w", err))
				return
			}
			if !d.tell(ctx, w) {
				return
			}
		}
	}()
	return func() { cancel(); _ = conn.Disconnect() }, nil
}
