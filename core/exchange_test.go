package core_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/topic"
)

func exchangeOf(name, key string) core.Address {
	return core.Address{VHost: "/", Exchange: name, Topic: key}
}

func exchangeNamed(name string, kind core.ExchangeKind) core.Change {
	return core.Change{Exchange: &core.ExchangeSpec{Name: name, Kind: kind}}
}

func boundTo(queue string, source core.Address, args ...core.Header) core.Change {
	return core.Change{Binding: &core.BindingSpec{Queue: queue, Source: source, Args: args}}
}

func between(target string, source core.Address) core.Change {
	return core.Change{Binding: &core.BindingSpec{Exchange: target, Source: source}}
}

func arg(name, value string) core.Header { return core.Header{Name: name, Value: value} }

// readAll consumes each of the queues under its number from 1 on.
func (c *client) readAll(queues ...string) {
	for i, q := range queues {
		c.Consume(core.Sub{ID: uint32(i + 1), Where: queueOf(q), Credit: core.Credit{Messages: 1000, Auto: true}}, 0)
	}
	c.take()
}

// got says which of the numbered queues delivered what, and settles it.
func (c *client) got(queues ...string) []string {
	var out []string
	for _, e := range c.take() {
		if e.Kind == core.Delivered {
			out = append(out, queues[e.Sub-1]+" "+string(e.Message.Body))
			c.Ack(e.Tag)
		}
	}
	slices.Sort(out)
	return out
}

// Each kind gives a message to the queues it should, once each.
//
// mission: S3 S4
func TestKindsOfExchanges(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{Unanswered: 1000})
	c.mustApply(
		queueNamed("a"), queueNamed("b"), queueNamed("c"),
		exchangeNamed("direct", core.DirectKind), exchangeNamed("fanout", core.FanoutKind),
		exchangeNamed("topic", core.TopicKind), exchangeNamed("headers", core.HeadersKind),
		boundTo("a", exchangeOf("direct", "red")), boundTo("a", exchangeOf("direct", "green")), boundTo("b", exchangeOf("direct", "blue")),
		boundTo("a", exchangeOf("fanout", "")), boundTo("a", exchangeOf("fanout", "again")), boundTo("b", exchangeOf("fanout", "k")),
		boundTo("a", exchangeOf("topic", "log/#")), boundTo("b", exchangeOf("topic", "log/+/err")), boundTo("c", exchangeOf("topic", "")),
		boundTo("a", exchangeOf("headers", ""), arg("kind", "pdf"), arg("size", "a4")),
		boundTo("c", exchangeOf("headers", ""), arg("size", "")),
		core.Change{Binding: &core.BindingSpec{Queue: "b", Source: exchangeOf("headers", ""), Match: core.MatchAny, Args: []core.Header{arg("kind", "pdf"), arg("size", "a3")}}},
	)
	queues := []string{"a", "b", "c"}
	c.readAll(queues...)
	for _, tt := range []struct {
		what    string
		to      core.Address
		headers []core.Header
		want    []string
	}{
		{"direct compares the whole key", exchangeOf("direct", "red"), nil, []string{"a"}},
		{"direct: another key, another queue", exchangeOf("direct", "blue"), nil, []string{"b"}},
		{"direct: part of a key is no key", exchangeOf("direct", "red/dark"), nil, nil},
		{"direct: wildcards of a message are text", exchangeOf("direct", "#"), nil, nil},
		{"fanout takes any key, and a queue bound twice gets it once", exchangeOf("fanout", "x"), nil, []string{"a", "b"}},
		{"fanout needs no key", exchangeOf("fanout", ""), nil, []string{"a", "b"}},
		{"topic matches filters; no key in a binding is all of them", exchangeOf("topic", "log/disk/err"), nil, []string{"a", "b", "c"}},
		{"topic: the parent belongs to #", exchangeOf("topic", "log"), nil, []string{"a", "c"}},
		{"headers: all of them, one of them, any value", exchangeOf("headers", "k"), []core.Header{arg("kind", "pdf"), arg("size", "a4")}, []string{"a", "b", "c"}},
		{"headers: one is not all", exchangeOf("headers", ""), []core.Header{arg("kind", "pdf")}, []string{"b"}},
		{"headers: of a repeated one the first counts", exchangeOf("headers", ""), []core.Header{arg("size", "a5"), arg("size", "a3")}, []string{"c"}},
		{"headers: none is there", exchangeOf("headers", ""), nil, nil},
	} {
		for range 2 { // matched, and remembered
			m := message(tt.to, 1, "m")
			m.Headers = tt.headers
			if err := c.Publish(m, 7); err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, q := range tt.want {
				want = append(want, q+" m")
			}
			if diff := cmp.Diff(want, c.got(queues...)); diff != "" {
				t.Errorf("%s:\n%s", tt.what, diff)
			}
		}
	}
}

