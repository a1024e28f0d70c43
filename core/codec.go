package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// A message at rest, version 1. Numbers are uvarints unless they say byte.
//
//	version byte | flags byte | priority byte | [arrived] [not before] [expires]
//	| body length | body | texts, to the end
//
// The times are unix ms and there if their flag is. The texts are vhost,
// exchange, topic, key, dedup, then [from: vhost, user, client, protocol] if
// its flag is there, then the number of headers, and name and value of each.
// A text is its length doubled and its octets, or 2n+1 for the n-th of
// codecWords. That the texts come last lets a reader make one string of all.
//
// To change it: a new version with a decoder of its own beside the old one,
// which stays, and a golden file in testdata. New words alone need no version
// as long as they are added at the end, but an older Godwit refuses them.
const codecVersion = 1

// The flags byte. The two low bits are the QoS.
const (
	codecRetain = 1 << (iota + 2)
	codecUTF8
	codecArrived
	codecNotBefore
	codecExpires
	codecFrom
)

// codecWords are the texts that take one byte. It only ever grows at its end.
var codecWords = [...]string{
	"/", TopicExchange, DefaultExchange, DirectExchange, FanoutExchange, HeadersExchange, StreamExchange, ReplyExchange,
	"mqtt", "stomp", "line", "anonymous",
	HeaderContentType, HeaderCorrelationID, HeaderReplyTo,
	"content-encoding", "message-id", "timestamp", "type", "app-id", "user-id", "subject",
	"traceparent", "tracestate", "baggage",
	"x-queue-name", "x-stream-offset", "x-delivery-count", "x-client-message-id", "x-client-timestamp",
	"application/json", "application/octet-stream", "application/cbor", "application/protobuf",
	"text/plain", "text/plain;charset=utf-8", "true", "false",
}

// codecIndex finds a word: by its length and first octet the number, plus one,
// of the first such word, and by word that of the next. Five texts of each
// message are looked up, so it must cost next to nothing.
var codecIndex = func() (t struct {
	first [32][256]uint8
	next  [len(codecWords)]uint8
},
) {
	for i := len(codecWords) - 1; i >= 0; i-- {
		if w := codecWords[i]; w != "" {
			at := &t.first[len(w)][w[0]]
			t.next[i], *at = *at, uint8(i+1)
		}
	}
	return t
}()

// AppendMessage appends m as it looks at rest. Everything is kept but Expect,
// Must and the wire forms; of From its client, user, protocol and virtual
// host; of times their milliseconds.
func AppendMessage(dst []byte, m *Message) []byte {
	at := len(dst) + 1
	dst = append(dst, codecVersion, m.QoS&3, m.Priority)
	flag := func(bit byte, on bool) bool {
		if on {
			dst[at] |= bit
		}
		return on
	}
	flag(codecRetain, m.Retain)
	flag(codecUTF8, m.UTF8)
	if flag(codecArrived, !m.Arrived.IsZero()) {
		dst = binary.AppendUvarint(dst, restTime(m.Arrived))
	}
	if flag(codecNotBefore, !m.NotBefore.IsZero()) {
		dst = binary.AppendUvarint(dst, restTime(m.NotBefore))
	}
	if flag(codecExpires, !m.Expires.IsZero()) {
		dst = binary.AppendUvarint(dst, restTime(m.Expires))
	}
	dst = binary.AppendUvarint(dst, uint64(len(m.Body)))
	dst = append(dst, m.Body...)
	dst = appendText(dst, m.Address.VHost)
	dst = appendText(dst, m.Address.Exchange)
	dst = appendText(dst, m.Address.Topic)
	dst = appendText(dst, m.Key)
	dst = appendText(dst, m.Dedup)
	if flag(codecFrom, m.From != nil) {
		dst = appendText(dst, m.From.VHost)
		dst = appendText(dst, m.From.User)
		dst = appendText(dst, m.From.Client)
		dst = appendText(dst, m.From.Protocol)
	}
	dst = binary.AppendUvarint(dst, uint64(len(m.Headers)))
	for i := range m.Headers {
		dst = appendText(dst, m.Headers[i].Name)
		dst = appendText(dst, m.Headers[i].Value)
	}
	return dst
}

// restTime is t in unix ms. A time before 1970 is still a time: an expiry
// there must not become none.
func restTime(t time.Time) uint64 { return uint64(max(t.UnixMilli(), 1)) }

