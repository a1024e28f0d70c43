package transport

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/godwitmq/godwit/core"
)

const (
	fill     = 32 << 10 // output gathers to about so much: larger buffers leave the CPU's cache
	enough   = 24 << 10 // and is written from here on: events are taken for larger than most are
	keepOut  = 64 << 10 // an output buffer beyond this was for one large message, and is dropped
	keepEvs  = 1 << 10  // the same for events
	drainBy  = 16 << 10 // what a drain writes at a time: progress is seen in such pieces
	perEvent = 32       // bytes an event without a message is taken for
)

// A kit is what a turn works with. An idle connection has none.
type kit struct {
	out    []byte
	events []core.Event
	next   int  // events[next:] are not delivered
	fresh  bool // Deliver was not called yet: it is owed one call, events or not
}

var kits = sync.Pool{New: func() any { return &kit{out: make([]byte, 0, 4<<10)} }}

func getKit() *kit { return kits.Get().(*kit) }

func putKit(k *kit) {
	k.trim()
	kits.Put(k)
}

// trim readies a kit for its next turn.
func (k *kit) trim() {
	clear(k.events) // let go of the messages
	k.out, k.events, k.next, k.fresh = k.out[:0], k.events[:0], 0, false
	if cap(k.out) > keepOut {
		k.out = nil
	}
	if cap(k.events) > keepEvs {
		k.events = nil
	}
}

// What a connection's turn is about, and who has it: the bits of conn.state.
const (
	dueEvents = 1 << iota // Deliver is due
	dueTick               // Tick is due
	reading               // the reader is at work and will look for events before it waits
	owned                 // somebody has the turn, or it is on the flush list
	claimed               // the reader wants the turn, for good
)

// signal notes that work is due and sees to it that somebody does it. A
// connection's own reader, if it is at work, writes what it has caused
// itself: that saves a hand-over between goroutines, and everything the
// reader has caused until it waits leaves in one write. Ticks do not wait for
// it: it may be waiting for the guard.
func (c *conn) signal(due uint32) {
	for {
		old := c.state.Load()
		next := old | due
		if old&owned == 0 && (due != dueEvents || old&reading == 0) {
			next |= owned
		}
		if next == old {
			return
		}
		if c.state.CompareAndSwap(old, next) {
			if next&owned != old&owned {
				c.server.flush.add(c)
			}
			return
		}
	}
}

// idle is called by the reader before it waits.
func (c *conn) idle() {
	c.flushOwn()
	c.in.rest()
}

// flushOwn takes the turn if Deliver is due and nobody else has it.
func (c *conn) flushOwn() {
	c.busy = 0
	for {
		old := c.state.Load()
		next := old &^ reading
		mine := old&dueEvents != 0 && old&owned == 0
		if mine {
			next |= owned
		}
		if next != old && !c.state.CompareAndSwap(old, next) {
			continue
		}
		if mine {
			if k := getKit(); c.turn(k) {
				putKit(k)
			}
		}
		return
	}
}

// release gives the turn up: to the reader if it wants to end, to the flush
// list if more has become due. Going to the end of the list instead of round
// again is fair to the others, and lets more gather.
func (c *conn) release() {
	for {
		old := c.state.Load()
		switch {
		case old&claimed != 0:
			close(c.handed)
			return
		case old&dueTick != 0 || old&dueEvents != 0 && old&reading == 0:
			c.server.flush.add(c)
			return
		}
		if c.state.CompareAndSwap(old, old&^owned) {
			return
		}
	}
}

// claim makes the reader the owner of the turn for good, and waits until it is.
func (c *conn) claim() {
	c.handed = make(chan struct{})
	if c.state.Or(claimed|owned)&owned != 0 {
		<-c.handed
	}
}

