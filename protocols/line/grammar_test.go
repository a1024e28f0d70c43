package line

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/godwitmq/godwit/core"
)

// A grammar is the ABNF of doc.go, read from there: rules by name.
type grammar map[string]node

// A node is a part of a rule. It appends something that it allows.
type node interface{ make(m *maker) }

type (
	literal string   // "HELLO"
	octet   [2]byte  // %x21-24
	ref     string   // another rule
	series  []node   // one after the other
	choice  []node   // one of them
	repeat  struct { // 1*9DIGIT, [x], *( x )
		min, max int
		of       node
	}
)

// A maker makes requests at random.
type maker struct {
	rules grammar
	rand  *rand.Rand
	out   []byte
	verb  *verb // whose options may come
	used  map[string]bool
	body  int
}

func (l literal) make(m *maker) {
	text := string(l)
	if m.rand.IntN(2) == 0 && find([]byte(text)) != nil {
		text = strings.ToLower(text)
	}
	if v := find([]byte(text)); v != nil && len(m.out) == 0 {
		m.verb = v
	}
	m.out = append(m.out, text...)
}

func (o octet) make(m *maker) {
	m.out = append(m.out, o[0]+byte(m.rand.IntN(int(o[1]-o[0])+1)))
}

func (s series) make(m *maker) {
	for _, n := range s {
		n.make(m)
	}
}

func (c choice) make(m *maker) { c[m.rand.IntN(len(c))].make(m) }

func (r repeat) make(m *maker) {
	for range r.min + m.rand.IntN(min(r.max, r.min+4)-r.min+1) {
		before := len(m.out)
		r.of.make(m)
		if len(m.out) > 0 && m.out[len(m.out)-1] == ' ' { // an option that this verb does not have
			m.out = m.out[:before]
		}
	}
}

func (r ref) make(m *maker) {
	switch r {
	case "SP":
		m.out = append(m.out, ' ')
	case "HTAB":
		m.out = append(m.out, '\t')
	case "DIGIT":
		octet{'0', '9'}.make(m)
	case "HEXDIG":
		m.out = append(m.out, "0123456789ABCDEFabcdef"[m.rand.IntN(22)])
	case "ALPHA":
		octet{'a', 'z'}.make(m)
	case "UTF8-2", "UTF8-3", "UTF8-4":
		m.out = append(m.out, map[ref]string{"UTF8-2": "é", "UTF8-3": "→", "UTF8-4": "🦜"}[r]...)
	case "option":
		m.option()
	case "token", "name", "topic", "id": // what decodes to anything is not what is tested
		if at := len(m.out) - 5; at >= 0 && string(m.out[at:]) == "HELP " {
			m.out = append(m.out, "PUB"...)
			return
		}
		m.word()
	case "len":
		m.body = m.rand.IntN(50)
		m.out = strconv.AppendInt(m.out, int64(m.body), 10)
	case "n":
		m.out = strconv.AppendInt(m.out, 1+m.rand.Int64N(1e6), 10)
	case "span":
		n := m.rand.Int64N(1000)
		m.out = fmt.Appendf(m.out, "%d-%d", n, n+m.rand.Int64N(9))
	case "dur":
		m.out = fmt.Appendf(m.out, "%d%s", m.rand.IntN(300), []string{"ms", "s"}[m.rand.IntN(2)])
	default:
		rule, ok := m.rules[string(r)]
		if !ok {
			panic("the grammar has no rule " + string(r))
		}
		rule.make(m)
	}
}

func (m *maker) word() {
	for range 1 + m.rand.IntN(6) {
		if m.rand.IntN(8) == 0 {
			m.out = append(m.out, []string{"%20", "%25", "%C3%A9", "%2f", "é", "→", "🦜", "="}[m.rand.IntN(8)]...)
			continue
		}
		octet{'a', 'z'}.make(m)
	}
}

// option writes one that the verb has, and that has not come yet.
func (m *maker) option() {
	if m.verb.headers && m.rand.IntN(3) == 0 {
		m.out = append(m.out, ":h=v=w"...)
		return
	}
	if len(m.verb.options) == 0 {
		return
	}
	o := &m.verb.options[m.rand.IntN(len(m.verb.options))]
	if m.used[o.name] || o.not != "" {
		return
	}
	m.used[o.name] = true
	m.out = append(m.out, o.name...)
	switch o.kind {
	case flag:
		return
	case count:
		m.out = fmt.Appendf(m.out, "=%d", o.min+m.rand.Int64N(min(max(o.max-o.min, 0), 50)+1))
	case lapse:
		m.out = append(m.out, '=')
		ref("dur").make(m)
	case word:
		m.out = append(append(m.out, '='), o.words[m.rand.IntN(len(o.words))]...)
	case dest:
		m.out = append(m.out, '=')
		ref("dest").make(m)
	case text, name, octets:
		m.out = append(m.out, '=')
		m.word()
	}
}

