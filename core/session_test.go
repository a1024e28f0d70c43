package core_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
)

// A box is a broker without goroutines on a disk in the hands of the test.
type box struct {
	t    *testing.T
	disk *memory.Store
	b    *core.Broker
	now  time.Time
	opts core.Options
}

func newBox(t *testing.T, opts core.Options) *box {
	x := &box{t: t, disk: memory.New(memory.Options{}), now: time.Date(2030, 1, 1, 13, 0, 0, 0, time.UTC), opts: opts}
	x.start()
	return x
}

func (x *box) start() {
	o := x.opts
	o.Store, o.Manual, o.Now = x.disk, true, func() time.Time { return x.now }
	if o.Shards == 0 {
		o.Shards = 1
	}
	b, err := core.New(o)
	if err != nil {
		x.t.Fatal(err)
	}
	x.b = b
}

func (x *box) settle() {
	for x.b.Step() {
	}
}

func (x *box) advance(d time.Duration) {
	x.now = x.now.Add(d)
	x.b.Tick(x.now)
	x.settle()
}

// cut takes the power away and starts again with what was on the disk.
func (x *box) cut() {
	x.disk.Cut()
	x.start()
	x.settle()
}

type client struct {
	*core.Session
	x *box
}

func (*client) Wake() {}

func (x *box) open(spec core.SessionSpec) *client {
	c := &client{x: x}
	id, err := x.b.Enter(x.t.Context(), core.Login{Identity: core.Identity{Client: spec.Key, Protocol: "test"}})
	if err != nil {
		x.t.Fatal(err)
	}
	c.Session = x.b.Open(id, spec, 1, c)
	return c
}

// connect opens and expects the answer.
func (x *box) connect(spec core.SessionSpec) (*client, *core.Resumed) {
	x.t.Helper()
	c := x.open(spec)
	ev := c.take()
	if len(ev) != 1 || ev[0].Kind != core.Confirmed || ev[0].Err != nil {
		x.t.Fatalf("open: %v", ev)
	}
	return c, ev[0].Resumed
}

func (c *client) take() []core.Event {
	c.x.settle()
	ev, _ := c.Events().Take(nil)
	return ev
}

func topicOf(s string) core.Address {
	return core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: s}
}

func queueOf(s string) core.Address {
	return core.Address{VHost: "/", Exchange: core.DefaultExchange, Topic: s}
}

func message(to core.Address, qos uint8, body string) *core.Message {
	return &core.Message{Address: to, QoS: qos, Priority: core.DefaultPriority, Body: []byte(body)}
}

func (c *client) publish(to core.Address, qos uint8, body string, token uint64) {
	c.x.t.Helper()
	if err := c.Publish(message(to, qos, body), token); err != nil {
		c.x.t.Fatalf("publish %s: %v", body, err)
	}
}

func (c *client) apply(changes ...core.Change) error {
	c.x.t.Helper()
	c.Apply(changes, 99)
	for _, e := range c.take() {
		if e.Kind == core.Confirmed && e.Token == 99 {
			return e.Err
		}
	}
	c.x.t.Fatal("apply was not answered")
	return nil
}

func (c *client) mustApply(changes ...core.Change) {
	c.x.t.Helper()
	if err := c.apply(changes...); err != nil {
		c.x.t.Fatal(err)
	}
}

func queueNamed(name string) core.Change { return core.Change{Queue: &core.QueueSpec{Name: name}} }
func bound(queue, filter string) core.Change {
	return core.Change{Binding: &core.BindingSpec{Queue: queue, Source: topicOf(filter)}}
}

// text shows events as a test reads them.
func text(events []core.Event) (out []string) {
	for _, e := range events {
		switch e.Kind {
		case core.Confirmed:
			s := fmt.Sprintf("confirmed %d", e.Token)
			if e.Err != nil {
				s += fmt.Sprintf(" %d", core.AsError(e.Err).Code)
			}
			out = append(out, s)
		case core.Delivered:
			s := fmt.Sprintf("%d: %s", e.Sub, e.Message.Body)
			if e.Tag.Attempt > 1 {
				s += fmt.Sprintf(" n=%d", e.Tag.Attempt)
			}
			if e.Retained {
				s += " retained"
			}
			out = append(out, s)
		case core.Cancelled:
			out = append(out, fmt.Sprintf("cancelled %d after %d", e.Sub, e.N))
		case core.Drained:
			out = append(out, fmt.Sprintf("drained %d after %d", e.Sub, e.N))
		case core.Again:
			out = append(out, "again")
		case core.Evicted:
			out = append(out, "evicted")
		}
	}
	return out
}

