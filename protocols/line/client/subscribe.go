package client

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"time"
)

// Ack is who settles what comes.
type Ack uint8

// Who settles what comes.
const (
	AckDefault Ack = iota // a queue's: AckManual; a topic's: AckNone
	AckNone               // live: nobody
	AckAuto               // the broker, as it sends
	AckManual             // the reader, by Delivery.Ack
)

func (a Ack) option() string { return [...]string{"", " ack=none", " ack=auto", " ack=manual"}[a] }

// SubOptions say how a subscription reads. The zero value is right for most.
type SubOptions struct {
	Ack        Ack
	Window     int           // unsettled deliveries; 0: 1,000, as the broker says
	Lease      time.Duration // not settled by then, it goes back; 0: none
	NoRetained bool          // without the topics' last values

	// Of a topic or exchange: a queue stands behind it, and what comes is
	// acknowledged as a queue's.
	Group   string // shared with its other members, on any protocol
	Durable string // kept under this name while away; Options.Client is needed
}

// A Subscription is what comes from one SUB.
type Subscription struct {
	client *Client
	sid    int
	limit  int // of buffered live messages; 0: the broker's window is
	manual bool
	reply  string

	mu     sync.Mutex
	buffer []*Delivery
	missed uint64
	ready  chan struct{} // something came
	over   chan struct{}
	err    error
}

// Subscribe reads from a queue, q/..., or listens to a topic filter, t/...,
// or an exchange, x/EXCHANGE/KEY.
func (c *Client) Subscribe(ctx context.Context, dest string, o SubOptions) (*Subscription, error) {
	if err := checkWord("the destination", dest); err != nil {
		return nil, err
	}
	queue := (len(dest) > 1 && dest[:2] == "q/") || o.Group != "" || o.Durable != ""
	s := c.newSubscription()
	s.manual = o.Ack == AckManual || (o.Ack == AckDefault && queue)
	if !queue && (o.Ack == AckDefault || o.Ack == AckNone) {
		s.limit = c.options.Buffer
	}
	line := "SUB " + strconv.Itoa(s.sid) + " " + dest + o.Ack.option()
	if o.Window > 0 {
		line += " window=" + strconv.Itoa(o.Window)
	}
	line = string(appendLapse([]byte(line), "lease", o.Lease))
	line = string(appendOption([]byte(line), "group", o.Group))
	line = string(appendOption([]byte(line), "durable", o.Durable))
	if o.NoRetained {
		line += " retained=none"
	}
	return s, c.subscribe(ctx, s, line)
}

// Replies makes a reply address, which lives as long as the client, and
// listens to it. Address is what a Message's Reply says.
func (c *Client) Replies(ctx context.Context) (*Subscription, error) {
	s := c.newSubscription()
	s.limit = c.options.Buffer
	return s, c.subscribe(ctx, s, "SUB "+strconv.Itoa(s.sid)+" r/new")
}

func (c *Client) newSubscription() *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextSid++
	s := &Subscription{client: c, sid: c.nextSid, ready: make(chan struct{}, 1), over: make(chan struct{})}
	c.subs[s.sid] = s
	return s
}

func (c *Client) subscribe(ctx context.Context, s *Subscription, line string) error {
	answer, err := c.call(ctx, line, s.sid)
	if err != nil {
		c.mu.Lock()
		delete(c.subs, s.sid)
		c.mu.Unlock()
		return fmt.Errorf("%s: %w", line, err)
	}
	s.reply = answer.ok["as"]
	return nil
}

// Address is the reply address of Replies.
func (s *Subscription) Address() string { return s.reply }

// Missed is how many live messages found no room in the buffer.
func (s *Subscription) Missed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missed
}

// Next waits for a message. After the subscription's end its error says why:
// ErrClosed after Unsubscribe.
func (s *Subscription) Next(ctx context.Context) (*Delivery, error) {
	for {
		if d := s.take(); d != nil {
			return d, nil
		}
		select {
		case <-s.ready:
		case <-s.over:
			if d := s.take(); d != nil {
				return d, nil
			}
			return nil, s.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *Subscription) take() *Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buffer) == 0 {
		return nil
	}
	d := s.buffer[0]
	s.buffer[0] = nil
	s.buffer = s.buffer[1:]
	if len(s.buffer) > 0 {
		s.nudge()
	}
	return d
}

func (s *Subscription) nudge() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// All is Next in a loop. It ends with an error, the last thing it gives, unless
// the loop is left before.
func (s *Subscription) All(ctx context.Context) iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		for {
			d, err := s.Next(ctx)
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// Handle calls do for each message, one after the other, and settles by what
// it returns: nil is Ack, an error is Nack. It returns when the subscription or
// the context ends.
func (s *Subscription) Handle(ctx context.Context, do func(*Delivery) error) error {
	for d, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		if err := do(d); err != nil {
			err = d.Nack()
			if err != nil {
				return err
			}
			continue
		}
		if err := d.Ack(); err != nil {
			return err
		}
	}
	return nil
}