// Five queues, a hundred messages: a hundred in each.
//
// mission: S3
func TestFanoutToFive(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{Unanswered: 200})
	queues := []string{"1", "2", "3", "4", "5"}
	for _, q := range queues {
		c.mustApply(queueNamed(q), boundTo(q, exchangeOf(core.FanoutExchange, "")))
	}
	for i := range 100 {
		c.publish(exchangeOf(core.FanoutExchange, ""), 1, fmt.Sprint(i), uint64(i+10))
	}
	c.take()
	x.cut()
	c, _ = x.connect(core.SessionSpec{})
	var want []string
	for _, q := range queues {
		for i := range 100 {
			want = append(want, fmt.Sprint(q, " ", i))
		}
	}
	slices.Sort(want)
	for i, q := range queues {
		c.Consume(core.Sub{ID: uint32(i + 1), Where: queueOf(q), Credit: core.Credit{Messages: 1000, Auto: true}}, 0)
	}
	if diff := cmp.Diff(want, c.got(queues...)); diff != "" {
		t.Error(diff)
	}
}

// Arguments that begin with x- count where the match says so.
func TestArgumentsWithX(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	matches := []core.Match{core.MatchAll, core.MatchAny, core.MatchAllWithX, core.MatchAnyWithX}
	queues := []string{"all", "any", "all-with-x", "any-with-x"}
	for i, q := range queues {
		c.mustApply(queueNamed(q), core.Change{Binding: &core.BindingSpec{
			Queue: q, Source: exchangeOf(core.HeadersExchange, ""), Match: matches[i], Args: []core.Header{arg("a", "1"), arg("x-b", "2")},
		}})
		if got := matches[i].String(); got != q {
			t.Errorf("match %d is called %s, want %s", i, got, q)
		}
	}
	c.readAll(queues...)
	for _, tt := range []struct {
		headers []core.Header
		want    []string
	}{
		{[]core.Header{arg("a", "1")}, []string{"all m", "any m", "any-with-x m"}},
		{[]core.Header{arg("x-b", "2")}, []string{"any-with-x m"}},
		{[]core.Header{arg("a", "1"), arg("x-b", "2")}, []string{"all m", "all-with-x m", "any m", "any-with-x m"}},
		{[]core.Header{arg("a", "2")}, nil},
	} {
		m := message(exchangeOf(core.HeadersExchange, ""), 1, "m")
		m.Headers = tt.headers
		if err := c.Publish(m, 7); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, c.got(queues...)); diff != "" {
			t.Errorf("%v:\n%s", tt.headers, diff)
		}
	}
}

// A message goes through each exchange once, whatever is bound to what.
func TestExchangesBoundInACircle(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(
		queueNamed("q"), exchangeNamed("a", core.FanoutKind), exchangeNamed("b", core.FanoutKind), exchangeNamed("c", core.TopicKind),
		between("b", exchangeOf("a", "")), between("c", exchangeOf("b", "")), between("a", exchangeOf("c", "#")),
		boundTo("q", exchangeOf("a", "")), boundTo("q", exchangeOf("c", "k")),
	)
	c.readAll("q")
	for _, from := range []string{"a", "b", "c"} {
		c.publish(exchangeOf(from, "k"), 1, from, 7)
		if diff := cmp.Diff([]string{"q " + from}, c.got("q")); diff != "" {
			t.Errorf("published to %s:\n%s", from, diff)
		}
	}
}

// What no binding takes goes to the alternate; where there is none, or nobody
// there, the publisher is told that nobody has it.
//
// mission: S4, P5
func TestAlternate(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(
		queueNamed("hit"), queueNamed("rest"), queueNamed("last"),
		core.Change{Exchange: &core.ExchangeSpec{Name: "jobs", Kind: core.DirectKind, Alternate: "x/second"}},
		core.Change{Exchange: &core.ExchangeSpec{Name: "second", Kind: core.TopicKind, Alternate: "q/last"}},
		exchangeNamed("plain", core.DirectKind),
		boundTo("hit", exchangeOf("jobs", "red")), boundTo("rest", exchangeOf("second", "blue/#")),
	)
	queues := []string{"hit", "rest", "last"}
	c.readAll(queues...)
	for _, tt := range []struct {
		to   core.Address
		want []string
	}{
		{exchangeOf("jobs", "red"), []string{"hit m"}},
		{exchangeOf("jobs", "blue"), []string{"rest m"}},
		{exchangeOf("jobs", "green"), []string{"last m"}},
	} {
		c.publish(tt.to, 1, "m", 7)
		if diff := cmp.Diff(tt.want, c.got(queues...)); diff != "" {
			t.Errorf("%s:\n%s", tt.to, diff)
		}
	}
	c.publish(exchangeOf("plain", "k"), 1, "m", 8)
	if e := c.take()[0]; e.N != 0 || e.Err != nil {
		t.Errorf("nobody wants it: confirmed with N %d, error %v; want 0 and none", e.N, e.Err)
	}
	m := message(exchangeOf("plain", "k"), 1, "m")
	m.Must = true
	if err := c.Publish(m, 9); err != nil {
		t.Fatal(err)
	}
	if e := c.take()[0]; !errors.Is(e.Err, core.ErrNotFound) {
		t.Errorf("nobody wants it, and somebody must: %v, want 404", e.Err)
	}
	page, err := x.b.Inspect(core.Query{About: core.Exchanges, Name: "jobs"})
	if err != nil || fmt.Sprint(page.Rows) != "[{jobs [{kind direct} {bindings 1} {unrouted 0} {diverted 2}]}]" {
		t.Errorf("jobs: %v, %v", page.Rows, err)
	}
}

