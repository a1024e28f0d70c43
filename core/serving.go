package core

import (
	"slices"
	"time"
)

// deliver hands out what can be handed out.
func (q *queue) deliver() {
	if q.spec.Keyed {
		q.deliverKeyed()
		q.drain()
		return
	}
	for q.restBytes < maxRestBytes {
		e := q.head()
		if e == nil || (e.stored && e.offset > e.level.mark) {
			break
		}
		c := q.next()
		if c == nil {
			break
		}
		q.take(e)
		q.send(e, c)
	}
	q.drain()
}

// free says who may take the next one of a group: the consumer that has the
// others, or any if nobody has.
func (q *queue) free(group *keyGroup) *consumer {
	switch {
	case group.flying == 0:
		return q.next()
	case group.con.gone || !group.con.ready():
		return nil
	}
	return group.con
}

// deliverKeyed hands out what can be handed out, each key to one consumer at a
// time. What has to wait for its consumer is passed by.
func (q *queue) deliverKeyed() {
	for _, group := range slices.Clone(q.groups.waiters) {
		for len(group.waiting) > 0 && q.restBytes < maxRestBytes {
			e := group.waiting[0]
			if why := q.isOver(e); why != ReasonNone {
				q.groups.take(group)
				q.uncount(e)
				q.end(e, why, "")
				continue
			}
			c := q.free(group)
			if c == nil {
				break
			}
			q.groups.take(group)
			q.uncount(e)
			q.send(e, c)
		}
		q.groups.drop(group)
	}
	for q.restBytes < maxRestBytes && !q.groups.full() {
		e := q.head()
		if e == nil || (e.stored && e.offset > e.level.mark) {
			return
		}
		c := q.next()
		if c == nil {
			return
		}
		group := q.groups.of(e.message.Key)
		if group != nil {
			if c = q.free(group); len(group.waiting) > 0 || c == nil {
				q.take(e)
				q.count++
				q.bytes += e.size
				q.groups.wait(group, e)
				continue
			}
		}
		q.take(e)
		q.send(e, c)
	}
}

func (q *queue) uncount(e *entry) {
	q.count--
	q.bytes -= e.size
}

// scatter puts what waits in a group back to its place: an older one of its
// key comes before it.
func (q *queue) scatter(group *keyGroup) {
	for len(group.waiting) > 0 {
		e := q.groups.take(group)
		e.level.putBack(e)
	}
	q.groups.drop(group)
}

func (q *queue) scatterAll() {
	for _, group := range slices.Clone(q.groups.waiters) {
		q.scatter(group)
	}
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
	if q.spec.Keyed {
		q.groups.fly(e.message.Key, c)
		e.keyed = true
	}
	if e.stored {
		e.level.delivered = max(e.level.delivered, e.offset)
	}
	c.out.put(Event{
		Kind: Delivered, Sub: c.id, Message: e.message,
		Tag: Tag{Place: q.ref.place, Seq: e.seq, Attempt: e.attempts},
	})
}

// markAhead is how far the record of deliveries runs ahead of them: what a
// crash brings again beyond what was delivered, and marked all the same.
const markAhead = 4096

// wantsMark says up to where the record of a level's deliveries should go now,
// or 0. head is what the queue hands out next.
func (q *queue) wantsMark(lv *level, head *entry) Offset {
	if len(q.consumers) == 0 {
		return 0
	}
	if head != nil && head.level == lv && head.stored && head.offset > lv.markAsked && q.next() != nil {
		return head.offset + markAhead
	}
	if lv.delivered > 0 && lv.delivered+markAhead/2 > lv.markAsked {
		return lv.delivered + markAhead
	}
	return 0
}

