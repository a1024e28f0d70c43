package mqtt

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/godwitmq/godwit/core"
)

// originTopic is the user property of a message that is delivered under
// another name than it was published to.
const originTopic = "origin-topic"

// formProperties is the wire form that readers of MQTT 5 share: those of a
// message's properties that are the same for all of them, encoded once. The
// rest of a PUBLISH is a few copies, which are no dearer than copying a whole
// frame and patching it, and the body is not kept twice.
const formProperties core.FormKey = 'M'<<24 | 1

// A delivery is what a PUBLISH to a client says besides its message.
type delivery struct {
	prefix string // of the topic; "$queue/NAME" replaces it
	queue  bool   // the prefix is the whole topic
	qos    byte
	dup    bool
	retain bool
	id     uint16   // with QoS 1 and 2
	ids    []uint32 // subscription identifiers
}

// remaining is the remaining length of a PUBLISH, and how many bytes of it are
// properties.
func (d *delivery) remaining(version byte, m *core.Message, shared int) (n, props int) {
	n = 2 + len(d.prefix) + len(d.topic(m)) + len(m.Body)
	if d.qos > 0 {
		n += 2
	}
	if version == 5 {
		props = ownProperties(m, d) + shared
		n += uvarintLen(props) + props
	}
	return n, props
}

// topic is what follows the prefix.
func (d *delivery) topic(m *core.Message) string {
	if d.queue {
		return ""
	}
	return m.Address.Topic
}

// publishSize is the size of the whole packet.
func publishSize(version byte, m *core.Message, d *delivery) int {
	shared := 0
	if version == 5 {
		shared = len(sharedProperties(m))
	}
	n, _ := d.remaining(version, m, shared)
	return 1 + uvarintLen(n) + n
}

// appendPublish appends the PUBLISH packet of m. now counts if m expires.
func appendPublish(dst []byte, version byte, m *core.Message, d *delivery, now time.Time) []byte {
	var shared []byte
	if version == 5 {
		shared = sharedProperties(m)
	}
	remaining, props := d.remaining(version, m, len(shared))
	first := byte(typePublish)<<4 | d.qos<<1
	if d.dup {
		first |= 8
	}
	if d.retain {
		first |= 1
	}
	// Room is made once, so that what follows only copies.
	dst = slices.Grow(dst, 1+uvarintLen(remaining)+remaining)
	dst = appendUvarint(append(dst, first), remaining)
	topic := d.topic(m)
	n := len(d.prefix) + len(topic)
	dst = append(dst, byte(n>>8), byte(n))
	if d.prefix != "" {
		dst = append(dst, d.prefix...)
	}
	dst = append(dst, topic...)
	if d.qos > 0 {
		dst = append(dst, byte(d.id>>8), byte(d.id))
	}
	if version == 5 {
		dst = appendUvarint(dst, props)
		if props > len(shared) {
			dst = appendOwnProperties(dst, m, d, now)
		}
		dst = append(dst, shared...)
	}
	return append(dst, m.Body...)
}

// ownProperties is how many bytes the properties of this one delivery have.
func ownProperties(m *core.Message, d *delivery) (n int) {
	if !m.Expires.IsZero() {
		n += 5
	}
	for _, id := range d.ids {
		n += 1 + uvarintLen(int(id))
	}
	if d.queue {
		if name, ok := origin(m, d); ok {
			n += 5 + len(originTopic) + len(name)
		}
	}
	return n
}

func appendOwnProperties(dst []byte, m *core.Message, d *delivery, now time.Time) []byte {
	if !m.Expires.IsZero() { // [MQTT-3.3.2-6]
		left := (m.Expires.Sub(now) + time.Second - 1) / time.Second
		dst = append(dst, packets.PropMessageExpiryInterval)
		dst = binary.BigEndian.AppendUint32(dst, uint32(min(max(left, 0), 1<<32-1)))
	}
	for _, id := range d.ids { // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
		dst = append(dst, packets.PropSubscriptionIdentifier)
		dst = appendUvarint(dst, int(id))
	}
	if d.queue {
		if name, ok := origin(m, d); ok {
			dst = appendUser(dst, originTopic, name)
		}
	}
	return dst
}

