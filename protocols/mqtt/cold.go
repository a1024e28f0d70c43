package mqtt

import (
	"bytes"
	"fmt"

	"github.com/mochi-mqtt/server/v2/packets"
)

// decode lets mochi read a packet whose shape was checked before. It gets a
// copy, because its strings alias what it reads, and a recover, because it has
// panicked on input before: that is counted, and ends this connection only.
func (c *conn) decode(kind packetType, body []byte, version byte) (pk packets.Packet, bad *fault) {
	defer func() {
		if r := recover(); r != nil {
			c.counts.panics.Add(1)
			bad = malformed("the packet cannot be read")
		}
	}()
	pk.ProtocolVersion = version
	pk.FixedHeader = packets.FixedHeader{Type: byte(kind), Remaining: len(body)}
	own := bytes.Clone(body)
	var err error
	switch kind {
	case typeConnect:
		err = pk.ConnectDecode(own)
	case typeSubscribe:
		pk.FixedHeader.Qos = 1
		err = pk.SubscribeDecode(own)
	case typeUnsubscribe:
		pk.FixedHeader.Qos = 1
		err = pk.UnsubscribeDecode(own)
	default:
		panic(fmt.Sprintf("bug: packet type %d is not decoded here", kind))
	}
	if err != nil {
		return pk, malformed("the packet is malformed")
	}
	if code := validate(&pk, kind); code != packets.CodeSuccess {
		return pk, &fault{code.Code, code.Reason}
	}
	return pk, nil
}

// validate asks mochi whether the packet obeys the protocol. An empty will and
// an empty password, which are legal and which it refuses, are masked.
func validate(pk *packets.Packet, kind packetType) packets.Code {
	switch kind {
	case typeConnect:
		masked := *pk
		if masked.Connect.WillFlag && len(masked.Connect.WillPayload) == 0 {
			masked.Connect.WillPayload = []byte{0}
		}
		if masked.Connect.PasswordFlag && len(masked.Connect.Password) == 0 {
			masked.Connect.Password = []byte{0}
		}
		return masked.ConnectValidate()
	case typeSubscribe:
		return pk.SubscribeValidate()
	case typeUnsubscribe:
		return pk.UnsubscribeValidate()
	}
	return packets.CodeSuccess
}

// encodeCold encodes one of the rare packets.
func encodeCold(pk *packets.Packet) []byte {
	var b bytes.Buffer
	var err error
	switch packetType(pk.FixedHeader.Type) {
	case typeConnack:
		err = pk.ConnackEncode(&b)
	case typeSuback:
		err = pk.SubackEncode(&b)
	case typeUnsuback:
		err = pk.UnsubackEncode(&b)
	case typeDisconnect:
		err = pk.DisconnectEncode(&b)
	default:
		panic(fmt.Sprintf("bug: packet type %d is not encoded here", pk.FixedHeader.Type))
	}
	if err != nil {
		panic("bug: " + err.Error())
	}
	return b.Bytes()
}

// encodeDisconnect is the DISCONNECT of a fault; MQTT before 5 has none
// [MQTT-3.14.0-1].
func (c *conn) encodeDisconnect(f *fault) []byte {
	if c.version < 5 {
		return nil
	}
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: 5,
		ReasonCode: f.code,
		Properties: packets.Properties{ReasonString: clip(f.text)},
		Mods:       packets.Mods{MaxSize: uint32(c.clientMax - 8)}, // [MQTT-3.14.2-3]; mochi does not count the header
	}
	return c.within(encodeCold(&pk))
}

// within is b, or nothing if the client cannot take it [MQTT-3.1.2-24].
func (c *conn) within(b []byte) []byte {
	if len(b) > c.clientMax {
		return nil
	}
	return b
}

// clip bounds a sentence for the wire.
func clip(text string) string {
	n := min(len(text), maxReason)
	for n > 0 && n < len(text) && text[n]&0xc0 == 0x80 {
		n--
	}
	return text[:n]
}
