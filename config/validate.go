package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/topic"
	"github.com/godwitmq/godwit/persistence/badger"
)

// Validate says everything that is wrong with c, as a Faults, or nil.
func (c *Config) Validate() error {
	return c.check().orNil()
}

// A checker collects what is wrong with the values of a configuration.
type checker struct {
	file   string
	where  map[string]place
	faults Faults
}

func (c *checker) fault(path, format string, args ...any) {
	p := c.where[path]
	c.faults = append(c.faults, Fault{File: c.file, Line: p.line, Column: p.column, Path: path, Text: fmt.Sprintf(format, args...)})
}

func (c *Config) check() Faults {
	k := &checker{file: c.file, where: c.where}
	for _, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		k.listener("listeners."+name, c.Listeners[name])
		if v := c.Listeners[name].VHost; v != "" && v != "/" && !slices.Contains(slices.Collect(maps.Keys(c.VHosts)), v) {
			k.fault("listeners."+name+".vhost", "%q is no virtual host: declare it under vhosts", v)
		}
	}
	k.room("connections", c.Connections.Validate())
	k.room("mqtt", c.MQTT.Validate())
	k.room("stomp", c.STOMP.Validate())
	k.room("line", c.Line.Validate())
	k.address("http.address", c.HTTP.Address)
	if l := c.Limits; l.Unanswered < 0 || l.Subscriptions < 0 || l.LiveMessages < 0 || l.LiveBytes < 0 {
		k.fault("limits", "a limit below 0: leave it out for its default")
	}
	if l := c.Topology; l.Exchanges < 0 || l.Bindings < 0 || l.HeaderBindings < 0 || l.Arguments < 0 {
		k.fault("topology", "a limit below 0: leave it out for its default")
	}
	k.oneOf("store.driver", c.Store.Driver, "badger", "memory")
	if c.Store.Driver == "badger" && c.Store.Dir == "" {
		k.fault("store.dir", "badger needs a directory")
	}
	if c.Store.Shards < 0 || c.Store.Shards > 16 {
		k.fault("store.shards", "%d: want 1 to 16, or 0 for as many as CPUs", c.Store.Shards)
	}
	if p := string(c.Store.Badger.Profile); p != "" {
		k.oneOf("store.badger.profile", p, string(badger.Edge), string(badger.Server))
	}
	k.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	k.oneOf("log.format", c.Log.Format, "auto", "text", "json")
	for _, name := range slices.Sorted(maps.Keys(c.VHosts)) {
		k.vhost("vhosts."+name, name, c.VHosts[name])
	}
	return k.faults
}

// room adds what a room says about its own Options. Each of its sentences
// begins with the field, which tells the line.
func (c *checker) room(path string, err error) {
	if err == nil {
		return
	}
	faults := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		faults = joined.Unwrap()
	}
	for _, f := range faults {
		text := strings.TrimPrefix(f.Error(), path+": ")
		name, rest, _ := strings.Cut(text, " ")
		if at := join(path, snake(strings.TrimSuffix(name, ":"))); c.has(at) {
			c.fault(at, "%s", rest)
			continue
		}
		c.fault(path, "%s", text)
	}
}

func (c *checker) has(path string) bool {
	_, ok := c.where[path]
	return ok
}

func (c *checker) listener(path string, l Listener) {
	c.address(path+".address", l.Address)
	if l.MaxConnections < 0 {
		c.fault(path+".max_connections", "%d: want at least 1, or 0 for no limit of its own", l.MaxConnections)
	}
	for i, p := range l.Protocols {
		at := fmt.Sprintf("%s.protocols[%d]", path, i)
		c.oneOf(at, p, Protocols...)
		if slices.Contains(l.Protocols[:i], p) {
			c.fault(at, "%q is there already", p)
		}
	}
}

func (c *checker) address(path, address string) {
	if address == Off {
		return
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		c.fault(path, "%q: want host:port such as 127.0.0.1:1883, or off", address)
	}
}

func (c *checker) oneOf(path, value string, known ...string) {
	if !slices.Contains(known, value) {
		c.fault(path, "%q is not known: it can be %s", value, strings.Join(known, ", "))
	}
}

