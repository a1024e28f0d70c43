package transport

import (
	"sync"
	"time"
)

const (
	slot    = 250 * time.Millisecond // the shortest time between two ticks
	slots   = 256                    // a turn of the wheel is 64 s; longer waits stay for several
	perhaps = time.Second            // between two ticks, if the handler does not say
)

// A wheel tells connections when their Tick is due: one goroutine for all, and
// O(1) to set and to stop. Connections are linked into their slot, so that an
// idle one costs no more than the links.
type wheel struct {
	mu    sync.Mutex
	heads [slots]*conn
	now   uint64 // slots since the start
}

// A timer is a connection's place in the wheel, guarded by wheel.mu.
type timer struct {
	next, prev *conn
	due        uint64 // slots since the start
	every      uint64 // slots; 0: not in the wheel
	stopped    bool
}

// set makes c's ticks come each d from now on.
func (w *wheel) set(c *conn, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.timer.stopped {
		return
	}
	w.unlink(c)
	c.timer.every = uint64(max(1, (d+slot-1)/slot))
	w.link(c)
}

// stop ends c's ticks for good.
func (w *wheel) stop(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(c)
	c.timer.stopped = true
}

// link puts c where it is due next. w.mu is held.
func (w *wheel) link(c *conn) {
	c.timer.due = w.now + c.timer.every
	head := &w.heads[c.timer.due%slots]
	c.timer.prev, c.timer.next = nil, *head
	if *head != nil {
		(*head).timer.prev = c
	}
	*head = c
}

// unlink takes c out. w.mu is held.
func (w *wheel) unlink(c *conn) {
	t := &c.timer
	if t.every == 0 {
		return
	}
	if t.prev != nil {
		t.prev.timer.next = t.next
	} else {
		w.heads[t.due%slots] = t.next
	}
	if t.next != nil {
		t.next.timer.prev = t.prev
	}
	t.next, t.prev, t.every = nil, nil, 0
}

// advance goes on by one slot and appends to due whose tick it is.
func (w *wheel) advance(due []*conn) []*conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now++
	for c := w.heads[w.now%slots]; c != nil; {
		next := c.timer.next
		if c.timer.due == w.now {
			every := c.timer.every
			w.unlink(c)
			c.timer.every = every
			w.link(c)
			due = append(due, c)
		}
		c = next
	}
	return due
}

// run turns the wheel until done. A late wake-up is made good: the slots that
// were missed are gone through at once.
func (w *wheel) run(done <-chan struct{}) {
	ticker := time.NewTicker(slot)
	defer ticker.Stop()
	start := time.Now()
	var gone uint64
	var due []*conn
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		for ; gone < uint64(time.Since(start)/slot); gone++ {
			due = w.advance(due[:0])
			for i, c := range due {
				c.signal(dueTick)
				due[i] = nil
			}
		}
	}
}