// What a headers exchange does not take may be for its alternate, by other
// headers: what is remembered of one does not decide for the other.
func TestAlternateOfHeaders(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("a"), queueNamed("b"), exchangeNamed("second", core.HeadersKind),
		core.Change{Exchange: &core.ExchangeSpec{Name: "first", Kind: core.HeadersKind, Alternate: "x/second"}},
		boundTo("a", exchangeOf("first", ""), arg("a", "1")), boundTo("b", exchangeOf("second", ""), arg("b", "1")))
	c.readAll("a", "b")
	for _, tt := range []struct {
		headers []core.Header
		want    []string
	}{
		{nil, nil},
		{[]core.Header{arg("b", "1")}, []string{"b m"}},
		{[]core.Header{arg("b", "1"), arg("a", "1")}, []string{"a m"}},
		{[]core.Header{arg("b", "2")}, nil},
	} {
		m := message(exchangeOf("first", "k"), 1, "m")
		m.Headers = tt.headers
		if err := c.Publish(m, 7); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, c.got("a", "b")); diff != "" {
			t.Errorf("%v:\n%s", tt.headers, diff)
		}
	}
}

// Many bindings of one exchange come and go in any order.
func TestManyBindings(t *testing.T) {
	for _, kind := range []core.ExchangeKind{core.FanoutKind, core.DirectKind, core.TopicKind, core.HeadersKind} {
		x := newBox(t, core.Options{})
		c, _ := x.connect(core.SessionSpec{})
		c.mustApply(exchangeNamed("x", kind))
		in := make(map[int]bool)
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(300) {
			n := i % 100
			change := boundTo(fmt.Sprint(n), exchangeOf("x", "k"))
			if kind == core.HeadersKind {
				change.Binding.Args = []core.Header{arg("k", "")}
			}
			if in[n] {
				change.Do = core.Remove
			} else {
				c.mustApply(queueNamed(fmt.Sprint(n)))
			}
			c.mustApply(change)
			in[n] = !in[n]
			m := message(exchangeOf("x", "k"), 1, "m")
			m.Headers = []core.Header{arg("k", "v")}
			if err := c.Publish(m, 7); err != nil {
				t.Fatal(err)
			}
			c.take()
			page, _ := x.b.Inspect(core.Query{About: core.Queues})
			for _, r := range page.Rows {
				q, _ := strconv.Atoi(r.Name)
				if got := r.Fields[0].Value; (got == "1") != in[q] {
					t.Fatalf("%s: queue %d has %s, bound %v", kind, q, got, in[q])
				}
				c.mustApply(core.Change{Do: core.Purge, Queue: &core.QueueSpec{Name: r.Name}})
			}
		}
	}
}

