// Command task-queue is a work queue: workers of three protocols share one
// queue of tasks. One of them dies with a task in its hands, and one task
// cannot be done by anybody.
//
//	q/tasks --line---> worker
//	   |  \---STOMP--> worker
//	   |   \--MQTT---> worker, which dies
//	   v  after 3 attempts
//	q/dead --REDRIVE--> q/tasks, once the fault is mended
//
// What is to be seen: a task that a dead worker had moves on, marked; the poison
// task rests between its attempts, so others are not held up, and then lies
// among the dead letters with its reason; one command brings it back.
//
//	go run ./examples/task-queue
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/examples/internal/house"
)

func main() {
	var a house.Addresses
	flag.StringVar(&a.Line, "line", "", "address of a running broker's line protocol; empty: start one for this run")
	flag.StringVar(&a.STOMP, "stomp", "127.0.0.1:61613", "address of its STOMP")
	flag.StringVar(&a.MQTT, "mqtt", "127.0.0.1:1883", "address of its MQTT")
	n := flag.Int("tasks", 20, "how many tasks there are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, a, *n); err != nil {
		fmt.Fprintln(os.Stderr, "task-queue:", err)
		os.Exit(1)
	}
}

const (
	patience = 30 * time.Second
	poison   = "poison" // the task that nobody can do
)

// A doing is what a worker did with a task.
type doing struct {
	by, task string
	again    bool // it had been given to somebody before
	done     bool
}

// A day is what happens to the tasks.
type day struct {
	house.Addresses

	doings chan doing
	failed chan error
	mended atomic.Bool // the poison task can be done
}

func run(ctx context.Context, out io.Writer, a house.Addresses, n int) error {
	if a.Line == "" {
		b, err := house.Start(ctx)
		if err != nil {
			return err
		}
		defer b.Stop()
		a = b.Addresses
		fmt.Fprintf(out, "started a broker: line %s, stomp %s, mqtt %s\n", a.Line, a.STOMP, a.MQTT)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("not done after 30 s"))
	defer cancel()
	d := &day{Addresses: a, doings: make(chan doing, 64), failed: make(chan error, 4)}
	return d.run(ctx, out, n)
}

func (d *day) run(ctx context.Context, out io.Writer, n int) error {
	boss, err := hire(ctx, d.Line)
	if err != nil {
		return err
	}
	defer boss.Close() //nolint:errcheck // everything was answered
	// The one that dies comes first, so that it has a task when it does.
	died, err := d.dieWithATask(ctx, boss)
	if err != nil {
		return fmt.Errorf("the MQTT worker: %w", err)
	}
	fmt.Fprintf(out, "mqtt  died with %s\n", died)
	for name, start := range map[string]func(context.Context) (func(), error){"line": d.lineWorker, "stomp": d.stompWorker} {
		stop, err := start(ctx)
		if err != nil {
			return fmt.Errorf("the %s worker: %w", name, err)
		}
		defer stop()
	}
	if err := publish(ctx, boss, n); err != nil {
		return err
	}
	done, err := d.watch(ctx, out, n+1, poison) // all but the poison one, and the dead worker's
	if err != nil {
		return err
	}
	if !done[died].again {
		return fmt.Errorf("the dead worker's task %s is not marked: %+v", died, done[died])
	}
	letter, err := await(ctx, boss)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "      %s is dead: %s after %s attempts\n", letter.task, letter.reason, letter.attempts)
	d.mended.Store(true)
	back, err := boss.Redrive(ctx, "q/dead", 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "      REDRIVE q/dead: %d of them are back\n", back)
	_, err = d.watch(ctx, out, 1, "")
	return err
}

// watch waits until so many tasks are done and says how. The one that is not
// awaited may fail meanwhile.
func (d *day) watch(ctx context.Context, out io.Writer, n int, not string) (map[string]doing, error) {
	done := make(map[string]doing)
	for len(done) < n {
		select {
		case w := <-d.doings:
			verb := "cannot do"
			if w.done {
				verb = "did"
			}
			fmt.Fprintf(out, "%-5s %s %s%s\n", w.by, verb, w.task, map[bool]string{true: " (again)"}[w.again])
			if _, twice := done[w.task]; w.done && (twice || w.task == not) {
				return done, fmt.Errorf("%s was done, and should not be", w.task)
			}
			if w.done {
				done[w.task] = w
			}
		case err := <-d.failed:
			return done, err
		case <-ctx.Done():
			return done, fmt.Errorf("%d of %d tasks: %w", len(done), n, context.Cause(ctx))
		}
	}
	return done, nil
}

// try does a task, or says that it cannot be done.
func (d *day) try(task string) bool { return task != poison || d.mended.Load() }

// tell says what a worker did, if anybody still listens.
func (d *day) tell(ctx context.Context, w doing) bool {
	select {
	case d.doings <- w:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *day) fail(ctx context.Context, err error) {
	select {
	case d.failed <- err:
	case <-ctx.Done():
	}
}
