package core

import (
	"sync/atomic"
)

// A listener is a live subscription: it keeps nothing. What finds no room in
// its outbox is lost, counted and told in the fate journal.
type listener struct {
	out     *Outbox
	sub     uint32
	filter  string
	client  string // whose, for the fate journal
	only    Only
	noLocal bool
	merge   bool
	count   atomic.Uint64 // delivered, for Cancelled
	over    atomic.Bool   // its exchange has gone
}

// end tells the reader that nothing more will come.
func (l *listener) end(err *Error) {
	if !l.over.Swap(true) {
		l.out.put(Event{Kind: Cancelled, Sub: l.sub, N: l.count.Load(), Err: err})
	}
}

// wants says whether the listener is meant by a message from there.
func (l *listener) wants(m *Message, from *Outbox) bool {
	return l.only.Takes(m.QoS) && !(l.noLocal && from == l.out)
}

// accept delivers m, or says that there was no room.
func (l *listener) accept(m *Message, size int64) bool {
	if !l.out.offer(Event{Kind: Delivered, Sub: l.sub, Message: m}, size) {
		return false
	}
	l.count.Add(1)
	return true
}