// readGrammar reads the rules out of doc.go's comment.
func readGrammar(t *testing.T) grammar {
	t.Helper()
	src, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	rules, last := map[string]string{}, ""
	for line := range strings.Lines(string(src)) {
		text, ok := strings.CutPrefix(line, "//\t")
		if !ok {
			continue
		}
		text, _, _ = strings.Cut(strings.TrimRight(text, "\n"), ";")
		if name, rule, ok := strings.Cut(text, " = "); ok && !strings.HasPrefix(text, " ") {
			last = strings.TrimSpace(name)
			rules[last] = rule
		} else if name, rule, ok := strings.Cut(text, "= "); ok && !strings.HasPrefix(text, " ") {
			last = strings.TrimSpace(name)
			rules[last] = rule
		} else if last != "" {
			rules[last] += " " + text
		}
	}
	g := grammar{}
	for name, rule := range rules {
		r := &reader{text: rule}
		if name == "bytes" || strings.Contains(rule, "->") {
			continue
		}
		g[name] = r.choice()
		if r.skip(); r.text != "" {
			t.Fatalf("rule %s: %q is not ABNF", name, r.text)
		}
	}
	return g
}

// A reader reads one rule.
type reader struct{ text string }

func (r *reader) skip() { r.text = strings.TrimLeft(r.text, " ") }

func (r *reader) choice() node {
	var all choice
	for {
		all = append(all, r.series())
		if r.skip(); !strings.HasPrefix(r.text, "/") {
			return all
		}
		r.text = r.text[1:]
	}
}

func (r *reader) series() node {
	var all series
	for {
		r.skip()
		if r.text == "" || strings.ContainsRune("/)]", rune(r.text[0])) {
			return all
		}
		all = append(all, r.element())
	}
}

func (r *reader) element() node {
	digits := func() (int, bool) {
		n := 0
		for n < len(r.text) && r.text[n] >= '0' && r.text[n] <= '9' {
			n++
		}
		v, err := strconv.Atoi(r.text[:n])
		r.text = r.text[n:]
		return v, err == nil
	}
	low, has := digits()
	if strings.HasPrefix(r.text, "*") {
		r.text = r.text[1:]
		high, bounded := digits()
		if !bounded {
			high = low + 9
		}
		return repeat{low, high, r.single()}
	}
	if has {
		return repeat{low, low, r.single()}
	}
	return r.single()
}

func (r *reader) single() node {
	switch c := r.text[0]; {
	case c == '"':
		end := strings.IndexByte(r.text[1:], '"') + 1
		l := literal(r.text[1:end])
		r.text = r.text[end+1:]
		return l
	case c == '(' || c == '[':
		r.text = r.text[1:]
		n := r.choice()
		r.text = r.text[1:]
		if c == '[' {
			return repeat{0, 1, n}
		}
		return n
	case c == '<':
		end := strings.IndexByte(r.text, '>')
		r.text = r.text[end+1:]
		return literal("")
	case strings.HasPrefix(r.text, "%x"):
		var o octet
		_, err := fmt.Sscanf(r.text[2:7], "%02X-%02X", &o[0], &o[1])
		if err != nil {
			panic(r.text)
		}
		r.text = r.text[7:]
		return o
	}
	n := strings.IndexAny(r.text, " )]/")
	if n < 0 {
		n = len(r.text)
	}
	name := ref(r.text[:n])
	r.text = r.text[n:]
	return name
}

// What the grammar allows can be parsed, whole and in parts.
func TestGrammar(t *testing.T) {
	g := readGrammar(t)
	seen := map[string]int{}
	for seed := range uint64(20_000) {
		m := &maker{rules: g, rand: rand.New(rand.NewPCG(seed, 5)), used: map[string]bool{}}
		group := []string{"session", "publish", "batch", "push", "pull", "settle", "manage"}[seed%7]
		ref(group).make(m)
		in := string(m.out)
		end := []string{"\n", "\r\n"}[seed%2]
		in += end
		if m.verb != nil && m.verb.payload {
			in += strings.Repeat("\x00", m.body) + end
		}
		r := new(request)
		n, err := take(r, in)
		if err != nil && !(err.Reason == core.ReasonUnsupported) {
			t.Fatalf("seed %d: %q: %v", seed, in, err)
		}
		if n != len(in) && err == nil {
			t.Fatalf("seed %d: %q: took %d of %d", seed, in, n, len(in))
		}
		seen[r.verb.name]++
	}
	for i := range verbs {
		if seen[verbs[i].name] == 0 {
			t.Errorf("the grammar never makes %s", verbs[i].name)
		}
	}
}