// turn does what is due. The caller owns the turn; turn releases it. It says
// false if the socket was full: then a drain has the kit and the turn.
func (c *conn) turn(k *kit) bool {
	due := c.state.And(^uint32(dueEvents | dueTick))
	if due&dueTick != 0 && c.end.Load() == nil {
		c.tick()
		if due&dueEvents == 0 {
			c.strip(k)
		}
	}
	if due&dueEvents != 0 && c.end.Load() == nil && c.broken.Load() == nil {
		c.active, c.stripped = true, false
		c.take(k)
	}
	for c.encode(k) {
		if n := c.try(k.out); n < len(k.out) && c.broken.Load() == nil {
			c.server.count.drains.Add(1)
			k.out = k.out[:copy(k.out, k.out[n:])]
			c.server.running.Go(func() { c.drain(k) })
			return false
		}
		k.out = k.out[:0]
	}
	c.stash(k)
	k.trim()
	c.release()
	return true
}

// take fills a kit with what the outbox has. Deliver is called even if that is
// nothing: the handler may have replies of its own.
func (c *conn) take(k *kit) {
	k.fresh = true
	if o := c.outbox.Load(); o != nil {
		k.events, _ = o.Take(k.events)
	}
}

// strip takes the outbox's spare slice away when nothing has happened between
// two ticks.
func (c *conn) strip(k *kit) {
	o := c.outbox.Load()
	switch {
	case c.active:
		c.active = false
	case !c.stripped && o != nil:
		c.stripped = true
		k.events, _ = o.Take(nil)
	}
}

// encode calls Deliver with a portion of the events after the other until
// enough has gathered for a write. It says false if there is nothing to write.
func (c *conn) encode(k *kit) bool {
	for len(k.out) < enough && (k.fresh || k.next < len(k.events)) && c.end.Load() == nil {
		some := portion(k.events[k.next:], fill-len(k.out))
		k.fresh, k.next = false, k.next+len(some)
		k.out = c.deliver(k.out, some)
	}
	return len(k.out) > 0
}

// portion is as many events as make about so many bytes, at least one if
// there are any.
func portion(events []core.Event, bytes int) []core.Event {
	for i := range events {
		bytes -= perEvent
		if m := events[i].Message; m != nil {
			bytes -= int(m.Size())
		}
		if bytes <= 0 {
			return events[:i+1]
		}
	}
	return events
}

// stash keeps the events that the end has left undelivered for the goodbye.
func (c *conn) stash(k *kit) {
	if k.next < len(k.events) && c.end.Load() != nil {
		c.left = append(c.left, k.events[k.next:]...)
	}
}

// try writes what the socket takes at once.
func (c *conn) try(b []byte) int {
	n, err := c.wire.try(b)
	if n > 0 {
		c.server.count.wrote(n)
	}
	if err != nil {
		c.fail(err)
	}
	return n
}

// drain does the rest of a turn whose socket was full, and waits for it.
func (c *conn) drain(k *kit) {
	defer putKit(k)
	for ok := true; ok; {
		ok = c.push(k.out)
		k.out = k.out[:0]
		ok = ok && c.encode(k)
	}
	if c.end.Load() == nil && c.broken.Load() == nil {
		_ = c.conn.SetWriteDeadline(time.Time{}) // an error will be the next write's
	}
	c.stash(k)
	c.release()
}

// push writes all of b, as long as the socket takes some of it every
// WriteTimeout. After the end it gets a moment, once.
func (c *conn) push(b []byte) bool {
	for last := false; len(b) > 0; {
		if !last {
			last = c.end.Load() != nil
			c.allow(c.server.options.WriteTimeout)
		}
		n, err := c.conn.Write(b[:min(len(b), drainBy)])
		b = b[n:]
		if n > 0 {
			c.server.count.wrote(n)
		}
		slow := errors.Is(err, os.ErrDeadlineExceeded) && c.end.Load() == nil
		switch {
		case err == nil, slow && n > 0:
		case slow:
			c.server.count.slowWriters.Add(1)
			c.stop(&ending{err: core.Errorf(core.CodeTooSlow, "the client took nothing for %v", c.server.options.WriteTimeout)})
			return false
		default:
			c.fail(err)
			return false
		}
	}
	return true
}
