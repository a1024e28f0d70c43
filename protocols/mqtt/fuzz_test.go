package mqtt

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/godwitmq/godwit/core"
)

// seeds are mochi's own test packets that a client sends.
func seeds(kinds ...byte) (out [][]byte) {
	for _, kind := range kinds {
		for _, c := range packets.TPacketData[kind] {
			out = append(out, c.RawBytes)
		}
	}
	return out
}

// Cut anywhere, a stream of packets does the same as in one piece.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x82\x07\x00\x01\x00\x00\x01a\x01\x32\x07\x00\x01a\x00\x09\x00x\xc0\x00\x40\x02\x00\x01\xe0\x00"), uint16(7), byte(5))
	f.Add([]byte("\x34\x06\x00\x01a\x00\x09x\x62\x02\x00\x09"), uint16(3), byte(4))
	for _, seed := range seeds(packets.Publish, packets.Subscribe, packets.Pubrel, packets.Disconnect) {
		f.Add(append(bytes.Clone(seed), "\xc0\x00"...), uint16(len(seed)/2), byte(5))
	}
	f.Fuzz(func(t *testing.T, in []byte, at uint16, version byte) {
		if len(in) > 4096 {
			return
		}
		version = 3 + version%3
		whole := replay(t, version, in)
		n := int(at) % (len(in) + 1)
		if halves := replay(t, version, in[:n], in[n:]); halves != whole {
			t.Errorf("cut at %d: %s\nwant %s", n, halves, whole)
		}
	})
}

// replay sends chunks to a fresh connection that answers only when all are
// taken: what is right may depend on whether an answer is out. It says what
// came.
func replay(t *testing.T, version byte, chunks ...[]byte) string {
	w := newWorld(t, Options{})
	c := w.open("fuzz", version)
	c.stuck = true
	for _, b := range chunks {
		if !c.closed {
			c.raw(b...)
		}
	}
	c.stuck = false
	w.settle()
	return fmt.Sprintf("%x closed=%v", c.out, c.closed)
}

func TestConnectCutAnywhere(t *testing.T) {
	for _, version := range versions {
		in := encode(t, version, connectPacket("a", version))
		in = append(in, encode(t, version, subscribe(1, filter("a", 1)))...)
		in = append(in, encode(t, version, publish("a", 1, 2, "x"))...)
		for n := range len(in) {
			w := newWorld(t, Options{})
			c := w.dial("a", version)
			c.raw(in[:n]...).raw(in[n:]...)
			got := c.read()
			slices.Sort(got)
			if want := []string{"CONNACK 00", "PUBACK 2", `PUBLISH a "x" q1 id=1`, "SUBACK 1 01"}; !slices.Equal(got, want) {
				t.Fatalf("cut at %d: %q", n, got)
			}
		}
	}
}

// No packet makes a decoder panic: what we check first is enough for mochi.
func FuzzCold(f *testing.F) {
	for _, seed := range seeds(packets.Connect, packets.Subscribe, packets.Unsubscribe, packets.Disconnect, packets.Puback, packets.Auth) {
		for _, version := range versions {
			f.Add(seed, version)
		}
	}
	f.Add([]byte{0x82, 5, 0, 1, 0, 0, 0}, byte(5))
	f.Fuzz(func(t *testing.T, in []byte, version byte) {
		fr, bad := cut(in, 1<<20)
		if bad != nil || !fr.whole(len(in)) {
			return
		}
		version = 3 + version%3
		limits := Options{}.withDefaults()
		var n counts
		c := &conn{options: &limits, counts: &n, version: version}
		before := bytes.Clone(fr.body)
		for _, check := range []struct {
			kind  packetType
			check func([]byte, byte, *Options) *fault
		}{{typeConnect, checkConnect}, {typeSubscribe, checkSubscribe}, {typeUnsubscribe, checkUnsubscribe}} {
			if check.check(fr.body, version, &limits) != nil {
				continue
			}
			if check.kind == typeConnect && (&conn{}).readProtocol(fr.body) != nil {
				continue
			}
			if _, bad := c.decode(check.kind, fr.body, version); bad != nil && bad.text == "the packet is malformed" {
				t.Errorf("mochi refuses what the check of type %d took: % x", check.kind, fr.body)
			}
		}
		_, _, _ = readDisconnect(fr.body, version, &limits)
		_, _, _ = readAck(fr.body, version, &limits)
		if n.panics.Load() > 0 {
			t.Errorf("mochi panics on % x", in)
		}
		if !bytes.Equal(before, fr.body) {
			t.Error("the frame was written to")
		}
	})
}

