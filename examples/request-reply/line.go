package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/godwitmq/godwit/examples/internal/house"
	"github.com/godwitmq/godwit/protocols/line/client"
)

// serveLine answers questions from the queue: to where each says, with the
// correlation id it came with.
func serveLine(ctx context.Context, a house.Addresses) (stop func(), err error) {
	c, err := client.Dial(ctx, a.Line, client.Options{Client: "line-service"})
	if err != nil {
		return nil, err
	}
	if err := c.Make(ctx, "q/square"); err != nil {
		return nil, err
	}
	sub, err := c.Subscribe(ctx, "q/square", client.SubOptions{Window: 1})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with its context, which stop cancels
		_ = sub.Handle(ctx, func(d *client.Delivery) error {
			answer := client.Message{Dest: d.Reply, Body: []byte(square(string(d.Body))), CorrelationID: d.CorrelationID}
			if err := c.Publish(ctx, answer); err != nil && client.Code(err) != 410 { // 410: who asked has gone
				return err
			}
			return nil
		})
	}()
	return func() { cancel(); _ = c.Close() }, nil
}

// askLine asks with a reply address of its own, r/..., which lives as long as
// its connection.
func askLine(ctx context.Context, a house.Addresses, n int) (map[string]string, error) {
	c, err := client.Dial(ctx, a.Line, client.Options{Client: "line-asker"})
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // everything was answered
	replies, err := c.Replies(ctx)
	if err != nil {
		return nil, err
	}
	for i := range n {
		q := strconv.Itoa(i)
		m := client.Message{Dest: "q/square", Body: []byte(q), Reply: replies.Address(), CorrelationID: q, TTL: lifetime}
		if err := c.Publish(ctx, m); err != nil {
			return nil, err
		}
	}
	answers := make(map[string]string)
	for len(answers) < n {
		d, err := replies.Next(ctx)
		if err != nil {
			return answers, err
		}
		answers[d.CorrelationID] = string(d.Body)
	}
	return answers, nil
}

// answerTheDead shows what becomes of an answer whose asker has gone.
func answerTheDead(ctx context.Context, out io.Writer, a house.Addresses) error {
	asker, err := client.Dial(ctx, a.Line, client.Options{Client: "impatient"})
	if err != nil {
		return err
	}
	replies, err := asker.Replies(ctx)
	if err != nil {
		return err
	}
	if err := asker.Close(); err != nil {
		return err
	}
	c, err := client.Dial(ctx, a.Line, client.Options{Client: "late"})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // everything was answered
	err = c.Publish(ctx, client.Message{Dest: replies.Address(), Body: []byte("late")})
	if client.Code(err) != 410 {
		return errors.Join(errors.New("an answer to who has gone is not told 410"), err)
	}
	fmt.Fprintf(out, "an answer to who has gone is told so: %v\n", err)
	return nil
}
