package protocoltest

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sort"
	"strings"
)

// A Failure is a transcript that did not come true.
type Failure struct {
	File    string
	Line    int
	Values  string   // of the each-variables: "P=line,C=mqtt"
	Step    string   // the line as written
	Text    string   // what is wrong
	Waiting []string // what the connections hold that was not looked at
}

func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: %s", f.File, f.Line, f.Step)
	if f.Values != "" {
		fmt.Fprintf(&b, "   (%s)", f.Values)
	}
	fmt.Fprintf(&b, "\n   %s", f.Text)
	for _, w := range f.Waiting {
		fmt.Fprintf(&b, "\n   also waiting: %s", w)
	}
	return b.String()
}

func (w *world) fail(format string, args ...any) error {
	return w.wrap(fmt.Errorf(format, args...))
}

// wrap says where err happened and what else there is to see.
func (w *world) wrap(err error) error {
	var f *Failure
	if err == nil || errors.As(err, &f) {
		return err
	}
	st := &w.script.steps[w.at]
	return &Failure{
		File: w.script.name, Line: st.line, Values: w.values(),
		Step: w.script.lines[st.line-1], Text: err.Error(), Waiting: w.waiting(),
	}
}

func (w *world) values() string {
	return w.script.title(w.vars)
}

// maxShown is how many answers of a connection a failure shows.
const maxShown = 5

func (w *world) waiting() []string {
	var out []string
	names := make([]string, 0, len(w.conns))
	for name := range w.conns {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		out = append(out, w.conns[name].waiting()...)
	}
	return out
}

func (c *conn) waiting() []string {
	var out []string
	in := c.out
	for len(in) > 0 {
		skip, n, err := c.wire.first(in)
		if err != nil || n == 0 {
			if skip < len(in) {
				out = append(out, fmt.Sprintf("%s< part of an answer: %q", c.name, in[skip:]))
			}
			break
		}
		if len(out) == maxShown {
			out = append(out, fmt.Sprintf("%s< ... %d bytes more", c.name, len(in)))
			break
		}
		out = append(out, fmt.Sprintf("%s< %s", c.name, c.wire.show(in[skip:skip+n])))
		in = in[skip+n:]
	}
	if c.held {
		out = append(out, fmt.Sprintf("%s is held back (ErrWait), %d bytes not taken", c.name, len(c.in)))
	} else if len(c.in) > 0 {
		out = append(out, fmt.Sprintf("%s> %d bytes not taken: %q", c.name, len(c.in), c.in[:min(len(c.in), 64)]))
	}
	if c.gone {
		out = append(out, fmt.Sprintf("%s was closed by the broker: %v", c.name, c.why))
	}
	return out
}

func stack() string {
	lines := strings.Split(string(debug.Stack()), "\n")
	for i, line := range lines { // what is above the panic is ours
		if strings.HasPrefix(line, "panic(") {
			lines = lines[i+2:]
			break
		}
	}
	return "   " + strings.Join(lines[:min(len(lines), 16)], "\n   ")
}
