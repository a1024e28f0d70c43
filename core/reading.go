package core

import (
	"errors"
	"slices"
	"time"
)

type fetched struct {
	queue  *queue
	level  *level
	peek   *peek // who asked, if it is not the queue
	bucket *bucket
	life   int
	fetch  *Fetch
	err    error
	shard  *shard
}

// Fetched is the store's answer.
func (f *fetched) Fetched(_ *Fetch, err error) {
	f.err = err
	f.shard.inbox.put(command{kind: cmdFetched, x: f})
}

const (
	fetchRecords = 1024
	fetchBytes   = 1 << 20
)

func (s *shard) fetch(q *queue, lv *level) {
	f := &fetched{queue: q, level: lv, life: lv.fetchLife, shard: s}
	f.fetch = &Fetch{Log: s.log, Cursor: CursorID(lv.place), From: lv.fetchFrom, Records: fetchRecords, Bytes: fetchBytes, Done: f}
	lv.fetching = true
	if err := s.store.Fetch(f.fetch); err != nil {
		lv.fetching = false
		if !errors.Is(err, ErrOverload) { // else the next tick tries again
			q.halt(err)
		}
	}
}

func (s *shard) stepFetched(f *fetched) {
	q, lv := f.queue, f.level
	if f.peek != nil {
		s.peeked(f)
		return
	}
	if q.removed || f.life != lv.fetchLife {
		return
	}
	lv.fetching = false
	if f.err != nil {
		q.halt(f.err)
		return
	}
	q.fetched(lv, f.fetch.Out, f.fetch.Next)
}

// halt stops a queue whose messages cannot be read: its readers are told, and
// an operator must decide. Nothing is skipped.
func (q *queue) halt(err error) {
	q.broken = err
	for len(q.consumers) > 0 {
		q.detach(q.consumers[0], &Error{Code: CodeInternal, Reason: ReasonUnavailable, Text: "queue " + quote(q.ref.name) + " cannot be read", By: err.Error()})
	}
}

type consumeRequest struct {
	con   *consumer
	vhost *vhost
	name  string
	token uint64
	owned bool
	auto  bool // may be declared on use
}

func (s *shard) stepConsume(r *consumeRequest) {
	ref := r.vhost.queue(r.name)
	if ref == nil {
		if !r.auto {
			r.con.over.Store(true)
			r.con.out.put(Event{Kind: Confirmed, Token: r.token, Err: Errorf(CodeNotFound, "no queue %q", r.name)})
			return
		}
		ref = s.declareQueue(r.vhost, QueueSpec{Name: r.name, Owned: r.owned}, s.attached[r.con.out])
		s.answer(r.con.out, Event{Kind: Confirmed, Token: r.token})
	} else {
		if err := s.joins(ref.queue, r.con); err != nil {
			r.con.over.Store(true)
			r.con.out.put(Event{Kind: Confirmed, Token: r.token, Err: err})
			return
		}
		r.con.out.put(Event{Kind: Confirmed, Token: r.token})
	}
	q := ref.queue
	if r.con.peek {
		q.scatterAll() // what waits for the consumer of its key is ready too
		q.touch()
		s.peek(&peek{con: r.con, queue: q})
		return
	}
	r.con.place = ref.place
	read := slices.DeleteFunc(s.reading[r.con.out], func(q *queue) bool { return q.removed })
	if !slices.Contains(read, q) {
		s.reading[r.con.out] = append(read, q)
	}
	if q.broken != nil {
		q.attach(r.con)
		q.halt(q.broken)
		return
	}
	if r.con.lease == 0 {
		r.con.lease = q.spec.Lease
	}
	q.attach(r.con)
}

// joins says why a consumer cannot join those of a queue, or nil.
func (s *shard) joins(q *queue, con *consumer) error {
	if con.peek {
		return nil
	}
	if con.takeOver {
		q.evictAll()
	}
	if err := q.claimed(con); err != nil {
		return err
	}
	return nil
}

// A peek is a reader that takes nothing: it is shown what is ready, level by
// level, in memory and on the disk.
type peek struct {
	con   *consumer
	queue *queue
	level int // which it is at
}

