package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

func onEach(t *testing.T, do func(t *testing.T, network string)) {
	for _, n := range networks {
		t.Run(n, func(t *testing.T) { do(t, n) })
	}
}

func TestFramesComeBackHoweverTheyAreCut(t *testing.T) {
	onEach(t, func(t *testing.T, network string) {
		h := start(t, network, Options{}, newEcho(t))
		for _, cut := range []int{1, 2, 3, 7, 1000, 1 << 20} {
			c := h.dial()
			var all []byte
			for i := range 50 {
				all = appendFrame(all, []byte(strings.Repeat("x", i)))
			}
			go func() {
				for len(all) > 0 {
					n, err := c.Write(all[:min(cut, len(all))])
					if err != nil {
						t.Errorf("write: %v", err)
						return
					}
					all = all[n:]
				}
			}()
			for i := range 50 {
				c.want(strings.Repeat("x", i))
			}
		}
	})
}

func TestHugeFrameIsAskedForOnce(t *testing.T) {
	e := newEcho(t)
	e.frame = func(h *echoHandler, body []byte) error {
		h.reply(fmt.Append(nil, len(body)))
		return nil
	}
	h := start(t, "tcp", Options{}, e)
	c := h.dial()
	const size = 8 << 20
	c.send(strings.Repeat("x", size))
	c.want(fmt.Sprint(size))
	// The first bytes, perhaps the length in two pieces, and the whole.
	if n := h.handler().receives.Load(); n > 4 {
		t.Errorf("Receive was called %d times, Want should have kept it to 2 or so", n)
	}
}

func TestFrameWithoutAnEndIsCutOff(t *testing.T) {
	h := start(t, "tcp", Options{FrameMax: 100 << 10}, newEcho(t))
	c := h.dial()
	go func() { _, _ = c.Write(appendFrame(nil, make([]byte, 10<<20))) }()
	if err := h.handler().ended(t); !errors.Is(err, core.ErrTooLarge) {
		t.Errorf("Closed(%v), want 413", err)
	}
}

func TestPeer(t *testing.T) {
	for network, want := range map[string]string{"tcp": "127.0.0.1:", "unix": "@", "pipe": "pipe"} {
		h := start(t, network, Options{}, newEcho(t))
		h.dial()
		p := h.handler().link.Peer()
		if !strings.HasPrefix(p.Remote, want) || p.Listener != network || !p.Secure {
			t.Errorf("over %s: %+v", network, p)
		}
	}
}

func TestWakeInsideOpenReachesTheHandler(t *testing.T) {
	e := newEcho(t)
	e.open = func(h *echoHandler) { h.reply([]byte("hello")) }
	h := start(t, "tcp", Options{}, e)
	h.dial().want("hello")
}

// mission: S11
func TestEnds(t *testing.T) {
	t.Parallel()
	errRude := errors.New("rude")
	frames := map[string]func(h *echoHandler) error{
		"polite": func(h *echoHandler) error { h.reply([]byte("bye")); return &protocols.Close{} },
		"wrong":  func(h *echoHandler) error { h.reply([]byte("bye")); return &protocols.Close{Err: errRude} },
		"link":   func(h *echoHandler) error { h.reply([]byte("bye")); h.link.Close(errRude); return nil },
		"later": func(h *echoHandler) error {
			h.reply([]byte("bye"))
			go h.link.Close(errRude)
			return nil
		},
		"wrapped": func(h *echoHandler) error {
			h.reply([]byte("bye"))
			return fmt.Errorf("frame 1: %w", &protocols.Close{Err: errRude})
		},
		"rude": func(h *echoHandler) error { return errRude },
	}
	tests := []struct {
		send, get string
		err       error
	}{
		{"polite", "bye", nil},
		{"wrong", "bye", errRude},
		{"link", "bye", errRude},
		{"later", "bye", errRude},
		{"wrapped", "bye", errRude},
		{"rude", "", errRude},
	}
	onEach(t, func(t *testing.T, network string) {
		e := newEcho(t)
		e.frame = func(h *echoHandler, body []byte) error { return frames[string(body)](h) }
		h := start(t, network, Options{}, e)
		for _, test := range tests {
			c := h.dial()
			c.send(test.send)
			if test.get != "" {
				c.want(test.get)
			}
			c.wantEnd()
			c.Close()
			if err := h.handler().ended(t); !errors.Is(err, test.err) {
				t.Errorf("%s: Closed(%v), want %v", test.send, err, test.err)
			}
		}
	})
}

