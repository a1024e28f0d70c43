package coretest_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/coretest"
	"github.com/godwitmq/godwit/persistence/memory"
)

var orders = core.Address{VHost: "/", Exchange: core.DefaultExchange, Topic: "orders"}

type client struct {
	*core.Session
	t   *testing.T
	box *coretest.Box
}

func (*client) Wake() {}

func newBox(t *testing.T) *coretest.Box {
	t.Helper()
	b, err := coretest.New(coretest.Options{Disk: memory.New(memory.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func connect(t *testing.T, b *coretest.Box) *client {
	t.Helper()
	id, err := b.Broker.Enter(t.Context(), core.Login{Identity: core.Identity{Protocol: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, box: b}
	c.Session = b.Broker.Open(id, core.SessionSpec{}, 1, c)
	c.events()
	return c
}

// events settles and says what came: "confirmed 7", "delivered hello n=1".
func (c *client) events() []string {
	c.t.Helper()
	if err := c.box.Settle(); err != nil {
		c.t.Fatal(err)
	}
	var out []string
	events, _ := c.Events().Take(nil)
	for _, e := range events {
		switch {
		case e.Kind == core.Confirmed && e.Err != nil:
			out = append(out, "refused")
		case e.Kind == core.Confirmed:
			out = append(out, "confirmed")
		case e.Kind == core.Delivered:
			out = append(out, "delivered "+string(e.Message.Body))
		}
	}
	return out
}

func (c *client) publish(body string) {
	c.t.Helper()
	m := &core.Message{Address: orders, QoS: 1, Priority: core.DefaultPriority, Body: []byte(body)}
	if err := c.Publish(m, 7); err != nil {
		c.t.Fatal(err)
	}
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s:\n%s", what, diff)
	}
}

// A held disk confirms nothing until it is told to.
func TestHeldDisk(t *testing.T) {
	b := newBox(t)
	c := connect(t, b)
	b.Disk.Hold()
	c.publish("one")
	want(t, "while the disk is held", c.events())
	b.Disk.Sync()
	want(t, "after a sync", c.events(), "confirmed")
	c.publish("two")
	want(t, "held again", c.events())
	b.Disk.Resume()
	want(t, "after resuming", c.events(), "confirmed")
	c.publish("three")
	want(t, "no longer held", c.events(), "confirmed")
}

// The next broker sees what was durable when the power went, and no more.
func TestPowerCut(t *testing.T) {
	b := newBox(t)
	c := connect(t, b)
	c.publish("kept")
	c.events()
	b.Disk.Hold()
	c.publish("lost")
	c.events()
	b.PowerOff()
	if err := b.PowerOn(); err != nil {
		t.Fatal(err)
	}
	b.Disk.Resume()
	c = connect(t, b)
	c.Consume(core.Sub{ID: 1, Where: orders, Credit: core.Credit{Messages: 10}}, 2)
	want(t, "after the power cut", c.events(), "confirmed", "delivered kept")
}

func TestFullDisk(t *testing.T) {
	b := newBox(t)
	c := connect(t, b)
	b.Disk.SetFull(true)
	c.publish("no")
	want(t, "with a full disk", c.events(), "refused")
	b.Disk.SetFull(false)
	c.publish("yes")
	want(t, "with room again", c.events(), "confirmed")
}

// A delivery comes back when its lease is over, not before.
func TestTimePasses(t *testing.T) {
	b := newBox(t)
	c := connect(t, b)
	c.publish("job")
	c.events()
	c.Consume(core.Sub{ID: 1, Where: orders, Lease: 10 * time.Second, Credit: core.Credit{Messages: 10}}, 2)
	want(t, "at first", c.events(), "confirmed", "delivered job")
	if err := b.Advance(9 * time.Second); err != nil {
		t.Fatal(err)
	}
	want(t, "before the lease is over", c.events())
	if err := b.Advance(2 * time.Second); err != nil {
		t.Fatal(err)
	}
	want(t, "after the lease", c.events(), "delivered job")
}
