package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"pgregory.net/rapid"

	"github.com/godwitmq/godwit/config"
	"github.com/godwitmq/godwit/core"
)

// runTopology runs one command line against a broker: what it printed, what it
// complained of, and its exit code.
func runTopology(t testing.TB, addr, dir, stdin string, args ...string) string {
	root := &cobra.Command{Use: "godwit", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(newTopologyCommand())
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader(stdin))
	for i, a := range args {
		if _, err := os.Stat(filepath.Join(dir, a)); err == nil && strings.HasSuffix(a, ".yaml") {
			args[i] = filepath.Join(dir, a)
		}
	}
	root.SetArgs(append(args, "--addr", addr))
	err := root.ExecuteContext(t.Context())
	code := 0
	if err != nil {
		code = 1
		text := err.Error()
		if dir != "" {
			text = strings.ReplaceAll(text, dir+"/", "")
		}
		fmt.Fprintln(&out, "godwit:", text)
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		code = exit.code
	}
	if code != 0 {
		fmt.Fprintln(&out, "exit", code)
	}
	return out.String()
}

// testdata/topology.txt is a session at a terminal: "$ godwit ..." and what it
// prints, "exit N" if it fails; "file NAME" and its text up to an empty line;
// "line" and what a client says to the broker itself.
//
// mission: S6
func TestTopologyScript(t *testing.T) {
	script, err := os.ReadFile("testdata/topology.txt")
	if err != nil {
		t.Fatal(err)
	}
	addr, dir := lineBroker(t), t.TempDir()
	for part := range strings.SplitSeq(string(script), "\n\n") {
		head, rest, _ := strings.Cut(strings.Trim(part, "\n"), "\n")
		for strings.HasPrefix(head, "#") {
			head, rest, _ = strings.Cut(rest, "\n")
		}
		words := strings.Fields(head)
		switch {
		case len(words) == 0:
		case words[0] == "file":
			if err := os.WriteFile(filepath.Join(dir, words[1]), []byte(rest+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		case words[0] == "line":
			c := dial(t, addr)
			for said := range strings.Lines(rest) {
				c.say("%s", strings.TrimSpace(said))
				c.expect("OK")
			}
		case words[0] == "$":
			got := runTopology(t, addr, dir, "", words[2:]...)
			if diff := cmp.Diff(strings.Trim(rest, "\n"), strings.Trim(got, "\n")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", head, diff)
			}
		default:
			t.Fatalf("what is %q?", head)
		}
	}
}

// Whatever is declared comes out of an export and goes into another broker as
// the same; applied again it changes nothing.
//
// mission: S6
func TestExportIsImport(t *testing.T) {
	names := []string{"a", "b c", "x/y", "100%", "true", "123", "1e3", "é→", "- x", "#", `"q"`, "a: b", "0x1F", "~", "2030-01-01"}
	kinds := []core.ExchangeKind{core.TopicKind, core.DirectKind, core.FanoutKind, core.HeadersKind}
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom(names)
		v := config.VHost{}
		for _, q := range rapid.SliceOfNDistinct(name, 1, 4, rapid.ID).Draw(rt, "queues") {
			v.Queues = append(v.Queues, core.QueueSpec{
				Name: q, Class: core.Class(rapid.IntRange(0, 2).Draw(rt, "class")), MaxBytes: rapid.Int64Range(0, 3).Draw(rt, "max_bytes"),
				AutoDelete: rapid.Bool().Draw(rt, "auto_delete"),
			})
		}
		for _, x := range rapid.SliceOfNDistinct(name, 1, 4, rapid.ID).Draw(rt, "exchanges") {
			v.Exchanges = append(v.Exchanges, core.ExchangeSpec{
				Name: x, Kind: rapid.SampledFrom(kinds).Draw(rt, "kind"), Internal: rapid.Bool().Draw(rt, "internal"), Transient: rapid.Bool().Draw(rt, "transient"),
			})
		}
		seen := map[string]bool{}
		for range rapid.IntRange(0, 5).Draw(rt, "bindings") {
			x := rapid.SampledFrom(v.Exchanges).Draw(rt, "source")
			a := core.Address{Exchange: x.Name, Topic: name.Draw(rt, "key")}
			if strings.Contains(a.Topic, "#") {
				a.Topic = "k"
			}
			b := config.Binding{Queue: rapid.SampledFrom(v.Queues).Draw(rt, "queue").Name, Source: a.String()}
			if x.Kind == core.HeadersKind {
				b.Match = core.MatchAny
				b.Args = map[string]string{name.Draw(rt, "arg"): name.Draw(rt, "value"), "there": ""}
			}
			if id := fmt.Sprint(b); !seen[id] {
				seen[id] = true
				v.Bindings = append(v.Bindings, b)
			}
		}
		want, err := topologyOf("/", &v, topology{})
		if err != nil {
			rt.Fatal(err)
		}
		text := writeTopology(map[string]topology{"/": want})
		back, err := readTopologyFile(strings.NewReader(text), "-")
		if err != nil {
			rt.Fatalf("%v in\n%s", err, text)
		}
		host := back["/"]
		got, err := topologyOf("/", &host, topology{})
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(topology{}, thing{})); diff != "" || err != nil {
			rt.Fatalf("%v\n%s\nin\n%s", err, diff, text)
		}
	})
}

