package core

import (
	"slices"
)

// bury sends what is dying in a queue where it belongs, in this turn: the
// append and the ack stand and fall together.
func (s *shard) bury(q *queue) {
	if q.stuck || len(q.dying) == 0 {
		return
	}
	all := q.dying
	q.dying = nil
	for i := range all {
		d := &all[i]
		if s.turn.bytes >= s.caps.MaxBatch/4 || s.turn.ops() >= s.caps.MaxOps/2 {
			s.seal()
		}
		to, err := s.graveOf(q, d)
		if err != nil {
			s.unburied(q, d, err)
			continue
		}
		if !s.inter(q, d, to) {
			q.dying, q.stuck = append(q.dying, all[i:]...), true
			return
		}
	}
}

// inter puts an entry's message where it goes. It says false when a queue
// there does not take it now.
func (s *shard) inter(q *queue, d *dying, to Address) bool {
	v := s.vhost(q.vhost)
	if to.Exchange == DefaultExchange && v.queue(to.Topic) == nil {
		s.declareQueue(v, QueueSpec{Name: to.Topic}, nil) // whoever named it wants it
	}
	m := q.letter(d, to)
	if m == nil {
		s.unburied(q, d, Errorf(CodeConflict, "it has died %d times: its dead letters go in a circle", maxDeaths))
		return true
	}
	if m.stored() > int64(s.caps.MaxRecord) { // its new headers are too much
		s.unburied(q, d, ErrTooLarge)
		return true
	}
	way, err := v.route(&to, m, nil)
	if err != nil {
		s.unburied(q, d, AsError(err))
		return true
	}
	if way.targets() == 0 {
		s.unburied(q, d, Errorf(CodeNotFound, "nobody takes %s", to))
		return true
	}
	size := m.Size()
	for _, route := range way.shards {
		if m.QoS > 0 && s.refusal(m, size, "", route) != nil {
			return false
		}
	}
	s.live(way, m, nil)
	stored := false
	for _, route := range way.shards {
		kept, _ := s.place(m, "", route, size)
		stored = stored || kept
	}
	s.lower(q, d, to, stored)
	return true
}

// lower settles an entry whose message is elsewhere, with this turn's batch if
// something of it was stored there.
func (s *shard) lower(q *queue, d *dying, to Address, stored bool) {
	if d.text == "" {
		d.text = "to " + to.String()
	}
	e := d.entry
	if !stored {
		if e.stored {
			e.level.settle(e)
			q.touch()
		}
		s.buried(q, d)
		return
	}
	if e.stored {
		s.turn.batch.Acks = append(s.turn.batch.Acks, Ack{
			Cursor: CursorID(e.level.place), From: e.offset, To: e.offset + 1, N: 1, Bytes: e.size,
		})
	}
	q.burying++
	s.turn.buried = append(s.turn.buried, burial{q, *d})
}

// unburied is the end of an entry that no dead letters can take, for good. One
// that was to be moved stays.
func (s *shard) unburied(q *queue, d *dying, err *Error) {
	if d.by != nil {
		d.by.kept = append(d.by.kept, d.entry)
		d.by.failed = err
		return
	}
	e := d.entry
	text := "no dead letter: " + err.Text
	if d.text != "" {
		text = d.text + "; " + text
	}
	s.fates.record(Fate{At: s.env.now, Reason: d.why, Address: e.message.Address, Place: q.ref.name, Text: text})
	if e.stored {
		e.level.settle(e)
	}
	q.forget(e)
	q.touch()
}

// moveStep is how many messages a mover has under way at once.
const moveStep = 256

// stepMove empties a queue into others, in as many batches as that takes.
func (s *shard) stepMove(r *applyRequest) {
	c := &r.changes[0]
	m := &mover{may: r.may, left: c.Limit}
	m.done = func(n uint64, err error) {
		e := Event{Kind: Confirmed, Token: r.token, N: n}
		if err != nil {
			e.Err = err
		}
		r.out.put(e)
	}
	ref := r.vhost.queue(c.Queue.Name)
	if ref == nil {
		m.done(0, Errorf(CodeNotFound, "no queue %q", c.Queue.Name))
		return
	}
	if c.To != "" {
		to, err := moveTarget(r.vhost, c)
		if err != nil {
			m.done(0, err)
			return
		}
		m.to = &to
	}
	s.startMove(ref.queue, m)
}

// moveTarget reads where messages are moved to: somewhere that is there.
func moveTarget(v *vhost, c *Change) (Address, *Error) {
	to, err := ParseAddress(v.name, c.To)
	switch {
	case err != nil:
		return to, AsError(err)
	case to.Exchange == DefaultExchange && to.Topic == c.Queue.Name:
		return to, Errorf(CodeBadValue, "queue %q cannot be moved into itself", to.Topic)
	case to.Exchange == DefaultExchange && v.queue(to.Topic) == nil:
		return to, Errorf(CodeNotFound, "no queue %q to move to", to.Topic)
	case to.Exchange == StreamExchange || to.Exchange == ReplyExchange || to.namesNothing():
		return to, Errorf(CodeBadValue, "messages are moved to q/QUEUE, t/TOPIC or x/EXCHANGE/KEY, not %s", c.To)
	}
	return to, nil
}

// startMove begins to empty a queue into others.
func (s *shard) startMove(q *queue, m *mover) {
	if q.mover != nil {
		m.done(0, Errorf(CodeConflict, "the messages of queue %q are being moved already", q.ref.name))
		return
	}
	if m.left == 0 {
		m.left = q.count
	}
	q.scatterAll()
	q.mover = m
	q.used = s.env.now
	q.touch()
}

// move goes on with a mover, and ends it when nothing is left, or one message
// finds no room.
func (s *shard) move(q *queue) {
	m := q.mover
	if m == nil {
		return
	}
	for m.left > 0 && q.leavers() < moveStep && !q.stuck {
		e := q.head()
		if e == nil {
			break
		}
		q.take(e)
		q.dying = append(q.dying, dying{entry: e, why: ReasonMoved, by: m})
		m.left--
	}
	s.bury(q)
	if q.stuck {
		m.halt(q)
	}
	if q.leavers() == 0 && (m.left == 0 || q.isDry()) {
		s.stopMove(q)
	}
}

// halt ends a move before its time: what is under way still arrives.
func (m *mover) halt(q *queue) {
	m.left, m.full = 0, true
	q.dying = slices.DeleteFunc(q.dying, func(d dying) bool {
		if d.by == m {
			m.kept = append(m.kept, d.entry)
		}
		return d.by == m
	})
	q.stuck = len(q.dying) > 0
}

// stopMove answers a mover and puts back what it could not move.
func (s *shard) stopMove(q *queue) {
	m := q.mover
	q.mover = nil
	for _, e := range m.kept {
		q.count++
		q.bytes += e.size
		e.level.putBack(e)
	}
	q.touch()
	switch {
	case m.full:
		m.done(m.moved, Errorf(CodeQuota, "%d messages were moved, then a queue they go to took no more", m.moved))
	case len(m.kept) > 0 && m.moved == 0:
		m.done(0, Errorf(CodeNotFound, "none of %d messages was moved: %s", len(m.kept), m.failed))
	default:
		m.done(m.moved, nil)
	}
}
