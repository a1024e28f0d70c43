package stomp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// Options are how a listener speaks STOMP. The zero value works.
type Options struct {
	VHost        string    `yaml:"vhost"`         // of who names none that is known; empty: the guard's choice
	StrictHost   bool      `yaml:"strict_host"`   // another host is ERROR 404; else clients write addresses there
	Separator    Separator `yaml:"separator"`     // auto, slash or dot; default auto
	Bare         string    `yaml:"bare"`          // what a destination without a prefix is: topic or queue; default ERROR 404
	StrictQueues bool      `yaml:"strict_queues"` // arguments for a queue that exists with others: ERROR 409; else a warning

	StrictHeartBeat bool   `yaml:"strict_heartbeat"` // on WebSocket too; else 75 s at least: browsers slow down hidden tabs
	HideServer      bool   `yaml:"hide_server"`      // CONNECTED says nothing of us
	ServerVersion   string `yaml:"-"`                // as CONNECTED says it

	Limits Limits `yaml:"limits"`
}

// Limits bound what one connection may ask for. Zero is the default.
type Limits struct {
	Line    int `yaml:"line"`    // octets of a header; 64 KiB, at most 1 MiB
	Headers int `yaml:"headers"` // of a frame; 128, at most 1,024
	Section int `yaml:"section"` // octets of all headers of a frame; 256 KiB, at most 4 MiB
	Body    int `yaml:"body"`    // octets; 16 MiB, at most 256 MiB

	Login         time.Duration `yaml:"login"`          // from the first octet to CONNECTED; 10 s
	Frame         time.Duration `yaml:"frame"`          // for a frame begun, and 1 s more per 64 KiB; 30 s
	Disconnect    time.Duration `yaml:"disconnect"`     // that DISCONNECT waits for receipts owed; 5 s
	Subscriptions int           `yaml:"subscriptions"`  // 1,000
	Receipts      int           `yaml:"receipts"`       // owed: then the client waits; 65,536
	Unacked       int           `yaml:"unacked"`        // deliveries out, all subscriptions together; 65,536
	Prefetch      int           `yaml:"prefetch"`       // deliveries out of a subscription that does not say; 1,000, at most 65,535
	PrefetchBytes int64         `yaml:"prefetch_bytes"` // 4 MiB

	Transactions int           `yaml:"transactions"`  // open; 16
	Ops          int           `yaml:"ops"`           // of a transaction; 10,000
	OpsBytes     int           `yaml:"ops_bytes"`     // of its messages; 16 MiB
	Transaction  time.Duration `yaml:"transaction"`   // how long one may stay open; 60 s
	LiveMessages int64         `yaml:"live_messages"` // in the private queue of an acknowledged topic, then the oldest go; 10,000
	LiveBytes    int64         `yaml:"live_bytes"`    // 64 MiB
}

// Limits before login, where nobody is known yet.
var greetingLimits = wire.Limits{Line: 8 << 10, Headers: 64, Section: 64 << 10, Body: 0}

const (
	greetingBytes = 64 << 10 // of input in all before login
	maxEntering   = 256      // logins that the guard thinks about at once
)

// limit is one of Limits with its bounds.
type limit struct {
	name              string
	value             int64
	set               func(int64)
	standard, maximum int64
}

func (l *Limits) table() []limit {
	number := func(name string, p *int, standard, maximum int64) limit {
		return limit{name, int64(*p), func(n int64) { *p = int(n) }, standard, maximum}
	}
	wide := func(name string, p *int64, standard, maximum int64) limit {
		return limit{name, *p, func(n int64) { *p = n }, standard, maximum}
	}
	span := func(name string, p *time.Duration, standard, maximum time.Duration) limit {
		return limit{name, int64(*p), func(n int64) { *p = time.Duration(n) }, int64(standard), int64(maximum)}
	}
	return []limit{
		number("line", &l.Line, 64<<10, 1<<20),
		number("headers", &l.Headers, 128, 1024),
		number("section", &l.Section, 256<<10, 4<<20),
		number("body", &l.Body, 16<<20, 256<<20),
		span("login", &l.Login, 10*time.Second, time.Hour),
		span("frame", &l.Frame, 30*time.Second, time.Hour),
		span("disconnect", &l.Disconnect, 5*time.Second, time.Minute),
		number("subscriptions", &l.Subscriptions, 1000, 1000),
		number("receipts", &l.Receipts, 65_536, 1<<20),
		number("unacked", &l.Unacked, 65_536, 1<<20),
		number("prefetch", &l.Prefetch, 1000, 65_535),
		wide("prefetch_bytes", &l.PrefetchBytes, 4<<20, 1<<30),
		number("transactions", &l.Transactions, 16, 1024),
		number("ops", &l.Ops, 10_000, 100_000),
		number("ops_bytes", &l.OpsBytes, 16<<20, 256<<20),
		span("transaction", &l.Transaction, time.Minute, time.Hour),
		wide("live_messages", &l.LiveMessages, 10_000, 10_000_000),
		wide("live_bytes", &l.LiveBytes, 64<<20, 16<<30),
	}
}

