package core

import (
	"context"
	"time"
)

// Options configure a Broker. Store is required.
type Options struct {
	Store  Store
	Guard  Guard            // nil: LoopbackGuard
	Now    func() time.Time // nil: time.Now
	Shards int              // 0: as many as CPUs, 2 to 16
	Limits Limits
	Manual bool // no goroutines: Step runs the shards (simulation)

	NoAutoCreate bool // an unknown queue is 404, not declared
	Fates        int  // ends kept for explain, a shard; 0: 65,536
}

// A Broker is the whole.
type Broker struct {
	now func() time.Time
}

// New opens the store and brings back what it holds.
func New(o Options) (*Broker, error) { panic("bug: not built") }

// Now is the broker's clock.
func (b *Broker) Now() time.Time { return b.now() }

// Enter asks the guard who this is. It may block.
func (b *Broker) Enter(ctx context.Context, l Login) (Identity, error) { panic("bug: not built") }

// Open starts a session. Its Confirmed, with Resumed, comes when the record is
// durable and an older connection of the same key is gone; until then no
// other verb may be called. An empty key is a session nobody can resume: it
// is confirmed at once.
func (b *Broker) Open(id Identity, s SessionSpec, token uint64, w Waker) *Session {
	panic("bug: not built")
}

// Inspect lists what there is: paged, sorted, and no shard stops for it.
func (b *Broker) Inspect(q Query) (Page, error) { panic("bug: not built") }

// Explain walks m's way with the recorder on and publishes nothing.
func (b *Broker) Explain(id Identity, m *Message) *Recorder { panic("bug: not built") }

// Tick tells the broker the time: leases, waits, expiry. About every 250 ms.
func (b *Broker) Tick(now time.Time) { panic("bug: not built") }

// Step runs each shard of a Manual broker once and says whether any had work.
func (b *Broker) Step() bool { panic("bug: not built") }

// Fatal is closed when the store is lost and nothing can be confirmed any
// more; the process should end with code 74.
func (b *Broker) Fatal() <-chan struct{} { panic("bug: not built") }

// Close ends all sessions, settles what was accepted and closes the partitions.
func (b *Broker) Close(ctx context.Context) error { panic("bug: not built") }

// SessionSpec is what a session is.
type SessionSpec struct {
	Key        string        // who resumes and takes over; empty: nobody
	Clean      bool          // forget what there was
	Expiry     time.Duration // how long it outlives its connection; 0: not
	Will       *Will
	Producer   string // the line protocol's pid
	Unanswered int    // publishes that may wait for their Confirmed; 0: Limits
}

// Topic is what Query asks about.
type Topic uint8

// What can be inspected.
const (
	Queues   Topic = iota // ready unacked delayed bytes consumers
	Bindings              // queue source
	Exchanges
	Sessions
	Fates    // newest first
	Counters // one row a counter
)

// A Query asks for a page of rows.
type Query struct {
	About  Topic
	VHost  string
	Name   string // exactly this
	Prefix string // or what begins so
	After  string // go on behind this name
	Limit  int    // 0: 1,000
	Hidden bool   // with the broker's own ($...)
}

// A Page is rows in order of name; Next is the After of the next page, or "".
type Page struct {
	Rows []Row
	Next string
}

// A Row is one thing and its figures, in a fixed order.
type Row struct {
	Name   string
	Fields []Field
}

// A Field is one figure.
type Field struct{ Name, Value string }

// A Recorder holds what a message met on its way.
type Recorder struct{ Steps []Step }

// A Step is one thing the message met: a binding, a queue, a listener, a stage.
type Step struct{ What, Name, Text string }
