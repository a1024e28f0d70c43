package core

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A Field is one figure or setting.
type Field struct{ Name, Value string }

// Settings are the options that declare the queue as it is: those that are not
// their default, in the words of the line protocol and the configuration. A
// flag has no value.
func (q *QueueSpec) Settings() []Field { return settingsOf(*q) }

// Settings are the options that declare the exchange as it is; its kind is
// always among them.
func (x *ExchangeSpec) Settings() []Field {
	s := settingsOf(*x)
	if x.Kind == TopicKind {
		s = append([]Field{{"kind", x.Kind.String()}}, s...)
	}
	return s
}

// Settings are the options of the binding; each argument is one whose name
// begins with a colon.
func (b *BindingSpec) Settings() []Field {
	var out []Field
	if b.asks() {
		out = append(out, Field{"match", b.Match.String()})
	}
	for _, a := range b.Args {
		out = append(out, Field{":" + a.Name, a.Value})
	}
	if b.Only != All {
		out = append(out, Field{"only", b.Only.String()})
	}
	return out
}

// settingsOf walks the fields of a spec, so that a new one is never forgotten.
func settingsOf(spec any) (out []Field) {
	v := reflect.ValueOf(spec)
	for i := range v.NumField() {
		name, value := v.Type().Field(i).Name, v.Field(i)
		switch {
		case name == "Name", name == "Owned", value.IsZero():
		case name == "OnArrival":
			out = append(out, Field{"deliver", "on_arrival"})
		default:
			out = append(out, Field{optionName(name), optionValue(value)})
		}
	}
	return out
}

func optionValue(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case bool:
		return ""
	case time.Duration:
		return lapseText(x)
	case fmt.Stringer:
		return x.String()
	}
	return fmt.Sprint(v.Interface())
}

// lapseText is a duration as every protocol reads it: the largest unit that fits.
func lapseText(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}

// optionName is a field's name in snake case: MaxBytes is max_bytes, TTL is ttl.
func optionName(field string) string {
	var b strings.Builder
	for i, r := range field {
		if i > 0 && unicode.IsUpper(r) && unicode.IsLower(rune(field[i-1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
