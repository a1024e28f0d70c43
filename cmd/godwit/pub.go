package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/protocols/line/client"
)

// Exit codes of pub, sub and get beside 0 and 1, for scripts.
const (
	exitUsage   = 2
	exitNothing = 3 // get: nothing was there
)

const exitCodesHelp = `

Exit codes: 0 done; 1 no broker, refused, or out of time; 2 a wrong command line`

// A caller is how a command reaches the broker.
type caller struct {
	addr    string
	timeout time.Duration
	options client.Options
}

// flags are those that all commands that talk to a broker have.
func (c *caller) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.addr, "addr", "127.0.0.1:7070", "where the broker's line protocol is: host:port, or the path of a Unix socket")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long to wait for the broker")
	f.StringVar(&c.options.Client, "client", "", "a name of this client, for traces")
	f.StringVar(&c.options.User, "user", "", "who logs in")
	f.StringVar(&c.options.Pass, "pass", os.Getenv("GODWIT_PASS"), "the password; better in GODWIT_PASS, where no process list shows it")
	f.StringVar(&c.options.Token, "token", os.Getenv("GODWIT_TOKEN"), "a token instead; better in GODWIT_TOKEN")
	f.StringVar(&c.options.VHost, "vhost", "", "the virtual host")
	for _, secret := range []string{"pass", "token"} {
		f.Lookup(secret).DefValue = "" // help does not print it
	}
}

func (c *caller) dial(ctx context.Context) (*client.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %s", c.timeout))
	defer cancel()
	return client.Dial(ctx, c.addr, c.options)
}

// short is a context for one request.
func (c *caller) short(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %s", c.timeout))
}

// hangUp ends politely, and says what was not confirmed.
func hangUp(c *client.Client, err *error) {
	if e := c.Close(); *err == nil {
		*err = e
	}
}

// A publisher is one run of godwit pub.
type publisher struct {
	caller
	message client.Message
	headers []string
	file    string
	count   int
}

func newPubCommand() *cobra.Command {
	p := &publisher{}
	cmd := &cobra.Command{
		Use:   "pub DEST [PAYLOAD...]",
		Short: "Publish, and wait until the broker has it on the disk",
		Long: `Publish, and wait until the broker has it on the disk.

DEST is q/QUEUE, t/TOPIC or x/EXCHANGE/KEY. Words behind it are the payload,
joined by spaces. Without any, each line of the standard input is a message;
with --file the whole file is one. Silence means that all is confirmed.` + exitCodesHelp,
		Example: `  godwit pub q/orders hello world
  godwit pub t/plant/7/temp 21.5 --retain --content-type text/plain
  tail -f log | godwit pub x/logs/web
  godwit pub q/images --file cat.jpg --header camera=7`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.run(cmd, args) },
	}
	p.flags(cmd)
	f, m := cmd.Flags(), &p.message
	f.StringVar(&p.file, "file", "", "the payload is what this file holds; - is the standard input as one message")
	f.IntVar(&p.count, "count", 1, "publish it so many times")
	f.StringVar(&m.ContentType, "content-type", "", "what the payload is")
	f.StringVar(&m.CorrelationID, "correlation-id", "", "what an answer repeats")
	f.StringVar(&m.Reply, "reply", "", "where answers go: an address as DEST")
	f.StringVar(&m.Key, "key", "", "what orders it among others")
	f.StringArrayVar(&p.headers, "header", nil, "a header of yours, NAME=VALUE; may be repeated")
	f.DurationVar(&m.TTL, "ttl", 0, "when it expires")
	f.DurationVar(&m.Delay, "delay", 0, "deliver it that much later")
	f.IntVar(&m.Priority, "priority", 0, "1 to 9, the highest; 0: 4")
	f.BoolVar(&m.Retain, "retain", false, "keep it as the topic's last value")
	f.BoolVar(&m.Transient, "transient", false, "in memory is enough (QoS 0)")
	f.BoolVar(&m.Must, "must", false, "fail if nobody takes it")
	return cmd
}

func (p *publisher) run(cmd *cobra.Command, args []string) (err error) {
	p.message.Dest = args[0]
	switch {
	case p.file != "" && len(args) > 1:
		return &exitError{exitUsage, errors.New("either --file or words are the payload, not both")}
	case p.count < 1:
		return &exitError{exitUsage, errors.New("--count is 1 or more")}
	}
	for _, h := range p.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return &exitError{exitUsage, fmt.Errorf("--header %q: want NAME=VALUE", h)}
		}
		p.message.Headers = append(p.message.Headers, client.Header{Name: name, Value: value})
	}
	var whole []byte // the payload, where it is one
	if p.file != "" {
		if whole, err = readAll(cmd.InOrStdin(), p.file); err != nil {
			return err
		}
	}
	c, err := p.dial(cmd.Context())
	if err != nil {
		return err
	}
	defer hangUp(c, &err)
	switch {
	case p.file != "":
		return p.all(cmd.Context(), c, one(whole))
	case len(args) > 1:
		return p.all(cmd.Context(), c, one([]byte(strings.Join(args[1:], " "))))
	}
	return p.all(cmd.Context(), c, lines(cmd.Context(), cmd.InOrStdin()))
}

func readAll(stdin io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(file)
}

// A source gives payloads, io.EOF behind the last.
type source func() ([]byte, error)

func one(payload []byte) source {
	given := false
	return func() ([]byte, error) {
		if given {
			return nil, io.EOF
		}
		given = true
		return payload, nil
	}
}

// lines gives each line of in without its end, until the context ends: a
// terminal would keep the program otherwise. Its goroutine ends with the input,
// or with the process.
func lines(ctx context.Context, in io.Reader) source {
	type read struct {
		text []byte
		err  error
	}
	reads := make(chan read)
	go func() {
		r := bufio.NewReader(in)
		for {
			text, err := r.ReadBytes('\n')
			if len(text) > 0 {
				err = nil // the last line may have no end
			}
			select {
			case reads <- read{bytes.TrimRight(text, "\r\n"), err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return func() ([]byte, error) {
		select {
		case r := <-reads:
			return r.text, r.err
		case <-ctx.Done():
			return nil, io.EOF
		}
	}
}

// all publishes what a source gives, many at once, and waits for the last.
func (p *publisher) all(ctx context.Context, c *client.Client, next source) error {
	var watch watch
	for {
		payload, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for range p.count {
			m := p.message
			m.Body = payload
			if err := p.send(ctx, c, m, &watch); err != nil {
				return err
			}
		}
	}
	short, cancel := p.short(context.WithoutCancel(ctx)) // interrupted or not: what was sent is waited for
	defer cancel()
	if err := c.Flush(short); err != nil {
		return err
	}
	return watch.check()
}

func (p *publisher) send(ctx context.Context, c *client.Client, m client.Message, w *watch) error {
	short, cancel := p.short(ctx)
	defer cancel()
	pending, err := c.Send(short, m)
	if err != nil {
		return err
	}
	return w.add(pending)
}

// A watch sees to it that refused publishes are not missed.
type watch struct{ open []*client.Pending }

func (w *watch) add(p *client.Pending) error {
	w.open = append(w.open, p)
	return w.check()
}

// check forgets what is answered, oldest first. The error is a refusal.
func (w *watch) check() error {
	for len(w.open) > 0 {
		select {
		case <-w.open[0].Done():
		default:
			return nil
		}
		if err := w.open[0].Err(); err != nil {
			return err
		}
		w.open = w.open[1:]
	}
	return nil
}
