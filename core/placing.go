package core

import "fmt"

// refusal says why a queue of the route cannot take m, or nil.
func (s *shard) refusal(m *Message, size int64, key string, route *shardRoute) *Error {
	for i := range route.targets {
		t := &route.targets[i]
		if !t.takes(m, key) {
			continue
		}
		q := s.current(t.ref)
		if q.removed {
			continue
		}
		if q.diverts(size) {
			if err := s.overflows(q, m, size); err != nil {
				return err
			}
			continue
		}
		if err := q.refuses(m, size); err != nil {
			return err
		}
		if err := s.fullDisk(q); err != nil {
			return err
		}
	}
	return nil
}

// fullDisk refuses for a queue of class async on a full disk: its publisher is
// confirmed before the store is asked, so nobody could be told later.
func (s *shard) fullDisk(q *queue) *Error {
	if q.spec.Class == Async && s.health().ReadOnly {
		return ErrReadOnly
	}
	return nil
}

// place puts m into the queues of a route, and one append for all that store
// it into the batch. It says whether one does, and whether somebody waits.
func (s *shard) place(m *Message, key string, route *shardRoute, size int64) (stored, waits bool) {
	members, all := s.members[:0], true
	var full []*queue
	for i := range route.targets {
		t := &route.targets[i]
		q := s.current(t.ref)
		if q.removed {
			s.fates.record(Fate{At: s.env.now, Reason: ReasonRemoved, Address: m.Address, Place: q.ref.name})
		}
		if !t.takes(m, key) || q.removed {
			all = false
			continue
		}
		if q.diverts(size) {
			full, all = append(full, q), false
			continue
		}
		if m.QoS == 0 {
			if err := q.refuses(m, size); err != nil {
				s.fates.record(Fate{At: s.env.now, Reason: err.Reason, Address: m.Address, Place: q.ref.name})
				all = false
				continue
			}
		}
		lv := q.base
		if q.spec.Priorities > 1 {
			lv, all = s.levelFor(q, m), false
		}
		e := q.add(lv, m, size)
		if !e.stored {
			all = false
			continue
		}
		members = append(members, CursorID(lv.place))
		s.turn.adds = append(s.turn.adds, added{q, e, len(s.turn.batch.Appends)})
		waits = waits || (q.spec.Class == Fsync && m.QoS > 0)
	}
	s.members = members
	if len(members) > 0 {
		s.turn.batch.Appends = append(s.turn.batch.Appends, Append{Log: s.log, Message: m, Routes: s.routeSet(members, route, all)})
		s.turn.bytes += int(size)
	}
	stored = len(members) > 0
	for _, q := range full {
		a, b := s.divert(q, m, size)
		stored, waits = stored || a, waits || b
	}
	return stored, waits
}

// graveOf is where an entry goes.
func (s *shard) graveOf(q *queue, d *dying) (Address, *Error) {
	if d.by == nil {
		a, err := ParseAddress(q.vhost, q.spec.DeadLetter)
		if err != nil {
			return a, AsError(err)
		}
		return a, nil
	}
	if d.by.to != nil {
		return *d.by.to, nil
	}
	text, ok := d.entry.message.Header(HeaderDeadQueue)
	if !ok {
		return Address{}, Errorf(CodeNotFound, "it has no header %s that says where it came from", HeaderDeadQueue)
	}
	a, err := ParseAddress(q.vhost, text)
	switch {
	case err != nil:
		return a, AsError(err)
	case a.Exchange != DefaultExchange || s.vhost(q.vhost).queue(a.Topic) == nil:
		return a, Errorf(CodeNotFound, "there is no queue %s any more", text)
	case !d.by.may(a):
		return a, &Error{Code: CodeDenied, Reason: ReasonDenied, Text: "not allowed to publish to " + text}
	}
	return a, nil
}

// divert puts what a full queue does not take into its dead letters instead,
// and says whether it is stored there, and whether somebody waits for that.
func (s *shard) divert(q *queue, m *Message, size int64) (stored, waits bool) {
	e := &entry{message: m, size: size}
	d := &dying{entry: e, why: ReasonOverflow, text: ""}
	to, way, letter, err := s.diverted(q, d)
	if err != nil {
		s.fates.record(Fate{At: s.env.now, Reason: ReasonOverflow, Address: m.Address, Place: q.ref.name, Text: "no dead letter: " + err.Text})
		return false, false
	}
	s.live(way, letter, nil)
	for _, route := range way.shards {
		a, b := s.place(letter, "", route, letter.Size())
		stored, waits = stored || a, waits || b
	}
	s.fates.record(Fate{At: s.env.now, Reason: ReasonOverflow, Address: m.Address, Place: q.ref.name, Text: "to " + to.String()})
	return stored, waits
}