func TestGoodbyeArrivesThoughInputIsUnread(t *testing.T) {
	e := newEcho(t)
	e.frame = func(h *echoHandler, _ []byte) error {
		h.reply([]byte("bye"))
		return &protocols.Close{}
	}
	h := start(t, "tcp", Options{}, e)
	for range 20 {
		c := h.dial()
		if _, err := c.Write(append(appendFrame(nil, []byte("x")), make([]byte, 60<<10)...)); err != nil {
			t.Fatal(err)
		}
		c.want("bye")
		c.wantEnd()
		for range 3 { // a reset would come now, and break the next write
			if _, err := c.Write([]byte("more")); err != nil {
				t.Fatalf("the server does not read on after its goodbye: %v", err)
			}
			time.Sleep(time.Millisecond)
		}
		c.Close()
	}
}

func TestGoodbyeDoesNotWaitForAClientThatStays(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	e.frame = func(*echoHandler, []byte) error { return &protocols.Close{} }
	h := start(t, "tcp", Options{}, e)
	c := h.dial()
	c.send("x")
	begin := time.Now()
	if err := h.handler().ended(t); err != nil {
		t.Errorf("Closed(%v)", err)
	}
	if took := time.Since(begin); took < grace/2 || took > 3*grace {
		t.Errorf("it took %v, want about %v", took, grace)
	}
}

func TestGoodbyeIsDeliveredOnce(t *testing.T) {
	e := newEcho(t)
	var after atomic.Int64
	e.deliver = func(h *echoHandler, out []byte, _ []core.Event) []byte {
		if h.link.(*conn).end.Load() != nil {
			after.Add(1)
			h.link.Wake()
		}
		time.Sleep(time.Millisecond) // so that the end comes while it runs
		return h.flush(out)
	}
	h := start(t, "tcp", Options{}, e)
	for range 50 {
		c := h.dial()
		e := h.handler()
		c.send("x")
		e.link.Wake()
		e.link.Close(nil)
		e.link.Wake()
		c.Close()
		_ = e.ended(t)
		// One that had begun may see the end come while it runs; then the goodbye.
		if n := after.Swap(0); n > 2 {
			t.Fatalf("Deliver was called %d times after Close", n)
		}
	}
}

func TestClientGoes(t *testing.T) {
	onEach(t, func(t *testing.T, network string) {
		h := start(t, network, Options{}, newEcho(t))
		c := h.dial()
		c.send("x")
		c.want("x")
		c.Close()
		if err := h.handler().ended(t); !errors.Is(err, io.EOF) {
			t.Errorf("Closed(%v), want EOF", err)
		}
	})
}

func TestHalfClosedClientStillGetsItsAnswers(t *testing.T) {
	e := newEcho(t)
	closed := make(chan struct{})
	e.open = func(*echoHandler) { <-closed }
	h := start(t, "tcp", Options{}, e)
	c := h.dial()
	c.send("x")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	close(closed)
	c.want("x")
	c.wantEnd()
}

// What a client said before it went counts: here its goodbye, which is found
// though a write had already failed.
func TestGoodbyeOfTheClientIsFoundAfterAFailedWrite(t *testing.T) {
	e := newEcho(t)
	read := make(chan struct{})
	e.frame = func(h *echoHandler, body []byte) error {
		if string(body) == "quit" {
			return &protocols.Close{}
		}
		<-read
		return nil
	}
	h := start(t, "tcp", Options{}, e)
	c := h.dial()
	c.send("wait")
	c.send("quit")
	handler := h.handler()
	eventually(t, "the first frame is received", func() bool { return handler.receives.Load() > 0 })
	if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close() // a reset
	failed := handler.link.(*conn)
	failed.fail(io.ErrClosedPipe)
	close(read)
	if err := handler.ended(t); err != nil {
		t.Errorf("Closed(%v), want the polite end the client asked for", err)
	}
}

