package mqtt

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/godwitmq/godwit/core"
)

// What has happened to a delivery of QoS 1 or 2.
type sent byte

const (
	sentDone   sent = iota // settled, or never used
	sentQoS1               // PUBLISH sent, PUBACK awaited
	sentQoS2               // PUBLISH sent, PUBREC awaited
	sentPubrel             // PUBREL sent, PUBCOMP awaited
	lateQoS1               // of an earlier connection, not sent on this one yet
	lateQoS2               // the same
	latePubrel             // of an earlier connection: PUBREL sent again, PUBCOMP awaited; core has not brought the message yet
	lateDone               // PUBCOMP came before core brought the message again
)

const (
	packetIDs   = 65_535
	spanWindows = 4 // ids in use are never further apart than this many windows
)

// A slot is one delivery that the client has not settled. Its packet id is its
// place in the ring.
type slot struct {
	place, seq uint64 // the tag; both 0: live
	attempt    uint16
	sent       sent
}

func (s *slot) tag() core.Tag { return core.Tag{Place: s.place, Seq: s.seq, Attempt: s.attempt} }

// outbound is the ring of deliveries under way. A packet id is a sequence
// number modulo 65,535, plus one: an acknowledgement finds its slot by its
// distance from the head, without a map or a search. Deliver adds, Receive
// settles: a lock is held for one slot.
type outbound struct {
	mu       sync.Mutex
	window   int    // unsettled deliveries the client may have
	inFlight int    // of them now, but for late ones
	late     int    // of an earlier connection, not brought again by core yet
	head     uint64 // the oldest unsettled; slots[i&(len-1)] for head <= i < tail
	tail     uint64
	slots    []slot
}

func (o *outbound) at(i uint64) *slot { return &o.slots[i&uint64(len(o.slots)-1)] }

func packetID(i uint64) uint16 { return uint16(i%packetIDs) + 1 }

// room says whether one more may be sent.
func (o *outbound) room() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.inFlight < o.window && o.fits()
}

// fits says whether the ids in use are close enough together for one more.
// Late ones that core never brought again do not stand in the way: they went
// with their queue, or past their time.
func (o *outbound) fits() bool {
	for o.tail-o.head >= uint64(spanWindows*o.window) {
		s := o.at(o.head)
		if s.sent != lateQoS1 && s.sent != lateQoS2 && s.sent != lateDone {
			return false
		}
		s.sent = sentDone
		o.late--
		o.advance()
	}
	return true
}

// add takes the next packet id for a delivery. room was asked before.
func (o *outbound) add(tag core.Tag, s sent) uint16 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := uint64(len(o.slots)); o.tail-o.head == n {
		o.grow(max(16, 2*n))
	}
	i := o.tail
	*o.at(i) = slot{tag.Place, tag.Seq, tag.Attempt, s}
	o.tail++
	o.inFlight++
	return packetID(i)
}

func (o *outbound) grow(n uint64) {
	grown := make([]slot, n)
	for i := o.head; i < o.tail; i++ {
		grown[i&(n-1)] = *o.at(i)
	}
	o.slots = grown
}

// resend finds a delivery of an earlier connection that core has brought
// again: it keeps its packet id [MQTT-4.4.0-1]. now is what is awaited from
// here on: the answer to a PUBLISH that must be sent, or to a PUBREL that is,
// or sentDone if the client has it all.
func (o *outbound) resend(tag core.Tag) (id uint16, now sent, found bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := o.head; o.late > 0 && i < o.tail; i++ {
		s := o.at(i)
		if s.place != tag.Place || s.seq != tag.Seq || s.sent < lateQoS1 {
			continue
		}
		s.attempt = tag.Attempt
		o.late--
		switch s.sent { //nolint:exhaustive // late ones alone come here
		case lateQoS1:
			s.sent = sentQoS1
			o.inFlight++
		case lateQoS2:
			s.sent = sentQoS2
			o.inFlight++
		case latePubrel:
			s.sent = sentPubrel
		default:
			s.sent = sentDone
			o.advance()
			return 0, sentDone, true
		}
		return packetID(i), s.sent, true
	}
	return 0, 0, false
}

// settle ends the delivery of that id if it is at one of those stages, and
// says at which it was; sentDone: at none of them.
func (o *outbound) settle(id uint16, at ...sent) (core.Tag, sent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.find(id)
	if s == nil || !slices.Contains(at, s.sent) {
		return core.Tag{}, sentDone
	}
	tag, was := s.tag(), s.sent
	o.inFlight--
	if was == latePubrel {
		s.sent = lateDone // core will bring it once more
		return core.Tag{}, was
	}
	s.sent = sentDone
	o.advance()
	return tag, was
}

