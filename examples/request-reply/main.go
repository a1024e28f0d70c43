// Command request-reply asks and answers across protocols: two services share
// one queue of requests, one over STOMP and one over the line protocol, and are
// asked by an MQTT 5 client, a STOMP client and a line client. Each asker has
// an address of its own for the answers; those of STOMP and line die with their
// connection.
//
//	MQTT 5   Response Topic ----\              /--STOMP--> service
//	STOMP    reply-to /temp-queue --> q/square
//	line     reply=r/...     ---/              \--line---> service
//
//	go run ./examples/request-reply
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/godwitmq/godwit/examples/internal/house"
)

func main() {
	var a house.Addresses
	flag.StringVar(&a.Line, "line", "", "address of a running broker's line protocol; empty: start one for this run")
	flag.StringVar(&a.STOMP, "stomp", "127.0.0.1:61613", "address of its STOMP")
	flag.StringVar(&a.MQTT, "mqtt", "127.0.0.1:1883", "address of its MQTT")
	n := flag.Int("questions", 5, "how many questions each client asks")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, a, *n); err != nil {
		fmt.Fprintln(os.Stderr, "request-reply:", err)
		os.Exit(1)
	}
}

const (
	patience = 30 * time.Second
	lifetime = 20 * time.Second // of a question: a late answer is of no use
)

// square is what the services know.
func square(question string) string {
	n, err := strconv.Atoi(question)
	if err != nil {
		return "not a number"
	}
	return strconv.Itoa(n * n)
}

// An asker asks n questions, waits for the answers and says what they were.
type asker struct {
	name string
	ask  func(ctx context.Context, a house.Addresses, n int) (map[string]string, error)
}

var askers = []asker{{"mqtt", askMQTT}, {"stomp", askSTOMP}, {"line", askLine}}

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
	for name, start := range map[string]func(context.Context, house.Addresses) (func(), error){"stomp": serveSTOMP, "line": serveLine} {
		stop, err := start(ctx, a)
		if err != nil {
			return fmt.Errorf("the %s service: %w", name, err)
		}
		defer stop()
	}
	for _, who := range askers {
		answers, err := who.ask(ctx, a, n)
		if err != nil {
			return fmt.Errorf("%s asks: %w", who.name, err)
		}
		for i := range n {
			question := strconv.Itoa(i)
			if answers[question] != square(question) {
				return fmt.Errorf("%s heard %q for %s", who.name, answers[question], question)
			}
		}
		fmt.Fprintf(out, "%-5s asked %d questions and heard every answer\n", who.name, n)
	}
	return answerTheDead(ctx, out, a)
}
