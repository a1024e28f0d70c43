package mqtt

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

func TestUvarint(t *testing.T) {
	for _, row := range []struct {
		in      []byte
		n, used int
		ok      bool
	}{
		{nil, 0, 0, true},
		{[]byte{0}, 0, 1, true},
		{[]byte{0x7f, 9}, 127, 1, true},
		{[]byte{0x80}, 0, 0, true},
		{[]byte{0x80, 1}, 128, 2, true},
		{[]byte{0x80, 0}, 0, 2, false}, // more bytes than needed
		{[]byte{0xff, 0xff, 0xff, 0x7f}, 268_435_455, 4, true},
		{[]byte{0xff, 0xff, 0xff, 0xff}, 0, 0, false},
		{[]byte{0xff, 0xff, 0xff, 0x80, 1}, 0, 0, false},
	} {
		n, used, ok := uvarint(row.in)
		if ok != row.ok || ok && (n != row.n || used != row.used) {
			t.Errorf("uvarint(% x) = %d, %d, %v, want %d, %d, %v", row.in, n, used, ok, row.n, row.used, row.ok)
		}
	}
	for _, n := range []int{0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455} {
		b := appendUvarint(nil, n)
		if got, used, ok := uvarint(b); got != n || used != len(b) || !ok || uvarintLen(n) != len(b) {
			t.Errorf("appendUvarint(%d) = % x", n, b)
		}
	}
}

func TestSniff(t *testing.T) {
	for _, row := range []struct {
		in   string
		want protocols.Match
	}{
		{"", protocols.NeedMore},
		{"\x10", protocols.NeedMore},
		{"\x10\x0c\x00", protocols.NeedMore},
		{"\x10\x0c\x00\x04MQT", protocols.NeedMore},
		{"\x10\x0c\x00\x04MQTT", protocols.IsMatch},
		{"\x10\x8c\x01\x00\x04MQTT", protocols.IsMatch},
		{"\x10\x0e\x00\x06MQIsdp", protocols.IsMatch},
		{"\x10\x80\x80\x01\x00\x06MQIsdp", protocols.IsMatch},
		{"\x10\x0c\x00\x05MQTT", protocols.NoMatch},
		{"\x10\xff\xff\xff\xff", protocols.NoMatch},
		{"CONNECT\n", protocols.NoMatch},
		{"\x20", protocols.NoMatch},
	} {
		if got := New(Options{}).Sniff([]byte(row.in)); got != row.want {
			t.Errorf("Sniff(%q) = %d, want %d", row.in, got, row.want)
		}
	}
}

