package core

import (
	"time"
)

// A Session is one client's face inside the broker. Nobody blocks: a verb
// returns at once, and every answer is an event in the Outbox.
//
// Publish, Submit, Answer and May are called by the connection's reader; the
// others by its reader or its flusher.
type Session struct{}

// Identity is who the session belongs to.
func (s *Session) Identity() *Identity { panic("bug: not built") }

// Publish sends m on its way; from now on m must not change. It returns nil
// (the answer is a Confirmed with the token, in the order of the Publish,
// Submit and Answer calls), ErrWait (nothing was taken, one Again follows) or
// ErrClosed. With token 0 only a refusal is told, with the Message; a QoS 0
// message with token 0 is told nothing.
func (s *Session) Publish(m *Message, token uint64) error { panic("bug: not built") }

// Submit does all ops or none, durably, with one answer as Publish's. Without
// a publish among them it never waits; of Notes alone it takes no place in
// the order and is answered when it is done.
func (s *Session) Submit(ops []Op, token uint64) error { panic("bug: not built") }

// Answer takes the place of an answer the adapter gives itself.
func (s *Session) Answer(token uint64, err error) { panic("bug: not built") }

// May asks early what a verb would ask the guard.
func (s *Session) May(a Access) error { panic("bug: not built") }

// Apply declares, alters, removes or purges, all in one batch; one Confirmed
// when it is durable, whose Err is the first refusal: then nothing was done.
func (s *Session) Apply(c []Change, token uint64) { panic("bug: not built") }

// Listen subscribes live: what finds no room in the outbox is dropped and
// counted. Confirmed is the answer; deliveries may come before it. With
// Sub.Merge set, one message that several of the session's merged
// subscriptions want is delivered once, under one of their numbers.
func (s *Session) Listen(sub Sub, token uint64) { panic("bug: not built") }

// Consume reads a queue: deliveries have tags and wait for credit.
func (s *Session) Consume(sub Sub, token uint64) { panic("bug: not built") }

// Follow reads a stream.
func (s *Session) Follow(sub Sub, token uint64) { panic("bug: not built") }

// Recall sends the retained values that the filter matches, in topic order, as
// live deliveries with Retained set, as room permits. No Confirmed.
func (s *Session) Recall(sub Sub, token uint64) { panic("bug: not built") }

// Grant adds credit to a consumer.
func (s *Session) Grant(sub uint32, c Credit) { panic("bug: not built") }

// Pull adds credit to a consumer until it is used up or the time has come;
// then a Drained follows the last Delivered and what credit is left is void.
// A zero until means: only what is there now.
func (s *Session) Pull(sub uint32, c Credit, until time.Time) { panic("bug: not built") }

// Cancel ends a subscription of any kind; Cancelled follows its last
// Delivered. What a consumer has not settled stays settleable until the
// session ends.
func (s *Session) Cancel(sub uint32) { panic("bug: not built") }

// Ack settles deliveries. Tags that are unknown or settled are ignored.
func (s *Session) Ack(tags ...Tag) { panic("bug: not built") }

// Nack gives deliveries back: to their old place, or as b says.
func (s *Session) Nack(b Back, tags ...Tag) { panic("bug: not built") }

// Touch renews leases.
func (s *Session) Touch(lease time.Duration, tags ...Tag) { panic("bug: not built") }

// Reply makes a reply address that dies with the session.
func (s *Session) Reply() Address { panic("bug: not built") }

// Events is where the broker's answers come out.
func (s *Session) Events() *Outbox { panic("bug: not built") }

// Close ends the connection's hold on the session: what it has not settled
// goes back, and the session is parked if it has an expiry, else it ends.
func (s *Session) Close(c Closing) { panic("bug: not built") }

// Closing says how a session is left.
type Closing struct {
	Residue  []byte         // given back in Resumed
	Expiry   *time.Duration // a new one
	DropWill bool
}

// An Op is one part of a Submit: exactly one of them is set.
type Op struct {
	Publish   *Message
	Ack, Nack []Tag
	Back      Back // of Nack
	Note      *Note
}

// Back is how a nacked delivery goes back.
type Back struct {
	Delay time.Duration
	Dead  bool // to the dead letters; discarded if the queue has none
	Text  string
}

// Credit is how many deliveries a reader can take. Auto credit comes back as
// deliveries are settled; else only Grant and Pull add some. A zero Bytes
// means no limit in bytes.
type Credit struct {
	Messages, Bytes int64
	Auto            bool
}

// A Sub is a subscription.
type Sub struct {
	ID                  uint32  // the session's own number, not 0; events carry it
	Where               Address // filter, queue or stream; VHost empty: the session's
	Credit              Credit  // of Consume and Follow
	Only                Only    // of Listen
	NoLocal             bool    // not what this session key (or, without one, this session) published
	Merge               bool    // of Listen
	Lease               time.Duration
	Priority            int
	Group               string
	Selector            string
	From                From
	Peek                bool // read without taking; Drained at the end
	Exclusive, TakeOver bool
	Owned               bool // of Consume: an unknown queue is declared as the session's own
}

// From says where a stream is read from.
type From struct {
	Kind FromKind
	N    int64
}

// FromKind is the kind of a From.
type FromKind uint8

// Where a stream is read from.
const (
	FromNext FromKind = iota
	FromFirst
	FromLast
	FromOffset
	FromTime // N is unix ms
)