// peek goes on until the credit or the queue is at its end, or the disk has to
// be asked.
func (s *shard) peek(p *peek) {
	q := p.queue
	for ; p.level < len(q.levels) && p.con.ready(); p.level++ {
		lv := q.levels[p.level]
		for _, e := range lv.returned {
			p.show(e)
		}
		for i := range lv.ready.n {
			p.show(lv.ready.at(i))
		}
		if lv.pagedCount > 0 && p.con.ready() && s.peekDisk(p, lv) {
			return
		}
		for _, e := range lv.tail {
			p.show(e)
		}
	}
	p.con.over.Store(true)
	p.con.out.put(Event{Kind: Drained, Sub: p.con.id, N: p.con.delivered})
}

// peekDisk asks for what is on the disk alone, and says whether an answer will
// come.
func (s *shard) peekDisk(p *peek, lv *level) bool {
	f := &fetched{queue: p.queue, level: lv, peek: p, shard: s}
	records := int(min(p.con.credit, fetchRecords))
	f.fetch = &Fetch{Log: s.log, Cursor: CursorID(lv.place), From: lv.fetchFrom, Records: records, Bytes: fetchBytes, Done: f}
	return s.store.Fetch(f.fetch) == nil
}

func (s *shard) peeked(f *fetched) {
	p, lv := f.peek, f.level
	if f.err == nil {
		for i := range f.fetch.Out {
			st := &f.fetch.Out[i]
			p.show(&entry{message: st.Message, size: st.Message.Size(), seq: uint64(st.Offset), attempts: st.Attempts, safe: true})
		}
		if len(f.fetch.Out) > 0 && p.con.ready() { // there may be more
			again := &fetched{queue: p.queue, level: lv, peek: p, shard: s}
			again.fetch = &Fetch{
				Log: s.log, Cursor: CursorID(lv.place), From: f.fetch.Next,
				Records: int(min(p.con.credit, fetchRecords)), Bytes: fetchBytes, Done: again,
			}
			if s.store.Fetch(again.fetch) == nil {
				return
			}
		}
	}
	for _, e := range lv.tail {
		p.show(e)
	}
	p.level++
	s.peek(p)
}

// show delivers one if there is credit. Its tag settles nothing.
func (p *peek) show(e *entry) {
	if !p.con.ready() || !e.safe || p.queue.isOver(e) != ReasonNone {
		return
	}
	p.con.credit--
	p.con.bytes -= e.size
	p.con.delivered++
	p.con.out.put(Event{
		Kind: Delivered, Sub: p.con.id, Message: e.message,
		Tag: Tag{Place: p.queue.ref.place, Seq: e.seq, Attempt: e.attempts},
	})
}

func (s *shard) stepCancel(con *consumer) {
	if con.peek {
		con.out.put(Event{Kind: Cancelled, Sub: con.id, N: con.delivered})
		return
	}
	if q := s.places[con.place]; q != nil {
		q.detach(con, nil)
		s.afterLeaving(q)
	}
}

// afterLeaving writes down up to where the queue has delivered, and removes a
// queue that goes with its last consumer.
func (s *shard) afterLeaving(q *queue) {
	if len(q.consumers) > 0 {
		return
	}
	s.closeMarks(q)
	if q.spec.AutoDelete {
		s.removeQueue(s.vhost(q.vhost), q.ref, ReasonRemoved)
	}
}

// tickIdle removes a queue that nobody has used for too long.
func (s *shard) tickIdle(q *queue) {
	switch {
	case q.spec.IdleExpiry == 0:
	case len(q.consumers) > 0:
		q.used = s.env.now
	case !s.env.now.Before(q.used.Add(q.spec.IdleExpiry)):
		s.removeQueue(s.vhost(q.vhost), q.ref, ReasonIdle)
	}
}

type grantRequest struct {
	con    *consumer
	credit Credit
	until  time.Time
}

func (s *shard) stepGrant(r *grantRequest) {
	if q := s.places[r.con.place]; q != nil && !r.con.gone {
		r.con.grant(r.credit)
		q.touch()
	}
}

func (s *shard) stepPull(r *grantRequest) {
	q := s.places[r.con.place]
	if q == nil || r.con.gone {
		r.con.out.put(Event{Kind: Drained, Sub: r.con.id})
		return
	}
	r.con.grant(r.credit)
	r.con.pulling, r.con.until = true, r.until
	q.touch()
}