func (c *client) want(what ...string) []core.Event {
	c.x.t.Helper()
	ev := c.take()
	if got := text(ev); !slices.Equal(got, what) {
		c.x.t.Fatalf("got  %q\nwant %q", got, what)
	}
	return ev
}

// mission: S28 S40, P1 P4
func TestConfirmedOnlyAfterTheDiskHasIt(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	r, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("readings"), bound("readings", "plant/+/temp"))
	r.Listen(core.Sub{ID: 7, Where: topicOf("plant/#")}, 2)
	r.want("confirmed 2")
	x.disk.Hold()
	c.publish(topicOf("plant/7/temp"), 1, "21.5", 5)
	c.want()
	r.want("7: 21.5") // a live reader does not wait for the disk
	x.disk.Resume()
	c.want("confirmed 5")
}

// mission: S1 S27 S33, P6 P7 P8
func TestQueueDeliversInOrderUntilAcked(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	for i := range 5 {
		c.publish(queueOf("q"), 1, fmt.Sprint(i), uint64(10+i))
	}
	c.want("confirmed 10", "confirmed 11", "confirmed 12", "confirmed 13", "confirmed 14")
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 2, Auto: true}}, 3)
	ev := w.want("confirmed 3", "1: 0", "1: 1")
	w.Ack(ev[1].Tag)
	w.want("1: 2")
	w.Nack(core.Back{}, ev[2].Tag)
	w.want("1: 1 n=2")
	w.Close(core.Closing{})
	v, _ := x.connect(core.SessionSpec{})
	v.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 10}}, 3)
	ev = v.want("confirmed 3", "1: 1 n=3", "1: 2 n=2", "1: 3", "1: 4")
	for _, e := range ev[1:] {
		v.Ack(e.Tag)
	}
	x.settle()
	x.cut()
	u, _ := x.connect(core.SessionSpec{})
	u.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 10}}, 3)
	u.want("confirmed 3")
}

// mission: S8 S30, P1 P6
func TestPowerCut(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("a"), queueNamed("b"), bound("a", "t/#"), bound("b", "t/1"))
	c.publish(topicOf("t/1"), 1, "one", 1)
	c.publish(topicOf("t/2"), 1, "two", 2)
	c.publish(topicOf("t/1"), 0, "gone", 0) // transient
	c.want("confirmed 1", "confirmed 2")
	x.disk.Hold()
	c.publish(topicOf("t/1"), 1, "unsynced", 3)
	c.want()
	x.cut()
	x.disk.Resume()
	w, _ := x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("a"), Credit: core.Credit{Messages: 10}}, 1)
	w.Consume(core.Sub{ID: 2, Where: queueOf("b"), Credit: core.Credit{Messages: 10}}, 2)
	got := text(w.take())
	slices.Sort(got)
	if want := []string{"1: one", "1: two", "2: one", "confirmed 1", "confirmed 2"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	x.cut() // what was delivered comes again, marked
	w, _ = x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("a"), Credit: core.Credit{Messages: 10}}, 1)
	w.want("confirmed 1", "1: one n=2", "1: two n=2")
	x.cut()
	c, _ = x.connect(core.SessionSpec{})
	c.publish(topicOf("t/3"), 1, "three", 3)
	c.want("confirmed 3")
	x.cut() // what nobody was given is not marked
	w, _ = x.connect(core.SessionSpec{})
	w.Consume(core.Sub{ID: 1, Where: queueOf("a"), Credit: core.Credit{Messages: 10}}, 1)
	w.want("confirmed 1", "1: one n=2", "1: two n=2", "1: three")
}

