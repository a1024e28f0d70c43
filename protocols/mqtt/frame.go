package mqtt

import (
	"bytes"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A packetType is the high half of a packet's first byte.
type packetType byte

const (
	typeConnect     = packetType(packets.Connect)
	typeConnack     = packetType(packets.Connack)
	typePublish     = packetType(packets.Publish)
	typePuback      = packetType(packets.Puback)
	typePubrec      = packetType(packets.Pubrec)
	typePubrel      = packetType(packets.Pubrel)
	typePubcomp     = packetType(packets.Pubcomp)
	typeSubscribe   = packetType(packets.Subscribe)
	typeSuback      = packetType(packets.Suback)
	typeUnsubscribe = packetType(packets.Unsubscribe)
	typeUnsuback    = packetType(packets.Unsuback)
	typePingreq     = packetType(packets.Pingreq)
	typePingresp    = packetType(packets.Pingresp)
	typeDisconnect  = packetType(packets.Disconnect)
	typeAuth        = packetType(packets.Auth)
)

// A frame is one packet where it lies in the reader's buffer.
type frame struct {
	first byte   // type and flags
	body  []byte // what the remaining length counts; nil until all is here
	size  int    // of the whole packet; 0: not even the fixed header is here
}

func (f frame) kind() packetType { return packetType(f.first >> 4) }
func (f frame) qos() byte        { return f.first >> 1 & 3 }
func (f frame) dup() bool        { return f.first&8 != 0 }
func (f frame) retain() bool     { return f.first&1 != 0 }

// whole says whether all of the packet is here.
func (f frame) whole(have int) bool { return f.size > 0 && have >= f.size }

// cut takes the first packet off in. A packet larger than limit is a fault as
// soon as its fixed header is here: nobody waits for it.
func cut(in []byte, limit int) (frame, *fault) {
	if len(in) < 2 {
		return frame{}, nil
	}
	n, used, ok := uvarint(in[1:])
	if !ok {
		return frame{}, malformed("the remaining length is not a variable byte integer of the fewest bytes") // [MQTT-1.5.5-1]
	}
	if used == 0 {
		return frame{}, nil
	}
	f := frame{first: in[0], size: 1 + used + n}
	if f.size > limit {
		return f, &fault{codePacketTooLarge, "the packet is larger than the server takes"}
	}
	if f.whole(len(in)) {
		f.body = in[1+used : f.size : f.size]
	}
	return f, nil
}

// checkFlags says whether the low half of the first byte is what its type
// reserves [MQTT-2.1.3-1] [3.1.1: MQTT-2.2.2-2]. MQTT 3.1 allowed DUP on
// SUBSCRIBE, UNSUBSCRIBE and PUBREL, so there it is masked.
func checkFlags(f *frame, version byte) *fault {
	want := byte(0)
	switch f.kind() {
	case typePublish:
		if f.qos() == 3 {
			return malformed("QoS 3") // [MQTT-3.3.1-4]
		}
		if f.qos() == 0 && f.dup() {
			return malformed("DUP with QoS 0") // [MQTT-3.3.1-2]
		}
		return nil
	case typePubrel, typeSubscribe, typeUnsubscribe: // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
		want = 2
		if version == 3 {
			f.first &^= 8
		}
	}
	if f.first&15 != want {
		return malformed("reserved bits of the fixed header are set")
	}
	return nil
}

// uvarint reads a variable byte integer. used is 0 if b ends too early; ok is
// false if it has more than four bytes or more than it needs [MQTT-1.5.5-1].
func uvarint(b []byte) (n, used int, ok bool) {
	for i := 0; i < len(b) && i < 4; i++ {
		n |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return n, i + 1, i == 0 || b[i] != 0
		}
	}
	return 0, 0, len(b) < 4
}

// appendUvarint appends a variable byte integer.
func appendUvarint(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

// uvarintLen is how many bytes appendUvarint needs.
func uvarintLen(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

// appendText appends a string with its length in front.
func appendText(dst []byte, s string) []byte {
	dst = append(dst, byte(len(s)>>8), byte(len(s)))
	return append(dst, s...)
}

// A cursor reads fields off a packet. After the first field that is not there
// ok is false, and stays so.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad = true
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return uint16(b[0])<<8 | uint16(b[1])
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	return uint32(c.uint16())<<16 | uint32(c.uint16())
}

func (c *cursor) uvarint() int {
	n, used, ok := uvarint(c.b)
	if !ok || used == 0 {
		c.bad = true
		return 0
	}
	c.take(used)
	return n
}

// bytes reads binary data.
func (c *cursor) bytes() []byte { return c.take(int(c.uint16())) }

// text reads a UTF-8 string; one that is ill-formed or holds U+0000 makes the
// cursor bad [MQTT-1.5.4-1] [MQTT-1.5.4-2]. U+FEFF is kept [MQTT-1.5.4-3].
func (c *cursor) text() []byte {
	b := c.bytes()
	if !c.bad && !validText(b) {
		c.bad = true
	}
	return b
}

func validText(b []byte) bool {
	return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0
}
