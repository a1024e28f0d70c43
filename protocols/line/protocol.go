package line

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// Limits of the protocol that nobody can change.
const (
	maxSid         = 999_999_999
	maxSpans       = 256
	maxCredit      = 1_000_000
	maxCreditBytes = 64 << 20
	maxUnsettled   = 65_536 // a connection
	maxLease       = 12 * time.Hour
	maxMillis      = 253_402_300_799_999 // the year 9999

	maxBatchOps   = 10_000
	maxBatchBytes = 16 << 20
	maxBatchTime  = 30 * time.Second

	maxOwedBytes = 16 << 20 // publishes with an id that wait for their CONFIRM
	maxReplies   = 64 << 10 // answers that wait to be written: then the reader stops
	maxStall     = time.Minute

	maxFirstBytes = 8 << 10 // before login
	maxFirstTime  = 10 * time.Second
	maxQuitTime   = 5 * time.Second

	maxErrors     = 20 // of class no
	maxErrorsTime = 10 * time.Second

	defaultWindow = 1000
	defaultBytes  = 4 << 20
	defaultLease  = 30 * time.Second // of GET
)

// Options are what an operator decides. The zero value is the defaults.
type Options struct {
	MaxPayload     int  // octets of a PUB; 0: 1 MiB; at most 64 MiB
	MaxLine        int  // octets of a line without its end; 0: 4 KiB; at most 64 KiB
	Subscriptions  int  // and GET handles, a connection; 0: 1,024; at most 65,536
	Unconfirmed    int  // publishes of a connection that wait for their CONFIRM; 0: 65,536, which is the most
	PlaintextLogin bool // take pass= and token= without TLS from other machines

	Server string `key:"-"` // what HELLO and INFO call us; "": godwit
}

// Validate says everything that is wrong.
func (o Options) Validate() error {
	var all []error
	for _, l := range []struct {
		name      string
		n, lo, hi int
	}{
		{"max_payload", o.MaxPayload, 1, 64 << 20},
		{"max_line", o.MaxLine, 256, 64 << 10},
		{"subscriptions", o.Subscriptions, 1, 65_536},
		{"unconfirmed", o.Unconfirmed, 1, 65_536},
	} {
		if l.n != 0 && (l.n < l.lo || l.n > l.hi) {
			all = append(all, fmt.Errorf("line: %s is %d: use %d to %d, or 0 for the default", l.name, l.n, l.lo, l.hi))
		}
	}
	return errors.Join(all...)
}

func (o Options) complete() Options {
	def := func(n *int, d int) {
		if *n == 0 {
			*n = d
		}
	}
	def(&o.MaxPayload, 1<<20)
	def(&o.MaxLine, 4<<10)
	def(&o.Subscriptions, 1024)
	def(&o.Unconfirmed, 65_536)
	if o.Server == "" {
		o.Server = "godwit"
	}
	return o
}

// A Protocol serves the line protocol, version 1, on any number of connections.
type Protocol struct {
	options  Options
	life     string // of this process: sessions are named after it
	sessions atomic.Uint64
}

var _ protocols.Protocol = (*Protocol)(nil)

// New makes a Protocol of options that are valid.
func New(o Options) *Protocol {
	var random [4]byte
	rand.Read(random[:])
	return &Protocol{options: o.complete(), life: hex.EncodeToString(random[:])}
}

// Name is what listeners call it.
func (p *Protocol) Name() string { return "line" }

// Sniff knows a line by a known verb, any case, and what ends it. "GET /" is
// HTTP: a destination never begins so.
func (p *Protocol) Sniff(prefix []byte) protocols.Match {
	end := bytes.IndexAny(prefix, " \r\n")
	if end < 0 {
		if begins(prefix) {
			return protocols.NeedMore
		}
		return protocols.NoMatch
	}
	v := find(prefix[:end])
	switch {
	case v == nil:
		return protocols.NoMatch
	case v.name != "GET" || prefix[end] != ' ':
		return protocols.IsMatch
	case len(prefix) == end+1:
		return protocols.NeedMore
	case prefix[end+1] == '/':
		return protocols.NoMatch
	}
	return protocols.IsMatch
}

// Open makes the handler of a connection.
func (p *Protocol) Open(l protocols.Link, b *core.Broker) protocols.Handler {
	l.TickEvery(time.Second)
	now := b.Now()
	return &handler{options: &p.options, protocol: p, link: l, broker: b, began: now, now: now}
}

// session names a new session: unique among all processes, likely.
func (p *Protocol) session() string {
	n := strconv.FormatUint(p.sessions.Add(1), 16)
	const zeros = "00000000"
	return p.life + zeros[min(len(n), len(zeros)):] + n
}
