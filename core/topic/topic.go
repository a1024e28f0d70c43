// Package topic matches topic names against filters. It is pure: it knows
// nothing of brokers.
//
// A topic is a list of levels separated by '/'. In a filter the level '+'
// matches exactly one level and '#' zero or more, so "a/#" matches "a", "a/b"
// and "a/b/c", and "a/#/z" matches "a/z" and "a/b/z". A filter that begins
// with a wildcard does not match a topic that begins with '$'
// [MQTT-4.7.2-1]. Adapters translate their own separators and wildcards into
// these before they knock on the broker's door.
package topic

import "strings"

// Match says whether the filter matches the name. It is the plain reference
// for Trie, and what to use for one filter.
func Match(filter, name string) bool {
	if name != "" && name[0] == '$' && filter != "" && (filter[0] == '+' || filter[0] == '#') && wild(first(filter)) {
		return false
	}
	return match(filter, true, name, true)
}

func first(s string) string {
	level, _, _ := strings.Cut(s, "/")
	return level
}

func wild(level string) bool { return level == "+" || level == "#" }

func match(filter string, moreFilter bool, name string, moreName bool) bool {
	for moreFilter {
		level, rest, more := strings.Cut(filter, "/")
		if level == "#" {
			return matchDeep(rest, more, name, moreName)
		}
		if !moreName {
			return false
		}
		word, restName, moreWords := strings.Cut(name, "/")
		if level != "+" && level != word {
			return false
		}
		filter, moreFilter, name, moreName = rest, more, restName, moreWords
	}
	return !moreName
}

// matchDeep matches what follows a '#': nothing, or each suffix of the name.
// Consecutive '#' are one, and a later '#' takes over for good, so the time is
// bounded by filter times name.
func matchDeep(filter string, more bool, name string, moreName bool) bool {
	for more && first(filter) == "#" {
		_, filter, more = strings.Cut(filter, "/")
	}
	if !more {
		return true
	}
	for {
		if ok, decided := matchUntilDeep(filter, name, moreName); ok || decided {
			return ok
		}
		if !moreName {
			return false
		}
		_, name, moreName = strings.Cut(name, "/")
	}
}

// matchUntilDeep matches the levels up to the next '#' here. If they match
// and a '#' follows, the earliest such place decides: any later place leaves
// less of the name.
func matchUntilDeep(filter, name string, moreName bool) (ok, decided bool) {
	more := true
	for more {
		level, rest, next := strings.Cut(filter, "/")
		if level == "#" {
			return matchDeep(rest, next, name, moreName), true
		}
		if !moreName {
			return false, false
		}
		word, restName, moreWords := strings.Cut(name, "/")
		if level != "+" && level != word {
			return false, false
		}
		filter, more, name, moreName = rest, next, restName, moreWords
	}
	return !moreName, false
}

// HasWildcard says whether a level of the filter is '+' or '#'.
func HasWildcard(filter string) bool {
	for level := range strings.SplitSeq(filter, "/") {
		if wild(level) {
			return true
		}
	}
	return false
}

// Fault says what is wrong with a filter; "" is nothing. Adapters whose
// protocol allows '#' at the end alone ask with deep false.
func Fault(filter string, deep bool) string {
	if filter == "" {
		return "a filter cannot be empty"
	}
	ended := false
	for level := range strings.SplitSeq(filter, "/") {
		if ended && !deep {
			return "# must be the last level of a filter"
		}
		if level == "#" {
			ended = true
			continue
		}
		if level != "+" && strings.ContainsAny(level, "+#") {
			return "+ and # must be whole levels of a filter"
		}
	}
	return ""
}

// A Trie holds values under filters. The zero value is ready to use. It is not
// safe for concurrent use; its owner guards it.
type Trie[V comparable] struct {
	root node[V]
	deep int // filters with a '#' before their end
	size int
}

type node[V comparable] struct {
	next   map[string]*node[V]
	values []V
}

// Len is how many values the trie holds.
func (t *Trie[V]) Len() int { return t.size }

// All lists every value, in no order.
func (t *Trie[V]) All() []V { return t.root.all(nil) }

func (n *node[V]) all(out []V) []V {
	out = append(out, n.values...)
	for _, child := range n.next {
		out = child.all(out)
	}
	return out
}

// At returns the values under exactly this filter; the slice is the trie's own.
func (t *Trie[V]) At(filter string) []V {
	n := &t.root
	for level := range strings.SplitSeq(filter, "/") {
		if n = n.next[level]; n == nil {
			return nil
		}
	}
	return n.values
}

