package core

import (
	"strings"
	"time"
)

// maxDelay is how far ahead a message may be due, and how long an id is
// remembered at most.
const maxDelay = 366 * 24 * time.Hour

// Class is how safe a queue's or stream's messages are before they are
// confirmed.
type Class uint8

// The durability classes.
const (
	Fsync  Class = iota // confirmed after the disk has it
	Async               // confirmed when routed, synced within 200 ms
	Memory              // confirmed when routed, never stored
)

// Overflow is what a full queue does.
type Overflow uint8

// What a full queue does.
const (
	RejectNew  Overflow = iota // the publish is refused with 429
	DropOldest                 // the oldest ends, or goes to the dead letters if there are some
	DeadLetter                 // the new one goes to the dead letters
)

// ExchangeKind is how an exchange matches.
type ExchangeKind uint8

// The kinds of exchanges.
const (
	TopicKind ExchangeKind = iota
	DirectKind
	FanoutKind
	HeadersKind
)

// Only narrows a binding or a live subscription to part of the messages.
type Only uint8

// What a binding or live subscription takes.
const (
	All       Only = iota
	Transient      // QoS 0
	Durable        // QoS 1 and 2
)

// Takes says whether a message of that QoS is meant.
func (o Only) Takes(qos uint8) bool {
	return o == All || (o == Transient) == (qos == 0)
}

// An ExchangeSpec declares an exchange of the session's virtual host.
type ExchangeSpec struct {
	Name      string
	Kind      ExchangeKind
	Alternate string // text address; "": none
}

// A QueueSpec declares a queue of the session's virtual host. The zero value
// of every field is its default. Fields in snake case are the option names of
// the line protocol, STOMP, the configuration and REST.
type QueueSpec struct {
	Name           string
	Class          Class
	MaxMessages    int64 // 0: no limit but the disk's
	MaxBytes       int64
	Overflow       Overflow
	TTL            time.Duration // of each message, from its arrival; 0: none
	MaxAttempts    int           // deliveries before a message is dead; 0: no limit
	Backoff        string        // rest after a delivery that failed: 5s, 1s-5m doubled each time, 1s-5m~0.2 with jitter
	Lease          time.Duration // a delivery not settled by then goes back; 0: none
	DeadLetter     string        // text address of where dead messages go; "": they end
	IdleExpiry     time.Duration // the queue goes when no consumer and no verb but publishes used it so long
	AutoDelete     bool          // goes with its last consumer
	Priorities     int           // levels, 2 to 10; 0, 1: none. A message above the highest is of the highest
	MaxWait        time.Duration // a message that has waited so long goes before those of higher levels; 0: strict
	SingleActive   bool
	Keyed          bool
	DedupWindow    time.Duration
	OnArrival      bool // deliver=on_arrival
	StoreTransient bool // QoS 0 messages are stored too
	Spread         bool
	Archive        string
	Owned          bool // goes when the session that declared it ends
}

// rejects says whether a full queue refuses publishes.
func (q *QueueSpec) rejects() bool {
	return q.Overflow == RejectNew && (q.MaxMessages > 0 || q.MaxBytes > 0)
}

// A StreamSpec declares a stream.
type StreamSpec struct {
	Name                  string
	Class                 Class
	MaxAge                time.Duration
	MaxBytes, MaxMessages int64
	Compact               bool
	Partitions            int
	DedupWindow           time.Duration
}

// A GroupSpec declares a consumer group.
type GroupSpec struct {
	Name, Filter string
	Keyed        bool
}

// A BindingSpec makes a queue a target of what an exchange gets. Source,
// Queue and Owned identify it: the same again replaces the rest.
type BindingSpec struct {
	Queue   string  // the target
	Source  Address // exchange and filter; VHost empty: the session's
	Only    Only
	NoLocal bool   // not what the owner's session key published
	Data    []byte // the adapter's own, given back in Resumed.Bindings
	Owned   bool   // goes when the session that declared it ends
}

// Do is what a Change does.
type Do uint8

// What a Change does.
const (
	Declare Do = iota // the same again is no change; other settings are 409
	Alter             // declare or change
	Remove
	Purge
	Move // the queue's ready messages into another, or back to where they died
)

// A Change is one declaration: exactly one of the pointers is set. A Move is
// the only one of its Apply: it takes as many batches as it needs.
type Change struct {
	Do       Do
	To       string // of Move: text address; "": each where its dead-queue header says
	Limit    int64  // of Move: so many at most; 0: all that are there
	Own      bool   // of a protocol's own word for a queue of the broker's ($...): the right to listen is enough
	IfEmpty  bool   // of Remove: else 409
	IfUnused bool
	Exchange *ExchangeSpec
	Queue    *QueueSpec
	Stream   *StreamSpec
	Group    *GroupSpec
	Binding  *BindingSpec
}

// Shared is the queue of a group on every protocol, and what its members
// declare before they consume it: each of them the same. It goes with the last
// of them; with keep above 0 it waits so long for one to come back. A 409 says
// that it is there already, with another member's settings: that is as good.
func Shared(group string, source Address, keep time.Duration) (queue string, changes []Change) {
	where := source.Topic
	if source.Exchange != TopicExchange {
		where = "$exchange/" + QueuePart(source.Exchange) + "/" + where
	}
	queue = "$share/" + QueuePart(group) + "/" + where
	spec := &QueueSpec{Name: queue, AutoDelete: keep == 0, IdleExpiry: keep}
	changes = []Change{
		{Queue: spec, Own: true},
		{Binding: &BindingSpec{Queue: queue, Source: source}, Own: true},
	}
	if keep > 0 {
		changes[0].Do = Alter
	}
	return queue, changes
}

// QueuePart is a name as it stands between slashes in the name of one of the
// broker's own queues.
func QueuePart(name string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(name)
}

// ReservedName says whether a queue's name belongs to the broker: only who
// has the right to manage may use it by name.
func ReservedName(name string) bool { return len(name) > 0 && name[0] == '$' }
