package core

import "time"

// What the verbs of a Session take and give: plain data.

// SessionSpec is what a session is.
type SessionSpec struct {
	Key        string        // who resumes and takes over; empty: nobody
	Clean      bool          // forget what there was
	Expiry     time.Duration // how long it outlives its connection; 0: not
	Will       *Will
	Producer   string // its tokens below 1<<62 are numbers that rise: what comes again is confirmed again, and kept once
	Unanswered int    // publishes that may wait for their Confirmed; 0: Limits
}

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

// Back is how a nacked delivery goes back: at once, or as its queue's backoff
// says.
type Back struct {
	Delay time.Duration // this much later instead
	Dead  bool          // to the dead letters; discarded if the queue has none
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
	ID                  uint32   // the session's own number, not 0; events carry it
	Where               Address  // filter, queue or stream; VHost empty: the session's
	Credit              Credit   // of Consume and Follow
	Only                Only     // of Listen
	Args                []Header // of Listen at a headers exchange
	Match               Match
	NoLocal             bool // not what this session key (or, without one, this session) published
	Merge               bool // of Listen
	Lease               time.Duration
	Priority            int // of Consume: who has credit and the highest gets it
	Group               string
	Selector            string
	From                From
	Peek                bool // of Consume: read what is ready without taking it, as far as the credit goes; Drained at the end
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

// Resumed is what Open found of an earlier life of the session.
type Resumed struct {
	Present  bool
	Last     uint64 // of a Producer
	Residue  []byte // what Close left
	Notes    []Note
	Bindings []BindingSpec // the owned ones
}

// A Note is a small durable record of the session; Value nil: gone.
type Note struct{ Key, Value []byte }

// A Will is published when the session dies.
type Will struct {
	Message *Message
	Delay   time.Duration
}