// What a client that is logged in may not send, and what it is told for it.
func TestDecodeRules(t *testing.T) {
	for _, row := range []struct {
		sentence string
		version  byte
		in       []byte
		code     byte // of the DISCONNECT; 0: just closed
	}{
		{"QoS 3", 5, []byte{0x36, 5, 0, 1, 'a', 0, 1}, 0x81},
		{"DUP with QoS 0", 5, []byte{0x38, 4, 0, 1, 'a', 0}, 0x81},
		{"reserved flags of a PUBACK", 5, []byte{0x41, 2, 0, 1}, 0x81},
		{"reserved flags of a SUBSCRIBE", 5, []byte{0x80, 5, 0, 1, 0, 0, 0}, 0x81},
		{"an over-long length", 5, []byte{0xc0, 0x80, 0}, 0x81},
		{"packet id 0 in a PUBLISH", 5, []byte{0x32, 6, 0, 1, 'a', 0, 0, 0}, 0x82},
		{"packet id 0 in a SUBSCRIBE", 5, []byte{0x82, 7, 0, 0, 0, 0, 1, 'a', 0}, 0x82},
		{"a topic name with a wildcard", 5, []byte{0x30, 4, 0, 1, '#', 0}, 0x82},
		{"neither topic nor alias", 5, []byte{0x30, 3, 0, 0, 0}, 0x82},
		{"U+0000 in a topic", 5, []byte{0x30, 4, 0, 1, 0, 0}, 0x81},
		{"a surrogate in a topic", 5, []byte{0x30, 6, 0, 3, 0xed, 0xa0, 0x80, 0}, 0x81},
		{"a subscription identifier in a PUBLISH", 5, []byte{0x30, 6, 0, 1, 'a', 2, 11, 1}, 0x82},
		{"a property twice", 5, []byte{0x30, 8, 0, 1, 'a', 4, 1, 0, 1, 0}, 0x82},
		{"a property of another packet", 5, []byte{0x30, 7, 0, 1, 'a', 3, 33, 0, 1}, 0x81},
		{"an unknown property", 5, []byte{0x30, 6, 0, 1, 'a', 2, 99, 0}, 0x81},
		{"a boolean above 1", 5, []byte{0x30, 6, 0, 1, 'a', 2, 1, 2}, 0x82},
		{"properties past the packet", 5, []byte{0x30, 5, 0, 1, 'a', 9, 1}, 0x81},
		{"a property past the properties", 5, []byte{0x30, 7, 0, 1, 'a', 1, 1, 0, 0}, 0x81},
		{"topic alias 0", 5, []byte{0x30, 7, 0, 1, 'a', 3, 35, 0, 0}, 0x94},
		{"wildcards in the response topic", 5, []byte{0x30, 8, 0, 1, 'a', 4, 8, 0, 1, '#'}, 0x82},
		{"no filter at all", 5, []byte{0x82, 3, 0, 1, 0}, 0x82},
		{"UNSUBSCRIBE without a filter", 5, []byte{0xa2, 3, 0, 1, 0}, 0x82},
		{"reserved bits of the subscription options", 5, []byte{0x82, 7, 0, 1, 0, 0, 1, 'a', 0x40}, 0x81},
		{"Retain Handling 3", 5, []byte{0x82, 7, 0, 1, 0, 0, 1, 'a', 0x30}, 0x82},
		{"subscription identifier 0", 5, []byte{0x82, 9, 0, 1, 2, 11, 0, 0, 1, 'a', 0}, 0x82},
		{"two subscription identifiers", 5, []byte{0x82, 11, 0, 1, 4, 11, 1, 11, 2, 0, 1, 'a', 0}, 0x82},
		{"No Local on a shared subscription", 5, append([]byte{0x82, 16, 0, 1, 0, 0, 10}, "$share/g/a\x04"...), 0x82},
		{"a second CONNECT", 5, []byte{0x10, 0}, 0x82},
		{"a packet of a server", 5, []byte{0x20, 2, 0, 0}, 0x82},
		{"type 0", 5, []byte{0x00, 0}, 0x82},
		{"AUTH without a method", 5, []byte{0xf0, 0}, 0x82},
		{"a PINGREQ with a body", 5, []byte{0xc0, 1, 0}, 0x81},
		{"a PUBACK of one byte", 5, []byte{0x40, 1, 0}, 0x81},
		{"a PUBACK with packet id 0", 5, []byte{0x40, 2, 0, 0}, 0x82},
		{"3.1.1: a PUBACK of three bytes", 4, []byte{0x40, 3, 0, 1, 0}, 0},
		{"3.1.1: AUTH", 4, []byte{0xf0, 0}, 0},
		{"3.1.1: QoS 4 asked for", 4, []byte{0x82, 6, 0, 1, 0, 1, 'a', 4}, 0},
		{"3.1.1: DUP on a SUBSCRIBE", 4, []byte{0x8a, 6, 0, 1, 0, 1, 'a', 0}, 0},
	} {
		w := newWorld(t, Options{})
		c := w.open("a", row.version)
		c.raw(row.in...)
		if !c.closed {
			t.Errorf("%s: not closed", row.sentence)
			continue
		}
		f, _ := cut(c.out, largestPacket)
		if row.code == 0 && len(c.out) > 0 || row.code > 0 && (f.kind() != typeDisconnect || f.body[0] != row.code) {
			t.Errorf("%s: got % x, want DISCONNECT %02x", row.sentence, c.out, row.code)
		}
	}
}

func TestMQTT31AllowsDUPWhere311DoesNot(t *testing.T) {
	w := newWorld(t, Options{})
	w.open("a", 3).raw(0x8a, 6, 0, 1, 0, 1, 'a', 0).want("SUBACK 1 00")
}

// What is no CONNECT, and what it is told for it.
func TestConnectRules(t *testing.T) {
	five := func(s string) []byte { return append([]byte{0x10, byte(6 + len(s))}, "\x00\x04MQTT"+s...) }
	for _, row := range []struct {
		sentence string
		in       []byte
		want     []byte
	}{
		{"another protocol", []byte("\x10\x0c\x00\x04MQTX\x05\x02\x00\x00\x00\x00"), nil},
		{"level 6", five("\x06\x02\x00\x00\x00\x00\x01a"), []byte{typeConnackByte, 0x84}},
		{"MQTT with level 3", five("\x03\x02\x00\x00\x00\x01a"), []byte{typeConnackByte, 1}},
		{"the reserved flag", five("\x05\x03\x00\x00\x00\x00\x01a"), []byte{typeConnackByte, 0x81}},
		{"will QoS without a will", five("\x05\x0a\x00\x00\x00\x00\x01a"), []byte{typeConnackByte, 0x81}},
		{"will QoS 3", five("\x05\x1e\x00\x00\x00\x00\x01a\x00\x00\x01b\x00\x00"), []byte{typeConnackByte, 0x81}},
		{"bytes after the last field", five("\x05\x02\x00\x00\x00\x00\x01ax"), []byte{typeConnackByte, 0x81}},
		{"a user name that is not UTF-8", five("\x05\x82\x00\x00\x00\x00\x01a\x00\x01\xff"), []byte{typeConnackByte, 0x81}},
		{"3.1.1: a password without a user name", five("\x04\x42\x00\x00\x00\x01a\x00\x01p"), nil},
		{"Receive Maximum 0", five("\x05\x02\x00\x00\x03\x21\x00\x00\x00\x01a"), []byte{typeConnackByte, 0x82}},
		{"Maximum Packet Size 0", five("\x05\x02\x00\x00\x05\x27\x00\x00\x00\x00\x00\x01a"), []byte{typeConnackByte, 0x82}},
		{"PUBLISH before CONNECT", []byte{0x30, 4, 0, 1, 'a', 0}, nil},
		{"an empty password is one", five("\x05\xc2\x00\x00\x00\x00\x01a\x00\x01u\x00\x00"), []byte{typeConnackByte, 0}},
	} {
		w := newWorld(t, Options{})
		c := w.dial("a", 5)
		c.raw(row.in...)
		got := c.out
		if len(got) > 0 {
			f, _ := cut(got, largestPacket)
			got = []byte{f.first, f.body[1]}
		}
		if !bytes.Equal(got, row.want) {
			t.Errorf("%s: got % x, want % x", row.sentence, got, row.want)
		}
		if c.closed == (len(row.want) > 0 && row.want[1] == 0) {
			t.Errorf("%s: closed = %v", row.sentence, c.closed)
		}
	}
}

