// Command device-to-queue is a day in the life of a plant: machines publish
// their temperature over MQTT, the broker keeps each reading in a queue, and
// two workers share the work, one over STOMP and one over the line protocol.
//
//	machines --MQTT, QoS 1--> t/plant/+/temp --> q/readings --STOMP--> worker
//	                                                        \--line--> worker
//
// Nobody knows anybody: the machines publish a topic, the workers read a queue,
// and a binding between the two is all that joins them.
//
//	go run ./examples/device-to-queue
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/godwitmq/godwit/examples/internal/house"
)

func main() {
	var a house.Addresses
	flag.StringVar(&a.MQTT, "mqtt", "", "address of a running broker's MQTT; empty: start one for this run")
	flag.StringVar(&a.STOMP, "stomp", "127.0.0.1:61613", "address of its STOMP")
	flag.StringVar(&a.Line, "line", "127.0.0.1:7070", "address of its line protocol")
	n := flag.Int("readings", 20, "how many readings the machines publish")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, a, *n); err != nil {
		fmt.Fprintln(os.Stderr, "device-to-queue:", err)
		os.Exit(1)
	}
}

// A worked is one reading that a worker has finished.
type worked struct {
	by, topic, reading string
}

// patience is how long the work may take.
const patience = 30 * time.Second

// run does it all and says who worked on what. It is an error if a reading is
// missing, or was worked on twice.
func run(ctx context.Context, out io.Writer, a house.Addresses, n int) (err error) {
	if a.MQTT == "" {
		b, err := house.Start(ctx)
		if err != nil {
			return err
		}
		defer b.Stop()
		a = b.Addresses
		fmt.Fprintf(out, "started a broker: mqtt %s, stomp %s, line %s\n", a.MQTT, a.STOMP, a.Line)
	}
	done, err := work(ctx, a, n)
	if err != nil {
		return err
	}
	return report(out, done, n)
}

// work binds the queue, starts both workers, lets the machines publish n
// readings, and returns what was worked on.
func work(ctx context.Context, a house.Addresses, n int) ([]worked, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("not done after 30 s"))
	defer cancel()
	if err := bind(ctx, a.Line); err != nil {
		return nil, fmt.Errorf("bind the queue: %w", err)
	}
	results := make(chan worked)
	failed := make(chan error, 3)
	for name, start := range map[string]func(context.Context, house.Addresses, chan<- worked, chan<- error) (func(), error){
		"stomp": startStompWorker,
		"line":  startLineWorker,
	} {
		stop, err := start(ctx, a, results, failed)
		if err != nil {
			return nil, fmt.Errorf("start the %s worker: %w", name, err)
		}
		defer stop()
	}
	go func() { // ends with ctx at the latest
		if err := publish(ctx, a.MQTT, n); err != nil {
			failed <- fmt.Errorf("publish: %w", err)
		}
	}()
	var done []worked
	for len(done) < n {
		select {
		case w := <-results:
			done = append(done, w)
		case err := <-failed:
			return done, err
		case <-ctx.Done():
			return done, fmt.Errorf("%d of %d readings: %w", len(done), n, context.Cause(ctx))
		}
	}
	return done, nil
}

// report prints who worked on what and checks that it was each reading once.
func report(out io.Writer, done []worked, n int) error {
	by, times := map[string]int{}, map[string]int{}
	for _, w := range done {
		fmt.Fprintf(out, "%-5s worked on %s %s\n", w.by, w.topic, w.reading)
		by[w.by]++
		times[w.reading]++
	}
	for i := range n {
		if got := times[reading(i)]; got != 1 {
			return fmt.Errorf("reading %s was worked on %d times, want once", reading(i), got)
		}
	}
	fmt.Fprintf(out, "%d readings, each worked on once: %d over STOMP, %d over the line protocol\n", n, by["stomp"], by["line"])
	return nil
}

// reading is what machine i says. Each is different, so that none can hide.
func reading(i int) string { return fmt.Sprintf("%d.%d", 20+i/10, i%10) }
