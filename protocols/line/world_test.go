package line

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/coretest"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
)

// A world is a real core in a box, and connections without sockets.
type world struct {
	t        testing.TB
	box      *coretest.Box
	disk     *memory.Store
	protocol *Protocol
	conns    []*conn
}

func newWorld(t testing.TB, o Options) *world { return guarded(t, o, nil) }

func guarded(t testing.TB, o Options, g core.Guard) *world {
	t.Helper()
	disk := memory.New(memory.Options{})
	box, err := coretest.New(coretest.Options{Disk: disk, Guard: g})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, box: box, disk: disk, protocol: New(o)}
}

// A conn is a client and transport in one.
type conn struct {
	w       *world
	handler *handler
	outbox  *core.Outbox
	peer    protocols.Peer
	in      []byte
	out     []byte
	events  []core.Event
	want    int
	held    bool // ErrWait was said
	resumed bool
	woken   bool
	every   time.Duration
	closed  bool
	err     error
	split   bool // one byte at a time
	next    int  // then: how many are there
}

var _ protocols.Link = (*conn)(nil)

func (c *conn) Wake()                     { c.woken = true }
func (c *conn) Attach(o *core.Outbox)     { c.outbox = o }
func (c *conn) Resume()                   { c.resumed = true }
func (c *conn) Want(n int)                { c.want = n }
func (c *conn) Border(int, bool)          {}
func (c *conn) TickEvery(d time.Duration) { c.every = d }
func (c *conn) Close(err error)           { c.bye(err) }
func (c *conn) Peer() protocols.Peer      { return c.peer }

func (w *world) dial() *conn { return w.dialFrom(protocols.Peer{Remote: "127.0.0.1:1", Secure: true}) }

func (w *world) dialFrom(p protocols.Peer) *conn {
	c := &conn{w: w, peer: p}
	c.handler = w.protocol.Open(c, w.box.Broker).(*handler)
	w.conns = append(w.conns, c)
	return c
}

// ready is a connection that has logged in: its errors are not fatal.
func (w *world) ready() *conn {
	c := w.dial()
	c.expect("HELLO 1", "OK v=1 *")
	return c
}

func (c *conn) bye(err error) {
	if c.err == nil {
		c.err = err
		if err == nil {
			c.err = &protocols.Close{}
		}
	}
}

// work does what transport would do now, and says whether there was anything.
func (c *conn) work() bool {
	if c.closed {
		return false
	}
	busy := c.deliver()
	if c.err != nil {
		for c.deliver() {
		}
		if _, ok := errors.AsType[*protocols.Close](c.err); ok {
			c.out = c.handler.Deliver(c.out, nil)
		}
		c.closed = true
		c.handler.Closed(c.err)
		return true
	}
	for c.receive() { // before the broker has its turn: a part more makes no difference
		busy = true
		if c.err != nil || (!c.split && c.held) {
			break
		}
	}
	return busy
}

func (c *conn) deliver() bool {
	if c.outbox != nil {
		c.events, _ = c.outbox.Take(c.events)
	}
	if len(c.events) == 0 && !c.woken {
		return false
	}
	c.woken = false
	c.out = c.handler.Deliver(c.out, c.events)
	return true
}

func (c *conn) receive() bool {
	if c.held && !c.resumed {
		return false
	}
	in := c.in
	if c.split {
		c.next = min(c.next+1, len(in))
		in = in[:c.next]
	}
	if len(in) == 0 || (len(in) < c.want && !c.split) {
		return false
	}
	c.held, c.resumed, c.want = false, false, 0
	n, err := c.handler.Receive(in)
	c.in = c.in[n:]
	c.next = max(0, c.next-n)
	switch {
	case errors.Is(err, core.ErrWait):
		c.held = true
	case err != nil:
		c.bye(err)
	case n == 0 && (!c.split || c.next == len(c.in)):
		return false
	}
	return true
}

func (w *world) settle() {
	w.t.Helper()
	for range 1_000_000 {
		busy := w.box.Turn()
		for _, c := range w.conns {
			busy = c.work() || busy
		}
		if !busy {
			return
		}
	}
	w.t.Fatal("no rest")
}

// pass lets time go by, with Ticks.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for step := range coretest.Steps(d) {
		w.box.Pass(step)
		for _, c := range w.conns {
			if !c.closed {
				if err := c.handler.Tick(w.box.Clock.Now()); err != nil {
					c.bye(err)
				}
			}
		}
		w.settle()
	}
}

// send feeds bytes and returns what came back.
func (c *conn) send(text string) string {
	c.w.t.Helper()
	c.in = append(c.in, text...)
	c.w.settle()
	return c.take()
}

func (c *conn) take() string {
	out := string(c.out)
	c.out = c.out[:0]
	return out
}

// expect sends lines and compares the answer. In want, "*" is any text up to
// the end of its line, and "_" any word.
func (c *conn) expect(text, want string) {
	c.w.t.Helper()
	if got := c.send(text + "\n"); !matches(got, want) {
		c.w.t.Errorf("%s\n got %q\nwant %q", text, got, want)
	}
}

// hears compares what came by itself.
func (c *conn) hears(want string) {
	c.w.t.Helper()
	c.w.settle()
	if got := c.take(); !matches(got, want) {
		c.w.t.Errorf("heard %q\nwant %q", got, want)
	}
}

func matches(got, want string) bool {
	if want == "" {
		return got == ""
	}
	g := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	w := strings.Split(want, "\n")
	if len(g) != len(w) || !strings.HasSuffix(got, "\n") {
		return false
	}
	for i := range w {
		if !matchLine(g[i], w[i]) {
			return false
		}
	}
	return true
}

func matchLine(got, want string) bool {
	head, rest, star := strings.Cut(want, "*")
	if star && rest == "" {
		return strings.HasPrefix(got, head)
	}
	g, w := strings.Split(got, " "), strings.Split(want, " ")
	if len(g) != len(w) {
		return false
	}
	for i := range w {
		head, _, any := strings.Cut(w[i], "_")
		if w[i] != g[i] && !(any && strings.HasSuffix(w[i], "_") && strings.HasPrefix(g[i], head)) {
			return false
		}
	}
	return true
}

func (c *conn) String() string { return fmt.Sprintf("%q %v", c.out, c.err) }
