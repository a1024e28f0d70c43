package core

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Exchanges that exist in every virtual host and cannot be removed.
const (
	DefaultExchange = "amq.default" // the topic is a queue's name: q/orders
	TopicExchange   = "amq.topic"   // the tree that MQTT sees: t/plant/7/temp
	DirectExchange  = "amq.direct"
	FanoutExchange  = "amq.fanout"
	HeadersExchange = "amq.headers"

	StreamExchange = "$stream" // the topic is a stream's name: s/audit
	ReplyExchange  = "$reply"  // the topic is a reply address' id: r/Zx3q
)

// Names of headers that have a word of their own in every protocol.
const (
	HeaderContentType   = "content-type"
	HeaderCorrelationID = "correlation-id" // any octets
	HeaderReplyTo       = "reply-to"       // an Address in its text form, or foreign text
)

// DefaultPriority is what adapters set where a publisher says nothing.
const DefaultPriority = 4

// An Address says where a message is sent: a topic in an exchange of a virtual
// host. None of the three is empty, but for the topic where the exchange asks
// for none: fanout and headers.
type Address struct{ VHost, Exchange, Topic string }

// A Header is one name and value a publisher attached to its message. Order
// and repeats are kept.
type Header struct{ Name, Value string }

// An Offset is a place in one log, given by the store. It increases and may
// skip; 0 is none.
type Offset uint64

// MaxOffset is above every offset.
const MaxOffset = Offset(1<<62 - 1)

// A Message is one datum on its way from a publisher to its readers.
//
// It is immutable from the moment Session.Publish is called: queues and
// outboxes share it, and nobody copies it.
type Message struct {
	Address   Address
	From      *Identity // who published it; of a stored message client, user and protocol alone
	QoS       uint8     // 0 transient; 1, 2 durable: Confirmed only after the store has it
	Priority  uint8     // 0-9
	Retain    bool      // also keep it as the last value of its address
	UTF8      bool      // the publisher says that Body is UTF-8 text
	Key       string    // orders and compacts a stream, sticks a group
	Dedup     string    // the publisher's own id: sent twice, kept once
	Headers   []Header
	Body      []byte
	Arrived   time.Time // set by Publish where it is zero
	NotBefore time.Time // zero: deliver at once
	Expires   time.Time // zero: never
	Expect    Offset    // of the publish, never stored: the stream must be at it, else 412
	Must      bool      // of the publish: no target is 404, and no queue is declared for it

	forms atomic.Pointer[form]
}

// A FormKey names one wire form of a message. The high byte is the
// protocol's ('M', 'S', 'L'), the rest is the protocol's own affair.
type FormKey uint32

type form struct {
	key   FormKey
	bytes []byte
	next  *form
}

// Form returns the wire form of m under k, which build makes the first time
// and all readers of m share. Nobody may write to it. Two goroutines that ask
// at once may both build; one result is kept.
func (m *Message) Form(k FormKey, build func(*Message) []byte) []byte {
	head := m.forms.Load()
	for f := head; f != nil; f = f.next {
		if f.key == k {
			return f.bytes
		}
	}
	made := &form{key: k, bytes: build(m), next: head}
	for !m.forms.CompareAndSwap(made.next, made) {
		made.next = m.forms.Load()
	}
	return made.bytes
}

// Header returns the value of the first header of that name.
func (m *Message) Header(name string) (string, bool) {
	for i := range m.Headers {
		if m.Headers[i].Name == name {
			return m.Headers[i].Value, true
		}
	}
	return "", false
}

// Size is what m counts as in limits: octets of address, headers and body,
// and a little for the rest.
func (m *Message) Size() int64 {
	n := 64 + len(m.Address.Topic) + len(m.Body) + len(m.Key) + len(m.Dedup)
	for i := range m.Headers {
		n += len(m.Headers[i].Name) + len(m.Headers[i].Value) + 4
	}
	return int64(n)
}

// stored is no less than what m takes at rest.
func (m *Message) stored() int64 {
	n := m.Size() + 256 + 8*int64(len(m.Headers))
	if m.From != nil {
		n += int64(len(m.From.User) + len(m.From.Client))
	}
	return n
}

// entered is when m came into its queues.
func (m *Message) entered() time.Time {
	if m.NotBefore.After(m.Arrived) {
		return m.NotBefore
	}
	return m.Arrived
}

// Expired says whether m is past its time at now.
func (m *Message) Expired(now time.Time) bool {
	return !m.Expires.IsZero() && !now.Before(m.Expires)
}

// Limits of addresses, the same on every protocol.
const (
	MaxTopicBytes  = 4096
	MaxTopicLevels = 128
	MaxNameBytes   = 255 // exchanges, virtual hosts, groups, durable names
)

// String is the text form of the address without its virtual host, as the
// line protocol, the configuration and logs write it: q/orders,
// t/plant/7/temp, x/logs/key, s/audit, r/Zx3q. Space, "%" and what a line
// cannot hold are percent-encoded, and "/" in the name of an exchange too, so
// that ParseAddress gives the same address back.
func (a Address) String() string {
	var b strings.Builder
	if a.Topic == "" { // the exchange itself
		b.WriteString("x/")
		writeEncoded(&b, a.Exchange, true)
		return b.String()
	}
	switch a.Exchange {
	case TopicExchange:
		b.WriteString("t/")
	case DefaultExchange:
		b.WriteString("q/")
	case StreamExchange:
		b.WriteString("s/")
	case ReplyExchange:
		b.WriteString("r/")
	default:
		b.WriteString("x/")
		writeEncoded(&b, a.Exchange, true)
		b.WriteByte('/')
	}
	writeEncoded(&b, a.Topic, false)
	return b.String()
}

