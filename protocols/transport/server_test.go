package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

func TestOptionsAreValidatedAtOnce(t *testing.T) {
	if err := (Options{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	err := Options{Flushers: -1, MaxConnections: -1, MaxConnectionsPerSecond: -2, FrameMax: 1, SniffTimeout: -1, WriteTimeout: 1}.Validate()
	if n := strings.Count(err.Error(), "\n") + 1; n != 6 {
		t.Errorf("%d faults, want 6:\n%v", n, err)
	}
	if err := (ListenerOptions{Name: "x"}).Validate(); err == nil {
		t.Error("a listener without protocols is valid")
	}
}

func TestSniffing(t *testing.T) {
	tests := []struct {
		what, send string
		slowly     bool
		protocol   string // "": closed without a word
		failures   uint64
	}{
		{"the first that matches", "a", false, "first", 0},
		{"the second", "bcd", false, "second", 0},
		{"one that needs more bytes", "12345678901z", false, "third", 0},
		{"the same byte by byte", "12345678901z", true, "third", 0},
		{"nobody's", "x", false, "", 1},
		{"nobody's in the end", "123456789012345", false, "", 1},
		{"nothing, and then the end", "", false, "", 0},
	}
	onEach(t, func(t *testing.T, network string) {
		for _, test := range tests {
			h, opened := startThree(t, network, Options{})
			c := h.dial()
			for i := range test.send {
				part := test.send[i : i+1]
				if !test.slowly {
					part = test.send
				}
				if _, err := c.Write([]byte(part)); err != nil {
					t.Fatalf("%s: %v", test.what, err)
				}
				if !test.slowly {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if test.protocol == "" {
				if test.send == "" {
					c.Close()
				}
				eventually(t, test.what, func() bool { s := h.Stats(); return s.Accepted == 1 && s.Open == 0 })
				if n := h.Stats().SniffFailures; n != test.failures {
					t.Errorf("%s: %d failures, want %d", test.what, n, test.failures)
				}
				continue
			}
			select {
			case got := <-opened:
				if got != test.protocol {
					t.Errorf("%s: %s was opened, want %s", test.what, got, test.protocol)
				}
			case <-time.After(soon):
				t.Errorf("%s: nothing was opened", test.what)
			}
		}
	})
}

// startThree serves three protocols on one listener: what begins with an a,
// with a b, and with eleven bytes and a z.
func startThree(t *testing.T, network string, o Options) (*house, chan string) {
	opened := make(chan string, 10)
	var all []protocols.Protocol
	for i, name := range []string{"first", "second"} {
		e := newEcho(t)
		e.name, e.begin = name, byte('a'+i)
		e.open = func(h *echoHandler) { opened <- h.name }
		all = append(all, e)
	}
	last := newEcho(t)
	last.name = "third"
	last.open = func(h *echoHandler) { opened <- h.name }
	all = append(all, patient{last})
	h := &house{Server: New(o), t: t, network: network, doors: ListenerOptions{Name: "shared", Protocols: all}}
	t.Cleanup(func() {
		if err := h.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	h.listen()
	return h, opened
}

type patient struct{ *echo }

func (patient) Sniff(in []byte) protocols.Match {
	switch {
	case len(in) > 0 && in[0] != '1':
		return protocols.NoMatch
	case len(in) < prefix:
		return protocols.NeedMore
	case len(in) > prefix:
		panic("more than 12 bytes")
	case in[11] == 'z':
		return protocols.IsMatch
	}
	return protocols.NoMatch
}

// mission: S11
func TestSniffingTakesItsTimeOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, network string) {
		h, _ := startThree(t, network, Options{SniffTimeout: 100 * time.Millisecond})
		begin := time.Now() // the server's time runs from the accept, which may come before dial returns
		silent, slow := h.dial(), h.dial()
		go func() {
			for _, b := range []byte("1234567890") {
				if _, err := slow.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		silent.wantEnd()
		slow.wantEnd()
		if took := time.Since(begin); took < 100*time.Millisecond || took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		eventually(t, "both are counted", func() bool { return h.Stats().SniffFailures == 2 })
	})
}

func TestConnectionsAreLimited(t *testing.T) {
	h := start(t, "tcp", Options{MaxConnections: 3}, newEcho(t))
	h.dial()
	h.handler()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := *h
	own.addr, own.doors.MaxConnections, own.doors.Name = l.Addr().String(), 1, "own"
	if err := h.Serve(l, own.doors); err != nil {
		t.Fatal(err)
	}
	one := own.dial()
	h.handler()
	own.dial().wantEnd() // the listener is full
	two := h.dial()
	h.handler()
	h.dial().wantEnd() // the server is full
	one.Close()
	two.Close()
	eventually(t, "they are gone", func() bool { return h.Stats().Open == 1 })
	c := own.dial()
	c.send("x")
	c.want("x")
	if s := h.Stats(); s.Refused != 2 || s.Accepted != 4 {
		t.Errorf("%d refused, %d accepted, want 2 and 4", s.Refused, s.Accepted)
	}
	if _, err := h.Pipe(ListenerOptions{}); err == nil {
		t.Error("a pipe without a protocol was served")
	}
}

func TestRate(t *testing.T) {
	r := rate{perSecond: 10}
	at := time.Unix(1000, 0)
	for i := range 10 {
		if d := r.take(at); d > 0 {
			t.Errorf("number %d waits %v, a burst of a second is free", i, d)
		}
	}
	if got, want := r.take(at), 100*time.Millisecond; got != want {
		t.Errorf("number 11 waits %v, want %v", got, want)
	}
	if d := r.take(at.Add(5 * time.Second)); d > 0 {
		t.Errorf("after a quiet time one waits %v", d)
	}
	if d := (&rate{perSecond: -1}).take(at); d != 0 {
		t.Errorf("without a limit one waits %v", d)
	}
}

// A broken listener fails some times before it accepts.
type brokenListener struct {
	net.Listener
	fail  atomic.Int64
	calls atomic.Int64
}

func (l *brokenListener) Accept() (net.Conn, error) {
	l.calls.Add(1)
	if l.fail.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsAreWaitedOut(t *testing.T) {
	e := newEcho(t)
	h := start(t, "pipe", Options{}, e)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broken := &brokenListener{Listener: l}
	broken.fail.Store(4)
	h.network, h.addr = "tcp", l.Addr().String()
	begin := time.Now()
	if err := h.Serve(broken, h.doors); err != nil {
		t.Fatal(err)
	}
	c := h.dial()
	c.send("x")
	c.want("x")
	if took := time.Since(begin); took < 75*time.Millisecond {
		t.Errorf("5, 10, 20 and 40 ms took %v: it spins", took)
	}
	broken.fail.Store(1 << 40) // Shutdown does not wait for a listener that only fails
}

// mission: S11
func TestShutdownTellsEverybody(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, network string) {
		e := newEcho(t)
		h := start(t, network, Options{}, e)
		var clients []*client
		var handlers []*echoHandler
		for range 20 {
			clients = append(clients, h.dial())
			handlers = append(handlers, h.handler())
		}
		var busy sync.WaitGroup
		for _, c := range clients[:10] {
			busy.Go(func() {
				for {
					if _, err := c.Write(appendFrame(nil, []byte("x"))); err != nil {
						return
					}
					if _, err := c.next(); err != nil {
						c.Close()
						return
					}
				}
			})
		}
		time.Sleep(10 * time.Millisecond)
		done := make(chan error, 1)
		begin := time.Now()
		go func() { done <- h.Shutdown(context.Background()) }()
		for _, c := range clients[10:] {
			c.wantEnd()
			c.Close()
		}
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(begin); took > 4*grace {
			t.Errorf("it took %v", took)
		}
		for _, e := range handlers {
			if err := e.ended(t); !errors.Is(err, &core.Error{Code: core.CodeUnavailable}) && !isEOF(err) {
				t.Errorf("Closed(%v), want 503", err)
			}
		}
		busy.Wait()
		if _, err := h.Pipe(h.doors); !errors.Is(err, errShut) {
			t.Errorf("a connection after Shutdown: %v", err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Serve(l, h.doors); !errors.Is(err, errShut) {
			t.Errorf("a listener after Shutdown: %v", err)
		}
	})
}

func isEOF(err error) bool { return err != nil && strings.Contains(err.Error(), "EOF") }

func TestShutdownEndsWhoIsStillSniffed(t *testing.T) {
	h, _ := startThree(t, "tcp", Options{})
	c := h.dial()
	eventually(t, "it is accepted", func() bool { return h.Stats().Open == 1 })
	if err := h.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	c.wantEnd()
	if n := h.Stats().SniffFailures; n != 0 {
		t.Errorf("%d sniff failures", n)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	stuck := make(chan struct{})
	e.frame = func(*echoHandler, []byte) error { <-stuck; return nil }
	h := start(t, "tcp", Options{}, e)
	h.dial() // one whose socket is full
	reader := h.handler()
	c := h.dial()
	c.send("x")
	handler := h.handler()
	eventually(t, "Receive is stuck", func() bool { return handler.receives.Load() == 1 })
	for h.Stats().Drains == 0 {
		reader.reply(make([]byte, 1<<20))
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	var cut time.Duration
	var watch sync.WaitGroup
	watch.Go(func() { <-reader.over; cut = time.Since(begin) })
	err := h.Shutdown(ctx)
	if err == nil || !strings.Contains(err.Error(), "1 connection") {
		t.Errorf("Shutdown: %v, want one that is stuck", err)
	}
	if took := time.Since(begin); took > 2*grace {
		t.Errorf("it took %v", took)
	}
	watch.Wait()
	if cut > grace/2 {
		t.Errorf("the one whose socket is full was cut after %v", cut)
	}
	close(stuck)
	if err := handler.ended(t); !errors.Is(err, &core.Error{Code: core.CodeUnavailable}) {
		t.Errorf("Closed(%v)", err)
	}
}

func TestNothingOfAPanicIsLogged(t *testing.T) {
	var log bytes.Buffer
	e := newEcho(t)
	e.frame = func(*echoHandler, []byte) error { panic("boom") }
	h := start(t, "pipe", Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, e)
	h.dial().send("secret")
	_ = h.handler().ended(t)
	for _, want := range []string{"boom", "remote=pipe", "echo_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, &log)
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("the log has what the client sent")
	}
}

func TestWheel(t *testing.T) {
	type seen struct {
		Slot int
		Who  string
	}
	var w wheel
	names := map[*conn]string{}
	put := func(name string, every time.Duration) *conn {
		c := &conn{}
		names[c] = name
		w.set(c, every)
		return c
	}
	fast, long := put("fast", time.Nanosecond), put("long", 64*time.Second+slot)
	second := put("second", time.Second)
	var got []seen
	for i := 1; i <= 258; i++ {
		for _, c := range w.advance(nil) {
			if names[c] != "fast" {
				got = append(got, seen{i, names[c]})
			}
		}
		switch i {
		case 5:
			w.set(second, 2*time.Second)
		case 25:
			w.stop(second)
			w.set(second, slot) // it has ended
			w.stop(fast)
		}
	}
	want := []seen{{4, "second"}, {13, "second"}, {21, "second"}, {257, "long"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	w.stop(long)
	if w.heads != (wheel{}).heads {
		t.Error("something is left in the wheel")
	}
}

// Many put events into many outboxes while connections are read, written,
// ticked and blocked: nothing is lost, and everything is in order.
func TestNoWakeIsLost(t *testing.T) {
	onEach(t, func(t *testing.T, network string) {
		const conns, producers, each = 8, 4, 3000
		e := newEcho(t)
		var opened atomic.Int64
		e.open = func(h *echoHandler) { // a tick would mend a lost wake, so half of them have none
			if opened.Add(1)%2 == 0 {
				h.link.TickEvery(time.Hour)
			} else {
				h.link.TickEvery(slot)
			}
		}
		h := start(t, network, Options{Flushers: 3}, e)
		var clients []*client
		var handlers []*echoHandler
		for range conns {
			clients = append(clients, h.dial())
			handlers = append(handlers, h.handler())
		}
		var all sync.WaitGroup
		for p := range producers {
			all.Go(func() {
				for i := range each {
					h := handlers[(i+p)%conns]
					h.put(fmt.Appendf(nil, "%d %d", p, i))
					if i%64 == p {
						runtime.Gosched()
					}
				}
			})
		}
		for i, c := range clients {
			all.Go(func() { // the client sends as well, so that its reader flushes too
				for j := range 200 {
					if _, err := c.Write(appendFrame(nil, fmt.Appendf(nil, "%d %d", producers, j))); err != nil {
						t.Errorf("client %d: %v", i, err)
						return
					}
				}
			})
			all.Go(func() {
				last := map[int]int{}
				for range producers*each/conns + 200 {
					got, err := c.next()
					if err != nil {
						t.Errorf("client %d: %v", i, err)
						return
					}
					var p, n int
					if _, err := fmt.Sscan(got, &p, &n); err != nil {
						t.Errorf("client %d: %q: %v", i, got, err)
						return
					}
					if before, ok := last[p]; ok && n <= before {
						t.Errorf("client %d: %d of %d came after %d", i, n, p, before)
					}
					last[p] = n
				}
			})
		}
		all.Wait()
	})
}

// put does what an outbox does: it wakes only when it gets its first event.
func (h *echoHandler) put(body []byte) {
	h.mu.Lock()
	first := len(h.replies) == 0
	h.replies = appendFrame(h.replies, body)
	h.mu.Unlock()
	if first {
		h.link.Wake()
	}
}

// A message in and a message out cost no allocation here: what is left is the
// adapters' and core's.
func TestRoundTripAllocatesNothing(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		e := newEcho(t)
		h := start(t, network, Options{}, mirror{e})
		c := h.dial()
		in, out := make([]byte, 100), make([]byte, 100)
		trip := func() {
			if _, err := c.Write(out); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, in); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(1000, trip); n >= 1 { // fewer: the pools, when the collector has emptied them
			t.Errorf("over %s: %v allocations a round trip", network, n)
		}
	}
}

// BenchmarkRoundTrip is one client that waits for each answer: reads, writes
// and the hand-over between goroutines of both sides.
func BenchmarkRoundTrip(b *testing.B) {
	h := start(b, "tcp", Options{}, mirror{newEcho(b)})
	c := h.dial()
	in, out := make([]byte, 100), make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(out); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGather is many that wake one, as publishers do a subscriber: how
// many of them share a write.
func BenchmarkGather(b *testing.B) {
	e := newEcho(b)
	h := start(b, "tcp", Options{}, e)
	c := h.dial()
	go func() { _, _ = io.Copy(io.Discard, c) }()
	one := h.handler()
	body := make([]byte, 100)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			one.put(body)
		}
	})
	b.ReportMetric(float64(b.N)/float64(max(1, h.Stats().Writes)), "msgs/write")
}

// A mirror gives bytes back as they are.
type mirror struct{ *echo }

func (m mirror) Open(l protocols.Link, _ *core.Broker) protocols.Handler {
	return &mirrorHandler{link: l}
}

type mirrorHandler struct {
	link protocols.Link
	mu   sync.Mutex
	back []byte
}

func (h *mirrorHandler) Receive(in []byte) (int, error) {
	h.mu.Lock()
	h.back = append(h.back, in...)
	h.mu.Unlock()
	h.link.Wake()
	return len(in), nil
}

func (h *mirrorHandler) Deliver(out []byte, _ []core.Event) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	out = append(out, h.back...)
	h.back = h.back[:0]
	return out
}

func (h *mirrorHandler) Tick(time.Time) error { return nil }
func (h *mirrorHandler) Closed(error)         {}
