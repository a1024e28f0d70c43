package core

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// transientBit marks the Tag.Seq of entries that have no offset.
const transientBit = 1 << 62

// A queue hands each of its messages to one reader, in order, until one of
// them settles it. Its shard owns it: no method locks, waits or does I/O. What
// must be stored gathers in the levels until the shard's batch takes it.
//
//	level -> in flight with a consumer -> settled, or dying -> its dead letters
//	  ^--------- given back, rested <-----+
type queue struct {
	ref      *queueRef
	env      *queueEnv
	declared QueueSpec
	spec     QueueSpec // as policies leave it
	backoff  backoff   // of spec
	vhost    string
	owner    string // id of the session, of an owned queue
	recorded bool   // it has a record: it outlives the process
	removed  bool

	base      *level            // of priority 0: all of a queue without priorities
	levels    []*level          // the highest first
	transient uint64            // of the newest entry without an offset
	inFlight  map[uint64]*entry // by seq: delivered, not settled
	resting   restHeap          // given back, not to be delivered before their time
	restBytes int64
	consumers []*consumer
	turn      int       // round robin
	ranked    bool      // a consumer has a priority
	active    *consumer // of a queue with single_active
	groups    groups    // of one that is keyed

	count, bytes int64 // ready, returned and paged
	loose        int64 // entries in memory that the store has not
	looseBytes   int64

	dying   []dying // on their way to the dead letters
	burying int     // and those that a batch under way takes there
	stuck   bool    // they could not take one: until the next tick
	mover   *mover  // empties the queue into others

	used    time.Time // by a consumer or a verb, for idle_expiry
	leaving bool      // settled and marks wait for the next batch
	broken  error
	dirty   bool
}

// maxLooseBytes is how much of a queue may be in memory alone.
const maxLooseBytes = 64 << 20

// What rests, or waits for dead letters that do not take it, stays in memory:
// with more of it the queue hands out nothing new.
const (
	maxRestBytes = 64 << 20
	maxDying     = 1024
)

// A dying entry leaves for the dead letters of its queue, or to where it is
// moved.
type dying struct {
	entry *entry
	why   Reason
	text  string
	by    *mover // nil: the queue's own rules
}

// A mover takes a queue's messages somewhere else. It is a command under way:
// its answer comes when the last has moved.
type mover struct {
	to     *Address // nil: each where it came from, as its dead letter says
	may    func(Address) bool
	left   int64 // how many more
	moved  uint64
	kept   []*entry // cannot be moved: they go back to their places at the end
	failed error    // why the last of them cannot
	full   bool     // there was no room for them
	done   func(n uint64, err error)
}

