package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// handshake is how long a connection may take to be ready.
const handshake = 20 * time.Second

// A life is one life of the broker, from its start to its end.
type life struct {
	ctx    context.Context // done: let go
	broker *broker
	last   bool // nothing new is published, everything is acknowledged at once
	random *rand.Rand
}

// A client lives through one life: it connects, works until the connection
// ends or the life is over, and returns why it ended.
type client interface {
	label() string
	live(l *life) error
}

// A wire is a connection with buffers. One goroutine reads it; writing is
// under the mutex.
type wire struct {
	nc net.Conn
	r  *bufio.Reader
	mu sync.Mutex
	w  *bufio.Writer
}

// dial connects; the connection ends with the life.
func (l *life) dial(addr string) (*wire, func(), error) {
	dialer := net.Dialer{Timeout: handshake}
	nc, err := dialer.DialContext(l.ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(l.ctx, func() { nc.Close() })
	end := func() { stop(); nc.Close() }
	w := &wire{nc: nc, r: bufio.NewReaderSize(nc, 64<<10), w: bufio.NewWriterSize(nc, 64<<10)}
	return w, end, nc.SetDeadline(time.Now().Add(handshake))
}

// ready ends the handshake.
func (w *wire) ready() error { return w.nc.SetDeadline(time.Time{}) }

// say writes b and flushes.
func (w *wire) say(b []byte) error {
	if err := w.put(b); err != nil {
		return err
	}
	return w.flush()
}

func (w *wire) put(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(b)
	return err
}

func (w *wire) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Flush()
}

// A tongue is how a publisher speaks. It belongs to one connection at a time.
type tongue interface {
	// hello does the handshake and returns below which number the broker says
	// it has everything; 0 where the protocol does not say.
	hello(l *life) (w *wire, end func(), known uint64, err error)
	// publish appends what the step asks for.
	publish(out []byte, s step) []byte
	// answer reads one packet and tells the book.
	answer(w *wire, b *book) error
}

// A publisher publishes what its book says.
type publisher struct {
	book   *book
	tongue tongue
}

func (p *publisher) label() string { return p.book.name }

// live: one goroutine writes, this one reads answers.
func (p *publisher) live(l *life) error {
	w, end, known, err := p.tongue.hello(l)
	if err != nil {
		return err
	}
	defer end()
	if err := w.ready(); err != nil {
		return err
	}
	p.book.reopen(known, l.last)
	var writing sync.WaitGroup
	var wrote error
	writing.Go(func() {
		if wrote = p.write(w); wrote != nil {
			end() // the reader must learn of it
		}
	})
	for err == nil {
		err = p.tongue.answer(w, p.book)
	}
	p.book.stop()
	end()
	writing.Wait()
	if l.ctx.Err() != nil {
		return l.ctx.Err()
	}
	return errors.Join(err, wrote)
}

func (p *publisher) write(w *wire) error {
	var out []byte
	for {
		s, ok := p.book.next(false)
		if !ok {
			if err := w.flush(); err != nil {
				return err
			}
			if s, ok = p.book.next(true); !ok {
				return nil
			}
		}
		out = p.tongue.publish(out[:0], s)
		if err := w.put(out); err != nil {
			return err
		}
	}
}

// A held is a delivery that is not yet acknowledged.
type held struct {
	message message
	entry   uint64
	handle  string // what the protocol acknowledges it by
}

// An ear is how a consumer listens. It belongs to one connection at a time.
type ear interface {
	// hello does the handshake and subscribes.
	hello(l *life) (*wire, func(), error)
	// hear reads one packet. handle is empty if it was no delivery but, say,
	// the answer to an acknowledgement, which t is told. The body is lent.
	hear(w *wire, t *target) (d delivery, handle string, err error)
	// ack appends the acknowledgements of some deliveries, each to be answered
	// if told.
	ack(out []byte, some []held, told bool) []byte
	// answers says whether acknowledgements can be answered.
	answers() bool
}

// How a consumer acknowledges while the broker is to be killed: it keeps some
// of the newest back, and now and then one for good, so that what is settled
// has holes.
const (
	keepBack    = 48
	ackAtOnce   = 32
	keepForGood = 64 // one in so many
	keptForGood = 100
)

// A consumer reads one target.
type consumer struct {
	name   string
	target *target
	ear    ear
}

func (c *consumer) label() string { return c.name }

func (c *consumer) live(l *life) error {
	w, end, err := c.ear.hello(l)
	if err != nil {
		return err
	}
	defer end()
	if err := w.ready(); err != nil {
		return err
	}
	c.target.reopen()
	if err = c.read(l, w); l.ctx.Err() != nil {
		return l.ctx.Err()
	}
	return err
}

func (c *consumer) read(l *life, w *wire) error {
	var holding []held
	var out []byte
	kept := 0
	for {
		d, handle, err := c.ear.hear(w, c.target)
		if err != nil {
			return err
		}
		if handle != "" {
			m, ok := c.target.deliver(d)
			switch {
			case !ok: // a fault; what it is can never be said
			case !l.last && kept < keptForGood && l.random.IntN(keepForGood) == 0 && c.ear.answers():
				kept++
			default:
				holding = append(holding, held{m, d.entry, handle})
			}
		}
		some := c.due(l, w, holding)
		if some == 0 {
			continue
		}
		// What is answered goes another way through a broker than what is not.
		told := c.ear.answers() && (l.last || l.random.IntN(2) == 0)
		for _, h := range holding[:some] {
			c.target.ack(h.message, told)
		}
		out = c.ear.ack(out[:0], holding[:some], told)
		holding = holding[:copy(holding, holding[some:])]
		if err := w.say(out); err != nil {
			return err
		}
	}
}

// due is how many of the oldest deliveries are acknowledged now.
func (c *consumer) due(l *life, w *wire, holding []held) int {
	switch {
	case l.last && (w.r.Buffered() == 0 || len(holding) >= ackAtOnce):
		return len(holding)
	case !l.last && len(holding) >= keepBack+ackAtOnce:
		return ackAtOnce
	}
	return 0
}

// body reads n octets and one more, which must be end; what is returned is
// good until the next call with the same spare.
func (w *wire) body(spare []byte, n int, end byte) ([]byte, error) {
	if n < 0 || n > bodyMost {
		return nil, fmt.Errorf("a body of %d octets", n)
	}
	b := append(spare[:0], make([]byte, n+1)...)
	if _, err := io.ReadFull(w.r, b); err != nil {
		return nil, err
	}
	if b[n] != end {
		return nil, fmt.Errorf("a body of %d octets is followed by %q", n, b[n])
	}
	return b[:n], nil
}
