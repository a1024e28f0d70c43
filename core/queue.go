package core

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// transientBit marks the Tag.Seq of entries that have no offset.
const transientBit = 1 << 62

// A queue hands each of its messages to one reader, in order, until one of
// them settles it. Its shard owns it: no method locks, waits or does I/O. What
// must be stored gathers in settled and marks until the shard's batch takes it.
//
//	returned | ready[..] safe | ready[..] not committed | on disk alone (paged)
//	<----------------------------- in order ------------------------------->
type queue struct {
	ref     *queueRef
	env     *queueEnv
	spec    QueueSpec
	vhost   string
	owner   string // id of the session, of an owned queue
	removed bool

	order     uint64 // of the newest entry in memory
	transient uint64 // of the newest entry without an offset
	ready     deque  // never delivered, oldest first
	returned  []*entry
	inFlight  map[uint64]*entry // by seq: delivered, not settled
	consumers []*consumer
	turn      int // round robin

	count, bytes int64 // ready, returned and paged
	loose        int64 // entries in memory that the store has not
	looseBytes   int64

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
	leaving bool // settled and marks wait for the next batch
	broken  error
	marks   []Mark
	dirty   bool
}

// maxLooseBytes is how much of a queue may be in memory alone.
const maxLooseBytes = 64 << 20

// queueEnv is what a shard lends its queues.
type queueEnv struct {
	now    time.Time
	fates  *journal
	dirty  []*queue
	free   []*entry
	used   int64 // bytes of ready entries in memory, all queues
	window int64 // what used should not pass
	least  int64 // what one queue may always keep
	loose  int64 // how many entries without an offset a queue may hold
}

// queueRef is the part of a queue that others than its shard may touch.
type queueRef struct {
	name   string
	shard  int
	place  uint64      // its cursor
	queue  *queue      // its shard's
	reject atomic.Bool // overflow=reject with a limit: routing asks full first
	full   atomic.Bool
	spec   atomic.Pointer[QueueSpec] // as it is now, for who inspects

	depth, unacked, size, readers atomic.Int64
}

// An entry is one message in a queue's memory.
type entry struct {
	order    uint64
	offset   Offset
	seq      uint64
	message  *Message
	size     int64
	deadline time.Time
	sub      *consumer // in flight with
	attempts uint16    // deliveries so far
	stored   bool      // the store has it or gets it
	safe     bool      // may be delivered
	skip     bool      // goes to the disk alone
	settling bool      // settled by a Submit under way
}

// settledEntry is what waits to leave in an Ack: one entry, or a purged run
// that was on disk alone.
type settledEntry struct {
	order    uint64
	from, to Offset
	n, bytes int64
}

// A consumer is a reader's place at a queue.
type consumer struct {
	id        uint32
	out       *Outbox
	queue     *queue
	credit    int64
	bytes     int64 // credit in bytes, if limited; one delivery may overdraw it
	limited   bool
	auto      bool
	lease     time.Duration
	pulling   bool
	until     time.Time
	pulled    uint64
	delivered uint64
	gone      bool
	over      atomic.Bool // refused or ended by the broker: its number is free again
}

func (c *consumer) ready() bool {
	return c.credit > 0 && (!c.limited || c.bytes > 0)
}

func (c *consumer) grant(by Credit) {
	c.credit += by.Messages
	if by.Bytes > 0 {
		c.limited = true
		c.bytes += by.Bytes
	}
}

func (q *queue) touch() {
	if !q.dirty {
		q.dirty = true
		q.env.dirty = append(q.env.dirty, q)
	}
}

func (env *queueEnv) entry() *entry {
	if n := len(env.free); n > 0 {
		e := env.free[n-1]
		env.free = env.free[:n-1]
		return e
	}
	return new(entry)
}

func (env *queueEnv) release(e *entry) {
	*e = entry{}
	if len(env.free) < 4096 {
		env.free = append(env.free, e)
	}
}