func appendText(dst []byte, s string) []byte {
	if s != "" && len(s) < len(codecIndex.first) {
		for n := codecIndex.first[len(s)][s[0]]; n > 0; n = codecIndex.next[n-1] {
			if codecWords[n-1] == s {
				return append(dst, (n-1)<<1|1)
			}
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(s))<<1)
	return append(dst, s...)
}

var errCodecShort = errors.New("stored message: it ends too early")

// DecodeMessage reads what AppendMessage wrote. The message is the caller's
// and shares nothing with b; memory is a small multiple of len(b), whatever b
// holds.
func DecodeMessage(b []byte) (*Message, error) {
	if len(b) == 0 {
		return nil, errCodecShort
	}
	if b[0] != codecVersion {
		return nil, fmt.Errorf("stored message: version %d, this Godwit reads version %d: start the one that wrote it", b[0], codecVersion)
	}
	if len(b) < 3 {
		return nil, errCodecShort
	}
	if b[2] > 9 {
		return nil, fmt.Errorf("stored message: priority %d, the highest is 9", b[2])
	}
	if b[1]&3 == 3 {
		return nil, errors.New("stored message: QoS 3, the highest is 2")
	}
	stored := new(storedMessage)
	m := &stored.message
	flags := b[1]
	m.QoS, m.Priority = flags&3, b[2]
	m.Retain, m.UTF8 = flags&codecRetain != 0, flags&codecUTF8 != 0

	r := codecReader{rest: b[3:]}
	m.Arrived = r.time(flags & codecArrived)
	m.NotBefore = r.time(flags & codecNotBefore)
	m.Expires = r.time(flags & codecExpires)
	m.Body = r.body()

	t := codecTexts{rest: string(r.rest), err: r.err}
	m.Address = Address{VHost: t.text(), Exchange: t.text(), Topic: t.text()}
	m.Key, m.Dedup = t.text(), t.text()
	if flags&codecFrom != 0 {
		from := &stored.from
		from.VHost, from.User, from.Client, from.Protocol = t.text(), t.text(), t.text(), t.text()
		m.From = from
	}
	m.Headers = t.headers()
	if t.err == nil && t.rest != "" {
		t.err = fmt.Errorf("stored message: %d octets follow its end", len(t.rest))
	}
	if t.err != nil {
		return nil, t.err
	}
	return m, nil
}

// A storedMessage is a message and its publisher in one piece of memory.
type storedMessage struct {
	message Message
	from    Identity
}

// A codecReader reads the part before the texts. After an error it gives
// nothing more.
type codecReader struct {
	rest []byte
	err  error
}

func (r *codecReader) number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail(errCodecShort)
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *codecReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

func (r *codecReader) time(there byte) time.Time {
	if there == 0 || r.err != nil {
		return time.Time{}
	}
	ms := r.number()
	if ms > math.MaxInt64 {
		r.fail(fmt.Errorf("stored message: %d is no time", ms))
	}
	if r.err != nil || ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

func (r *codecReader) body() []byte {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.fail(errCodecShort)
	}
	if r.err != nil || n == 0 {
		return nil
	}
	body := make([]byte, n)
	copy(body, r.rest)
	r.rest = r.rest[n:]
	return body
}

// A codecTexts reads texts, which share the memory of rest.
type codecTexts struct {
	rest string
	err  error
}

func (t *codecTexts) fail(err error) {
	if t.err == nil {
		t.err = err
	}
	t.rest = ""
}

func (t *codecTexts) number() uint64 {
	var v uint64
	for i := 0; i < len(t.rest) && i < binary.MaxVarintLen64; i++ {
		c := t.rest[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			t.rest = t.rest[i+1:]
			return v
		}
	}
	t.fail(errCodecShort)
	return 0
}

func (t *codecTexts) text() string {
	v := t.number()
	n := v >> 1
	if v&1 == 1 {
		if n >= uint64(len(codecWords)) {
			t.fail(fmt.Errorf("stored message: word %d, this Godwit knows %d: start the one that wrote it", n, len(codecWords)))
			return ""
		}
		return codecWords[n]
	}
	if n > uint64(len(t.rest)) {
		t.fail(errCodecShort)
		return ""
	}
	s := t.rest[:n]
	t.rest = t.rest[n:]
	return s
}

func (t *codecTexts) headers() []Header {
	n := t.number()
	if n > uint64(len(t.rest))/2 { // each takes two octets at least
		t.fail(errCodecShort)
	}
	if t.err != nil || n == 0 {
		return nil
	}
	h := make([]Header, n)
	for i := range h {
		h[i] = Header{Name: t.text(), Value: t.text()}
	}
	return h
}