// What we read in place is what mochi reads.
func FuzzPublish(f *testing.F) {
	for _, seed := range seeds(packets.Publish) {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Add([]byte("\x33\x2b\x00\x01a\x00\x09\x1f\x01\x01\x02\x00\x00\x00\x3c\x03\x00\x01t\x08\x00\x01r\x09\x00\x01c\x23\x00\x05\x26\x00\x01k\x00\x01vbody"), true)
	f.Fuzz(func(t *testing.T, in []byte, five bool) {
		version := byte(4)
		if five {
			version = 5
		}
		fr, bad := cut(in, 1<<20)
		if bad != nil || !fr.whole(len(in)) || fr.kind() != typePublish || checkFlags(&fr, version) != nil {
			return
		}
		limits := Options{TopicAliasMaximum: 65_535}.withDefaults()
		p, bad := readPublish(&fr, version, &limits)
		if bad != nil {
			return
		}
		pk := packets.Packet{ProtocolVersion: version}
		_ = pk.FixedHeader.Decode(fr.first)
		if err := pk.PublishDecode(bytes.Clone(fr.body)); err != nil {
			if strings.Contains(err.Error(), "topic") {
				return // we check the topic when it is resolved
			}
			t.Fatalf("we take what mochi does not: %v: % x", err, in)
		}
		if string(p.topic) != pk.TopicName || p.id != pk.PacketID || p.alias != pk.Properties.TopicAlias || !bytes.Equal(p.body, pk.Payload) {
			t.Fatalf("%q %d %d %q, mochi reads %q %d %d %q", p.topic, p.id, p.alias, p.body, pk.TopicName, pk.PacketID, pk.Properties.TopicAlias, pk.Payload)
		}
		roundTrip(t, &fr, &p, &pk)
	})
}

// roundTrip encodes the message again and lets mochi read it.
func roundTrip(t *testing.T, fr *frame, p *publishing, pk *packets.Packet) {
	to := &target{address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "t"}}
	now := time.Unix(1e9, 0)
	m := p.message(fr, to, func() time.Time { return now })
	b := appendPublish(nil, 5, m, &delivery{qos: fr.qos(), id: p.id}, now)
	got := packets.Packet{ProtocolVersion: 5}
	out, bad := cut(b, largestPacket)
	if bad != nil || !out.whole(len(b)) || out.size != len(b) {
		t.Fatalf("encoded % x", b)
	}
	if publishSize(5, m, &delivery{qos: fr.qos(), id: p.id}) != len(b) {
		t.Fatalf("publishSize is not %d", len(b))
	}
	_ = got.FixedHeader.Decode(out.first)
	if err := got.PublishDecode(out.body); err != nil {
		t.Fatalf("mochi cannot read what we wrote: %v: % x", err, b)
	}
	a, e := &got.Properties, &pk.Properties
	same := a.MessageExpiryInterval == e.MessageExpiryInterval && a.ContentType == e.ContentType &&
		bytes.Equal(a.CorrelationData, e.CorrelationData) && a.PayloadFormat == e.PayloadFormat
	if !same || !cmp.Equal(plain(a.User), plain(e.User)) || !bytes.Equal(got.Payload, pk.Payload) {
		t.Fatalf("forwarded as %+v, want %+v", a, e)
	}
}

// plain are user properties without those that have a word of their own.
func plain(in []packets.UserProperty) (out []packets.UserProperty) {
	for _, u := range in {
		switch u.Key {
		case core.HeaderContentType, core.HeaderCorrelationID, core.HeaderReplyTo:
		default:
			out = append(out, u)
		}
	}
	return out
}

// Random packets and a disk that stops now and then: every QoS above 0 is
// answered once and in order, and nothing panics.
func FuzzConn(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, byte(5))
	f.Add([]byte{8, 2, 12, 22, 32, 9, 3, 13, 0, 10, 20, 5, 15}, byte(4))
	f.Fuzz(func(t *testing.T, moves []byte, version byte) {
		if len(moves) > 200 {
			return
		}
		w := newWorld(t, Options{ReceiveMaximum: 20})
		c := w.open("c", 4+version%2, kept)
		c.subscribe(1, filter("a", 2), filter("b", 1)).read()
		var owed []string
		id := uint16(0)
		for _, move := range moves {
			switch n := move / 10; move % 10 {
			case 0, 1, 2, 3:
				if len(owed) >= 15 || c.version == 5 && id > 15 {
					continue
				}
				id++
				qos := move % 3
				if qos > 0 {
					owed = append(owed, fmt.Sprintf("PUB%s %d", map[byte]string{1: "ACK", 2: "REC"}[qos], id))
				}
				pk := publish([]string{"a", "b", "none", "secret"}[n%4], qos, id, "x")
				if qos == 0 {
					pk.PacketID = 0
				}
				c.send(pk)
			case 4:
				c.ack(packets.Puback, uint16(n)+1)
			case 5:
				c.ack(packets.Pubrec, uint16(n)+1)
			case 6:
				c.ack(packets.Pubcomp, uint16(n)+1)
			case 7:
				c.raw(0xc0, 0)
			case 8:
				w.disk.hold()
			case 9:
				w.disk.ok()
				w.settle()
			}
			owed = answered(t, c, owed)
			if c.outbound().inFlight < 0 || c.outbound().inFlight > c.outbound().window {
				t.Fatalf("%d in flight", c.outbound().inFlight)
			}
			if c.closed {
				t.Fatalf("closed: %v", c.err)
			}
		}
		w.disk.ok()
		w.settle()
		if owed = answered(t, c, owed); len(owed) > 0 {
			t.Fatalf("not answered: %v", owed)
		}
		c.cut()
	})
}

func (c *client) outbound() *outbound { return &c.handler.(*conn).outbound }

func answered(t *testing.T, c *client, owed []string) []string {
	for _, got := range c.read() {
		if !strings.HasPrefix(got, "PUBACK") && !strings.HasPrefix(got, "PUBREC") {
			continue
		}
		if len(owed) == 0 || !strings.HasPrefix(got+" ", owed[0]+" ") {
			t.Fatalf("got %q, want %v", got, owed)
		}
		owed = owed[1:]
	}
	return owed
}
