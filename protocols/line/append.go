package line

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/godwitmq/godwit/core"
)

// formMsg is the block of a MSG that all its readers share: from the space
// before the destination to the end of the payload.
const formMsg = core.FormKey('L')<<24 | 1

// appendMsg writes a delivery. What differs between readers, n= and retain,
// is spliced in before the length, so the block stays shared.
//
// head is "MSG SID ", which a subscription keeps.
func appendMsg(out, head []byte, seq uint64, e *core.Event) []byte {
	block := e.Message.Form(formMsg, buildMsg)
	out = append(out, head...)
	out = strconv.AppendUint(out, seq, 10)
	if e.Tag.Attempt <= 1 && !e.Retained {
		return append(out, block...)
	}
	cut := len(block) - tailSize(len(e.Message.Body))
	out = append(out, block[:cut]...)
	if e.Retained {
		out = append(out, " retain"...)
	}
	if e.Tag.Attempt > 1 {
		out = append(out, " n="...)
		out = strconv.AppendUint(out, uint64(e.Tag.Attempt), 10)
	}
	return append(out, block[cut:]...)
}

func msgHead(sid uint32) []byte {
	return append(strconv.AppendUint([]byte("MSG "), uint64(sid), 10), ' ')
}

// tailSize is " LENGTH\nPAYLOAD\n".
func tailSize(body int) int {
	digits := 1
	for n := body; n >= 10; n /= 10 {
		digits++
	}
	return 1 + digits + 1 + body + 1
}

func buildMsg(m *core.Message) []byte {
	size := 64 + 3*len(m.Address.Topic) + len(m.Body)
	for i := range m.Headers {
		size += len(m.Headers[i].Name) + len(m.Headers[i].Value) + 8
	}
	return appendBlock(make([]byte, 0, size), m)
}

func appendBlock(out []byte, m *core.Message) []byte {
	out = append(out, ' ')
	out = append(out, m.Address.String()...)
	if !m.Arrived.IsZero() {
		out = append(out, " ts="...)
		out = strconv.AppendInt(out, m.Arrived.UnixMilli(), 10)
	}
	out = appendWords(out, m)
	out = append(out, ' ')
	out = strconv.AppendInt(out, int64(len(m.Body)), 10)
	out = append(out, '\n')
	out = append(out, m.Body...)
	return append(out, '\n')
}

// appendWords writes what a message says of itself.
func appendWords(out []byte, m *core.Message) []byte {
	if m.Priority != core.DefaultPriority {
		out = append(out, " pri="...)
		out = strconv.AppendUint(out, uint64(m.Priority), 10)
	}
	if !m.Expires.IsZero() {
		out = append(out, " exp="...)
		out = strconv.AppendInt(out, m.Expires.UnixMilli(), 10)
	}
	out = appendOption(out, "key", m.Key)
	out = appendOption(out, "dedup", m.Dedup)
	var named [3]bool
	for i, w := range headerWords {
		for j := range m.Headers {
			if h := &m.Headers[j]; h.Name == w.header {
				out = append(out, ' ')
				out = append(out, w.option...)
				out = append(out, '=')
				out = appendHeaderValue(out, h)
				named[i] = true
				break
			}
		}
	}
	for j := range m.Headers {
		h := &m.Headers[j]
		if i := headerWord(h.Name); i >= 0 && named[i] {
			named[i] = false // its first one is said already
			continue
		}
		if h.Name == "" {
			continue // MQTT can have one; nothing can stand for it here
		}
		out = append(out, ' ', ':')
		out = appendEscaped(out, h.Name, '=')
		out = append(out, '=')
		out = appendEscaped(out, h.Value, 0)
	}
	return out
}

// headerWords are the headers that have a word of their own, in the order in
// which a MSG says them.
var headerWords = [3]struct{ option, header string }{
	{"ct", core.HeaderContentType},
	{"cid", core.HeaderCorrelationID},
	{"reply", core.HeaderReplyTo},
}