// What cannot be declared is refused with a sentence, and nothing is done.
//
// mission: S6
func TestRefusedTopology(t *testing.T) {
	x := newBox(t, core.Options{Topology: core.TopologyLimits{Exchanges: 4, Bindings: 2, HeaderBindings: 2, Arguments: 2}})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("q"), exchangeNamed("jobs", core.DirectKind), exchangeNamed("news", core.FanoutKind),
		boundTo("q", exchangeOf("jobs", "k")), core.Change{Exchange: &core.ExchangeSpec{Name: "in", Kind: core.FanoutKind, Internal: true}})
	same := func(spec core.ExchangeSpec, do core.Do) core.Change { return core.Change{Do: do, Exchange: &spec} }
	for _, tt := range []struct {
		what   string
		change core.Change
		code   core.Code
		says   string
	}{
		{"another kind", exchangeNamed("jobs", core.FanoutKind), 409, "kind is direct, asked for fanout"},
		{"another setting", same(core.ExchangeSpec{Name: "jobs", Kind: core.DirectKind, Internal: true}, core.Declare), 409, "internal is false, asked for true"},
		{"a kind cannot be altered", same(core.ExchangeSpec{Name: "jobs", Kind: core.TopicKind}, core.Alter), 409, "cannot be altered"},
		{"a predeclared one, otherwise", exchangeNamed(core.DirectExchange, core.FanoutKind), 409, "predeclared"},
		{"a predeclared one, altered", same(core.ExchangeSpec{Name: core.DirectExchange, Kind: core.DirectKind, AutoDelete: true}, core.Alter), 409, "predeclared"},
		{"a predeclared one, removed", same(core.ExchangeSpec{Name: core.FanoutExchange}, core.Remove), 403, "predeclared"},
		{"the default one", exchangeNamed(core.DefaultExchange, core.DirectKind), 403, "cannot be changed"},
		{"the broker's names", exchangeNamed("amq.mine", core.DirectKind), 403, "amq."},
		{"an over-long name", exchangeNamed(strings.Repeat("x", 256), core.DirectKind), 400, "the limit is 255"},
		{"an unknown kind", exchangeNamed("odd", core.ExchangeKind(9)), 406, "no kind 9"},
		{"an unknown alternate", same(core.ExchangeSpec{Name: "y", Alternate: "x/nowhere"}, core.Declare), 404, "x/nowhere does not exist"},
		{"an alternate that is none", same(core.ExchangeSpec{Name: "y", Alternate: "t/a/b"}, core.Declare), 406, "an alternate is"},
		{"its own alternate", same(core.ExchangeSpec{Name: "y", Alternate: "x/y"}, core.Declare), 406, "its own"},
		{"removing what is not there", same(core.ExchangeSpec{Name: "none"}, core.Remove), 404, "none"},
		{"removing what is in use", core.Change{Do: core.Remove, IfUnused: true, Exchange: &core.ExchangeSpec{Name: "jobs"}}, 409, "1 bindings"},
		{"purging", core.Change{Do: core.Purge, Exchange: &core.ExchangeSpec{Name: "jobs"}}, 406, "holds nothing"},
		{"no such source", boundTo("q", exchangeOf("none", "k")), 404, "none"},
		{"the default exchange as a source", boundTo("q", exchangeOf(core.DefaultExchange, "k")), 403, "takes no bindings"},
		{"no such queue", boundTo("nobody", exchangeOf("jobs", "k")), 404, "nobody"},
		{"no such target", between("nowhere", exchangeOf("jobs", "k")), 404, "nowhere"},
		{"the default exchange as a target", between(core.DefaultExchange, exchangeOf("jobs", "k")), 403, "takes no bindings"},
		{"bound to itself", between("jobs", exchangeOf("jobs", "k")), 406, "itself"},
		{"two targets", core.Change{Binding: &core.BindingSpec{Queue: "q", Exchange: "news", Source: exchangeOf("jobs", "k")}}, 406, "one target"},
		{"direct without a key", boundTo("q", exchangeOf("jobs", "")), 400, "wants a key"},
		{"direct with wildcards", boundTo("q", exchangeOf("jobs", "a/#")), 406, "whole keys"},
		{"a bad filter", boundTo("q", topicOf("a#")), 400, "whole levels"},
		{"arguments where nobody asks them", boundTo("q", exchangeOf("news", ""), arg("a", "1")), 406, "headers exchange"},
		{"an argument twice", boundTo("q", exchangeOf(core.HeadersExchange, ""), arg("a", "1"), arg("a", "2")), 406, "twice"},
		{"an argument without a name", boundTo("q", exchangeOf(core.HeadersExchange, ""), arg("", "1")), 400, "empty"},
		{"too many arguments", boundTo("q", exchangeOf(core.HeadersExchange, ""), arg("a", "1"), arg("b", "2"), arg("c", "3")), 431, "the limit is 2"},
		{"unbinding what is not bound", core.Change{Do: core.Remove, Binding: &core.BindingSpec{Queue: "q", Source: exchangeOf("jobs", "other")}}, 404, "is not bound"},
	} {
		// Beside it a change that is right: it must not be done either.
		err := c.apply(queueNamed("beside"), tt.change)
		var e *core.Error
		if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Text, tt.says) {
			t.Errorf("%s: %v, want %d with %q", tt.what, err, tt.code, tt.says)
		}
	}
	if page, _ := x.b.Inspect(core.Query{About: core.Queues}); len(page.Rows) != 1 {
		t.Errorf("half done: %v", page.Rows)
	}
	if err := c.apply(exchangeNamed("4", core.FanoutKind), exchangeNamed("5", core.FanoutKind)); !errors.Is(err, core.ErrQuota) {
		t.Errorf("more exchanges than the limit: %v", err)
	}
	if err := c.apply(boundTo("q", exchangeOf("jobs", "2")), boundTo("q", exchangeOf("jobs", "3"))); !errors.Is(err, core.ErrQuota) {
		t.Errorf("more bindings than the limit: %v", err)
	}
	if err := c.apply(boundTo("q", exchangeOf("amq.headers", "2")), boundTo("q", exchangeOf("amq.headers", "3")), boundTo("q", exchangeOf("amq.headers", "4"))); !errors.Is(err, core.ErrQuota) {
		t.Errorf("more bindings of a headers exchange than the limit: %v", err)
	}
	c.mustApply(boundTo("q", exchangeOf("jobs", "2")))
	c.mustApply(boundTo("q", exchangeOf("jobs", "2"))) // the same again, at the limit
	page, _ := x.b.Inspect(core.Query{About: core.Counters, Prefix: "refused_"})
	if got := fmt.Sprint(page.Rows); got != "[{refused_arguments [{value 1}]} {refused_bindings [{value 2}]} {refused_exchanges [{value 1}]} {refused_vhosts [{value 0}]}]" {
		t.Errorf("counted: %s", got)
	}
	for _, tt := range []struct {
		to   core.Address
		code core.Code
	}{
		{exchangeOf("in", "k"), core.CodeDenied},
		{exchangeOf("jobs", ""), core.CodeSyntax},
		{exchangeOf("none", "k"), core.CodeNotFound},
	} {
		c.publish(tt.to, 1, "m", 7)
		if e := c.take()[0]; core.AsError(e.Err) == nil || core.AsError(e.Err).Code != tt.code {
			t.Errorf("publish to %s: %v, want %d", tt.to, e.Err, tt.code)
		}
	}
}

