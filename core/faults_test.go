package core_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
)

// calm settles, at most n rounds and d long.
func (x *box) calm(what string) {
	x.t.Helper()
	done := make(chan bool, 1)
	go func() {
		for range 200 {
			if !x.b.Step() {
				done <- true
				return
			}
		}
		done <- false
	}()
	select {
	case ok := <-done:
		if !ok {
			x.t.Fatalf("%s: the shard never comes to rest", what)
		}
	case <-time.After(4 * time.Second):
		x.t.Fatalf("%s: a turn never ends", what)
	}
}

func note(k, v string) core.Op { return core.Op{Note: &core.Note{Key: []byte(k), Value: []byte(v)}} }

func pub(to core.Address, body string) core.Op {
	return core.Op{Publish: message(to, 1, body)}
}

// a record that is too large never comes back into the same turn
func TestLargeRetainedValueIsRefused(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	m := message(topicOf("a"), 1, string(bytes.Repeat([]byte("x"), 1<<20+1)))
	m.Retain = true
	c.Publish(m, 5)
	x.calm("a retained value of 1 MiB + 1")
}

func TestManyMarksAreCutIntoBatches(t *testing.T) {
	x := newBox(t, core.Options{})
	x.disk = memory.New(memory.Options{MaxOps: 600})
	x.start()
	c, _ := x.connect(core.SessionSpec{Unanswered: 2000})
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 5000}}, 1)
	w.take()
	for i := range 1000 {
		c.publish(queueOf("q"), 1, "m", uint64(i+1))
		if i%100 == 0 {
			x.settle()
		}
	}
	x.settle()
	w.Close(core.Closing{})
	x.calm("a reader of 1000 leaves, MaxOps 600")
}

func TestRetainedFloodIsCutIntoBatches(t *testing.T) {
	x := newBox(t, core.Options{})
	x.disk = memory.New(memory.Options{MaxOps: 600})
	x.start()
	c, _ := x.connect(core.SessionSpec{})
	x.disk.Hold()
	for i := range 700 {
		m := message(topicOf("a"), 0, fmt.Sprint(i))
		m.Retain = true
		c.Publish(m, 0)
		x.b.Step()
	}
	x.disk.Resume()
	x.calm("700 retained values during one sync, MaxOps 600")
}

// a recall whose reader has gone ends
func TestRecallEndsWithItsReader(t *testing.T) {
	x := newBox(t, core.Options{Limits: core.Limits{LiveMessages: 2}})
	c, _ := x.connect(core.SessionSpec{})
	for i := range 5 {
		m := message(topicOf(fmt.Sprint("r/", i)), 1, "v")
		m.Retain = true
		c.Publish(m, uint64(i+1))
	}
	c.take()
	r, _ := x.connect(core.SessionSpec{})
	r.Recall(core.Sub{ID: 1, Where: topicOf("r/#")}, 1)
	x.settle()
	r.Close(core.Closing{})
	x.calm("a reader left in the middle of a recall")
}

func TestRecallOfALargeValueEnds(t *testing.T) {
	x := newBox(t, core.Options{Limits: core.Limits{LiveBytes: 10_000}})
	c, _ := x.connect(core.SessionSpec{})
	for i, n := range []int{4000, 7000} {
		m := message(topicOf(fmt.Sprint("r/", i)), 1, string(make([]byte, n)))
		m.Retain = true
		c.Publish(m, uint64(i+1))
	}
	c.take()
	r, _ := x.connect(core.SessionSpec{})
	r.Recall(core.Sub{ID: 1, Where: topicOf("r/#")}, 1)
	x.calm("a value above half of LiveBytes")
}

