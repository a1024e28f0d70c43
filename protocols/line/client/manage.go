package client

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// A Row is one thing of a list and its figures.
type Row struct {
	Name   string
	Fields []Header
}

// Field is the value of a figure, or "".
func (r *Row) Field(name string) string {
	for _, f := range r.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Do says any answered verb, as one types it, and gives the rows of its answer.
func (c *Client) Do(ctx context.Context, words ...string) ([]string, error) {
	for _, w := range words {
		if err := checkWord("a word", w); err != nil {
			return nil, err
		}
	}
	k, err := c.call(ctx, strings.Join(words, " "), 0)
	if err != nil {
		return nil, err
	}
	return k.rows, nil
}

// Make declares a queue, q/..., an exchange, x/..., or a virtual host, v/...: options are words as
// "class=async". The same again is no error.
func (c *Client) Make(ctx context.Context, dest string, options ...string) error {
	_, err := c.Do(ctx, append([]string{"MK", dest}, options...)...)
	return err
}

// Remove removes it.
func (c *Client) Remove(ctx context.Context, dest string, options ...string) error {
	_, err := c.Do(ctx, append([]string{"RM", dest}, options...)...)
	return err
}

// Bind makes a queue or an exchange a target of what a source gets: t/FILTER,
// x/EXCHANGE/KEY or x/EXCHANGE. Options are words as "match=any" and ":tenant=acme".
func (c *Client) Bind(ctx context.Context, target, source string, options ...string) error {
	_, err := c.Do(ctx, append([]string{"BIND", target, source}, options...)...)
	return err
}

// Unbind is the reverse, with the same options.
func (c *Client) Unbind(ctx context.Context, target, source string, options ...string) error {
	_, err := c.Do(ctx, append([]string{"UNBIND", target, source}, options...)...)
	return err
}

// Purge empties a queue and says how many messages went.
func (c *Client) Purge(ctx context.Context, dest string) (int64, error) {
	return c.count(ctx, "PURGE", dest)
}

// Redrive brings dead letters back to the queues where they died, at most so
// many, 0: all that are there. It says how many.
func (c *Client) Redrive(ctx context.Context, dest string, most int64) (int64, error) {
	return c.count(ctx, "REDRIVE", dest, limit(most)...)
}

// Move takes what is ready in a queue to another address, at most so many, 0:
// all that is there. It says how many went.
func (c *Client) Move(ctx context.Context, source, target string, most int64) (int64, error) {
	return c.count(ctx, "MOVE", source, append([]string{target}, limit(most)...)...)
}

func limit(most int64) []string {
	if most <= 0 {
		return nil
	}
	return []string{"n=" + strconv.FormatInt(most, 10)}
}

// count asks for something whose answer is a number.
func (c *Client) count(ctx context.Context, verb, dest string, words ...string) (int64, error) {
	words = append([]string{verb, dest}, words...)
	for _, w := range words {
		if err := checkWord("a word of "+verb, w); err != nil {
			return 0, err
		}
	}
	k, err := c.call(ctx, strings.Join(words, " "), 0)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(k.ok["n"], 10, 64)
}

// Stat gives the figures of a queue or exchange.
func (c *Client) Stat(ctx context.Context, dest string) (Row, error) {
	rows, err := c.Do(ctx, "STAT", dest)
	if err != nil {
		return Row{}, err
	}
	if len(rows) != 1 {
		return Row{}, fmt.Errorf("STAT %s: %d rows", dest, len(rows))
	}
	return parseRow(rows[0]), nil
}

// List gives all that a pattern means: q/ord*, x/*, t/plant*, v/*. Options are
// words as "settings".
func (c *Client) List(ctx context.Context, pattern string, options ...string) (all []Row, err error) {
	for _, o := range options {
		if err := checkWord("an option", o); err != nil {
			return nil, err
		}
	}
	if err := checkWord("the pattern", pattern); err != nil {
		return nil, err
	}
	ask := strings.Join(append([]string{"LS", pattern}, options...), " ")
	for line := ask; line != ""; {
		k, err := c.call(ctx, line, 0)
		if err != nil {
			return nil, err
		}
		for _, r := range k.rows {
			all = append(all, parseRow(r))
		}
		line = string(appendOption([]byte(ask), "after", k.ok["after"]))
		if k.ok["after"] == "" {
			break
		}
	}
	return all, nil
}

// isAddress says whether a setting is an address, which keeps its own escapes.
func isAddress(setting string) bool {
	return setting == "alternate" || setting == "dead_letter" || setting == "archive"
}

func parseRow(text string) (r Row) {
	words := strings.Split(text, " ")
	r.Name = words[0]
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		if text, err := Unescape(name); err == nil {
			name = text
		}
		if text, err := Unescape(value); err == nil && !isAddress(name) {
			value = text
		}
		r.Fields = append(r.Fields, Header{name, value})
	}
	return r
}

// Ping asks whether the broker is there.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.Do(ctx, "PING")
	return err
}
