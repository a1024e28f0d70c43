package core_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

// worker connects and consumes a queue.
func (x *box) worker(sub core.Sub, queue string) *client {
	x.t.Helper()
	w, _ := x.connect(core.SessionSpec{})
	sub.ID, sub.Where = 1, queueOf(queue)
	if sub.Credit.Messages == 0 {
		sub.Credit = core.Credit{Messages: 10, Auto: true}
	}
	w.Consume(sub, 2)
	return w
}

func (c *client) publishKey(queue, key, body string) {
	c.x.t.Helper()
	m := message(queueOf(queue), 1, body)
	m.Key = key
	if err := c.Publish(m, 5); err != nil {
		c.x.t.Fatal(err)
	}
}

// Who came first gets everything, until it goes.
//
// mission: S33 S45
func TestSingleActive(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(with(core.QueueSpec{Name: "q", SingleActive: true}))
	a, b := x.worker(core.Sub{}, "q"), x.worker(core.Sub{}, "q")
	for i := range 3 {
		p.publish(queueOf("q"), 1, fmt.Sprint(i), uint64(i+1))
	}
	ev := a.want("confirmed 2", "1: 0", "1: 1", "1: 2")
	b.want("confirmed 2")
	a.Ack(ev[1].Tag)
	a.Close(core.Closing{})
	b.want("1: 1 n=2", "1: 2 n=2")
}

// An exclusive consumer is alone; one that takes over evicts who is there, and
// gets what that held.
//
// mission: S11
func TestExclusiveAndTakeOver(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.publish(queueOf("q"), 1, "m", 1)
	p.take()
	a := x.worker(core.Sub{Exclusive: true}, "q")
	a.want("confirmed 2", "1: m")
	b := x.worker(core.Sub{}, "q")
	b.want("confirmed 2 409")
	c := x.worker(core.Sub{Exclusive: true}, "q")
	c.want("confirmed 2 409")
	d := x.worker(core.Sub{TakeOver: true}, "q")
	d.want("confirmed 2", "1: m n=2")
	ev := a.want("cancelled 1 after 1")
	if core.AsError(ev[0].Err).Code != core.CodeTakenOver {
		t.Errorf("the old one is told %v", ev[0].Err)
	}
	e := x.worker(core.Sub{Exclusive: true}, "q")
	e.want("confirmed 2 409")
}

// The consumer of the highest priority that has credit gets it; equals share.
func TestConsumerPriority(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(queueNamed("q"))
	low := x.worker(core.Sub{Credit: core.Credit{Messages: 100}}, "q")
	one := x.worker(core.Sub{Priority: 5, Credit: core.Credit{Messages: 2}}, "q")
	two := x.worker(core.Sub{Priority: 5, Credit: core.Credit{Messages: 2}}, "q")
	for i := range 6 {
		p.publish(queueOf("q"), 1, fmt.Sprint(i), uint64(i+1))
	}
	if a, b := len(one.take()), len(two.take()); a != 3 || b != 3 {
		t.Errorf("the high ones got %d and %d", a-1, b-1)
	}
	low.want("confirmed 2", "1: 4", "1: 5")
}

// A key sticks to one consumer while it has messages of it; others go past; a
// consumer that goes hands its keys over, in order.
//
// mission: S33 S36
func TestGroupsByKey(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(with(core.QueueSpec{Name: "q", Keyed: true}))
	one := core.Sub{Credit: core.Credit{Messages: 1, Auto: true}}
	for _, m := range []string{"a1", "a2", "b1", "a3", "b2", "c1"} {
		p.publishKey("q", m[:1], m)
	}
	p.take()
	a := x.worker(one, "q")
	tag := a.want("confirmed 2", "1: a1")[1].Tag
	b := x.worker(one, "q")
	btag := b.want("confirmed 2", "1: b1")[1].Tag // a2 waits for its consumer
	c := x.worker(one, "q")
	c.want("confirmed 2", "1: c1") // and so do a3, b2
	if f := x.figures("q"); f != "ready=3 unacked=3 delayed=0" {
		t.Errorf("q has %s", f)
	}
	look := x.worker(core.Sub{Peek: true}, "q")
	look.want("confirmed 2", "1: a2", "1: a3", "1: b2", "drained 1 after 3")
	b.Ack(btag)
	b.want("1: b2")
	a.Nack(core.Back{}, tag)
	a.want("1: a1 n=2")
	a.Close(core.Closing{})
	b.want()
	d := x.worker(core.Sub{Credit: core.Credit{Messages: 5}}, "q")
	d.want("confirmed 2", "1: a1 n=3", "1: a2", "1: a3")
	p.publishKey("q", "a", "a4")
	p.publishKey("q", "", "any")
	p.take()
	d.want("1: a4", "1: any")
}

