package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/core"
)

var update = flag.Bool("update", false, "rewrite the golden fault texts")

// without drops what a Config remembers of its file.
func without(c Config) Config {
	c.file, c.where = "", nil
	return c
}

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Errorf("Default().Validate() = %v, want nil", err)
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		sentence string
		text     string
		want     func(c *Config)
	}{
		{"an empty file is the default", "", func(*Config) {}},
		{"so is one of comments alone", "# nothing decided yet\n", func(*Config) {}},
		{"a key without a value changes nothing", "store:\nlimits:\n", func(*Config) {}},
		{"one listener can move while the others stay", "listeners: {mqtt: {address: 127.0.0.1:1884}}", func(c *Config) {
			c.Listeners["mqtt"] = Listener{Address: "127.0.0.1:1884"}
		}},
		{"a listener can be off, and one can be added", `
listeners:
  stomp: {address: off}
  edge: {address: "[::1]:9000", protocols: [line, mqtt]}
`, func(c *Config) {
			c.Listeners["stomp"] = Listener{Address: Off}
			c.Listeners["edge"] = Listener{Address: "[::1]:9000", Protocols: []string{"line", "mqtt"}}
		}},
		{"sizes and numbers", "limits: {live_bytes: 64MiB, unanswered: 2_048}", func(c *Config) {
			c.Limits = core.Limits{LiveBytes: 64 << 20, Unanswered: 2048}
		}},
		{"each room's options by the names of their fields", `
mqtt: {packet_max: 2MiB, session_expiry_max: 30d}
stomp: {bare: queue, limits: {body: 1MiB}}
line: {max_line: 8KiB}
connections: {max_connections: 10, write_timeout: 5s}
`, func(c *Config) {
			c.MQTT.PacketMax, c.MQTT.SessionExpiryMax = 2<<20, 30*24*time.Hour
			c.STOMP.Bare, c.STOMP.Limits.Body = "queue", 1<<20
			c.Line.MaxLine = 8 << 10
			c.Connections.MaxConnections, c.Connections.WriteTimeout = 10, 5*time.Second
		}},
		{"queues have core's options by core's names", `
vhosts:
  /:
    queues:
      - name: readings
        class: async
        max_messages: 1000
        overflow: drop_oldest
        ttl: 7d
        lease: 90s
        dead_letter: q/dead
        deliver: on_arrival
        single_active: true
      - {name: dead}
    bindings:
      - {queue: readings, source: t/plant/+/temp, only: durable}
    policies:
      - {match: $mqtt/*, max_messages: 10000, overflow: drop_oldest, dead_letter: q/missed}
`, func(c *Config) {
			c.VHosts = map[string]VHost{"/": {
				Queues: []core.QueueSpec{{
					Name: "readings", Class: core.Async, MaxMessages: 1000, Overflow: core.DropOldest, TTL: 7 * 24 * time.Hour,
					Lease: 90 * time.Second, DeadLetter: "q/dead", OnArrival: true, SingleActive: true,
				}, {Name: "dead"}},
				Bindings: []Binding{{Queue: "readings", Source: "t/plant/+/temp", Only: core.Durable}},
				Policies: []core.Policy{{Match: "$mqtt/*", MaxMessages: 10_000, Overflow: core.DropOldest, DeadLetter: "q/missed"}},
			}}
		}},
		{"exchanges, and what is bound to them", `
topology: {exchanges: 10}
vhosts:
  /:
    exchanges:
      - {name: jobs, kind: direct, alternate: x/rest}
      - {name: rest, kind: fanout, internal: true, transient: true, auto_delete: true}
    queues: [{name: a}]
    bindings:
      - {queue: a, source: x/rest}
      - {exchange: rest, source: x/jobs/red}
      - queue: a
        source: x/amq.headers
        match: any
        args: {kind: pdf, urgent: ""}
`, func(c *Config) {
			c.Topology.Exchanges = 10
			c.VHosts = map[string]VHost{"/": {
				Exchanges: []core.ExchangeSpec{
					{Name: "jobs", Kind: core.DirectKind, Alternate: "x/rest"},
					{Name: "rest", Kind: core.FanoutKind, Internal: true, Transient: true, AutoDelete: true},
				},
				Queues: []core.QueueSpec{{Name: "a"}},
				Bindings: []Binding{
					{Queue: "a", Source: "x/rest"},
					{Exchange: "rest", Source: "x/jobs/red"},
					{Queue: "a", Source: "x/amq.headers", Match: core.MatchAny, Args: map[string]string{"kind": "pdf", "urgent": ""}},
				},
			}}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.sentence, func(t *testing.T) {
			got, err := Parse("godwit.yaml", []byte(tt.text))
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			want := Default()
			tt.want(&want)
			if diff := cmp.Diff(want, without(got), cmp.AllowUnexported(Config{}, Listener{}, VHost{}, notYet{})); diff != "" {
				t.Errorf("Parse (-want +got):\n%s", diff)
			}
		})
	}
}

