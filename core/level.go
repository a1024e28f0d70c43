package core

import (
	"cmp"
	"slices"
	"time"
)

// A level is one line of messages in a queue: all of them, or in a queue with
// priorities those of one priority. It has a cursor of its own, so that a
// level is paged, acknowledged and found again after a crash by itself.
//
//	returned | ready[..] safe | ready[..] not committed | on disk alone (paged)
//	<----------------------------- in order ------------------------------->
type level struct {
	priority uint8
	place    uint64 // its cursor

	order    uint64 // of the newest entry in memory
	ready    deque  // never delivered, oldest first
	returned []*entry

	// Paging: the messages from fetchFrom on are in the store alone. While
	// paged, a new stored message is not kept in memory either.
	paged      bool
	pagedCount int64
	pagedBytes int64
	unsafe     int    // skipped and not committed yet
	fetchFrom  Offset // 0: not known before the first skipped one commits
	skipped    Offset // newest on disk alone
	fetching   bool
	fetchLife  int      // raised by a purge: an older fetch is void
	tail       []*entry // transient ones that came while paged

	watermark Offset // recovered ones at or below may have been delivered before
	mark      Offset // the disk knows that there may be deliveries up to here
	markAsked Offset // and will know it up to here
	delivered Offset // newest offset ever delivered

	settled []settledEntry
	marks   []Mark
}

// An entry is one message in a queue's memory.
type entry struct {
	level    *level
	order    uint64
	offset   Offset
	seq      uint64
	message  *Message
	size     int64
	deadline time.Time // in flight: of its lease; resting: when it may go on
	sub      *consumer // in flight with
	attempts uint16    // deliveries so far
	stored   bool      // the store has it or gets it
	safe     bool      // may be delivered
	skip     bool      // goes to the disk alone
	settling bool      // settled by a Submit under way
	spent    bool      // has had all its attempts
	keyed    bool      // in flight, and counted with its key
}

// settledEntry is what waits to leave in an Ack: one entry, or a purged run
// that was on disk alone.
type settledEntry struct {
	order    uint64
	from, to Offset
	n, bytes int64
}

// front is the level's first entry, safe or not, or nil.
func (lv *level) front() *entry {
	if len(lv.returned) > 0 {
		return lv.returned[0]
	}
	return lv.ready.front()
}

// next is the first entry that may be delivered, or nil.
func (lv *level) next() *entry {
	if e := lv.front(); e != nil && e.safe {
		return e
	}
	return nil
}

// takeReturned takes the front, which was given back before.
func (lv *level) takeReturned() {
	lv.returned[0] = nil
	if lv.returned = lv.returned[1:]; len(lv.returned) == 0 {
		lv.returned = nil
	}
}

// putBack returns one entry to its place.
func (lv *level) putBack(e *entry) {
	at, _ := slices.BinarySearchFunc(lv.returned, e, func(a, b *entry) int { return cmp.Compare(a.order, b.order) })
	lv.returned = slices.Insert(lv.returned, at, e)
}

// sortReturned puts what was appended to returned in its place.
func (lv *level) sortReturned() {
	slices.SortFunc(lv.returned, func(a, b *entry) int { return cmp.Compare(a.order, b.order) })
}

// settle notes that the store may forget an entry.
func (lv *level) settle(e *entry) {
	lv.settled = append(lv.settled, settledEntry{e.order, e.offset, e.offset + 1, 1, e.size})
}

// noteAttempts notes how often an entry was delivered.
func (lv *level) noteAttempts(e *entry) {
	lv.marks = append(lv.marks, Mark{Cursor: CursorID(lv.place), At: e.offset, Attempts: e.attempts})
}

// takeAcks moves what was settled into acks, neighbours merged. An entry's
// order rises by one with its place in the level, so two settled ones with
// neighbouring orders have nothing of this level between them.
func (lv *level) takeAcks(acks []Ack) []Ack {
	if len(lv.settled) == 0 {
		return acks
	}
	slices.SortFunc(lv.settled, func(a, b settledEntry) int { return cmp.Compare(a.order, b.order) })
	first := len(acks)
	last := uint64(0)
	for _, e := range lv.settled {
		if len(acks) > first && e.order == last+1 {
			a := &acks[len(acks)-1]
			a.To, a.N, a.Bytes = e.to, a.N+e.n, a.Bytes+e.bytes
		} else {
			acks = append(acks, Ack{Cursor: CursorID(lv.place), From: e.from, To: e.to, N: e.n, Bytes: e.bytes})
		}
		last = e.order
	}
	lv.settled = lv.settled[:0]
	return acks
}

// leaves says whether acks or marks wait for the next batch.
func (lv *level) leaves() bool { return len(lv.settled) > 0 || len(lv.marks) > 0 }

// A deque is a ring of entries, oldest first.
type deque struct {
	ring  []*entry
	head  int
	n     int
	bytes int64
}

func (d *deque) front() *entry {
	if d.n == 0 {
		return nil
	}
	return d.ring[d.head]
}

// at is the i-th entry, 0 the front.
func (d *deque) at(i int) *entry { return d.ring[(d.head+i)%len(d.ring)] }

func (d *deque) push(e *entry) {
	if d.n == len(d.ring) {
		grown := make([]*entry, max(8, 2*d.n))
		for i := range d.n {
			grown[i] = d.at(i)
		}
		d.ring, d.head = grown, 0
	}
	d.ring[(d.head+d.n)%len(d.ring)] = e
	d.n++
	d.bytes += e.size
}

func (d *deque) pop() *entry {
	e := d.ring[d.head]
	d.ring[d.head] = nil
	d.head = (d.head + 1) % len(d.ring)
	d.n--
	d.bytes -= e.size
	if d.n == 0 && len(d.ring) > 1024 {
		d.ring, d.head = nil, 0 // a backlog is over: give the memory back
	}
	return e
}

// remove takes out an entry, seldom: a batch was refused.
func (d *deque) remove(e *entry) {
	for i := d.n - 1; i >= 0; i-- {
		if d.at(i) != e {
			continue
		}
		for ; i < d.n-1; i++ {
			d.ring[(d.head+i)%len(d.ring)] = d.at(i + 1)
		}
		d.n--
		d.ring[(d.head+d.n)%len(d.ring)] = nil
		d.bytes -= e.size
		return
	}
}
