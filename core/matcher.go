package core

import (
	"maps"
	"slices"
	"strings"

	"github.com/godwitmq/godwit/core/topic"
)

// A binding is one wish: a queue's, another exchange's or a live listener's.
type binding struct {
	queue    *queueRef
	exchange string // gets what this exchange gets
	listener *listener
	only     Only
	noLocal  bool
	owner    string // id of the session that declared it, for noLocal
	spec     BindingSpec
	args     []Header // those of spec that count
	any      bool     // one of args is enough
}

// newBinding compiles a spec: which of its arguments count is decided once.
func newBinding(spec BindingSpec) *binding {
	b := &binding{only: spec.Only, noLocal: spec.NoLocal, exchange: spec.Exchange, spec: spec}
	b.any = spec.Match == MatchAny || spec.Match == MatchAnyWithX
	withX := spec.Match == MatchAllWithX || spec.Match == MatchAnyWithX
	for _, a := range spec.Args {
		if withX || !strings.HasPrefix(a.Name, "x-") {
			b.args = append(b.args, a)
		}
	}
	return b
}

// takes says whether a queue's binding is meant by a message of that session.
func (b *binding) takes(m *Message, from string) bool {
	return b.only.Takes(m.QoS) && !(b.noLocal && from == b.owner)
}

// meets says whether the headers of m are what the arguments ask for. Of a
// repeated header the first counts.
func (b *binding) meets(m *Message) bool {
	for i := range b.args {
		a := &b.args[i]
		value, there := m.Header(a.Name)
		if ok := there && (a.Value == "" || a.Value == value); ok == b.any {
			return b.any
		}
	}
	return !b.any
}

// alike says whether two specs name the same binding: the same again replaces it.
func (b *BindingSpec) alike(o *BindingSpec) bool {
	return b.Queue == o.Queue && b.Exchange == o.Exchange && b.Source.Exchange == o.Source.Exchange &&
		b.Source.Topic == o.Source.Topic && b.Owned == o.Owned && b.Match == o.Match && slices.Equal(b.Args, o.Args)
}

// boundTo names the source of a binding with all that tells it from others.
func boundTo(b *BindingSpec) string {
	var out strings.Builder
	out.WriteString(b.Source.String())
	if b.asks() {
		out.WriteString(" match=" + b.Match.String())
	}
	for _, a := range b.Args {
		out.WriteString(" :" + a.Name + "=" + a.Value)
	}
	return out.String()
}

// A matcher holds the bindings of one exchange and finds those that a message
// is meant for. It is not safe for concurrent use; its vhost guards it.
//
// A kind of exchange is one matcher; newMatcher knows them all.
type matcher interface {
	add(key string, b *binding)
	remove(key string, b *binding) bool // says whether it was there
	match(m *Message, key string, out []*binding) []*binding
	all() []*binding
	len() int
	// near is what is bound with exactly that key, if that is known at once.
	near(key string) (list []*binding, known bool)
	// refuses says why nothing can be bound with that key, or nil.
	refuses(exchange, key string) *Error
}

func newMatcher(kind ExchangeKind) matcher {
	switch kind {
	case DirectKind:
		return &directMatcher{bags: make(map[string]*bag)}
	case FanoutKind:
		return new(fanoutMatcher)
	case HeadersKind:
		return new(headersMatcher)
	case TopicKind:
	}
	return new(topicMatcher)
}

// topicMatcher takes what a filter of + and # matches.
type topicMatcher struct{ topic.Trie[*binding] }

func (t *topicMatcher) add(key string, b *binding)         { t.Add(key, b) }
func (t *topicMatcher) remove(key string, b *binding) bool { return t.Remove(key, b) }
func (t *topicMatcher) all() []*binding                    { return t.All() }
func (t *topicMatcher) len() int                           { return t.Len() }
func (t *topicMatcher) near(key string) ([]*binding, bool) { return t.At(key), true }

func (t *topicMatcher) match(_ *Message, key string, out []*binding) []*binding {
	return t.Match(key, out)
}

