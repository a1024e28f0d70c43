package core

import (
	"sync"
)

// A Kind is the kind of an Event.
type Kind uint8

// The kinds. Everything the broker ever says to a client is one of them.
const (
	Confirmed Kind = iota + 1 // Token, Err; N: of a publish its targets, of a purge what went; Tag of one stream append; Resumed of Open
	Delivered                 // Sub, Message, Tag (zero: live), Retained
	Cancelled                 // Sub, N delivered, Err if core did it: after the last Delivered of a sub
	Drained                   // Sub, N delivered: the end of a Pull or a Peek; Err 408 if its time was over
	Again                     // try again after ErrWait
	Evicted                   // Err: the session is over
)

// An Event is what the broker tells a session; Kind says which fields count.
type Event struct {
	Kind     Kind
	Retained bool   // a retained value, sent because of a Recall
	Sub      uint32 // the session's own number
	Token, N uint64
	Tag      Tag
	Message  *Message // of Confirmed: only of a refused publish with token 0
	Resumed  *Resumed
	Err      error // nil, or best read with AsError
}

// A Waker is told that an outbox has got its first event: a signal, which must
// not block. No lock of core is held.
type Waker interface{ Wake() }

// An Outbox carries events from the broker to one session's connection. Any
// goroutine puts; one flusher takes all that has gathered, so a busy
// connection writes in large chunks and an idle one owns nothing.
//
// It is also where answers get their order: a publish takes a place, and its
// Confirmed leaves when all before it have left, whoever settled first.
type Outbox struct {
	waker  Waker
	limits Limits

	mu        sync.Mutex
	events    []Event
	closed    bool
	places    []place // a ring; places[i&(len-1)] for head <= i < tail
	head      uint64
	tail      uint64
	wantAgain bool // ErrWait was said, Again is owed
	liveCount int  // live deliveries put and not released
	liveBytes int64
	hungry    []roomer // wait for room for live deliveries
}

// A place holds the answer to one publish until it is its turn.
type place struct {
	token   uint64
	n       uint64
	tag     Tag
	message *Message // token 0: told only if refused
	err     error
	done    bool
}

// A roomer is told when an outbox has room for live deliveries again.
type roomer interface{ room() }

func newOutbox(w Waker, l Limits) *Outbox {
	return &Outbox{waker: w, limits: l}
}

// put adds an event that is owed: its number is bounded by what the session
// asked for. It says whether the session is still there.
func (o *Outbox) put(e Event) bool {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return false
	}
	o.events = append(o.events, e)
	first := len(o.events) == 1
	o.mu.Unlock()
	if first {
		o.waker.Wake()
	}
	return true
}

// offer adds a live delivery if there is room for it, and says so.
func (o *Outbox) offer(e Event, size int64) bool {
	o.mu.Lock()
	if o.closed || o.liveCount >= o.limits.LiveMessages || (o.liveBytes > 0 && o.liveBytes+size > o.limits.LiveBytes) {
		o.mu.Unlock()
		return false
	}
	o.liveCount++
	o.liveBytes += size
	o.events = append(o.events, e)
	first := len(o.events) == 1
	o.mu.Unlock()
	if first {
		o.waker.Wake()
	}
	return true
}

// reserve takes the next place for an answer. It says ErrWait when too many
// are owed: then an Again follows.
func (o *Outbox) reserve(token uint64, m *Message) (uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, ErrClosed
	}
	if o.tail-o.head >= uint64(o.limits.Unanswered) {
		o.wantAgain = true
		return 0, ErrWait
	}
	return o.push(place{token: token, message: m}), nil
}

// push appends a place. o.mu is held.
func (o *Outbox) push(p place) uint64 {
	if n := uint64(len(o.places)); o.tail-o.head == n {
		grown := make([]place, max(16, 2*n))
		for i := o.head; i < o.tail; i++ {
			grown[i&uint64(len(grown)-1)] = o.places[i&(n-1)]
		}
		o.places = grown
	}
	at := o.tail
	o.places[at&uint64(len(o.places)-1)] = p
	o.tail++
	return at
}

