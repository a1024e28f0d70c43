package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"

	"github.com/godwitmq/godwit/core"
)

// A decoder walks the tree of a YAML document beside the structs it fills. It
// goes on after a fault, so that one run names them all.
//
// goccy's own decoder is strict too, but stops at the first fault, wants a tag
// on every field of every room, and knows neither sizes nor days.
type decoder struct {
	file   string
	faults Faults
	where  map[string]place // of each key that the file has
}

type place struct{ line, column int }

// notYet is the type of what the file may say one day: anything there is a fault.
type notYet struct{}

var (
	durationType = reflect.TypeFor[time.Duration]()
	notYetType   = reflect.TypeFor[notYet]()
)

// words are the values of the enumerations, in the order of their numbers.
var words = map[reflect.Type][]string{
	reflect.TypeFor[core.Class]():        {"fsync", "async", "memory"},
	reflect.TypeFor[core.Overflow]():     {"reject", "drop_oldest", "dead_letter"},
	reflect.TypeFor[core.ExchangeKind](): {"topic", "direct", "fanout", "headers"},
	reflect.TypeFor[core.Match]():        {"all", "any", "all-with-x", "any-with-x"},
	reflect.TypeFor[core.Only]():         {"all", "transient", "durable"},
}

// A rule is how one field of another room is called in the file, where its
// own name in snake case is not it.
type rule struct {
	key  string   // "": not in the file
	bool []string // the words for false and true
}

var rules = map[reflect.Type]map[string]rule{
	reflect.TypeFor[core.QueueSpec](): {
		"OnArrival": {key: "deliver", bool: []string{"durable", "on_arrival"}},
		"Owned":     {},
	},
}

// A field is a key of a mapping and where its value goes.
type field struct {
	key   string
	index int
	bool  []string
}

// fields lists what of a struct can stand in the file.
func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() || !fits(f.Type) {
			continue
		}
		key, r := snake(f.Name), rules[t][f.Name]
		if _, ok := rules[t][f.Name]; ok {
			key = r.key
		}
		for _, tag := range []string{"yaml", "key"} {
			if name, _, _ := strings.Cut(f.Tag.Get(tag), ","); name != "" {
				key = name
			}
		}
		if key != "" && key != "-" {
			out = append(out, field{key, i, r.bool})
		}
	}
	return out
}

// fits says whether a value of that type can be written in a file: a clock or
// a logger among a room's Options is given to it by the program alone.
func fits(t reflect.Type) bool {
	switch t.Kind() { //nolint:exhaustive // all others fit
	case reflect.Func, reflect.Interface, reflect.Pointer, reflect.Chan, reflect.UnsafePointer:
		return false
	case reflect.Slice, reflect.Array:
		return fits(t.Elem())
	case reflect.Map:
		return t.Key().Kind() == reflect.String && fits(t.Elem())
	}
	return t != reflect.TypeFor[time.Time]()
}

// snake is a Go name as the file writes it: MaxBytes is max_bytes, TTL is ttl.
func snake(name string) string {
	var b strings.Builder
	letters := []rune(name)
	for i, r := range letters {
		if i > 0 && unicode.IsUpper(r) {
			after := unicode.IsLower(letters[i-1]) || unicode.IsDigit(letters[i-1])
			before := i+1 < len(letters) && unicode.IsLower(letters[i+1])
			if (after || before) && !strings.HasSuffix(string(letters[:i]), "Qo") {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func (d *decoder) fault(n ast.Node, path, format string, args ...any) {
	p := placeOf(n)
	d.faults = append(d.faults, Fault{File: d.file, Line: p.line, Column: p.column, Path: path, Text: fmt.Sprintf(format, args...)})
}

func placeOf(n ast.Node) place {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		n = m.Values[0]
	}
	if v, ok := n.(*ast.MappingValueNode); ok {
		n = v.Key
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return place{t.Position.Line, t.Position.Column}
	}
	return place{}
}

// value puts what n says into the value at path. An empty value changes nothing.
func (d *decoder) value(n ast.Node, path string, into reflect.Value) {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		d.fault(n, path, "anchors, aliases and tags are not supported: write the value out")
		return
	}
	switch t := into.Type(); {
	case t == notYetType:
		d.fault(n, path, "not supported yet")
	case t == durationType:
		d.duration(n, path, into)
	case words[t] != nil:
		d.word(n, path, words[t], func(i int) { into.SetUint(uint64(i)) })
	default:
		d.plain(n, path, into)
	}
}

// plain is value for the kinds of Go itself.
func (d *decoder) plain(n ast.Node, path string, into reflect.Value) {
	switch into.Kind() { //nolint:exhaustive // fits has refused the others
	case reflect.Struct:
		d.object(n, path, into)
	case reflect.Map:
		d.table(n, path, into)
	case reflect.Slice:
		d.list(n, path, into)
	case reflect.String:
		if s, ok := scalar(n); ok {
			into.SetString(s)
			return
		}
		d.fault(n, path, "want a text")
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			into.SetBool(b.Value)
			return
		}
		d.fault(n, path, "want true or false, not %s", quoted(n))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		d.number(n, path, into)
	case reflect.Float32, reflect.Float64:
		s, _ := scalar(n)
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			d.fault(n, path, "want a number, not %s", quoted(n))
			return
		}
		into.SetFloat(f)
	default:
		panic("bug: no rule for " + into.Type().String() + " in a configuration")
	}
}

