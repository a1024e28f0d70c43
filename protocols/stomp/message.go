package stomp

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// A MESSAGE is made of two parts. What differs between its readers comes
// first and is written each time; the rest, from destination to the NUL, is
// made once a message for each version and style, and shared.
//
//	MESSAGE subscription message-id ack redelivered retain | destination ... body NUL
//
// Ours come before what the publisher wrote, and of a repeated header the
// first one counts: nobody forges them.

// Marks at the head of a shared part, never written out: whether all of it is
// text, for WebSocket.
const (
	markText   = 't'
	markBinary = 'b'
)

// formKey names a shared part.
func formKey(v wire.Version, s style) core.FormKey {
	return core.FormKey('S')<<24 | core.FormKey(v)<<8 | core.FormKey(s)
}

// message writes one delivery.
func (h *handler) message(out []byte, e *core.Event) []byte {
	live := e.Tag == core.Tag{}
	if live {
		h.released++
		h.bytes += e.Message.Size()
	}
	s := h.subscription(e.Sub)
	if s == nil || s.cancelled.Load() || h.over() {
		if !live && !h.over() { // else it goes back with the session
			h.returned = append(h.returned, e.Tag)
		}
		return out
	}
	n := uint64(0)
	if s.mode != ackAuto {
		n = h.track(s, e.Tag)
	} else if !live && !s.browse {
		h.settled = append(h.settled, e.Tag)
	}
	seq := e.Tag.Seq
	if live {
		seq = h.lives.Add(1)
	}
	shared := e.Message.Form(s.form, s.build)
	out = s.appendPrefix(out, e, seq, n)
	out = append(out, shared[1:]...)
	h.link.Border(len(out), shared[0] == markText)
	return out
}

// subscription finds a subscription by its number. Deliveries come in runs.
func (h *handler) subscription(number uint32) *subscription {
	if h.last != nil && h.last.number == number {
		return h.last
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.standing[number]; s != nil {
		h.last = s
		return s
	}
	return nil
}

// track notes a delivery that the client will settle.
func (h *handler) track(s *subscription, t core.Tag) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t == (core.Tag{}) { // a retained value: nobody waits for its ACK
		s.ring.next++
		return s.ring.next
	}
	s.place, s.newest = t.Place, max(s.newest, t.Seq)
	n := s.ring.add(t)
	if s.spec.Lease > 0 {
		s.ring.expire(int(s.spec.Credit.Messages))
	}
	return n
}

// appendPrefix writes what one reader's copy has alone.
func (s *subscription) appendPrefix(out []byte, e *core.Event, seq, n uint64) []byte {
	out = append(out, s.prefix...)
	out = strconv.AppendUint(out, e.Tag.Place, 10)
	out = strconv.AppendUint(append(out, '-'), seq, 10)
	if n > 0 && s.acks { // STOMP 1.2, "MESSAGE": "the MESSAGE frame MUST also contain an ack header"
		out = append(out, "\nack:"...)
		out = strconv.AppendUint(out, uint64(s.number), 10)
		out = strconv.AppendUint(append(out, '.'), n, 10)
	}
	if e.Tag.Attempt > 1 {
		out = append(out, "\nredelivered:true\nx-delivery-count:"...)
		out = strconv.AppendUint(out, uint64(e.Tag.Attempt), 10)
	}
	if e.Retained {
		out = append(out, "\nretain:true"...)
	}
	return append(out, '\n')
}

// buildShared makes the shared part, with its mark.
func (p *Protocol) buildShared(m *core.Message, v wire.Version, s style) []byte {
	w := headerWriter{p: p, v: v, b: make([]byte, 1, int(m.Size())+256)}
	w.b = append(w.b, frame.Destination+":"...)
	w.b, _ = wire.AppendText(w.b, v, string(appendDestination(make([]byte, 0, 128), m.Address, s)))
	w.b = append(w.b, '\n')
	w.contentType(m)
	w.number(frame.ContentLength, int64(len(m.Body)))
	w.correlation(m)
	if text, ok := m.Header(core.HeaderReplyTo); ok {
		w.text(core.HeaderReplyTo, replyTo(m.Address.VHost, text, s))
	}
	if !m.Expires.IsZero() {
		w.number("expires", m.Expires.UnixMilli())
	}
	if m.Priority != core.DefaultPriority {
		w.number("priority", int64(m.Priority))
	}
	w.text("persistent", strconv.FormatBool(m.QoS > 0))
	w.number("timestamp", m.Arrived.UnixMilli())
	if m.Key != "" {
		w.text("JMSXGroupID", m.Key)
	}
	if m.Dedup != "" {
		w.text("dedup", m.Dedup)
	}
	w.users(m)
	return w.end(m.Body)
}

// A headerWriter writes headers, and counts those that cannot be said.
type headerWriter struct {
	p *Protocol
	v wire.Version
	b []byte
}

func (w *headerWriter) text(name, value string) {
	var ok bool
	if w.b, ok = wire.AppendHeader(w.b, w.v, name, value); !ok {
		w.p.counts.headersDropped.Add(1)
	}
}

func (w *headerWriter) number(name string, n int64) {
	w.b = append(append(w.b, name...), ':')
	w.b = append(strconv.AppendInt(w.b, n, 10), '\n')
}

// contentType says what the publisher said, and of text what it is.
func (w *headerWriter) contentType(m *core.Message) {
	if text, ok := m.Header(core.HeaderContentType); ok {
		w.text(frame.ContentType, text)
	} else if m.UTF8 {
		w.text(frame.ContentType, "text/plain;charset=utf-8")
	}
}

// correlation writes octets that are no text as base64, and says so.
func (w *headerWriter) correlation(m *core.Message) {
	value, ok := m.Header(core.HeaderCorrelationID)
	if !ok {
		return
	}
	if sayable(value) {
		w.text(core.HeaderCorrelationID, value)
		return
	}
	w.text(core.HeaderCorrelationID, base64.StdEncoding.EncodeToString([]byte(value)))
	w.text(headerEncoding, "base64")
}

func sayable(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return false
		}
	}
	return utf8.ValidString(s)
}

// users writes what the publisher added, in its order. What is called like a
// header of the protocol, which a message of another protocol may have, gets a
// name of its own.
func (w *headerWriter) users(m *core.Message) {
	for i := range m.Headers {
		hd := &m.Headers[i]
		switch name := hd.Name; {
		case name == core.HeaderContentType, name == core.HeaderCorrelationID, name == core.HeaderReplyTo:
		case isReserved(name):
			w.text("foreign-"+name, hd.Value)
		default:
			w.text(name, hd.Value)
		}
	}
}

// end closes the headers, adds the body and marks what it all is.
func (w *headerWriter) end(body []byte) []byte {
	w.b = append(append(append(w.b, '\n'), body...), 0)
	w.b[0] = markBinary
	if utf8.Valid(body) {
		w.b[0] = markText
	}
	return w.b
}

// replyTo shows a canonical address as a destination, and other text as it is.
func replyTo(vhost, text string, s style) string {
	a, err := core.ParseAddress(vhost, text)
	if err != nil || a.Topic == "" {
		return text
	}
	return string(appendDestination(nil, a, s))
}
