package core_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

func with(spec core.QueueSpec) core.Change { return core.Change{Queue: &spec} }

// header is the value of a header that must be there.
func header(t *testing.T, m *core.Message, name string) string {
	t.Helper()
	v, ok := m.Header(name)
	if !ok {
		t.Errorf("no header %s: %v", name, m.Headers)
	}
	return v
}

// read takes what a queue holds, with a session of its own, and leaves again.
func (x *box) read(queue string) (out []core.Event) {
	x.t.Helper()
	r, _ := x.connect(core.SessionSpec{})
	r.Consume(core.Sub{ID: 9, Where: queueOf(queue), Credit: core.Credit{Messages: 1000}}, 2)
	out = slices.DeleteFunc(r.take(), func(e core.Event) bool { return e.Kind != core.Delivered })
	for _, e := range out {
		r.Ack(e.Tag)
	}
	x.settle()
	r.Close(core.Closing{})
	x.settle()
	return out
}

func (x *box) figures(queue string) string {
	x.t.Helper()
	page, err := x.b.Inspect(core.Query{About: core.Queues, Name: queue, Hidden: true})
	if err != nil || len(page.Rows) != 1 {
		return "no such queue"
	}
	var out []string
	for _, f := range page.Rows[0].Fields[:3] {
		out = append(out, f.Name+"="+f.Value)
	}
	return strings.Join(out, " ")
}

func (x *box) fates(name string) (out []string) {
	page, _ := x.b.Inspect(core.Query{About: core.Fates, Name: name})
	for _, r := range page.Rows {
		out = append(out, r.Fields[0].Value+" "+r.Fields[3].Value)
	}
	return out
}

// Each way to die brings a message to the dead letters, with the reason, and
// the letter says where it came from. Over a power cut too.
//
// mission: S27 S45, P7 P10
func TestDeadLetters(t *testing.T) {
	for _, c := range []struct {
		sentence, reason, attempts, text string
		spec                             core.QueueSpec
		die                              func(x *box, w *client)
	}{
		{"a reader will never take it", "rejected", "1", "no such order", core.QueueSpec{}, func(x *box, w *client) {
			w.Nack(core.Back{Dead: true, Text: "no such order"}, w.want("confirmed 3", "1: bad")[1].Tag)
		}},
		{"it was given back as often as it may", "max_attempts", "2", "", core.QueueSpec{MaxAttempts: 2}, func(x *box, w *client) {
			w.Nack(core.Back{}, w.want("confirmed 3", "1: bad")[1].Tag)
			w.Nack(core.Back{}, w.want("1: bad n=2")[0].Tag)
		}},
		{"its readers went as often as it may", "max_attempts", "1", "", core.QueueSpec{MaxAttempts: 1}, func(x *box, w *client) {
			w.want("confirmed 3", "1: bad")
			w.Close(core.Closing{})
		}},
		{"its time is over while it is held", "expired", "1", "", core.QueueSpec{TTL: time.Minute}, func(x *box, w *client) {
			w.want("confirmed 3", "1: bad")
			x.advance(2 * time.Minute)
			w.Close(core.Closing{})
		}},
	} {
		for _, cut := range []bool{false, true} {
			t.Run(fmt.Sprint(c.sentence, " cut=", cut), func(t *testing.T) {
				x := newBox(t, core.Options{})
				p, _ := x.connect(core.SessionSpec{})
				c.spec.Name, c.spec.DeadLetter = "work", "q/dead"
				p.mustApply(with(c.spec), bound("work", "jobs/+"))
				m := message(topicOf("jobs/7"), 1, "bad")
				m.Headers = []core.Header{{Name: "a", Value: "b"}, {Name: "dead-queue", Value: "forged"}}
				p.Publish(m, 1)
				p.want("confirmed 1")
				at := x.now.UnixMilli()
				w, _ := x.connect(core.SessionSpec{})
				w.Consume(core.Sub{ID: 1, Where: queueOf("work"), Credit: core.Credit{Messages: 10}}, 3)
				c.die(x, w)
				x.settle()
				if cut {
					x.cut()
				}
				letters := x.read("dead")
				if len(letters) != 1 {
					t.Fatalf("dead: %q", text(letters))
				}
				got := letters[0].Message
				want := map[string]string{
					"a": "b", core.HeaderDeadReason: c.reason, core.HeaderDeadQueue: "q/work", core.HeaderDeadAddress: "t/jobs/7",
					core.HeaderDeadAttempts: c.attempts, core.HeaderDeadCount: "1", core.HeaderDeadArrived: fmt.Sprint(at),
				}
				if c.text != "" {
					want[core.HeaderDeadText] = c.text
				}
				for name, value := range want {
					if v := header(t, got, name); v != value {
						t.Errorf("%s is %q, want %q", name, v, value)
					}
				}
				if len(got.Headers) != len(want) || got.Address != topicOf("jobs/7") {
					t.Errorf("address %v, headers %v", got.Address, got.Headers)
				}
				if f := x.figures("work"); f != "ready=0 unacked=0 delayed=0" {
					t.Errorf("work has %s", f)
				}
			})
		}
	}
}