// stores says whether the queue puts such a message into the store.
func (q *queue) stores(m *Message) bool {
	return q.spec.Class != Memory && (m.QoS > 0 || q.spec.StoreTransient)
}

// refuses says why the queue cannot take one more, or nil. The oldest make
// room first, if the queue is declared so.
func (q *queue) refuses(m *Message, size int64) *Error {
	if q.spec.Overflow == DropOldest {
		for q.over(size) && q.dropOldest() {
		}
	} else if q.over(size) {
		return &Error{Code: CodeQuota, Reason: ReasonQueueFull, Text: "queue " + quote(q.ref.name) + " is full"}
	}
	if !q.stores(m) && (q.loose >= q.env.loose || q.looseBytes+size > maxLooseBytes) {
		return &Error{Code: CodeQuota, Reason: ReasonOverflow, Text: "queue " + quote(q.ref.name) + " holds too many messages in memory"}
	}
	return nil
}

func (q *queue) over(size int64) bool {
	return (q.spec.MaxMessages > 0 && q.count >= q.spec.MaxMessages) ||
		(q.spec.MaxBytes > 0 && q.count > 0 && q.bytes+size > q.spec.MaxBytes)
}

// dropOldest makes room for one. It says false when nothing can go: all are in
// flight, not committed or not in memory.
func (q *queue) dropOldest() bool {
	e := q.head()
	if e == nil {
		return false
	}
	q.takeHead()
	q.end(e, ReasonOverflow, "")
	return true
}

// add appends a message. A stored one is deliverable after commit(e); e goes
// into the batch.
func (q *queue) add(m *Message, size int64) *entry {
	e := q.env.entry()
	e.message, e.size, e.stored = m, size, q.stores(m)
	q.count++
	q.bytes += size
	q.touch()
	if !e.stored {
		q.loose++
		q.looseBytes += size
		q.transient++
		e.seq, e.safe = q.transient|transientBit, true
		if q.paged {
			q.tail = append(q.tail, e)
			return e
		}
		q.push(e)
		return e
	}
	if q.paged || (q.env.used >= q.env.window && q.ready.bytes >= q.env.least) {
		q.paged, e.skip = true, true
		q.unsafe++
		return e
	}
	q.push(e)
	return e
}

func (q *queue) push(e *entry) {
	q.order++
	e.order = q.order
	q.ready.push(e)
	q.env.used += e.size
}

// commit makes a stored entry deliverable: the disk has it at offset.
func (q *queue) commit(e *entry, at Offset) {
	q.touch()
	if e.skip {
		q.unsafe--
		q.pagedCount++
		q.pagedBytes += e.size
		q.skipped = at
		if q.fetchFrom == 0 {
			q.fetchFrom = at
		}
		q.env.release(e)
		q.unpage()
		return
	}
	e.offset, e.seq, e.safe = at, uint64(at), true
}

// abort takes a stored entry back that the disk did not take.
func (q *queue) abort(e *entry) {
	q.count--
	q.bytes -= e.size
	q.touch()
	if e.skip {
		q.unsafe--
		q.unpage()
		q.env.release(e)
		return
	}
	q.env.used -= e.size
	q.ready.remove(e)
	q.env.release(e)
}

// unpage ends the paging when nothing is on the disk alone.
func (q *queue) unpage() {
	if !q.paged || q.pagedCount > 0 || q.unsafe > 0 || q.fetching {
		return
	}
	q.paged, q.fetchFrom = false, 0
	for _, e := range q.tail {
		q.push(e)
	}
	q.tail = nil
}

// wantsFetch says whether messages should be read from the store now.
func (q *queue) wantsFetch() bool {
	wanted := len(q.consumers) > 0 || q.tooMuch() // to deliver, or to drop
	return q.paged && !q.fetching && q.pagedCount > 0 && wanted && q.ready.bytes <= q.env.least/2
}