// Each setting of a queue goes through a file and back, alone and with all
// others, and can be changed by it. Whoever adds a setting adds it here.
//
// mission: S6
func TestEveryQueueSetting(t *testing.T) {
	all := core.QueueSpec{
		Name: "all", Class: core.Async, MaxMessages: 1000, MaxBytes: 1 << 30, Overflow: core.DeadLetter,
		TTL: 36 * time.Hour, MaxAttempts: 5, Backoff: "1s-5m~0.2", Lease: 366 * 24 * time.Hour, DeadLetter: "x/late%20ones/q/all",
		IdleExpiry: 1500 * time.Millisecond, AutoDelete: true, Priorities: 10, MaxWait: time.Minute,
		SingleActive: true, Keyed: true, DedupWindow: 7 * 24 * time.Hour, StoreTransient: true,
	}
	later := []string{"OnArrival", "Spread", "Archive"} // refused with "not supported yet"
	v := reflect.ValueOf(all)
	specs := []core.QueueSpec{all, {Name: "none"}}
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		switch {
		case name == "Name", name == "Owned", slices.Contains(later, name):
			continue
		case v.Field(i).IsZero():
			t.Errorf("QueueSpec.%s is not tested here", name)
		}
		one := core.QueueSpec{Name: name}
		reflect.ValueOf(&one).Elem().Field(i).Set(v.Field(i))
		switch name { // means nothing without the other
		case "Overflow":
			one.DeadLetter = all.DeadLetter
		case "MaxWait":
			one.Priorities = all.Priorities
		}
		specs = append(specs, one)
	}
	want, err := topologyOf("/", &config.VHost{Queues: specs}, topology{})
	if err != nil {
		t.Fatal(err)
	}
	file := writeTopology(map[string]topology{"/": want})
	addr := lineBroker(t)
	apply := func(file string) string { return runTopology(t, addr, "", file, "topology", "apply", "-") }
	if got := apply(file); strings.Count(got, "\n") != len(specs) || strings.Contains(got, "exit") {
		t.Fatalf("apply of\n%s\nsays\n%s", file, got)
	}
	if diff := cmp.Diff(file, runTopology(t, addr, "", "", "topology", "export")); diff != "" {
		t.Errorf("export (-file +export):\n%s", diff)
	}
	if got := runTopology(t, addr, "", file, "topology", "diff", "-"); got != "" {
		t.Errorf("diff says\n%s", got)
	}
	bare := config.VHost{Queues: slices.Clone(specs)}
	for i := range bare.Queues {
		bare.Queues[i] = core.QueueSpec{Name: specs[i].Name, Class: core.Async}
	}
	if want, err = topologyOf("/", &bare, topology{}); err != nil {
		t.Fatal(err)
	}
	other := writeTopology(map[string]topology{"/": want})
	if got := apply(other); strings.Count(got, "~ ") != len(specs)-1 { // Class is as it was
		t.Errorf("altered:\n%s", got)
	}
	if got := apply(file); strings.Count(got, "~ ") != len(specs)-1 {
		t.Errorf("altered back:\n%s", got)
	}
	if diff := cmp.Diff(file, runTopology(t, addr, "", "", "topology", "export")); diff != "" {
		t.Errorf("export of what was altered (-file +export):\n%s", diff)
	}
}

// A file's policies are not a running broker's to take: that is said.
func TestTopologyOfPolicies(t *testing.T) {
	got := runTopology(t, lineBroker(t), "", "vhosts: {/: {queues: [{name: a}], policies: [{match: \"*\", ttl: 5s}]}}", "topology", "apply", "-")
	if !strings.Contains(got, "+ q/a\n") || !strings.Contains(got, "-: policies of virtual host / are left alone") {
		t.Error(got)
	}
}