// What dies in a queue without readers dies as well.
func TestExpiresWithoutReaders(t *testing.T) {
	x := newBox(t, core.Options{Window: 1})
	p, _ := x.connect(core.SessionSpec{Unanswered: 10_000})
	p.mustApply(with(core.QueueSpec{Name: "q", TTL: time.Minute, DeadLetter: "q/dead"}))
	for i := range 3000 {
		p.publish(queueOf("q"), 1, fmt.Sprint(i), uint64(i+1))
		if i == 1500 {
			x.advance(30 * time.Second)
		}
	}
	x.settle()
	x.advance(31 * time.Second)
	for range 20 {
		x.advance(time.Second / 4)
	}
	if f := x.figures("q"); f != "ready=1499 unacked=0 delayed=0" {
		t.Errorf("the first half is over, and q has %s", f)
	}
	x.advance(time.Minute)
	for range 20 {
		x.advance(time.Second / 4)
	}
	if q, d := x.figures("q"), x.figures("dead"); q != "ready=0 unacked=0 delayed=0" || d != "ready=3000 unacked=0 delayed=0" {
		t.Errorf("q has %s, dead has %s", q, d)
	}
}

// A full disk takes no dead letters: what is dying stays, and goes when there
// is room. Nothing is lost, nothing is there twice.
func TestDeadLettersWaitForTheDisk(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(with(core.QueueSpec{Name: "q", DeadLetter: "q/dead"}), queueNamed("dead"))
	p.publish(queueOf("q"), 1, "bad", 1)
	p.want("confirmed 1")
	p.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 5}}, 2)
	tag := p.want("confirmed 2", "1: bad")[1].Tag
	x.disk.SetFull(true)
	p.Nack(core.Back{Dead: true}, tag)
	x.calm("a dead letter on a full disk")
	x.advance(time.Second)
	if f := x.figures("q"); f != "ready=1 unacked=0 delayed=0" {
		t.Errorf("while the disk is full q has %s", f)
	}
	x.disk.SetFull(false)
	x.advance(time.Second)
	if q, d := x.figures("q"), x.figures("dead"); q != "ready=0 unacked=0 delayed=0" || d != "ready=1 unacked=0 delayed=0" {
		t.Errorf("q has %s, dead has %s", q, d)
	}
}

// Dead letters that take no more keep what is dying where it is, and not
// forever.
func TestDeadLettersThatAreFull(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(with(core.QueueSpec{Name: "dead", MaxMessages: 1}), with(core.QueueSpec{Name: "q", TTL: time.Second, DeadLetter: "q/dead"}))
	p.publish(queueOf("q"), 1, "a", 1)
	p.publish(queueOf("q"), 1, "b", 2)
	x.settle()
	x.advance(2 * time.Second)
	x.calm("dead letters that are full")
	if q, d := x.figures("q"), x.figures("dead"); q != "ready=1 unacked=0 delayed=0" || d != "ready=1 unacked=0 delayed=0" {
		t.Errorf("q has %s, dead has %s", q, d)
	}
	if got := text(x.read("dead")); !slices.Equal(got, []string{"9: a"}) {
		t.Errorf("dead: %q", got)
	}
	x.advance(time.Second)
	if got := text(x.read("dead")); !slices.Equal(got, []string{"9: b"}) {
		t.Errorf("then: %q", got)
	}
}