// What one Apply declares is on the disk all together or not at all.
//
// mission: S6
func TestTopologyIsAllOrNothing(t *testing.T) {
	for _, synced := range []bool{false, true} {
		x := newBox(t, core.Options{})
		c, _ := x.connect(core.SessionSpec{})
		x.disk.Hold()
		c.Apply([]core.Change{
			exchangeNamed("a", core.FanoutKind), exchangeNamed("b", core.HeadersKind), queueNamed("q"),
			between("b", exchangeOf("a", "")), boundTo("q", exchangeOf("b", ""), arg("k", "v")),
		}, 99)
		if ev := c.take(); len(ev) > 0 {
			t.Fatalf("answered before the disk has it: %v", ev)
		}
		want := 0
		if synced {
			x.disk.Sync()
			want = 2
			if ev := c.take(); len(ev) != 1 || ev[0].Err != nil {
				t.Fatalf("synced: %v", ev)
			}
		}
		x.disk.Cut()
		x.disk.Resume()
		x.start()
		x.settle()
		bindings, _ := x.b.Inspect(core.Query{About: core.Bindings})
		queues, _ := x.b.Inspect(core.Query{About: core.Queues})
		exchanges, _ := x.b.Inspect(core.Query{About: core.Exchanges, Settings: true})
		if len(bindings.Rows) != want || len(queues.Rows) != want/2 || len(exchanges.Rows) != want {
			t.Errorf("synced %v: %d bindings, %d queues, %d exchanges", synced, len(bindings.Rows), len(queues.Rows), len(exchanges.Rows))
		}
	}
}

// What a session remembers of routes is bounded, whatever keys and headers it
// publishes.
func TestRememberedRoutesAreBounded(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	for i := range 30 {
		c.mustApply(queueNamed(fmt.Sprint(i)), boundTo(fmt.Sprint(i), exchangeOf(core.HeadersExchange, ""), arg(fmt.Sprint("h", i), "")))
	}
	c.mustApply(between(core.HeadersExchange, exchangeOf(core.DirectExchange, "k")))
	for i := range 5000 {
		m := message(exchangeOf(core.HeadersExchange, ""), 0, "")
		for bit := range 30 {
			if i>>bit&1 == 1 {
				m.Headers = append(m.Headers, arg(fmt.Sprint("h", bit), "1"))
			}
		}
		n, err := core.Routed(c.Session, m)
		if want := min(len(m.Headers), 1); n != want || err != nil { // one shard
			t.Fatalf("%d headers: %d targets, %v", len(m.Headers), n, err)
		}
		m.Address = exchangeOf(core.DirectExchange, fmt.Sprint(i))
		if n, err := core.Routed(c.Session, m); n != 0 || err != nil {
			t.Fatalf("an unknown key: %d targets, %v", n, err)
		}
		if n := core.Remembered(c.Session); n > 1100 {
			t.Fatalf("%d routes are remembered", n)
		}
	}
}

// The predeclared exchanges are in every virtual host, and declaring them as
// they are is no change.
func TestPredeclared(t *testing.T) {
	x := newBox(t, core.Options{VHosts: []string{"east"}})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(exchangeNamed(core.DirectExchange, core.DirectKind), exchangeNamed(core.TopicExchange, core.TopicKind))
	for _, vhost := range []string{"/", "east"} {
		page, _ := x.b.Inspect(core.Query{About: core.Exchanges, VHost: vhost})
		var names []string
		for _, r := range page.Rows {
			names = append(names, r.Name)
		}
		want := []string{"amq.default", "amq.direct", "amq.fanout", "amq.headers", "amq.topic"}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("virtual host %s:\n%s", vhost, diff)
		}
	}
}

// A virtual host that a client declares is there at once, and after a power cut;
// the names in it are its own.
//
// mission: S12
func TestDeclaredVHost(t *testing.T) {
	x := newBox(t, core.Options{Shards: 4, Topology: core.TopologyLimits{VHosts: 3}})
	c, _ := x.connect(core.SessionSpec{})
	south := core.Change{VHost: &core.VHostSpec{Name: "south"}}
	c.mustApply(south, south)
	in := func(vhost string) *client {
		id, err := x.b.Enter(t.Context(), core.Login{Identity: core.Identity{VHost: vhost}})
		if err != nil {
			t.Fatal(err)
		}
		s := &client{x: x}
		s.Session = x.b.Open(id, core.SessionSpec{}, 1, s)
		s.take()
		return s
	}
	in("south").mustApply(queueNamed("q"), exchangeNamed("x", core.FanoutKind), boundTo("q", core.Address{Exchange: "x"}))
	x.cut()
	c, _ = x.connect(core.SessionSpec{})
	s := in("south")
	s.mustApply(queueNamed("q"))
	c.publish(exchangeOf("x", "k"), 1, "m", 7)
	if e := c.take()[0]; !errors.Is(e.Err, core.ErrNotFound) {
		t.Errorf("an exchange of another virtual host: %v, want 404", e.Err)
	}
	m := message(core.Address{Exchange: "x", Topic: "k"}, 1, "m")
	if err := s.Publish(m, 7); err != nil {
		t.Fatal(err)
	}
	if e := s.take()[0]; e.N != 1 || e.Err != nil {
		t.Errorf("in its own: N %d, %v; want 1", e.N, e.Err)
	}
	c.mustApply(core.Change{VHost: &core.VHostSpec{Name: "third"}})
	if err := c.apply(core.Change{VHost: &core.VHostSpec{Name: "fourth"}}); !errors.Is(err, core.ErrQuota) {
		t.Errorf("more than the limit: %v", err)
	}
}