// next is the next consumer that can take one, round robin, or nil.
func (q *queue) next() *consumer {
	switch {
	case q.spec.SingleActive:
		return q.nextActive()
	case q.ranked:
		return q.nextRanked()
	}
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

// nextActive is the one consumer that gets everything until it goes, if it can
// take one: of the highest priority, and of those the first to come.
func (q *queue) nextActive() *consumer {
	if q.active == nil || q.active.gone {
		q.active = nil
		for _, c := range q.consumers {
			if q.active == nil || c.priority > q.active.priority {
				q.active = c
			}
		}
	}
	if q.active == nil || !q.active.ready() {
		return nil
	}
	return q.active
}

// nextRanked is next among those of the highest priority that can take one.
func (q *queue) nextRanked() (best *consumer) {
	n := len(q.consumers)
	at := 0
	for i := range n {
		k := (q.turn + 1 + i) % n
		if c := q.consumers[k]; c.ready() && (best == nil || c.priority > best.priority) {
			best, at = c, k
		}
	}
	if best != nil {
		q.turn = at
	}
	return best
}

// drain ends the pulls that are over.
func (q *queue) drain() {
	for _, c := range q.consumers {
		if !c.pulling {
			continue
		}
		switch {
		case !c.ready():
			c.endPull(nil)
		case c.until.IsZero() && q.isDry():
			c.endPull(nil)
		case !c.until.IsZero() && !q.env.now.Before(c.until):
			c.endPull(&Error{Code: CodeTooSlow, Text: "the wait is over"})
		}
	}
}

// isDry says whether nothing is there to be delivered, nor on its way.
func (q *queue) isDry() bool {
	for _, lv := range q.levels {
		if lv.pagedCount > 0 || lv.fetching {
			return false
		}
	}
	return q.head() == nil
}

func (q *queue) attach(c *consumer) {
	q.consumers = append(q.consumers, c)
	q.ranked = q.ranked || c.priority != 0
	q.used = q.env.now
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
	q.used = q.env.now
	q.touch()
	if c.pulling && err == nil { // with an error, Cancelled is the end of the pull too
		c.endPull(nil)
	}
	c.out.put(Event{Kind: Cancelled, Sub: c.id, N: c.delivered, Err: err})
}

// claimed says why a consumer cannot join those that are there, or nil.
func (q *queue) claimed(c *consumer) *Error {
	if len(q.consumers) > 0 && (c.exclusive || q.consumers[0].exclusive) {
		return Errorf(CodeConflict, "queue %q has another consumer, and one of the two is exclusive", q.ref.name)
	}
	return nil
}

// evictAll ends all consumers for one that takes their place: what they hold
// goes back.
func (q *queue) evictAll() {
	for len(q.consumers) > 0 {
		c := q.consumers[0]
		q.detach(c, ErrTakenOver)
		var back []*entry
		for _, e := range q.inFlight {
			if e.sub == c && !e.settling {
				back = append(back, e)
			}
		}
		q.giveBack(back, returned)
	}
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
	q.giveBack(back, returned)
	q.used = q.env.now
	q.touch()
}

// A comeback is how what was delivered goes back: by whose will, and when.
type comeback struct {
	failed bool          // the delivery failed: the queue's backoff counts
	delay  time.Duration // or this
}

var (
	returned = comeback{}             // its reader has gone
	failed   = comeback{failed: true} // its reader gave it back, or forgot it
)

// giveBack takes entries out of flight and returns them to their places, now
// or when they have rested. One that has had all its attempts ends.
func (q *queue) giveBack(back []*entry, how comeback) {
	if len(back) == 0 {
		return
	}
	var touched []*level
	for _, e := range back {
		q.land(e)
		if group := q.groups.of(e.message.Key); group != nil {
			q.scatter(group)
		}
		e.sub, e.deadline = nil, time.Time{}
		if e.stored {
			e.level.noteAttempts(e)
		}
		if q.spent(e.attempts) {
			q.end(e, ReasonAttempts, "")
			continue
		}
		if pause := q.pause(e, how); pause > 0 {
			q.rest(e, q.env.now.Add(pause))
			continue
		}
		q.count++
		q.bytes += e.size
		e.level.returned = append(e.level.returned, e)
		if !slices.Contains(touched, e.level) {
			touched = append(touched, e.level)
		}
	}
	for _, lv := range touched {
		lv.sortReturned()
	}
	q.touch()
}

// pause is how long an entry rests before it is delivered again.
func (q *queue) pause(e *entry, how comeback) time.Duration {
	if how.delay > 0 || !how.failed {
		return how.delay
	}
	return q.backoff.after(int(e.attempts), q.env.dice)
}

// wake returns what has rested long enough to its place.
func (q *queue) wake() {
	for len(q.resting) > 0 && !q.env.now.Before(q.resting[0].deadline) {
		e := q.rouse()
		q.count++
		q.bytes += e.size
		e.level.putBack(e)
		q.touch()
	}
}

// land takes an entry out of flight.
func (q *queue) land(e *entry) {
	delete(q.inFlight, e.seq)
	q.credit(e)
	if e.keyed {
		e.keyed = false
		q.groups.land(e.message.Key)
	}
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
	q.land(e)
	q.end(e, why, text)
}

func (q *queue) nack(t Tag, out *Outbox, b Back) {
	e := q.held(t, out)
	if e == nil {
		return
	}
	if b.Dead {
		q.finish(e, ReasonRejected, b.Text)
		return
	}
	q.giveBack([]*entry{e}, comeback{failed: true, delay: b.Delay})
}

// expireLeases gives back what was held too long.
func (q *queue) expireLeases() {
	var back []*entry
	for _, e := range q.inFlight {
		if !e.deadline.IsZero() && !e.settling && !q.env.now.Before(e.deadline) {
			back = append(back, e)
		}
	}
	q.giveBack(back, failed)
}

// tick gives back what was held too long, wakes what rested and ends waits
// that are over.
func (q *queue) tick() {
	pulls := false
	for _, c := range q.consumers {
		pulls = pulls || c.pulling
	}
	if len(q.inFlight) > 0 {
		q.expireLeases()
	}
	q.wake()
	if q.stuck {
		q.stuck = false
		q.touch()
	}
	if pulls || q.mover != nil || q.ref.full.Load() || q.expires() { // full of what may have expired
		q.touch()
	}
	for _, lv := range q.levels {
		if q.wantsFetch(lv) {
			q.touch()
		}
	}
}

// expires says whether a level's first message is over.
func (q *queue) expires() bool {
	for _, lv := range q.levels {
		if e := lv.next(); e != nil && q.isOver(e) != ReasonNone {
			return true
		}
	}
	return false
}

// purge empties the queue of all but what is in flight, dying or not
// committed, and says how many went.
func (q *queue) purge(why Reason) (n uint64) {
	q.scatterAll()
	for _, lv := range q.levels {
		for e := lv.next(); e != nil; e = lv.next() {
			q.take(e)
			q.end(e, why, "")
			n++
		}
		n += q.purgePaged(lv, why)
	}
	for len(q.resting) > 0 {
		q.end(q.rouse(), why, "")
		n++
	}
	q.touch()
	return n
}

func (q *queue) purgePaged(lv *level, why Reason) (n uint64) {
	if lv.pagedCount > 0 {
		q.env.fates.record(Fate{At: q.env.now, Reason: why, Place: q.ref.name, Text: "and those on disk alone"})
		lv.order++
		lv.settled = append(lv.settled, settledEntry{lv.order, lv.fetchFrom, lv.skipped + 1, lv.pagedCount, lv.pagedBytes})
		n += uint64(lv.pagedCount)
		q.count -= lv.pagedCount
		q.bytes -= lv.pagedBytes
		lv.pagedCount, lv.pagedBytes = 0, 0
		lv.fetchFrom = lv.skipped + 1
	}
	for _, e := range lv.tail {
		q.count--
		q.bytes -= e.size
		q.end(e, why, "")
		n++
	}
	lv.tail = nil
	lv.fetchLife++
	lv.fetching = false
	q.unpage(lv)
	return n
}