// received notes a PUBREC. known is false if the id is not one it belongs to.
func (o *outbound) received(id uint16) (known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.find(id)
	if s == nil {
		return false
	}
	switch s.sent {
	case sentQoS2:
		s.sent = sentPubrel
		return true
	case sentPubrel, latePubrel:
		return true
	case sentDone, sentQoS1, lateQoS1, lateQoS2, lateDone:
	}
	return false
}

func (o *outbound) find(id uint16) *slot {
	if id == 0 {
		return nil
	}
	distance := (uint64(id-1) + packetIDs - o.head%packetIDs) % packetIDs
	if distance >= o.tail-o.head {
		return nil
	}
	return o.at(o.head + distance)
}

func (o *outbound) advance() {
	for o.head < o.tail && o.at(o.head).sent == sentDone {
		o.head++
	}
}

// releases are the ids whose PUBREL is to be sent again, in order
// [MQTT-4.4.0-1] [MQTT-4.6.0-4].
func (o *outbound) releases() (ids []uint16) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := o.head; i < o.tail; i++ {
		if o.at(i).sent == latePubrel {
			ids = append(ids, packetID(i))
		}
	}
	return ids
}

// The residue is what a session keeps of its ring while it is away, so that a
// client which comes back sees the ids it knows:
//
//	version 1 | tail % 65,535 (u16) | 21 bytes for each unsettled delivery:
//	id u16, sent u8, place u64, seq u64, attempt u16
const (
	residueVersion = 1
	residueHead    = 3
	residueSlot    = 21
)

// residue encodes the deliveries that have a tag. Live ones end here.
func (o *outbound) residue() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := []byte{residueVersion}
	b = binary.BigEndian.AppendUint16(b, uint16(o.tail%packetIDs))
	for i := o.head; i < o.tail; i++ {
		s := o.at(i)
		if s.sent == sentDone || (s.place == 0 && s.seq == 0) {
			continue
		}
		b = binary.BigEndian.AppendUint16(b, packetID(i))
		b = append(b, byte(s.sent))
		b = binary.BigEndian.AppendUint64(b, s.place)
		b = binary.BigEndian.AppendUint64(b, s.seq)
		b = binary.BigEndian.AppendUint16(b, s.attempt)
	}
	return b
}

// restore makes the ring of a residue. What it cannot read it ignores: the
// messages come again then with new ids.
func (o *outbound) restore(b []byte) {
	if len(b) < residueHead || b[0] != residueVersion || (len(b)-residueHead)%residueSlot != 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	tail := packetIDs + uint64(binary.BigEndian.Uint16(b[1:]))%packetIDs
	first := tail
	for rest := b[residueHead:]; len(rest) > 0; rest = rest[residueSlot:] {
		first = min(first, sequenceOf(rest, tail))
	}
	o.head, o.tail = first, tail
	n := uint64(16)
	for n < tail-first {
		n *= 2
	}
	o.slots = make([]slot, n)
	for rest := b[residueHead:]; len(rest) > 0; rest = rest[residueSlot:] {
		o.restoreSlot(rest, tail)
	}
	o.advance()
}

// sequenceOf is the place in the ring of an id that lies below tail.
func sequenceOf(b []byte, tail uint64) uint64 {
	id := uint64(binary.BigEndian.Uint16(b))
	return tail - 1 - (tail-1+packetIDs-(id+packetIDs-1)%packetIDs)%packetIDs
}

func (o *outbound) restoreSlot(b []byte, tail uint64) {
	s := slot{
		sent:    sent(b[2]),
		place:   binary.BigEndian.Uint64(b[3:]),
		seq:     binary.BigEndian.Uint64(b[11:]),
		attempt: binary.BigEndian.Uint16(b[19:]),
	}
	switch s.sent { //nolint:exhaustive // done ones are not in a residue, and fall to the default
	case sentQoS1, lateQoS1:
		s.sent = lateQoS1
	case sentQoS2, lateQoS2:
		s.sent = lateQoS2
	case sentPubrel, latePubrel:
		s.sent = latePubrel
		o.inFlight++
	case lateDone:
	default:
		return
	}
	o.late++
	*o.at(sequenceOf(b, tail)) = s
}
