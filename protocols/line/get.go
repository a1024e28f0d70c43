package line

import (
	"time"

	"github.com/godwitmq/godwit/core"
)

// get takes up to n messages off a queue, and waits for them up to wait.
func (h *handler) get(r *request) error {
	where, err := h.address(r, 0)
	if err != nil {
		return err
	}
	switch where.Exchange {
	case core.DefaultExchange:
	case core.StreamExchange:
		return core.NotYet("streams (s/...)")
	default:
		return core.Errorf(core.CodeBadValue, "GET reads a queue, q/...: SUB listens to t/ and x/")
	}
	want := subscription{where: where, ack: ackManual, lease: defaultLease, handle: true, opening: true}
	if r.has(getSid) {
		want.sid = uint32(r.num[getSid])
	}
	if r.has(getLease) {
		want.lease = time.Duration(r.num[getLease])
	}
	if r.has(getAck) {
		if want.ack = ackMode(r.num[getAck]); want.ack == ackNone {
			return core.Errorf(core.CodeBadValue, "a queue has ack=manual, or ack=auto to settle as it is sent")
		}
	}
	n := int64(1)
	if r.has(getN) {
		n = r.num[getN]
	}
	var until time.Time
	if r.has(getWait) && r.num[getWait] > 0 {
		until = h.broker.Now().Add(time.Duration(r.num[getWait]))
	}
	return h.takeUp(&want, n, until)
}

// takeUp goes on with the handle of that number, or makes one.
func (h *handler) takeUp(want *subscription, n int64, until time.Time) error {
	h.mu.Lock()
	s := h.subs.bySid[want.sid]
	same := s != nil && s.handle && !s.over && !s.ending && s.where == want.where && s.lease == want.lease
	if err := usable(s, same); err != nil {
		h.mu.Unlock()
		return err
	}
	if want.ack == ackManual {
		if err := h.promise(n); err != nil {
			h.mu.Unlock()
			return err
		}
		want.promise = n
	}
	pull := chore{what: doPull, n: n, until: until}
	if same {
		s.ack, s.pulling, s.credit = want.ack, true, n
		s.promise += want.promise
		pull.sub.ID = s.id
		h.mu.Unlock()
		h.pull(&pull)
		return nil
	}
	if s != nil { // another's, with nothing unsettled
		s.quiet = true
		delete(h.subs.bySid, s.sid)
	} else if len(h.subs.byID) >= h.options.Subscriptions {
		h.subs.promised -= want.promise
		h.mu.Unlock()
		return core.Errorf(core.CodeQuota, "%d subscriptions are the limit", h.options.Subscriptions)
	}
	h.nextID++
	want.id, want.pulling, want.credit = h.nextID, true, n
	h.subs.add(want)
	h.mu.Unlock()
	if s != nil {
		h.session.Cancel(s.id)
	}
	pull.sub.ID = want.id
	h.session.Consume(core.Sub{ID: want.id, Where: want.where, Lease: want.lease}, h.hold(held{what: heldGet, sub: want, pull: pull}))
	return errHeld
}

// usable says why a number cannot be a GET's now.
func usable(s *subscription, same bool) error {
	switch {
	case s == nil:
	case !s.handle && !s.over:
		return core.Errorf(core.CodeConflict, "sid %d is a SUB's", s.sid)
	case s.pulling, s.ending && !s.over:
		return core.Errorf(core.CodeConflict, "a GET with sid %d is running: wait for its END, or use another sid=", s.sid)
	case !same && s.unsettled.live > 0:
		return core.Errorf(core.CodeConflict, "sid %d has unsettled deliveries of %s: ACK or NACK them first, or use another sid=", s.sid, s.where)
	}
	return nil
}

func (h *handler) pull(c *chore) {
	h.session.Pull(c.sub.ID, core.Credit{Messages: c.n}, c.until)
}
