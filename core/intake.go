package core

import "slices"

// stepPublish puts a publication into the queues of its route: all of them or,
// if one refuses, none. QoS 0 has nobody to tell: there a queue that cannot
// take it is passed over, and counted.
func (s *shard) stepPublish(p *Publication, key string, route *shardRoute) {
	if route.name != "" {
		made, err := s.declareOnUse(p.out, route)
		if err != nil {
			s.refuse(p, err)
			return
		}
		route = made
	}
	m := p.message
	size := m.Size()
	if m.QoS > 0 {
		if err := s.refusal(m, size, key, route); err != nil {
			s.refuse(p, err)
			return
		}
	}
	s.enqueue(p, key, route, m, size)
}

func (s *shard) enqueue(p *Publication, key string, route *shardRoute, m *Message, size int64) {
	stored, waits := s.place(m, key, route, size)
	if !stored || !waits {
		p.settle(nil) // in memory, or class async: routed is enough
		return
	}
	s.turn.pubs = append(s.turn.pubs, p)
	s.turn.batch.Wait = true
}

func (s *shard) stepRetain(p *Publication) {
	m := p.message
	if err := s.mayRetain(m); err != nil {
		s.refuse(p, err)
		return
	}
	changed := s.retainedOf(m.Address.VHost).set(m)
	if !changed {
		p.settle(nil)
		return
	}
	s.turn.batch.Records = append(s.turn.batch.Records, retainedRecord(m))
	if m.QoS == 0 {
		p.settle(nil)
		return
	}
	s.turn.pubs = append(s.turn.pubs, p)
	s.turn.batch.Wait = true
}

func (s *shard) stepRecall(c *command) {
	r := c.recall
	if where, ok := c.x.(Address); ok { // the first time
		if values := s.retained[where.VHost]; values != nil {
			r.list = values.match(where.Topic)
		}
		r.list = slices.DeleteFunc(r.list, func(m *Message) bool { return m.Expired(s.env.now) })
	}
	if !r.send() {
		r.out.wait(r)
	}
}

// stepSubmit does all parts in one batch. Acks count only when it is durable:
// until then their entries stay with the client, and a refusal undoes them.
func (s *shard) stepSubmit(sub *submission) {
	o, done := s.stepRepeat(sub)
	if done {
		return
	}
	if len(sub.pubs) > 1 || (len(sub.pubs) == 1 && (sub.settles() || o != nil)) {
		if err := s.mayEnqueue(sub); err != nil {
			if o != nil {
				o.producer.refuse(o.number)
			}
			s.abandon(sub, err)
			return
		}
	}
	for _, p := range sub.pubs {
		switch {
		case p.later:
			s.stepDelay(p.pub)
		case p.once:
			s.stepOnce(p.pub, p.key, len(sub.pubs) > 1 || sub.settles())
		case p.route == nil:
			s.stepRetain(p.pub)
		default:
			s.stepPublish(p.pub, p.key, p.route)
		}
	}
	for _, t := range sub.acks {
		if q := s.places[t.Place]; q != nil {
			if e := q.held(t, sub.out); e != nil {
				s.hold(q, e, sub)
			}
		}
	}
	if o != nil {
		s.remember(o, 0)
	}
	if len(sub.pubs) > 0 {
		s.turn.nacks = append(s.turn.nacks, sub)
	} else {
		s.nackAll(sub)
	}
	s.note(sub)
	if sub.settles() {
		s.turn.groups = append(s.turn.groups, heldGroup{sub.group, len(sub.pubs) > 0})
		s.turn.batch.Wait = true
	}
}

// mayEnqueue asks all queues before the first message goes into one. Each
// queue is asked for the sum of what it would get.
func (s *shard) mayEnqueue(sub *submission) *Error {
	sums := make(map[*queue]int64)
	for i := range sub.pubs {
		p := &sub.pubs[i]
		m := p.pub.message
		if m.QoS == 0 {
			continue
		}
		if err := s.mayBegin(p); err != nil {
			return err
		}
		if p.route == nil || p.route.name != "" {
			continue
		}
		for k := range p.route.targets {
			t := &p.route.targets[k]
			if !t.takes(m, p.key) {
				continue
			}
			q := s.current(t.ref)
			sums[q] += m.Size()
			if q.removed || q.spec.Overflow == DropOldest {
				continue // the latter makes room when the time comes, not for a question
			}
			if q.diverts(sums[q]) {
				if err := s.overflows(q, m, sums[q]); err != nil {
					return err
				}
				continue
			}
			if err := q.refuses(m, sums[q]); err != nil {
				return err
			}
			if err := s.fullDisk(q); err != nil {
				return err
			}
			many := sub.countFor(q, i)
			if q.spec.rejects() && ((q.spec.MaxMessages > 0 && q.count+many >= q.spec.MaxMessages) ||
				(q.spec.MaxBytes > 0 && many > 0 && q.bytes+sums[q] > q.spec.MaxBytes)) {
				return &Error{Code: CodeQuota, Reason: ReasonQueueFull, Text: "queue " + quote(q.ref.name) + " has no room for all of it"}
			}
		}
	}
	return nil
}

// mayBegin asks what is no question of a queue: whether a value can be
// retained, whether an unknown queue may be declared.
func (s *shard) mayBegin(p *submitted) *Error {
	switch {
	case p.later:
		_, err := s.bucketOf(p.pub.message.NotBefore)
		return err
	case p.once:
		return s.mayAdmit(p)
	case p.route == nil:
		return s.mayRetain(p.pub.message)
	case p.route.name != "" && p.route.vhost.queue(p.route.name) == nil:
		return s.mayDeclareOnUse(p.route.name)
	}
	return nil
}

// countFor is how many of the publishes before the i-th go into q.
func (sub *submission) countFor(q *queue, i int) (n int64) {
	for k := range sub.pubs[:i] {
		p := &sub.pubs[k]
		if p.route == nil {
			continue
		}
		for t := range p.route.targets {
			if p.route.targets[t].ref.queue == q {
				n++
			}
		}
	}
	return n
}

func (s *shard) hold(q *queue, e *entry, sub *submission) {
	e.settling = true
	s.turn.held = append(s.turn.held, heldEntry{q, e, sub.out, len(sub.pubs) > 0})
	if e.stored {
		s.turn.batch.Acks = append(s.turn.batch.Acks, Ack{
			Cursor: CursorID(e.level.place), From: e.offset, To: e.offset + 1, N: 1, Bytes: e.size,
		})
	}
}

// note keeps the notes of a submission: with the session, and on disk if the
// session outlives the process. Beside publishes they stand and fall together.
func (s *shard) note(sub *submission) {
	st := s.attached[sub.out]
	if st == nil {
		return
	}
	for _, n := range sub.notes {
		if len(sub.pubs) > 0 {
			s.turn.undo = append(s.turn.undo, undoNote{st, string(n.Key), st.notes[string(n.Key)]})
		}
		if n.Value == nil {
			delete(st.notes, string(n.Key))
		} else {
			if st.notes == nil {
				st.notes = make(map[string][]byte)
			}
			st.notes[string(n.Key)] = n.Value
		}
		if !st.durable() {
			continue
		}
		rec := noteRecord(st, string(n.Key), n.Value)
		if len(sub.pubs) > 0 {
			s.turn.bound = append(s.turn.bound, rec)
		} else {
			s.turn.batch.Records = append(s.turn.batch.Records, rec)
		}
	}
}