// notes of refused
func TestRefusedPublishLeavesNoNote(t *testing.T) {
	x := newBox(t, core.Options{})
	spec := core.SessionSpec{Key: "dev", Expiry: time.Hour}
	d, _ := x.connect(spec)
	d.mustApply(queueNamed("q"))
	x.disk.SetFull(true)
	d.Submit([]core.Op{pub(queueOf("q"), "m"), note("2\x00\x07", "1")}, 7)
	d.want("confirmed 7 507")
	x.disk.SetFull(false)
	d.Close(core.Closing{})
	_, r := x.connect(spec)
	if len(r.Notes) != 0 {
		t.Fatalf("the refused message's note is there: %v: its repeat will be taken for a duplicate and lost", r.Notes)
	}
}

// drop oldest while paged
func TestDropOldestOnDisk(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(core.Change{Queue: &core.QueueSpec{Name: "q", MaxMessages: 3, Overflow: core.DropOldest}})
	for i := range 3 {
		c.publish(queueOf("q"), 1, fmt.Sprint(i), uint64(i+1))
	}
	c.take()
	x.cut()
	c, _ = x.connect(core.SessionSpec{})
	for i := range 100 {
		c.publish(queueOf("q"), 1, fmt.Sprint("n", i), uint64(i+1))
	}
	c.take()
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 1000}}, 1)
	if n := len(w.take()) - 1; n > 3 {
		t.Fatalf("a queue of at most 3 holds %d", n)
	}
}

// opening gone
func TestHeirThatHasGoneFreesTheSession(t *testing.T) {
	x := newBox(t, core.Options{})
	spec := core.SessionSpec{Key: "dev", Expiry: time.Minute}
	a, _ := x.connect(spec)
	a.mustApply(core.Change{Queue: &core.QueueSpec{Name: "$mqtt/dev", Owned: true}})
	b := x.open(spec)
	x.settle()
	b.Close(core.Closing{}) // gives up before a has left
	x.settle()
	a.Close(core.Closing{})
	x.settle()
	x.advance(2 * time.Minute)
	x.advance(2 * time.Hour)
	c, _ := x.connect(core.SessionSpec{})
	err := c.apply(core.Change{Do: core.Purge, Queue: &core.QueueSpec{Name: "$mqtt/dev"}})
	if err == nil {
		t.Fatal("the session of a minute lives after two hours with nobody connected")
	}
}

// purged plan
func TestChangesThatCancelEachOther(t *testing.T) {
	for _, name := range []string{"exchange", "binding"} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if e := recover(); e != nil {
					t.Fatalf("panic in the shard: %v", e)
				}
			}()
			x := newBox(t, core.Options{})
			c, _ := x.connect(core.SessionSpec{})
			c.mustApply(queueNamed("q"), bound("q", "a"), core.Change{Exchange: &core.ExchangeSpec{Name: "x"}})
			if name == "exchange" {
				c.apply(core.Change{Do: core.Remove, Exchange: &core.ExchangeSpec{Name: "x"}},
					core.Change{Binding: &core.BindingSpec{Queue: "q", Source: core.Address{Exchange: "x", Topic: "k"}}})
			} else {
				rm := bound("q", "a")
				rm.Do = core.Remove
				rm2 := bound("q", "a")
				rm2.Do = core.Remove
				c.apply(rm, rm2)
			}
		})
	}
}

// async on full disk
func TestAsyncOnAFullDiskIsRefused(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(core.Change{Queue: &core.QueueSpec{Name: "q", Class: core.Async}})
	x.disk.SetFull(true)
	c.publish(queueOf("q"), 1, "m", 5)
	ev := text(c.take())
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 10}}, 1)
	got := text(w.take())
	if len(got) == 1 && ev[0] == "confirmed 5" {
		t.Fatalf("confirmed without error, and gone: %q %q", ev, got)
	}
}

// MaxBytes in Submit
func TestSubmitOfMoreThanTheQueueTakes(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(core.Change{Queue: &core.QueueSpec{Name: "q", MaxBytes: 200}})
	c.Submit([]core.Op{pub(queueOf("q"), string(make([]byte, 80))), pub(queueOf("q"), string(make([]byte, 80)))}, 5)
	ev := text(c.take())
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 10}}, 1)
	if n := len(w.take()) - 1; ev[0] != "confirmed 5" && n != 0 {
		t.Fatalf("%q, yet %d of 2 are in the queue", ev, n)
	}
}

