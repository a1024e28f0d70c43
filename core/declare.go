package core

import (
	"fmt"
	"strings"
	"time"
)

type queueRecord struct {
	Spec   QueueSpec
	Cursor uint64        // 0: class memory, never stored
	Levels []levelRecord `json:",omitempty"` // beside the first
	Owner  string        `json:",omitempty"`
}

type levelRecord struct {
	Priority uint8
	Cursor   uint64
}

type applyRequest struct {
	vhost   *vhost
	out     *Outbox
	changes []Change
	may     func(Address) bool // of Move: whether it may publish there
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
	case Move:
		return Errorf(CodeBadValue, "a move is the only change of its request")
	case Declare, Alter:
	}
	if err := unsupported(spec); err != nil {
		return err
	}
	if err := checkSettings(spec); err != nil {
		return err
	}
	if err := p.checkGraveKey(spec); err != nil {
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

// checkGraveKey refuses dead letters for an exchange that wants a key, and
// none is said. One that does not exist yet is asked when something dies.
func (p *plan) checkGraveKey(spec *QueueSpec) error {
	a, err := ParseAddress(p.vhost.name, spec.DeadLetter)
	if err != nil || a.Topic != "" {
		return nil //nolint:nilerr // none, or checked before
	}
	if x := p.exchangeSpec(a.Exchange); x != nil && x.keyed() {
		return Errorf(CodeBadValue, "dead_letter=%s: the exchange is %s and wants a key: x/%s/KEY", spec.DeadLetter, x.Kind, x.Name)
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
	add("ttl", old.TTL, asked.TTL)
	add("max_attempts", old.MaxAttempts, asked.MaxAttempts)
	add("backoff", old.Backoff, asked.Backoff)
	add("lease", old.Lease, asked.Lease)
	add("dead_letter", old.DeadLetter, asked.DeadLetter)
	add("idle_expiry", old.IdleExpiry, asked.IdleExpiry)
	add("priorities", old.Priorities, asked.Priorities)
	add("max_wait", old.MaxWait, asked.MaxWait)
	add("single_active", old.SingleActive, asked.SingleActive)
	add("keyed", old.Keyed, asked.Keyed)
	add("dedup_window", old.DedupWindow, asked.DedupWindow)
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
			ref.queue.used = s.env.now
			return ref.queue.purge(ReasonPurged)
		case Remove:
			return s.removeQueue(p.vhost, ref, ReasonRemoved)
		case Declare, Alter, Move:
		}
		if ref == nil {
			s.declareQueue(p.vhost, *c.Queue, p.session)
		} else if ref.queue.declared != *c.Queue {
			s.alterQueue(p.vhost, ref, *c.Queue)
		} else {
			ref.queue.used = s.env.now
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
	q.recorded = spec.Class != Memory && (!spec.Owned || (st != nil && st.durable()))
	if spec.Class != Memory {
		s.turn.batch.Cursors = append(s.turn.batch.Cursors, CursorOp{ID: CursorID(q.ref.place), Log: s.log})
	}
	s.keepQueue(q)
	v.addQueue(q.ref)
	return q.ref
}

// newQueue makes a queue's memory.
func (s *shard) newQueue(v *vhost, spec QueueSpec, place uint64) *queue {
	q := &queue{env: &s.env, vhost: v.name, used: s.env.now}
	q.ref = &queueRef{name: spec.Name, shard: s.id, place: place, queue: q}
	q.base = q.addLevel(0, place)
	q.set(spec, s.policies[v.name])
	s.places[place] = q
	return q
}

// set gives a queue its settings, which were checked, and those that policies
// add.
func (q *queue) set(declared QueueSpec, policies []Policy) {
	q.declared, q.spec = declared, ruled(declared, policies)
	q.backoff, _ = parseBackoff(q.spec.Backoff)
	if !q.spec.Keyed {
		q.scatterAll()
	}
	q.ref.reject.Store(q.spec.rejects())
	q.ref.spec.Store(&declared)
}

// keepQueue writes a queue's record, if it has one.
func (s *shard) keepQueue(q *queue) {
	if !q.recorded {
		return
	}
	rec := queueRecord{Spec: q.declared, Cursor: q.ref.place, Owner: q.owner}
	for _, lv := range q.levels {
		if lv != q.base {
			rec.Levels = append(rec.Levels, levelRecord{lv.priority, lv.place})
		}
	}
	s.turn.batch.Records = append(s.turn.batch.Records, Record{
		Table: tableQueues, Key: joinKey(q.vhost, q.ref.name), Value: encodeRecord(rec),
	})
}

// levelFor is the level of a message in a queue with priorities. The first
// message of a priority makes it, in its own batch.
func (s *shard) levelFor(q *queue, m *Message) *level {
	p := q.priorityOf(m)
	for _, lv := range q.levels {
		if lv.priority == p {
			return lv
		}
	}
	lv := q.addLevel(p, s.newID())
	if q.spec.Class != Memory {
		s.turn.batch.Cursors = append(s.turn.batch.Cursors, CursorOp{ID: CursorID(lv.place), Log: s.log})
	}
	s.places[lv.place] = q
	s.keepQueue(q)
	return lv
}

func (s *shard) alterQueue(v *vhost, ref *queueRef, spec QueueSpec) {
	q := ref.queue
	q.set(spec, s.policies[v.name])
	q.used = s.env.now
	q.touch()
	v.changed()
	s.keepQueue(q)
}

// removeQueue takes a queue away with its bindings; what it held ends.
func (s *shard) removeQueue(v *vhost, ref *queueRef, why Reason) uint64 {
	q := ref.queue
	n := uint64(q.count) + uint64(len(q.inFlight)+len(q.resting)+q.leavers())
	if n > 0 {
		s.fates.record(Fate{At: s.env.now, Reason: why, Place: ref.name, Text: fmt.Sprintf("%d messages", n)})
	}
	for len(q.consumers) > 0 {
		q.detach(q.consumers[0], Errorf(CodeNotFound, "queue %q was removed", ref.name))
	}
	for b := range s.bindings[ref] {
		s.unbind(v, b)
	}
	if q.mover != nil {
		q.mover.done(q.mover.moved, Errorf(CodeNotFound, "queue %q was removed", ref.name))
		q.mover = nil
	}
	for _, lv := range q.levels {
		s.env.used -= lv.ready.bytes
		delete(s.places, lv.place)
	}
	v.removeQueue(ref.name)
	if st := s.sessions[q.owner]; st != nil {
		delete(st.queues, ref.name)
	}
	if q.spec.Class != Memory {
		b := &s.turn.batch
		b.Records = append(b.Records, Record{Table: tableQueues, Key: joinKey(v.name, ref.name)})
		for _, lv := range q.levels {
			b.Cursors = append(b.Cursors, CursorOp{ID: CursorID(lv.place), Log: s.log, Drop: true})
			b.Records = append(b.Records, Record{Table: tableDeliveries, Key: markKey(lv.place)})
		}
	}
	q.removed = true
	ref.full.Store(false)                                         // routes that are older than the removal ask it still
	q.levels, q.inFlight, q.resting, q.dying = nil, nil, nil, nil // a connection may remember the queue a while
	return n
}

// Delivery marks. A queue's record says up to where messages may have been
// delivered: a little ahead of the deliveries while there are consumers,
// exactly when the last has gone. Nothing is delivered beyond what the disk
// knows, so what comes again after a crash is marked as redelivered, at the
// price of marking a little too much there.

func markKey(place uint64) []byte { return fmt.Appendf(nil, "%020d", place) }

func (s *shard) extendMarks(q *queue) {
	if len(q.consumers) == 0 {
		return
	}
	head := q.head()
	for _, lv := range q.levels {
		if to := q.wantsMark(lv, head); to > 0 {
			lv.markAsked = to
			s.writeMark(lv, to)
			s.turn.marks = append(s.turn.marks, markMade{q, lv, to})
			s.turn.batch.Wait = true
		}
	}
}

func (s *shard) closeMarks(q *queue) {
	for _, lv := range q.levels {
		exact := max(lv.delivered, lv.watermark)
		if lv.markAsked <= exact {
			continue
		}
		lv.mark, lv.markAsked = exact, exact
		s.writeMark(lv, exact)
	}
}

func (s *shard) writeMark(lv *level, at Offset) {
	s.turn.batch.Records = append(s.turn.batch.Records, Record{
		Table: tableDeliveries, Key: markKey(lv.place), Value: fmt.Appendf(nil, "%d", at),
	})
}

// milliseconds is a duration as records keep it.
func milliseconds(d time.Duration) int64 { return int64(d / time.Millisecond) }