// Dead letters that go in a circle end, with a reason.
func TestCircleOfDeadLetters(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(
		with(core.QueueSpec{Name: "a", TTL: time.Second, DeadLetter: "q/b"}),
		with(core.QueueSpec{Name: "b", TTL: time.Second, DeadLetter: "q/a"}),
		with(core.QueueSpec{Name: "c", DeadLetter: "t/again"}), bound("c", "again"))
	p.publish(queueOf("a"), 1, "m", 1)
	for range 40 {
		x.advance(time.Second)
	}
	x.calm("a circle")
	if a, b := x.figures("a"), x.figures("b"); a != b || a != "ready=0 unacked=0 delayed=0" {
		t.Errorf("a has %s, b has %s", a, b)
	}
	if got := x.fates("a"); len(got) == 0 || !strings.Contains(got[0], "circle") {
		t.Errorf("fates of a: %q", got)
	}
	p.publish(queueOf("c"), 1, "m", 2)
	p.take()
	for i := range 20 {
		p.Consume(core.Sub{ID: 1, Where: queueOf("c"), Credit: core.Credit{Messages: 1}}, 5)
		for _, e := range p.take() {
			if e.Kind == core.Delivered {
				p.Nack(core.Back{Dead: true}, e.Tag)
				if n, _ := e.Message.Header(core.HeaderDeadCount); i > 0 && n != fmt.Sprint(i) {
					t.Errorf("round %d: dead-count %q", i, n)
				}
			}
		}
		p.Cancel(1)
		x.calm("its own dead letters")
		p.take()
	}
	if c := x.figures("c"); c != "ready=0 unacked=0 delayed=0" {
		t.Errorf("c has %s", c)
	}
}

// A full queue: what each overflow does, and where what it drops goes.
//
// mission: S8
func TestOverflow(t *testing.T) {
	for _, c := range []struct {
		sentence string
		spec     core.QueueSpec
		confirms []string
		queue    []string
		dead     []string
	}{
		{"drop_oldest without dead letters", core.QueueSpec{Overflow: core.DropOldest}, []string{"confirmed 1", "confirmed 2", "confirmed 3"}, []string{"9: 2", "9: 3"}, nil},
		{"drop_oldest with dead letters", core.QueueSpec{Overflow: core.DropOldest, DeadLetter: "q/dead"}, []string{"confirmed 1", "confirmed 2", "confirmed 3"}, []string{"9: 2", "9: 3"}, []string{"9: 1"}},
		{"dead_letter", core.QueueSpec{Overflow: core.DeadLetter, DeadLetter: "q/dead"}, []string{"confirmed 1", "confirmed 2", "confirmed 3"}, []string{"9: 1", "9: 2"}, []string{"9: 3"}},
		{"reject", core.QueueSpec{DeadLetter: "q/dead"}, []string{"confirmed 1", "confirmed 2", "confirmed 3 429"}, []string{"9: 1", "9: 2"}, nil},
	} {
		for _, transaction := range []bool{false, true} {
			t.Run(fmt.Sprint(c.sentence, " transaction=", transaction), func(t *testing.T) {
				x := newBox(t, core.Options{})
				p, _ := x.connect(core.SessionSpec{})
				c.spec.Name, c.spec.MaxMessages = "q", 2
				p.mustApply(with(c.spec), queueNamed("dead"))
				p.publish(queueOf("q"), 1, "1", 1)
				p.publish(queueOf("q"), 1, "2", 2)
				x.settle()
				if transaction {
					p.Submit([]core.Op{pub(queueOf("q"), "3")}, 3)
				} else {
					p.publish(queueOf("q"), 1, "3", 3)
				}
				p.want(c.confirms...)
				x.cut()
				if got := text(x.read("q")); !slices.Equal(got, c.queue) {
					t.Errorf("q has %q", got)
				}
				letters := x.read("dead")
				if got := text(letters); !slices.Equal(got, c.dead) {
					t.Errorf("dead has %q", got)
				}
				for _, e := range letters {
					if why := header(t, e.Message, core.HeaderDeadReason); why != "overflow" {
						t.Errorf("the reason is %q", why)
					}
				}
			})
		}
	}
}

// Two full queues that are each other's dead letters refuse, and do not turn
// in a circle.
func TestOverflowInACircle(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	for _, how := range []core.Overflow{core.DeadLetter, core.DropOldest} {
		a, b := fmt.Sprint("a", how), fmt.Sprint("b", how)
		p.mustApply(
			with(core.QueueSpec{Name: a, MaxMessages: 1, Overflow: how, DeadLetter: "q/" + b}),
			with(core.QueueSpec{Name: b, MaxMessages: 1, Overflow: how, DeadLetter: "q/" + a}))
		for i := range 5 {
			p.publish(queueOf(a), 1, fmt.Sprint(i), uint64(i+1))
			x.calm("a circle of full queues")
		}
		ev := text(p.take())
		if how == core.DeadLetter && !slices.Equal(ev, []string{"confirmed 1", "confirmed 2", "confirmed 3 429", "confirmed 4 429", "confirmed 5 429"}) {
			t.Errorf("dead_letter: %q", ev)
		}
		if a, b := x.figures(a), x.figures(b); a != b || a != "ready=1 unacked=0 delayed=0" {
			t.Errorf("overflow %d: %s and %s", how, a, b)
		}
	}
}

