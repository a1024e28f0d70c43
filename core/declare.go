package core

import (
	"fmt"
	"strings"
	"time"
)

type queueRecord struct {
	Spec   QueueSpec
	Cursor uint64 // 0: class memory, never stored
	Owner  string `json:",omitempty"`
}

type applyRequest struct {
	vhost   *vhost
	out     *Outbox
	changes []Change
	token   uint64
}

// stepApply does all changes or none. What it does is in memory at once, and
// answered when it is on the disk.
func (s *shard) stepApply(r *applyRequest) {
	st := s.attached[r.out]
	plan := newPlan(s, r.vhost, st)
	if err := plan.checkAll(r.changes); err != nil {
		r.out.put(Event{Kind: Confirmed, Token: r.token, Err: err})
		return
	}
	var n uint64
	for i := range r.changes {
		n += plan.do(&r.changes[i])
	}
	s.answer(r.out, Event{Kind: Confirmed, Token: r.token, N: n})
	s.sealIfFull()
}

// checkAll checks every change, and then what they refer to: an alternate may
// stand behind the exchange that names it.
func (p *plan) checkAll(changes []Change) error {
	for i := range changes {
		if err := p.check(&changes[i]); err != nil {
			return err
		}
	}
	return p.checkAlternates()
}

func (p *plan) check(c *Change) error {
	switch {
	case c.Queue != nil:
		return p.checkQueue(c)
	case c.Binding != nil:
		return p.checkBinding(c)
	case c.Exchange != nil:
		return p.checkExchange(c)
	case c.VHost != nil:
		return p.checkVHost(c)
	case c.Stream != nil:
		return NotYet("streams")
	case c.Group != nil:
		return NotYet("groups")
	}
	return Errorf(CodeBadValue, "an empty change")
}

func (p *plan) checkQueue(c *Change) error {
	spec := c.Queue
	if err := CheckTopic(spec.Name); err != nil {
		return err
	}
	old := p.queueSpec(spec.Name)
	switch c.Do {
	case Remove, Purge:
		return p.checkRemove(c, old)
	case Declare, Alter:
	}
	if err := unsupported(spec); err != nil {
		return err
	}
	if old != nil && c.Do == Declare && *old != *spec {
		return &Error{Code: CodeConflict, Text: fmt.Sprintf("declare queue %q: exists with other settings: %s", spec.Name, difference(old, spec))}
	}
	if old != nil && (old.Class == Memory) != (spec.Class == Memory) {
		return &Error{Code: CodeConflict, Text: fmt.Sprintf("queue %q: class memory cannot be left or entered", spec.Name)}
	}
	p.made[spec.Name] = spec
	return nil
}

func (p *plan) checkRemove(c *Change, old *QueueSpec) error {
	name := c.Queue.Name
	if old == nil {
		return Errorf(CodeNotFound, "no queue %q", name)
	}
	if ref := p.vhost.queue(name); ref != nil {
		q := ref.queue
		if c.IfEmpty && q.count+int64(len(q.inFlight)) > 0 {
			return Errorf(CodeConflict, "queue %q is not empty", name)
		}
		if c.IfUnused && len(q.consumers) > 0 {
			return Errorf(CodeConflict, "queue %q has consumers", name)
		}
	}
	if c.Do == Remove {
		p.made[name] = nil
	}
	return nil
}

// unsupported names the first option that does not exist yet.
func unsupported(q *QueueSpec) error {
	for _, o := range []struct {
		asked bool
		name  string
	}{
		{q.Overflow == DeadLetter, "overflow=dead_letter"},
		{q.TTL != 0, "ttl of a queue"},
		{q.MaxAttempts != 0, "max_attempts"},
		{q.Backoff != "", "backoff"},
		{q.DeadLetter != "", "dead_letter"},
		{q.IdleExpiry != 0, "idle_expiry"},
		{q.Priorities != 0, "priorities"},
		{q.SingleActive, "single_active"},
		{q.Keyed, "keyed"},
		{q.DedupWindow != 0, "dedup_window"},
		{q.OnArrival, "deliver=on_arrival"},
		{q.Spread, "spread"},
		{q.Archive != "", "archive"},
	} {
		if o.asked {
			return NotYet(o.name)
		}
	}
	return nil
}

// difference names the settings in which two specs differ.
func difference(old, asked *QueueSpec) string {
	var out []string
	add := func(name string, a, b any) {
		if a != b {
			out = append(out, fmt.Sprintf("%s is %v, asked for %v", name, a, b))
		}
	}
	add("class", old.Class, asked.Class)
	add("max_messages", old.MaxMessages, asked.MaxMessages)
	add("max_bytes", old.MaxBytes, asked.MaxBytes)
	add("overflow", old.Overflow, asked.Overflow)
	add("lease", old.Lease, asked.Lease)
	add("auto_delete", old.AutoDelete, asked.AutoDelete)
	add("store_transient", old.StoreTransient, asked.StoreTransient)
	add("owned", old.Owned, asked.Owned)
	return strings.Join(out, "; ")
}

// do makes a checked change and says how many messages went.
func (p *plan) do(c *Change) uint64 {
	s := p.shard
	switch {
	case c.Queue != nil:
		ref := p.vhost.queue(c.Queue.Name)
		switch c.Do {
		case Purge:
			return ref.queue.purge(ReasonPurged)
		case Remove:
			return s.removeQueue(p.vhost, ref, ReasonRemoved)
		case Declare, Alter:
		}
		if ref == nil {
			s.declareQueue(p.vhost, *c.Queue, p.session)
		} else if ref.queue.spec != *c.Queue {
			s.alterQueue(p.vhost, ref, *c.Queue)
		}
	case c.Binding != nil:
		if c.Do == Remove {
			if b := s.bound(p.vhost, c.Binding); b != nil {
				s.unbind(p.vhost, b)
			}
		} else {
			s.bind(p.vhost, *c.Binding, p.session)
		}
	case c.Exchange != nil:
		s.changeExchange(p.vhost, c)
	case c.VHost != nil:
		s.declareVHost(c.VHost.Name)
	}
	return 0
}

