package transport

import (
	"errors"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// Wake, and the following, are the handler's side of a connection.
func (c *conn) Wake() { c.signal(dueEvents) }

// Attach says where Deliver's events come from; there may be some already.
func (c *conn) Attach(o *core.Outbox) {
	c.outbox.Store(o)
	c.signal(dueEvents)
}

// Resume ends what ErrWait began. It may come before Receive has returned.
func (c *conn) Resume() {
	c.resumed.Store(true)
	if c.holding.Load() {
		c.kick()
	}
}

// Want puts the next Receive off until n bytes are here.
func (c *conn) Want(n int) { c.want.Store(int64(n)) }

// Border is of WebSockets alone.
func (c *conn) Border(int, bool) {}

// TickEvery sets the time between two calls of Tick, counted from now.
func (c *conn) TickEvery(d time.Duration) { c.server.wheel.set(c, d) }

// Close ends the connection politely.
func (c *conn) Close(err error) {
	if already, ok := errors.AsType[*protocols.Close](err); ok {
		err = already.Err
	}
	c.stop(&ending{err: err, polite: true})
}

// Peer says who is at the other end.
func (c *conn) Peer() protocols.Peer { return c.peer }