const typeConnackByte = byte(typeConnack) << 4

func TestCodesAreMochis(t *testing.T) {
	for ours, theirs := range map[byte]packets.Code{
		codeDisconnectWithWill: packets.CodeDisconnectWillMessage,
		codeNoSubscribers:      packets.CodeNoMatchingSubscribers,
		codeNoSubscription:     packets.CodeNoSubscriptionExisted,
		codeUnspecified:        packets.ErrUnspecifiedError,
		codeMalformed:          packets.ErrMalformedPacket,
		codeProtocol:           packets.ErrProtocolViolation,
		codeImplementation:     packets.ErrImplementationSpecificError,
		codeVersion:            packets.ErrUnsupportedProtocolVersion,
		codeClientID:           packets.ErrClientIdentifierNotValid,
		codeBadLogin:           packets.ErrBadUsernameOrPassword,
		codeNotAuthorized:      packets.ErrNotAuthorized,
		codeUnavailable:        packets.ErrServerUnavailable,
		codeShutdown:           packets.ErrServerShuttingDown,
		codeAuthMethod:         packets.ErrBadAuthenticationMethod,
		codeKeepAlive:          packets.ErrKeepAliveTimeout,
		codeTakenOver:          packets.ErrSessionTakenOver,
		codeFilterInvalid:      packets.ErrTopicFilterInvalid,
		codeTopicInvalid:       packets.ErrTopicNameInvalid,
		codeIDUnknown:          packets.ErrPacketIdentifierNotFound,
		codeReceiveMaximum:     packets.ErrReceiveMaximum,
		codeTopicAlias:         packets.ErrTopicAliasInvalid,
		codePacketTooLarge:     packets.ErrPacketTooLarge,
		codeQuotaExceeded:      packets.ErrQuotaExceeded,
		codeAdministrative:     packets.ErrAdministrativeAction,
		codePayloadFormat:      packets.ErrPayloadFormatInvalid,
		codeNoSharedSubs:       packets.ErrSharedSubscriptionsNotSupported,
		codeNoWildcards:        packets.ErrWildcardSubscriptionsNotSupported,
	} {
		if ours != theirs.Code {
			t.Errorf("%#02x is %#02x (%s) there", ours, theirs.Code, theirs.Reason)
		}
	}
}

// Each packet has its own list of codes; no other value may leave.
func TestCodesFitTheirPacket(t *testing.T) {
	allowed := map[string]string{
		"PUBACK":     "\x10\x80\x83\x87\x90\x97\x99",
		"SUBACK":     "\x80\x83\x87\x8f\x97\x9e\xa1\xa2",
		"CONNACK":    "\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8c\x90\x95\x97\x99\x9a\x9b\x9c\x9d\x9f",
		"DISCONNECT": "\x80\x81\x82\x83\x87\x89\x8b\x8d\x8e\x8f\x90\x93\x94\x95\x96\x97\x98\x99\x9a\x9b\x9c\x9d\x9e\x9f\xa0\xa1\xa2",
	}
	for code := range core.Code(600) {
		e := &core.Error{Code: code}
		for name, got := range map[string]byte{
			"PUBACK": ackCode(e), "SUBACK": subackCode(e), "CONNACK": connackCode(e), "DISCONNECT": disconnectCode(e),
		} {
			if !bytes.Contains([]byte(allowed[name]), []byte{got}) {
				t.Errorf("core's %d leaves as %s %#02x", code, name, got)
			}
		}
	}
	for code := range 256 {
		if r, ok := returnCode(byte(code)); ok && r > 5 {
			t.Errorf("%#02x leaves as return code %d", code, r)
		}
	}
}

func TestOptionsValidate(t *testing.T) {
	if err := (Options{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	err := Options{PacketMax: 1 << 30, InflightMax: -1, TopicAliasMaximum: 70_000}.Validate()
	for _, name := range []string{"packet_max", "inflight_max", "topic_alias_maximum"} {
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(name)) {
			t.Errorf("Validate() = %v, want a word about %s", err, name)
		}
	}
}