// declareOnUse makes the queue of a publish to an unknown name.
func (s *shard) declareOnUse(out *Outbox, route *shardRoute) (*shardRoute, *Error) {
	v := route.vhost
	ref := v.queue(route.name)
	if ref == nil {
		if err := s.mayDeclareOnUse(route.name); err != nil {
			return nil, err
		}
		ref = s.declareQueue(v, QueueSpec{Name: route.name}, s.attached[out])
	}
	return &shardRoute{shard: s.id, targets: []queueTarget{{ref: ref}}}, nil
}

func (s *shard) mayDeclareOnUse(name string) *Error {
	if !s.autoCreate || ReservedName(name) {
		return Errorf(CodeNotFound, "no queue %q", name)
	}
	return nil
}

// declareQueue makes a queue; its cursor is created in the batch of whatever
// comes first.
func (s *shard) declareQueue(v *vhost, spec QueueSpec, st *sessionState) *queueRef {
	q := s.newQueue(v, spec, s.newID())
	if st != nil && spec.Owned {
		q.owner = st.id
		st.queues[spec.Name] = true
	}
	if spec.Class != Memory {
		b := &s.turn.batch
		b.Cursors = append(b.Cursors, CursorOp{ID: CursorID(q.ref.place), Log: s.log})
		if !spec.Owned || (st != nil && st.durable()) {
			b.Records = append(b.Records, Record{
				Table: tableQueues, Key: joinKey(v.name, spec.Name),
				Value: encodeRecord(queueRecord{Spec: spec, Cursor: q.ref.place, Owner: q.owner}),
			})
		}
	}
	v.addQueue(q.ref)
	return q.ref
}

// newQueue makes a queue's memory.
func (s *shard) newQueue(v *vhost, spec QueueSpec, place uint64) *queue {
	q := &queue{env: &s.env, spec: spec, vhost: v.name}
	q.ref = &queueRef{name: spec.Name, shard: s.id, place: place, queue: q}
	q.ref.reject.Store(spec.rejects())
	q.ref.spec.Store(&spec)
	s.places[place] = q
	return q
}

func (s *shard) alterQueue(v *vhost, ref *queueRef, spec QueueSpec) {
	q := ref.queue
	q.spec = spec
	q.touch()
	ref.reject.Store(spec.rejects())
	ref.spec.Store(&spec)
	v.changed()
	if spec.Class != Memory {
		s.turn.batch.Records = append(s.turn.batch.Records, Record{
			Table: tableQueues, Key: joinKey(v.name, spec.Name),
			Value: encodeRecord(queueRecord{Spec: spec, Cursor: ref.place, Owner: q.owner}),
		})
	}
}

// removeQueue takes a queue away with its bindings; what it held ends.
func (s *shard) removeQueue(v *vhost, ref *queueRef, why Reason) uint64 {
	q := ref.queue
	n := uint64(q.count) + uint64(len(q.inFlight))
	if n > 0 {
		s.fates.record(Fate{At: s.env.now, Reason: why, Place: ref.name, Text: fmt.Sprintf("%d messages", n)})
	}
	for len(q.consumers) > 0 {
		q.detach(q.consumers[0], Errorf(CodeNotFound, "queue %q was removed", ref.name))
	}
	for b := range s.bindings[ref] {
		s.unbind(v, b)
	}
	s.env.used -= q.ready.bytes
	delete(s.places, ref.place)
	v.removeQueue(ref.name)
	if st := s.sessions[q.owner]; st != nil {
		delete(st.queues, ref.name)
	}
	if q.spec.Class != Memory {
		b := &s.turn.batch
		b.Cursors = append(b.Cursors, CursorOp{ID: CursorID(ref.place), Log: s.log, Drop: true})
		b.Records = append(b.Records,
			Record{Table: tableQueues, Key: joinKey(v.name, ref.name)},
			Record{Table: tableDeliveries, Key: markKey(ref.place)})
	}
	q.removed = true
	ref.full.Store(false)                                            // routes that are older than the removal ask it still
	q.ready, q.returned, q.inFlight, q.tail = deque{}, nil, nil, nil // a connection may remember the queue a while
	return n
}

// Delivery marks. A queue's record says up to where messages may have been
// delivered: a little ahead of the deliveries while there are consumers,
// exactly when the last has gone. Nothing is delivered beyond what the disk
// knows, so what comes again after a crash is marked as redelivered, at the
// price of marking a little too much there.

func markKey(place uint64) []byte { return fmt.Appendf(nil, "%020d", place) }

func (s *shard) extendMark(q *queue) {
	if to := q.wantsMark(); to > 0 {
		q.markAsked = to
		s.writeMark(q, to)
		s.turn.marks = append(s.turn.marks, markMade{q, to})
		s.turn.batch.Wait = true
	}
}

func (s *shard) closeMark(q *queue) {
	exact := max(q.delivered, q.watermark)
	if q.markAsked <= exact {
		return
	}
	q.mark, q.markAsked = exact, exact
	s.writeMark(q, exact)
}

func (s *shard) writeMark(q *queue, at Offset) {
	s.turn.batch.Records = append(s.turn.batch.Records, Record{
		Table: tableDeliveries, Key: markKey(q.ref.place), Value: fmt.Appendf(nil, "%d", at),
	})
}

// milliseconds is a duration as records keep it.
func milliseconds(d time.Duration) int64 { return int64(d / time.Millisecond) }