// object fills a struct from a mapping.
func (d *decoder) object(n ast.Node, path string, into reflect.Value) {
	known := fields(into.Type())
	keys := make([]string, len(known))
	for i, f := range known {
		keys[i] = f.key
	}
	for _, v := range d.mapping(n, path) {
		at := join(path, v.name)
		found := -1
		for i, k := range keys {
			if k == v.name {
				found = i
			}
		}
		if found < 0 {
			d.fault(v.node, at, "no such key: %s", suggest(v.name, keys))
			continue
		}
		f := known[found]
		if f.bool != nil {
			d.word(v.node.Value, at, f.bool, func(i int) { into.Field(f.index).SetBool(i == 1) })
			continue
		}
		d.value(v.node.Value, at, into.Field(f.index))
	}
}

// table fills a map; what it has already under a key is kept where the file
// says nothing else.
func (d *decoder) table(n ast.Node, path string, into reflect.Value) {
	if into.IsNil() {
		into.Set(reflect.MakeMap(into.Type()))
	}
	for _, v := range d.mapping(n, path) {
		elem := reflect.New(into.Type().Elem()).Elem()
		key := reflect.ValueOf(v.name)
		if old := into.MapIndex(key); old.IsValid() {
			elem.Set(old)
		}
		d.value(v.node.Value, join(path, v.name), elem)
		into.SetMapIndex(key, elem)
	}
}

// list fills a slice, in place of what it held.
func (d *decoder) list(n ast.Node, path string, into reflect.Value) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fault(n, path, "want a list")
		return
	}
	out := reflect.MakeSlice(into.Type(), len(s.Values), len(s.Values))
	for i, v := range s.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.where[at] = placeOf(v)
		d.value(v, at, out.Index(i))
	}
	into.Set(out)
}

// A pair is a key of a mapping and its value.
type pair struct {
	name string
	node *ast.MappingValueNode
}

// mapping lists the pairs of a mapping, each key once.
func (d *decoder) mapping(n ast.Node, path string) []pair {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		d.fault(n, path, "want keys and values")
		return nil
	}
	var out []pair
	seen := map[string]bool{}
	for _, v := range values {
		name, ok := scalar(v.Key)
		if !ok {
			d.fault(v, path, "a key must be a text")
			continue
		}
		at := join(path, name)
		if seen[name] {
			d.fault(v, at, "stands here twice, first in line %d: keep one", d.where[at].line)
			continue
		}
		seen[name] = true
		d.where[at] = placeOf(v)
		out = append(out, pair{name, v})
	}
	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// scalar is the text of a node that is no list and no mapping.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// quoted is what a fault says about a value that is of the wrong kind.
func quoted(n ast.Node) string {
	if s, ok := scalar(n); ok {
		return strconv.Quote(s)
	}
	return "a list or keys"
}

func (d *decoder) word(n ast.Node, path string, known []string, set func(int)) {
	s, _ := scalar(n)
	for i, w := range known {
		if w == s {
			set(i)
			return
		}
	}
	d.fault(n, path, "%q is not known: it can be %s", s, strings.Join(known, ", "))
}

// number reads whole numbers, and sizes: 64KiB, 8MiB, 2GiB.
func (d *decoder) number(n ast.Node, path string, into reflect.Value) {
	s, _ := scalar(n)
	v, err := parseSize(s)
	if err != nil {
		d.fault(n, path, "want a whole number, or a size such as 64KiB, 8MiB or 2GiB, not %s", quoted(n))
		return
	}
	if into.CanInt() && !into.OverflowInt(v) {
		into.SetInt(v)
		return
	}
	if into.CanUint() && v >= 0 && !into.OverflowUint(uint64(v)) {
		into.SetUint(uint64(v))
		return
	}
	d.fault(n, path, "%d is out of range", v)
}

func parseSize(s string) (int64, error) {
	unit := int64(1)
	for suffix, n := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		if head, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = strings.TrimSpace(head), n
			break
		}
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
	if err != nil {
		return 0, err
	}
	if v > math.MaxInt64/unit || v < math.MinInt64/unit {
		return 0, strconv.ErrRange
	}
	return v * unit, nil
}

func (d *decoder) duration(n ast.Node, path string, into reflect.Value) {
	s, _ := scalar(n)
	v, err := parseDuration(s)
	if err != nil {
		d.fault(n, path, "want a duration with its unit, such as 500ms, 30s, 12h or 7d, not %s", quoted(n))
		return
	}
	into.SetInt(int64(v))
}

// parseDuration is time.ParseDuration with days.
func parseDuration(s string) (time.Duration, error) {
	if head, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.ParseUint(head, 10, 16)
		return time.Duration(days) * 24 * time.Hour, err
	}
	v, err := time.ParseDuration(s)
	if err == nil && v < 0 {
		return 0, strconv.ErrRange
	}
	return v, err
}