// A keyed queue keeps the order of each key, whoever acks, gives back or goes.
//
// mission: S33 S36
func TestKeyOrderUnderCompetition(t *testing.T) {
	x := newBox(t, core.Options{Window: 1})
	p, _ := x.connect(core.SessionSpec{Unanswered: 10_000})
	p.mustApply(with(core.QueueSpec{Name: "q", Keyed: true}))
	const n, keys = 2000, 7
	for i := range n {
		p.publishKey("q", fmt.Sprint("k", i%keys), fmt.Sprintf("%05d", i))
	}
	p.take()
	last := make(map[string]string)
	holder := make(map[string]*client)
	seen := 0
	workers := []*client{}
	for range 4 {
		workers = append(workers, x.worker(core.Sub{Credit: core.Credit{Messages: 3, Auto: true}}, "q"))
	}
	held := make(map[*client][]core.Event)
	for round := 0; seen < n; round++ {
		if round > 10*n {
			t.Fatalf("stuck at %d", seen)
		}
		for i, w := range workers {
			for _, e := range w.take() {
				if e.Kind != core.Delivered {
					continue
				}
				key, body := e.Message.Key, string(e.Message.Body)
				if h := holder[key]; h != nil && h != w {
					t.Fatalf("%s of %s came to two at once", body, key)
				}
				if last[key] >= body && e.Tag.Attempt == 1 {
					t.Fatalf("%s: %s after %s", key, body, last[key])
				}
				last[key] = max(last[key], body)
				holder[key] = w
				held[w] = append(held[w], e)
			}
			if round%50 == 49 && i == round/50%4 { // this one goes
				w.Close(core.Closing{})
				for k, h := range holder {
					if h == w {
						delete(holder, k)
					}
				}
				held[w] = nil
				workers[i] = x.worker(core.Sub{Credit: core.Credit{Messages: 3, Auto: true}}, "q")
				continue
			}
			if len(held[w]) > 0 {
				e := held[w][0]
				held[w] = held[w][1:]
				w.Ack(e.Tag)
				seen++
				if !slices.ContainsFunc(held[w], func(o core.Event) bool { return o.Message.Key == e.Message.Key }) {
					delete(holder, e.Message.Key)
				}
			}
		}
	}
	x.settle()
	if f := x.figures("q"); f != "ready=0 unacked=0 delayed=0" {
		t.Errorf("q has %s", f)
	}
}

