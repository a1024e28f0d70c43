package core_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
	"github.com/godwitmq/godwit/persistence/memory"
)

// later publishes something with a delay.
func (c *client) later(to core.Address, body string, at time.Time, token uint64) {
	c.x.t.Helper()
	m := message(to, 1, body)
	m.NotBefore = at
	if err := c.Publish(m, token); err != nil {
		c.x.t.Fatal(err)
	}
}

func (x *box) delayed() string {
	page, _ := x.b.Inspect(core.Query{About: core.Counters, Name: "delayed"})
	return page.Rows[0].Fields[0].Value
}

// What is delayed is confirmed when the disk has it, routed when it is due and
// not before, by what is bound then; a power cut changes nothing of that.
//
// mission: S35, P1 P10
func TestDelay(t *testing.T) {
	for _, wait := range []time.Duration{5 * time.Second, 59 * time.Second, time.Minute, 3 * time.Hour, 300 * 24 * time.Hour} {
		for _, cut := range []bool{false, true} {
			x := newBox(t, core.Options{})
			p, _ := x.connect(core.SessionSpec{})
			x.disk.Hold()
			p.later(topicOf("a"), "later", x.now.Add(wait), 1)
			p.want()
			x.disk.Resume()
			p.want("confirmed 1")
			p.mustApply(queueNamed("q"), bound("q", "a"))
			if cut {
				x.cut()
			}
			if x.delayed() != "1" {
				t.Errorf("%v: %s delayed", wait, x.delayed())
			}
			due := x.now.Add(wait)
			for x.now.Add(2 * time.Minute).Before(due) {
				x.advance(min(time.Minute, due.Sub(x.now)/2))
				if wait > 24*time.Hour {
					x.advance(due.Sub(x.now) / 2)
				}
			}
			w := x.worker(core.Sub{}, "q")
			w.want("confirmed 2")
			for x.now.Add(250 * time.Millisecond).Before(due) {
				x.advance(250 * time.Millisecond)
				w.want()
			}
			x.advance(250 * time.Millisecond)
			if got := text(w.take()); !slices.Equal(got, []string{"1: later"}) {
				t.Errorf("delay %v, cut %v: at its time %q", wait, cut, got)
			}
			if x.delayed() != "0" {
				t.Errorf("%v: then %s delayed", wait, x.delayed())
			}
			x.advance(2 * time.Minute) // its minute goes
			x.cut()
			x.advance(2 * time.Minute)
			if got := text(x.read("q")); !slices.Equal(got, []string{"9: later n=2"}) {
				t.Errorf("delay %v, cut %v: after it %q", wait, cut, got)
			}
		}
	}
}

// Delayed messages through power cuts and full disks at random: each comes
// once, none early, none later than a second while the disk takes it.
//
// mission: S35
func TestDelayedAtRandom(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		x := newBox(t, core.Options{})
		p, _ := x.connect(core.SessionSpec{Unanswered: 1000})
		p.mustApply(queueNamed("q"))
		due := make(map[string]time.Time)
		got := make(map[string]bool)
		w := x.worker(core.Sub{Credit: core.Credit{Messages: 1 << 30}}, "q")
		look := func() {
			for _, e := range w.take() {
				if e.Kind != core.Delivered {
					continue
				}
				body := string(e.Message.Body)
				switch at := due[body]; {
				case x.now.Before(at):
					t.Fatalf("seed %d: %s came %v early", seed, body, at.Sub(x.now))
				case got[body] && e.Tag.Attempt < 2:
					t.Fatalf("seed %d: %s came twice", seed, body)
				case !got[body] && x.now.Sub(at) > 61*time.Second: // a minute off the power at most, below
					t.Fatalf("seed %d: %s came %v late", seed, body, x.now.Sub(at))
				}
				got[body] = true
				w.Ack(e.Tag)
			}
			x.settle()
		}
		for i := range 300 {
			switch rng.IntN(20) {
			case 0:
				x.cut()
				x.now = x.now.Add(time.Duration(rng.IntN(60)) * time.Second)
				p, _ = x.connect(core.SessionSpec{Unanswered: 1000})
				w = x.worker(core.Sub{Credit: core.Credit{Messages: 1 << 30}}, "q")
				x.advance(0)
			case 1, 2, 3, 4, 5, 6, 7, 8, 9:
				body := fmt.Sprint(i)
				at := x.now.Add(time.Duration(rng.IntN(200_000)) * time.Millisecond)
				due[body] = at
				p.later(queueOf("q"), body, at, uint64(i+1))
				p.take()
			default:
				x.advance(time.Duration(rng.IntN(1000)) * time.Millisecond)
			}
			look()
		}
		for range 1000 {
			x.advance(250 * time.Millisecond)
			look()
		}
		if len(got) != len(due) || x.delayed() != "0" {
			t.Fatalf("seed %d: %d of %d came, %s are delayed", seed, len(got), len(due), x.delayed())
		}
	}
}