// mission: S44
func TestCompetingConsumersShare(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{Unanswered: 2000})
	var readers []*client
	for i := range 4 {
		r, _ := x.connect(core.SessionSpec{})
		r.Consume(core.Sub{ID: uint32(i + 1), Where: queueOf("q"), Credit: core.Credit{Messages: 1000}}, 1)
		readers = append(readers, r)
	}
	for i := range 1000 {
		c.publish(queueOf("q"), 1, fmt.Sprint(i), uint64(i+1))
	}
	for i, r := range readers {
		n := len(r.take()) - 1
		if n < 225 || n > 275 {
			t.Errorf("reader %d got %d of 1000", i, n)
		}
	}
}

// mission: S38, P5
func TestAnswersLeaveInPublishOrder(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	x.disk.Hold()
	c.publish(queueOf("q"), 1, "slow", 1)
	c.publish(topicOf("nobody"), 1, "fast", 2)
	c.Answer(3, core.ErrTooLarge)
	c.want()
	x.disk.Resume()
	ev := c.want("confirmed 1", "confirmed 2", "confirmed 3 413")
	if ev[0].N != 1 || ev[1].N != 0 {
		t.Errorf("targets %d and %d, want 1 and 0", ev[0].N, ev[1].N)
	}
}

// mission: S38 S40
func TestTooManyUnansweredWait(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{Unanswered: 4})
	x.disk.Hold()
	for i := range 4 {
		c.publish(queueOf("q"), 1, "m", uint64(i+1))
	}
	if err := c.Publish(message(queueOf("q"), 1, "m"), 5); !errors.Is(err, core.ErrWait) {
		t.Fatalf("the fifth: %v, want ErrWait", err)
	}
	c.want()
	x.disk.Resume()
	c.want("confirmed 1", "confirmed 2", "again", "confirmed 3", "confirmed 4")
}

// mission: S11 S20, P14
func TestSessionResumes(t *testing.T) {
	x := newBox(t, core.Options{})
	spec := core.SessionSpec{Key: "dev", Expiry: time.Hour}
	d, _ := x.connect(spec)
	binding := core.BindingSpec{Queue: "$mqtt/dev", Source: topicOf("a/+"), Only: core.Durable, Owned: true, Data: []byte("x")}
	d.mustApply(core.Change{Queue: &core.QueueSpec{Name: "$mqtt/dev", Owned: true}}, core.Change{Binding: &binding})
	if err := d.Submit([]core.Op{{Note: &core.Note{Key: []byte("q2"), Value: []byte("1")}}}, 8); err != nil {
		t.Fatal(err)
	}
	d.want("confirmed 8")
	d.Close(core.Closing{Residue: []byte("ring")})
	p, _ := x.connect(core.SessionSpec{})
	p.publish(topicOf("a/1"), 1, "for dev", 1)
	p.publish(topicOf("a/1"), 0, "not kept", 0)
	p.want("confirmed 1")
	for _, how := range []string{"while it runs", "after a power cut"} {
		if how != "while it runs" {
			x.cut()
		}
		d, res := x.connect(spec)
		if !res.Present || string(res.Residue) != "ring" || len(res.Notes) != 1 || len(res.Bindings) != 1 || string(res.Bindings[0].Data) != "x" {
			t.Fatalf("%s: resumed %+v", how, res)
		}
		d.Consume(core.Sub{ID: 1, Where: queueOf("$mqtt/dev"), Credit: core.Credit{Messages: 9}}, 3)
		if got := text(d.take()); len(got) != 2 {
			t.Fatalf("%s: %q", how, got)
		}
		d.Close(core.Closing{Residue: []byte("ring")})
		x.settle()
	}
	x.advance(time.Hour + time.Second)
	_, res := x.connect(spec)
	if res.Present {
		t.Error("the session outlived its expiry")
	}
	if page, _ := x.b.Inspect(core.Query{About: core.Queues, Hidden: true}); len(page.Rows) != 0 {
		t.Errorf("its queue is left: %v", page.Rows)
	}
}

// mission: S11
func TestTakeover(t *testing.T) {
	x := newBox(t, core.Options{})
	spec := core.SessionSpec{Key: "dev", Expiry: time.Hour}
	d, _ := x.connect(spec)
	e := x.open(spec)
	e.want()
	d.want("evicted")
	d.Close(core.Closing{Residue: []byte("state")})
	ev := e.want("confirmed 1")
	if r := ev[0].Resumed; !r.Present || string(r.Residue) != "state" {
		t.Errorf("resumed %+v", r)
	}
	f := x.open(spec) // this time the old one does not answer
	f.want()
	x.advance(1100 * time.Millisecond)
	f.want("confirmed 1")
}