// tooMuch says whether a queue that drops its oldest has more than it may.
func (q *queue) tooMuch() bool {
	return q.spec.Overflow == DropOldest && ((q.spec.MaxMessages > 0 && q.count > q.spec.MaxMessages) ||
		(q.spec.MaxBytes > 0 && q.bytes > q.spec.MaxBytes))
}

// trim drops the oldest of what came in before it was in memory to be dropped.
func (q *queue) trim() {
	for q.tooMuch() && q.dropOldest() {
	}
}

// fetched takes what the store had. none says that there was nothing.
func (q *queue) fetched(out []Stored, next Offset) {
	q.touch()
	q.fetchFrom = next
	for i := range out {
		e := q.env.entry()
		st := &out[i]
		*e = entry{
			offset: st.Offset, seq: uint64(st.Offset), message: st.Message, size: st.Message.Size(),
			attempts: st.Attempts, stored: true, safe: true,
		}
		if st.Offset <= q.watermark {
			e.attempts = max(e.attempts, 1) // a crash may have hidden a delivery
		}
		q.push(e)
		q.pagedCount--
		q.pagedBytes -= e.size
	}
	if len(out) == 0 { // what was counted is not there: the count was wrong, and is mended
		q.count -= q.pagedCount
		q.bytes -= q.pagedBytes
		q.pagedCount, q.pagedBytes = 0, 0
	}
	q.unpage()
}

// head is the entry to be delivered next, or nil. Expired ones end here.
func (q *queue) head() *entry {
	for {
		e := q.ready.front()
		if len(q.returned) > 0 {
			e = q.returned[0]
		}
		if e == nil || !e.safe {
			return nil
		}
		if !e.message.Expired(q.env.now) {
			return e
		}
		q.takeHead()
		q.end(e, ReasonExpired, "")
	}
}

func (q *queue) takeHead() {
	q.count--
	var e *entry
	if len(q.returned) > 0 {
		e = q.returned[0]
		q.returned = slices.Delete(q.returned, 0, 1)
	} else {
		e = q.ready.pop()
		q.env.used -= e.size
	}
	q.bytes -= e.size
}

// deliver hands out what can be handed out.
func (q *queue) deliver() {
	for {
		e := q.head()
		if e == nil || (e.stored && e.offset > q.mark) {
			break
		}
		c := q.next()
		if c == nil {
			break
		}
		q.takeHead()
		q.send(e, c)
	}
	q.drain()
}

func (q *queue) send(e *entry, c *consumer) {
	q.touch()
	e.sub = c
	if e.attempts < 1<<15 {
		e.attempts++
	}
	c.credit--
	c.bytes -= e.size
	c.delivered++
	c.pulled++
	if c.lease > 0 {
		e.deadline = q.env.now.Add(c.lease)
	}
	if q.inFlight == nil {
		q.inFlight = make(map[uint64]*entry)
	}
	q.inFlight[e.seq] = e
	if e.stored {
		q.delivered = max(q.delivered, e.offset)
	}
	c.out.put(Event{
		Kind: Delivered, Sub: c.id, Message: e.message,
		Tag: Tag{Place: q.ref.place, Seq: e.seq, Attempt: e.attempts},
	})
}

// markAhead is how far the record of deliveries runs ahead of them: what a
// crash brings again beyond what was delivered, and marked all the same.
const markAhead = 4096

// wantsMark says up to where the record of deliveries should go now, or 0.
func (q *queue) wantsMark() Offset {
	if len(q.consumers) == 0 {
		return 0
	}
	if e := q.head(); e != nil && e.stored && e.offset > q.markAsked && q.next() != nil {
		return e.offset + markAhead
	}
	if q.delivered > 0 && q.delivered+markAhead/2 > q.markAsked {
		return q.delivered + markAhead
	}
	return 0
}

// next is the next consumer that can take one, round robin, or nil.
func (q *queue) next() *consumer {
	for range q.consumers {
		q.turn++
		if q.turn >= len(q.consumers) {
			q.turn = 0
		}
		if c := q.consumers[q.turn]; c.ready() {
			return c
		}
	}
	return nil
}

