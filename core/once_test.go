package core_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

func (c *client) named(to core.Address, id, body string, token uint64) {
	c.x.t.Helper()
	m := message(to, 1, body)
	m.Dedup = id
	if err := c.Publish(m, token); err != nil {
		c.x.t.Fatal(err)
	}
}

// What is sent twice under one id is kept once and confirmed twice: while the
// first is under way, after it, after a power cut, from another client.
//
// mission: S31 N6
func TestDedup(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	l, _ := x.connect(core.SessionSpec{})
	l.Listen(core.Sub{ID: 7, Where: topicOf("t/#")}, 1)
	l.want("confirmed 1")
	p.mustApply(queueNamed("q"), bound("q", "t/+"))
	x.disk.Hold()
	p.named(topicOf("t/a"), "1", "first", 1)
	x.settle()
	p.named(topicOf("t/a"), "1", "again", 2)
	p.want()
	l.want("7: first")
	x.disk.Resume()
	p.want("confirmed 1", "confirmed 2")
	p.named(topicOf("t/a"), "1", "again", 3)
	p.named(topicOf("t/b"), "1", "elsewhere", 4)
	p.want("confirmed 3", "confirmed 4")
	l.want("7: elsewhere")
	x.cut()
	o, _ := x.connect(core.SessionSpec{Key: "another"})
	o.named(topicOf("t/a"), "1", "again", 5)
	op := pub(topicOf("t/a"), "again")
	op.Publish.Dedup = "1"
	op2 := pub(topicOf("t/a"), "new")
	op2.Publish.Dedup = "2"
	o.Submit([]core.Op{op, op2, pub(topicOf("t/a"), "plain")}, 6)
	o.want("confirmed 5", "confirmed 6")
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: first", "9: elsewhere", "9: new", "9: plain"}) {
		t.Errorf("q has %q", got)
	}
	x.advance(9 * time.Minute)
	o.named(topicOf("t/a"), "1", "again", 7)
	x.advance(3 * time.Minute)
	o.named(topicOf("t/a"), "1", "forgotten", 8)
	o.want("confirmed 7", "confirmed 8")
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: forgotten"}) {
		t.Errorf("after the window q has %q", got)
	}
	page, _ := x.b.Inspect(core.Query{About: core.Counters, Name: "ended_duplicate"})
	if page.Rows[0].Fields[0].Value != "3" {
		t.Errorf("duplicates: %v", page.Rows)
	}
}

// A publish that was refused is no first: the same again is new.
func TestDedupAfterRefusal(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	p.mustApply(with(core.QueueSpec{Name: "q", MaxMessages: 1, DedupWindow: time.Hour}))
	x.disk.Hold()
	p.publish(topicOf("none"), 1, "", 1)
	p.later(topicOf("none"), "under way", x.now.Add(time.Hour), 2)
	x.settle()
	p.named(queueOf("q"), "2", "refused by the disk", 3)
	x.settle()
	p.named(queueOf("q"), "2", "refused with it", 4)
	x.settle()
	x.disk.SetFull(true)
	x.disk.Resume()
	p.want("confirmed 1", "confirmed 2", "confirmed 3 507", "confirmed 4 507")
	x.disk.SetFull(false)
	p.named(queueOf("q"), "2", "kept", 4)
	p.named(queueOf("q"), "3", "no room", 5)
	p.want("confirmed 4", "confirmed 5 429")
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: kept"}) {
		t.Errorf("q has %q", got)
	}
	p.named(queueOf("q"), "3", "room", 6)
	p.want("confirmed 6")
	x.advance(50 * time.Minute) // the queue's window, not the usual one
	p.named(queueOf("q"), "3", "again", 7)
	p.want("confirmed 7")
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: room"}) {
		t.Errorf("q has %q", got)
	}
}

// A delayed message is remembered from when it was published.
func TestDedupOfDelayed(t *testing.T) {
	x := newBox(t, core.Options{})
	p, _ := x.connect(core.SessionSpec{})
	for i := range 3 {
		m := message(queueOf("q"), 1, "m")
		m.Dedup, m.NotBefore = "1", x.now.Add(time.Minute)
		p.Publish(m, uint64(i+1))
	}
	p.want("confirmed 1", "confirmed 2", "confirmed 3")
	x.cut()
	x.advance(time.Minute)
	x.advance(time.Second)
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: m"}) {
		t.Errorf("q has %q", got)
	}
}

