package main

import (
	"context"
	"fmt"
	"time"

	"github.com/godwitmq/godwit/protocols/line/client"
)

// hire makes the queue: three attempts, with a rest between them, then the
// dead letters.
func hire(ctx context.Context, addr string) (*client.Client, error) {
	c, err := client.Dial(ctx, addr, client.Options{Client: "boss"})
	if err != nil {
		return nil, err
	}
	return c, c.Make(ctx, "q/tasks", "max_attempts=3", "backoff=100ms-1s", "dead_letter=q/dead", "lease=30s")
}

// publish puts the tasks into the queue, the poison one in their middle. Each
// is on the disk when its Publish returns.
func publish(ctx context.Context, c *client.Client, n int) error {
	for i := range n + 1 {
		task := fmt.Sprintf("task-%02d", i)
		if i == n/2 {
			task = poison
		}
		if err := c.Publish(ctx, client.Message{Dest: "q/tasks", Body: []byte(task)}); err != nil {
			return err
		}
	}
	return nil
}

// A letter is a dead one, as its headers tell it.
type letter struct{ task, reason, attempts string }

// await waits for the poison task among the dead letters, and leaves it there.
func await(ctx context.Context, c *client.Client) (letter, error) {
	all, err := c.Get(ctx, "q/dead", client.GetOptions{N: 1, Wait: 10 * time.Second})
	if err != nil {
		return letter{}, err
	}
	if len(all) == 0 {
		return letter{}, fmt.Errorf("nothing died")
	}
	d := all[0]
	l := letter{task: string(d.Body)}
	l.reason, _ = d.Header("dead-reason")
	l.attempts, _ = d.Header("dead-attempts")
	if err := d.Nack(); err != nil { // back to its place: REDRIVE takes it
		return l, err
	}
	return l, c.Flush(ctx)
}

// lineWorker does one task at a time. What it cannot do it gives back.
func (d *day) lineWorker(ctx context.Context) (stop func(), err error) {
	c, err := client.Dial(ctx, d.Line, client.Options{Client: "line-worker"})
	if err != nil {
		return nil, err
	}
	sub, err := c.Subscribe(ctx, "q/tasks", client.SubOptions{Window: 1})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with its context, which stop cancels
		for task, err := range sub.All(ctx) {
			if err != nil {
				d.fail(ctx, fmt.Errorf("line worker: %w", err))
				return
			}
			w := doing{by: "line", task: string(task.Body), again: task.Attempt > 1, done: d.try(string(task.Body))}
			settle := task.Ack
			if !w.done {
				settle = task.Nack
			}
			if err := settle(); err != nil {
				d.fail(ctx, fmt.Errorf("line worker: %w", err))
				return
			}
			if !d.tell(ctx, w) {
				return
			}
		}
	}()
	return func() { cancel(); _ = c.Close() }, nil
}
