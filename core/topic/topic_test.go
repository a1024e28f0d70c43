package topic

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// mission: S5
func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		filter, name string
		want         bool
		why          string
	}{
		{"a/b", "a/b", true, "the same"},
		{"a/b", "a", false, "shorter"},
		{"a/b", "a/b/c", false, "longer"},
		{"a/+", "a/b", true, "one level"},
		{"a/+", "a", false, "+ wants a level"},
		{"a/+", "a/", true, "an empty level is a level"},
		{"a/+", "a/b/c", false, "+ is one level"},
		{"a/#", "a", true, "# matches the parent"},
		{"a/#", "a/b/c", true, "# matches many"},
		{"#", "a", true, "all"},
		{"+/+", "/x", true, "the first level is empty"},
		{"+", "", true, "the empty topic has one level"},
		{"#", "$SYS/x", false, "a leading # does not match $"},
		{"+/x", "$SYS/x", false, "a leading + does not match $"},
		{"$SYS/#", "$SYS/x", true, "named, it does"},
		{"a/+", "a/$b", true, "$ counts at the start alone"},
		{"a/#/z", "a/z", true, "# in the middle: none"},
		{"a/#/z", "a/b/c/z", true, "# in the middle: two"},
		{"a/#/z", "a/b/c", false, "the end is missing"},
		{"#/z", "a/z", true, "# at the start"},
		{"#/b/#/d", "a/b/b/c/d", true, "two of them"},
		{"#/#", "", true, "## is #"},
		{"a+", "a+", true, "+ inside a level is text"},
	} {
		if got := Match(tt.filter, tt.name); got != tt.want {
			t.Errorf("%s: Match(%q, %q) = %v, want %v", tt.why, tt.filter, tt.name, got, tt.want)
		}
		var trie Trie[int]
		trie.Add(tt.filter, 1)
		if got := len(trie.Match(tt.name, nil)) == 1; got != tt.want {
			t.Errorf("%s: trie: %q matches %q = %v, want %v", tt.why, tt.filter, tt.name, got, tt.want)
		}
		if !trie.Remove(tt.filter, 1) || len(trie.root.next) != 0 || trie.Len() != 0 || trie.deep != 0 {
			t.Errorf("%q left branches behind: %v", tt.filter, trie.root.next)
		}
	}
}

func TestFault(t *testing.T) {
	for _, tt := range []struct {
		filter string
		deep   bool
		ok     bool
	}{
		{"a/+/b", false, true},
		{"a/#", false, true},
		{"#", false, true},
		{"a/#/b", false, false},
		{"a/#/b", true, true},
		{"a/b+", true, false},
		{"a/b#", true, false},
		{"", true, false},
	} {
		if got := Fault(tt.filter, tt.deep) == ""; got != tt.ok {
			t.Errorf("Fault(%q, deep %v) says fine = %v, want %v", tt.filter, tt.deep, got, tt.ok)
		}
	}
}

// The trie finds what the plain matcher finds, each filter once.
//
// mission: S5
func TestTrieAgainstMatch(t *testing.T) {
	levels := rapid.SampledFrom([]string{"a", "b", "", "+", "#", "$s"})
	names := rapid.SampledFrom([]string{"a", "b", "", "$s"})
	join := func(parts []string) string {
		s := parts[0]
		for _, p := range parts[1:] {
			s += "/" + p
		}
		return s
	}
	rapid.Check(t, func(t *rapid.T) {
		filters := rapid.SliceOfN(rapid.Map(rapid.SliceOfN(levels, 1, 5), join), 1, 12).Draw(t, "filters")
		name := rapid.Map(rapid.SliceOfN(names, 1, 6), join).Draw(t, "name")
		var trie Trie[int]
		var want []int
		for i, f := range filters {
			trie.Add(f, i)
			if Match(f, name) {
				want = append(want, i)
			}
		}
		got := trie.Match(name, nil)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%q in %q: trie says %v, plain says %v", name, filters, got, want)
		}
		for i, f := range filters {
			if !trie.Remove(f, i) {
				t.Fatalf("Remove(%q) found nothing", f)
			}
		}
		if len(trie.root.next) != 0 || trie.deep != 0 || trie.Len() != 0 {
			t.Fatalf("branches left: %v", trie.root.next)
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("a/+/c", "a/b/c")
	f.Add("#/a/#/#", "a/a/a/a")
	f.Add("+", "#")
	f.Fuzz(func(t *testing.T, filter, name string) {
		if slices.ContainsFunc([]string{"+", "#"}, func(w string) bool {
			return slices.Contains(split(name), w)
		}) {
			return // not a name
		}
		var trie Trie[int]
		trie.Add(filter, 1)
		if got, want := len(trie.Match(name, nil)) == 1, Match(filter, name); got != want {
			t.Fatalf("trie %v, plain %v", got, want)
		}
		trie.Remove(filter, 1)
		if got := trie.Match(name, nil); len(got) != 0 {
			t.Fatalf("after Remove(%q): %v", filter, got)
		}
	})
}

func split(s string) (out []string) {
	for {
		i := slices.Index([]byte(s), '/')
		if i < 0 {
			return append(out, s)
		}
		out, s = append(out, s[:i]), s[i+1:]
	}
}

func BenchmarkMatch(b *testing.B) {
	var trie Trie[int]
	for i := range 1000 {
		trie.Add("site/"+string(rune('a'+i%26))+"/+/"+string(rune('a'+i/26)), i)
	}
	var out []int
	b.ReportAllocs()
	for b.Loop() {
		out = trie.Match("site/c/x/d", out[:0])
	}
}
