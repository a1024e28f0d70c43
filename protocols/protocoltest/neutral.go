package protocoltest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/godwitmq/godwit/core"
)

// A neutral wire says and hears what a neutral step means in its protocol.
type neutral interface {
	// ask writes a request natively. wait is the answer that belongs to it
	// and is taken with it; "" is none.
	ask(q *sentence) (text, wait string, err error)
	// frame is first, for answers with all that belongs to them.
	frame(in []byte) (skip, n int, err error)
	// hear reads an answer. reply is what the protocol wants said to it
	// before it counts, wait the answer to that.
	hear(answer []byte) (h *sentence, reply, wait string, err error)
}

// A sentence is a neutral step, or an answer in its words.
type sentence struct {
	verb    string
	sid     string
	seq     string // of MSG, ACK, NACK; how the protocol names a delivery
	dest    string // canonical
	id      string // of PUB, CONFIRM, ERR
	code    string // of ERR
	options []field
	headers []field // of the user, in order
	body    string
	more    bool     // a bare *
	mute    []string // options and headers that the protocol cannot carry
}

func (q *sentence) option(name string) (string, bool) {
	for _, o := range q.options {
		if o.name == name {
			return o.value, true
		}
	}
	return "", false
}

// arity is how many plain words follow a verb.
var arity = map[string]int{
	"PUB": 1, "SUB": 2, "UNSUB": 1, "GET": 1, "ACK": 2, "NACK": 2,
	"MSG": 2, "CONFIRM": 1, "END": 2, "ERR": 1,
}

// answers are the verbs that are heard, not said.
var answers = map[string]bool{"MSG": true, "CONFIRM": true, "END": true, "ERR": true}

// parseSentence reads a neutral step. Of a MSG the sequence may be left out.
func parseSentence(text string) (*sentence, error) {
	head, body, _, err := cutBody(text)
	if err != nil {
		return nil, err
	}
	words, err := fieldsOf(head)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, errors.New("empty: want a neutral verb")
	}
	q := &sentence{verb: words[0], body: body}
	n, ok := arity[q.verb]
	if !ok {
		return nil, fmt.Errorf("%s is no neutral verb: want PUB SUB UNSUB GET ACK NACK, or MSG CONFIRM END ERR", q.verb)
	}
	words = words[1:]
	if q.verb == "MSG" && len(words) > 2 && canonical(words[2]) {
		n = 3
	}
	if len(words) < n {
		return nil, fmt.Errorf("%s wants %d words", q.verb, n)
	}
	q.place(words[:n])
	for _, w := range words[n:] {
		if w == "*" {
			q.more = true
			continue
		}
		if rest, user := strings.CutPrefix(w, ":"); user {
			name, value, _ := strings.Cut(rest, "=")
			q.headers = append(q.headers, field{name, value})
			continue
		}
		name, value, _ := strings.Cut(w, "=")
		q.options = append(q.options, field{name, value})
	}
	if q.verb == "PUB" || q.verb == "ERR" {
		q.id, _ = q.option("id")
	}
	return q, nil
}

// place puts the plain words where they belong.
func (q *sentence) place(words []string) {
	switch q.verb {
	case "PUB", "GET":
		q.dest = words[0]
	case "SUB":
		q.sid, q.dest = words[0], words[1]
	case "MSG":
		q.sid, q.dest = words[0], words[len(words)-1]
		if len(words) == 3 {
			q.seq = words[1]
		}
	case "CONFIRM":
		q.id = words[0]
	case "ERR":
		q.code = words[0]
	case "UNSUB":
		q.sid = words[0]
	default:
		q.sid, q.seq = words[0], words[1]
	}
}

// canonical says whether a word is a destination as the line protocol writes it.
func canonical(word string) bool {
	return len(word) > 2 && word[1] == '/' && strings.IndexByte("qtxsr", word[0]) >= 0
}

func address(dest string) (core.Address, error) { return core.ParseAddress("/", dest) }

// neutral plays a neutral step.
func (w *world) neutral(proto string, st *step) error {
	if answers[strings.SplitN(st.text, " ", 2)[0]] {
		q, err := parseSentence(st.text)
		if err != nil {
			return err
		}
		return w.hear(proto, st, q)
	}
	text, err := w.vars.fill(st.text)
	if err != nil {
		return err
	}
	q, err := parseSentence(text)
	if err != nil {
		return err
	}
	return w.ask(proto, st, q)
}

// ask says a request, and takes the answer that belongs to it, unless the
// next step of the connection expects a refusal.
func (w *world) ask(proto string, st *step, q *sentence) error {
	c, err := w.conn(proto, st.name, false)
	if err != nil {
		return err
	}
	native, wait, err := c.wire.ask(q)
	if err != nil {
		return err
	}
	if err := w.say(c, native); err != nil || wait == "" || w.refusalFollows(st.name) {
		return err
	}
	return w.takeAnswer(c, wait)
}

func (w *world) say(c *conn, native string) error {
	if err := w.settle(); err != nil {
		return err
	}
	if c.gone {
		return fmt.Errorf("%s was closed by the broker: %w", c.name, c.why)
	}
	bytes, err := c.wire.encode(native)
	if err != nil {
		return err
	}
	c.feed(bytes)
	w.last = c
	return nil
}

func (w *world) refusalFollows(name string) bool {
	for _, st := range w.script.steps[w.at+1:] {
		if st.name == name {
			return st.kind == '=' && strings.HasPrefix(st.text, "ERR ")
		}
	}
	return false
}

