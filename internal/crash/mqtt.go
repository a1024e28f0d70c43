package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// sessionSeconds is how long the MQTT sessions outlive their connections.
const sessionSeconds = 3600

// mqttClient is a client with a session; the zero expiry is a clean one.
type mqttClient struct {
	id      string
	session bool // it has one that must be there again
	known   bool // it has been told so once
}

// connect does CONNECT. [MQTT-3.2.2-2]: a session that was there is present.
func (c *mqttClient) connect(l *life) (w *wire, end func(), present bool, err error) {
	w, end, err = l.dial(l.broker.mqtt)
	if err != nil {
		return nil, nil, false, err
	}
	if present, err = c.login(w); err != nil {
		end()
		return nil, nil, false, err
	}
	return w, end, present, nil
}

func (c *mqttClient) login(w *wire) (present bool, err error) {
	body := []byte{0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0}
	if c.session {
		body = []byte{0, 4, 'M', 'Q', 'T', 'T', 5, 0, 0, 0, 5, 0x11}
		body = binary.BigEndian.AppendUint32(body, sessionSeconds)
	}
	if err := w.say(packet(nil, 0x10, appendText(body, c.id))); err != nil {
		return false, err
	}
	first, answer, err := w.packet(nil)
	if err != nil {
		return false, err
	}
	if first != 0x20 || len(answer) < 2 || answer[1] != 0 {
		return false, fmt.Errorf("CONNECT of %s: answered %#x % x", c.id, first, answer)
	}
	present = answer[0]&1 != 0
	if c.known && !present {
		return false, fmt.Errorf("the session of %s is gone", c.id)
	}
	c.known = c.session
	return present, nil
}

// packet appends a packet of that first byte and rest.
func packet(out []byte, first byte, rest []byte) []byte {
	out = binary.AppendUvarint(append(out, first), uint64(len(rest))) // MQTT's coding of lengths
	return append(out, rest...)
}

func appendText(out []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
}

// packet reads one packet into spare.
func (w *wire) packet(spare []byte) (first byte, rest []byte, err error) {
	if first, err = w.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(w.r)
	if err != nil {
		return 0, nil, err
	}
	if n > bodyMost+1024 {
		return 0, nil, fmt.Errorf("a packet %#x of %d octets", first, n)
	}
	rest = append(spare[:0], make([]byte, n)...)
	_, err = io.ReadFull(w.r, rest)
	return first, rest, err
}

// mqttPublisher publishes with QoS 1 or 2 and a session, and sends again, as
// the standard says, with DUP and the same packet id.
type mqttPublisher struct {
	mqttClient
	topic  string
	qos    byte
	number int
	seed   uint64
	body   []byte
}

// ids is how many packet ids there are.
const ids = 65535

func packetID(n uint64) uint16 { return uint16(n%ids) + 1 }

// numberOf is the message that the packet id stands for: the ids of a window
// are far fewer than all.
func (b *book) numberOf(id uint16) uint64 {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	from := uint64(b.low)
	return from + (uint64(id)-1+ids-from%ids)%ids
}

func (p *mqttPublisher) hello(l *life) (*wire, func(), uint64, error) {
	w, end, _, err := p.connect(l)
	return w, end, 0, err
}

func (p *mqttPublisher) publish(out []byte, s step) []byte {
	id := packetID(s.number)
	if s.release {
		return append(out, 0x62, 2, byte(id>>8), byte(id))
	}
	first := 0x30 | p.qos<<1
	if s.again {
		first |= 0x08 // [MQTT-3.3.1-1]
	}
	p.body = appendText(p.body[:0], p.topic)
	p.body = append(binary.BigEndian.AppendUint16(p.body, id), 0)
	p.body = appendBody(p.body, p.seed, p.number, s.number)
	return packet(out, first, p.body)
}

// answer reads PUBACK, or PUBREC and then PUBCOMP.
func (p *mqttPublisher) answer(w *wire, b *book) error {
	first, rest, err := w.packet(nil)
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return fmt.Errorf("the broker says %#x % x", first, rest)
	}
	n, code := b.numberOf(binary.BigEndian.Uint16(rest)), byte(0)
	if len(rest) > 2 {
		code = rest[2]
	}
	switch {
	case first == 0x40 && p.qos == 1 && code < 0x80:
		b.confirm(n, done)
		return nil
	case first == 0x50 && p.qos == 2 && code < 0x80:
		b.confirm(n, confirmed)
		return w.say([]byte{0x62, 2, rest[0], rest[1]})
	case first == 0x70 && p.qos == 2 && (code == 0 || code == 0x92):
		// 0x92 after a crash: it was released, and we did not hear of it.
		b.confirm(n, done)
		return nil
	}
	return fmt.Errorf("the broker says %#x % x", first, rest)
}

// mqttConsumer reads the messages of a filter with QoS 1, in a session or
// from a queue. It acknowledges in order [MQTT-4.6.0-2] and is not answered.
type mqttConsumer struct {
	mqttClient
	filter string
	spare  []byte
}

func (c *mqttConsumer) answers() bool { return false }

// hello subscribes only where no session remembers it. The answer is heard,
// for messages may come before it [MQTT-3.8.4-1].
func (c *mqttConsumer) hello(l *life) (*wire, func(), error) {
	w, end, present, err := c.connect(l)
	if err != nil || present {
		return w, end, err
	}
	if err := w.say(packet(nil, 0x82, append(appendText([]byte{0, 1, 0}, c.filter), 1))); err != nil {
		end()
		return nil, nil, err
	}
	return w, end, nil
}

// hear takes PUBLISH with QoS 1, and the SUBACK that grants it.
func (c *mqttConsumer) hear(w *wire, _ *target) (d delivery, handle string, err error) {
	first, rest, err := w.packet(c.spare)
	if err != nil {
		return d, "", err
	}
	c.spare = rest[:0]
	if first == 0x90 && len(rest) >= 4 && rest[len(rest)-1] == 1 {
		return d, "", nil
	}
	if first&0xf6 != 0x32 || len(rest) < 2 {
		return d, "", fmt.Errorf("the broker says %#x % x", first, rest)
	}
	at := 2 + int(binary.BigEndian.Uint16(rest))
	if len(rest) < at+3 || rest[at+2] > 127 || len(rest) < at+3+int(rest[at+2]) {
		return d, "", errors.New("a PUBLISH with broken properties")
	}
	d.body = rest[at+3+int(rest[at+2]):]
	d.again = first&0x08 != 0
	return d, string(rest[at : at+2]), nil
}

func (c *mqttConsumer) ack(out []byte, some []held, _ bool) []byte {
	for _, h := range some {
		out = append(append(out, 0x40, 2), h.handle...)
	}
	return out
}