// drain ends the pulls that are over.
func (q *queue) drain() {
	for _, c := range q.consumers {
		if !c.pulling {
			continue
		}
		empty := q.head() == nil && q.pagedCount == 0 && !q.fetching
		switch {
		case !c.ready():
			c.endPull(nil)
		case c.until.IsZero() && empty:
			c.endPull(nil)
		case !c.until.IsZero() && !q.env.now.Before(c.until):
			c.endPull(&Error{Code: CodeTooSlow, Text: "the wait is over"})
		}
	}
}

func (c *consumer) endPull(err error) {
	c.pulling = false
	c.credit, c.bytes = 0, 0
	c.out.put(Event{Kind: Drained, Sub: c.id, N: c.pulled, Err: err})
	c.pulled = 0
}

func (q *queue) attach(c *consumer) {
	q.consumers = append(q.consumers, c)
	q.touch()
}

// detach ends a consumer. What it holds stays settleable until leave.
func (q *queue) detach(c *consumer, err error) {
	i := slices.Index(q.consumers, c)
	if i < 0 {
		return
	}
	q.consumers = slices.Delete(q.consumers, i, i+1)
	c.gone = true
	c.over.Store(true)
	q.touch()
	if c.pulling && err == nil { // with an error, Cancelled is the end of the pull too
		c.endPull(nil)
	}
	c.out.put(Event{Kind: Cancelled, Sub: c.id, N: c.delivered, Err: err})
}

// leave takes everything of a session away: its consumers end, and what it
// has not settled goes back to its place.
func (q *queue) leave(out *Outbox) {
	q.consumers = slices.DeleteFunc(q.consumers, func(c *consumer) bool {
		if c.out == out {
			c.gone = true
		}
		return c.out == out
	})
	var back []*entry
	for _, e := range q.inFlight {
		if e.sub.out == out && !e.settling {
			back = append(back, e)
		}
	}
	q.giveBack(back)
	q.touch()
}

// giveBack returns entries to their places.
func (q *queue) giveBack(back []*entry) {
	if len(back) == 0 {
		return
	}
	for _, e := range back {
		delete(q.inFlight, e.seq)
		q.credit(e)
		e.sub, e.deadline = nil, time.Time{}
		q.count++
		q.bytes += e.size
		if e.stored {
			q.marks = append(q.marks, Mark{Cursor: CursorID(q.ref.place), At: e.offset, Attempts: e.attempts})
		}
	}
	q.returned = append(q.returned, back...)
	slices.SortFunc(q.returned, func(a, b *entry) int { return cmp.Compare(a.order, b.order) })
	q.touch()
}

// credit gives an entry's credit back to its consumer.
func (q *queue) credit(e *entry) {
	if c := e.sub; c.auto && !c.gone {
		c.credit++
		c.bytes += e.size
	}
}

// held finds the delivery a tag of that session names, or nil.
func (q *queue) held(t Tag, out *Outbox) *entry {
	e := q.inFlight[t.Seq]
	if e == nil || e.settling || e.sub.out != out || e.attempts != t.Attempt {
		return nil
	}
	return e
}

func (q *queue) ack(t Tag, out *Outbox) bool {
	e := q.held(t, out)
	if e == nil {
		return false
	}
	q.finish(e, ReasonAcked, "")
	return true
}

// finish ends a delivery that is in flight.
func (q *queue) finish(e *entry, why Reason, text string) {
	delete(q.inFlight, e.seq)
	q.credit(e)
	q.end(e, why, text)
}

// end settles an entry that is nowhere any more.
func (q *queue) end(e *entry, why Reason, text string) {
	q.touch()
	q.env.fates.record(Fate{At: q.env.now, Reason: why, Address: e.message.Address, Place: q.ref.name, Text: text})
	if e.stored {
		q.settled = append(q.settled, settledEntry{e.order, e.offset, e.offset + 1, 1, e.size})
	} else {
		q.loose--
		q.looseBytes -= e.size
	}
	q.env.release(e)
}