// One verb brings dead letters back to where they died, another moves a
// queue's messages elsewhere: all of them, or so many.
//
// mission: N8
func TestRedriveAndMove(t *testing.T) {
	x := newBox(t, core.Options{Window: 1})
	p, _ := x.connect(core.SessionSpec{Unanswered: 10_000})
	p.mustApply(with(core.QueueSpec{Name: "a", DeadLetter: "q/dead", TTL: time.Minute}), with(core.QueueSpec{Name: "b", DeadLetter: "q/dead", TTL: time.Minute}), bound("b", "t/b"))
	const n = 1000
	for i := range n {
		p.publish(queueOf("a"), 1, fmt.Sprintf("a%04d", i), uint64(2*i+1))
		p.publish(topicOf("t/b"), 1, fmt.Sprintf("b%04d", i), uint64(2*i+2))
	}
	p.take()
	for range 20 {
		x.advance(10 * time.Second)
	}
	if f := x.figures("dead"); f != "ready=2000 unacked=0 delayed=0" {
		t.Fatalf("dead has %s", f)
	}
	p.Apply([]core.Change{{Do: core.Move, Queue: &core.QueueSpec{Name: "dead"}, Limit: 10}}, 1)
	if ev := p.take(); len(ev) != 1 || ev[0].Err != nil || ev[0].N != 10 {
		t.Fatalf("ten of them: %v", ev)
	}
	p.Apply([]core.Change{{Do: core.Move, Queue: &core.QueueSpec{Name: "dead"}}}, 2)
	if ev := p.take(); len(ev) != 1 || ev[0].Err != nil || ev[0].N != 2*n-10 {
		t.Fatalf("the rest: %v", ev)
	}
	x.cut()
	for _, q := range []string{"a", "b"} {
		got := x.read(q)
		if len(got) != n {
			t.Fatalf("%s has %d again", q, len(got))
		}
		for i, e := range got {
			if string(e.Message.Body) != fmt.Sprintf("%s%04d", q, i) {
				t.Fatalf("%s: %s in place %d", q, e.Message.Body, i)
			}
			if len(e.Message.Headers) != 1 || header(t, e.Message, core.HeaderDeadCount) != "1" {
				t.Fatalf("%s: headers %v", q, e.Message.Headers)
			}
		}
		if q == "b" && got[0].Message.Address != topicOf("t/b") {
			t.Errorf("b: address %v", got[0].Message.Address)
		}
	}
	p, _ = x.connect(core.SessionSpec{})
	p.publish(queueOf("dead"), 1, "no letter", 1)
	p.take()
	p.Apply([]core.Change{{Do: core.Move, Queue: &core.QueueSpec{Name: "dead"}}}, 3)
	p.want("confirmed 3 404")
	p.Apply([]core.Change{{Do: core.Move, Queue: &core.QueueSpec{Name: "dead"}, To: "q/none"}}, 4)
	p.want("confirmed 4 404")
	p.Apply([]core.Change{{Do: core.Move, Queue: &core.QueueSpec{Name: "dead"}, To: "q/a"}}, 5)
	p.want("confirmed 5")
	if got := text(x.read("a")); !slices.Equal(got, []string{"9: no letter"}) {
		t.Errorf("moved: %q", got)
	}
}

// A move that finds no room says how far it came, and the rest stays.
func TestMoveIntoAFullQueue(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(queueNamed("from"), with(core.QueueSpec{Name: "to", MaxMessages: 3}))
	for i := range 5 {
		p.publish(queueOf("from"), 1, fmt.Sprint(i), uint64(i+1))
	}
	p.take()
	p.Apply([]core.Change{{Do: core.Move, Queue: &core.QueueSpec{Name: "from"}, To: "q/to"}}, 9)
	p.want("confirmed 9 429")
	if a, b := text(x.read("from")), text(x.read("to")); !slices.Equal(a, []string{"9: 3", "9: 4"}) || len(b) != 3 {
		t.Errorf("from has %q, to has %q", a, b)
	}
}