// takeAnswer takes the answer that matches out of all that has come: a
// message may have come before it.
func (w *world) takeAnswer(c *conn, wait string) error {
	if err := w.settle(); err != nil {
		return err
	}
	for at := 0; ; {
		skip, n, err := c.wire.frame(c.out[at:])
		for err == nil && n == 0 && c.await(answerTime) {
			skip, n, err = c.wire.frame(c.out[at:])
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%s did not come", wait)
		}
		at += skip
		diff, err := c.wire.match(wait, c.out[at:at+n], w.vars)
		if err != nil {
			return err
		}
		if diff == "" {
			c.out = slices.Delete(slices.Clone(c.out), at, at+n)
			return nil
		}
		at += n
	}
}

// hear expects an answer.
func (w *world) hear(proto string, st *step, want *sentence) error {
	if err := w.settle(); err != nil {
		return err
	}
	c, err := w.conn(proto, st.name, false)
	if err != nil {
		return err
	}
	if c.stopped {
		return fmt.Errorf("%s does not read: say go %s first", c.name, c.name)
	}
	line, isLine := c.wire.(*lineWire)
	if isLine && want.verb == "CONFIRM" && line.covers(w.vars, want.id) {
		return nil // CONFIRM is cumulative
	}
	answer, err := w.answer(c, c.wire.frame)
	if err != nil {
		return err
	}
	got, reply, wait, err := c.wire.hear(answer)
	if err != nil {
		return fmt.Errorf("%w\n   got: %s", err, c.wire.show(answer))
	}
	if reply != "" {
		if err := w.say(c, reply); err != nil {
			return err
		}
		if err := w.takeAnswer(c, wait); err != nil {
			return err
		}
	}
	if isLine && want.verb == "CONFIRM" && got.verb == "CONFIRM" && !line.covers(w.vars, want.id) {
		return w.hear(proto, st, want) // cumulative: the next one may cover it
	}
	if isLine && want.verb == "CONFIRM" && line.covers(w.vars, want.id) {
		got.id, _ = w.vars.fill(want.id)
	}
	if diff := want.match(got, w.vars); diff != "" {
		return fmt.Errorf("%s\n   got: %s", diff, c.wire.show(answer))
	}
	return nil
}

// match says where an answer differs from the step that expects it.
func (q *sentence) match(got *sentence, v vars) string {
	if q.verb != got.verb {
		return fmt.Sprintf("want %s, this is %s", q.verb, got.verb)
	}
	for _, p := range []struct{ what, want, got string }{
		{"the subscription", q.sid, got.sid},
		{"the sequence", q.seq, got.seq},
		{"the id", q.id, got.id},
	} {
		if p.want != "" && !v.match(p.want, p.got) {
			return fmt.Sprintf("%s is %q, want %q", p.what, p.got, p.want)
		}
	}
	switch q.verb {
	case "ERR":
		if !slices.Contains(strings.Split(got.code, ","), q.code) {
			return fmt.Sprintf("the code means %s, want %s", got.code, q.code)
		}
		return ""
	case "MSG":
		return q.matchMessage(got, v)
	case "END":
		return q.matchOptions(got, v)
	}
	return ""
}

func (q *sentence) matchMessage(got *sentence, v vars) string {
	if !slices.Contains(got.mute, "dest") && !v.match(q.dest, got.dest) {
		return fmt.Sprintf("the destination is %s, want %s", got.dest, q.dest)
	}
	if diff := q.matchOptions(got, v); diff != "" {
		return diff
	}
	want := slices.DeleteFunc(slices.Clone(q.headers), func(f field) bool { return slices.Contains(got.mute, ":") })
	if len(want) != len(got.headers) && !q.more {
		return fmt.Sprintf("the user's headers are %v, want %v", got.headers, want)
	}
	rest := got.headers
	for _, h := range want {
		i := slices.IndexFunc(rest, func(f field) bool { return f.name == h.name })
		if i < 0 || (i > 0 && !q.more) || !v.match(h.value, rest[i].value) {
			return fmt.Sprintf("the user's headers are %v, want %v in this order", got.headers, want)
		}
		rest = rest[i+1:]
	}
	if !v.match(q.body, got.body) {
		return fmt.Sprintf("the body is %q, want %q", got.body, q.body)
	}
	return ""
}

// told are the options of a message that must be expected if they are there.
var told = []string{"ct", "cid", "reply", "key", "n", "retain"}

func (q *sentence) matchOptions(got *sentence, v vars) string {
	for _, o := range q.options {
		value, has := got.option(o.name)
		switch {
		case slices.Contains(got.mute, o.name):
		case !has:
			return fmt.Sprintf("no %s", o.name)
		case o.name == "n" && value == "again": // the protocol says that, and no number
		case o.name == "reply" && strings.Contains(o.value, "$"):
			if !v.match(o.value, value) {
				return fmt.Sprintf("%s is %q, want %q", o.name, value, o.value)
			}
		case !v.match(o.value, value):
			return fmt.Sprintf("%s is %q, want %q", o.name, value, o.value)
		}
	}
	for _, o := range got.options {
		if _, has := q.option(o.name); !has && !q.more && slices.Contains(told, o.name) {
			return fmt.Sprintf("%s=%s was not expected: name it, or write *", o.name, o.value)
		}
	}
	return ""
}

// millis is a duration of the line protocol in milliseconds; it knows days.
func millis(text string) (int64, error) {
	unit, scale := "", int64(0)
	for _, u := range []struct {
		name  string
		scale int64
	}{{"ms", 1}, {"s", 1000}, {"m", 60_000}, {"h", 3_600_000}, {"d", 86_400_000}} {
		if strings.HasSuffix(text, u.name) {
			unit, scale = u.name, u.scale
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(text, unit), 10, 64)
	if err != nil || scale == 0 {
		return 0, fmt.Errorf("%q is no duration like 10s", text)
	}
	return n * scale, nil
}