// Unsubscribe ends the subscription. What came can still be read and settled.
func (s *Subscription) Unsubscribe(ctx context.Context) error {
	err := s.client.enqueue(ctx, nil, func() {
		s.client.out = append(s.client.out, "UNSUB "+strconv.Itoa(s.sid)+"\n"...)
	})
	if err != nil {
		return err
	}
	select {
	case <-s.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.over)
	}
}

func (s *Subscription) add(d *Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit > 0 && len(s.buffer) >= s.limit {
		s.missed++
		return
	}
	s.buffer = append(s.buffer, d)
	s.nudge()
}

// deliver gives a MSG to its subscription or GET.
func (c *Client) deliver(d *Delivery) {
	c.mu.Lock()
	s, g := c.subs[d.Sid], c.gets[d.Sid]
	c.mu.Unlock()
	d.client = c
	switch {
	case s != nil:
		d.manual = s.manual
		s.add(d)
	case g != nil:
		d.manual = g.manual
		g.got = append(g.got, d)
	}
}

// Ack says that d is worked on; it is not waited for. What goes wrong is told
// to Options.OnError. It does nothing where nothing is to settle.
func (d *Delivery) Ack() error { return d.settle("ACK ", "") }

// Nack gives d back: it comes again, with its Attempt raised.
func (d *Delivery) Nack() error { return d.settle("NACK ", "") }

// Later gives d back: it comes again after that time, whatever its queue's
// backoff says.
func (d *Delivery) Later(after time.Duration) error {
	return d.settle("NACK ", string(appendLapse(nil, "delay", after)))
}

// Dead sends d to the dead letters.
func (d *Delivery) Dead() error { return d.settle("NACK ", " dead") }

func (d *Delivery) settle(verb, option string) error {
	_, err := d.settling(context.Background(), reported, verb, option)
	return err
}

// AckWait is Ack that waits until the broker has it on the disk.
func (d *Delivery) AckWait(ctx context.Context) error {
	p, err := d.settling(ctx, waited, "ACK ", "")
	if p == nil || err != nil {
		return err
	}
	return p.Wait(ctx)
}

func (d *Delivery) settling(ctx context.Context, who audience, verb, option string) (*Pending, error) {
	if !d.manual || d.Seq == 0 {
		return nil, nil
	}
	return d.client.settle(ctx, who, verb, d, option)
}

// A get is a GET that runs.
type get struct {
	got    []*Delivery
	manual bool
	err    error
	done   chan struct{}
}

func (g *get) end(err error) {
	g.err = err
	close(g.done)
}

// GetOptions say how a GET takes. The zero value takes one at once.
type GetOptions struct {
	N     int           // at most; 0: 1
	Wait  time.Duration // for them; 0: only what is there
	Lease time.Duration // not settled by then, it goes back; 0: 30 s
	Ack   Ack           // AckAuto: settled as it is sent
}

// Get takes messages off a queue. Fewer than N come when the wait is over;
// that is no error.
func (c *Client) Get(ctx context.Context, dest string, o GetOptions) ([]*Delivery, error) {
	if err := checkWord("the destination", dest); err != nil {
		return nil, err
	}
	g := &get{manual: o.Ack != AckAuto, done: make(chan struct{})}
	key := dest + " " + o.Lease.String()
	var sid int
	err := c.enqueue(ctx, func() bool { return c.gets[c.handles[key]] == nil }, func() {
		if sid = c.handles[key]; sid == 0 {
			c.nextSid++
			sid = c.nextSid
			c.handles[key] = sid
		}
		c.gets[sid] = g
		line := append(c.out, "GET "...)
		line = append(line, dest...)
		line = append(line, " sid="...)
		line = strconv.AppendInt(line, int64(sid), 10)
		if o.N > 0 {
			line = append(line, " n="...)
			line = strconv.AppendInt(line, int64(o.N), 10)
		}
		line = appendLapse(line, "wait", o.Wait)
		line = appendLapse(line, "lease", o.Lease)
		line = append(line, o.Ack.option()...)
		c.out = append(line, '\n')
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-g.done:
		return g.got, g.err
	case <-ctx.Done():
		return nil, context.Cause(ctx) // what still comes goes back when its lease is over
	}
}

// ended is an END: of a GET that runs, or of a subscription.
func (c *Client) ended(words []string) error {
	if len(words) < 3 {
		return fmt.Errorf("an END of %d words", len(words))
	}
	sid, err := strconv.Atoi(words[1])
	if err != nil {
		return fmt.Errorf("END: %w", err)
	}
	why := endError(words[3:])
	c.mu.Lock()
	g, s := c.gets[sid], c.subs[sid]
	delete(c.gets, sid)
	delete(c.subs, sid)
	c.room.Broadcast()
	c.mu.Unlock()
	switch {
	case g != nil:
		g.end(why)
	case s != nil && why == nil:
		s.end(ErrClosed)
	case s != nil:
		s.end(why)
	}
	return nil
}

// endError is why an END came, or nil if nothing went wrong.
func endError(words []string) error {
	e := &Error{Class: "no"}
	for _, w := range words {
		switch {
		case len(w) > 4 && w[:4] == "why=":
			e.Text = w[4:]
		case len(w) > 5 && w[:5] == "code=":
			e.Code, _ = strconv.Atoi(w[5:])
		}
	}
	if e.Code == 0 {
		return nil
	}
	return e
}