// queueEnv is what a shard lends its queues.
type queueEnv struct {
	now    time.Time
	fates  *journal
	dice   *rand.Rand // of jitter
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
	place  uint64      // its first cursor
	queue  *queue      // its shard's
	reject atomic.Bool // overflow=reject with a limit: routing asks full first
	full   atomic.Bool
	spec   atomic.Pointer[QueueSpec] // as it is now, for who inspects

	depth, unacked, delayed, size, readers atomic.Int64
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

// addLevel gives the queue one more level, with a cursor of its own.
func (q *queue) addLevel(priority uint8, place uint64) *level {
	lv := &level{priority: priority, place: place}
	at := 0
	for at < len(q.levels) && q.levels[at].priority > priority {
		at++
	}
	q.levels = slices.Insert(q.levels, at, lv)
	return lv
}

// priorityOf is the level that a message belongs to.
func (q *queue) priorityOf(m *Message) uint8 {
	if q.spec.Priorities <= 1 {
		return 0
	}
	return min(m.Priority, uint8(q.spec.Priorities-1))
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

// diverts says whether one more goes to the dead letters instead.
func (q *queue) diverts(size int64) bool { return q.spec.Overflow == DeadLetter && q.over(size) }

// dropOldest makes room for one, in the lowest level first. It says false when
// nothing can go: all are in flight, not committed or not in memory, or the
// dead letters have to take some first.
func (q *queue) dropOldest() bool {
	if q.buries(ReasonOverflow) && q.leavers() >= maxDying {
		return false
	}
	for _, lv := range slices.Backward(q.levels) {
		if e := lv.next(); e != nil {
			q.take(e)
			q.end(e, ReasonOverflow, "")
			return true
		}
	}
	return false
}

// leavers is how many are on their way to the dead letters.
func (q *queue) leavers() int { return len(q.dying) + q.burying }

// add appends a message to a level. A stored one is deliverable after
// commit(e); e goes into the batch.
func (q *queue) add(lv *level, m *Message, size int64) *entry {
	e := q.env.entry()
	e.level, e.message, e.size, e.stored = lv, m, size, q.stores(m)
	q.count++
	q.bytes += size
	q.touch()
	if !e.stored {
		q.loose++
		q.looseBytes += size
		q.transient++
		e.seq, e.safe = q.transient|transientBit, true
		if lv.paged {
			lv.tail = append(lv.tail, e)
			return e
		}
		q.push(e)
		return e
	}
	if lv.paged || (q.env.used >= q.env.window && lv.ready.bytes >= q.env.least) {
		lv.paged, e.skip = true, true
		lv.unsafe++
		return e
	}
	q.push(e)
	return e
}

func (q *queue) push(e *entry) {
	lv := e.level
	lv.order++
	e.order = lv.order
	lv.ready.push(e)
	q.env.used += e.size
}

// commit makes a stored entry deliverable: the disk has it at offset.
func (q *queue) commit(e *entry, at Offset) {
	q.touch()
	if e.skip {
		lv := e.level
		lv.unsafe--
		lv.pagedCount++
		lv.pagedBytes += e.size
		lv.skipped = at
		if lv.fetchFrom == 0 {
			lv.fetchFrom = at
		}
		q.env.release(e)
		q.unpage(lv)
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
		e.level.unsafe--
		q.unpage(e.level)
		q.env.release(e)
		return
	}
	q.env.used -= e.size
	e.level.ready.remove(e)
	q.env.release(e)
}

// unpage ends the paging when nothing is on the disk alone.
func (q *queue) unpage(lv *level) {
	if !lv.paged || lv.pagedCount > 0 || lv.unsafe > 0 || lv.fetching {
		return
	}
	lv.paged, lv.fetchFrom = false, 0
	for _, e := range lv.tail {
		q.push(e)
	}
	lv.tail = nil
}

// wantsFetch says whether messages of a level should be read from the store
// now: to be delivered, dropped, moved, or to see whether they have expired.
func (q *queue) wantsFetch(lv *level) bool {
	if !lv.paged || lv.fetching || lv.pagedCount == 0 || lv.ready.bytes > q.env.least/2 {
		return false
	}
	return len(q.consumers) > 0 || q.mover != nil || q.tooMuch() || (q.spec.TTL > 0 && lv.front() == nil)
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
func (q *queue) fetched(lv *level, out []Stored, next Offset) {
	q.touch()
	lv.fetchFrom = next
	for i := range out {
		e := q.env.entry()
		st := &out[i]
		*e = entry{
			level: lv, offset: st.Offset, seq: uint64(st.Offset), message: st.Message, size: st.Message.Size(),
			attempts: st.Attempts, stored: true, safe: true, spent: q.spent(st.Attempts),
		}
		if st.Offset <= lv.watermark {
			e.attempts = max(e.attempts, 1) // a crash may have hidden a delivery
		}
		q.push(e)
		lv.pagedCount--
		lv.pagedBytes -= e.size
	}
	if len(out) == 0 { // what was counted is not there: the count was wrong, and is mended
		q.count -= lv.pagedCount
		q.bytes -= lv.pagedBytes
		lv.pagedCount, lv.pagedBytes = 0, 0
	}
	q.unpage(lv)
}

// spent says whether so many deliveries are all that a message gets.
func (q *queue) spent(attempts uint16) bool {
	return q.spec.MaxAttempts > 0 && int(attempts) >= q.spec.MaxAttempts
}

// first is the entry whose turn it is, dead or alive, or nil: of the highest
// level, or one of a lower level that has waited for max_wait.
func (q *queue) first() (first *entry) {
	if len(q.levels) == 1 {
		return q.base.next()
	}
	var late *entry
	for _, lv := range q.levels {
		e := lv.next()
		switch {
		case e == nil:
		case first == nil:
			first = e
		case q.spec.MaxWait > 0 && !q.env.now.Before(e.message.entered().Add(q.spec.MaxWait)) &&
			e.message.entered().Before(first.message.entered()) && (late == nil || e.message.entered().Before(late.message.entered())):
			late = e
		}
	}
	if late != nil {
		return late
	}
	return first
}

// head is the entry to be delivered next, or nil. Those that are over end
// here.
func (q *queue) head() *entry {
	for {
		e := q.first()
		if e == nil {
			return nil
		}
		why := q.isOver(e)
		if why == ReasonNone {
			return e
		}
		if q.buries(why) && q.leavers() >= maxDying {
			return nil
		}
		q.take(e)
		q.end(e, why, "")
	}
}

// isOver says why an entry is not to be delivered any more, or ReasonNone.
func (q *queue) isOver(e *entry) Reason {
	switch {
	case e.message.Expired(q.env.now):
		return ReasonExpired
	case q.spec.TTL > 0 && !q.env.now.Before(e.message.entered().Add(q.spec.TTL)):
		return ReasonExpired
	case e.spent:
		return ReasonAttempts
	}
	return ReasonNone
}

// take takes the front of its level out.
func (q *queue) take(e *entry) {
	q.count--
	q.bytes -= e.size
	if lv := e.level; len(lv.returned) > 0 {
		lv.takeReturned()
	} else {
		lv.ready.pop()
		q.env.used -= e.size
	}
}

// buries says whether what ends for that reason goes to the dead letters.
func (q *queue) buries(why Reason) bool {
	if q.spec.DeadLetter == "" {
		return false
	}
	switch why { //nolint:exhaustive // the others are their purpose, or an operator's will
	case ReasonExpired, ReasonOverflow, ReasonRejected, ReasonAttempts:
		return true
	}
	return false
}

// end ends an entry that is nowhere any more: it is settled, or goes to the
// dead letters first.
func (q *queue) end(e *entry, why Reason, text string) {
	q.touch()
	if q.buries(why) {
		q.dying = append(q.dying, dying{entry: e, why: why, text: text})
		return
	}
	q.env.fates.record(Fate{At: q.env.now, Reason: why, Address: e.message.Address, Place: q.ref.name, Text: text})
	if e.stored {
		e.level.settle(e)
	}
	q.forget(e)
}

// forget lets go of an entry that is settled.
func (q *queue) forget(e *entry) {
	if !e.stored {
		q.loose--
		q.looseBytes -= e.size
	}
	q.env.release(e)
}

// rest keeps an entry that was given back until its time.
func (q *queue) rest(e *entry, until time.Time) {
	e.deadline = until
	heap.Push(&q.resting, e)
	q.restBytes += e.size
}

// rouse takes the next one out that rests.
func (q *queue) rouse() *entry {
	e := heap.Pop(&q.resting).(*entry)
	e.deadline = time.Time{}
	q.restBytes -= e.size
	return e
}

// publishStats lets others see the figures.
func (q *queue) publishStats() {
	q.ref.depth.Store(q.count + int64(q.leavers()))
	q.ref.unacked.Store(int64(len(q.inFlight)))
	q.ref.delayed.Store(int64(len(q.resting)))
	q.ref.size.Store(q.bytes)
	q.ref.readers.Store(int64(len(q.consumers)))
	if q.ref.reject.Load() {
		q.ref.full.Store(q.over(0))
	}
}

// A restHeap holds what waits for its time, the next one first; it is used
// through container/heap.
type restHeap []*entry

func (h restHeap) Len() int      { return len(h) }
func (h restHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h restHeap) Less(i, j int) bool {
	if h[i].deadline.Equal(h[j].deadline) {
		return h[i].order < h[j].order
	}
	return h[i].deadline.Before(h[j].deadline)
}
func (h *restHeap) Push(x any) { *h = append(*h, x.(*entry)) }
func (h *restHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}

func quote(s string) string { return "\"" + s + "\"" }