// mission: S20
func TestRetained(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	for i, topic := range []string{"a/2", "a/1", "b/1", "a"} {
		m := message(topicOf(topic), 1, topic)
		m.Retain = true
		if err := c.Publish(m, uint64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	c.want("confirmed 1", "confirmed 2", "confirmed 3", "confirmed 4")
	x.cut()
	r, _ := x.connect(core.SessionSpec{})
	r.Recall(core.Sub{ID: 3, Where: topicOf("a/#")}, 0)
	r.want("3: a retained", "3: a/1 retained", "3: a/2 retained")
	c, _ = x.connect(core.SessionSpec{})
	m := message(topicOf("a/1"), 1, "")
	m.Retain = true
	c.Publish(m, 9)
	c.want("confirmed 9")
	x.cut()
	r, _ = x.connect(core.SessionSpec{})
	r.Recall(core.Sub{ID: 3, Where: topicOf("a/+")}, 0)
	r.want("3: a/2 retained")
}

// A recall goes on as the reader makes room: never one big copy.
func TestRecallHeedsTheReadersRoom(t *testing.T) {
	x := newBox(t, core.Options{Limits: core.Limits{LiveMessages: 4}})
	c, _ := x.connect(core.SessionSpec{})
	for i := range 10 {
		m := message(topicOf(fmt.Sprint("r/", i)), 0, fmt.Sprint(i))
		m.Retain = true
		c.Publish(m, 0)
	}
	c.Recall(core.Sub{ID: 1, Where: topicOf("r/+")}, 0)
	var got []string
	for range 5 {
		ev := c.take()
		size := int64(0)
		for _, e := range ev {
			size += e.Message.Size()
			got = append(got, string(e.Message.Body))
		}
		c.Events().Release(len(ev), size)
	}
	if len(got) != 10 || !slices.IsSorted(got) {
		t.Errorf("got %q", got)
	}
}

// mission: S11
func TestWill(t *testing.T) {
	x := newBox(t, core.Options{})
	r, _ := x.connect(core.SessionSpec{})
	r.Listen(core.Sub{ID: 1, Where: topicOf("#")}, 2)
	r.want("confirmed 2")
	will := func(delay time.Duration) *core.Will {
		return &core.Will{Message: message(topicOf("dead"), 0, "bye"), Delay: delay}
	}
	d, _ := x.connect(core.SessionSpec{Key: "a", Will: will(0)})
	d.Close(core.Closing{DropWill: true})
	r.want()
	d, _ = x.connect(core.SessionSpec{Key: "a", Will: will(0)})
	d.Close(core.Closing{})
	r.want("1: bye")
	d, _ = x.connect(core.SessionSpec{Key: "a", Expiry: time.Hour, Will: will(time.Minute)})
	d.Close(core.Closing{})
	r.want()
	x.advance(time.Minute)
	r.want("1: bye")
	d, _ = x.connect(core.SessionSpec{Key: "a", Expiry: time.Hour, Will: will(time.Minute)})
	d.Close(core.Closing{})
	x.connect(core.SessionSpec{Key: "a", Expiry: time.Hour}) // back in time
	x.advance(2 * time.Minute)
	r.want()
}

// mission: S31, P9
func TestSubmitIsAllOrNothing(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.publish(queueOf("in"), 1, "job", 1)
	c.want("confirmed 1")
	c.Consume(core.Sub{ID: 1, Where: queueOf("in"), Credit: core.Credit{Messages: 5}}, 2)
	ev := c.want("confirmed 2", "1: job")
	x.disk.SetFull(true)
	ops := func() []core.Op {
		return []core.Op{{Ack: []core.Tag{ev[1].Tag}}, {Publish: message(queueOf("out"), 1, "done")}}
	}
	if err := c.Submit(ops(), 3); err != nil {
		t.Fatal(err)
	}
	c.want("confirmed 3 507")
	x.disk.SetFull(false)
	if err := c.Submit(ops(), 4); err != nil { // the delivery is still in the client's hands
		t.Fatal(err)
	}
	c.want("confirmed 4")
	x.cut()
	c, _ = x.connect(core.SessionSpec{})
	c.Consume(core.Sub{ID: 1, Where: queueOf("in"), Credit: core.Credit{Messages: 5}}, 2)
	c.Consume(core.Sub{ID: 2, Where: queueOf("out"), Credit: core.Credit{Messages: 5}}, 3)
	c.want("confirmed 2", "confirmed 3", "2: done")
}

// mission: P2 P11
func TestFullDiskRefusesPublishesAndTakesAcks(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.publish(queueOf("q"), 1, "kept", 1)
	c.want("confirmed 1")
	x.disk.SetFull(true)
	c.publish(queueOf("q"), 1, "refused", 2)
	c.want("confirmed 2 507")
	c.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 5}}, 3)
	ev := c.want("confirmed 3", "1: kept")
	c.Submit([]core.Op{{Ack: []core.Tag{ev[1].Tag}}}, 4)
	c.want("confirmed 4")
	x.disk.SetFull(false)
	c.publish(queueOf("q"), 1, "again", 5)
	c.want("confirmed 5", "1: again")
}