func (c *checker) vhost(path, name string, v VHost) {
	c.err(path, core.CheckName(name))
	var exchanges, queues []string
	for i, x := range v.Exchanges {
		exchanges = c.name(fmt.Sprintf("%s.exchanges[%d].name", path, i), x.Name, core.CheckName(x.Name), exchanges)
	}
	exchanges = append(exchanges, core.TopicExchange, core.DirectExchange, core.FanoutExchange, core.HeadersExchange)
	for i, q := range v.Queues {
		at := fmt.Sprintf("%s.queues[%d]", path, i)
		queues = c.name(at+".name", q.Name, core.CheckTopic(q.Name), queues)
		if q.DeadLetter != "" {
			_, err := core.ParseAddress(name, q.DeadLetter)
			c.err(at+".dead_letter", err)
		}
		if q.MaxMessages < 0 || q.MaxBytes < 0 || q.MaxAttempts < 0 {
			c.fault(at, "a limit below 0: leave it out for none")
		}
	}
	for i := range v.Policies {
		c.err(fmt.Sprintf("%s.policies[%d]", path, i), v.Policies[i].Check())
	}
	for i, b := range v.Bindings {
		c.binding(fmt.Sprintf("%s.bindings[%d]", path, i), name, b, queues, exchanges)
	}
	for i, x := range v.Exchanges {
		c.alternate(fmt.Sprintf("%s.exchanges[%d].alternate", path, i), name, x.Alternate, queues, exchanges)
	}
}

// name checks the name of a thing that must not be declared twice; err is
// what core says of its letters.
func (c *checker) name(path, name string, err error, taken []string) []string {
	switch {
	case err != nil:
		c.err(path, err)
	case core.ReservedName(name):
		c.fault(path, "%q: names that begin with $ are the broker's own", name)
	case slices.Contains(taken, name):
		c.fault(path, "%q is declared twice: keep one", name)
	}
	return append(taken, name)
}

func (c *checker) binding(path, vhost string, b Binding, queues, exchanges []string) {
	switch {
	case (b.Queue == "") == (b.Exchange == ""):
		c.fault(path, "a binding has one target: queue or exchange")
	case b.Queue != "" && !slices.Contains(queues, b.Queue):
		c.fault(path+".queue", "%q is no queue of this virtual host: declare it under queues", b.Queue)
	case b.Exchange != "" && !slices.Contains(exchanges, b.Exchange):
		c.fault(path+".exchange", "%q is no exchange of this virtual host: declare it under exchanges", b.Exchange)
	}
	source, err := core.ParseAddress(vhost, b.Source)
	switch {
	case err != nil:
		c.err(path+".source", err)
	case source.Exchange == core.DefaultExchange:
		c.fault(path+".source", "%s: a queue's own address takes no bindings; bind to a topic such as t/plant/+/temp", b.Source)
	case !slices.Contains(exchanges, source.Exchange):
		c.fault(path+".source", "%s: %q is no exchange of this virtual host: declare it under exchanges", b.Source, source.Exchange)
	case source.Exchange == core.TopicExchange && source.Topic != "":
		if fault := topic.Fault(source.Topic, true); fault != "" {
			c.fault(path+".source", "%s: %s", b.Source, fault)
		}
	}
}

func (c *checker) alternate(path, vhost, text string, queues, exchanges []string) {
	if text == "" {
		return
	}
	a, err := core.ParseAddress(vhost, text)
	switch {
	case err != nil:
		c.err(path, err)
	case a.Topic == "" && !slices.Contains(exchanges, a.Exchange):
		c.fault(path, "%q is no exchange of this virtual host: declare it under exchanges", a.Exchange)
	case a.Topic != "" && a.Exchange == core.DefaultExchange && !slices.Contains(queues, a.Topic):
		c.fault(path, "%q is no queue of this virtual host: declare it under queues", a.Topic)
	}
}

// err is fault for an error of core's; nil is none.
func (c *checker) err(path string, err error) {
	if err != nil {
		c.fault(path, "%s", err)
	}
}
