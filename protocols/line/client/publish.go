package client

import (
	"context"
	"fmt"
	"sort"
	"strconv"
)

// A Pending is a request that the broker has not confirmed yet.
type Pending struct {
	id   uint64
	done chan struct{}
	err  error

	report *Client // tells OnError, since nobody waits
}

// Done is closed when the answer is there.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Err is the answer, after Done: nil when the disk has it.
func (p *Pending) Err() error { return p.err }

// Wait waits for the answer.
func (p *Pending) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *Pending) end(err error) {
	p.err = err
	close(p.done)
}

// tell reports what nobody waits for. No lock is held: OnError may call us.
func (p *Pending) tell() {
	if p.report != nil && p.err != nil {
		p.report.report(p.err)
	}
}

// Publish sends m and waits until it is confirmed: kept by every queue it
// went to, or refused with an *Error.
func (c *Client) Publish(ctx context.Context, m Message) error {
	p, err := c.Send(ctx, m)
	if err != nil {
		return err
	}
	return p.Wait(ctx)
}

// Send is Publish without the waiting: many may be under way, up to
// Options.Window. It waits while there are more.
func (c *Client) Send(ctx context.Context, m Message) (*Pending, error) {
	if err := check(&m); err != nil {
		return nil, err
	}
	return c.numbered(ctx, waited, func(out []byte, id uint64) []byte { return appendPub(out, &m, id) })
}

func check(m *Message) error {
	if err := checkWord("the destination", m.Dest); err != nil {
		return err
	}
	if m.Reply != "" {
		if err := checkWord("the reply address", m.Reply); err != nil {
			return err
		}
	}
	for _, h := range m.Headers {
		if h.Name == "" {
			return fmt.Errorf("a header without a name has the value %q", h.Value)
		}
	}
	return nil
}

// An audience is who is told how a request went: somebody waits, or OnError.
type audience bool

const (
	waited   audience = false
	reported audience = true
)

// numbered sends a request with the next id.
func (c *Client) numbered(ctx context.Context, who audience, request func(out []byte, id uint64) []byte) (*Pending, error) {
	p := &Pending{done: make(chan struct{})}
	if who == reported {
		p.report = c
	}
	err := c.enqueue(ctx, func() bool { return len(c.pending) < c.options.Window }, func() {
		c.lastID++
		p.id = c.lastID
		c.pending = append(c.pending, p)
		c.out = request(c.out, p.id)
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Flush waits until everything sent so far is answered. What was refused says
// so in its own Pending.
func (c *Client) Flush(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.lastID
	return c.await(ctx, func() bool { return len(c.pending) == 0 || c.pending[0].id > last })
}

// confirm ends all up to an id.
func (c *Client) confirm(id uint64) {
	c.mu.Lock()
	n := sort.Search(len(c.pending), func(i int) bool { return c.pending[i].id > id })
	for _, p := range c.pending[:n] {
		p.end(nil) // before Flush can see that they are gone
	}
	c.pending = c.pending[n:]
	c.room.Broadcast()
	c.mu.Unlock()
}

// refuse ends one with an error.
func (c *Client) refuse(id uint64, e *Error) {
	c.mu.Lock()
	n := sort.Search(len(c.pending), func(i int) bool { return c.pending[i].id >= id })
	var p *Pending
	if n < len(c.pending) && c.pending[n].id == id {
		p = c.pending[n]
		c.pending = append(c.pending[:n:n], c.pending[n+1:]...)
		p.end(e)
	}
	c.room.Broadcast()
	c.mu.Unlock()
	if p != nil {
		p.tell()
	}
}

// settle sends ACK or NACK with an id.
func (c *Client) settle(ctx context.Context, who audience, verb string, d *Delivery, option string) (*Pending, error) {
	return c.numbered(ctx, who, func(out []byte, id uint64) []byte {
		out = append(out, verb...)
		out = strconv.AppendInt(out, int64(d.Sid), 10)
		out = append(out, ' ')
		out = strconv.AppendUint(out, d.Seq, 10)
		out = append(out, option...)
		out = append(out, " id="...)
		out = strconv.AppendUint(out, id, 10)
		return append(out, '\n')
	})
}
