//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// handshake is how long a connection may take to be ready.
const handshake = 10 * time.Second

// An mqttWire speaks MQTT 5, of its properties only what a handshake needs.
type mqttWire struct {
	topic string
	qos   byte
}

// mqttLogin is what a client says first.
type mqttLogin struct {
	id     string
	expiry uint32 // seconds the session outlives the connection; 0: a clean one
	filter string // subscribed to, if not empty
	qos    byte
}

// dialMQTT connects, and subscribes if asked to.
func dialMQTT(addr string, o mqttLogin) (net.Conn, []byte, error) {
	nc, err := net.DialTimeout("tcp", addr, handshake)
	if err != nil {
		return nil, nil, err
	}
	rest, err := o.login(nc)
	if err != nil {
		nc.Close()
		return nil, nil, fmt.Errorf("MQTT client %s: %w", o.id, err)
	}
	return nc, rest, nc.SetDeadline(time.Time{})
}

func (o mqttLogin) login(nc net.Conn) (rest []byte, err error) {
	if err := nc.SetDeadline(time.Now().Add(handshake)); err != nil {
		return nil, err
	}
	if _, err := nc.Write(o.appendConnect(nil)); err != nil {
		return nil, err
	}
	r := bufio.NewReader(nc)
	body, err := readMQTT(r, 0x20)
	if err != nil {
		return nil, fmt.Errorf("CONNACK: %w", err)
	}
	if len(body) < 2 || body[1] != 0 {
		return nil, fmt.Errorf("CONNACK says no: % x", body)
	}
	if o.filter != "" {
		if _, err := nc.Write(o.appendSubscribe(nil)); err != nil {
			return nil, err
		}
		if body, err = readMQTT(r, 0x90); err != nil {
			return nil, fmt.Errorf("SUBACK: %w", err)
		}
		if len(body) == 0 || body[len(body)-1] != o.qos {
			return nil, fmt.Errorf("SUBACK says % x, want QoS %d granted", body, o.qos)
		}
	}
	rest = make([]byte, r.Buffered())
	_, err = io.ReadFull(r, rest)
	return rest, err
}

func (o mqttLogin) appendConnect(out []byte) []byte {
	// Receive Maximum 65,535 is the default; the expiry is said if there is one.
	var properties []byte
	flags := byte(0x02)
	if o.expiry > 0 {
		flags = 0
		properties = binary.BigEndian.AppendUint32([]byte{0x11}, o.expiry)
	}
	rest := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 5, flags, 0, 0, byte(len(properties))}, properties...)
	rest = appendString(rest, o.id)
	return append(appendLength(append(out, 0x10), len(rest)), rest...)
}

func (o mqttLogin) appendSubscribe(out []byte) []byte {
	rest := append(appendString([]byte{0, 1, 0}, o.filter), o.qos)
	return append(appendLength(append(out, 0x82), len(rest)), rest...)
}

func appendString(out []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
}

func appendLength(out []byte, n int) []byte {
	for ; n > 127; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

func readMQTT(r *bufio.Reader, first byte) ([]byte, error) {
	got, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	n, err := binary.ReadUvarint(r) // the same coding as MQTT's
	if err != nil {
		return nil, err
	}
	if got != first || n > 1<<16 {
		return nil, fmt.Errorf("packet %#x of %d octets came, want %#x", got, n, first)
	}
	body := make([]byte, n)
	_, err = io.ReadFull(r, body)
	return body, err
}

// packetID is the id of message seq: a window never holds the same one twice.
func packetID(seq uint64) uint16 { return uint16(seq%65535) + 1 }

func (w *mqttWire) publish(out []byte, c *conn, seq uint64) []byte {
	n := 2 + len(w.topic) + 1 + bodySize
	if w.qos > 0 {
		n += 2
	}
	out = appendLength(append(out, 0x30|w.qos<<1), n)
	out = appendString(out, w.topic)
	if w.qos > 0 {
		out = binary.BigEndian.AppendUint16(out, packetID(seq))
	}
	return c.flow.appendBody(append(out, 0), seq)
}

func (w *mqttWire) scan(c *conn, in []byte) (used int, err error) {
	for {
		head, n, ok := mqttFrame(in[used:])
		if !ok {
			return used, nil
		}
		if err := w.packet(c, in[used], in[used+head:used+head+n]); err != nil {
			return used, err
		}
		used += head + n
	}
}

// mqttFrame returns the lengths of a whole packet's fixed header and rest.
func mqttFrame(in []byte) (head, n int, ok bool) {
	for i := 1; i < len(in) && i < 5; i++ {
		n |= int(in[i]&0x7f) << (7 * (i - 1))
		if in[i]&0x80 == 0 {
			return i + 1, n, i+1+n <= len(in)
		}
	}
	return 0, 0, false
}

func (w *mqttWire) packet(c *conn, first byte, rest []byte) error {
	switch first >> 4 {
	case 3:
		return w.delivery(c, first, rest)
	case 4:
		return w.answer(c, rest)
	case 14:
		return fmt.Errorf("the server disconnects: % x", rest)
	}
	return fmt.Errorf("an unexpected packet %#x: % x", first, rest)
}

func (w *mqttWire) answer(c *conn, rest []byte) error {
	if len(rest) < 2 || len(rest) > 2 && rest[2] >= 0x80 {
		return fmt.Errorf("PUBACK says no: % x", rest)
	}
	if c.flow == nil {
		return errors.New("a PUBACK came to a subscriber")
	}
	if id := binary.BigEndian.Uint16(rest); id != packetID(c.flow.acked) {
		return fmt.Errorf("PUBACK %d came where %d was due", id, packetID(c.flow.acked))
	}
	return c.confirm(c.flow.acked + 1)
}

func (w *mqttWire) delivery(c *conn, first byte, rest []byte) error {
	if len(rest) < 2 {
		return errors.New("a PUBLISH without a topic")
	}
	at := 2 + int(binary.BigEndian.Uint16(rest))
	if first&0x06 != 0 {
		if len(rest) < at+2 {
			return errors.New("a PUBLISH without a packet id")
		}
		c.out = append(c.out, 0x40, 2, rest[at], rest[at+1])
		at += 2
	}
	if len(rest) <= at || rest[at] > 127 || len(rest) < at+1+int(rest[at]) {
		return errors.New("a PUBLISH with broken properties")
	}
	return c.take(rest[at+1+int(rest[at]):])
}
