package main

import "sync"

// state is how far one message of a publisher is.
type state uint8

const (
	open      state = iota // sent, not answered
	confirmed              // confirmed, and of QoS 2 not yet completed
	done                   // confirmed, and the publisher is through with it
	unknown                // not answered before the broker died, and given up

	sentAgain state = 1 << 7 // it may be there twice
	stage           = sentAgain - 1
)

// How a publisher treats what was not answered when the broker died.
type policy uint8

const (
	giveUp   policy = iota // it may be there or not; goes on with the next
	repeat                 // sends it again; it may be there twice
	repeated               // sends it again; it must not be there twice
)

// A book is what one publisher knows. The ledger's mutex guards it.
//
//	state[:low] are done or unknown; window >= pending = those that are neither
type book struct {
	name   string
	number int
	policy policy

	ledger    *ledger
	moved     sync.Cond // room may have come, or stop
	state     []state   // by number
	low       int
	pending   int
	redo      []uint64 // to be sent again, first
	stopped   bool     // the connection is gone
	last      bool     // nothing new any more
	confirmed uint64
	unknown   uint64
}

func (l *ledger) newBook(name string, p policy) *book {
	b := &book{name: name, number: len(l.books), policy: p, ledger: l}
	b.moved.L = &l.mu
	l.books = append(l.books, b)
	return b
}

// A step is what a publisher does next with a message.
type step struct {
	number  uint64
	again   bool // it was sent on an earlier connection
	release bool // of QoS 2: it is confirmed, and only its end was not
}

// reopen begins a new connection, on which the broker has said that it holds
// everything below known.
func (b *book) reopen(known uint64, lastTime bool) {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	b.stopped, b.last = false, lastTime
	b.confirmBelow(known, done)
	b.redo = b.redo[:0]
	for n := b.low; n < len(b.state); n++ {
		switch at := b.state[n] & stage; {
		case at != open && at != confirmed:
		case b.policy == giveUp:
			b.state[n] = unknown
			b.unknown++
			b.pending--
		default:
			b.state[n] |= sentAgain
			b.redo = append(b.redo, uint64(n))
		}
	}
	b.advance()
}

// stop ends the connection: next returns false.
func (b *book) stop() {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	b.stopped = true
	b.moved.Broadcast()
}

// next is what to send now. With nothing to send it returns false, or waits
// if told to until there is, or the connection is gone.
func (b *book) next(wait bool) (step, bool) {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	for {
		switch {
		case b.stopped:
			return step{}, false
		case len(b.redo) > 0:
			n := b.redo[0]
			b.redo = b.redo[1:]
			return step{number: n, again: true, release: b.state[n]&stage == confirmed}, true
		case !b.last && b.pending < window && b.lead() < lead:
			b.state = append(b.state, open)
			b.pending++
			return step{number: uint64(len(b.state) - 1)}, true
		case !wait:
			return step{}, false
		}
		b.moved.Wait()
	}
}

// lead is how far the slowest reader is behind.
func (b *book) lead() int {
	n := 0
	for _, t := range b.ledger.targets {
		if c := t.copies[b.number]; c != nil {
			n = max(n, len(b.state)-c.above)
		}
	}
	return n
}

// confirm notes the answer to message n, which makes it to.
func (b *book) confirm(n uint64, to state) {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	b.ledger.moves++
	if n >= uint64(len(b.state)) || b.state[n]&stage >= to {
		b.ledger.faults.add(refused, "%s: an answer to message %d, which was not open", b.name, n)
		return
	}
	b.confirmOne(int(n), to)
	b.advance()
}

// confirmUpTo notes an answer to all below n.
func (b *book) confirmUpTo(n uint64) {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	b.ledger.moves++
	b.confirmBelow(n, done)
	b.advance()
}

func (b *book) confirmBelow(n uint64, to state) {
	if n > uint64(len(b.state)) {
		b.ledger.faults.add(refused, "%s: an answer to message %d, and only %d were sent", b.name, n-1, len(b.state))
		return
	}
	for i := b.low; i < int(n); i++ {
		if at := b.state[i] & stage; at == open || at == confirmed {
			b.confirmOne(i, to)
		}
	}
}

// confirmOne: the mutex is held.
func (b *book) confirmOne(n int, to state) {
	if b.state[n]&stage == open {
		b.confirmed++
	}
	b.state[n] = b.state[n]&sentAgain | to
	if to == done {
		b.pending--
	}
}

// advance moves low up and wakes the writer. The mutex is held.
func (b *book) advance() {
	for b.low < len(b.state) && b.state[b.low]&stage >= done {
		b.low++
	}
	b.moved.Signal()
}

// answered says whether message n is confirmed, one way or the other.
func (b *book) answered(n int) bool {
	at := b.state[n] & stage
	return at == confirmed || at == done
}

// idle says whether everything sent has come to an end.
func (b *book) idle() bool {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	return b.pending == 0
}
