package protocoltest

import (
	"errors"
	"sync"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

const (
	maxAhead     = 64 << 10 // what is read beyond an ErrWait
	maxUnwritten = 64 << 10 // no Deliver while a client has left this much unread
)

// errCut is what a handler is told when its client vanishes.
var errCut = errors.New("the connection was cut")

// A conn is a client, its handler, and transport in miniature between them. It
// keeps transport's promises and no more: what it lends it scribbles over
// afterwards, and nothing runs beside anything else.
type conn struct {
	name    string
	proto   string
	wire    wire
	handler protocols.Handler
	socket  *socket // instead of a handler, over the wire
	peer    protocols.Peer
	split   bool

	in      []byte // sent, not taken yet
	out     []byte // written by the broker, not looked at by the transcript
	spare   []core.Event
	held    bool // ErrWait was said
	stopped bool // the client does not read
	gone    bool // Closed was called
	why     error
	next    time.Time // of the Tick

	mu      sync.Mutex // what any goroutine may set
	woken   bool
	resumed bool
	closing *protocols.Close
	outbox  *core.Outbox
	want    int
	every   time.Duration
}

var _ protocols.Link = (*conn)(nil)

// Wake, and the following, are the handler's side of the connection.
func (c *conn) Wake() { c.mu.Lock(); defer c.mu.Unlock(); c.woken = true }

// Attach says where Deliver's events come from.
func (c *conn) Attach(o *core.Outbox) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outbox, c.woken = o, true
}

// Resume ends what ErrWait began.
func (c *conn) Resume() { c.mu.Lock(); defer c.mu.Unlock(); c.resumed = true }

// Want puts the next Receive off until n bytes are here.
func (c *conn) Want(n int) { c.mu.Lock(); defer c.mu.Unlock(); c.want = n }

// Border is of WebSockets alone.
func (c *conn) Border(int, bool) {}

// TickEvery sets the time between two calls of Tick.
func (c *conn) TickEvery(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.every = max(d, 250*time.Millisecond)
	c.next = time.Time{}
}

// Close asks for a polite end.
func (c *conn) Close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing == nil {
		c.closing = &protocols.Close{Err: err}
	}
}

// Peer is who the handler thinks is there.
func (c *conn) Peer() protocols.Peer { return c.peer }

// feed is what the client sends.
func (c *conn) feed(b []byte) {
	if c.socket != nil {
		c.write(b)
		return
	}
	if !c.split {
		c.in = append(c.in, b...)
		c.receive()
		return
	}
	for i := range b {
		c.in = append(c.in, b[i])
		c.receive()
	}
}

// write sends over a socket. That it is closed shows when an answer is wanted.
func (c *conn) write(b []byte) {
	if !c.split {
		_, _ = c.socket.nc.Write(b)
		return
	}
	for i := range b {
		_, _ = c.socket.nc.Write(b[i : i+1])
	}
}

// receive gives the handler what it has not taken, until it takes no more.
func (c *conn) receive() {
	for !c.gone && len(c.in) > 0 {
		if c.held {
			c.ahead()
			return
		}
		if c.wanted() > len(c.in) {
			return
		}
		c.Want(0)
		lent := append([]byte(nil), c.in...)
		n, err := c.handler.Receive(lent)
		scribble(lent)
		c.in = c.in[n:]
		switch {
		case errors.Is(err, core.ErrWait):
			c.held = true
			if len(c.in) > 0 {
				c.ahead()
			}
			return
		case err != nil:
			c.end(err)
			return
		case n == 0:
			return
		}
	}
}

func (c *conn) wanted() int { c.mu.Lock(); defer c.mu.Unlock(); return c.want }

func (c *conn) ahead() {
	if h, ok := c.handler.(protocols.Ahead); ok {
		lent := append([]byte(nil), c.in[:min(len(c.in), maxAhead)]...)
		h.Ahead(lent)
		scribble(lent)
	}
}

// scribble makes sure that who kept what was lent is found out.
func scribble(b []byte) {
	for i := range b {
		b[i] = 0xAA
	}
}

// work does what has become due and says whether there was any.
func (c *conn) work() bool {
	if c.gone || c.socket != nil {
		return false
	}
	c.mu.Lock()
	closing, resumed, woken := c.closing, c.resumed && c.held, c.woken
	if resumed {
		c.resumed = false
	}
	c.mu.Unlock()
	switch {
	case closing != nil:
		c.end(closing)
	case resumed:
		c.held = false
		c.receive()
	case woken && (!c.stopped || len(c.out) < maxUnwritten):
		c.deliver()
	default:
		return false
	}
	return true
}

func (c *conn) deliver() {
	c.mu.Lock()
	c.woken = false
	outbox := c.outbox
	c.mu.Unlock()
	var events []core.Event
	if outbox != nil {
		events, _ = outbox.Take(c.spare)
	}
	if c.split {
		c.deliverSplit(events)
	} else {
		c.out = append(c.out, c.handler.Deliver(nil, events)...)
	}
	c.spare = events
}

// deliverSplit gives one event at a time, behind bytes that are not written
// yet: transport does both when there is much to do.
func (c *conn) deliverSplit(events []core.Event) {
	const before = "not written yet"
	out := c.handler.Deliver([]byte(before), events[:min(1, len(events))])
	for i := 1; i < len(events); i++ {
		out = c.handler.Deliver(out, events[i:i+1])
	}
	if string(out[:len(before)]) != before {
		panic("Deliver has changed what was in out")
	}
	c.out = append(c.out, out[len(before):]...)
}

// tick calls Tick if it is due.
func (c *conn) tick(now time.Time) {
	if c.gone {
		return
	}
	c.mu.Lock()
	every := c.every
	c.mu.Unlock()
	if every == 0 {
		every = time.Second
	}
	if c.next.IsZero() {
		c.next = now.Add(every)
		return
	}
	if now.Before(c.next) {
		return
	}
	c.next = now.Add(every)
	if err := c.handler.Tick(now); err != nil {
		c.end(err)
	}
}

// end closes the connection from the broker's side: with a word if err is a
// *protocols.Close.
func (c *conn) end(err error) {
	if polite, ok := errors.AsType[*protocols.Close](err); ok {
		c.deliver()
		err = polite.Err
	}
	c.leave(err)
}

// leave ends the connection without another word from the broker.
func (c *conn) leave(err error) {
	if c.socket != nil {
		c.socket.close()
		c.gone, c.why = true, err
		return
	}
	if c.gone {
		return
	}
	c.gone, c.why, c.in = true, err, nil
	c.handler.Closed(err)
}
