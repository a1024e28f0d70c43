package core

import (
	"errors"
	"slices"
	"time"
)

type fetched struct {
	queue *queue
	life  int
	fetch *Fetch
	err   error
	shard *shard
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

func (s *shard) fetch(q *queue) {
	f := &fetched{queue: q, life: q.fetchLife, shard: s}
	f.fetch = &Fetch{Log: s.log, Cursor: CursorID(q.ref.place), From: q.fetchFrom, Records: fetchRecords, Bytes: fetchBytes, Done: f}
	q.fetching = true
	if err := s.store.Fetch(f.fetch); err != nil {
		q.fetching = false
		if !errors.Is(err, ErrOverload) { // else the next tick tries again
			q.halt(err)
		}
	}
}

func (s *shard) stepFetched(f *fetched) {
	q := f.queue
	if q.removed || f.life != q.fetchLife {
		return
	}
	q.fetching = false
	if f.err != nil {
		q.halt(f.err)
		return
	}
	q.fetched(f.fetch.Out, f.fetch.Next)
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
		r.con.out.put(Event{Kind: Confirmed, Token: r.token})
	}
	q := ref.queue
	r.con.queue = q
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

func (s *shard) stepCancel(con *consumer) {
	if q := con.queue; q != nil && !q.removed {
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
	s.closeMark(q)
	if q.spec.AutoDelete {
		s.removeQueue(s.vhost(q.vhost), q.ref, ReasonRemoved)
	}
}

type grantRequest struct {
	con    *consumer
	credit Credit
	until  time.Time
}

func (s *shard) stepGrant(r *grantRequest) {
	if q := r.con.queue; q != nil && !r.con.gone {
		r.con.grant(r.credit)
		q.touch()
	}
}

func (s *shard) stepPull(r *grantRequest) {
	q := r.con.queue
	if q == nil || r.con.gone {
		r.con.out.put(Event{Kind: Drained, Sub: r.con.id})
		return
	}
	r.con.grant(r.credit)
	r.con.pulling, r.con.until = true, r.until
	q.touch()
}

// tick gives back what was held too long and ends waits that are over.
func (q *queue) tick() {
	pulls := false
	for _, c := range q.consumers {
		pulls = pulls || c.pulling
	}
	if len(q.inFlight) > 0 {
		q.expireLeases()
	}
	if pulls || q.wantsFetch() || q.ref.full.Load() { // full of what may have expired
		q.touch()
	}
}