func headerWord(name string) int {
	for i := range headerWords {
		if headerWords[i].header == name {
			return i
		}
	}
	return -1
}

// appendHeaderValue writes the value of one with a word. An address is said as
// it is, so that it can be typed back as a destination.
func appendHeaderValue(out []byte, h *core.Header) []byte {
	if h.Name == core.HeaderReplyTo {
		if a, err := core.ParseAddress("/", h.Value); err == nil && a.String() == h.Value {
			return append(out, h.Value...)
		}
	}
	return appendEscaped(out, h.Value, 0)
}

func appendOption(out []byte, name, value string) []byte {
	if value == "" {
		return out
	}
	out = append(out, ' ')
	out = append(out, name...)
	out = append(out, '=')
	return appendEscaped(out, value, 0)
}

const hexDigits = "0123456789ABCDEF"

// appendEscaped writes a token: what cannot stand in a line, and one octet
// more, become %XX. Octets that are no UTF-8 too: a line always is.
func appendEscaped(out []byte, s string, too byte) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c > ' ' && c < 0x7f && c != '%' && (c != too || too == 0) {
			out = append(out, c)
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, n := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || n > 1 {
				out = append(out, s[i:i+n]...)
				i += n
				continue
			}
		}
		out = append(out, '%', hexDigits[c>>4], hexDigits[c&15])
		i++
	}
	return out
}

// A subject is what an ERR is about: an id or a sid, or neither.
type subject struct {
	id     int64
	sid    uint32
	hasSid bool
}

// appendErr writes an ERR of class no or retry, as its code says.
func appendErr(out []byte, e *core.Error, about subject) []byte {
	if e.Code.Retry() {
		return appendError(out, e, " retry", about)
	}
	return appendError(out, e, " no", about)
}

func appendFatal(out []byte, e *core.Error) []byte { return appendError(out, e, " fatal", subject{}) }

func appendError(out []byte, e *core.Error, class string, about subject) []byte {
	out = append(out, "ERR "...)
	out = strconv.AppendUint(out, uint64(e.Code), 10)
	out = append(out, class...)
	switch {
	case about.id > 0:
		out = append(out, " id="...)
		out = strconv.AppendInt(out, about.id, 10)
	case about.hasSid:
		out = append(out, " sid="...)
		out = strconv.AppendUint(out, uint64(about.sid), 10)
	}
	out = append(out, ' ')
	out = appendSentence(out, e.Error(), maxSentence)
	return append(out, '\n')
}

const maxSentence = 200

// appendSentence writes text for people: one line, so many octets at most, no
// control characters.
func appendSentence(out []byte, s string, most int) []byte {
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	for _, r := range strings.ToValidUTF8(s, "?") {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			r = '?'
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}

func appendConfirm(out []byte, id uint64, tag core.Tag) []byte {
	out = append(out, "CONFIRM "...)
	out = strconv.AppendUint(out, id, 10)
	if tag.Seq != 0 {
		out = append(out, " off="...)
		out = strconv.AppendUint(out, tag.Seq, 10)
	}
	return append(out, '\n')
}

// appendEnd writes the END of a subscription or GET; code 0: none.
func appendEnd(out []byte, sid uint32, n uint64, why string, code core.Code) []byte {
	out = append(out, "END "...)
	out = strconv.AppendUint(out, uint64(sid), 10)
	out = append(out, ' ')
	out = strconv.AppendUint(out, n, 10)
	out = append(out, " why="...)
	out = append(out, why...)
	if code != 0 {
		out = append(out, " code="...)
		out = strconv.AppendUint(out, uint64(code), 10)
	}
	return append(out, '\n')
}

func appendRow(out []byte, words ...string) []byte {
	out = append(out, ':')
	for _, w := range words {
		out = append(out, ' ')
		out = appendSentence(out, w, 1<<20)
	}
	return append(out, '\n')
}