// An exchange that goes with its last binding goes with it: a queue's, another
// exchange's, a live reader's. What it was bound to loses a binding.
func TestExchangeGoesWithItsLastBinding(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	gone := func(what, name string) {
		t.Helper()
		c.take()
		if _, there := x.b.Exchange("/", name); there {
			t.Errorf("%s: exchange %s is still there", what, name)
		}
	}
	passing := core.Change{Exchange: &core.ExchangeSpec{Name: "passing", Kind: core.FanoutKind, AutoDelete: true}}
	unbound := boundTo("q", exchangeOf("passing", ""))
	unbound.Do = core.Remove

	c.mustApply(passing, queueNamed("q"), boundTo("q", exchangeOf("passing", "")), between("passing", topicOf("a/#")))
	c.mustApply(unbound)
	gone("unbound", "passing")
	if page, _ := x.b.Inspect(core.Query{About: core.Bindings}); len(page.Rows) > 0 {
		t.Errorf("a binding to what is gone: %v", page.Rows)
	}

	c.mustApply(passing, boundTo("q", exchangeOf("passing", "")))
	c.mustApply(core.Change{Do: core.Remove, Queue: &core.QueueSpec{Name: "q"}})
	gone("its queue removed", "passing")

	c.mustApply(passing)
	r, _ := x.connect(core.SessionSpec{})
	r.Listen(core.Sub{ID: 1, Where: exchangeOf("passing", "")}, 2)
	r.take()
	r.Cancel(1)
	gone("its reader cancelled", "passing")

	c.mustApply(passing)
	r.Listen(core.Sub{ID: 2, Where: exchangeOf("passing", "")}, 3)
	r.take()
	r.Close(core.Closing{})
	gone("its reader closed", "passing")
}

// Removing an exchange takes its bindings along and ends its live readers.
func TestExchangeRemoved(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("q"), exchangeNamed("a", core.FanoutKind), exchangeNamed("b", core.FanoutKind),
		boundTo("q", exchangeOf("a", "")), between("a", exchangeOf("b", "")), between("b", exchangeOf("a", "")))
	c.Listen(core.Sub{ID: 1, Where: exchangeOf("a", "")}, 2)
	c.take()
	c.mustApply(core.Change{Exchange: &core.ExchangeSpec{Name: "main", Kind: core.DirectKind, Alternate: "x/a"}})
	remove := core.Change{Do: core.Remove, Exchange: &core.ExchangeSpec{Name: "a"}}
	if err := c.apply(remove); !errors.Is(err, core.ErrConflict) {
		t.Errorf("removing an alternate: %v, want 409", err)
	}
	c.mustApply(core.Change{Do: core.Alter, Exchange: &core.ExchangeSpec{Name: "main", Kind: core.DirectKind}})
	c.Apply([]core.Change{remove}, 3)
	ev := c.take()
	if len(ev) != 2 || ev[0].Kind != core.Cancelled || !errors.Is(ev[0].Err, core.ErrNotFound) || ev[1].Err != nil {
		t.Errorf("removed: %v", ev)
	}
	if page, _ := x.b.Inspect(core.Query{About: core.Bindings}); len(page.Rows) > 0 {
		t.Errorf("bindings are left: %v", page.Rows)
	}
	c.Listen(core.Sub{ID: 1, Where: exchangeOf("b", "")}, 4) // the number is free again
	if ev := c.take(); ev[0].Err != nil {
		t.Error(ev[0].Err)
	}
	x.cut()
	if _, there := x.b.Exchange("/", "a"); there {
		t.Error("it is back after a power cut")
	}
}

