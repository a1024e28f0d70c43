package core_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/core"
)

// Dead letters go by way of exchanges of every kind: their keys, their headers
// and the alternates count, over a power cut too.
//
// mission: S4 S45
func TestDeadLettersThroughExchanges(t *testing.T) {
	for _, tt := range []struct{ grave, want string }{
		{"x/amq.fanout", "all"},
		{"x/amq.fanout/any/key", "all"},
		{"x/amq.direct/red", "red"},
		{"x/amq.direct/blue", ""}, // nobody wants it
		{"x/asks", "rejected"},
		{"x/wants", "rest"}, // by its alternate
	} {
		x := newBox(t, core.Options{})
		p, _ := x.connect(core.SessionSpec{})
		p.mustApply(
			queueNamed("all"), queueNamed("red"), queueNamed("rejected"), queueNamed("rest"),
			exchangeNamed("asks", core.HeadersKind),
			core.Change{Exchange: &core.ExchangeSpec{Name: "wants", Kind: core.HeadersKind, Alternate: "q/rest"}},
			boundTo("all", exchangeOf("amq.fanout", "")), boundTo("red", exchangeOf("amq.direct", "red")),
			boundTo("rejected", exchangeOf("asks", ""), arg(core.HeaderDeadReason, "rejected"), arg("tenant", "acme")),
			boundTo("rest", exchangeOf("wants", ""), arg(core.HeaderDeadReason, "expired")),
			with(core.QueueSpec{Name: "q", DeadLetter: tt.grave}),
		)
		m := message(queueOf("q"), 1, "m")
		m.Headers = []core.Header{arg("tenant", "acme")}
		if err := p.Publish(m, 1); err != nil {
			t.Fatal(err)
		}
		w := x.worker(core.Sub{}, "q")
		w.Nack(core.Back{Dead: true}, w.want("confirmed 2", "1: m")[1].Tag)
		x.settle()
		x.cut()
		got := ""
		for _, name := range []string{"all", "red", "rejected", "rest"} {
			if len(x.read(name)) > 0 {
				got += name
			}
		}
		if got != tt.want {
			t.Errorf("%s: in %q, want %q", tt.grave, got, tt.want)
		}
		if f := x.figures("q"); f != "ready=0 unacked=0 delayed=0" {
			t.Errorf("%s: q has %s", tt.grave, f)
		}
	}
}

// An exchange that wants a key is refused as dead letters without one; of one
// that is not there yet it is said when something dies.
func TestDeadLettersWantAKey(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	err := p.apply(exchangeNamed("jobs", core.DirectKind), with(core.QueueSpec{Name: "q", DeadLetter: "x/jobs"}))
	if !errors.Is(err, core.ErrBadValue) || !strings.Contains(err.Error(), "x/jobs/KEY") {
		t.Errorf("declared together: %v", err)
	}
	p.mustApply(with(core.QueueSpec{Name: "q", DeadLetter: "x/jobs"}))
	p.mustApply(exchangeNamed("jobs", core.DirectKind))
	p.publish(queueOf("q"), 1, "m", 1)
	w := x.worker(core.Sub{}, "q")
	w.Nack(core.Back{Dead: true}, w.want("confirmed 2", "1: m")[1].Tag)
	x.settle()
	if got := x.fates("q"); len(got) != 1 || !strings.Contains(got[0], "wants a key") {
		t.Errorf("fates: %q", got)
	}
}