// What fails rests before it comes again, longer each time, and others pass.
//
// mission: S43 S45
func TestBackoff(t *testing.T) {
	x := newBox(t, core.Options{Seed: 7})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(with(core.QueueSpec{Name: "q", Backoff: "1s-4s"}), with(core.QueueSpec{Name: "j", Backoff: "10s~0.5"}))
	p.publish(queueOf("q"), 1, "bad", 1)
	p.publish(queueOf("q"), 1, "good", 2)
	p.take()
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 1, Auto: true}}, 3)
	tag := w.want("confirmed 3", "1: bad")[1].Tag
	w.Nack(core.Back{}, tag)
	w.Ack(w.want("1: good")[0].Tag)
	for i, rest := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second} {
		if f := x.figures("q"); f != "ready=0 unacked=0 delayed=1" && i > 0 {
			t.Errorf("q has %s", f)
		}
		x.advance(rest - time.Millisecond)
		w.want()
		x.advance(time.Millisecond)
		w.Nack(core.Back{}, w.want(fmt.Sprintf("1: bad n=%d", i+2))[0].Tag)
		x.settle()
	}
	x.advance(4 * time.Second)
	w.Nack(core.Back{Delay: time.Minute}, w.want("1: bad n=6")[0].Tag) // its reader knows better
	x.settle()
	x.advance(59 * time.Second)
	w.want()
	w.Close(core.Closing{})
	x.advance(time.Second)
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: bad n=7"}) {
		t.Errorf("after a minute: %q", got)
	}
	var waits []time.Duration
	for range 20 {
		p.publish(queueOf("j"), 1, "x", 1)
		p.Consume(core.Sub{ID: 1, Where: queueOf("j"), Credit: core.Credit{Messages: 1}}, 3)
		for _, e := range p.take() {
			if e.Kind == core.Delivered {
				p.Nack(core.Back{}, e.Tag)
			}
		}
		p.Cancel(1)
		p.take()
		began := x.now
		for x.figures("j") != "ready=1 unacked=0 delayed=0" {
			x.advance(time.Second / 4)
		}
		waits = append(waits, x.now.Sub(began))
		x.read("j")
	}
	if slices.Min(waits) < 5*time.Second || slices.Max(waits) > 15*time.Second+time.Second/4 || slices.Max(waits)-slices.Min(waits) < 3*time.Second {
		t.Errorf("10s~0.5 waits %v", waits)
	}
}

// A queue that nobody uses goes, with its reason; publishing alone is no use.
func TestIdleExpiry(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	spec := core.QueueSpec{Name: "q", IdleExpiry: time.Minute}
	p.mustApply(with(spec))
	x.advance(50 * time.Second)
	p.mustApply(with(spec))
	x.advance(50 * time.Second)
	p.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 1}}, 1)
	p.take()
	x.advance(5 * time.Minute)
	p.Cancel(1)
	p.take()
	p.publish(queueOf("q"), 1, "m", 1)
	x.advance(59 * time.Second)
	if f := x.figures("q"); f != "ready=1 unacked=0 delayed=0" {
		t.Errorf("before its time: %s", f)
	}
	x.advance(time.Second)
	if f := x.figures("q"); f != "no such queue" {
		t.Errorf("after it: %s", f)
	}
	if got := x.fates("q"); !slices.Equal(got, []string{"idle 1 messages"}) {
		t.Errorf("fates: %q", got)
	}
	x.cut()
	if f := x.figures("q"); f != "no such queue" {
		t.Errorf("after a power cut: %s", f)
	}
}

