package main

import (
	"fmt"
	"sync"
)

// window is how many messages each publisher keeps unanswered.
const window = 256

// lead is how far a publisher may be ahead of the slowest reader of its
// messages: the backlog is worth killing, and no limit is reached.
const lead = 8000

// A ledger is all that is known outside of the broker. One mutex guards it
// and everything it holds: the clients are a dozen, and exactness comes first.
type ledger struct {
	mu      sync.Mutex
	seed    uint64
	books   []*book
	targets []*target
	faults  faults
	moves   uint64 // answers and deliveries: when it stands still, nothing goes on
	spare   []byte
}

func newLedger(seed uint64) *ledger {
	return &ledger{seed: seed, faults: faults{count: map[string]int{}}, spare: make([]byte, 0, bodyMost)}
}

// The kinds of faults, in the order of the summary.
const (
	lost     = "confirmed and missing"
	disorder = "out of order"
	unmarked = "repeats not marked"
	doubled  = "doubled"
	returned = "settled and back"
	changed  = "changed"
	refused  = "refused"
)

var faultKinds = []string{lost, disorder, unmarked, doubled, returned, changed, refused}

// faults counts what must not be, and keeps the first words about it.
type faults struct {
	count map[string]int
	first []string
}

// toldFaults is how many faults of a kind are told in words; the rest is
// counted.
const toldFaults = 5

func (f *faults) add(kind, format string, args ...any) {
	f.count[kind]++
	if f.count[kind] <= toldFaults {
		f.first = append(f.first, kind+": "+fmt.Sprintf(format, args...))
	}
}

func (f *faults) any() bool { return len(f.count) > 0 }

// fault is add for those who do not hold the mutex.
func (l *ledger) fault(kind, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults.add(kind, format, args...)
}

// count says how much of everything there is.
func (l *ledger) count() (c counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.books {
		c.sent += uint64(len(b.state))
		c.confirmed += b.confirmed
		c.unknown += b.unknown
	}
	for _, t := range l.targets {
		c.delivered += t.delivered
		c.again += t.again
		c.settled += t.answered
	}
	c.moves = l.moves
	return c
}

type counts struct {
	sent, confirmed, unknown  uint64
	delivered, again, settled uint64
	moves                     uint64
}

// close counts what is lost: once, after everything has been drained.
func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.targets {
		for p, c := range t.copies {
			if c == nil {
				continue
			}
			for n := range l.books[p].state {
				if c.missing(l.books[p], n) {
					l.faults.add(lost, "%s: message %d of %s (sent again: %v)",
						t.name, n, l.books[p].name, l.books[p].state[n]&sentAgain != 0)
				}
			}
		}
	}
}

// whole says whether nothing confirmed is still to come.
func (l *ledger) whole() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.targets {
		for p, c := range t.copies {
			if c == nil {
				continue
			}
			for n := range l.books[p].state {
				if c.missing(l.books[p], n) {
					return false
				}
			}
		}
	}
	return true
}