// diverted is where a message goes that its queue has no room for, or why it
// cannot go there.
func (s *shard) diverted(q *queue, d *dying) (to Address, way *routes, m *Message, err *Error) {
	if to, err = s.graveOf(q, d); err != nil {
		return
	}
	v := s.vhost(q.vhost)
	if to.Exchange == DefaultExchange && v.queue(to.Topic) == nil {
		s.declareQueue(v, QueueSpec{Name: to.Topic}, nil)
	}
	if m = q.letter(d, to); m == nil {
		return to, nil, nil, Errorf(CodeQuota, "dead letters that go in a circle")
	}
	way, e := v.route(&to, m, nil)
	if e != nil {
		return to, nil, m, AsError(e)
	}
	if way.targets() == 0 {
		return to, way, m, Errorf(CodeNotFound, "nobody takes %s", to)
	}
	for _, route := range way.shards {
		if m.QoS > 0 {
			if err := s.refusal(m, m.Size(), "", route); err != nil {
				return to, way, m, err
			}
		}
	}
	return to, way, m, nil
}

// overflows says why a full queue's dead letters cannot take a message in its
// place, or nil.
func (s *shard) overflows(q *queue, m *Message, size int64) *Error {
	_, _, _, err := s.diverted(q, &dying{entry: &entry{message: m, size: size}, why: ReasonOverflow})
	if err == nil {
		return nil
	}
	return &Error{Code: CodeQuota, Reason: ReasonQueueFull, Text: fmt.Sprintf("queue %q is full, and so are its dead letters: %s", q.ref.name, err.Text)}
}

// mayRetain says why a value cannot be kept, or nil. A record is no append, so
// the store would take it on a full disk; its publish is refused all the same.
func (s *shard) mayRetain(m *Message) *Error {
	if s.health().ReadOnly {
		return ErrReadOnly
	}
	return s.retainedOf(m.Address.VHost).refuses(m)
}

func (s *shard) retainedOf(vhost string) *retained {
	r := s.retained[vhost]
	if r == nil {
		r = new(retained)
		s.retained[vhost] = r
	}
	return r
}

// keepValue keeps the value of a message that was not retained by its publish.
func (s *shard) keepValue(m *Message) {
	if m.Retain && m.Address.Exchange == TopicExchange && s.mayRetain(m) == nil && s.retainedOf(m.Address.VHost).set(m) {
		s.turn.batch.Records = append(s.turn.batch.Records, retainedRecord(m))
	}
}

func retainedRecord(m *Message) Record {
	rec := Record{Table: tableRetained, Key: joinKey(m.Address.VHost, m.Address.Topic)}
	if len(m.Body) > 0 {
		rec.Value = AppendMessage(nil, m)
	}
	return rec
}

// wayRefusal says why a route cannot be taken, or nil.
func wayRefusal(way *routes, m *Message) *Error {
	if way.gone {
		return Errorf(CodeGone, "reply address %q does not exist", m.Address.Topic)
	}
	if m.Must && (way.targets() == 0 || way.missing) {
		return &Error{Code: CodeNotFound, Reason: ReasonNoTarget, Text: "nobody takes messages of " + m.Address.String()}
	}
	if m.QoS > 0 {
		for _, ref := range way.rejects {
			if ref.full.Load() {
				return &Error{Code: CodeQuota, Reason: ReasonQueueFull, Text: "queue " + quote(ref.name) + " is full"}
			}
		}
	}
	return nil
}

// abandon answers a refused submission: each part settles.
func (s *shard) abandon(sub *submission, err *Error) {
	for _, p := range sub.pubs {
		s.refuse(p.pub, err)
	}
	if sub.settles() {
		sub.group.settle(err)
	}
}

// settles says whether the submission itself settles once, beside its publishes.
func (sub *submission) settles() bool {
	return len(sub.acks) > 0 || len(sub.notes) > 0 || len(sub.nacks) > 0
}