func TestFailedWriteEndsAConnectionThatReadsNothing(t *testing.T) {
	t.Parallel()
	h := start(t, "tcp", Options{}, newEcho(t))
	h.dial()
	e := h.handler()
	e.link.(*conn).fail(io.ErrClosedPipe)
	if err := e.ended(t); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Closed(%v)", err)
	}
}

func TestPanicsCloseOneConnection(t *testing.T) {
	var well atomic.Bool
	boom := func(in string, h *echoHandler) {
		if h.name == in && !well.Load() {
			panic("boom in " + in)
		}
	}
	for i, in := range []string{"open", "receive", "deliver", "tick", "ahead", "closed"} {
		t.Run(in, func(t *testing.T) {
			well.Store(false)
			e := newEcho(t)
			e.name = in
			e.open = func(h *echoHandler) { boom("open", h) }
			e.frame = func(h *echoHandler, body []byte) error {
				boom("receive", h)
				if h.name == "ahead" && !well.Load() {
					return errNotTaken
				}
				h.reply(body)
				return nil
			}
			e.deliver = func(h *echoHandler, out []byte, _ []core.Event) []byte { boom("deliver", h); return h.flush(out) }
			e.tick = func(h *echoHandler, _ time.Time) error { boom("tick", h); return nil }
			e.ahead = func(h *echoHandler, _ []byte) { boom("ahead", h) }
			e.closed = func(h *echoHandler, _ error) { boom("closed", h) }
			h := start(t, networks[i%len(networks)], Options{}, e)
			c := h.dial()
			if in != "open" {
				_, _ = c.Write(appendFrame(nil, []byte("x")))
			}
			if in == "closed" {
				c.Close()
			}
			eventually(t, "the panic is counted", func() bool { return h.Stats().Panics == 1 })
			eventually(t, "the connection is closed", func() bool { return h.Stats().Open == 0 })
			if in != "open" {
				if err := h.handler().ended(t); in != "closed" && !errors.Is(err, core.ErrInternal) {
					t.Errorf("Closed(%v), want 500", err)
				}
			}
			well.Store(true)
			c = h.dial()
			c.send("y")
			c.want("y")
		})
	}
}

func TestWaitAndResume(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, network string) {
		e := newEcho(t)
		e.open = func(h *echoHandler) { h.link.Resume() } // of no ErrWait: it counts for none
		var open atomic.Bool
		e.frame = func(h *echoHandler, body []byte) error {
			if !open.Load() {
				return errNotTaken
			}
			h.reply(body)
			return nil
		}
		h := start(t, network, Options{}, e)
		c := h.dial()
		go c.send("x")
		handler := h.handler()
		eventually(t, "the frame was refused", func() bool { return handler.receives.Load() == 1 })
		go c.send("y")
		eventually(t, "what comes is shown", func() bool { return handler.aheads.Load() == 2 })
		if n := handler.receives.Load(); n != 1 {
			t.Errorf("Receive was called %d times before Resume", n)
		}
		open.Store(true)
		handler.link.Resume()
		c.want("x")
		c.want("y")
	})
}

func TestResumeMayComeBeforeReceiveReturns(t *testing.T) {
	e := newEcho(t)
	var times atomic.Int64
	e.frame = func(h *echoHandler, body []byte) error {
		if times.Add(1)%2 == 1 {
			h.link.Resume()
			return errNotTaken
		}
		h.reply(body)
		return nil
	}
	h := start(t, "tcp", Options{}, e)
	c := h.dial()
	for range 100 {
		c.send("x")
		c.want("x")
	}
}

