package core

import (
	"errors"
	"slices"
)

// gather moves what queues have settled into the batch.
func (s *shard) gather() {
	b := &s.turn.batch
	for _, q := range s.unsettled {
		q.leaving = false
		if q.removed {
			continue
		}
		for _, lv := range q.levels {
			b.Acks = lv.takeAcks(b.Acks)
			b.Marks = append(b.Marks, lv.marks...)
			lv.marks = lv.marks[:0]
		}
	}
	s.unsettled = s.unsettled[:0]
}

// sealIfFull closes the batch before it grows past what the store takes.
func (s *shard) sealIfFull() {
	if s.turn.bytes < s.caps.MaxBatch/4 && s.turn.ops() < s.caps.MaxOps/2 {
		return
	}
	s.seal()
}

func (s *shard) seal() {
	for _, p := range s.turn.producers {
		p.listed = false
		rec := producerRecord{Last: p.last, Used: p.used.UnixMilli(), Holes: p.holes}
		s.turn.bound = append(s.turn.bound, Record{Table: tableProducers, Key: p.key(), Value: encodeRecord(rec)})
	}
	s.sealed = append(s.sealed, s.turn)
	s.turn = s.newTurn()
	s.turn.batch.Sets, s.retiring = append(s.turn.batch.Sets, s.retiring...), nil
}

func (s *shard) newTurn() *turn { return &turn{shard: s} }

// handOver gives the store what is ready: at once if nothing is in flight, or
// if somebody waits and the one in flight is waited for by nobody.
func (s *shard) handOver() {
	for !s.dead {
		if len(s.sealed) == 0 {
			if !s.mayHandOver(s.turn.batch.Wait || len(s.turn.answers) > 0) {
				return
			}
			s.gather()
			if s.turn.empty() {
				return
			}
			s.seal()
		}
		t := s.sealed[0]
		if !s.mayHandOver(t.batch.Wait || len(t.answers) > 0) || !s.commit(t) {
			return
		}
	}
}

func (s *shard) mayHandOver(waits bool) bool {
	switch len(s.inFlight) {
	case 0:
		return true
	case 1:
		return waits && !s.inFlight[0].batch.Wait
	}
	return false
}

// commit hands over the first sealed turn and says whether the store took it.
func (s *shard) commit(t *turn) bool {
	t.batch.Now = s.env.now.UnixMilli()
	t.batch.Done = t
	t.batch.Wait = t.batch.Wait || len(t.answers) > 0
	// Bound records go first: what ends a session in the same turn comes later.
	t.batch.Records = append(slices.Clip(t.bound), t.batch.Records...)
	s.inFlight = append(s.inFlight, t)
	s.sealed = slices.Delete(s.sealed, 0, 1)
	err := s.store.Commit(&t.batch)
	if err == nil {
		return true
	}
	s.inFlight = s.inFlight[:len(s.inFlight)-1]
	t.batch.Records = t.batch.Records[len(t.bound):]
	switch {
	case errors.Is(err, ErrTooLarge) && len(t.batch.Appends) == 0:
		return s.split(t, err)
	case errors.Is(err, ErrReadOnly), errors.Is(err, ErrTooLarge):
		s.refuseAppends(t, err)
		return true
	case errors.Is(err, ErrOverload):
		s.sealed = slices.Insert(s.sealed, 0, t)
		return false
	}
	s.lost(err)
	return false
}

// split cuts a batch without appends in two, in the order of its fields; what
// is answered goes with the second. One op that is too large alone is a bug:
// verbs check sizes.
func (s *shard) split(t *turn, err error) bool {
	b := &t.batch
	half := t.ops() / 2
	if half == 0 {
		s.lost(err)
		return false
	}
	first := s.newTurn()
	f := &first.batch
	f.Cursors, b.Cursors, half = cut(b.Cursors, half)
	f.Sets, b.Sets, half = cut(b.Sets, half)
	all := append(slices.Clip(t.bound), b.Records...)
	t.bound = nil
	f.Records, b.Records, half = cut(all, half)
	f.Marks, b.Marks, half = cut(b.Marks, half)
	f.Acks, b.Acks, half = cut(b.Acks, half)
	f.Trims, b.Trims, _ = cut(b.Trims, half)
	s.sealed = slices.Insert(s.sealed, 0, first, t)
	return true
}

