package core

import "time"

// run is the shard's goroutine; it ends with cmdStop, when all is settled.
func (s *shard) run() {
	for range s.inbox.ready {
		if s.round() && s.done() {
			return
		}
	}
}

// round is one turn. It says whether there was anything to do.
func (s *shard) round() bool {
	commands := s.inbox.take(s.spare)
	s.env.now = s.now()
	for i := range commands {
		s.step(&commands[i])
	}
	s.spare = commands
	s.flush()
	return len(commands) > 0
}

func (s *shard) done() bool {
	return s.stopping && (s.dead || s.inbox.empty() && (len(s.inFlight) == 0 && len(s.sealed) == 0 && s.turn.empty()))
}

// step applies one command to the state. It does no I/O and never waits.
func (s *shard) step(c *command) {
	switch c.kind {
	case cmdPublish:
		s.stepPublish(c.pub, c.key, c.route)
		s.sealIfFull()
	case cmdRetain:
		s.stepRetain(c.pub)
	case cmdAck:
		s.eachTag(c, func(q *queue, t Tag) { q.ack(t, c.out) })
	case cmdNack:
		back, _ := c.x.(Back)
		s.eachTag(c, func(q *queue, t Tag) { q.nack(t, c.out, back) })
	case cmdTouch:
		lease, _ := c.x.(time.Duration)
		s.eachTag(c, func(q *queue, t Tag) {
			if e := q.held(t, c.out); e != nil {
				e.deadline = s.env.now.Add(lease)
			}
		})
	case cmdSubmit:
		s.stepSubmit(c.x.(*submission))
		s.sealIfFull()
	case cmdConsume:
		s.stepConsume(c.x.(*consumeRequest))
	case cmdGrant:
		s.stepGrant(c.x.(*grantRequest))
	case cmdPull:
		s.stepPull(c.x.(*grantRequest))
	case cmdCancel:
		s.stepCancel(c.x.(*consumer))
	case cmdApply:
		if r := c.x.(*applyRequest); len(r.changes) == 1 && r.changes[0].Do == Move && r.changes[0].Queue != nil {
			s.stepMove(r)
		} else {
			s.stepApply(r)
		}
	case cmdIdle:
		s.stepIdle(c.x.(Address))
	case cmdOpen:
		s.stepOpen(c.x.(*openRequest))
	case cmdClose:
		s.stepClose(c.x.(*closeRequest))
	case cmdRecall:
		s.stepRecall(c)
	case cmdCommitted:
		s.stepCommitted(c.x.(*committed))
	case cmdDelay:
		s.stepDelay(c.pub)
		s.sealIfFull()
	case cmdOnce:
		s.stepOnce(c.pub, c.key, false)
		s.sealIfFull()
	case cmdFetched:
		if f := c.x.(*fetched); f.bucket != nil {
			s.stepScanned(f)
		} else {
			s.stepFetched(f)
		}
	case cmdRefused:
		s.stepRefused(c)
	case cmdTick:
		s.stepTick()
	case cmdStop:
		s.stepStop()
	}
}

// flush ends a turn: what can be delivered is, and the batch goes out.
func (s *shard) flush() {
	if s.dead {
		return
	}
	if len(s.due.buckets) > 0 && !s.stopping {
		s.fireDue()
	}
	for len(s.env.dirty) > 0 {
		dirty := s.env.dirty
		s.env.dirty = nil
		for _, q := range dirty {
			q.dirty = false
			s.settleQueue(q)
		}
	}
	s.handOver()
}

func (s *shard) settleQueue(q *queue) {
	if q.removed { // removed
		return
	}
	q.trim()
	q.deliver()
	s.move(q)
	s.bury(q)
	q.dirty = false
	s.extendMarks(q)
	for _, lv := range q.levels {
		if q.wantsFetch(lv) {
			s.fetch(q, lv)
		}
		if lv.leaves() && !q.leaving {
			q.leaving = true
			s.unsettled = append(s.unsettled, q)
		}
	}
	q.publishStats()
}

func (s *shard) stepStop() {
	s.stopping = true
	for out := range s.attached {
		s.stepClose(&closeRequest{out: out})
	}
	s.inbox.put(command{kind: cmdTick}) // one more round, to see that all is settled
}

func (s *shard) stepTick() {
	for place, q := range s.places {
		if place == q.ref.place {
			q.tick()
			s.tickIdle(q)
		}
	}
	s.tickSessions()
	if len(s.due.buckets) > 0 {
		s.tickDue()
	}
	s.tickOnce()
	if s.gate.shut.Load() {
		s.heedPressure()
	}
}
