package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/protocols/line/client"
)

// A printer shows what came.
type printer struct {
	verbose, json, raw bool
}

func (p *printer) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&p.verbose, "verbose", "v", false, "say where each message came from, and its headers, on a line before it")
	f.BoolVar(&p.json, "json", false, "one JSON object a line")
	f.BoolVar(&p.raw, "raw", false, "payloads alone, without line ends between them")
	cmd.MarkFlagsMutuallyExclusive("verbose", "json", "raw")
}

func (p *printer) print(out io.Writer, d *client.Delivery) error {
	switch {
	case p.json:
		return json.NewEncoder(out).Encode(shown(d))
	case p.raw:
		_, err := out.Write(d.Body)
		return err
	case p.verbose:
		fmt.Fprintf(out, "%s%s\n", d.Dest, details(d))
	}
	_, err := out.Write(append(slices.Clip(d.Body), '\n'))
	return err
}

// details are what a message says of itself, as the line protocol writes it.
func details(d *client.Delivery) string {
	var b strings.Builder
	say := func(name, value string) {
		if value != "" {
			b.WriteString(" " + name + "=" + client.Escape(value))
		}
	}
	say("ts", d.Time.UTC().Format(time.RFC3339Nano))
	say("key", d.Key)
	say("ct", d.ContentType)
	say("cid", d.CorrelationID)
	if d.Reply != "" {
		b.WriteString(" reply=" + d.Reply)
	}
	for _, h := range d.Headers {
		b.WriteString(" :" + strings.ReplaceAll(client.Escape(h.Name), "=", "%3D") + "=" + client.Escape(h.Value))
	}
	if d.Retained {
		b.WriteString(" retain")
	}
	if d.Attempt > 1 {
		fmt.Fprintf(&b, " n=%d", d.Attempt)
	}
	return b.String()
}

// A showing is a message in JSON. A body that is no UTF-8 is in base64.
type showing struct {
	Dest          string          `json:"dest"`
	Seq           uint64          `json:"seq,omitempty"`
	Time          time.Time       `json:"time"`
	Attempt       int             `json:"attempt"`
	Retained      bool            `json:"retained,omitempty"`
	ContentType   string          `json:"content_type,omitempty"`
	CorrelationID string          `json:"correlation_id,omitempty"`
	Reply         string          `json:"reply,omitempty"`
	Key           string          `json:"key,omitempty"`
	Headers       []client.Header `json:"headers,omitempty"`
	Body          *string         `json:"body,omitempty"`
	Base64        string          `json:"body_base64,omitempty"`
}

func shown(d *client.Delivery) showing {
	s := showing{
		Dest: d.Dest, Seq: d.Seq, Time: d.Time.UTC(), Attempt: d.Attempt, Retained: d.Retained,
		ContentType: d.ContentType, CorrelationID: d.CorrelationID, Reply: d.Reply, Key: d.Key, Headers: d.Headers,
	}
	if utf8.Valid(d.Body) {
		text := string(d.Body)
		s.Body = &text
	} else {
		s.Base64 = base64.StdEncoding.EncodeToString(d.Body)
	}
	return s
}

// ackOf reads --ack.
func ackOf(word string) (client.Ack, error) {
	switch word {
	case "":
		return client.AckDefault, nil
	case "none":
		return client.AckNone, nil
	case "auto":
		return client.AckAuto, nil
	case "manual":
		return client.AckManual, nil
	}
	return 0, &exitError{exitUsage, fmt.Errorf("--ack %q: want none, auto or manual", word)}
}

// A subscriber is one run of godwit sub.
type subscriber struct {
	caller
	printer
	options client.SubOptions
	ack     string
	count   int
	limit   time.Duration
}

func newSubCommand() *cobra.Command {
	s := &subscriber{}
	cmd := &cobra.Command{
		Use:   "sub DEST",
		Short: "Print what comes, until interrupted",
		Long: `Print what comes, until interrupted.

DEST is q/QUEUE, a topic filter t/FILTER, or x/EXCHANGE/KEY. Of a queue each
message is settled after it was printed, so that none is lost if the output
is. Topics and exchanges are live: what comes while nobody listens is not seen,
unless --ack=manual puts a queue behind the subscription.` + exitCodesHelp,
		Example: `  godwit sub t/plant/+/temp -v
  godwit sub q/orders --count 10
  godwit sub t/# --json | jq .dest`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd, args[0]) },
	}
	s.caller.flags(cmd)
	s.printer.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&s.ack, "ack", "", "who settles: none (live), auto (the broker, as it sends), manual (this program, after printing)")
	f.IntVar(&s.count, "count", 0, "end after so many messages; 0: never")
	f.DurationVar(&s.limit, "for", 0, "end after that time; 0: never")
	f.IntVar(&s.options.Window, "window", 0, "messages that may be unsettled at once; 0: 1000")
	f.BoolVar(&s.options.NoRetained, "no-retained", false, "without the topics' last values")
	return cmd
}

func (s *subscriber) run(cmd *cobra.Command, dest string) (err error) {
	if s.options.Ack, err = ackOf(s.ack); err != nil {
		return err
	}
	s.caller.options.OnError = func(err error) { fmt.Fprintln(cmd.ErrOrStderr(), "godwit:", err) }
	c, err := s.dial(cmd.Context())
	if err != nil {
		return err
	}
	defer hangUp(c, &err)
	short, cancel := s.short(cmd.Context())
	defer cancel()
	sub, err := c.Subscribe(short, dest, s.options)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if s.limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, s.limit)
		defer stop()
	}
	err = s.follow(ctx, cmd, sub)
	if missed := sub.Missed(); missed > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "godwit: %d messages came faster than they could be printed, and are missing\n", missed)
	}
	return err
}

// follow prints until enough came, time is over or somebody interrupts.
func (s *subscriber) follow(ctx context.Context, cmd *cobra.Command, sub *client.Subscription) error {
	out := bufio.NewWriter(cmd.OutOrStdout())
	n := 0
	for d, err := range sub.All(ctx) {
		if err != nil {
			if ctx.Err() != nil {
				return nil // that is how it ends
			}
			return err
		}
		if err := s.print(out, d); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if err := d.Ack(); err != nil {
			return err
		}
		if n++; n == s.count {
			return nil
		}
	}
	return errors.New("the subscription ended")
}