func TestLookAheadIsBoundedAndWhole(t *testing.T) {
	e := newEcho(t)
	var open atomic.Bool
	var most atomic.Int64
	e.frame = func(h *echoHandler, body []byte) error {
		if !open.Load() {
			return errNotTaken
		}
		h.reply(fmt.Append(nil, len(body)))
		return nil
	}
	e.ahead = func(h *echoHandler, in []byte) {
		if most.Load() >= int64(len(in)) {
			t.Errorf("Ahead shows %d bytes after %d", len(in), most.Load())
		}
		most.Store(int64(len(in)))
		if !bytes.HasPrefix(in, []byte{0, 0, 3, 0xe8}) {
			t.Errorf("Ahead does not begin where Receive ended: % x", in[:4])
		}
	}
	h := start(t, "tcp", Options{}, e)
	c := h.dial()
	one := appendFrame(nil, make([]byte, 1000))
	all := bytes.Repeat(one, 20_000) // more than any socket takes
	var sent atomic.Int64
	var writer sync.WaitGroup
	writer.Go(func() {
		for rest := all; len(rest) > 0; {
			n, err := c.Write(rest[:min(len(rest), 10_040)])
			if err != nil {
				t.Errorf("write: %v", err)
				return
			}
			sent.Add(int64(n))
			rest = rest[n:]
		}
	})
	handler := h.handler()
	eventually(t, "the look-ahead is full", func() bool { return most.Load() == lookAhead })
	eventually(t, "TCP holds the client back", func() bool {
		n := sent.Load()
		time.Sleep(50 * time.Millisecond)
		return n == sent.Load()
	})
	if n := sent.Load(); n >= int64(len(all)) {
		t.Fatal("the client was not held back")
	}
	if in := h.Stats().BytesIn; in > lookAhead+large {
		t.Errorf("%d bytes were read ahead", in)
	}
	open.Store(true)
	handler.link.Resume()
	for range len(all) / len(one) {
		c.want("1000")
	}
	writer.Wait()
}

// mission: S3
func TestWhatWasSentBeforeTheEndIsReceivedAfterAWait(t *testing.T) {
	e := newEcho(t)
	var open atomic.Bool
	var got atomic.Int64
	e.frame = func(h *echoHandler, body []byte) error {
		if !open.Load() {
			return errNotTaken
		}
		got.Add(1)
		if string(body) == "quit" {
			return &protocols.Close{}
		}
		return nil
	}
	h := start(t, "tcp", Options{}, e)
	c := h.dial()
	for range 10 {
		c.send("x")
	}
	c.send("quit")
	c.Close()
	handler := h.handler()
	eventually(t, "all is read", func() bool { return h.Stats().BytesIn == 10*5+8 })
	open.Store(true)
	handler.link.Resume()
	if err := handler.ended(t); err != nil || got.Load() != 11 {
		t.Errorf("Closed(%v) after %d frames, want 11", err, got.Load())
	}
}

func TestClosedInEveryState(t *testing.T) {
	t.Parallel()
	flood := bytes.Repeat(appendFrame(nil, make([]byte, 1000)), 1000)
	states := map[string]func(t *testing.T, h *house, c *client) *echoHandler{
		"idle": func(_ *testing.T, h *house, c *client) *echoHandler { return h.handler() },
		"half a frame": func(_ *testing.T, h *house, c *client) *echoHandler {
			_, _ = c.Write([]byte{0, 0, 0, 9, 1})
			return h.handler()
		},
		"held": func(t *testing.T, h *house, c *client) *echoHandler {
			c.send("hold")
			e := h.handler()
			eventually(t, "held", func() bool { return e.aheads.Load() > 0 })
			return e
		},
		"held, and the look-ahead is full": func(t *testing.T, h *house, c *client) *echoHandler {
			c.send("hold")
			go func() { _, _ = c.Write(flood) }()
			e := h.handler()
			eventually(t, "full", func() bool { return h.Stats().BytesIn >= lookAhead })
			return e
		},
		"held, and the client is gone": func(t *testing.T, h *house, c *client) *echoHandler {
			c.send("hold")
			e := h.handler()
			eventually(t, "held", func() bool { return e.aheads.Load() > 0 })
			c.Close()
			return e
		},
		"the socket is full": func(t *testing.T, h *house, c *client) *echoHandler {
			e := h.handler()
			for h.Stats().Drains == 0 {
				e.reply(make([]byte, 1<<20))
				time.Sleep(time.Millisecond)
			}
			return e
		},
	}
	for state, reach := range states {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			for _, network := range networks {
				e := newEcho(t)
				e.frame = func(h *echoHandler, body []byte) error {
					if string(body) == "hold" {
						return errNotTaken
					}
					h.reply(body)
					return nil
				}
				h := start(t, network, Options{}, e)
				handler := reach(t, h, h.dial())
				begin := time.Now()
				handler.link.Close(core.ErrTakenOver)
				if err := handler.ended(t); !errors.Is(err, core.ErrTakenOver) {
					t.Errorf("%s: Closed(%v)", network, err)
				}
				if took := time.Since(begin); took > 5*grace {
					t.Errorf("%s: it took %v", network, took)
				}
			}
		})
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	e.open = func(h *echoHandler) { h.link.TickEvery(time.Millisecond) } // taken for 250 ms
	times := make(chan time.Time, 100)
	e.tick = func(h *echoHandler, now time.Time) error {
		times <- now
		h.reply([]byte("tick"))
		if len(times) == 3 {
			h.reply([]byte("bye"))
			return &protocols.Close{}
		}
		return nil
	}
	h := start(t, "tcp", Options{}, e)
	c := h.dial()
	begin := time.Now()
	for range 3 {
		c.want("tick")
	}
	c.want("bye")
	c.wantEnd()
	c.Close()
	if err := h.handler().ended(t); err != nil {
		t.Errorf("Closed(%v)", err)
	}
	if took := time.Since(begin); took < 2*slot {
		t.Errorf("three ticks took %v", took)
	}
	close(times)
	var last time.Time
	for now := range times {
		if !now.After(last) {
			t.Errorf("Tick was told %v after %v", now, last)
		}
		last = now
	}
}