// mission: P12
func TestBrokenDiskConfirmsNothing(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	x.disk.Hold()
	c.publish(queueOf("q"), 1, "m", 1)
	x.settle()
	x.disk.Fail()
	x.disk.Resume()
	c.want()
	c.publish(queueOf("q"), 1, "m", 2)
	c.want()
	select {
	case <-x.b.Fatal():
	default:
		t.Error("the broker does not know that its store is lost")
	}
}

// mission: S8
func TestFullQueue(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(
		core.Change{Queue: &core.QueueSpec{Name: "r", MaxMessages: 2}},
		core.Change{Queue: &core.QueueSpec{Name: "d", MaxMessages: 2, Overflow: core.DropOldest}})
	for i := range 3 {
		c.publish(queueOf("r"), 1, fmt.Sprint(i), uint64(10+i))
		c.publish(queueOf("d"), 1, fmt.Sprint(i), uint64(20+i))
		x.settle()
	}
	c.want("confirmed 10", "confirmed 20", "confirmed 11", "confirmed 21", "confirmed 12 429", "confirmed 22")
	x.cut()
	c, _ = x.connect(core.SessionSpec{})
	c.Consume(core.Sub{ID: 1, Where: queueOf("r"), Credit: core.Credit{Messages: 5}}, 1)
	c.Consume(core.Sub{ID: 2, Where: queueOf("d"), Credit: core.Credit{Messages: 5}}, 2)
	got := text(c.take())
	slices.Sort(got)
	if want := []string{"1: 0", "1: 1", "2: 1", "2: 2", "confirmed 1", "confirmed 2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	page, _ := x.b.Inspect(core.Query{About: core.Queues, Name: "d"})
	if len(page.Rows) != 1 || page.Rows[0].Fields[1].Value != "2" {
		t.Errorf("unacked: %v", page.Rows)
	}
}

// A backlog beyond the window is on the disk alone, and comes back in order.
//
// mission: S33, P8
func TestBacklogBeyondTheWindow(t *testing.T) {
	x := newBox(t, core.Options{Window: 32 << 10})
	c, _ := x.connect(core.SessionSpec{Unanswered: 10_000})
	const n = 5000
	for i := range n {
		c.publish(queueOf("q"), 1, fmt.Sprintf("%05d", i), uint64(i+1))
		if i%100 == 0 {
			x.settle()
		}
	}
	if got := len(c.take()); got != n {
		t.Fatalf("%d confirmed", got)
	}
	for _, again := range []bool{false, true} {
		if again {
			x.cut()
		}
		w, _ := x.connect(core.SessionSpec{})
		w.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 100, Auto: true}}, 1)
		next := 0
		if again {
			next = n / 2
		}
		for next < n {
			ev := w.take()
			if len(ev) == 0 {
				t.Fatalf("again %v: stuck at %d of %d", again, next, n)
			}
			for _, e := range ev {
				if e.Kind != core.Delivered {
					continue
				}
				if got := string(e.Message.Body); got != fmt.Sprintf("%05d", next) {
					t.Fatalf("again %v: got %s, want %05d", again, got, next)
				}
				next++
				w.Ack(e.Tag)
				if !again && next == n/2 {
					break
				}
			}
			if !again && next == n/2 {
				break
			}
		}
		x.settle()
		if again {
			page, _ := x.b.Inspect(core.Query{About: core.Queues, Name: "q"})
			if f := page.Rows[0].Fields; f[0].Value != "0" || f[1].Value != "0" || f[3].Value != "0" {
				t.Errorf("left: %v", f)
			}
		}
	}
}