// Explain names each hop and why it was taken.
//
// mission: S49
func TestExplainHops(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("q"), queueNamed("lost"),
		core.Change{Exchange: &core.ExchangeSpec{Name: "in", Kind: core.DirectKind, Alternate: "x/docs"}},
		core.Change{Exchange: &core.ExchangeSpec{Name: "docs", Kind: core.HeadersKind}}, exchangeNamed("all", core.FanoutKind),
		boundTo("lost", exchangeOf("docs", ""), arg("kind", "doc")),
		core.Change{Binding: &core.BindingSpec{Exchange: "all", Source: exchangeOf("docs", ""), Args: []core.Header{arg("kind", "pdf")}}},
		boundTo("q", exchangeOf("all", "")), between("docs", exchangeOf("all", "")))
	id, _ := x.b.Enter(t.Context(), core.Login{})
	m := message(exchangeOf("in", "k"), 1, "")
	m.Headers = []core.Header{arg("kind", "pdf")}
	var got []string
	for _, s := range x.b.Explain(id, m).Steps {
		got = append(got, s.What+" "+s.Name+": "+s.Text)
	}
	want := []string{
		"exchange in: direct: compares the whole key",
		"alternate x/docs: no binding of in takes it",
		"exchange docs: headers: asks the headers",
		"binding x/docs match=all :kind=pdf: on to exchange all",
		`binding x/docs match=all :kind=doc: q/lost is not met: header kind is "pdf"`,
		"exchange all: fanout: takes any key",
		`binding x/all: queue "q" takes it`,
		"binding x/all: on to exchange docs",
		"exchange docs: was here before: once is enough",
		"queue q: kept there until acknowledged",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A plain reference: exchanges, bindings and queues as lists.
type plainTopology struct {
	exchanges map[string]core.ExchangeSpec
	bindings  []core.BindingSpec
}

func (p *plainTopology) route(m *core.Message) map[string]bool {
	got := make(map[string]bool)
	p.visit(m.Address.Exchange, m, make(map[string]bool), got)
	return got
}

func (p *plainTopology) visit(name string, m *core.Message, seen, got map[string]bool) {
	if seen[name] {
		return
	}
	seen[name] = true
	matched := false
	for _, b := range p.bindings {
		if b.Source.Exchange != name || !p.wants(&b, m) {
			continue
		}
		matched = true
		if b.Exchange != "" {
			p.visit(b.Exchange, m, seen, got)
		} else {
			got[b.Queue] = true
		}
	}
	if alternate, ok := strings.CutPrefix(p.exchanges[name].Alternate, "x/"); ok && !matched {
		p.visit(alternate, m, seen, got)
	}
}

func (p *plainTopology) wants(b *core.BindingSpec, m *core.Message) bool {
	switch p.exchanges[b.Source.Exchange].Kind {
	case core.TopicKind:
		return topic.Match(b.Source.Topic, m.Address.Topic)
	case core.DirectKind:
		return b.Source.Topic == m.Address.Topic
	case core.FanoutKind:
		return true
	case core.HeadersKind:
	}
	met, asked := 0, 0
	for _, a := range b.Args {
		if strings.HasPrefix(a.Name, "x-") && (b.Match == core.MatchAll || b.Match == core.MatchAny) {
			continue
		}
		asked++
		if v, there := m.Header(a.Name); there && (a.Value == "" || a.Value == v) {
			met++
		}
	}
	if b.Match == core.MatchAny || b.Match == core.MatchAnyWithX {
		return met > 0
	}
	return met == asked
}

var (
	someQueues    = []string{"q0", "q1", "q2", "q3", "q4"}
	someExchanges = []string{"d", "f", "t", "h", "h2"}
	someKinds     = []core.ExchangeKind{core.DirectKind, core.FanoutKind, core.TopicKind, core.HeadersKind, core.HeadersKind}
	someKeys      = []string{"a", "b", "a/b", "b/a/b"}
	someFilters   = []string{"a", "#", "a/+", "+/b", "#/b"}
)

func drawArgs(t *rapid.T, names ...string) (args []core.Header) {
	for _, name := range names {
		if v := rapid.SampledFrom([]string{"-", "1", "2", ""}).Draw(t, name); v != "-" {
			args = append(args, arg(name, v))
		}
	}
	return args
}

func drawBinding(t *rapid.T) core.BindingSpec {
	at := rapid.IntRange(0, len(someExchanges)-1).Draw(t, "source")
	b := core.BindingSpec{Source: exchangeOf(someExchanges[at], "")}
	switch someKinds[at] {
	case core.DirectKind:
		b.Source.Topic = rapid.SampledFrom(someKeys).Draw(t, "key")
	case core.TopicKind:
		b.Source.Topic = rapid.SampledFrom(someFilters).Draw(t, "filter")
	case core.FanoutKind:
	case core.HeadersKind:
		names := []string{"k", "l", "x-m"}
		if someExchanges[at] == "h2" {
			names = []string{"n", "x-o"}
		}
		b.Args, b.Match = drawArgs(t, names...), core.Match(rapid.IntRange(0, 3).Draw(t, "match"))
	}
	if to := rapid.IntRange(-4, len(someExchanges)-1).Draw(t, "target"); to >= 0 && to != at {
		b.Exchange = someExchanges[to]
	} else {
		b.Queue = rapid.SampledFrom(someQueues).Draw(t, "queue")
	}
	return b
}

func sameBinding(a, b *core.BindingSpec) bool {
	return cmp.Equal(a.Source, b.Source) && a.Queue == b.Queue && a.Exchange == b.Exchange && a.Match == b.Match && slices.Equal(a.Args, b.Args)
}

// On random topologies that change while they are used, and lose power, each
// message is in exactly the queues that a plain reference names, once.
//
// mission: S3 S4 S5 S7
func TestRoutesAsThePlainReferenceDoes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := newBox(t, core.Options{})
		c, _ := x.connect(core.SessionSpec{Unanswered: 1000})
		p := &plainTopology{exchanges: make(map[string]core.ExchangeSpec)}
		for _, q := range someQueues {
			c.mustApply(queueNamed(q))
		}
		for i, name := range someExchanges {
			p.exchanges[name] = core.ExchangeSpec{Name: name, Kind: someKinds[i]}
			c.mustApply(exchangeNamed(name, someKinds[i]))
		}
		c.readAll(someQueues...)
		number := 0
		rt.Repeat(map[string]func(*rapid.T){
			"bind": func(rt *rapid.T) {
				b := drawBinding(rt)
				c.mustApply(core.Change{Binding: new(b)})
				if !slices.ContainsFunc(p.bindings, func(o core.BindingSpec) bool { return sameBinding(&o, &b) }) {
					p.bindings = append(p.bindings, b)
				}
			},
			"unbind": func(rt *rapid.T) {
				if len(p.bindings) == 0 {
					rt.Skip()
				}
				at := rapid.IntRange(0, len(p.bindings)-1).Draw(rt, "which")
				c.mustApply(core.Change{Do: core.Remove, Binding: new(p.bindings[at])})
				p.bindings = slices.Delete(p.bindings, at, at+1)
			},
			"alter": func(rt *rapid.T) {
				spec := p.exchanges[rapid.SampledFrom(someExchanges).Draw(rt, "exchange")]
				spec.Alternate = "x/" + rapid.SampledFrom(someExchanges).Draw(rt, "alternate")
				if spec.Alternate == "x/"+spec.Name {
					spec.Alternate = ""
				}
				c.mustApply(core.Change{Do: core.Alter, Exchange: new(spec)})
				p.exchanges[spec.Name] = spec
			},
			"power cut": func(*rapid.T) {
				x.cut()
				c, _ = x.connect(core.SessionSpec{Unanswered: 1000})
				c.readAll(someQueues...)
			},
			"publish": func(rt *rapid.T) {
				to := rapid.SampledFrom(someExchanges).Draw(rt, "to")
				for range rapid.IntRange(1, 12).Draw(rt, "times") { // routes are remembered in between
					number++
					m := message(exchangeOf(to, rapid.SampledFrom(someKeys).Draw(rt, "key")), 1, fmt.Sprint(number))
					m.Headers = drawArgs(rt, "k", "l", "x-m", "n", "x-o")
					if err := c.Publish(m, 7); err != nil {
						rt.Fatal(err)
					}
					var want []string
					for q := range p.route(m) {
						want = append(want, fmt.Sprint(q, " ", number))
					}
					slices.Sort(want)
					if diff := cmp.Diff(want, c.got(someQueues...)); diff != "" {
						rt.Fatalf("%s with %v:\n%s", m.Address, m.Headers, diff)
					}
				}
			},
		})
	})
}

