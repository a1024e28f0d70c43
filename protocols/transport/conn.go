package transport

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

const (
	lookAhead = 64 << 10    // read beyond an ErrWait
	grace     = time.Second // to flush a goodbye; to wait for the client's end; to read on after a failed write
	discard   = 64 << 10    // read and thrown away after a goodbye
	busyMax   = 64 << 10    // read before a reader that need not wait writes what it has caused
)

var (
	errShut = errors.New("transport was shut down")
	longAgo = time.Unix(1, 0)
)

// A conn is one connection. Its reader runs it from sniffing to Closed.
type conn struct {
	server *Server
	door   *door
	conn   net.Conn
	wire   wire
	peer   protocols.Peer

	handler protocols.Handler
	in      input // the reader's
	shown   int   // the reader's: bytes that Ahead has seen
	gone    error // the reader's: what ended the input; frames may be left in it
	busy    int   // the reader's: bytes read since it last wrote what they caused

	state    atomic.Uint32               // the bits of turn.go
	outbox   atomic.Pointer[core.Outbox] // set by Attach
	end      atomic.Pointer[ending]      // why it ends; the first reason counts
	broken   atomic.Pointer[error]       // why writing failed; reading goes on for a moment
	want     atomic.Int64                // no Receive before so many bytes
	holding  atomic.Bool                 // ErrWait was said
	resumed  atomic.Bool                 // Resume was called since the last Receive began
	kicked   chan struct{}               // wakes a reader that waits for Resume alone
	handed   chan struct{}               // made by claim, closed by release
	left     []core.Event                // the turn owner's: taken, and not delivered because of the end
	active   bool                        // the turn owner's: there were events since the last tick
	stripped bool                        // the turn owner's: the outbox holds nothing for us
	timer    timer
}

// An ending is why a connection ends, and how.
type ending struct {
	err    error
	flush  bool // what is on its way to the socket gets a moment
	polite bool // Deliver once more, flush, linger
	tell   bool // the handler does not know yet: Deliver gets an Evicted
}

var _ protocols.Link = (*conn)(nil)

// run is the reader, from the first byte to Closed.
func (c *conn) run() {
	defer c.server.forget(c)
	defer c.conn.Close()
	p := c.sniff()
	if p == nil || !c.open(p) {
		c.server.wheel.stop(c)
		return
	}
	c.release() // the turn was ours until there was a handler
	for c.end.Load() == nil {
		c.step()
	}
	c.finish()
}

// open makes the handler. A handler that cannot even be made is told nothing.
func (c *conn) open(p protocols.Protocol) bool {
	defer c.recover()
	c.server.wheel.set(c, perhaps)
	c.handler = p.Open(c, c.server.options.Broker)
	return true
}

// step gives the handler what it may have, then waits for more.
func (c *conn) step() {
	if c.holding.Load() {
		c.hold()
		return
	}
	c.receive()
	if c.busy >= busyMax {
		c.flushOwn()
	}
	switch {
	case c.end.Load() != nil || c.holding.Load():
	case c.gone != nil: // a client that has closed its side only still gets what it has caused
		c.linger()
		c.flushOwn()
		c.stop(&ending{err: c.gone, flush: true})
	case c.in.len() > c.server.options.FrameMax:
		c.stop(&ending{err: core.Errorf(core.CodeTooLarge, "a frame of more than %d bytes", c.server.options.FrameMax)})
	default:
		c.fill()
	}
}

// receive lends the handler what is there until it takes no more.
func (c *conn) receive() {
	for c.in.len() > 0 && c.in.len() >= int(c.want.Load()) && c.end.Load() == nil {
		c.state.Or(reading)
		c.want.Store(0)
		c.resumed.Store(false)
		n, err := c.lend()
		c.in.took(n)
		switch {
		case errors.Is(err, core.ErrWait):
			c.shown = 0
			c.holding.Store(true)
			return
		case err != nil:
			c.stop(endingOf(err))
			return
		case n == 0:
			return
		}
	}
}

func (c *conn) lend() (n int, err error) {
	defer c.recover()
	in := c.in.bytes()
	n, err = c.handler.Receive(in)
	if n < 0 || n > len(in) {
		panic(fmt.Sprintf("bug: Receive took %d of %d bytes", n, len(in)))
	}
	return n, err
}

// hold waits for Resume, and meanwhile reads a little ahead. The end of the
// input is no end of the connection yet: what was sent before it counts.
func (c *conn) hold() {
	switch {
	case c.resumed.Load():
		c.holding.Store(false)
		return
	case c.broken.Load() != nil:
		c.stop(&ending{err: *c.broken.Load()})
		return
	case c.in.len() > c.shown && c.shown < lookAhead:
		c.shown = c.in.len()
		c.ahead()
		return
	case c.in.len() < lookAhead && c.gone == nil:
		c.fill()
		return
	}
	c.idle()
	<-c.kicked
}

func (c *conn) ahead() {
	h, ok := c.handler.(protocols.Ahead)
	if !ok {
		return
	}
	defer c.recover()
	h.Ahead(c.in.bytes()[:min(c.in.len(), lookAhead)])
}