// What was published to an exchange without a key gets that address back, and
// can be moved through another.
func TestRedriveOfAMessageWithoutAKey(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(exchangeNamed("news", core.FanoutKind), queueNamed("dead"), queueNamed("copy"), with(core.QueueSpec{Name: "q", DeadLetter: "q/dead"}),
		boundTo("q", exchangeOf("news", "")), boundTo("copy", exchangeOf("amq.fanout", "")))
	p.publish(exchangeOf("news", ""), 1, "m", 1)
	w := x.worker(core.Sub{}, "q")
	w.Nack(core.Back{Dead: true}, w.want("confirmed 2", "1: m")[1].Tag)
	x.settle()
	w.Close(core.Closing{})
	x.settle()
	p.mustApply(core.Change{Do: core.Move, Queue: &core.QueueSpec{Name: "dead"}})
	p.mustApply(core.Change{Do: core.Move, Queue: &core.QueueSpec{Name: "q"}, To: "x/amq.fanout"})
	got := x.read("copy")
	if len(got) != 1 || got[0].Message.Address != exchangeOf("news", "") {
		t.Errorf("moved: %v", got)
	}
	p.publish(queueOf("q"), 1, "n", 2)
	p.take()
	if err := p.apply(core.Change{Do: core.Move, Queue: &core.QueueSpec{Name: "q"}, To: "x/amq.direct"}); err == nil || !strings.Contains(err.Error(), "wants a key") {
		t.Errorf("moved to a direct exchange without a key: %v", err)
	}
	if f := x.figures("q"); f != "ready=1 unacked=0 delayed=0" {
		t.Errorf("q has %s", f)
	}
}

