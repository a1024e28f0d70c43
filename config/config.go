package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
	"github.com/godwitmq/godwit/protocols/line"
	"github.com/godwitmq/godwit/protocols/mqtt"
	"github.com/godwitmq/godwit/protocols/stomp"
	"github.com/godwitmq/godwit/protocols/transport"
)

// A Config is everything an operator may decide. The zero value of a room's
// Options is that room's default.
type Config struct {
	Listeners   map[string]Listener // by name
	Connections transport.Options   // of all listeners together
	MQTT        mqtt.Options
	STOMP       stomp.Options
	Line        line.Options
	HTTP        HTTP
	Limits      core.Limits // of one session
	Topology    core.TopologyLimits
	Store       Store
	VHosts      map[string]VHost `key:"vhosts"`
	Log         Log

	// What the file may say one day, and not today.
	Guard, Plugins, Trace notYet

	file  string
	where map[string]place
}

// A Listener is a port that listens.
type Listener struct {
	Address   string   // host:port; "off": it does not listen
	Protocols []string // which it serves, told apart by their first bytes; empty: all, its namesake first

	VHost string `key:"vhost"` // of who names none; empty: /

	MaxConnections int // open at a time; 0: only the limit of all together

	TLS       notYet
	WebSocket notYet
}

// HTTP is the port that says how the broker is: /healthz and /readyz.
type HTTP struct {
	Address string // host:port; "off": none
}

// Store says where messages are kept.
type Store struct {
	Driver string // badger, or memory: nothing survives the process
	Dir    string // of the data; one process at a time
	Shards int    // 0: as many as CPUs, 2 to 16; never fewer than the data was made with

	Badger badger.Options
}

// Log says what is logged, and how, on standard error.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json, or auto: text on a terminal and else JSON
}

// Protocols are the names a Listener may serve.
var Protocols = []string{"mqtt", "stomp", "line"}

// Off is the address of what shall not listen.
const Off = "off"

// Default is the configuration of a broker that nobody configured: all three
// protocols and HTTP on loopback, data in ./godwit-data.
func Default() Config {
	return Config{
		Listeners: map[string]Listener{
			"mqtt":  {Address: "127.0.0.1:1883"},
			"stomp": {Address: "127.0.0.1:61613"},
			"line":  {Address: "127.0.0.1:7070"},
		},
		HTTP:  HTTP{Address: "127.0.0.1:8080"},
		Store: Store{Driver: "badger", Dir: "godwit-data"},
		Log:   Log{Level: "info", Format: "auto"},
	}
}

// Load reads the file on top of Default and validates the whole. Its error is
// a Faults with everything that is wrong, or says why the file cannot be read.
func Load(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, text)
}

// Parse is Load for a text; file is the name that faults are told with.
func Parse(file string, text []byte) (Config, error) {
	c := Default()
	d := &decoder{file: file, where: map[string]place{}}
	d.document(text, &c)
	c.file, c.where = file, d.where
	faults := append(d.faults, c.check()...)
	return c, faults.orNil()
}

// document decodes the one document of the text.
func (d *decoder) document(text []byte, c *Config) {
	// Duplicate keys are the decoder's to tell, with all the other faults.
	f, err := parser.ParseBytes(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.faults = append(d.faults, syntaxFault(d.file, err))
		return
	}
	var body []ast.Node
	for _, doc := range f.Docs {
		if doc.Body != nil {
			body = append(body, doc.Body)
		}
	}
	switch {
	case len(body) > 1:
		d.fault(body[1], "", "a second document begins here: one file holds one configuration")
	case len(body) == 1:
		d.value(body[0], "", reflect.ValueOf(c).Elem())
	}
}

func syntaxFault(file string, err error) Fault {
	f := Fault{File: file, Text: err.Error()}
	if s, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		f.Text = "not YAML: " + s.Message
		if t := s.Token; t != nil && t.Position != nil {
			f.Line, f.Column = t.Position.Line, t.Position.Column
		}
	}
	return f
}

// Ports are the names of the listeners that listen: the three protocols' own
// first, then the others by name.
func (c *Config) Ports() []string {
	var names []string
	add := func(name string) {
		if l, ok := c.Listeners[name]; ok && l.Address != Off && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range Protocols {
		add(name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		add(name)
	}
	return names
}

// Serves are the protocols of a listener, the one that a silent client is
// taken for first.
func (c *Config) Serves(listener string) []string {
	if own := c.Listeners[listener].Protocols; len(own) > 0 {
		return own
	}
	all := slices.Clone(Protocols)
	if i := slices.Index(all, listener); i > 0 {
		all = slices.Insert(slices.Delete(all, i, i+1), 0, listener)
	}
	return all
}
