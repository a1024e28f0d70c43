package mqtt

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/core"
)

// Deliver writes the reader's answers, and then what core has to say, in its
// order. It is the one place that writes packets.
func (c *conn) Deliver(out []byte, events []core.Event) []byte {
	out = c.takeReplies(out)
	out = c.drain(out)
	for i := range events {
		if c.state.Load() == closing {
			break
		}
		out = c.event(out, &events[i])
	}
	c.giveBack()
	if c.state.Load() == closing {
		out = c.takeReplies(out) // the farewell is the last
	}
	return out
}

func (c *conn) event(out []byte, e *core.Event) []byte {
	switch e.Kind {
	case core.Confirmed:
		return c.confirmed(out, e)
	case core.Delivered:
		return c.delivered(out, e)
	case core.Again:
		c.resume()
	case core.Evicted:
		err := core.AsError(e.Err)
		if err == nil {
			err = core.ErrTakenOver
		}
		code := disconnectCode(err)
		if c.state.Load() != open {
			code = connackCode(err)
		}
		c.bye(&fault{code, err.Error()})
	case core.Cancelled:
		c.cancelled(e)
	case core.Drained: // we never pull
	}
	return out
}

func (c *conn) confirmed(out []byte, e *core.Event) []byte {
	switch e.Token & tokenKind {
	case tokenPublish:
		if e.Token == 0 {
			c.counts.refusedQoS0.Add(1)
			return out
		}
		return c.confirmPublish(out, e)
	case tokenOpen:
		return c.confirmOpen(out, e)
	case tokenQueue:
		c.confirmQueue(e)
	case tokenConsume:
		if e.Err != nil {
			c.bye(&fault{codeUnspecified, core.AsError(e.Err).Text})
		}
	case tokenRelease:
		return c.confirmRelease(out, e)
	case tokenStep:
		return c.confirmStep(out, e)
	}
	return out
}

// A backlog holds deliveries that wait for the client to acknowledge others.
// What came from a queue is bounded by its credit, and retained values by the
// room in the outbox, which core waits for; live ones have limits of their own,
// and beyond them the newest is dropped.
type backlog struct {
	list  []core.Event // from at on
	at    int
	live  int
	bytes int64
	waits atomic.Bool // there is something
}

func (b *backlog) empty() bool { return b.at == len(b.list) }

func (b *backlog) push(e *core.Event) {
	b.list = append(b.list, *e)
	b.waits.Store(true)
}

func (b *backlog) first() *core.Event { return &b.list[b.at] }

func (b *backlog) pop() {
	b.list[b.at] = core.Event{} // let go of the message
	b.at++
	switch {
	case b.empty():
		b.list, b.at = b.list[:0], 0
		if cap(b.list) > 1024 {
			b.list = nil
		}
		b.waits.Store(false)
	case b.at > len(b.list)/2:
		n := copy(b.list, b.list[b.at:])
		clear(b.list[n:])
		b.list, b.at = b.list[:n], 0
	}
}

// drain sends what waits, as far as the window allows.
func (c *conn) drain(out []byte) []byte {
	for !c.backlog.empty() && c.state.Load() == open && c.outbound.room() {
		e := *c.backlog.first()
		if limited(&e) {
			c.backlog.live--
			c.backlog.bytes -= e.Message.Size()
		}
		c.backlog.pop()
		if g, ok := c.grant(&e); ok {
			out = c.send(out, &e, g)
		} else {
			c.drop(&e)
		}
	}
	return out
}

func limited(e *core.Event) bool { return e.Tag == (core.Tag{}) && !e.Retained }

// wait puts a delivery into the backlog, or drops it.
func (c *conn) wait(e *core.Event) {
	if limited(e) {
		size := e.Message.Size()
		b := &c.backlog
		if b.live >= c.options.BacklogMessages || b.bytes+size > c.options.BacklogBytes {
			c.counts.backlogFull.Add(1)
			c.done(e)
			return
		}
		b.live++
		b.bytes += size
	}
	c.backlog.push(e)
}

// delivered handles a delivery that core has just made.
func (c *conn) delivered(out []byte, e *core.Event) []byte {
	g, ok := c.grant(e)
	if !ok {
		c.drop(e)
		return out
	}
	if min(e.Message.QoS, g.qos) > 0 && (!c.backlog.empty() || !c.outbound.room()) { // [MQTT-3.3.4-9]
		c.wait(e)
		return out
	}
	return c.send(out, e, g)
}

