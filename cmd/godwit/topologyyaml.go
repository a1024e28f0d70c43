package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/godwitmq/godwit/core"
)

// writeTopology is the YAML of virtual hosts, as the configuration reads it:
// sorted, so that two exports of the same differ in nothing.
func writeTopology(hosts map[string]topology) string {
	var y strings.Builder
	y.WriteString("vhosts:\n")
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		t := hosts[name]
		y.WriteString("  " + scalar(name) + ":")
		if len(t.exchanges)+len(t.queues)+len(t.bindings) == 0 {
			y.WriteString(" {}\n")
			continue
		}
		y.WriteByte('\n')
		section(&y, "exchanges", t.exchanges, named)
		section(&y, "queues", t.queues, named)
		section(&y, "bindings", t.bindings, bound)
	}
	return y.String()
}

func section(y *strings.Builder, name string, things []thing, pairs func(*thing) []core.Field) {
	if len(things) == 0 {
		return
	}
	y.WriteString("    " + name + ":\n")
	for i := range things {
		var parts []string
		for _, p := range pairs(&things[i]) {
			parts = append(parts, p.Name+": "+p.Value)
		}
		y.WriteString("      - {" + strings.Join(parts, ", ") + "}\n")
	}
}

// named are the keys of an exchange or a queue.
func named(t *thing) []core.Field {
	a, err := core.ParseAddress("", t.name)
	if err != nil {
		panic("bug: the broker names a thing " + t.name)
	}
	name := a.Topic
	if name == "" {
		name = a.Exchange
	}
	out := []core.Field{{Name: "name", Value: scalar(name)}}
	for _, f := range t.settings {
		value := "true"
		if f.Value != "" {
			value = scalar(f.Value)
		}
		out = append(out, core.Field{Name: f.Name, Value: value})
	}
	return out
}

// bound are the keys of a binding.
func bound(t *thing) []core.Field {
	target := named(&thing{name: t.name})[0].Value
	key := "queue"
	if strings.HasPrefix(t.name, "x/") {
		key = "exchange"
	}
	out := []core.Field{{Name: key, Value: target}, {Name: "source", Value: scalar(t.source)}}
	var args []string
	for _, f := range t.settings {
		if name, ok := strings.CutPrefix(f.Name, ":"); ok {
			args = append(args, scalar(name)+": "+scalar(f.Value))
			continue
		}
		out = append(out, core.Field{Name: f.Name, Value: scalar(f.Value)})
	}
	if len(args) > 0 {
		out = append(out, core.Field{Name: "args", Value: "{" + strings.Join(args, ", ") + "}"})
	}
	return out
}

// scalar is a text in YAML: plain where nobody could take it for something
// else, and else as JSON writes it, which YAML reads too.
func scalar(s string) string {
	plain := s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-") == ""
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n", ".inf", "-.inf", "+.inf", ".nan":
		plain = false
	}
	if plain && (s[0] == '-' || s[0] == '+' || s[0] == '.') {
		plain = false
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}