// fill waits until there are more bytes, or a kick.
func (c *conn) fill() {
	n, err := c.wire.read(&c.in, c)
	switch {
	case err == nil:
		c.server.count.read(n)
		c.busy += n
	case !errors.Is(err, os.ErrDeadlineExceeded):
		c.gone = err
		if !errors.Is(err, io.EOF) {
			c.stop(&ending{err: err})
		}
	case c.broken.Load() != nil:
		c.stop(&ending{err: *c.broken.Load()})
	default: // kicked: whoever did it has left a note, and step reads it
		_ = c.conn.SetReadDeadline(time.Time{}) // an error will be the next read's
	}
}

// kick makes a waiting reader look again. It may be late, or once too often;
// never is it lost: the note it is about was left before.
func (c *conn) kick() {
	select {
	case c.kicked <- struct{}{}:
	default:
	}
	_ = c.conn.SetReadDeadline(longAgo) // an error means that there is nobody to kick
}

// linger keeps a connection whose client has said all it wanted to say, as long
// as it is owed answers, for a moment.
func (c *conn) linger() {
	debtor, ok := c.handler.(protocols.Debtor)
	if !ok || !errors.Is(c.gone, io.EOF) || !c.owes(debtor) {
		return
	}
	c.idle()
	look := time.NewTicker(grace / 100)
	defer look.Stop()
	for until := time.Now().Add(grace); time.Now().Before(until) && c.owes(debtor); {
		select {
		case <-c.kicked:
			if c.end.Load() != nil || c.broken.Load() != nil {
				return
			}
		case <-look.C:
		}
	}
}

func (c *conn) owes(d protocols.Debtor) (owes bool) {
	defer c.recover()
	return d.Owes()
}

// stop gives the connection a reason to end.
func (c *conn) stop(e *ending) {
	if c.end.CompareAndSwap(nil, e) {
		c.kick()
	}
}

func endingOf(err error) *ending {
	if goodbye, ok := errors.AsType[*protocols.Close](err); ok {
		return &ending{err: goodbye.Err, polite: true}
	}
	return &ending{err: err}
}

// fail notes that nothing can be written any more. The client may have said
// goodbye before it went, so the reader gets a moment to find that.
func (c *conn) fail(err error) {
	if c.broken.CompareAndSwap(nil, &err) {
		select {
		case c.kicked <- struct{}{}:
		default:
		}
		_ = c.conn.SetReadDeadline(time.Now().Add(grace)) // an error means that it is closed
	}
}

// finish ends the connection: no Receive runs, and once the turn is ours
// neither Deliver nor Tick will, so Closed is the last call and runs alone.
func (c *conn) finish() {
	c.server.wheel.stop(c)
	end := c.end.Load()
	if end.flush || end.polite {
		c.allow(0)
	} else {
		c.conn.Close() // a drain need not go on
	}
	c.claim()
	if end.polite {
		c.goodbye(end)
	}
	c.conn.Close()
	c.closed(end.err)
}

// allow gives the next write its time: d, or after the end what a goodbye gets.
func (c *conn) allow(d time.Duration) {
	// An error means that the connection is closed, which the write will say.
	if d > 0 {
		_ = c.conn.SetWriteDeadline(time.Now().Add(d))
	}
	if c.end.Load() != nil {
		_ = c.conn.SetWriteDeadline(time.Now().Add(grace))
	}
}

// goodbye delivers once more, flushes, and waits a moment for the client to
// end it: a close with unread input would be a reset, which eats the goodbye.
func (c *conn) goodbye(end *ending) {
	if c.broken.Load() != nil {
		return
	}
	events := c.left
	if o := c.outbox.Load(); o != nil {
		last, _ := o.Take(nil)
		events = append(events, last...)
		if end.tell {
			events = append(events, core.Event{Kind: core.Evicted, Err: end.err})
		}
	}
	c.allow(0)
	if !c.push(c.deliver(nil, events)) {
		return
	}
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.gone == nil && c.conn.SetReadDeadline(time.Now().Add(grace)) == nil {
		_, _ = io.CopyN(io.Discard, c.conn, discard) // it ends somehow
	}
}

// The calls of the handler that belong to the turn.

func (c *conn) deliver(out []byte, ev []core.Event) []byte {
	defer c.recover()
	return c.handler.Deliver(out, ev)
}

func (c *conn) tick() {
	defer c.recover()
	if err := c.handler.Tick(c.server.now()); err != nil {
		c.stop(endingOf(err))
	}
}

func (c *conn) closed(err error) {
	defer c.recover()
	c.handler.Closed(err)
}

// recover ends the connection whose handler has panicked, and no other.
func (c *conn) recover() {
	v := recover()
	if v == nil {
		return
	}
	c.server.count.panics.Add(1)
	c.server.options.Log.Error("a handler panicked, its connection is closed",
		slog.String("listener", c.peer.Listener), slog.String("remote", c.peer.Remote),
		slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
	c.stop(&ending{err: core.Errorf(core.CodeInternal, "internal error")})
}
