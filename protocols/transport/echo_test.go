package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what must happen.
const soon = 10 * time.Second

// echo is a protocol of frames: a length of four bytes, then a body, which
// comes back. A test replaces what it wants to see differently. Its handlers
// watch that transport keeps its promises about who runs beside whom.
type echo struct {
	t      testing.TB
	name   string
	begin  byte // what a sniffed connection begins with; 0: anything
	opened chan *echoHandler

	open    func(*echoHandler)
	frame   func(h *echoHandler, body []byte) error
	deliver func(h *echoHandler, out []byte, ev []core.Event) []byte
	tick    func(h *echoHandler, now time.Time) error
	ahead   func(h *echoHandler, in []byte)
	closed  func(h *echoHandler, err error)
}

func newEcho(t testing.TB) *echo {
	return &echo{t: t, name: "echo", opened: make(chan *echoHandler, 20_000)}
}

func (e *echo) Name() string { return e.name }

func (e *echo) Sniff(in []byte) protocols.Match {
	switch {
	case len(in) == 0:
		return protocols.NeedMore
	case e.begin == 0 || in[0] == e.begin:
		return protocols.IsMatch
	}
	return protocols.NoMatch
}

func (e *echo) Open(l protocols.Link, _ *core.Broker) protocols.Handler {
	h := &echoHandler{echo: e, link: l, over: make(chan struct{})}
	if e.open != nil {
		e.open(h)
	}
	e.opened <- h
	return h
}

type echoHandler struct {
	*echo
	link protocols.Link

	mu      sync.Mutex
	replies []byte

	receives, delivers, ticks, aheads atomic.Int64
	lent                              atomic.Int64 // the most bytes of one Receive

	receiving, turning, gone atomic.Int32
	err                      error // of Closed; read it after over
	over                     chan struct{}
}

// enter watches that nothing runs beside itself, or after Closed.
func (h *echoHandler) enter(who *atomic.Int32, what string) func() {
	if who.Add(1) != 1 {
		h.t.Errorf("%s runs beside another of its kind", what)
	}
	if h.gone.Load() != 0 {
		h.t.Errorf("%s runs after Closed", what)
	}
	return func() { who.Add(-1) }
}

func (h *echoHandler) Receive(in []byte) (n int, err error) {
	defer h.enter(&h.receiving, "Receive")()
	h.receives.Add(1)
	h.lent.Store(max(h.lent.Load(), int64(len(in))))
	if len(in) == 0 {
		h.t.Error("Receive was called for nothing")
	}
	for err == nil {
		rest := in[n:]
		if len(rest) < 4 {
			return n, nil
		}
		size := 4 + int(binary.BigEndian.Uint32(rest))
		if len(rest) < size {
			h.link.Want(size)
			return n, nil
		}
		body := append([]byte(nil), rest[4:size]...)
		if err = h.take(body); errors.Is(err, errNotTaken) {
			return n, core.ErrWait
		}
		n += size
	}
	return n, err
}

// errNotTaken is ErrWait for a frame that is to come again.
var errNotTaken = errors.New("not taken")

func (h *echoHandler) take(body []byte) error {
	if h.frame != nil {
		return h.frame(h, body)
	}
	h.reply(body)
	return nil
}

func (h *echoHandler) reply(body []byte) {
	h.mu.Lock()
	h.replies = appendFrame(h.replies, body)
	h.mu.Unlock()
	h.link.Wake()
}

func (h *echoHandler) Deliver(out []byte, ev []core.Event) []byte {
	defer h.enter(&h.turning, "Deliver")()
	h.delivers.Add(1)
	if h.deliver != nil {
		return h.deliver(h, out, ev)
	}
	return h.flush(out)
}

func (h *echoHandler) flush(out []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	out = append(out, h.replies...)
	h.replies = h.replies[:0]
	return out
}