// origin is where a message of a queue was published to, if not to the queue.
func origin(m *core.Message, d *delivery) (string, bool) {
	name, ok := nameOf(m.Address)
	return name, ok && name != d.prefix
}

func appendUser(dst []byte, name, value string) []byte {
	dst = append(dst, packets.PropUser)
	dst = appendText(dst, name)
	return appendText(dst, value)
}

// sharedProperties are the properties that are the same for all readers.
func sharedProperties(m *core.Message) []byte {
	if len(m.Headers) == 0 && !m.UTF8 {
		return nil
	}
	return m.Form(formProperties, encodeProperties)
}

// encodeProperties encodes payload format, content type, response topic and
// correlation data, which are headers in core, and all other headers as user
// properties, in order [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20].
func encodeProperties(m *core.Message) []byte {
	b := []byte{} // not nil: the form is made, even if it is empty
	if m.UTF8 {
		b = append(b, packets.PropPayloadFormat, 1) // [MQTT-3.3.2-4]
	}
	var seen [3]bool
	for i := range m.Headers {
		h := &m.Headers[i]
		if len(h.Name) > 0xffff || len(h.Value) > 0xffff {
			continue // MQTT cannot say it
		}
		b = appendHeader(b, h, &seen)
	}
	return b
}

// appendHeader appends one header. Only the first of those that have a
// property of their own may use it; MQTT allows one.
func appendHeader(b []byte, h *core.Header, seen *[3]bool) []byte {
	switch h.Name {
	case core.HeaderContentType:
		if !seen[0] && validText([]byte(h.Value)) {
			seen[0] = true
			return appendText(append(b, packets.PropContentType), h.Value)
		}
	case core.HeaderCorrelationID:
		if !seen[1] {
			seen[1] = true
			return appendText(append(b, packets.PropCorrelationData), h.Value)
		}
	case core.HeaderReplyTo:
		if name, ok := responseTopic(h.Value); ok && !seen[2] {
			seen[2] = true
			return appendText(append(b, packets.PropResponseTopic), name)
		}
	}
	if !validText([]byte(h.Name)) || !validText([]byte(h.Value)) {
		return b // octets that a user property cannot hold
	}
	return appendUser(b, h.Name, h.Value)
}

// appendAck appends PUBACK, PUBREC, PUBREL or PUBCOMP. MQTT 5 leaves a reason
// of 0 out; the text goes with a code above it, if there is room for it
// [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.6.2-2] [MQTT-3.7.2-2].
func appendAck(dst []byte, kind packetType, version byte, id uint16, code byte, text string, limit int) []byte {
	first := byte(kind) << 4
	if kind == typePubrel {
		first |= 2
	}
	if version < 5 || code == 0 {
		return append(dst, first, 2, byte(id>>8), byte(id))
	}
	reason := reasonString(text, 10, limit)
	if len(reason) == 0 {
		return append(dst, first, 3, byte(id>>8), byte(id), code)
	}
	dst = append(dst, first)
	dst = appendUvarint(dst, 3+uvarintLen(len(reason))+len(reason))
	dst = append(dst, byte(id>>8), byte(id), code)
	dst = appendUvarint(dst, len(reason))
	return append(dst, reason...)
}

// maxReason bounds the sentences we send.
const maxReason = 200

// reasonString is the property of that text, cut so that a packet with that
// many other bytes stays within limit; nil if that leaves nothing.
func reasonString(text string, other, limit int) []byte {
	n := min(len(text), maxReason, limit-other-5)
	for n > 0 && n < len(text) && text[n]&0xc0 == 0x80 {
		n-- // not inside a character
	}
	if n <= 0 {
		return nil
	}
	return appendText([]byte{packets.PropReasonString}, text[:n])
}
