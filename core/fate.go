package core

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Fate is how one message ended, or why it was refused.
type Fate struct {
	At      time.Time
	Reason  Reason
	Address Address
	Place   string // the queue, or the session whose live reader missed it
	By      string // who decided: a user, a plugin; never goes to the wire
	Text    string
}

// A journal keeps the newest fates in a ring and counts all of them. Memory
// grows with use up to the ring's size. Any goroutine writes: on the hot path
// only ends in queues and drops come here, live deliveries are counted alone.
type journal struct {
	counts [numReasons]atomic.Int64

	mu   sync.Mutex
	ring []Fate
	next int
	size int
}

func (j *journal) record(f Fate) {
	j.counts[f.Reason].Add(1)
	j.mu.Lock()
	if len(j.ring) < j.size {
		j.ring = append(j.ring, f)
	} else if j.size > 0 {
		j.ring[j.next] = f
	}
	if j.next++; j.next >= j.size {
		j.next = 0
	}
	j.mu.Unlock()
}

// newest returns up to n fates that want takes, newest first.
func (j *journal) newest(n int, want func(*Fate) bool) []Fate {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []Fate
	for i := range j.ring {
		at := (j.next - 1 - i + 2*len(j.ring)) % len(j.ring)
		if want(&j.ring[at]) {
			out = append(out, j.ring[at])
			if len(out) == n {
				break
			}
		}
	}
	return out
}
