package protocoltest

import (
	"bytes"
	"fmt"
	"strings"
)

// lineWire is a client of the line protocol: what it says is verbatim.
type lineWire struct{ confirmed int64 }

// login says nothing but where something must be told: on loopback HELLO may
// be left out.
func (w *lineWire) login(_ string, options []field) (say, welcome string, err error) {
	if len(options) == 0 {
		return "", "", nil
	}
	say = "HELLO 1"
	for _, o := range options {
		say += " " + o.name + "=" + lineEscape(o.value)
	}
	return say, "OK *", nil
}

func (w *lineWire) encode(text string) ([]byte, error) { return []byte(text + "\n"), nil }

func (w *lineWire) first(in []byte) (skip, n int, err error) {
	return 0, bytes.IndexByte(in, '\n') + 1, nil
}

func (w *lineWire) show(answer []byte) string {
	return strings.ReplaceAll(strings.TrimRight(string(answer), "\r\n"), "$", "$$")
}

// match compares a line. A bare * stands for any further options: what is
// expected behind it must be at the line's end.
func (w *lineWire) match(text string, answer []byte, v vars) (string, error) {
	got := strings.TrimSuffix(strings.TrimSuffix(string(answer), "\n"), "\r")
	head, tail, more := cutStar(text)
	if !more {
		if !v.match(text, got) {
			return "the line differs", nil
		}
		return "", nil
	}
	words := strings.Split(got, " ")
	n, m := len(strings.Fields(head)), len(strings.Fields(tail))
	if len(words) < n+m {
		return "the line is shorter", nil
	}
	if !v.match(strings.TrimSpace(head), strings.Join(words[:n], " ")) || !v.match(strings.TrimSpace(tail), strings.Join(words[len(words)-m:], " ")) {
		return "the line differs", nil
	}
	return "", nil
}

func cutStar(text string) (head, tail string, has bool) {
	if head, tail, has = strings.Cut(text, " * "); has {
		return head, tail, true
	}
	if head, has = strings.CutSuffix(text, " *"); has {
		return head, "", true
	}
	return text, "", false
}

func (w *lineWire) goodbye() string { return "QUIT" }

// lineEscape writes a value so that it is one token.
func lineEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// lineUnescape is the reverse; what is no escape is left as it is.
func lineUnescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		if s[i] == '%' && i+2 < len(s) {
			if _, err := fmt.Sscanf(s[i+1:i+3], "%02X", &c); err == nil {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