// A peek shows what is ready, in order, and takes nothing.
func TestPeek(t *testing.T) {
	for _, window := range []int64{0, 1} {
		x := newBox(t, core.Options{Window: window})
		p, _ := x.connect(core.SessionSpec{Unanswered: 10_000})
		p.mustApply(with(core.QueueSpec{Name: "q", TTL: time.Hour}))
		const n = 3000
		for i := range n {
			p.publish(queueOf("q"), 1, fmt.Sprintf("%05d", i), uint64(i+1))
		}
		p.take()
		x.cut()
		for _, credit := range []int{5, 2000, n, n + 1} {
			r, _ := x.connect(core.SessionSpec{})
			r.Consume(core.Sub{ID: 1, Where: queueOf("q"), Peek: true, Credit: core.Credit{Messages: int64(credit)}}, 2)
			ev := r.take()
			want := min(credit, n)
			if got := ev[len(ev)-1]; got.Kind != core.Drained || got.N != uint64(want) || len(ev) != want+2 {
				t.Fatalf("window %d, credit %d: %d events, the last %+v", window, credit, len(ev), got)
			}
			for i, e := range ev[1 : len(ev)-1] {
				if string(e.Message.Body) != fmt.Sprintf("%05d", i) {
					t.Fatalf("window %d: %s in place %d", window, e.Message.Body, i)
				}
				r.Ack(e.Tag) // it was not given: this settles nothing
			}
			r.Cancel(1)
			r.want(fmt.Sprintf("cancelled 1 after %d", want))
		}
		if f := x.figures("q"); f != "ready=3000 unacked=0 delayed=0" {
			t.Errorf("q has %s", f)
		}
		r, _ := x.connect(core.SessionSpec{})
		r.Consume(core.Sub{ID: 1, Where: queueOf("none"), Peek: true, Credit: core.Credit{Messages: 5}}, 2)
		r.want("confirmed 2 404")
	}
}

// One topic to a queue with levels and to one without: each message is on the
// disk in its own level, whatever the one before it was.
//
// mission: S34
func TestLevelsBesideAnotherQueue(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(with(core.QueueSpec{Name: "levels", Priorities: 10}), queueNamed("plain"), bound("levels", "t"), bound("plain", "t"))
	for i, priority := range []uint8{1, 9, 1, 9} {
		m := message(topicOf("t"), 1, fmt.Sprint(i))
		m.Priority = priority
		p.Publish(m, uint64(i+1))
	}
	p.take()
	x.cut()
	if got := text(x.read("levels")); !slices.Equal(got, []string{"9: 1", "9: 3", "9: 0", "9: 2"}) {
		t.Errorf("levels: %q", got)
	}
	if got := text(x.read("plain")); !slices.Equal(got, []string{"9: 0", "9: 1", "9: 2", "9: 3"}) {
		t.Errorf("plain: %q", got)
	}
	x.cut()
	if a, b := x.figures("levels"), x.figures("plain"); a != b || a != "ready=0 unacked=0 delayed=0" {
		t.Errorf("levels has %s, plain has %s", a, b)
	}
}

// A policy's settings are those of the queues whose names match: there before
// or made later, what they say themselves first. What they declared stays what
// it was.
//
// mission: S61
func TestPolicies(t *testing.T) {
	policies := map[string][]core.Policy{"/": {
		{Match: "jobs/*", MaxAttempts: 1},
		{Match: "*", MaxAttempts: 2, DeadLetter: "q/dead"},
		{Match: "$mqtt/*", MaxMessages: 1, Overflow: core.DropOldest, DeadLetter: "q/missed"},
	}}
	x := newBox(t, core.Options{Policies: policies})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(queueNamed("plain"), queueNamed("jobs/a"), with(core.QueueSpec{Name: "own", MaxAttempts: 3}), queueNamed("dead"),
		with(core.QueueSpec{Name: "$mqtt/dev", Owned: false}), bound("$mqtt/dev", "t"))
	p.mustApply(queueNamed("plain")) // as it was declared
	for _, q := range []string{"plain", "jobs/a", "own", "dead"} {
		p.publish(queueOf(q), 1, q, 1)
	}
	p.publish(topicOf("t"), 1, "missed", 2)
	p.publish(topicOf("t"), 1, "newest", 3)
	p.take()
	for name, want := range map[string]int{"plain": 2, "jobs/a": 1, "own": 3} {
		w := x.worker(core.Sub{}, name)
		n := 0
		for _, e := range append(w.take(), core.Event{}) {
			for e.Kind == core.Delivered {
				n++
				w.Nack(core.Back{}, e.Tag)
				e = core.Event{}
				for _, again := range w.take() {
					e = again
				}
			}
		}
		if n != want {
			t.Errorf("%s was delivered %d times, want %d", name, n, want)
		}
		w.Close(core.Closing{})
	}
	if got := len(x.read("dead")); got != 4 {
		t.Errorf("%d are dead, want 3 letters beside its own", got)
	}
	if got := text(x.read("missed")); !slices.Equal(got, []string{"9: missed"}) {
		t.Errorf("missed: %q", got)
	}
	x.opts.Policies = nil
	x.cut()
	p, _ = x.connect(core.SessionSpec{})
	p.mustApply(queueNamed("plain"))
	p.publish(queueOf("plain"), 1, "m", 1)
	w := x.worker(core.Sub{}, "plain")
	p.take()
	w.Nack(core.Back{}, w.want("confirmed 2", "1: m")[1].Tag)
	w.Nack(core.Back{}, w.want("1: m n=2")[0].Tag)
	w.want("1: m n=3") // the policy has gone
}