// Settings that cannot be are refused, with a sentence that says what can.
func TestImpossibleSettings(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	for _, spec := range []core.QueueSpec{
		{Overflow: core.DeadLetter},
		{DeadLetter: "q/q"},
		{DeadLetter: "dead"},
		{DeadLetter: "x/amq.direct"}, // wants a key
		{DeadLetter: "x/amq.default"},
		{DeadLetter: "t/a/#"},
		{DeadLetter: "r/1"},
		{DeadLetter: "s/1"},
		{Backoff: "soon"},
		{Backoff: "5s-1s"},
		{Backoff: "1s~2"},
		{Backoff: "0s"},
		{Backoff: "400d"},
		{Backoff: "1s~x"},
		{Backoff: "1s~NaN"},
		{Priorities: 11},
		{MaxWait: time.Second},
		{MaxAttempts: 1 << 16},
		{MaxMessages: -1},
		{TTL: -1},
		{TTL: 367 * 24 * time.Hour},
		{Lease: 500 * time.Microsecond},
	} {
		spec.Name = "q"
		if err := p.apply(with(spec)); !errors.Is(err, core.ErrBadValue) && !errors.Is(err, core.ErrSyntax) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
}

// The high overtake the low; within a level all keep their order, over a
// backlog on the disk and a power cut too. With max_wait the low come in time.
//
// mission: S34
func TestPriorities(t *testing.T) {
	for _, window := range []int64{0, 1} {
		x := newBox(t, core.Options{Window: window})
		p, _ := x.connect(core.SessionSpec{Unanswered: 10_000})
		p.mustApply(with(core.QueueSpec{Name: "q", Priorities: 10}))
		const n = 500
		for i := range n {
			m := message(queueOf("q"), 1, fmt.Sprintf("%d/%04d", i%10, i))
			m.Priority = uint8(i % 10)
			p.Publish(m, uint64(i+1))
		}
		if got := len(p.take()); got != n {
			t.Fatalf("%d confirmed", got)
		}
		x.cut()
		got := x.read("q")
		if len(got) != n {
			t.Fatalf("window %d: %d came", window, len(got))
		}
		for i := 1; i < n; i++ {
			a, b := got[i-1].Message, got[i].Message
			if a.Priority < b.Priority || (a.Priority == b.Priority && string(a.Body) >= string(b.Body)) {
				t.Fatalf("window %d: %s before %s", window, a.Body, b.Body)
			}
		}
		x.cut()
		if got := x.read("q"); len(got) != 0 {
			t.Fatalf("window %d: after their acks %d are there", window, len(got))
		}
	}
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(with(core.QueueSpec{Name: "q", Priorities: 3, MaxWait: 10 * time.Second}))
	say := func(priority uint8, body string) {
		m := message(queueOf("q"), 1, body)
		m.Priority = priority
		p.Publish(m, 1)
		p.want("confirmed 1")
	}
	say(0, "low")
	x.advance(9 * time.Second)
	say(9, "high")
	say(1, "mid")
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 1, Auto: true}}, 3)
	w.Ack(w.want("confirmed 3", "1: high")[1].Tag)
	w.Ack(w.want("1: mid")[0].Tag)
	w.Nack(core.Back{}, w.want("1: low")[0].Tag)
	tag := w.want("1: low n=2")[0].Tag
	say(9, "high 2")
	x.advance(2 * time.Second)
	w.Nack(core.Back{}, tag)
	w.want("1: low n=3") // it has waited for long enough
}

// Dead letters may go to a topic or an exchange: to all who are bound there, and
// to who listens live. Where nobody is, they end, and it is said.
func TestDeadLettersToATopic(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	l, _ := x.connect(core.SessionSpec{})
	l.Listen(core.Sub{ID: 7, Where: topicOf("dead/#")}, 1)
	l.take()
	p.mustApply(
		core.Change{Exchange: &core.ExchangeSpec{Name: "graves"}},
		with(core.QueueSpec{Name: "a", DeadLetter: "t/dead/a"}), with(core.QueueSpec{Name: "b", DeadLetter: "x/graves/b"}),
		queueNamed("one"), queueNamed("two"), bound("one", "dead/+"), bound("two", "dead/a"),
	)
	die := func(queue string) {
		p.publish(queueOf(queue), 1, "from "+queue, 1)
		p.Consume(core.Sub{ID: 1, Where: queueOf(queue), Credit: core.Credit{Messages: 1}}, 2)
		for _, e := range p.take() {
			if e.Kind == core.Delivered {
				p.Nack(core.Back{Dead: true}, e.Tag)
			}
		}
		p.Cancel(1)
		p.take()
	}
	die("a")
	ev := l.want("7: from a")
	if a := ev[0].Message.Address; a != topicOf("dead/a") || header(t, ev[0].Message, core.HeaderDeadAddress) != "q/a" {
		t.Errorf("its address is %v, its headers %v", a, ev[0].Message.Headers)
	}
	x.cut()
	for _, q := range []string{"one", "two"} {
		if got := text(x.read(q)); !slices.Equal(got, []string{"9: from a"}) {
			t.Errorf("%s has %q", q, got)
		}
	}
	p, _ = x.connect(core.SessionSpec{})
	die("b")
	if f, got := x.figures("b"), x.fates("b"); f != "ready=0 unacked=0 delayed=0" || len(got) != 1 || got[0] != "rejected no dead letter: nobody takes x/graves/b" {
		t.Errorf("b has %s, its fates are %q", f, got)
	}
}