// cut takes up to n ops off, and says how many more to take elsewhere.
func cut[T any](ops []T, n int) (first, rest []T, left int) {
	k := min(n, len(ops))
	return slices.Clip(ops[:k]), ops[k:], n - k
}

// stepCommitted settles what a batch held.
func (s *shard) stepCommitted(c *committed) {
	if s.dead {
		return
	}
	t := c.turn
	s.inFlight = slices.DeleteFunc(s.inFlight, func(o *turn) bool { return o == t })
	switch {
	case c.err == nil:
		s.settle(t)
	case errors.Is(c.err, ErrReadOnly), errors.Is(c.err, ErrTooLarge):
		t.batch.Records = t.batch.Records[len(t.bound):]
		s.refuseAppends(t, c.err)
	default:
		s.lost(c.err)
		return
	}
	s.heedPressure()
}

func (s *shard) settle(t *turn) {
	for i := range t.adds {
		a := &t.adds[i]
		if !a.queue.removed {
			a.queue.commit(a.entry, t.batch.Appends[a.at].Offset)
		}
	}
	for _, d := range t.delayed {
		a := &t.batch.Appends[d.at]
		d.bucket.committed(dueItem{dueKey{a.Message.NotBefore.UnixMilli(), a.Offset}, a.Message, a.Message.Size()}, maxHeld)
	}
	for _, f := range t.fired {
		f.bucket.count--
	}
	s.due.pending.Add(-int64(len(t.fired)))
	for i := range t.once {
		s.kept(&t.once[i])
	}
	for i := range t.buried {
		if b := &t.buried[i]; !b.queue.removed {
			b.queue.burying--
			s.buried(b.queue, &b.dying)
			b.queue.publishStats()
		}
	}
	for _, p := range t.pubs {
		p.settle(nil)
	}
	for _, h := range t.held {
		if !h.queue.removed {
			h.release(nil, s)
			h.queue.publishStats() // who is answered may look
		}
	}
	for _, g := range t.groups {
		g.group.settle(nil)
	}
	for _, sub := range t.nacks {
		s.nackAll(sub)
	}
	for _, m := range t.marks {
		if m.level.markAsked >= m.to { // not closed since
			m.level.mark = m.to
			m.queue.touch()
		}
	}
	for _, a := range t.answers {
		a.out.put(a.event)
	}
}

// release ends a Submit's hold on a delivery: it is settled, or, refused, with
// the client again, or back in its place if the client has gone.
func (h *heldEntry) release(err error, s *shard) {
	h.entry.settling = false
	switch {
	case err == nil:
		e := h.entry
		h.queue.land(e)
		h.queue.touch()
		s.fates.record(Fate{At: s.env.now, Reason: ReasonAcked, Address: e.message.Address, Place: h.queue.ref.name})
		h.queue.forget(e)
	case s.attached[h.out] == nil:
		h.queue.giveBack([]*entry{h.entry}, returned)
	}
}

