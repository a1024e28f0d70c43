package protocoltest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A packet is a STOMP frame or an MQTT packet, in words. The fixed fields of a
// packet (MQTT alone has some) must be expected to the last; of the rest, a
// bare * allows more.
type packet struct {
	word    string
	fixed   []field // a zero or empty one may be left out
	rest    []field // STOMP headers, MQTT properties
	body    string
	hasBody bool
	more    bool // of an expectation: a bare * was in it
}

// match says where got differs from what p expects, "" if nowhere.
func (p *packet) match(got *packet, v vars) string {
	if p.word != got.word {
		return fmt.Sprintf("want %s", p.word)
	}
	caught := vars{}
	maps.Copy(caught, v)
	if diff := matchFixed(p.fixed, got.fixed, caught); diff != "" {
		return diff
	}
	if diff := matchRest(p.rest, got.rest, p.more, caught); diff != "" {
		return diff
	}
	// The body of an ERROR is prose: a * covers it.
	if !p.hasBody && got.body != "" && (!p.more || got.word != "ERROR") {
		return "a body was not expected"
	}
	if p.hasBody && !caught.match(p.body, got.body) {
		return "the body differs"
	}
	maps.Copy(v, caught)
	return ""
}

func matchFixed(want, got []field, v vars) string {
	used := make([]bool, len(got))
	for _, w := range want {
		value := "0"
		if i := find(got, used, w.name); i >= 0 {
			used[i], value = true, got[i].value
		}
		if !v.match(w.value, value) && (value != "0" || w.value != "") {
			return fmt.Sprintf("%s is %s, want %s", w.name, value, w.value)
		}
	}
	for i, g := range got {
		if !used[i] && g.value != "0" && g.value != "" {
			return fmt.Sprintf("%s=%s was not expected", g.name, g.value)
		}
	}
	return ""
}

func matchRest(want, got []field, more bool, v vars) string {
	used := make([]bool, len(got))
	for _, w := range want {
		i := find(got, used, w.name)
		if i < 0 {
			return fmt.Sprintf("no %s", w.name)
		}
		used[i] = true
		if !v.match(w.value, got[i].value) {
			return fmt.Sprintf("%s is %q, want %q", w.name, got[i].value, w.value)
		}
	}
	for i, g := range got {
		if !used[i] && !more {
			return fmt.Sprintf("%s (%q) was not expected: name it, or write *", g.name, g.value)
		}
	}
	return ""
}

// find is the first unused field of that name, or -1.
func find(fields []field, used []bool, name string) int {
	for i := range fields {
		if !used[i] && fields[i].name == name {
			return i
		}
	}
	return -1
}

// value is the first field of that name, "" without one.
func value(fields []field, name string) string {
	for i := range fields {
		if fields[i].name == name {
			return fields[i].value
		}
	}
	return ""
}

// readPacket reads "WORD field... | body", where put takes each field.
func readPacket(text string, put func(p *packet, word string) error) (*packet, error) {
	head, body, has, err := cutBody(text)
	if err != nil {
		return nil, err
	}
	words, err := fieldsOf(head)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, errors.New("empty: want a command")
	}
	p := &packet{word: words[0], body: body, hasBody: has}
	for _, w := range words[1:] {
		if w == "*" {
			p.more = true
			continue
		}
		if err := put(p, w); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// show writes a packet as a transcript would expect it.
func (p *packet) show(between string) string {
	return strings.ReplaceAll(p.text(between), "$", "$$")
}

// text writes a packet as a transcript would send it, variables filled in.
func (p *packet) text(between string) string {
	var b strings.Builder
	b.WriteString(p.word)
	for _, f := range append(slices.Clip(p.fixed), p.rest...) {
		b.WriteByte(' ')
		b.WriteString(showValue(f.name))
		b.WriteString(between)
		b.WriteString(showValue(f.value))
	}
	if p.body != "" || p.hasBody {
		b.WriteString(" | ")
		b.WriteString(showBody(p.body))
	}
	return b.String()
}