// A route that was found before costs no memory, whatever the kind.
func TestRememberedRouteAllocatesNothing(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("q"), boundTo("q", topicOf("k")), boundTo("q", exchangeOf(core.DirectExchange, "k")),
		boundTo("q", exchangeOf(core.FanoutExchange, "")), boundTo("q", exchangeOf(core.HeadersExchange, ""), arg("a", "1"), arg("b", "")))
	for _, to := range []core.Address{
		topicOf("k"), queueOf("q"), exchangeOf(core.DirectExchange, "k"), exchangeOf(core.FanoutExchange, "k"), exchangeOf(core.HeadersExchange, "k"),
	} {
		m := message(to, 1, "")
		m.Headers = []core.Header{arg("b", "2"), arg("a", "1")}
		n := testing.AllocsPerRun(100, func() {
			if n, err := core.Routed(c.Session, m); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		})
		if n > 0 {
			t.Errorf("%s: %v allocations", to, n)
		}
	}
}

// What it costs to find whom a publish is for, when it was found before: the
// common case, as publishers repeat themselves.
func BenchmarkRoute(b *testing.B) {
	br := newBroker(b)
	p := newPeer(b, br, core.SessionSpec{})
	p.each(b, func(e core.Event) bool { return e.Kind != core.Confirmed })
	apply := func(changes ...core.Change) {
		p.Apply(changes, 2)
		p.each(b, func(e core.Event) bool {
			if e.Err != nil {
				b.Fatal(e.Err)
			}
			return e.Token != 2
		})
	}
	memory := func(name string) core.Change {
		return core.Change{Queue: &core.QueueSpec{Name: name, Class: core.Memory}}
	}
	apply(memory("q"), boundTo("q", topicOf("a/b")), boundTo("q", exchangeOf(core.DirectExchange, "k")), boundTo("q", exchangeOf(core.FanoutExchange, "")))
	for i := range 10 {
		apply(memory(fmt.Sprint("h", i)), boundTo(fmt.Sprint("h", i), exchangeOf(core.HeadersExchange, ""),
			arg("a", "1"), arg("b", "2"), arg("c", "3"), arg("d", fmt.Sprint(i))))
	}
	headers := []core.Header{arg("a", "1"), arg("b", "2"), arg("c", "3"), arg("d", "9")}
	for _, to := range []core.Address{
		topicOf("a/b"), queueOf("q"), exchangeOf(core.DirectExchange, "k"), exchangeOf(core.FanoutExchange, "k"), exchangeOf(core.HeadersExchange, "k"),
	} {
		b.Run(to.Exchange, func(b *testing.B) {
			m := &core.Message{Address: to, Headers: headers}
			b.ReportAllocs()
			for b.Loop() {
				if n, err := core.Routed(p.Session, m); n != 1 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// The same where a thousand bindings ask for one tenant each: what is
// remembered, and what is not.
func BenchmarkRouteTenants(b *testing.B) {
	br := newBroker(b)
	p := newPeer(b, br, core.SessionSpec{})
	p.each(b, func(e core.Event) bool { return e.Kind != core.Confirmed })
	changes := []core.Change{{Queue: &core.QueueSpec{Name: "q", Class: core.Memory}}}
	for i := range 1000 {
		changes = append(changes, boundTo("q", exchangeOf(core.HeadersExchange, ""), arg("tenant", fmt.Sprint(i))))
	}
	p.Apply(changes, 2)
	p.each(b, func(e core.Event) bool {
		if e.Err != nil {
			b.Fatal(e.Err)
		}
		return e.Token != 2
	})
	for _, tenants := range []int{1000, 100_000} {
		var messages []*core.Message
		for i := range tenants {
			messages = append(messages, &core.Message{
				Address: exchangeOf(core.HeadersExchange, ""), Headers: []core.Header{arg("tenant", fmt.Sprint(i))},
			})
		}
		b.Run(fmt.Sprint("tenants=", tenants), func(b *testing.B) {
			i := 0
			for b.Loop() {
				if _, err := core.Routed(p.Session, messages[i%tenants]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