// Add puts v under the filter.
func (t *Trie[V]) Add(filter string, v V) {
	n := &t.root
	for level := range strings.SplitSeq(filter, "/") {
		child := n.next[level]
		if child == nil {
			child = new(node[V])
			if n.next == nil {
				n.next = make(map[string]*node[V], 1)
			}
			n.next[level] = child
		}
		n = child
	}
	n.values = append(n.values, v)
	t.size++
	if isDeep(filter) {
		t.deep++
	}
}

func isDeep(filter string) bool {
	return strings.HasPrefix(filter, "#/") || strings.Contains(filter, "/#/")
}

// Remove takes v from under the filter, once, prunes the branch that it leaves
// empty, and says whether v was there.
func (t *Trie[V]) Remove(filter string, v V) bool {
	if !t.root.remove(filter, v) {
		return false
	}
	t.size--
	if isDeep(filter) {
		t.deep--
	}
	return true
}

func (n *node[V]) remove(filter string, v V) (found bool) {
	level, rest, more := strings.Cut(filter, "/")
	child := n.next[level]
	if child == nil {
		return false
	}
	if more {
		found = child.remove(rest, v)
	} else {
		for i := range child.values {
			if child.values[i] == v {
				child.values = append(child.values[:i], child.values[i+1:]...)
				found = true
				break
			}
		}
	}
	if len(child.values) == 0 && len(child.next) == 0 {
		delete(n.next, level)
	}
	return found
}

// Match appends to out the values of every filter that matches name: each
// value once for each of its filters.
func (t *Trie[V]) Match(name string, out []V) []V {
	dollar := name != "" && name[0] == '$'
	if t.deep > 0 {
		seen := make(map[visit[V]]bool)
		return t.root.matchDeep(name, true, dollar, seen, out)
	}
	return t.root.match(name, true, dollar, out)
}

// match walks a trie whose '#' all stand last. dollar holds for the first
// level alone.
func (n *node[V]) match(name string, more, dollar bool, out []V) []V {
	if len(n.next) > 0 && !dollar {
		if rest := n.next["#"]; rest != nil {
			out = append(out, rest.values...)
		}
	}
	if !more {
		return append(out, n.values...)
	}
	if len(n.next) == 0 {
		return out
	}
	level, name, more := strings.Cut(name, "/")
	if !wild(level) { // a name cannot hold wildcards; a hostile one matches only as text
		if child := n.next[level]; child != nil {
			out = child.match(name, more, false, out)
		}
	}
	if !dollar {
		if child := n.next["+"]; child != nil {
			out = child.match(name, more, false, out)
		}
	}
	return out
}

// A visit is a node met with so much of the name left. '#' in the middle can
// meet the same one on many ways; once is enough.
type visit[V comparable] struct {
	n    *node[V]
	left int
	more bool
	in   bool // inside a '#'
}

func (n *node[V]) matchDeep(name string, more, dollar bool, seen map[visit[V]]bool, out []V) []V {
	v := visit[V]{n, len(name), more, false}
	if seen[v] {
		return out
	}
	seen[v] = true
	if deep := n.next["#"]; deep != nil && !dollar {
		out = deep.swallow(name, more, seen, out)
	}
	if !more {
		return append(out, n.values...)
	}
	level, rest, moreRest := strings.Cut(name, "/")
	if !wild(level) {
		if child := n.next[level]; child != nil {
			out = child.matchDeep(rest, moreRest, false, seen, out)
		}
	}
	if child := n.next["+"]; child != nil && !dollar {
		out = child.matchDeep(rest, moreRest, false, seen, out)
	}
	return out
}

// swallow goes on behind a '#' with each suffix of the name. The values of the
// '#' itself count once, for the empty suffix.
func (n *node[V]) swallow(name string, more bool, seen map[visit[V]]bool, out []V) []V {
	for {
		v := visit[V]{n, len(name), more, true}
		if seen[v] {
			return out
		}
		seen[v] = true
		if !more {
			return n.matchDeep("", false, false, seen, out)
		}
		out = n.behind(name, seen, out)
		_, name, more = strings.Cut(name, "/")
	}
}

// behind matches the children of a '#' node at a suffix that has a level left.
func (n *node[V]) behind(name string, seen map[visit[V]]bool, out []V) []V {
	level, rest, more := strings.Cut(name, "/")
	if deep := n.next["#"]; deep != nil {
		out = deep.swallow(name, true, seen, out)
	}
	if !wild(level) {
		if child := n.next[level]; child != nil {
			out = child.matchDeep(rest, more, false, seen, out)
		}
	}
	if child := n.next["+"]; child != nil {
		out = child.matchDeep(rest, more, false, seen, out)
	}
	return out
}