// mission: S37
func TestPull(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.Consume(core.Sub{ID: 1, Where: queueOf("q")}, 1)
	c.want("confirmed 1")
	c.Pull(1, core.Credit{Messages: 2}, time.Time{})
	c.want("drained 1 after 0")
	c.Pull(1, core.Credit{Messages: 2}, x.now.Add(5*time.Second))
	c.publish(queueOf("q"), 1, "a", 5)
	c.want("confirmed 5", "1: a")
	x.advance(6 * time.Second)
	c.want("drained 1 after 1")
	c.publish(queueOf("q"), 1, "b", 6)
	c.want("confirmed 6")
	c.Pull(1, core.Credit{Messages: 1}, x.now.Add(time.Second))
	c.want("1: b", "drained 1 after 1")
}

// mission: S45
func TestLease(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.Consume(core.Sub{ID: 1, Where: queueOf("q"), Lease: 10 * time.Second, Credit: core.Credit{Messages: 5}}, 1)
	c.publish(queueOf("q"), 1, "a", 5)
	ev := c.want("confirmed 5", "confirmed 1", "1: a")
	x.advance(9 * time.Second)
	c.Touch(10*time.Second, ev[2].Tag)
	x.settle()
	x.advance(9 * time.Second)
	c.want()
	x.advance(2 * time.Second)
	c.want("1: a n=2")
	c.Ack(ev[2].Tag) // the first delivery's: too late
	x.settle()
	page, _ := x.b.Inspect(core.Query{About: core.Queues, Name: "q"})
	if page.Rows[0].Fields[1].Value != "1" {
		t.Errorf("a late ack settled the redelivery: %v", page.Rows)
	}
}

// mission: P10
func TestExpired(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	m := message(queueOf("q"), 1, "old")
	m.Expires = x.now.Add(time.Second)
	c.Publish(m, 1)
	c.publish(queueOf("q"), 1, "new", 2)
	c.want("confirmed 1", "confirmed 2")
	x.advance(2 * time.Second)
	c.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 5}}, 3)
	c.want("confirmed 3", "1: new")
	page, _ := x.b.Inspect(core.Query{About: core.Fates, Name: "q/q"})
	if len(page.Rows) != 1 || page.Rows[0].Fields[0].Value != "expired" {
		t.Errorf("fates: %v", page.Rows)
	}
}

// mission: S7
func TestBindingsComeAndGo(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(queueNamed("a"), bound("a", "x/+"))
	c.mustApply(queueNamed("a")) // S6: the same again is no change
	if err := c.apply(core.Change{Queue: &core.QueueSpec{Name: "a", MaxMessages: 3}}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("other settings: %v", err)
	}
	c.publish(topicOf("x/1"), 1, "1", 1)
	c.want("confirmed 1")
	b := bound("a", "x/+")
	b.Do = core.Remove
	c.mustApply(b)
	c.publish(topicOf("x/1"), 1, "2", 2)
	c.want("confirmed 2")
	if err := c.apply(b); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("unbound twice: %v", err)
	}
	c.Consume(core.Sub{ID: 1, Where: queueOf("a"), Credit: core.Credit{Messages: 5}}, 3)
	c.want("confirmed 3", "1: 1")
	q := queueNamed("a")
	q.Do = core.Remove
	c.Apply([]core.Change{q}, 4)
	c.want("cancelled 1 after 1", "confirmed 4")
}