// Each testdata/NAME.yaml is wrong in the ways that NAME.faults says.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata/*.yaml: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(file), text)
			if err == nil {
				t.Fatal("Parse found nothing wrong")
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".faults"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFaultsAreTyped(t *testing.T) {
	_, err := Parse("x.yaml", []byte("stroe: {}\n"))
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Line != 1 || faults[0].Path != "stroe" {
		t.Errorf("Parse = %#v, want one Fault at line 1, path stroe", err)
	}
}

func TestLoadSaysThatAFileIsMissing(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load = %v, want os.ErrNotExist: a missing file never starts a default broker", err)
	}
}

func TestValidateWithoutAFile(t *testing.T) {
	c := Default()
	c.Listeners["mqtt"] = Listener{Address: "1883"}
	c.Store.Driver = "sqlite"
	want := `listeners.mqtt.address: "1883": want host:port such as 127.0.0.1:1883, or off
store.driver: "sqlite" is not known: it can be badger, memory`
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("Validate() =\n%v\nwant\n%s", err, want)
	}
}

func TestPortsAndWhatTheyServe(t *testing.T) {
	c := Default()
	c.Listeners["stomp"] = Listener{Address: Off}
	c.Listeners["edge"] = Listener{Address: "127.0.0.1:9000", Protocols: []string{"line"}}
	if diff := cmp.Diff([]string{"mqtt", "line", "edge"}, c.Ports()); diff != "" {
		t.Errorf("Ports (-want +got):\n%s", diff)
	}
	for name, want := range map[string][]string{
		"mqtt": {"mqtt", "stomp", "line"},
		"line": {"line", "mqtt", "stomp"},
		"edge": {"line"},
	} {
		if diff := cmp.Diff(want, c.Serves(name)); diff != "" {
			t.Errorf("Serves(%q) (-want +got):\n%s", name, diff)
		}
	}
}

// What only the program gives a room is no key.
func TestProgramsOwnFieldsAreNoKeys(t *testing.T) {
	for _, text := range []string{"connections: {broker: 1}", "connections: {log: 1}", "line: {server: x}"} {
		if _, err := Parse("x.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "no such key") {
			t.Errorf("%s: %v, want no such key", text, err)
		}
	}
}

func TestChanges(t *testing.T) {
	v := VHost{
		Queues:   []core.QueueSpec{{Name: "readings"}},
		Bindings: []Binding{{Queue: "readings", Source: "t/plant/+/temp"}},
	}
	got, err := v.Changes("/")
	if err != nil {
		t.Fatal(err)
	}
	want := []core.Change{
		{Do: core.Alter, Queue: &core.QueueSpec{Name: "readings"}},
		{Do: core.Alter, Binding: &core.BindingSpec{Queue: "readings", Source: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "plant/+/temp"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Changes (-want +got):\n%s", diff)
	}
}

func TestSnake(t *testing.T) {
	for name, want := range map[string]string{
		"MaxBytes": "max_bytes", "TTL": "ttl", "HTTP": "http", "MQTT": "mqtt", "MaxQoS": "max_qos", "QoS": "qos",
		"IdleExpiry": "idle_expiry", "TLSConfig": "tls_config", "Version5": "version5",
	} {
		if got := snake(name); got != want {
			t.Errorf("snake(%q) = %q, want %q", name, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "store: {driver: memory}", "listeners:\n  mqtt:\n    address: off\n", "a: 1\na: 2\n", "- 1\n", "? x\n: y\n",
		"vhosts: {/: {queues: [{name: a}], bindings: [{queue: a, source: t/#}]}}", "x: &a 1\ny: *a\n", "\x00", "store: !!map {}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := Parse("f.yaml", text)
		var faults Faults
		if err != nil && !errors.As(err, &faults) {
			t.Errorf("Parse gave %T, want Faults: %v", err, err)
		}
	})
}
