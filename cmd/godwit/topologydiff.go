package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/godwitmq/godwit/config"
	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols/line/client"
)

// A topology is the exchanges, queues and bindings of one virtual host, in the
// words of the line protocol: what a file says and what a broker has are
// compared in the same words.
type topology struct{ exchanges, queues, bindings []thing }

// A thing is one of them.
type thing struct {
	name     string       // q/orders, x/logs; of a binding its target
	source   string       // of a binding
	settings []core.Field // of a binding its arguments, and so its identity
}

func (t *thing) words() []string {
	var out []string
	for _, f := range t.settings {
		name, argument := strings.CutPrefix(f.Name, ":")
		switch {
		case argument:
			out = append(out, ":"+strings.ReplaceAll(client.Escape(name), "=", "%3D")+"="+client.Escape(f.Value))
		case f.Value == "":
			out = append(out, f.Name)
		case isAddress(f.Name):
			out = append(out, f.Name+"="+f.Value)
		default:
			out = append(out, f.Name+"="+client.Escape(f.Value))
		}
	}
	return out
}

func (t *thing) text() string {
	out := t.name
	if t.source != "" {
		out += " <- " + t.source
	}
	return strings.Join(append([]string{out}, t.words()...), " ")
}

func (t *thing) setting(name string) string {
	for _, f := range t.settings {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func (t *thing) without(name string) *thing {
	return &thing{t.name, t.source, slices.DeleteFunc(slices.Clone(t.settings), func(f core.Field) bool { return f.Name == name })}
}

func sortThings(ts []thing) {
	slices.SortFunc(ts, func(a, b thing) int { return cmp.Compare(a.text(), b.text()) })
}

// readTopology asks a broker.
func (c *caller) readTopology(ctx context.Context, conn *client.Client) (t topology, err error) {
	if t.exchanges, err = c.things(ctx, conn, "x/*"); err != nil {
		return t, err
	}
	if t.queues, err = c.things(ctx, conn, "q/*"); err != nil {
		return t, err
	}
	sources := []string{"t/*", "x/amq.direct/*", "x/amq.fanout/*", "x/amq.headers/*", "x/amq.topic/*"}
	for i := range t.exchanges {
		sources = append(sources, t.exchanges[i].name+"/*")
	}
	for _, pattern := range sources {
		rows, err := c.things(ctx, conn, pattern)
		if err != nil {
			return t, err
		}
		for _, row := range rows {
			t.bindings = append(t.bindings, bindingOf(row))
		}
	}
	sortThings(t.bindings)
	return t, nil
}

// things are rows with their settings.
func (c *caller) things(ctx context.Context, conn *client.Client, pattern string) ([]thing, error) {
	rows, err := c.list(ctx, conn, pattern, "settings")
	if err != nil {
		return nil, err
	}
	out := make([]thing, len(rows))
	for i, r := range rows {
		out[i].name = r.Name
		for _, f := range r.Fields {
			out[i].settings = append(out[i].settings, core.Field{Name: f.Name, Value: f.Value})
		}
	}
	return out, nil
}

// bindingOf reads a row of bindings, which is named after its source.
func bindingOf(row thing) thing {
	b := thing{source: strings.TrimSuffix(row.name, "/")}
	for _, f := range row.settings {
		switch f.Name {
		case "queue":
			b.name = core.Address{Exchange: core.DefaultExchange, Topic: f.Value}.String()
		case "exchange":
			b.name = core.Address{Exchange: f.Value}.String()
		default:
			b.settings = append(b.settings, f)
		}
	}
	return b
}

// topologyOf is what a file says, in the same words; have knows the kinds of
// exchanges that the file does not declare.
func topologyOf(vhost string, v *config.VHost, have topology) (t topology, err error) {
	for i := range v.Exchanges {
		x := &v.Exchanges[i]
		t.exchanges = append(t.exchanges, thing{name: core.Address{Exchange: x.Name}.String(), settings: canonical(x.Settings())})
	}
	for i := range v.Queues {
		q := &v.Queues[i]
		t.queues = append(t.queues, thing{name: core.Address{Exchange: core.DefaultExchange, Topic: q.Name}.String(), settings: canonical(q.Settings())})
	}
	for i := range v.Bindings {
		b, err := v.Bindings[i].Spec(vhost)
		if err != nil {
			return t, err
		}
		if b.Source.Topic == "" && (t.isTopic(b.Source.Exchange) || have.isTopic(b.Source.Exchange)) {
			b.Source.Topic = "#" // as the broker keeps it
		}
		t.bindings = append(t.bindings, thing{b.Target(), b.Source.String(), b.Settings()})
	}
	sortThings(t.exchanges)
	sortThings(t.queues)
	sortThings(t.bindings)
	return t, nil
}

func (t *topology) isTopic(exchange string) bool {
	name := core.Address{Exchange: exchange}.String()
	return exchange == core.TopicExchange || slices.ContainsFunc(t.exchanges, func(x thing) bool {
		return x.name == name && x.setting("kind") == core.TopicKind.String()
	})
}

// isAddress says whether a setting is an address, which has escapes of its own.
func isAddress(setting string) bool {
	return setting == "alternate" || setting == "dead_letter" || setting == "archive"
}

// canonical writes addresses the one way a broker does.
func canonical(settings []core.Field) []core.Field {
	for i, f := range settings {
		if isAddress(f.Name) {
			if a, err := core.ParseAddress("", f.Value); err == nil {
				settings[i].Value = a.String()
			}
		}
	}
	return settings
}

// A step is one change: what is printed of it, and how it is asked for.
type step struct {
	sign     byte // + - ~, or ? for what only the broker has
	what     string
	requests [][]string
}

func (s *step) print(out io.Writer) { fmt.Fprintf(out, "%c %s\n", s.sign, s.what) }

// changes are the steps from have to want. Queues come first and alternates
// last, so that what refers to something finds it there.
func (have *topology) changes(want topology, prune bool) (steps []step) {
	steps = append(steps, declares(have.queues, want.queues)...)
	exchanges := declares(have.exchanges, want.exchanges)
	var alternates [][]string
	for i := range exchanges {
		s := &exchanges[i]
		x := find(want.exchanges, nameOf(s.what))
		if s.sign == '+' && x.setting("alternate") != "" {
			s.requests = [][]string{mk(x.without("alternate"))}
			alternates = append(alternates, append(mk(x), "alter"))
		}
	}
	steps = append(steps, exchanges...)
	if len(alternates) > 0 {
		last := &steps[len(steps)-1]
		last.requests = append(last.requests, alternates...)
	}
	for i := range want.bindings {
		b := &want.bindings[i]
		if old := same(have.bindings, b); old == nil {
			steps = append(steps, step{'+', b.text(), [][]string{append([]string{"BIND", b.name, b.source}, b.words()...)}})
		}
	}
	return append(steps, have.surplus(want, prune)...)
}

// surplus is what only the broker has: removed where that is wanted.
func (have *topology) surplus(want topology, prune bool) (steps []step) {
	sign := byte('?')
	if prune {
		sign = '-'
	}
	for i := range have.bindings {
		if b := &have.bindings[i]; same(want.bindings, b) == nil {
			steps = append(steps, step{sign, b.text(), [][]string{append([]string{"UNBIND", b.name, b.source}, b.words()...)}})
		}
	}
	for _, q := range have.queues {
		if find(want.queues, q.name) == nil {
			steps = append(steps, step{sign, q.text(), [][]string{{"RM", q.name, "if_empty", "if_unused"}}})
		}
	}
	for _, x := range alternatesLast(have.exchanges) {
		if find(want.exchanges, x.name) == nil {
			steps = append(steps, step{sign, x.text(), [][]string{{"RM", x.name}}})
		}
	}
	return steps
}

// alternatesLast orders exchanges for their removal: one that is the alternate
// of another goes after it. Those in a circle lose their alternates by hand.
func alternatesLast(xs []thing) (out []thing) {
	left := slices.Clone(xs)
	for len(left) > 0 {
		before := len(left)
		for i := 0; i < len(left); i++ {
			if !slices.ContainsFunc(left, func(x thing) bool { return x.setting("alternate") == left[i].name }) {
				out = append(out, left[i])
				left = slices.Delete(left, i, i+1)
				i--
			}
		}
		if len(left) == before {
			return append(out, left...)
		}
	}
	return out
}

func declares(have, want []thing) (steps []step) {
	for i := range want {
		w := &want[i]
		switch old := find(have, w.name); {
		case old == nil:
			steps = append(steps, step{'+', w.text(), [][]string{mk(w)}})
		case old.text() != w.text():
			what := w.text() + "  (was" + strings.TrimPrefix(old.text(), old.name) + ")"
			steps = append(steps, step{'~', what, [][]string{append(mk(w), "alter")}})
		}
	}
	return steps
}

func mk(t *thing) []string { return append([]string{"MK", t.name}, t.words()...) }

func nameOf(what string) string {
	name, _, _ := strings.Cut(what, " ")
	return name
}

func find(in []thing, name string) *thing {
	for i := range in {
		if in[i].name == name {
			return &in[i]
		}
	}
	return nil
}

// same finds a binding, which is its target, its source and its arguments.
func same(in []thing, b *thing) *thing {
	text := b.text()
	for i := range in {
		if in[i].name == b.name && in[i].source == b.source && in[i].text() == text {
			return &in[i]
		}
	}
	return nil
}