// refuseAppends answers the publications of a turn that the store does not
// take, and commits the rest again without them.
func (s *shard) refuseAppends(t *turn, err error) {
	for i := len(t.adds) - 1; i >= 0; i-- {
		a := &t.adds[i]
		if !a.queue.removed {
			a.queue.abort(a.entry)
		}
	}
	for _, d := range t.delayed {
		d.bucket.count--
	}
	s.due.pending.Add(-int64(len(t.delayed)))
	for i := range t.once {
		s.unkept(&t.once[i], AsError(err))
	}
	for _, p := range t.pubs {
		s.refuse(p, AsError(err))
	}
	for i := len(t.undo) - 1; i >= 0; i-- {
		t.undo[i].session.restore(&t.undo[i])
	}
	rest := s.newTurn()
	acks := t.batch.Acks
	for _, h := range t.held {
		if !h.bound {
			rest.held = append(rest.held, h)
			continue
		}
		acks = slices.DeleteFunc(acks, func(a Ack) bool {
			return a.From == h.entry.offset && uint64(a.Cursor) == h.entry.level.place
		})
		if !h.queue.removed {
			h.release(err, s)
		}
	}
	acks = slices.DeleteFunc(acks, func(a Ack) bool {
		return slices.ContainsFunc(t.fired, func(f firing) bool { return f.bucket.cursor == a.Cursor })
	})
	for _, f := range t.fired {
		f.bucket.hold(f.item)
		s.due.stuck = true
	}
	for i := range t.buried {
		b := &t.buried[i]
		acks = slices.DeleteFunc(acks, func(a Ack) bool {
			return a.From == b.dying.entry.offset && uint64(a.Cursor) == b.dying.entry.level.place
		})
		if !b.queue.removed {
			s.exhume(b)
		}
	}
	for _, g := range t.groups {
		if !g.bound {
			rest.groups = append(rest.groups, g)
			continue
		}
		g.group.settle(err)
	}
	rest.answers, rest.marks = t.answers, t.marks
	rest.batch = Batch{
		Wait: len(rest.answers)+len(rest.groups)+len(rest.marks) > 0, Cursors: t.batch.Cursors, Sets: t.batch.Sets,
		Records: t.batch.Records, Marks: t.batch.Marks, Acks: acks, Trims: t.batch.Trims,
	}
	if !rest.empty() {
		s.sealed = slices.Insert(s.sealed, 0, rest)
	}
}

// buried is the end of an entry whose message is safe elsewhere.
func (s *shard) buried(q *queue, d *dying) {
	if d.by != nil {
		d.by.moved++
	}
	s.fates.record(Fate{At: s.env.now, Reason: d.why, Address: d.entry.message.Address, Place: q.ref.name, Text: d.text})
	q.forget(d.entry)
	q.touch()
}

// exhume takes a burial back that the store refused.
func (s *shard) exhume(b *burial) {
	b.queue.burying--
	b.queue.dying = append(b.queue.dying, b.dying)
	b.queue.stuck = true
	b.queue.touch()
}

// kept says to who sent the same again that the first is durable.
func (s *shard) kept(o *once) {
	if p := o.producer; p != nil {
		delete(p.first, o.number)
		p.safe = max(p.safe, o.number)
	} else {
		delete(s.dedup.first, o.key)
	}
	o.first.settle(nil)
}

// unkept forgets a publish that the store refused: the same again is new.
func (s *shard) unkept(o *once, err *Error) {
	if p := o.producer; p != nil {
		delete(p.first, o.number)
		p.refuse(o.number)
	} else {
		delete(s.dedup.first, o.key)
		s.dedup.forget(o.key)
	}
	o.first.settle(err)
}

func (st *sessionState) restore(u *undoNote) {
	if u.before == nil {
		delete(st.notes, u.key)
	} else {
		st.notes[u.key] = u.before
	}
}

func (s *shard) nackAll(sub *submission) {
	for _, n := range sub.nacks {
		if q := s.places[n.tag.Place]; q != nil {
			q.nack(n.tag, sub.out, n.back)
		}
	}
}

// lost: the store cannot be trusted any more. Nobody is answered; what became
// of the open batches is unknown until the next start.
func (s *shard) lost(err error) {
	s.dead = true
	s.fatal(err)
}

func (s *shard) heedPressure() {
	s.gate.set(s.health().Pressure != PressureLow)
}