// one large message refuses its neighbours
func TestTooLargeHarmsNoNeighbour(t *testing.T) {
	x := newBox(t, core.Options{})
	x.disk = memory.New(memory.Options{MaxRecord: 1000})
	x.start()
	c, _ := x.connect(core.SessionSpec{Key: "a-client-with-a-long-long-long-long-long-long-long-long-name"})
	d, _ := x.connect(core.SessionSpec{})
	d.mustApply(queueNamed("q"))
	d.publish(queueOf("q"), 1, "small", 7)
	c.publish(queueOf("q"), 1, string(make([]byte, 935)), 5)
	ev := d.take()
	if got := text(ev); got[0] != "confirmed 7" {
		t.Fatalf("an innocent neighbour: %q (the large one: %q)", got, text(c.take()))
	}
}

// expired ones keep a rejecting queue full
func TestExpiredDoNotFillAQueue(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(core.Change{Queue: &core.QueueSpec{Name: "q", MaxMessages: 1}})
	m := message(queueOf("q"), 1, "short")
	m.Expires = x.now.Add(time.Second)
	c.Publish(m, 1)
	c.want("confirmed 1")
	x.advance(time.Minute)
	x.advance(time.Minute)
	c.publish(queueOf("q"), 1, "new", 2)
	c.want("confirmed 2")
}

// orphan queue of a session that became non-durable
func TestCrashLeavesNoOwnerlessQueue(t *testing.T) {
	x := newBox(t, core.Options{})
	d, _ := x.connect(core.SessionSpec{Key: "dev", Expiry: time.Hour})
	d.mustApply(core.Change{Queue: &core.QueueSpec{Name: "$mqtt/dev", Owned: true}},
		core.Change{Binding: &core.BindingSpec{Queue: "$mqtt/dev", Source: topicOf("t/#"), Owned: true}})
	d.Close(core.Closing{})
	x.connect(core.SessionSpec{Key: "dev"}) // resumes, for this connection only
	x.settle()
	x.cut()
	x.advance(48 * time.Hour)
	c, _ := x.connect(core.SessionSpec{})
	m := message(topicOf("t/1"), 1, "m")
	c.Publish(m, 1)
	if ev := c.take(); ev[0].N != 0 {
		t.Fatalf("a queue whose session is gone still takes messages (targets %d)", ev[0].N)
	}
}

// bound note after the delete of its session
func TestNoteEndsWithItsSession(t *testing.T) {
	x := newBox(t, core.Options{})
	spec := core.SessionSpec{Key: "dev", Expiry: time.Hour}
	d, _ := x.connect(spec)
	d.mustApply(queueNamed("q"))
	d.Submit([]core.Op{pub(queueOf("q"), "m"), note("2\x00\x07", "1")}, 7)
	var zero time.Duration
	d.Close(core.Closing{Expiry: &zero}) // the same turn
	x.settle()
	_, r := x.connect(spec)
	if r.Present || len(r.Notes) > 0 {
		t.Fatal("session is there")
	}
	x.settle()
	x.cut()
	if _, r = x.connect(spec); len(r.Notes) > 0 {
		t.Fatalf("a note of an ended session came back: %v", r.Notes)
	}
}

// dead nack of a refused submit
func TestNackOfARefusedSubmitIsUndone(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("dlq"))
	c.publish(queueOf("q"), 1, "poison", 1)
	c.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 9}}, 2)
	ev := c.take()
	tag := ev[len(ev)-1].Tag
	x.disk.SetFull(true)
	c.Submit([]core.Op{pub(queueOf("dlq"), "poison"), {Nack: []core.Tag{tag}, Back: core.Back{Dead: true}}}, 3)
	t.Log(text(c.take()))
	x.disk.SetFull(false)
	x.cut()
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 9}}, 2)
	w.Consume(core.Sub{ID: 2, Where: queueOf("dlq"), Credit: core.Credit{Messages: 9}}, 3)
	if got := text(w.take()); len(got) != 3 {
		t.Fatalf("refused, and the message is nowhere: %q", got)
	}
}