// send writes a delivery; for one of QoS 1 or 2 there is room.
func (c *conn) send(out []byte, e *core.Event, g *grant) []byte {
	d := delivery{
		prefix: g.prefix, queue: g.queue, qos: min(e.Message.QoS, g.qos), // [MQTT-3.8.4-8]
		retain: g.retains(e), ids: g.ids,
	}
	if d.qos == 0 {
		return c.write(out, e, &d)
	}
	d.dup = e.Tag.Attempt > 1
	if e.Tag.Attempt > 1 {
		id, now, found := c.outbound.resend(e.Tag)
		switch {
		case !found:
		case now == sentDone: // the client has it, and has said so
			c.settling = append(c.settling, e.Tag)
			return out
		case now == sentPubrel: // PUBREL went out with CONNACK
			return out
		default:
			d.id, d.qos = id, byte(now) // as it was the first time
		}
	}
	if c.unwritable(e, &d) {
		return out
	}
	if d.id == 0 {
		d.id = c.outbound.add(e.Tag, sent(d.qos))
	}
	out = appendPublish(out, c.version, e.Message, &d, c.nowFor(e.Message))
	c.releaseLive(e)
	return out
}

// write appends a delivery of QoS 0, which settles it.
func (c *conn) write(out []byte, e *core.Event, d *delivery) []byte {
	if c.unwritable(e, d) {
		return out
	}
	out = appendPublish(out, c.version, e.Message, d, c.nowFor(e.Message))
	c.done(e)
	return out
}

// unwritable drops a delivery that may not be sent: it is past its time
// [MQTT-3.3.2-5], has no name in MQTT, or is larger than the client takes [MQTT-3.1.2-24] [MQTT-3.1.2-25].
// A packet id that it had is settled.
func (c *conn) unwritable(e *core.Event, d *delivery) bool {
	m := e.Message
	switch {
	case !d.queue && m.Address.Exchange != core.TopicExchange && nameless(d.topic(m), d.prefix):
		c.counts.nameless.Add(1)
	case !m.Expires.IsZero() && d.id == 0 && m.Expired(c.broker.Now()):
		c.counts.expired.Add(1)
	case c.clientMax < largestPacket && publishSize(c.version, m, d) > c.clientMax:
		c.counts.tooLarge.Add(1)
	default:
		return false
	}
	if d.id != 0 {
		c.outbound.settle(d.id, sent(d.qos))
	}
	c.done(e)
	return true
}

// nameless says whether MQTT has no topic name for a key: one that is empty,
// or holds a wildcard's sign [MQTT-3.3.2-2] [MQTT-4.7.3-1].
func nameless(key, prefix string) bool {
	return (key == "" && prefix == "") || strings.ContainsAny(key, "+#")
}

func (c *conn) nowFor(m *core.Message) (now time.Time) {
	if c.version == 5 && !m.Expires.IsZero() {
		now = c.broker.Now()
	}
	return now
}

// done ends a delivery that needs no acknowledgement of the client.
func (c *conn) done(e *core.Event) {
	if e.Tag == (core.Tag{}) {
		c.releaseLive(e)
		return
	}
	c.settling = append(c.settling, e.Tag)
}

// drop ends a delivery that nobody here wants any more: one of a queue that
// others read too goes back.
func (c *conn) drop(e *core.Event) {
	if e.Tag != (core.Tag{}) && e.Sub != sessionQueue {
		c.returning = append(c.returning, e.Tag)
		return
	}
	c.done(e)
}

func (c *conn) releaseLive(e *core.Event) {
	if e.Tag == (core.Tag{}) {
		c.released++
		c.releasedB += e.Message.Size()
	}
}

// giveBack tells core what was settled and which room is free again, once a
// turn.
func (c *conn) giveBack() {
	if len(c.settling) > 0 {
		c.session.Ack(c.settling...)
		c.settling = nil // core may keep it
	}
	if len(c.returning) > 0 {
		c.session.Nack(core.Back{}, c.returning...)
		c.returning = nil
	}
	if c.released > 0 {
		c.session.Events().Release(c.released, c.releasedB)
		c.released, c.releasedB = 0, 0
	}
}