// A queue that is full when a message is due gets it when it has room; what
// nobody wants then ends with its reason.
func TestDueAndNotTaken(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(with(core.QueueSpec{Name: "q", MaxMessages: 1}))
	p.publish(queueOf("q"), 1, "first", 1)
	p.later(queueOf("q"), "second", x.now.Add(time.Second), 2)
	p.later(topicOf("none"), "third", x.now.Add(time.Second), 3)
	m := message(queueOf("q"), 1, "fourth")
	m.NotBefore, m.Expires = x.now.Add(2*time.Second), x.now.Add(time.Second)
	p.Publish(m, 4)
	p.want("confirmed 1", "confirmed 2", "confirmed 3", "confirmed 4")
	x.advance(time.Second)
	x.advance(time.Second)
	x.calm("a full queue")
	if f, d := x.figures("q"), x.delayed(); f != "ready=1 unacked=0 delayed=0" || d != "1" {
		t.Errorf("q has %s, %s are delayed", f, d)
	}
	x.read("q")
	x.advance(time.Second)
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: second"}) {
		t.Errorf("q: %q", got)
	}
	if a, b := x.fates("t/none"), x.fates("delayed"); len(a) != 1 || len(b) != 2 {
		t.Errorf("fates: %q, %q", a, b)
	}
	x.disk.SetFull(true)
	p.later(queueOf("q"), "no room", x.now.Add(time.Second), 5)
	p.want("confirmed 5 507")
	x.disk.SetFull(false)
	p.later(queueOf("q"), "fifth", x.now.Add(time.Second), 6)
	p.want("confirmed 6")
	x.disk.SetFull(true)
	x.advance(time.Second)
	x.calm("due on a full disk")
	x.disk.SetFull(false)
	x.advance(time.Second)
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: fifth"}) {
		t.Errorf("after the full disk: %q", got)
	}
}

// Delays that cannot be, and delays in a transaction.
func TestDelayRefused(t *testing.T) {
	x := newBox(t, core.Options{NoAutoCreate: true})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(queueNamed("q"))
	p.later(queueOf("q"), "too far", x.now.Add(367*24*time.Hour), 1)
	p.later(queueOf("none"), "nobody", x.now.Add(time.Hour), 2)
	p.later(core.Address{VHost: "/", Exchange: "none", Topic: "k"}, "no exchange", x.now.Add(time.Hour), 3)
	p.want("confirmed 1 406", "confirmed 2 404", "confirmed 3 404")
	p.later(queueOf("q"), "due already", x.now, 4)
	p.want("confirmed 4")
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: due already"}) {
		t.Errorf("q: %q", got)
	}
	op := pub(queueOf("q"), "in a minute")
	op.Publish.NotBefore = x.now.Add(time.Minute)
	p.Submit([]core.Op{pub(queueOf("q"), "now"), op}, 5)
	p.want("confirmed 5")
	x.cut()
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: now"}) {
		t.Errorf("q: %q", got)
	}
	x.advance(time.Minute)
	x.advance(time.Second)
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: in a minute"}) {
		t.Errorf("q: %q", got)
	}
}

// A machine that wakes up in 1970 fires nothing until its clock is set.
//
// mission: N16
func TestDelayWithoutAClock(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.later(queueOf("q"), "m", x.now.Add(time.Hour), 1)
	p.want("confirmed 1")
	set := x.now
	x.now = time.Unix(60, 0)
	x.cut()
	for range 10 {
		x.advance(time.Minute)
	}
	if f := x.figures("q"); f != "no such queue" {
		t.Errorf("in 1970 q has %s", f)
	}
	x.now = set
	x.advance(59 * time.Minute)
	if f := x.figures("q"); f != "no such queue" {
		t.Errorf("before its time q has %s", f)
	}
	x.advance(time.Minute)
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: m"}) {
		t.Errorf("q: %q", got)
	}
}