// Another connection of a producer takes over, and hears how far all is known.
//
// mission: S31
func TestProducerTakesOver(t *testing.T) {
	x := newBox(t, core.Options{NoAutoCreate: true})
	a, r := x.connect(core.SessionSpec{Producer: "billing"})
	a.mustApply(queueNamed("q"))
	if r.Last != 0 || r.Present {
		t.Errorf("a new producer: %+v", r)
	}
	a.publish(queueOf("q"), 1, "1", 1)
	a.publish(queueOf("q"), 1, "5", 5)
	a.publish(queueOf("none"), 1, "6", 6)
	a.Answer(7, core.ErrTooLarge)
	a.publish(queueOf("q"), 1, "8", 8)
	a.want("confirmed 1", "confirmed 5", "confirmed 6 404", "confirmed 7 413", "confirmed 8")
	b, r := x.connect(core.SessionSpec{Producer: "billing"})
	if r.Last != 5 || !r.Present {
		t.Errorf("resumed: %+v, want 5: 6 and 7 were refused, and that may not be known", r)
	}
	a.want("evicted")
	a.publish(queueOf("q"), 1, "9", 9)
	a.want("confirmed 9 423")
	for _, n := range []uint64{6, 7, 8, 9} {
		b.publish(queueOf("q"), 1, fmt.Sprint(n), n)
	}
	b.Submit([]core.Op{pub(queueOf("q"), "10a"), pub(queueOf("q"), "10b")}, 10)
	b.want("confirmed 6", "confirmed 7", "confirmed 8", "confirmed 9", "confirmed 10")
	x.cut()
	c, r := x.connect(core.SessionSpec{Producer: "billing"})
	if r.Last != 10 {
		t.Errorf("after a power cut: %+v", r)
	}
	c.Submit([]core.Op{pub(queueOf("q"), "10a"), pub(queueOf("q"), "10b")}, 10)
	c.publish(queueOf("q"), 1, "11", 11)
	c.want("confirmed 10", "confirmed 11")
	if got := text(x.read("q")); !slices.Equal(got, []string{"9: 1", "9: 5", "9: 8", "9: 6", "9: 7", "9: 9", "9: 10a", "9: 10b", "9: 11"}) {
		t.Errorf("q has %q", got)
	}
	c.Close(core.Closing{})
	x.settle()
	x.advance(8 * 24 * time.Hour)
	if _, r := x.connect(core.SessionSpec{Producer: "billing"}); r.Last != 0 {
		t.Errorf("after a week: %+v", r)
	}
}

// A producer that sends again what it does not know, through power cuts, full
// disks and full queues: what was confirmed is there once, and only once.
//
// mission: S31, P1
func TestProducerAtRandom(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		x := newBox(t, core.Options{})
		admin, _ := x.connect(core.SessionSpec{})
		admin.mustApply(with(core.QueueSpec{Name: "q", MaxMessages: 20}))
		p, _ := x.connect(core.SessionSpec{Producer: "p", Unanswered: 1000})
		next := uint64(1)
		unknown := map[uint64]bool{}   // sent, not answered
		confirmed := map[uint64]bool{} // told that it is stored
		came := map[string]int{}
		look := func() {
			for _, e := range p.take() {
				if e.Kind == core.Confirmed && e.Token > 0 {
					delete(unknown, e.Token)
					confirmed[e.Token] = e.Err == nil
				}
			}
		}
		drain := func() {
			for _, e := range x.read("q") {
				came[string(e.Message.Body)]++
			}
		}
		send := func(n uint64) {
			unknown[n] = true
			switch rng.IntN(4) {
			case 0:
				p.Submit([]core.Op{pub(queueOf("q"), fmt.Sprint(n))}, n)
			default:
				p.publish(queueOf("q"), 1, fmt.Sprint(n), n)
			}
		}
		reconnect := func() {
			var r *core.Resumed
			p, r = x.connect(core.SessionSpec{Producer: "p", Unanswered: 1000})
			again := []uint64{}
			for n := range unknown {
				if n <= r.Last {
					delete(unknown, n)
					confirmed[n] = true
					continue
				}
				again = append(again, n)
			}
			slices.Sort(again)
			for _, n := range again {
				send(n)
			}
		}
		x.disk.Hold()
		for range 200 {
			switch rng.IntN(12) {
			case 0:
				x.disk.Resume()
				p.Close(core.Closing{}) // its answers are lost
				x.settle()
				reconnect()
				x.disk.Hold()
			case 1:
				x.disk.SetFull(false)
				x.cut()
				x.disk.Resume()
				reconnect()
				x.disk.Hold()
			case 2:
				x.disk.SetFull(rng.IntN(2) == 0)
			case 3:
				x.disk.Resume()
				x.settle()
				drain()
				x.disk.Hold()
			case 4, 5:
				x.disk.Sync()
				look()
			default:
				send(next)
				next++
				x.b.Step()
			}
		}
		x.disk.SetFull(false)
		x.disk.Resume()
		look()
		drain()
		reconnect()
		look()
		drain()
		for n, yes := range confirmed {
			if yes && came[fmt.Sprint(n)] != 1 {
				t.Fatalf("seed %d: %d was confirmed and came %d times", seed, n, came[fmt.Sprint(n)])
			}
			if !yes && came[fmt.Sprint(n)] != 0 {
				t.Fatalf("seed %d: %d was refused and came %d times", seed, n, came[fmt.Sprint(n)])
			}
		}
	}
}
