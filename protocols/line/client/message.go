package client

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// An Error is an ERR of the broker, or an END that says why.
type Error struct {
	Code  int    // the project's list: 404 is not found
	Class string // "retry": the same may succeed later; "no"; "fatal": the connection is over
	Text  string
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Text) }

// Retry says whether the same request may succeed later.
func (e *Error) Retry() bool { return e.Class == "retry" }

// Code is the number of a broker's error, or 0.
func Code(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return 0
}

// A Header is one name and value of a publisher's own.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Message is what is published. Dest and Body alone are enough.
type Message struct {
	Dest          string // q/QUEUE, t/TOPIC, x/EXCHANGE/KEY; encoded: see Escape
	Body          []byte
	ContentType   string
	CorrelationID string // any octets
	Reply         string // a dest
	Key           string
	Dedup         string // the publisher's own id: sent twice, kept once
	Headers       []Header
	TTL           time.Duration // 0: it does not expire
	Delay         time.Duration
	Priority      int // 1 to 9; 0: 4, as the broker says; below 0: 0
	Transient     bool
	Retain        bool
	Must          bool // nobody takes it: an error with code 404
}

// A Delivery is a message that came.
type Delivery struct {
	Sid      int
	Seq      uint64 // 0: nothing to settle
	Dest     string
	Body     []byte // the reader's to keep
	Headers  []Header
	Time     time.Time // of its publishing
	Expires  time.Time // zero: never
	Priority int
	Attempt  int // 1: the first time
	Retained bool

	ContentType, CorrelationID, Reply, Key string

	client *Client
	manual bool
}

// Header returns the value of the first header of that name.
func (d *Delivery) Header(name string) (string, bool) {
	for _, h := range d.Headers {
		if h.Name == name {
			return h.Value, true
		}
	}
	return "", false
}

// Escape makes one token of any text: a name in a dest, for instance. Slashes
// stay.
func Escape(s string) string { return string(appendEscaped(nil, s, 0)) }

const hexDigits = "0123456789ABCDEF"

func appendEscaped(out []byte, s string, too byte) []byte {
	valid := strings.ToValidUTF8(s, "") == s
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c == 0x7f || c == '%' || (c == too && too != 0) || (c >= 0x80 && !valid) {
			out = append(out, '%', hexDigits[c>>4], hexDigits[c&15])
			continue
		}
		out = append(out, c)
	}
	return out
}

// Unescape is the reverse of Escape.
func Unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%q: %% is not followed by two hexadecimal digits", s)
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q: %% is not followed by two hexadecimal digits", s)
		}
		out = append(out, byte(n))
		i += 2
	}
	return string(out), nil
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

func appendLapse(out []byte, name string, d time.Duration) []byte {
	if d == 0 {
		return out
	}
	out = append(out, ' ')
	out = append(out, name...)
	out = append(out, '=')
	out = strconv.AppendInt(out, max(d.Milliseconds(), 1), 10)
	return append(out, "ms"...)
}

func appendFlag(out []byte, name string, set bool) []byte {
	if !set {
		return out
	}
	out = append(out, ' ')
	return append(out, name...)
}

// checkWord refuses what would become another request.
func checkWord(what, s string) error {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return fmt.Errorf("%s %q: it cannot hold spaces or control characters; see Escape", what, s)
		}
	}
	if s == "" {
		return fmt.Errorf("%s is empty", what)
	}
	return nil
}

// appendPub writes a PUB with an id.
func appendPub(out []byte, m *Message, id uint64) []byte {
	out = append(out, "PUB "...)
	out = append(out, m.Dest...)
	out = append(out, " id="...)
	out = strconv.AppendUint(out, id, 10)
	if m.Transient {
		out = append(out, " qos=0"...)
	}
	if m.Priority != 0 {
		out = append(out, " pri="...)
		out = strconv.AppendInt(out, int64(max(m.Priority, 0)), 10)
	}
	out = appendLapse(out, "ttl", m.TTL)
	out = appendLapse(out, "delay", m.Delay)
	out = appendOption(out, "key", m.Key)
	out = appendOption(out, "dedup", m.Dedup)
	out = appendOption(out, "ct", m.ContentType)
	out = appendOption(out, "cid", m.CorrelationID)
	if m.Reply != "" {
		out = append(out, " reply="...)
		out = append(out, m.Reply...)
	}
	out = appendFlag(out, "retain", m.Retain)
	out = appendFlag(out, "must", m.Must)
	for _, h := range m.Headers {
		out = append(out, ' ', ':')
		out = appendEscaped(out, h.Name, '=')
		out = append(out, '=')
		out = appendEscaped(out, h.Value, 0)
	}
	out = append(out, ' ')
	out = strconv.AppendInt(out, int64(len(m.Body)), 10)
	out = append(out, '\n')
	out = append(out, m.Body...)
	return append(out, '\n')
}

// parseMsg reads the line of a MSG: its words without the first.
func parseMsg(words []string) (d *Delivery, length int, err error) {
	if len(words) < 4 {
		return nil, 0, errors.New("a MSG has too few words")
	}
	d = &Delivery{Dest: words[2], Priority: 4, Attempt: 1}
	if d.Sid, err = strconv.Atoi(words[0]); err != nil {
		return nil, 0, fmt.Errorf("the number of a MSG's subscription: %w", err)
	}
	if d.Seq, err = strconv.ParseUint(words[1], 10, 64); err != nil {
		return nil, 0, fmt.Errorf("the number of a MSG: %w", err)
	}
	last := len(words) - 1
	if length, err = strconv.Atoi(words[last]); err != nil || length < 0 || length > maxBody {
		return nil, 0, fmt.Errorf("the length of a MSG is %q", words[last])
	}
	for _, w := range words[3:last] {
		if err := d.option(w); err != nil {
			return nil, 0, err
		}
	}
	return d, length, nil
}

func (d *Delivery) option(word string) error {
	name, raw, _ := strings.Cut(word, "=")
	value, err := Unescape(raw)
	if err != nil {
		return err
	}
	if user, ok := strings.CutPrefix(name, ":"); ok {
		if user, err = Unescape(user); err != nil {
			return err
		}
		d.Headers = append(d.Headers, Header{user, value})
		return nil
	}
	switch name {
	case "ts":
		d.Time, err = millis(value)
	case "exp":
		d.Expires, err = millis(value)
	case "pri":
		d.Priority, err = strconv.Atoi(value)
	case "n":
		d.Attempt, err = strconv.Atoi(value)
	case "retain":
		d.Retained = true
	case "ct":
		d.ContentType = value
	case "cid":
		d.CorrelationID = value
	case "reply":
		d.Reply = raw // a dest, as it is typed
	case "key":
		d.Key = value
	}
	if err != nil {
		return fmt.Errorf("%s= of a MSG: %w", name, err)
	}
	return nil // what a later version says beside is its own
}

func millis(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return time.UnixMilli(n), err
}
