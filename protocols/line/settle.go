package line

import (
	"bytes"
	"slices"
	"time"

	"github.com/godwitmq/godwit/core"
)

// leaseSlack is how long after a lease its delivery is taken for gone: Tick's
// clock and core's differ by that much at most.
const leaseSlack = 2 * time.Second

// expire forgets what went back to its queue. h.mu is held.
func (h *handler) expire(now time.Time) {
	h.now = now
	for _, s := range h.subs.bySid {
		if n := s.unsettled.expire(now); n > 0 {
			h.free(s, n)
		}
	}
}

// ack settles. With an id it is answered when the disk has it.
func (h *handler) ack(r *request) error {
	return h.settle(r, only, func(tags []core.Tag) core.Op { return core.Op{Ack: tags} })
}

// nack gives back, at once, later or to the dead letters.
func (h *handler) nack(r *request) error {
	back := core.Back{Dead: r.has(nackDead)}
	if r.has(nackDelay) {
		if back.Dead {
			return core.Errorf(core.CodeBadValue, "dead and delay= say two things: use one")
		}
		back.Delay = time.Duration(r.num[nackDelay])
	}
	return h.settle(r, nackID, func(tags []core.Tag) core.Op { return core.Op{Nack: tags, Back: back} })
}

func (h *handler) settle(r *request, option int, op func([]core.Tag) core.Op) error {
	s, err := h.known(r)
	if err != nil {
		return err
	}
	batched := h.inBatch()
	id := int64(0)
	if !batched {
		if id, err = h.rising(r, option); err != nil {
			return err
		}
	}
	tags, seqs, err := h.tags(s, r.arg(1))
	if err != nil {
		return err
	}
	if batched {
		return h.enlist(r, op(tags), int64(24*len(tags)), settling{s, seqs})
	}
	h.mu.Lock()
	for _, seq := range seqs {
		s.unsettled.settle(seq)
	}
	h.free(s, len(seqs))
	h.mu.Unlock()
	return h.submitSettling(op(tags), id)
}

func (h *handler) submitSettling(op core.Op, id int64) error {
	switch {
	case id == 0 && op.Nack != nil:
		h.session.Nack(op.Back, op.Nack...)
		return nil
	case id == 0:
		h.session.Ack(op.Ack...)
		return nil
	}
	if len(op.Ack)+len(op.Nack) == 0 {
		return h.answer(id, nil)
	}
	h.owe(uint64(id), 0)
	h.lastID = id
	return h.session.Submit([]core.Op{op}, uint64(id)) // without a publish it never waits
}

func (h *handler) touch(r *request) error {
	s, err := h.known(r)
	if err != nil {
		return err
	}
	lease := s.lease
	if r.has(only) {
		lease = time.Duration(r.num[only])
	}
	if lease == 0 {
		return core.Errorf(core.CodeBadValue, "subscription %d has no lease: say lease=", s.sid)
	}
	tags, seqs, err := h.tags(s, r.arg(1))
	if err != nil {
		return err
	}
	h.mu.Lock()
	for _, seq := range seqs {
		s.unsettled.renew(seq, h.now.Add(lease+leaseSlack))
	}
	h.mu.Unlock()
	h.session.Touch(lease, tags...)
	return nil
}

// tags are the unsettled deliveries that "4,7-9" means. A single number that
// is unknown is an error; in a span it is skipped.
func (h *handler) tags(s *subscription, text []byte) (tags []core.Tag, seqs []uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.ack != ackManual && s.unsettled.live == 0 {
		return nil, nil, core.Errorf(core.CodeNotFound, "subscription %d has nothing to settle: it has no ack=manual", s.sid)
	}
	for n := 0; len(text) > 0; n++ {
		part, rest, more := bytes.Cut(text, []byte{','})
		from, to, ok := spanOf(part)
		switch {
		case !ok || (more && len(rest) == 0):
			return nil, nil, core.Errorf(core.CodeSyntax, "%q is no number and no span: 4,7-9", clip(part))
		case n == maxSpans:
			return nil, nil, core.Errorf(core.CodeTooMany, "%d spans are the limit", maxSpans)
		}
		found := len(seqs)
		seqs = s.unsettled.between(seqs, from, to)
		if len(seqs) == found && from == to && from > 0 {
			return nil, nil, core.Errorf(core.CodeNotFound, "no unsettled delivery %d of subscription %d", from, s.sid)
		}
		text = rest
	}
	slices.Sort(seqs)
	seqs = slices.Compact(seqs) // spans may overlap
	for _, seq := range seqs {
		at, _ := s.unsettled.search(seq)
		tags = append(tags, core.Tag{Place: s.place, Seq: coreSeq(seq), Attempt: s.unsettled.list[at].attempt})
	}
	return tags, seqs, nil
}

func spanOf(b []byte) (from, to uint64, ok bool) {
	head, tail, is := bytes.Cut(b, []byte{'-'})
	a, ok := number(head)
	if !ok || !is {
		return uint64(a), uint64(a), ok
	}
	z, ok := number(tail)
	return uint64(a), uint64(z), ok && a <= z
}
