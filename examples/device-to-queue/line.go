package main

import (
	"context"
	"fmt"

	"github.com/godwitmq/godwit/examples/internal/house"
	"github.com/godwitmq/godwit/protocols/line/client"
)

// bind makes the queue and binds it to what the machines publish. Both are on
// the disk when this returns; a second time changes nothing.
func bind(ctx context.Context, addr string) error {
	c, err := client.Dial(ctx, addr, client.Options{Client: "plant-setup"})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // everything was answered
	if err := c.Make(ctx, "q/readings"); err != nil {
		return err
	}
	return c.Bind(ctx, "q/readings", "t/plant/+/temp")
}

// startLineWorker reads the queue over the line protocol: one reading at a
// time, each acknowledged when it is done.
func startLineWorker(ctx context.Context, a house.Addresses, results chan<- worked, failed chan<- error) (stop func(), err error) {
	c, err := client.Dial(ctx, a.Line, client.Options{Client: "line-worker"})
	if err != nil {
		return nil, err
	}
	sub, err := c.Subscribe(ctx, "q/readings", client.SubOptions{Window: 1})
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with its context, which stop cancels
		for d, err := range sub.All(ctx) {
			if err == nil {
				err = d.Ack()
			}
			if err != nil {
				tell(ctx, failed, fmt.Errorf("line worker: %w", err))
				return
			}
			if !finish(ctx, results, worked{"line", d.Dest, string(d.Body)}) {
				return
			}
		}
	}()
	return func() { cancel(); _ = c.Close() }, nil
}
