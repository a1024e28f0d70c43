// Package protocols says what an adapter is: a state machine without I/O.
//
// Bytes in become verbs of a core.Session, events become bytes. Sockets, TLS,
// buffers, timers and flushing are protocols/transport's, for all protocols
// alike; so every adapter can be fuzzed, replayed and simulated without a
// socket, one port can serve all of them, and one optimisation serves all.
//
//	socket -> transport -> Handler.Receive -> verbs -> core
//	socket <- transport <- Handler.Deliver <- events <- core
package protocols

import (
	"time"

	"github.com/godwitmq/godwit/core"
)

// A Match is how a connection's first bytes look to a protocol.
type Match uint8

// What Sniff answers.
const (
	NoMatch  Match = iota
	NeedMore       // so far it could be; never after 12 bytes
	IsMatch
)

// A Protocol makes handlers. One value serves all connections.
type Protocol interface {
	Name() string
	Sniff(prefix []byte) Match
	Open(l Link, b *core.Broker) Handler
}

// A Handler is one connection's state machine.
//
// Receive runs on the connection's reader, Deliver and Tick on a flusher:
// Receive may run beside one of them, Deliver and Tick never beside each
// other. Closed is the last call and runs alone.
type Handler interface {
	// Receive takes whole frames off in and returns how many bytes they had.
	// in is lent: nothing of it may be kept. It blocks in Broker.Enter alone.
	// core.ErrWait (with n of what was taken) means: no Receive before
	// Link.Resume. A *Close ends the connection after one more Deliver; any
	// other error ends it at once, without a word.
	Receive(in []byte) (n int, err error)
	// Deliver appends to out what is to be written: first the handler's own
	// replies, then what ev asks for. ev is lent until it returns. An Evicted
	// may be transport's own: the server shuts down.
	Deliver(out []byte, ev []core.Event) []byte
	// Tick is called each TickEvery; its errors are Receive's.
	Tick(now time.Time) error
	// Closed says that the connection is gone; err is nil after a polite end.
	Closed(err error)
}

// Ahead is an optional part of a Handler: what was read beyond an ErrWait, at
// most 64 KiB, whole each time and from the same start, so that pings are
// answered and acknowledgements taken meanwhile.
type Ahead interface{ Ahead(in []byte) }

// Debtor is an optional part of a Handler: whether answers are owed to a client
// that has closed its half of the connection, as printf ... | nc does. It is
// asked now and then, from the reader; for a second at most the connection
// stays open for them.
type Debtor interface{ Owes() bool }

// A Link is a handler's side of its connection. Its methods may be called from
// any goroutine and never block.
type Link interface {
	Wake()                     // Deliver soon. A Link is its session's core.Waker
	Attach(o *core.Outbox)     // Deliver gets what is in it
	Resume()                   // after ErrWait: Receive again, when there are bytes
	Want(n int)                // no Receive before n bytes are here; for the next call only
	Border(end int, text bool) // a WebSocket message ends at that length of Deliver's out; nothing on TCP
	TickEvery(d time.Duration) // 1 s if not asked, at least 250 ms
	Close(err error)           // Deliver once more, flush, close, then Closed(err)
	Peer() Peer
}

var _ core.Waker = Link(nil)

// A Peer is who is at the other end.
type Peer struct {
	Remote      string // host:port; a path or "@" of a Unix socket; "pipe" inside the process
	Listener    string // the name of the port that listens
	VHost       string // its virtual host, for who names none; empty: the guard's choice
	Subprotocol string // of a WebSocket
	User        string // a TLS subject or the identity of an HTTP upgrade
	Secure      bool   // TLS, or never left the machine
}

// Close is the error of a Handler that wants to say goodbye: transport calls
// Deliver once more, flushes for at most a second and closes. Err nil is a
// polite end.
type Close struct{ Err error }

func (c *Close) Error() string {
	if c.Err == nil {
		return "closed politely"
	}
	return c.Err.Error()
}

func (c *Close) Unwrap() error { return c.Err }