func writeEncoded(b *strings.Builder, s string, slash bool) {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c == 0x7f || c == '%' || (slash && c == '/') {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(c)
	}
}

// ParseAddress reads the text form of an address in the given virtual host.
// "x/name" without a key gives an empty Topic. The error is an *Error with
// CodeSyntax.
func ParseAddress(vhost, text string) (Address, error) {
	kind, rest, ok := strings.Cut(text, "/")
	if !ok || rest == "" {
		return Address{}, syntax("address %q: want q/QUEUE, t/TOPIC, x/EXCHANGE/KEY, s/STREAM or r/REPLY", text)
	}
	a := Address{VHost: vhost}
	switch kind {
	case "t":
		a.Exchange = TopicExchange
	case "q":
		a.Exchange = DefaultExchange
	case "s":
		a.Exchange = StreamExchange
	case "r":
		a.Exchange = ReplyExchange
	case "x":
		name, key, hasKey := strings.Cut(rest, "/")
		x, err := decodePercent(name)
		if err != nil {
			return Address{}, err
		}
		if x == "" || (hasKey && key == "") {
			return Address{}, syntax("address %q: the exchange or its key is empty", text)
		}
		if err := CheckName(x); err != nil {
			return Address{}, err
		}
		a.Exchange, rest = x, key
	default:
		return Address{}, syntax("address %q: %q is none of q t x s r", text, kind)
	}
	topic, err := decodePercent(rest)
	if err != nil {
		return Address{}, err
	}
	if topic != "" {
		if err := CheckTopic(topic); err != nil {
			return Address{}, err
		}
	}
	a.Topic = topic
	return a, nil
}

// namesNothing says whether a key is missing where nothing is named without
// one. Whether another exchange wants one is its own affair.
func (a Address) namesNothing() bool {
	return a.Topic == "" && (a.Exchange == DefaultExchange || a.Exchange == TopicExchange)
}

func decodePercent(s string) (string, error) {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s, nil
	}
	b := []byte(s[:i])
	for ; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) || unhex(s[i+1]) > 15 || unhex(s[i+2]) > 15 {
			return "", syntax("%q: %% is not followed by two hexadecimal digits", s)
		}
		b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
		i += 2
	}
	return string(b), nil
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// CheckTopic says whether s can be a topic, a filter or the name of a queue:
// not empty, UTF-8 without control characters and non-characters, within
// MaxTopicBytes and MaxTopicLevels. Wildcards are another question.
func CheckTopic(s string) error {
	if len(s) > MaxTopicBytes {
		return syntax("a topic of %d bytes: the limit is %d", len(s), MaxTopicBytes)
	}
	if strings.Count(s, "/") >= MaxTopicLevels {
		return syntax("a topic of %d levels: the limit is %d", strings.Count(s, "/")+1, MaxTopicLevels)
	}
	return checkText("topic", s)
}

// CheckName is CheckTopic for names of exchanges, virtual hosts and the like.
func CheckName(s string) error {
	if len(s) > MaxNameBytes {
		return syntax("a name of %d bytes: the limit is %d", len(s), MaxNameBytes)
	}
	return checkText("name", s)
}

func checkText(what, s string) error {
	if s == "" {
		return syntax("a %s cannot be empty", what)
	}
	for i := 0; i < len(s); {
		if c := s[i]; c >= 0x20 && c < 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			return syntax("a %s must be UTF-8; it is not at byte %d", what, i)
		case r < 0x20 || (r >= 0x7f && r < 0xa0):
			return syntax("a %s cannot hold the control character U+%04X (byte %d)", what, r, i)
		case r&0xfffe == 0xfffe || (r >= 0xfdd0 && r <= 0xfdef):
			return syntax("a %s cannot hold the non-character U+%04X (byte %d)", what, r, i)
		}
		i += n
	}
	return nil
}

func syntax(format string, args ...any) *Error {
	return &Error{Code: CodeSyntax, Text: fmt.Sprintf(format, args...)}
}

// An Identity is who a session belongs to. The guard makes it; there is one a
// session. Limits, Until and Rights are the guard's.
type Identity struct {
	VHost, User, Client, Protocol, Listener, Remote string

	Until  time.Time // the rights end then; zero: never
	Limits Limits
	Rights any
}

// Limits bound what one session may hold. Zero means the default.
type Limits struct {
	Unanswered    int   // publishes that wait for their Confirmed; 1,024
	Subscriptions int   // 1,024
	LiveMessages  int   // live deliveries not yet written; 10,000
	LiveBytes     int64 // 8 MiB
}

// A Tag names one delivery, for Ack, Nack and Touch. Place is the number of
// its queue or stream, Seq the entry's there: the same on every redelivery.
// Attempt is 1 on the first delivery and above 1 on a redelivery. A live
// delivery has the zero Tag: it needs no ack.
type Tag struct {
	Place, Seq uint64
	Attempt    uint16
}