// settle answers the publish at a place; it leaves when its turn has come. n
// is how many targets it had.
func (o *Outbox) settle(at, n uint64, err error) {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	p := &o.places[at&uint64(len(o.places)-1)]
	p.n, p.err, p.done = n, err, true
	first := at == o.head && o.pop()
	o.mu.Unlock()
	if first {
		o.waker.Wake()
	}
}

// answer is reserve and settle in one. It heeds the limit, as reserve does.
func (o *Outbox) answer(token uint64, m *Message, n uint64, err error) error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return ErrClosed
	}
	if o.tail-o.head >= uint64(o.limits.Unanswered) {
		o.wantAgain = true
		o.mu.Unlock()
		return ErrWait
	}
	first := o.answered(place{token: token, n: n, message: m, err: err, done: true})
	o.mu.Unlock()
	if first {
		o.waker.Wake()
	}
	return nil
}

// told is answer beyond any limit: of what the adapter answers itself.
func (o *Outbox) told(token uint64, err error) {
	o.mu.Lock()
	first := !o.closed && o.answered(place{token: token, err: err, done: true})
	o.mu.Unlock()
	if first {
		o.waker.Wake()
	}
}

// answered lets a place that is done leave at once if it can. o.mu is held.
func (o *Outbox) answered(p place) (first bool) {
	if o.head < o.tail {
		o.push(p)
		return false
	}
	return o.tell(&p) && len(o.events) == 1
}

// tell makes the event of a place, if it has one. o.mu is held.
func (o *Outbox) tell(p *place) bool {
	if p.token == 0 && p.err == nil {
		return false
	}
	e := Event{Kind: Confirmed, Token: p.token, N: p.n, Tag: p.tag, Err: p.err}
	if p.token == 0 {
		e.Message = p.message
	}
	o.events = append(o.events, e)
	return true
}

// pop moves the done prefix of the places into the events and says whether
// the outbox was empty before. o.mu is held.
func (o *Outbox) pop() (first bool) {
	before := len(o.events)
	for o.head < o.tail {
		p := &o.places[o.head&uint64(len(o.places)-1)]
		if !p.done {
			break
		}
		o.tell(p)
		*p = place{}
		o.head++
	}
	if o.wantAgain && o.tail-o.head <= uint64(o.limits.Unanswered)/2 {
		o.wantAgain = false
		o.events = append(o.events, Event{Kind: Again})
	}
	return before == 0 && len(o.events) > 0
}

// Take returns what has gathered and gives spare back for reuse: its elements
// are cleared, so that they let go of their messages. It returns false once
// the session is closed and nothing is left.
func (o *Outbox) Take(spare []Event) ([]Event, bool) {
	clear(spare) // not its capacity: that cost a tenth of all CPU at a fan-in
	o.mu.Lock()
	defer o.mu.Unlock()
	events := o.events
	o.events = spare[:0]
	return events, len(events) > 0 || !o.closed
}

// Release gives the room of n live deliveries of that many bytes (the sum of
// Message.Size) back: the adapter has written or dropped them.
func (o *Outbox) Release(n int, bytes int64) {
	o.mu.Lock()
	o.liveCount -= n
	o.liveBytes -= bytes
	var told []roomer
	if len(o.hungry) > 0 && (o.liveCount == 0 || (o.liveCount <= o.limits.LiveMessages/2 && o.liveBytes <= o.limits.LiveBytes/2)) {
		told, o.hungry = o.hungry, nil
	}
	o.mu.Unlock()
	for _, r := range told {
		r.room()
	}
}

// wait asks that r be told when there is room; at once if there is.
func (o *Outbox) wait(r roomer) {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	if o.liveCount == 0 || (o.liveCount <= o.limits.LiveMessages/2 && o.liveBytes == 0) {
		o.mu.Unlock()
		r.room()
		return
	}
	o.hungry = append(o.hungry, r)
	o.mu.Unlock()
}

// Again tells the session to try again after ErrWait.
func (o *Outbox) Again() { o.put(Event{Kind: Again}) }

// close ends the outbox; what is in it can still be taken.
func (o *Outbox) close() {
	o.mu.Lock()
	o.closed, o.hungry = true, nil
	o.places, o.head, o.tail = nil, 0, 0
	o.mu.Unlock()
}