func (q *queue) nack(t Tag, out *Outbox, b Back) {
	e := q.held(t, out)
	if e == nil {
		return
	}
	if b.Dead { // no dead letters yet: the reason is kept
		q.finish(e, ReasonRejected, b.Text)
		return
	}
	q.giveBack([]*entry{e})
}

// expireLeases gives back what was held too long.
func (q *queue) expireLeases() {
	var back []*entry
	for _, e := range q.inFlight {
		if !e.deadline.IsZero() && !e.settling && !q.env.now.Before(e.deadline) {
			back = append(back, e)
		}
	}
	q.giveBack(back)
}

// purge empties the queue of all but what is in flight or not committed, and
// says how many went.
func (q *queue) purge(why Reason) (n uint64) {
	for e := q.head(); e != nil; e = q.head() {
		q.takeHead()
		q.end(e, why, "")
		n++
	}
	if q.pagedCount > 0 {
		q.env.fates.record(Fate{At: q.env.now, Reason: why, Place: q.ref.name, Text: "and those on disk alone"})
		q.order++
		q.settled = append(q.settled, settledEntry{q.order, q.fetchFrom, q.skipped + 1, q.pagedCount, q.pagedBytes})
		n += uint64(q.pagedCount)
		q.count -= q.pagedCount
		q.bytes -= q.pagedBytes
		q.pagedCount, q.pagedBytes = 0, 0
		q.fetchFrom = q.skipped + 1
	}
	for _, e := range q.tail {
		q.count--
		q.bytes -= e.size
		q.end(e, why, "")
		n++
	}
	q.tail = nil
	q.fetchLife++
	q.fetching = false
	q.unpage()
	q.touch()
	return n
}

// takeAcks moves what was settled into acks, neighbours merged. An entry's
// order rises by one with its place in the queue, so two settled ones with
// neighbouring orders have nothing of this queue between them.
func (q *queue) takeAcks(acks []Ack) []Ack {
	if len(q.settled) == 0 {
		return acks
	}
	slices.SortFunc(q.settled, func(a, b settledEntry) int { return cmp.Compare(a.order, b.order) })
	first := len(acks)
	last := uint64(0)
	for _, e := range q.settled {
		if len(acks) > first && e.order == last+1 {
			a := &acks[len(acks)-1]
			a.To, a.N, a.Bytes = e.to, a.N+e.n, a.Bytes+e.bytes
		} else {
			acks = append(acks, Ack{Cursor: CursorID(q.ref.place), From: e.from, To: e.to, N: e.n, Bytes: e.bytes})
		}
		last = e.order
	}
	q.settled = q.settled[:0]
	return acks
}

// publishStats lets others see the figures.
func (q *queue) publishStats() {
	q.ref.depth.Store(q.count)
	q.ref.unacked.Store(int64(len(q.inFlight)))
	q.ref.size.Store(q.bytes)
	q.ref.readers.Store(int64(len(q.consumers)))
	if q.ref.reject.Load() {
		q.ref.full.Store(q.over(0))
	}
}

// A deque is a ring of entries.
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

func (d *deque) push(e *entry) {
	if d.n == len(d.ring) {
		grown := make([]*entry, max(8, 2*d.n))
		for i := range d.n {
			grown[i] = d.ring[(d.head+i)%len(d.ring)]
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
		if d.ring[(d.head+i)%len(d.ring)] != e {
			continue
		}
		for ; i < d.n-1; i++ {
			d.ring[(d.head+i)%len(d.ring)] = d.ring[(d.head+i+1)%len(d.ring)]
		}
		d.n--
		d.ring[(d.head+d.n)%len(d.ring)] = nil
		d.bytes -= e.size
		return
	}
}

func quote(s string) string { return "\"" + s + "\"" }