// What is delayed is routed when it is due by the exchanges of then: headers
// are asked, and what no binding takes goes to the alternate.
//
// mission: S4 S35
func TestDelayedThroughExchanges(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(queueNamed("acme"), queueNamed("rest"), core.Change{Exchange: &core.ExchangeSpec{Name: "in", Kind: core.HeadersKind, Alternate: "q/rest"}})
	for i, tenant := range []string{"acme", "other"} {
		m := message(exchangeOf("in", ""), 1, tenant)
		m.NotBefore = x.now.Add(time.Minute)
		m.Headers = []core.Header{arg("tenant", tenant)}
		m.Dedup = tenant
		if err := p.Publish(m, uint64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	p.want("confirmed 1", "confirmed 2")
	p.mustApply(boundTo("acme", exchangeOf("in", ""), arg("tenant", "acme")))
	x.cut()
	x.advance(time.Minute + time.Second)
	if a, b := text(x.read("acme")), text(x.read("rest")); !slices.Equal(a, []string{"9: acme"}) || !slices.Equal(b, []string{"9: other"}) {
		t.Errorf("acme has %q, rest has %q", a, b)
	}
}

// Only queues are moved.
func TestMoveOfWhatIsNoQueue(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(queueNamed("q"), bound("q", "t"))
	binding := bound("q", "t")
	binding.Do = core.Move
	for _, c := range []core.Change{
		binding,
		{Do: core.Move, Exchange: &core.ExchangeSpec{Name: core.FanoutExchange, Kind: core.FanoutKind}},
		{Do: core.Move, VHost: &core.VHostSpec{Name: "east"}},
	} {
		if err := p.apply(c); !errors.Is(err, core.ErrBadValue) || !strings.Contains(err.Error(), "cannot be") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if x.b.HasVHost("east") {
		t.Error("a move has made a virtual host")
	}
}

// Members of a group share what they ask for alike: the same arguments in any
// order are the same group, others are not, and any key is any key.
func TestSharedName(t *testing.T) {
	name := func(to core.BindingSpec) string {
		queue, changes := core.Shared("g", to, 0)
		if changes[0].Queue.Name != queue || changes[1].Binding.Queue != queue {
			t.Errorf("declared are %v", changes)
		}
		return queue
	}
	docs := exchangeOf("docs", "")
	a := name(core.BindingSpec{Source: docs, Args: []core.Header{arg("a", "1"), arg("b", "2")}})
	for _, tt := range []struct {
		what string
		to   core.BindingSpec
		same bool
	}{
		{"another order", core.BindingSpec{Source: docs, Args: []core.Header{arg("b", "2"), arg("a", "1")}}, true},
		{"MQTT's word for any key", core.BindingSpec{Source: exchangeOf("docs", "#"), Args: []core.Header{arg("a", "1"), arg("b", "2")}}, true},
		{"fewer", core.BindingSpec{Source: docs, Args: []core.Header{arg("a", "1")}}, false},
		{"any of them", core.BindingSpec{Source: docs, Match: core.MatchAny, Args: []core.Header{arg("a", "1"), arg("b", "2")}}, false},
		{"none", core.BindingSpec{Source: docs}, false},
	} {
		if b := name(tt.to); (a == b) != tt.same {
			t.Errorf("%s: %s and %s", tt.what, a, b)
		}
	}
	if got := name(core.BindingSpec{Source: topicOf("a/#")}); got != "$share/g/a/#" {
		t.Errorf("of a topic: %s", got)
	}
}

// A durable subscription that asks for something else takes its old wish back,
// and keeps what is queued.
func TestDurableAsksAnew(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(exchangeNamed("logs", core.TopicKind))
	wishes := func() string {
		page, err := x.b.Inspect(core.Query{About: core.Bindings, Hidden: true})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(page.Rows)
	}
	for _, tt := range []struct {
		to   core.BindingSpec
		want string
	}{
		{core.BindingSpec{Source: exchangeOf("logs", "")}, "[{x/logs/# [{queue $own}]}]"},
		{core.BindingSpec{Source: exchangeOf("logs", "")}, "[{x/logs/# [{queue $own}]}]"},
		{core.BindingSpec{Source: exchangeOf("amq.headers", ""), Args: []core.Header{arg("b", "2"), arg("a", "1")}}, "[{x/amq.headers/ [{queue $own} {match all} {:a 1} {:b 2}]}]"},
		{core.BindingSpec{Source: exchangeOf("amq.headers", ""), Args: []core.Header{arg("a", "1"), arg("b", "2")}}, "[{x/amq.headers/ [{queue $own} {match all} {:a 1} {:b 2}]}]"},
		{core.BindingSpec{Source: exchangeOf("amq.headers", ""), Args: []core.Header{arg("a", "2")}}, "[{x/amq.headers/ [{queue $own} {match all} {:a 2}]}]"},
		{core.BindingSpec{Source: topicOf("a")}, "[{t/a [{queue $own}]}]"},
	} {
		tt.to.Queue = "$own"
		p.mustApply(x.b.Durable("/", tt.to)...)
		if diff := cmp.Diff(tt.want, wishes()); diff != "" {
			t.Error(diff)
		}
	}
}

// What a queue is exported as is what was declared, not what policies add: an
// import elsewhere must not freeze them.
func TestSettingsWithoutPolicies(t *testing.T) {
	x := newBox(t, core.Options{Policies: map[string][]core.Policy{"/": {{Match: "*", MaxAttempts: 3}}}})
	p, _ := x.connect(core.SessionSpec{})
	for range 2 {
		p.mustApply(with(core.QueueSpec{Name: "q", MaxMessages: 5}))
		page, err := x.b.Inspect(core.Query{About: core.Queues, Settings: true})
		if err != nil || fmt.Sprint(page.Rows) != "[{q [{max_messages 5}]}]" {
			t.Errorf("%v, %v", page.Rows, err)
		}
		x.cut()
		p, _ = x.connect(core.SessionSpec{})
	}
}

// What a full queue has no room for asks the exchange of its dead letters as
// what it is there, and what may have come before is routed by its headers.
func TestHeadersDecideForWhatWaits(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(queueNamed("over"), exchangeNamed("asks", core.HeadersKind),
		boundTo("over", exchangeOf("asks", ""), arg(core.HeaderDeadReason, "overflow")),
		with(core.QueueSpec{Name: "q", MaxMessages: 1, Overflow: core.DeadLetter, DeadLetter: "x/asks"}),
		boundTo("q", exchangeOf("amq.headers", ""), arg("tenant", "acme")))
	for i, tenant := range []string{"acme", "acme", "other"} {
		m := message(exchangeOf("amq.headers", ""), 1, fmt.Sprint(i))
		m.Headers = []core.Header{arg("tenant", tenant)}
		m.Dedup = fmt.Sprint(i)
		if err := p.Publish(m, uint64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	p.want("confirmed 1", "confirmed 2", "confirmed 3")
	if a, b := text(x.read("q")), text(x.read("over")); !slices.Equal(a, []string{"9: 0"}) || !slices.Equal(b, []string{"9: 1"}) {
		t.Errorf("q has %q, over has %q", a, b)
	}
}