func TestPolicyMatches(t *testing.T) {
	for _, c := range []struct {
		match, name string
		want        bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "ab", true},
		{"a*", "ba", false},
		{"*b", "ab", true},
		{"*", "any/thing", true},
		{"*", "$mqtt/x", false},
		{"$mqtt/*", "$mqtt/x", true},
		{"*-user*", "x-user7", true},
		{"*-user*", "x-use", false},
		{"a*a", "a", false},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "acb", false},
	} {
		x := newBox(t, core.Options{Policies: map[string][]core.Policy{"/": {{Match: c.match, MaxMessages: 1}}}})
		p, _ := x.connect(core.SessionSpec{})
		p.mustApply(queueNamed(c.name), bound(c.name, "t"))
		p.publish(topicOf("t"), 1, "1", 1)
		p.take()
		p.publish(topicOf("t"), 1, "2", 2)
		if got := text(p.take())[0] == "confirmed 2 429"; got != c.want {
			t.Errorf("%q for %q: %v, want %v", c.match, c.name, got, c.want)
		}
	}
}

// Four workers drain a backlog of a million, within a tenth of each other; what
// one had that is killed moves on, marked, and nothing is lost or done twice.
//
// mission: S44 S45
func TestAMillionShared(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 20_000
	}
	x := newBox(t, core.Options{Window: 1 << 20})
	p, _ := x.connect(core.SessionSpec{Unanswered: n + 1})
	p.mustApply(queueNamed("q"))
	for i := range n {
		p.publish(queueOf("q"), 1, fmt.Sprint(i), uint64(i+1))
		if i%4096 == 0 {
			x.settle()
			p.take()
		}
	}
	p.take()
	one := core.Sub{Credit: core.Credit{Messages: 100, Auto: true}}
	workers := []*client{x.worker(one, "q"), x.worker(one, "q"), x.worker(one, "q"), x.worker(one, "q")}
	done, marked := make([]int, 4), 0
	worked := make([]bool, n)
	killed := false
	for total := 0; total < n; {
		before := total
		for i, w := range workers {
			if w == nil {
				continue
			}
			for _, e := range w.take() {
				if e.Kind != core.Delivered {
					continue
				}
				if !killed && total > n/2 && i == 3 { // it dies with what it holds
					w.Close(core.Closing{})
					workers[3], killed = nil, true
					break
				}
				if k := number(e); worked[k] {
					t.Fatalf("%d was worked on twice", k)
				} else {
					worked[k] = true
				}
				if e.Tag.Attempt > 1 {
					marked++
				}
				done[i]++
				total++
				w.Ack(e.Tag)
			}
		}
		x.settle()
		if total == before && killed && total < n {
			if x.figures("q") == "ready=0 unacked=0 delayed=0" {
				t.Fatalf("%d of %d came", total, n)
			}
		}
	}
	if marked == 0 || marked > 200 {
		t.Errorf("%d are marked as redelivered", marked)
	}
	if low, high := slices.Min(done[:3]), slices.Max(done[:3]); high-low > high/10 {
		t.Errorf("the workers did %v", done)
	}
	t.Logf("the workers did %v, %d of what the dead one had", done, marked)
}