// A minute that is larger than what may be in memory is read in slices, in
// the order in which it is due.
func TestLargeMinuteInSlices(t *testing.T) {
	if testing.Short() {
		t.Skip("300 MB")
	}
	x := newBox(t, core.Options{Window: 1 << 20})
	p, _ := x.connect(core.SessionSpec{Unanswered: 1 << 20})
	p.mustApply(queueNamed("q"))
	const n, size = 3000, 100_000
	start := x.now.Add(10 * time.Minute)
	order := rand.New(rand.NewPCG(1, 1)).Perm(n)
	for _, i := range order {
		m := message(queueOf("q"), 1, fmt.Sprintf("%05d%s", i, make([]byte, size)))
		m.NotBefore = start.Add(time.Duration(i) * 20 * time.Millisecond)
		p.Publish(m, uint64(i+1))
		x.settle()
	}
	p.take()
	x.cut()
	next := 0
	w := x.worker(core.Sub{Credit: core.Credit{Messages: 1 << 30}}, "q")
	for next < n && x.now.Before(start.Add(2*time.Minute)) {
		x.advance(250 * time.Millisecond)
		for _, e := range w.take() {
			if e.Kind != core.Delivered {
				continue
			}
			if got := string(e.Message.Body[:5]); got != fmt.Sprintf("%05d", next) {
				t.Fatalf("%s in place %d", got, next)
			}
			if late := x.now.Sub(e.Message.NotBefore); late < 0 || late > time.Second {
				t.Fatalf("%d is %v late", next, late)
			}
			next++
			w.Ack(e.Tag)
		}
	}
	if next != n {
		t.Fatalf("%d of %d came", next, n)
	}
}

// A million delayed messages over an hour: restart reads none of them, each
// fires within a second, none early.
//
// mission: S35
func TestAMillionDelayed(t *testing.T) {
	if testing.Short() {
		t.Skip("a million messages")
	}
	x := newBox(t, core.Options{Window: 8 << 20})
	p, _ := x.connect(core.SessionSpec{Unanswered: 1 << 21})
	p.mustApply(queueNamed("q"))
	const n = 1_000_000
	start := x.now.Add(time.Hour)
	began := time.Now()
	for i := range n {
		m := message(queueOf("q"), 1, "x")
		m.NotBefore = start.Add(time.Duration(i) * time.Hour / n)
		p.Publish(m, uint64(i+1))
		if i%4096 == 0 {
			x.settle()
		}
	}
	x.settle()
	t.Logf("loaded in %v: %.0f k/s", time.Since(began), n/time.Since(began).Seconds()/1000)
	p.take()
	began = time.Now()
	x.cut()
	t.Logf("restart in %v", time.Since(began))
	if x.delayed() != fmt.Sprint(n) {
		t.Fatalf("%s are delayed", x.delayed())
	}
	w := x.worker(core.Sub{Credit: core.Credit{Messages: 1 << 30}}, "q")
	x.now = start.Add(-time.Minute)
	began = time.Now()
	came := 0
	for x.now.Before(start.Add(time.Hour + time.Minute)) {
		x.advance(250 * time.Millisecond)
		for _, e := range w.take() {
			if e.Kind != core.Delivered {
				continue
			}
			if late := x.now.Sub(e.Message.NotBefore); late < 0 || late > time.Second {
				t.Fatalf("%d is %v late", came, late)
			}
			came++
			w.Ack(e.Tag)
		}
	}
	t.Logf("fired in %v", time.Since(began))
	if came != n {
		t.Fatalf("%d of %d came", came, n)
	}
}

// What it costs to publish a message that is due within the hour, until it is
// confirmed: go test ./core -run '^$' -bench Delayed -benchtime 1000000x.
func BenchmarkDelayed(b *testing.B) {
	for _, store := range []struct {
		name string
		open func(b *testing.B) core.Store
	}{
		{"memory", func(*testing.B) core.Store { return memory.New(memory.Options{}) }},
		{"badger", func(b *testing.B) core.Store {
			s, err := badger.Open(b.TempDir(), badger.Options{})
			if err != nil {
				b.Fatal(err)
			}
			return s
		}},
	} {
		b.Run(store.name, func(b *testing.B) {
			disk := store.open(b)
			br, err := core.New(core.Options{Store: disk})
			if err != nil {
				b.Fatal(err)
			}
			p := newPeer(b, br, core.SessionSpec{Unanswered: 20_000})
			p.each(b, func(e core.Event) bool { return e.Kind != core.Confirmed })
			start := time.Now().Add(time.Hour)
			body := make([]byte, 256)
			var spare []core.Event
			b.ReportAllocs()
			b.ResetTimer()
			for sent, confirmed := 0, 0; confirmed < b.N; {
				for sent < b.N {
					m := &core.Message{Address: queueOf("q"), QoS: 1, Body: body, NotBefore: start.Add(time.Duration(sent%3600) * time.Second)}
					if p.Publish(m, uint64(sent+10)) != nil {
						break
					}
					sent++
				}
				<-p.woken
				spare, _ = p.Events().Take(spare)
				for _, e := range spare {
					if e.Kind == core.Confirmed {
						confirmed++
					}
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.StopTimer()
			p.Close(core.Closing{})
			if err := br.Close(b.Context()); err != nil {
				b.Error(err)
			}
			if err := disk.Close(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
}