// A route is changed by a file while messages flow: the publisher notices
// nothing, and the next one goes the new way.
//
// mission: S42
func TestRouteChangedWhileRunning(t *testing.T) {
	addr := lineBroker(t)
	to := func(queue string) string {
		return "vhosts: {/: {exchanges: [{name: in, kind: direct}], queues: [{name: a}, {name: b}], bindings: [{queue: " + queue + ", source: x/in/k}]}}"
	}
	c := dial(t, addr)
	for i, queue := range []string{"a", "b", "a"} {
		if got := runTopology(t, addr, "", to(queue), "topology", "apply", "--prune", "-"); !strings.Contains(got, "+ q/"+queue+" <- x/in/k\n") {
			t.Fatalf("apply:\n%s", got)
		}
		c.say("PUB x/in/k id=%d must 1\nm\nGET q/%s ack=auto", i+1, queue)
		c.expect(fmt.Sprintf("CONFIRM %d", i+1))
		c.expect("MSG 0 ")
		c.expect("m")
		c.expect("END 0 1 why=done")
	}
}

// What was declared is there after kill -9, all of it.
//
// mission: S6
func TestTopologySurvivesKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, dir)
	file, err := os.ReadFile("testdata/topology.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(file), "file one.yaml\n")
	text, _, _ = strings.Cut(text, "\n\n")
	if got := runTopology(t, p.at["line"], "", text, "topology", "apply", "-"); strings.Contains(got, "exit") {
		t.Fatal(got)
	}
	before := runTopology(t, p.at["line"], "", "", "topology", "export")
	p.kill()
	p = start(t, dir)
	if diff := cmp.Diff(before, runTopology(t, p.at["line"], "", "", "topology", "export")); diff != "" {
		t.Error(diff)
	}
	if got := runTopology(t, p.at["line"], "", text, "topology", "apply", "-"); got != "" {
		t.Errorf("applied again it changes\n%s", got)
	}
}

// The page on exchanges tells the truth: its file can be applied, and what it
// says of explain is what explain says.
func TestExchangesPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/exchanges.md")
	if err != nil {
		t.Fatal(err)
	}
	addr := lineBroker(t)
	_, text, _ := strings.Cut(string(page), "```yaml\n")
	text, rest, _ := strings.Cut(text, "```")
	if got := runTopology(t, addr, "", text, "topology", "apply", "-"); strings.Contains(got, "exit") {
		t.Fatal(got)
	}
	_, session, _ := strings.Cut(rest, "```\n")
	session, _, _ = strings.Cut(session, "```")
	c := dial(t, addr)
	for i, line := range strings.Split(strings.Trim(session, "\n"), "\n") {
		if i == 0 {
			c.say("%s", line)
		} else if got := c.hear(); got != line {
			t.Errorf("explain says %q, the page %q", got, line)
		}
	}
}

// The same over two brokers.
func TestExportOfOneBrokerIntoAnother(t *testing.T) {
	old, fresh := lineBroker(t), lineBroker(t)
	c := dial(t, old)
	for _, say := range []string{
		"MK v/east", "MK x/a%2Fb kind=headers", "MK x/main kind=topic alternate=x/rest%20room", "MK q/q%25 max_messages=7 lease=90s", "BIND q/q%25 x/a%2Fb match=any-with-x :a%20b=1%3D :c=",
	} {
		if strings.HasPrefix(say, "MK x/main") {
			c.say("MK x/rest%%20room kind=fanout transient internal")
			c.expect("OK")
		}
		c.say("%s", say)
		c.expect("OK")
	}
	first := runTopology(t, old, "", "", "topology", "export", "--all")
	if got := runTopology(t, fresh, "", first, "topology", "apply", "-"); !strings.Contains(got, "+ q/q%25 <- x/a%2Fb match=any-with-x :a%20b=1= :c=\n") || !strings.Contains(got, "+ v/east\n") {
		t.Errorf("applied:\n%s", got)
	}
	if got := runTopology(t, fresh, "", first, "topology", "apply", "-"); got != "" {
		t.Errorf("applied again it changes\n%s", got)
	}
	if diff := cmp.Diff(first, runTopology(t, fresh, "", "", "topology", "export", "--all")); diff != "" {
		t.Error(diff)
	}
}