// Validate names every fault of the options at once.
func (o Options) Validate() error {
	var faults []error
	if !slices.Contains([]Separator{"", "auto", SeparatorSlash, SeparatorDot}, o.Separator) {
		faults = append(faults, fmt.Errorf("separator is %q: want auto, slash or dot", o.Separator))
	}
	if !slices.Contains([]string{"", "topic", "queue"}, o.Bare) {
		faults = append(faults, fmt.Errorf("bare is %q: want topic, queue or nothing", o.Bare))
	}
	for _, l := range o.Limits.table() {
		if l.value < 0 || l.value > l.maximum {
			faults = append(faults, fmt.Errorf("limits.%s is %d: want 0 to %d", l.name, l.value, l.maximum))
		}
	}
	return errors.Join(faults...)
}

// A Protocol makes the handlers of STOMP connections.
type Protocol struct {
	options  Options
	limits   wire.Limits
	build    [numVersions][numStyles]func(*core.Message) []byte
	entering atomic.Int32
	counts   counters
}

const numVersions = int(wire.V12) + 1

var _ protocols.Protocol = (*Protocol)(nil)

// New makes the protocol. Options that Validate refuses are a bug of the
// caller's.
func New(o Options) *Protocol {
	if err := o.Validate(); err != nil {
		panic("bug: stomp.New: " + err.Error())
	}
	if o.Separator == "auto" {
		o.Separator = SeparatorAuto
	}
	for _, l := range o.Limits.table() {
		if l.value == 0 {
			l.set(l.standard)
		}
	}
	p := &Protocol{options: o, limits: wire.Limits{Line: o.Limits.Line, Headers: o.Limits.Headers, Section: o.Limits.Section, Body: o.Limits.Body}}
	for v := range p.build {
		for s := range p.build[v] {
			p.build[v][s] = func(m *core.Message) []byte { return p.buildShared(m, wire.Version(v), style(s)) }
		}
	}
	return p
}

// Name is "stomp".
func (p *Protocol) Name() string { return "stomp" }

// Sniff knows STOMP by line ends, then CONNECT or STOMP, then a line end.
func (p *Protocol) Sniff(prefix []byte) protocols.Match {
	if len(prefix) > 12 {
		prefix = prefix[:12]
	}
	whole := len(prefix) == 12
	rest := strings.TrimLeft(string(prefix), "\r\n")
	for _, command := range []string{frame.CONNECT, frame.STOMP} {
		if behind, ok := strings.CutPrefix(rest, command); ok && behind != "" {
			if behind[0] == '\n' || behind[0] == '\r' {
				return protocols.IsMatch
			}
		} else if !whole && strings.HasPrefix(command, rest) {
			return protocols.NeedMore
		}
	}
	return protocols.NoMatch
}

// Open makes the handler of a new connection.
func (p *Protocol) Open(l protocols.Link, b *core.Broker) protocols.Handler {
	return newHandler(p, l, b)
}

// counters are what happened to what nobody was told of.
type counters struct {
	headersDropped atomic.Int64 // could not be said in the reader's version
	sendsDropped   atomic.Int64 // without a receipt, refused for the moment
	acksIgnored    atomic.Int64 // of what was settled, or needed none
	errors         atomic.Int64 // ERRORs said
}

// Counters are the protocol's figures, all connections together.
func (p *Protocol) Counters() []core.Field {
	field := func(name string, n *atomic.Int64) core.Field {
		return core.Field{Name: name, Value: fmt.Sprint(n.Load())}
	}
	return []core.Field{
		field("headers_dropped", &p.counts.headersDropped),
		field("sends_dropped", &p.counts.sendsDropped),
		field("acks_ignored", &p.counts.acksIgnored),
		field("errors", &p.counts.errors),
	}
}
