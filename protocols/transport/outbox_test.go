package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
)

// bus is a protocol with a session: a frame "topic body" is published, and
// all that is published on the topic "all" or the client's own name comes
// back.
type bus struct{ t testing.TB }

func (bus) Name() string                 { return "bus" }
func (bus) Sniff([]byte) protocols.Match { return protocols.IsMatch }
func (b bus) Open(l protocols.Link, broker *core.Broker) protocols.Handler {
	return &busHandler{t: b.t, link: l, broker: broker}
}

type busHandler struct {
	t       testing.TB
	link    protocols.Link
	broker  *core.Broker
	session *core.Session
	waits   bool
}

func (h *busHandler) Receive(in []byte) (n int, err error) {
	for {
		rest := in[n:]
		if len(rest) < 4 || len(rest) < 4+int(binary.BigEndian.Uint32(rest)) {
			return n, nil
		}
		body := rest[4 : 4+binary.BigEndian.Uint32(rest)]
		if h.session == nil {
			n += 4 + len(body)
			return n, h.login(string(body))
		}
		if err := h.publish(string(body)); err != nil {
			return n, err
		}
		n += 4 + len(body)
	}
}

func (h *busHandler) login(name string) error {
	id, err := h.broker.Enter(context.Background(), core.Login{Identity: core.Identity{Client: name, Protocol: "bus", Remote: "pipe"}})
	if err != nil {
		return &protocols.Close{Err: err}
	}
	h.session = h.broker.Open(id, core.SessionSpec{}, 1, h.link)
	h.link.Attach(h.session.Events())
	return core.ErrWait
}

func (h *busHandler) publish(body string) error {
	topic, text, _ := strings.Cut(body, " ")
	m := &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: topic},
		QoS:     1, Body: []byte(text), Priority: core.DefaultPriority,
	}
	return h.session.Publish(m, 9)
}

func (h *busHandler) Deliver(out []byte, ev []core.Event) []byte {
	for i := range ev {
		switch e := &ev[i]; e.Kind {
		case core.Confirmed:
			switch e.Token {
			case 1:
				for n, topic := range []string{"all", h.session.Identity().Client} {
					h.session.Listen(core.Sub{ID: uint32(n + 1), Where: core.Address{Exchange: core.TopicExchange, Topic: topic}}, 2)
				}
			case 2:
				if h.waits {
					h.link.Resume()
					out = appendFrame(out, []byte("ready"))
				}
				h.waits = true
			}
		case core.Delivered:
			out = appendFrame(out, e.Message.Body)
			h.session.Events().Release(1, e.Message.Size())
		case core.Again:
			h.link.Resume()
		case core.Evicted:
			out = appendFrame(out, fmt.Appendf(nil, "evicted: %v", e.Err))
		case core.Cancelled, core.Drained:
		}
	}
	return out
}

func (h *busHandler) Tick(time.Time) error { return nil }

func (h *busHandler) Closed(error) {
	if h.session != nil {
		h.session.Close(core.Closing{})
	}
}

func startBus(t *testing.T, network string) *house {
	b, err := core.New(core.Options{Store: memory.New(memory.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{Server: New(Options{Broker: b}), t: t, network: network}
	h.doors = ListenerOptions{Name: "bus", Protocols: []protocols.Protocol{bus{t}}}
	h.listen()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := errors.Join(h.Shutdown(ctx), b.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *house) enter(name string) *client {
	c := h.dial()
	c.send(name)
	c.want("ready")
	return c
}

// Everybody publishes to everybody: all events arrive, in the order of their
// publisher.
func TestEventsOfManySessions(t *testing.T) {
	onEach(t, func(t *testing.T, network string) {
		const clients, each = 5, 400
		h := startBus(t, network)
		var all sync.WaitGroup
		var ready []*client
		for i := range clients {
			ready = append(ready, h.enter(fmt.Sprint("c", i)))
		}
		for i, c := range ready {
			all.Go(func() {
				for n := range each {
					if _, err := c.Write(appendFrame(nil, fmt.Appendf(nil, "all %d %d", i, n))); err != nil {
						t.Error(err)
						return
					}
				}
			})
			all.Go(func() {
				var next [clients]int
				for range clients * each {
					got, err := c.next()
					var from, n int
					if _, scan := fmt.Sscan(got, &from, &n); err != nil || scan != nil {
						t.Errorf("%q: %v", got, errors.Join(err, scan))
						return
					}
					if next[from] != n {
						t.Errorf("client %d: %d of %d, want %d", i, n, from, next[from])
					}
					next[from] = n + 1
				}
			})
		}
		all.Wait()
	})
}

// mission: S11
func TestShutdownIsToldAsAnEvent(t *testing.T) {
	onEach(t, func(t *testing.T, network string) {
		h := startBus(t, network)
		c := h.enter("c")
		done := make(chan error, 1)
		go func() { done <- h.Shutdown(context.Background()) }()
		c.want("evicted: shutting down")
		c.wantEnd()
		c.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An idle connection's outbox gives its spare slice back.
func TestQuietOutboxIsStripped(t *testing.T) {
	h := startBus(t, "tcp")
	c := h.enter("c")
	c.send("c hello")
	c.want("hello")
	var one *conn
	h.each(func(c *conn) { one = c })
	for range 3 { // ticks, as the wheel gives them: the first may still see events
		one.signal(dueTick)
		eventually(t, "the tick is done", func() bool { return one.state.Load()&(owned|dueTick) == 0 })
	}
	if !one.stripped {
		t.Error("the outbox still has a spare slice")
	}
	c.send("c again")
	c.want("again")
}

// Events go to the handler in portions, so that the output stays small, and
// those that an end in the middle has left come with the goodbye, in one call.
func TestEventsAreDeliveredInPortions(t *testing.T) {
	e := newEcho(t)
	var portions []int
	e.deliver = func(h *echoHandler, out []byte, ev []core.Event) []byte {
		portions = append(portions, len(ev))
		for i := range ev {
			out = append(out, ev[i].Message.Body...)
			if ev[i].Token == 1 {
				h.link.Close(nil)
			}
		}
		if n := len(out); n > 64<<10 {
			t.Errorf("%d bytes at once", n)
		}
		return out
	}
	h := start(t, "pipe", Options{}, e)
	c := &conn{server: h.Server, handler: &echoHandler{echo: e}}
	c.handler.(*echoHandler).link = c
	c.conn, _ = net.Pipe()
	c.wire, c.kicked = sink{}, make(chan struct{}, 1)
	k := getKit()
	k.fresh = true
	for i := range 100 {
		k.events = append(k.events, core.Event{Kind: core.Delivered, Message: &core.Message{Body: make([]byte, 1000)}})
		if i == 40 {
			k.events[i].Token = 1
		}
	}
	c.state.Store(owned)
	if !c.turn(k) {
		t.Fatal("the socket is full")
	}
	c.goodbye(c.end.Load())
	if diff := cmp.Diff([]int{30, 30, 40}, portions); diff != "" {
		t.Error(diff)
	}
}

// A sink takes all.
type sink struct{ plainWire }

func (sink) try(b []byte) (int, error) { return len(b), nil }
