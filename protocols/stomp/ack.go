package stomp

import (
	"sort"
	"strconv"
	"strings"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// A slot is one delivery of a subscription that the client settles.
type slot struct {
	n     uint64 // which of the subscription's
	tag   core.Tag
	state slotState
}

type slotState uint8

const (
	slotOpen slotState = iota
	slotHeld           // an open transaction settles it
	slotDone
)

// A ring holds what a subscription has out, in the order of delivery.
//
//	slots[:head] are let go of; slots[head].state != slotDone, if there is one
//	slots[i].n < slots[i+1].n; without gaps until some were taken out
type ring struct {
	slots []slot
	head  int
	next  uint64 // number of the next delivery, less one
	alive int    // slots that are not done
}

// add gives a delivery its number.
func (r *ring) add(t core.Tag) uint64 {
	r.next++
	if len(r.slots) == cap(r.slots) {
		r.compact()
	}
	r.slots = append(r.slots, slot{n: r.next, tag: t})
	r.alive++
	return r.next
}

// compact takes out what is done: a client may settle everything but the
// first.
func (r *ring) compact() {
	if r.alive > cap(r.slots)/2 {
		if r.head > 0 {
			r.slots = r.slots[:copy(r.slots, r.slots[r.head:])]
			r.head = 0
		}
		return
	}
	kept := r.slots[:0]
	for _, s := range r.slots[r.head:] {
		if s.state != slotDone {
			kept = append(kept, s)
		}
	}
	r.slots, r.head = kept, 0
}

// find is where delivery n is, or where it would be.
func (r *ring) find(n uint64) (at int, ok bool) {
	live := r.slots[r.head:]
	if len(live) > 0 && n >= live[0].n {
		if i := n - live[0].n; i < uint64(len(live)) && live[i].n == n {
			return r.head + int(i), true
		}
	}
	i := sort.Search(len(live), func(i int) bool { return live[i].n >= n })
	return r.head + i, i < len(live) && live[i].n == n
}

// findTag is where the delivery with a message-id is, the oldest first.
func (r *ring) findTag(place, seq uint64) (at int, ok bool) {
	for i := r.head; i < len(r.slots); i++ {
		if s := &r.slots[i]; s.state == slotOpen && s.tag.Place == place && s.tag.Seq == seq {
			return i, true
		}
	}
	return 0, false
}

// take moves one open slot, or with all it and every open one before it, into
// a state. It appends their tags, and gives their numbers if they are held.
func (r *ring) take(at int, all bool, to slotState, tags []core.Tag) (_ []core.Tag, numbers []uint64) {
	from := at
	if all {
		from = r.head
	}
	for i := from; i <= at; i++ {
		s := &r.slots[i]
		if s.state != slotOpen {
			continue
		}
		if s.state = to; to == slotDone {
			r.alive--
		}
		tags = append(tags, s.tag)
		if to == slotHeld {
			numbers = append(numbers, s.n)
		}
	}
	r.trim()
	return tags, numbers
}

// set ends or reopens what a transaction held.
func (r *ring) set(numbers []uint64, to slotState) {
	for _, n := range numbers {
		if at, ok := r.find(n); ok && r.slots[at].state == slotHeld {
			if r.slots[at].state = to; to == slotDone {
				r.alive--
			}
		}
	}
	r.trim()
}

// expire lets go of the oldest while more are out than there is credit for:
// their leases are over, and the core has given them to somebody.
func (r *ring) expire(credit int) {
	for i := r.head; i < len(r.slots) && r.alive > credit; i++ {
		if r.slots[i].state == slotOpen {
			r.slots[i].state = slotDone
			r.alive--
		}
	}
	r.trim()
}

func (r *ring) trim() {
	for r.head < len(r.slots) && r.slots[r.head].state == slotDone {
		r.head++
	}
	if r.head == len(r.slots) {
		r.slots, r.head = r.slots[:0], 0
		if cap(r.slots) > 4096 {
			r.slots = nil
		}
	}
}

// A named delivery is what the headers of an ACK or NACK point at: n of sub,
// or without sub nothing that needs one.
type named struct {
	sub *subscription
	n   uint64
}

// ack settles deliveries.
func (h *handler) ack() error { return h.settle(core.Op{}) }

// nack gives deliveries back, or to the dead letters.
func (h *handler) nack() error {
	if h.version == wire.V10 {
		return core.Errorf(core.CodeUnknownVerb, "STOMP 1.0 has no NACK")
	}
	op := core.Op{Nack: []core.Tag{}}
	if text, ok := h.get("requeue"); ok {
		requeue, err := boolean("requeue", text)
		if err != nil {
			return err
		}
		op.Back.Dead = !requeue
	}
	if text, ok := h.get("delay"); ok {
		var err error
		if op.Back.Delay, err = milliseconds("delay", text); err != nil {
			return err
		}
		if op.Back.Dead && op.Back.Delay > 0 {
			return core.Errorf(core.CodeBadValue, "headers delay and requeue:false say two things: use one")
		}
	}
	return h.settle(op)
}

// settle does what an ACK or NACK says; op is which.
func (h *handler) settle(op core.Op) error {
	name, inTransaction := h.get(frame.Transaction)
	var tx *transaction
	if inTransaction {
		if tx = h.transactions[name]; tx == nil {
			return noTransaction(name)
		}
	}
	d, err := h.delivery()
	if err != nil {
		return err
	}
	to := slotDone
	if tx != nil {
		to = slotHeld
	}
	tags, numbers := h.takeDelivery(d, to)
	receipt := h.receipt()
	switch {
	case len(tags) == 0:
		h.protocol.counts.acksIgnored.Add(1)
		h.sayReceipt(receipt)
	case tx != nil:
		return h.settleLater(tx, d.sub, numbers, withTags(op, tags), receipt)
	case receipt.asked:
		token := h.owe(answer{step: stepReceipt, command: h.view.Command, receipt: receipt})
		return h.session.Submit([]core.Op{withTags(op, tags)}, token)
	case op.Nack != nil:
		h.session.Nack(op.Back, tags...)
	default:
		h.session.Ack(tags...)
	}
	return nil
}

// delivery finds what an ACK or NACK points at.
func (h *handler) delivery() (named, error) {
	if h.version == wire.V12 {
		id, ok := h.get(frame.Id)
		if !ok {
			return named{}, missing(frame.Id)
		}
		return h.deliveryByAck(id)
	}
	id, ok := h.get(frame.MessageId)
	if !ok {
		return named{}, missing(frame.MessageId)
	}
	sub, hasSub := h.get(frame.Subscription)
	if !hasSub && h.version == wire.V11 {
		return named{}, missing(frame.Subscription)
	}
	return h.deliveryByMessage(id, sub, hasSub)
}

func unknownDelivery(id string) error {
	return core.Errorf(core.CodeNotFound, "no delivery %s was made on this connection", quoted(id))
}

// deliveryByAck reads the ack header of a MESSAGE: <subscription>.<n>.
func (h *handler) deliveryByAck(id string) (named, error) {
	number, n, ok := pair(id, '.')
	if !ok {
		// ACK of a MESSAGE with ack:auto, which has no ack header: harmless.
		if _, _, ok := pair(id, '-'); ok && h.hasAuto() {
			return named{}, nil
		}
		return named{}, unknownDelivery(id)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.standing[uint32(number)]
	switch {
	case number == 0 || number > uint64(h.numbers):
		return named{}, unknownDelivery(id)
	case s == nil || s.mode == ackAuto: // over, and nothing of it is out
		return named{}, nil
	case n == 0 || n > s.ring.next:
		return named{}, unknownDelivery(id)
	}
	return named{s, n}, nil
}

// deliveryByMessage reads a message-id, <place>-<seq>, which is the same each
// time a message comes: the oldest that is out is meant.
func (h *handler) deliveryByMessage(id, sub string, hasSub bool) (named, error) {
	place, seq, ok := pair(id, '-')
	if !ok {
		return named{}, unknownDelivery(id)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	candidates := h.candidates(sub, hasSub)
	if hasSub && len(candidates) == 0 {
		return named{}, core.Errorf(core.CodeNotFound, "no subscription %s", quoted(sub))
	}
	var best named
	issued := place == 0 && seq <= h.lives.Load()
	for _, s := range candidates {
		if s.mode == ackAuto || (place == s.place && seq <= s.newest) {
			issued = true
		}
		at, ok := s.ring.findTag(place, seq)
		if ok && (best.sub == nil || s.number < best.sub.number) {
			best = named{s, s.ring.slots[at].n}
		}
	}
	if best.sub == nil && !issued {
		return named{}, unknownDelivery(id)
	}
	return best, nil
}

// candidates are the subscriptions that may have made a delivery. h.mu is held.
func (h *handler) candidates(id string, named bool) (out []*subscription) {
	if s := h.subscribed[id]; named && s != nil {
		return []*subscription{s}
	}
	for _, s := range h.standing {
		if !named || s.id == id {
			out = append(out, s)
		}
	}
	return out
}

func (h *handler) hasAuto() bool {
	for _, s := range h.subscribed {
		if s.mode == ackAuto {
			return true
		}
	}
	return false
}

// takeDelivery moves what was named into a state. ack:client reaches every
// earlier delivery of its subscription too. The tags are good until the next
// call.
func (h *handler) takeDelivery(d named, to slotState) (tags []core.Tag, numbers []uint64) {
	if d.sub == nil {
		return nil, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &d.sub.ring
	at, ok := r.find(d.n)
	all := d.sub.mode == ackClient
	if !ok {
		if at--; !all || at < r.head { // settled before
			return nil, nil
		}
	}
	before := r.alive
	tags, numbers = r.take(at, all, to, h.tags[:0])
	h.tags = tags
	h.settledOf(d.sub, before-r.alive)
	return tags, numbers
}

// settledOf gives room back that a subscription which is over has held, and
// forgets it when nothing of it is out. h.mu is held.
func (h *handler) settledOf(s *subscription, n int) {
	if !s.gone {
		return
	}
	h.unacked -= n
	if s.ring.alive == 0 {
		delete(h.standing, s.number)
	}
}

// withTags is an op on a copy of the tags: the core keeps it.
func withTags(op core.Op, tags []core.Tag) core.Op {
	own := append([]core.Tag(nil), tags...)
	if op.Nack != nil {
		op.Nack = own
	} else {
		op.Ack = own
	}
	return op
}

// pair reads two numbers with a mark between.
func pair(s string, mark byte) (a, b uint64, ok bool) {
	i := strings.IndexByte(s, mark)
	if i < 0 {
		return 0, 0, false
	}
	a, errA := strconv.ParseUint(s[:i], 10, 64)
	b, errB := strconv.ParseUint(s[i+1:], 10, 64)
	return a, b, errA == nil && errB == nil
}