func (h *echoHandler) Tick(now time.Time) error {
	defer h.enter(&h.turning, "Tick")()
	h.ticks.Add(1)
	if h.tick != nil {
		return h.tick(h, now)
	}
	return nil
}

func (h *echoHandler) Ahead(in []byte) {
	defer h.enter(&h.receiving, "Ahead")()
	h.aheads.Add(1)
	if len(in) > lookAhead {
		h.t.Errorf("Ahead was given %d bytes", len(in))
	}
	if h.ahead != nil {
		h.ahead(h, in)
	}
}

func (h *echoHandler) Closed(err error) {
	if h.receiving.Load() != 0 || h.turning.Load() != 0 {
		h.t.Error("Closed does not run alone")
	}
	if h.gone.Add(1) != 1 {
		h.t.Error("Closed was called twice")
		return
	}
	h.err = err
	close(h.over)
	if h.closed != nil {
		h.closed(h, err)
	}
}

// ended waits for Closed and returns its error.
func (h *echoHandler) ended(t testing.TB) error {
	t.Helper()
	select {
	case <-h.over:
		return h.err
	case <-time.After(soon):
		t.Fatal("Closed was not called")
		return nil
	}
}

// a house is a server with one listener.
type house struct {
	*Server
	t       testing.TB
	echo    *echo
	network string
	addr    string
	doors   ListenerOptions
}

// networks are those every test of the wire runs over.
var networks = []string{"tcp", "unix", "pipe"}

func start(t testing.TB, network string, o Options, p protocols.Protocol) *house {
	t.Helper()
	h := &house{Server: New(o), t: t, network: network}
	h.echo, _ = p.(*echo)
	h.doors = ListenerOptions{Name: network, Protocols: []protocols.Protocol{p}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if n := h.Stats().Open; n != 0 {
			t.Errorf("%d connections are open after Shutdown", n)
		}
	})
	h.listen()
	return h
}

func (h *house) listen() {
	h.t.Helper()
	switch h.network {
	case "tcp":
		h.addr = "127.0.0.1:0"
	case "unix":
		dir, err := os.MkdirTemp("", "godwit") // a path that is short enough
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { os.RemoveAll(dir) })
		h.addr = filepath.Join(dir, "s")
	default:
		return
	}
	l, err := net.Listen(h.network, h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = l.Addr().String()
	if err := h.Serve(l, h.doors); err != nil {
		h.t.Fatal(err)
	}
}

// dial connects a client that gives up after a while.
func (h *house) dial() *client {
	h.t.Helper()
	var nc net.Conn
	var err error
	if h.network == "pipe" {
		nc, err = h.Pipe(h.doors)
	} else {
		nc, err = net.Dial(h.network, h.addr)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(3 * soon)); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { nc.Close() })
	return &client{Conn: nc, t: h.t}
}

// handler is the one of the connection that was opened last.
func (h *house) handler() *echoHandler {
	h.t.Helper()
	select {
	case e := <-h.echo.opened:
		return e
	case <-time.After(soon):
		h.t.Fatal("no handler was opened")
		return nil
	}
}

type client struct {
	net.Conn
	t testing.TB
}

func appendFrame(to, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(body))), body...)
}

func (c *client) send(body string) {
	c.t.Helper()
	if _, err := c.Write(appendFrame(nil, []byte(body))); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) next() (string, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return "", err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(c, body)
	return string(body), err
}

func (c *client) want(body string) {
	c.t.Helper()
	switch got, err := c.next(); {
	case err != nil:
		c.t.Fatalf("reading %.20q: %v", body, err)
	case got != body:
		c.t.Fatalf("got %.20q, want %.20q", got, body)
	}
}

// wantEnd waits for the end of what the server sends.
func (c *client) wantEnd() {
	c.t.Helper()
	if got, err := c.next(); !errors.Is(err, io.EOF) {
		c.t.Fatalf("got %.20q, %v, want the end", got, err)
	}
}

// eventually waits until ok, which must come by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not so after %v", what, soon)
		}
	}
}
