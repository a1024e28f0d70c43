package transport

import (
	"runtime"
	"sync"
)

// share is how many connections a flusher takes at a time, so that a fan-out
// to many is shared among the flushers.
const share = 64

// A flushList holds the connections whose turn is due, each at most once.
type flushList struct {
	mu     sync.Mutex
	work   sync.Cond // of mu
	due    []*conn
	asleep int
	called bool // a flusher was woken and has not looked yet: it sees what is added meanwhile
	closed bool
}

// add puts c on the list. c is owned from now on.
func (f *flushList) add(c *conn) {
	f.mu.Lock()
	f.due = append(f.due, c)
	f.call()
	f.mu.Unlock()
}

// call wakes a flusher unless one is on its way. f.mu is held.
func (f *flushList) call() {
	if f.asleep > 0 && !f.called {
		f.called = true
		f.work.Signal()
	}
}

// take waits for connections that are due and appends some of them to mine. It
// says false when the list is closed.
func (f *flushList) take(mine []*conn) ([]*conn, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.due) == 0 && !f.closed {
		f.asleep++
		f.work.Wait()
		f.asleep--
		f.called = false
	}
	n := min(len(f.due), share)
	mine = append(mine, f.due[:n]...)
	rest := copy(f.due, f.due[n:])
	clear(f.due[rest:])
	f.due = f.due[:rest]
	if rest > 0 {
		f.call()
	}
	return mine, n > 0
}

// close ends the flushers once the list is empty.
func (f *flushList) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.work.Broadcast()
}

// run is a flusher. It lets everybody else run once before it takes events:
// what the readers that are about to run cause leaves in the same write.
func (f *flushList) run() {
	k := getKit()
	defer func() { putKit(k) }()
	var mine []*conn
	for more := true; more; {
		if mine, more = f.take(mine[:0]); !more {
			return
		}
		runtime.Gosched()
		for i, c := range mine {
			mine[i] = nil
			if !c.turn(k) {
				k = getKit() // a drain has the other
			}
		}
	}
}