// A queue that goes with its last consumer goes, whole.
func TestAutoDelete(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.mustApply(core.Change{Queue: &core.QueueSpec{Name: "a", AutoDelete: true}}, bound("a", "x"))
	for _, how := range []string{"cancelled", "left"} {
		r, _ := x.connect(core.SessionSpec{})
		r.Consume(core.Sub{ID: 1, Where: queueOf("a"), Credit: core.Credit{Messages: 1}}, 2)
		r.want("confirmed 2")
		if how == "left" {
			r.Close(core.Closing{})
		} else {
			r.Cancel(1)
			r.want("cancelled 1 after 0")
		}
		x.settle()
		for _, about := range []core.About{core.Queues, core.Bindings} {
			if page, _ := x.b.Inspect(core.Query{About: about}); len(page.Rows) != 0 {
				t.Errorf("%s: left %v", how, page.Rows)
			}
		}
		c.mustApply(core.Change{Queue: &core.QueueSpec{Name: "a", AutoDelete: true}}, bound("a", "x"))
	}
}

// One message that several merged subscriptions want comes once.
func TestMerge(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.Listen(core.Sub{ID: 1, Where: topicOf("a/#"), Merge: true, NoLocal: true}, 1)
	c.Listen(core.Sub{ID: 2, Where: topicOf("a/+"), Merge: true}, 2)
	c.Listen(core.Sub{ID: 3, Where: topicOf("a/+")}, 3)
	c.want("confirmed 1", "confirmed 2", "confirmed 3")
	p, _ := x.connect(core.SessionSpec{})
	p.publish(topicOf("a/1"), 0, "m", 0)
	got := text(c.take())
	slices.Sort(got)
	if want := []string{"1: m", "3: m"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	c.publish(topicOf("a/1"), 0, "own", 0)
	got = text(c.take())
	slices.Sort(got)
	if want := []string{"2: own", "3: own"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	c.Cancel(3)
	c.want("cancelled 3 after 2")
}

// mission: S29 S49, P4
func TestSlowLiveReaderMissesCounted(t *testing.T) {
	x := newBox(t, core.Options{Limits: core.Limits{LiveMessages: 3}})
	r, _ := x.connect(core.SessionSpec{Key: "slow"})
	r.Listen(core.Sub{ID: 1, Where: topicOf("#")}, 1)
	c, _ := x.connect(core.SessionSpec{})
	for i := range 5 {
		c.publish(topicOf("x"), 1, fmt.Sprint(i), uint64(i+1))
	}
	c.want("confirmed 1", "confirmed 2", "confirmed 3", "confirmed 4", "confirmed 5")
	r.want("confirmed 1", "1: 0", "1: 1", "1: 2")
	page, _ := x.b.Inspect(core.Query{About: core.Fates, Name: "slow"})
	if len(page.Rows) != 2 || page.Rows[0].Fields[0].Value != "slow_reader" {
		t.Errorf("fates: %v", page.Rows)
	}
}

// mission: S13
func TestReplyAddress(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	to := c.Reply()
	c.Listen(core.Sub{ID: 1, Where: to}, 1)
	w, _ := x.connect(core.SessionSpec{})
	w.publish(to, 1, "answer", 2)
	w.want("confirmed 2")
	c.want("confirmed 1", "1: answer")
	w.Listen(core.Sub{ID: 1, Where: to}, 3)
	w.want("confirmed 3 403")
	c.Close(core.Closing{})
	w.publish(to, 1, "late", 4)
	w.want("confirmed 4 410")
}

func TestMust(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	m := message(topicOf("nobody"), 1, "m")
	m.Must = true
	c.Publish(m, 1)
	c.want("confirmed 1 404")
}

// What does not exist yet says so, whoever asks.
func TestNotYet(t *testing.T) {
	x := newBox(t, core.Options{})
	c, _ := x.connect(core.SessionSpec{})
	c.Follow(core.Sub{ID: 1}, 1)
	c.Listen(core.Sub{ID: 1, Where: topicOf("a"), Group: "g"}, 2)
	c.Consume(core.Sub{ID: 1, Where: queueOf("a"), Selector: "x"}, 3)
	m := message(topicOf("a"), 1, "m")
	m.Expect = 7
	c.Publish(m, 4)
	c.Apply([]core.Change{{Queue: &core.QueueSpec{Name: "p", Spread: true}}}, 5)
	c.Apply([]core.Change{{Stream: &core.StreamSpec{Name: "s"}}}, 6)
	c.want("confirmed 1 406", "confirmed 2 406", "confirmed 3 406", "confirmed 4 406", "confirmed 5 406", "confirmed 6 406")
}
