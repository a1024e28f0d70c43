//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
)

// bodySize is the size of every message's body in octets.
const bodySize = 256

// A flow is one publisher's messages and how far they have come. It is a
// closed loop: a message is under way until it is answered and with all its
// readers, and no more than window of them are.
//
//	seen <= sent, acked <= sent, sent - acked <= window, sent - seen <= window
//
// An answer alone would not do to hold a publisher back: a server may answer
// before it has delivered, and must drop what a live reader has no room for.
type flow struct {
	number uint32
	window uint64
	acks   bool   // the server answers each message
	fan    uint16 // readers of each message

	sent, acked, seen uint64
	got               []uint16 // of message n, at n mod window: how many readers have it
}

func newFlow(number int, window uint64, acks bool, readers int) *flow {
	return &flow{
		number: uint32(number), window: window, acks: acks, fan: uint16(readers),
		got: make([]uint16, window),
	}
}

// room says how many messages may go out now.
func (f *flow) room() uint64 {
	n := ^uint64(0)
	if f.acks {
		n = f.window - (f.sent - f.acked)
	}
	if f.fan > 0 {
		n = min(n, f.window-(f.sent-f.seen))
	}
	return n
}

// settled says whether all that was sent has been answered and read.
func (f *flow) settled() bool {
	return (!f.acks || f.acked == f.sent) && (f.fan == 0 || f.seen == f.sent)
}

// confirm notes that the server has answered everything below next.
func (f *flow) confirm(next uint64) error {
	if next <= f.acked || next > f.sent {
		return fmt.Errorf("publisher %d: message %d was answered twice or out of order: %d of %d sent were answered before it",
			f.number, next-1, f.acked, f.sent)
	}
	f.acked = next
	return nil
}

// read notes that one more reader has message seq.
func (f *flow) read(seq uint64) {
	f.got[seq%f.window]++
	for f.seen < f.sent && f.got[f.seen%f.window] == f.fan {
		f.got[f.seen%f.window] = 0
		f.seen++
	}
}

// appendBody appends the body of message seq.
func (f *flow) appendBody(out []byte, seq uint64) []byte {
	out = binary.BigEndian.AppendUint32(out, f.number)
	out = binary.BigEndian.AppendUint64(out, seq)
	return append(out, filler[:bodySize-12]...)
}

var filler = func() (b [bodySize]byte) {
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return b
}()

// A reader checks what one subscriber is given: of each of its flows every
// message, once, in order.
type reader struct {
	flows []*flow  // by number; nil where it reads nothing of that publisher
	next  []uint64 // of each flow
	count uint64
}

func newReader(all int, flows ...*flow) *reader {
	r := &reader{flows: make([]*flow, all), next: make([]uint64, all)}
	for _, f := range flows {
		r.flows[f.number] = f
	}
	return r
}

// take checks one delivery and returns the flow it belongs to.
func (r *reader) take(body []byte) (*flow, error) {
	if len(body) != bodySize {
		return nil, fmt.Errorf("a delivery has a body of %d octets, want %d", len(body), bodySize)
	}
	number, seq := binary.BigEndian.Uint32(body), binary.BigEndian.Uint64(body[4:])
	if int(number) >= len(r.flows) || r.flows[number] == nil {
		return nil, fmt.Errorf("a delivery of publisher %d came to a reader that did not ask for it", number)
	}
	switch want := r.next[number]; {
	case seq < want:
		return nil, fmt.Errorf("publisher %d: message %d came twice or late, after %d", number, seq, want-1)
	case seq > want:
		return nil, fmt.Errorf("publisher %d: message %d came where %d was due: %d lost or out of order", number, seq, want, seq-want)
	}
	r.next[number]++
	r.count++
	f := r.flows[number]
	f.read(seq)
	return f, nil
}