// A client that does not read costs a bounded amount of memory, holds up
// nobody, and is cut off when it has taken nothing for WriteTimeout.
func TestSlowReader(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			e := newEcho(t)
			var unwritten atomic.Int64
			one := appendFrame(nil, make([]byte, 10<<10))
			e.deliver = func(h *echoHandler, out []byte, _ []core.Event) []byte {
				if h.link.Peer().Listener != "slow" {
					return h.flush(out)
				}
				unwritten.Store(max(unwritten.Load(), int64(len(out))))
				h.link.Wake() // there is always more
				return append(out, one...)
			}
			h := start(t, network, Options{WriteTimeout: 300 * time.Millisecond, Flushers: 1}, e)
			other := h.dial()
			h.handler()
			slow := *h
			slow.doors.Name, slow.network = "slow", "pipe"
			slow.doors.Protocols = h.doors.Protocols
			if network != "pipe" {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				slow.network, slow.addr = "tcp", l.Addr().String()
				if err := h.Serve(l, slow.doors); err != nil {
					t.Fatal(err)
				}
			}
			slow.dial()
			handler := slow.handler()
			handler.link.Wake()
			for over := false; !over; {
				select {
				case <-handler.over:
					over = true
				default:
				}
				begin := time.Now()
				other.send("x")
				other.want("x")
				if took := time.Since(begin); took > 200*time.Millisecond {
					t.Errorf("the other waited %v", took)
				}
			}
			if err := handler.ended(t); !errors.Is(err, &core.Error{Code: core.CodeTooSlow}) || h.Stats().SlowWriters != 1 {
				t.Errorf("Closed(%v), %d slow writers", err, h.Stats().SlowWriters)
			}
			if n := unwritten.Load(); n >= 64<<10 {
				t.Errorf("Deliver was called with %d bytes unwritten", n)
			}
		})
	}
}

// A reader that is slow but not dead is served at its pace.
func TestReaderThatTakesItsTime(t *testing.T) {
	t.Parallel()
	const frames, size = 40, 1 << 20
	e := newEcho(t)
	one := appendFrame(nil, make([]byte, size))
	e.deliver = func(h *echoHandler, out []byte, _ []core.Event) []byte {
		if h.delivers.Load() > frames {
			return out
		}
		h.link.Wake()
		return append(out, one...)
	}
	h := start(t, "tcp", Options{WriteTimeout: 2 * time.Second}, e) // a lost segment alone takes 0.2 s
	c := h.dial()
	h.handler().link.Wake()
	got := 0
	for buf := make([]byte, 2<<20); got < frames*(size+4); time.Sleep(20 * time.Millisecond) {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		got += n
	}
	if h.Stats().Drains == 0 {
		t.Error("the socket was never full: this test proves nothing")
	}
}