// bindings share a record
func TestOwnedAndDeclaredBindingsAreTwo(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("q"), bound("q", "t/#"))
	d, _ := x.connect(core.SessionSpec{})
	d.mustApply(core.Change{Binding: &core.BindingSpec{Queue: "q", Source: topicOf("t/#"), Owned: true}})
	d.Close(core.Closing{})
	x.settle()
	x.cut()
	c, _ = x.connect(core.SessionSpec{})
	c.publish(topicOf("t/1"), 1, "m", 1)
	if ev := c.take(); ev[0].N != 1 {
		t.Fatal("the operator's binding is gone after a restart")
	}
}

// after close
func TestConsumeAfterClose(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.publish(queueOf("q"), 1, "m", 1)
	c.take()
	d, _ := x.connect(core.SessionSpec{})
	d.Close(core.Closing{})
	d.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 9}}, 2)
	x.settle()
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 9}}, 2)
	w.want("confirmed 2", "1: m")
}

// stale route to a redeclared queue
func TestRouteToAQueueDeclaredAgain(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("q"))
	c.publish(queueOf("q"), 1, "warm", 1)
	c.want("confirmed 1")
	op, _ := x.connect(core.SessionSpec{})
	op.Apply([]core.Change{{Do: core.Remove, Queue: &core.QueueSpec{Name: "q"}}, queueNamed("q")}, 9)
	c.publish(queueOf("q"), 1, "m", 2) // behind it, in the same turn
	ev := c.take()
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 1000}}, 2)
	if got := w.take(); len(got) == 1 && ev[0].Err == nil {
		t.Fatalf("confirmed with %d targets; the queue is there, the message is not, and no fate says so", ev[0].N)
	}
}

func TestRefusedConsumeFreesItsNumber(t *testing.T) {
	x := newBox(t, core.Options{NoAutoCreate: true})
	c, _ := x.connect(core.SessionSpec{})
	c.Consume(core.Sub{ID: 1, Where: queueOf("q")}, 5)
	c.want("confirmed 5 404")
	c.Consume(core.Sub{ID: 1, Where: queueOf("q")}, 6)
	c.want("confirmed 6 404")
}

func TestRemovedQueueFreesItsConsumersNumber(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.Consume(core.Sub{ID: 1, Where: queueOf("q")}, 5)
	c.want("confirmed 5")
	c.apply(core.Change{Do: core.Remove, Queue: &core.QueueSpec{Name: "q"}})
	c.Consume(core.Sub{ID: 1, Where: queueOf("p")}, 6)
	c.want("confirmed 6")
}

func TestFullQueueDeclaredAgainTakes(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("a"), core.Change{Queue: &core.QueueSpec{Name: "b", MaxMessages: 2}}, bound("a", "t"), bound("b", "t"))
	c.publish(topicOf("t"), 1, "1", 1)
	c.take()
	op, _ := x.connect(core.SessionSpec{})
	c.publish(topicOf("t"), 1, "2", 2)
	op.Apply([]core.Change{{Do: core.Remove, Queue: &core.QueueSpec{Name: "b"}}}, 9)
	c.publish(topicOf("t"), 1, "3", 3) // behind it, stale
	if got := text(c.take()); got[1] != "confirmed 3" {
		t.Fatalf("%q", got)
	}
}

func TestFullDiskRefusesRetained(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("q"), bound("q", "a"))
	x.disk.SetFull(true)
	m := message(topicOf("a"), 1, "refused")
	m.Retain = true
	c.Publish(m, 5)
	ev := text(c.take())
	r, _ := x.connect(core.SessionSpec{})
	r.Recall(core.Sub{ID: 1, Where: topicOf("a")}, 1)
	if got := text(r.take()); len(got) > 0 {
		t.Fatalf("answered %q, yet the value is there: %q", ev, got)
	}
}
