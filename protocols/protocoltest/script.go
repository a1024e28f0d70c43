package protocoltest

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// A script is a transcript, read and not yet played.
type script struct {
	name  string
	lines []string
	each  []each
	steps []step
}

// An each plays the script once per value.
type each struct {
	name   string
	values []string
}

// A step is one line of a script that does or expects something.
type step struct {
	line  int      // counted from 1
	kind  byte     // '>' sends, '<' expects, '=' is neutral, 'w' moves the world
	proto string   // as written; "" where the name is known
	name  string   // of the connection
	text  string   // what follows, one leading space removed
	exact bool     // text is a Go string: bytes
	words []string // of a step of the world
}

// talk is a line of a connection: the protocol may be left out, and stands for
// itself or for a variable.
var talk = regexp.MustCompile(`^(?:([a-z$A-Z][\w./$]*) +)?([A-Za-z]\w*)([<>=])`)

// worldly are the words that no connection can be named.
var worldly = map[string]bool{
	"broker": true, "open": true, "close": true, "cut": true, "stop": true, "go": true, "tick": true,
	"settle": true, "disk": true, "power": true, "plugin": true, "each": true,
}

// parse reads a transcript. The error names the line.
func parse(name string, src []byte) (*script, error) {
	s := &script{name: name, lines: strings.Split(strings.TrimSuffix(string(src), "\n"), "\n")}
	for i, line := range s.lines {
		line = strings.TrimSuffix(line, "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		st, err := parseStep(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
		st.line = i + 1
		if st.kind == 'w' && st.words[0] == "each" {
			if len(st.words) < 3 || len(s.steps) > 0 {
				return nil, fmt.Errorf("%s:%d: want each VAR VALUE..., above all steps", name, i+1)
			}
			s.each = append(s.each, each{st.words[1], st.words[2:]})
			continue
		}
		s.steps = append(s.steps, st)
	}
	if len(s.steps) == 0 {
		return nil, fmt.Errorf("%s: no step in it", name)
	}
	return s, nil
}

func parseStep(line string) (step, error) {
	if word, _, _ := strings.Cut(line, " "); worldly[word] {
		words, err := fieldsOf(line)
		return step{kind: 'w', words: words}, err
	}
	m := talk.FindStringSubmatch(line)
	if m == nil {
		return step{}, fmt.Errorf("%q is no step: want [PROTOCOL] NAME> TEXT, NAME< TEXT, NAME= TEXT, or a word like tick", line)
	}
	st := step{proto: m[1], name: m[2], kind: m[3][0], text: line[len(m[0]):]}
	if worldly[st.name] {
		return step{}, fmt.Errorf("a connection cannot be named %q", st.name)
	}
	if strings.HasPrefix(st.text, `"`) && st.kind != '=' {
		bytes, rest, err := unquote(st.text)
		if err != nil || rest != "" {
			return step{}, fmt.Errorf("%s is no Go string", st.text)
		}
		st.text, st.exact = bytes, true
		return st, nil
	}
	st.text = strings.TrimPrefix(st.text, " ")
	return st, nil
}

// plays are the values of the script's variables, one map a run.
func (s *script) plays() []map[string]string {
	plays := []map[string]string{{}}
	for _, e := range s.each {
		var more []map[string]string
		for _, p := range plays {
			for _, v := range e.values {
				next := map[string]string{e.name: v}
				maps.Copy(next, p)
				more = append(more, next)
			}
		}
		plays = more
	}
	return plays
}

// title is a run's name: "P=line,C=mqtt", or "" where nothing varies.
func (s *script) title(play map[string]string) string {
	var parts []string
	for _, e := range s.each {
		parts = append(parts, e.name+"="+play[e.name])
	}
	return strings.Join(parts, ",")
}