func (t *topicMatcher) refuses(_, key string) *Error {
	if fault := topic.Fault(key, true); fault != "" {
		return Errorf(CodeSyntax, "filter %q: %s", key, fault)
	}
	return nil
}

// directMatcher takes what has exactly the key.
type directMatcher struct {
	bags map[string]*bag
	size int
}

func (d *directMatcher) add(key string, b *binding) {
	at := d.bags[key]
	if at == nil {
		at = new(bag)
		d.bags[key] = at
	}
	at.add(b)
	d.size++
}

func (d *directMatcher) remove(key string, b *binding) bool {
	at := d.bags[key]
	if at == nil || !at.remove(b) {
		return false
	}
	d.size--
	if len(at.list) == 0 {
		delete(d.bags, key)
	}
	return true
}

func (d *directMatcher) match(_ *Message, key string, out []*binding) []*binding {
	if at := d.bags[key]; at != nil {
		return append(out, at.list...)
	}
	return out
}

func (d *directMatcher) all() (out []*binding) {
	for at := range maps.Values(d.bags) {
		out = append(out, at.list...)
	}
	return out
}

func (d *directMatcher) len() int { return d.size }

func (d *directMatcher) near(key string) ([]*binding, bool) {
	if at := d.bags[key]; at != nil {
		return at.list, true
	}
	return nil, true
}

func (d *directMatcher) refuses(exchange, key string) *Error {
	switch {
	case key == "":
		return Errorf(CodeSyntax, "exchange %q is direct: it wants a key, x/%s/KEY", exchange, exchange)
	case topic.HasWildcard(key):
		return Errorf(CodeBadValue, "exchange %q is direct and compares whole keys: + and # in %q match nothing; bind each key, or use a topic exchange", exchange, key)
	}
	return nil
}

// fanoutMatcher takes everything.
type fanoutMatcher struct{ bag }

func (f *fanoutMatcher) add(_ string, b *binding)         { f.bag.add(b) }
func (f *fanoutMatcher) remove(_ string, b *binding) bool { return f.bag.remove(b) }
func (f *fanoutMatcher) refuses(string, string) *Error    { return nil }
func (f *fanoutMatcher) match(_ *Message, _ string, out []*binding) []*binding {
	return append(out, f.list...)
}

// headersMatcher takes what has the headers that a binding asks for.
type headersMatcher struct{ bag }

func (h *headersMatcher) add(_ string, b *binding)         { h.bag.add(b) }
func (h *headersMatcher) remove(_ string, b *binding) bool { return h.bag.remove(b) }
func (h *headersMatcher) refuses(string, string) *Error    { return nil }

func (h *headersMatcher) match(m *Message, _ string, out []*binding) []*binding {
	for _, b := range h.list {
		if b.meets(m) {
			out = append(out, b)
		}
	}
	return out
}

// A bag holds bindings in no order. A large one knows the place of each, so
// that a hundred thousand can leave one by one.
type bag struct {
	list  []*binding
	place map[*binding]int // nil while there are few
}

const smallBag = 8

func (g *bag) all() []*binding { return slices.Clone(g.list) }
func (g *bag) len() int        { return len(g.list) }

func (g *bag) near(string) ([]*binding, bool) { return nil, false }

func (g *bag) add(b *binding) {
	g.list = append(g.list, b)
	switch {
	case g.place != nil:
		g.place[b] = len(g.list) - 1
	case len(g.list) > smallBag:
		g.place = make(map[*binding]int, 2*smallBag)
		for i, b := range g.list {
			g.place[b] = i
		}
	}
}

func (g *bag) remove(b *binding) bool {
	at, there := g.place[b]
	if g.place == nil {
		at = slices.Index(g.list, b)
		there = at >= 0
	}
	if !there {
		return false
	}
	last := len(g.list) - 1
	g.list[at] = g.list[last]
	if g.place != nil {
		g.place[g.list[at]] = at
		delete(g.place, b)
	}
	g.list[last] = nil
	g.list = g.list[:last]
	return true
}
