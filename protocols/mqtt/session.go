package mqtt

import (
	"strings"

	"github.com/godwitmq/godwit/core"
)

// sessionQueue is the number under which a session reads its own queue.
const sessionQueue uint32 = 1

func (c *conn) queueName() string { return sessionPrefix + c.client }

func (c *conn) queueSpec() core.Change {
	return core.Change{Do: core.Alter, Queue: &core.QueueSpec{
		Name: c.queueName(), Owned: true, Overflow: core.DropOldest,
		MaxMessages: c.options.QueueMessages, MaxBytes: c.options.QueueBytes,
	}}
}

// confirmOpen answers the CONNECT: the session is there, and on the disk if it
// outlives its connection [MQTT-3.2.0-1].
func (c *conn) confirmOpen(out []byte, e *core.Event) []byte {
	if e.Err != nil {
		err := core.AsError(e.Err)
		c.bye(&fault{connackCode(err), err.Error()})
		return out
	}
	found := e.Resumed
	if found == nil {
		found = &core.Resumed{}
	}
	if w := c.connack.will; w != nil {
		m := w.Message
		if err := c.session.May(core.Access{Do: core.ActPublish, Where: m.Address, QoS: m.QoS, Retain: m.Retain}); err != nil {
			c.dropWill = true
			c.bye(&fault{codeNotAuthorized, "the will: " + core.AsError(err).Text})
			return out
		}
	}
	hello := c.within(c.encodeConnack(found.Present)) // [MQTT-3.2.2-2] [MQTT-3.2.2-3]
	if hello == nil {
		c.bye(&fault{codePacketTooLarge, "not even CONNACK fits"})
		return out
	}
	c.durable = c.expiry > 0 || found.Present
	c.subs.next = sessionQueue
	if found.Present {
		c.outbound.restore(found.Residue)
	}
	out = append(out, hello...)
	if found.Present {
		for _, id := range c.outbound.releases() {
			out = appendAck(out, typePubrel, c.version, id, 0, "", c.clientMax)
		}
		c.restore(found)
	}
	c.state.Store(open)
	c.resume()
	return out
}

// restore brings back what the session was: its QoS 2 ids, its subscriptions
// and what waited for it.
func (c *conn) restore(found *core.Resumed) {
	for _, n := range found.Notes {
		switch {
		case len(n.Key) == 3 && n.Key[0] == '2':
			c.inbound.set(uint16(n.Key[1])<<8|uint16(n.Key[2]), stageReceived)
		case len(n.Key) > 1 && n.Key[0] == 's':
			c.restoreSubscription(n.Value, core.All)
		}
	}
	for i := range found.Bindings {
		if b := &found.Bindings[i]; b.Queue == c.queueName() {
			c.restoreSubscription(b.Data, core.Transient)
		}
	}
	c.session.Apply([]core.Change{c.queueSpec()}, tokenQueue)
}

// restoreSubscription listens again. One that core refuses now, because rights
// have changed, is taken away in confirmStep.
func (c *conn) restoreSubscription(data []byte, only core.Only) {
	s, ok := decodeSubscription(c.session.Identity().VHost, data)
	if !ok {
		return
	}
	s.only, s.bound = only, only == core.Transient
	c.subs.put(s)
	c.begin(&step{pack: &subscribing{kind: typeConnack, waiting: 2}, sub: s, doing: listening})
}

// confirmQueue reads the session's queue once it is there.
func (c *conn) confirmQueue(e *core.Event) {
	if e.Err != nil {
		c.bye(&fault{codeUnspecified, core.AsError(e.Err).Text})
		return
	}
	c.readQueue()
}

// readQueue consumes the session's queue: as much as the client takes at once.
func (c *conn) readQueue() {
	if c.reading {
		return
	}
	c.reading = true
	c.session.Consume(core.Sub{
		ID:     sessionQueue,
		Where:  core.Address{Exchange: core.DefaultExchange, Topic: c.queueName()},
		Credit: c.credit(),
	}, tokenConsume)
}

func (c *conn) credit() core.Credit {
	return core.Credit{Messages: int64(c.outbound.window), Auto: true}
}

// cancelled says that core has ended a subscription by itself.
func (c *conn) cancelled(e *core.Event) {
	switch {
	case e.Err == nil: // we asked for it
	case e.Sub == sessionQueue:
		c.bye(&fault{codeAdministrative, "the session's queue is gone: " + core.AsError(e.Err).Text})
	default:
		if s := c.subs.table().bySub(e.Sub); s != nil {
			c.subs.remove(s)
			// MQTT has no word for the end of one subscription.
			c.bye(&fault{codeAdministrative, "subscription " + clip(s.filter) + " ended: " + core.AsError(e.Err).Text})
		}
	}
}

// Notes of a session: "2" and a packet id, "s" and a filter of QoS 0.
func filterKey(filter string) []byte { return append([]byte{'s'}, filter...) }

// The options of a subscription at rest: version 1 | options as on the wire in
// MQTT 5 | identifier u32 | filter.
const subscriptionVersion = 1

func encodeSubscription(s *subscription) []byte {
	id := s.id
	b := []byte{subscriptionVersion, s.options(), byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
	return append(b, s.filter...)
}

func decodeSubscription(vhost string, b []byte) (*subscription, bool) {
	if len(b) < 7 || b[0] != subscriptionVersion {
		return nil, false
	}
	s := &subscription{filter: strings.Clone(string(b[6:]))}
	s.setOptions(b[1])
	s.id = uint32(b[2])<<24 | uint32(b[3])<<16 | uint32(b[4])<<8 | uint32(b[5])
	var err *core.Error
	s.source, err = sourceOf(vhost, s.filter)
	return s, err == nil
}
