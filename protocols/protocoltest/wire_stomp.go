package protocoltest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// stompWire is a STOMP client.
type stompWire struct{ version string }

func (w *stompWire) login(_ string, options []field) (say, welcome string, err error) {
	say = "CONNECT accept-version:" + w.version + " host:/"
	for _, o := range options {
		name := o.name
		if name == "client" {
			name = "client-id"
		}
		say += " " + name + ":" + strconv.Quote(o.value)
	}
	return say, "CONNECTED version:" + w.version + " *", nil
}

func (w *stompWire) goodbye() string { return "DISCONNECT" }

// parse reads "COMMAND name:value... | body".
func (w *stompWire) parse(text string) (*packet, error) {
	return readPacket(text, func(p *packet, word string) error {
		name, value, ok := strings.Cut(word, ":")
		if !ok {
			return fmt.Errorf("header %q: want name:value", word)
		}
		p.rest = append(p.rest, field{name, value})
		return nil
	})
}

func (w *stompWire) encode(text string) ([]byte, error) {
	p, err := w.parse(text)
	if err != nil {
		return nil, err
	}
	// STOMP 1.2, "Body": only a length lets a body hold a NUL.
	if strings.IndexByte(p.body, 0) >= 0 && value(p.rest, "content-length") == "" {
		p.rest = append(p.rest, field{"content-length", strconv.Itoa(len(p.body))})
	}
	var b bytes.Buffer
	b.WriteString(p.word + "\n")
	for _, h := range p.rest {
		b.WriteString(w.escape(p.word, h.name) + ":" + w.escape(p.word, h.value) + "\n")
	}
	b.WriteString("\n" + p.body + "\x00")
	return b.Bytes(), nil
}

// STOMP 1.2, "Value Encoding": all frames but CONNECT and CONNECTED. 1.1 has
// no \r, 1.0 has none of it.
func (w *stompWire) escape(command, s string) string {
	if w.version == "1.0" || command == "CONNECT" || command == "CONNECTED" || command == "STOMP" {
		return s
	}
	s = strings.NewReplacer("\\", `\\`, "\n", `\n`, ":", `\c`).Replace(s)
	if w.version == "1.2" {
		s = strings.ReplaceAll(s, "\r", `\r`)
	}
	return s
}

func (w *stompWire) unescape(command, s string) (string, error) {
	if w.version == "1.0" || command == "CONNECTED" {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch {
		case i == len(s):
			return "", fmt.Errorf("header text %q ends in a backslash", s)
		case s[i] == 'n':
			b.WriteByte('\n')
		case s[i] == 'c':
			b.WriteByte(':')
		case s[i] == '\\':
			b.WriteByte('\\')
		case s[i] == 'r' && w.version == "1.2":
			b.WriteByte('\r')
		default:
			return "", fmt.Errorf(`header text %q has the escape \%c`, s, s[i])
		}
	}
	return b.String(), nil
}

// first skips the heart-beats in front of a frame.
func (w *stompWire) first(in []byte) (skip, n int, err error) {
	for skip < len(in) && (in[skip] == '\n' || in[skip] == '\r') {
		skip++
	}
	in = in[skip:]
	head := bytes.Index(in, []byte("\n\n"))
	if head < 0 {
		return skip, 0, nil
	}
	if length, ok := contentLength(in[:head]); ok {
		end := head + 2 + length
		if len(in) <= end {
			return skip, 0, nil
		}
		if in[end] != 0 {
			return skip, 0, errors.New("the broker's body is not followed by NUL: its content-length is wrong")
		}
		return skip, end + 1, nil
	}
	end := bytes.IndexByte(in[head:], 0)
	if end < 0 {
		return skip, 0, nil
	}
	return skip, head + end + 1, nil
}

func contentLength(head []byte) (int, bool) {
	for _, line := range strings.Split(string(head), "\n")[1:] {
		if name, value, _ := strings.Cut(line, ":"); name == "content-length" {
			n, err := strconv.Atoi(value)
			return n, err == nil
		}
	}
	return 0, false
}

func (w *stompWire) decode(answer []byte) (*packet, error) {
	head, body, ok := bytes.Cut(answer, []byte("\n\n"))
	if !ok || len(body) == 0 || body[len(body)-1] != 0 {
		return nil, fmt.Errorf("%q is no frame", answer)
	}
	lines := strings.Split(string(head), "\n")
	p := &packet{word: lines[0], body: string(body[:len(body)-1])}
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("header line %q has no colon", line)
		}
		name, err := w.unescape(p.word, name)
		if err != nil {
			return nil, err
		}
		if value, err = w.unescape(p.word, value); err != nil {
			return nil, err
		}
		p.rest = append(p.rest, field{name, value})
	}
	return p, nil
}

func (w *stompWire) show(answer []byte) string {
	p, err := w.decode(answer)
	if err != nil {
		return fmt.Sprintf("%q (%v)", answer, err)
	}
	return p.show(":")
}

// match compares a frame. content-length was checked when the frame was cut
// off, and need not be expected.
func (w *stompWire) match(text string, answer []byte, v vars) (string, error) {
	want, err := w.parse(text)
	if err != nil {
		return "", err
	}
	got, err := w.decode(answer)
	if err != nil {
		return err.Error(), nil
	}
	if value(want.rest, "content-length") == "" {
		got.rest = without(got.rest, "content-length")
	}
	return want.match(got, v), nil
}

// without leaves out the first field of that name.
func without(fields []field, name string) []field {
	for i := range fields {
		if fields[i].name == name {
			return append(fields[:i:i], fields[i+1:]...)
		}
	}
	return fields
}
