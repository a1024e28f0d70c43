package core

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
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

var classNames = [...]string{"fsync", "async", "memory"}

// String is the class's name on every protocol and in the configuration.
func (c Class) String() string { return word(classNames[:], int(c)) }

// word is the name of an enumeration's value.
func word(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown"
}

// Overflow is what a full queue does.
type Overflow uint8

// What a full queue does.
const (
	RejectNew  Overflow = iota // the publish is refused with 429
	DropOldest                 // the oldest ends, or goes to the dead letters if there are some
	DeadLetter                 // the new one goes to the dead letters
)

var overflowNames = [...]string{"reject", "drop_oldest", "dead_letter"}

// String is the word that protocols and the configuration use.
func (o Overflow) String() string { return word(overflowNames[:], int(o)) }

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

var onlyNames = [...]string{"all", "transient", "durable"}

// String is the word that protocols and the configuration use.
func (o Only) String() string { return word(onlyNames[:], int(o)) }

// Takes says whether a message of that QoS is meant.
func (o Only) Takes(qos uint8) bool {
	return o == All || (o == Transient) == (qos == 0)
}

var exchangeKindNames = [...]string{"topic", "direct", "fanout", "headers"}

// String is the kind's name on every protocol and in the configuration.
func (k ExchangeKind) String() string { return word(exchangeKindNames[:], int(k)) }

// Match says how the arguments of a headers binding count. Arguments whose
// names begin with x- count with the two of the last alone.
type Match uint8

// How arguments count.
const (
	MatchAll      Match = iota // each of them must be met; none: everything is
	MatchAny                   // one is enough; none: nothing is
	MatchAllWithX              // as all, the x- ones too
	MatchAnyWithX              // as any, the x- ones too
)

var matchNames = [...]string{"all", "any", "all-with-x", "any-with-x"}

// String is the word that protocols and the configuration use.
func (m Match) String() string { return word(matchNames[:], int(m)) }

// An ExchangeSpec declares an exchange of the session's virtual host. The zero
// value of every field is its default.
type ExchangeSpec struct {
	Name string
	Kind ExchangeKind
	// Alternate is where goes what no binding here takes: the text address of
	// an exchange, x/NAME, or of a queue, q/NAME. Empty: nowhere.
	Alternate  string `json:",omitempty"`
	Transient  bool   `json:",omitempty"` // gone after a restart, with its bindings
	AutoDelete bool   `json:",omitempty"` // goes with its last binding or subscription
	Internal   bool   `json:",omitempty"` // gets messages from other exchanges alone
}

// keyed says whether the key of a message decides where it goes.
func (x *ExchangeSpec) keyed() bool { return x.Kind == TopicKind || x.Kind == DirectKind }

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

// A VHostSpec declares a virtual host, whichever one the session is in.
type VHostSpec struct{ Name string }

// A BindingSpec makes a queue or another exchange a target of what an exchange
// gets. Source, target, arguments and Owned identify it: the same again
// replaces the rest.
//
// What the Topic of Source means is the exchange's affair: a filter, an exact
// key, or nothing at all where only arguments or nothing is asked. Empty is
// all that the exchange gets; a direct one wants a key.
type BindingSpec struct {
	Queue    string   `json:",omitempty"` // the target, or
	Exchange string   `json:",omitempty"` // the target: it gets what Source gets, once
	Source   Address  // exchange and key; VHost empty: the session's
	Args     []Header `json:",omitempty"` // of a headers exchange; an empty value: any
	Match    Match    `json:",omitempty"` // how Args count
	Only     Only
	NoLocal  bool   // not what the owner's session key published
	Data     []byte // the adapter's own, given back in Resumed.Bindings
	Owned    bool   // goes when the session that declared it ends
}

// Target is the text form of what is bound: q/orders, x/audit.
func (b *BindingSpec) Target() string {
	if b.Exchange != "" {
		return Address{Exchange: b.Exchange}.String()
	}
	return Address{Exchange: DefaultExchange, Topic: b.Queue}.String()
}

// asks says whether the binding asks for headers.
func (b *BindingSpec) asks() bool { return len(b.Args) > 0 || b.Match != MatchAll }

// sorted are the arguments in the one order in which they are compared: theirs
// means nothing.
func (b *BindingSpec) sorted() []Header {
	args := slices.Clone(b.Args)
	slices.SortStableFunc(args, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	return args
}

// argumentSum tells what bindings ask for apart, in any order of arguments.
func (b *BindingSpec) argumentSum() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%d", b.Match)
	for _, a := range b.sorted() {
		fmt.Fprintf(sum, " %q %q", a.Name, a.Value)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// TopologyLimits bound virtual hosts and what one may hold of exchanges and
// bindings.
// Zero means the default.
type TopologyLimits struct {
	VHosts         int // 256
	Exchanges      int // a virtual host; the predeclared ones do not count; 1,024
	Bindings       int // of one exchange; those of sessions do not count; 100,000
	HeaderBindings int // of one headers exchange, all of them: each message asks each; 1,024
	Arguments      int // of one headers binding; 32
}

func (l TopologyLimits) orDefault() TopologyLimits {
	set := func(n *int, or int) {
		if *n == 0 {
			*n = or
		}
	}
	set(&l.VHosts, 256)
	set(&l.Exchanges, 1024)
	set(&l.Bindings, 100_000)
	set(&l.HeaderBindings, 1024)
	set(&l.Arguments, 32)
	return l
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
	VHost    *VHostSpec
}

// Shared is the queue of a group on every protocol, and what its members
// declare before they consume it: each of them the same. It goes with the last
// of them; with keep above 0 it waits so long for one to come back. A 409 says
// that it is there already, with another member's settings: that is as good.
//
// Members of one group on one source with the same arguments share; to has no
// target yet.
func Shared(group string, to BindingSpec, keep time.Duration) (queue string, changes []Change) {
	if to.Source.Exchange != TopicExchange && to.Source.Topic == "#" {
		to.Source.Topic = "" // the same, and MQTT cannot say it so
	}
	where := to.Source.Topic
	if to.Source.Exchange != TopicExchange {
		where = "$exchange/" + QueuePart(to.Source.Exchange) + "/" + where
	}
	if to.asks() {
		where += "/" + to.argumentSum()
	}
	queue = "$share/" + QueuePart(group) + "/" + where
	spec := &QueueSpec{Name: queue, AutoDelete: keep == 0, IdleExpiry: keep}
	to.Queue = queue
	changes = []Change{{Queue: spec, Own: true}, {Binding: &to, Own: true}}
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
