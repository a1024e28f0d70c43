package core

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// A shard owns a share of the queues, sessions and retained values. One
// goroutine runs it, and nobody else touches a queue, so queues need no locks.
// A turn goes
//
//	take the commands that have gathered
//	step each: queues change, the batch fills
//	deliver what can be delivered
//	hand the batch to the store           (one commit that is waited for at a time)
//	on its return: settle, then deliver
//
// While a commit is in flight the next batch gathers, so the batch grows with
// the time a sync takes and each waits for two syncs at most.
type shard struct {
	id         int
	inbox      *inbox
	store      Partition
	caps       Caps
	health     func() Health
	now        func() time.Time
	fates      *journal
	gate       *gate                                       // shut while the store is behind
	publish    func(from *sender, m *Message)              // a will
	live       func(way *routes, m *Message, from *Outbox) // to the live readers of a route
	fatal      func(err error)
	log        LogID
	nextID     uint64
	autoCreate bool
	policies   map[string][]Policy // by virtual host

	env        queueEnv
	places     map[uint64]*queue
	vhost      func(name string) *vhost
	vhostNames func() []string
	due        dueBook
	dedup      dedupBook
	producers  map[string]*producer // by key of their record
	sweep      time.Time            // next look at idle producers
	retained   map[string]*retained
	bindings   map[*queueRef]map[*binding]bool
	reading    map[*Outbox][]*queue
	sessions   map[string]*sessionState // by id
	attached   map[*Outbox]*sessionState

	sets     map[string]RouteSetID // interned: members => id
	setLife  int
	retiring []RouteSet // leave with the next turn: this one may still use them

	turn      *turn   // being filled
	sealed    []*turn // full or refused, in order, not yet handed over
	inFlight  []*turn // handed over, at most two
	unsettled []*queue
	members   []CursorID // scratch
	spare     []command
	dead      bool // the store is lost: nothing is answered any more
	stopping  bool
}

// A sessionState is what the shard knows of a session: one that is attached to
// a connection, or parked until it comes back or its time is over.
type sessionState struct {
	id       string // vhost and key; unique also for a session without a key
	key      string // "": nobody can resume it
	vhost    *vhost
	from     *sender
	expiry   time.Duration
	stored   bool // has a record
	out      *Outbox
	due      time.Time // parked: ends then
	residue  []byte
	notes    map[string][]byte
	queues   map[string]bool
	bindings map[*binding]bool
	producer *producer
	will     *Will
	willDue  time.Time // parked: published then
	opening  *openRequest
	openBy   time.Time // the old connection is given up then
}

// durable says whether the session outlives its connection and the process.
func (st *sessionState) durable() bool { return st.key != "" && st.expiry > 0 }

// A sender is who publishes: what a will needs after its session is gone.
type sender struct {
	identity *Identity
	id       string // of the session
}

type openRequest struct {
	out   *Outbox
	vhost *vhost
	from  *sender
	spec  SessionSpec
	token uint64
}

// A turn is one batch, and what to do when it is durable.
type turn struct {
	shard     *shard
	batch     Batch
	adds      []added
	pubs      []*Publication
	answers   []answer
	held      []heldEntry // acks of a Submit: undone if the batch is refused
	groups    []heldGroup
	marks     []markMade
	undo      []undoNote
	nacks     []*submission // of a Submit with publishes: done when it is durable
	buried    []burial
	delayed   []delayedAdd
	fired     []firing
	once      []once
	producers []*producer // their records go with it
	bound     []Record    // records that stand and fall with the appends
	bytes     int
}

// A burial is an entry on its way to the dead letters, or moved, in a batch:
// settled with it, or, if the store refuses it, dying still.
type burial struct {
	queue *queue
	dying dying
}

type added struct {
	queue *queue
	entry *entry
	at    int // in batch.Appends
}

type delayedAdd struct {
	bucket *bucket
	at     int // in batch.Appends
}

// undoNote is what a note was before a Submit that may be refused.
type undoNote struct {
	session *sessionState
	key     string
	before  []byte
}

// A submission is the part of a Submit that one shard does at once.
type submission struct {
	group  *together
	number uint64 // of its producer, if it has one
	pubs   []submitted
	acks   []Tag
	nacks  []nacked
	notes  []Note
	out    *Outbox
}

type nacked struct {
	tag  Tag
	back Back
}

type submitted struct {
	pub   *Publication
	key   string
	route *shardRoute // nil: retained, or
	later bool        // not due yet, or
	once  bool        // recognised when it comes again
}

// markMade is a record of deliveries that the batch holds.
type markMade struct {
	queue *queue
	level *level
	to    Offset
}

type answer struct {
	out   *Outbox
	event Event
}

// bound: it stands and falls with appends of the same batch.
type heldEntry struct {
	queue *queue
	entry *entry
	out   *Outbox
	bound bool
}

type heldGroup struct {
	group *together
	bound bool
}

func (t *turn) empty() bool {
	b := &t.batch
	return len(b.Cursors) == 0 && len(b.Sets) == 0 && len(b.Appends) == 0 && len(b.Records) == 0 &&
		len(t.bound) == 0 && len(b.Marks) == 0 && len(b.Acks) == 0 && len(b.Trims) == 0 &&
		len(t.producers) == 0 && len(t.answers) == 0 && len(t.held) == 0 && len(t.groups) == 0
}

func (t *turn) ops() int {
	b := &t.batch
	return len(b.Cursors) + len(b.Sets) + len(b.Appends) + len(b.Records) + len(t.bound) + len(b.Marks) + len(b.Acks) + len(b.Trims)
}

// Committed is the store's answer; it becomes a command like any other.
func (t *turn) Committed(_ *Batch, err error) {
	t.shard.inbox.put(command{kind: cmdCommitted, x: &committed{t, err}})
}

type committed struct {
	turn *turn
	err  error
}

type commandKind uint8

const (
	cmdPublish commandKind = iota
	cmdDelay
	cmdOnce
	cmdRetain
	cmdAck
	cmdNack
	cmdTouch
	cmdSubmit
	cmdConsume
	cmdGrant
	cmdPull
	cmdCancel
	cmdApply
	cmdIdle
	cmdOpen
	cmdClose
	cmdRecall
	cmdCommitted
	cmdFetched
	cmdRefused
	cmdTick
	cmdStop
)

// A command is one thing for a shard to do. The fields are those of the hot
// path; x holds the rest, by kind.
type command struct {
	kind   commandKind
	pub    *Publication
	key    string // id of the publisher's session, for No Local
	route  *shardRoute
	out    *Outbox
	tag    Tag
	tags   []Tag
	recall *recall
	x      any
}

// An inbox is a shard's list of commands; any goroutine may put.
type inbox struct {
	mu       sync.Mutex
	commands []command
	messages int  // publications among them
	full     bool // publishers wait
	waiting  []*Outbox
	ready    chan struct{}
}

const maxInbox = 64 << 10 // publications waiting for a shard

func newInbox() *inbox { return &inbox{ready: make(chan struct{}, 1)} }

func (in *inbox) put(c command) {
	in.mu.Lock()
	in.commands = append(in.commands, c)
	if c.kind <= cmdOnce {
		in.messages++
		in.full = in.messages >= maxInbox
	}
	first := len(in.commands) == 1
	in.mu.Unlock()
	if first {
		select {
		case in.ready <- struct{}{}:
		default:
		}
	}
}

// passes says whether o may publish now; if not, it will get an Again.
func (in *inbox) passes(o *Outbox) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.full {
		in.waiting = append(in.waiting, o)
	}
	return !in.full
}

func (in *inbox) take(spare []command) []command {
	clear(spare)
	if cap(spare) > 16<<10 {
		spare = nil // after a flood
	}
	in.mu.Lock()
	commands, told := in.commands, in.waiting
	in.commands, in.waiting = spare[:0], nil
	in.messages, in.full = 0, false
	in.mu.Unlock()
	for _, o := range told {
		o.Again()
	}
	return commands
}

func (in *inbox) empty() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.commands) == 0
}

// answer tells out when this turn is durable.
func (s *shard) answer(out *Outbox, e Event) {
	s.turn.answers = append(s.turn.answers, answer{out, e})
}

func (s *shard) refuse(p *Publication, err *Error) {
	s.fates.record(Fate{At: s.env.now, Reason: err.Reason, Address: p.message.Address, Text: err.Text, By: err.By})
	p.settle(err)
}

// current is the queue of a route that may be older than the queue: one that
// was removed and declared again has the name, and takes its place.
func (s *shard) current(ref *queueRef) *queue {
	if q := ref.queue; !q.removed {
		return q
	}
	if fresh := s.vhost(ref.queue.vhost).queue(ref.name); fresh != nil {
		return fresh.queue
	}
	return ref.queue
}

// routeSet is the id of a set of cursors. The id of a route's full set is
// kept with the route.
func (s *shard) routeSet(members []CursorID, route *shardRoute, all bool) RouteSetID {
	if len(members) == 1 {
		return Solo(members[0])
	}
	if all && route.set != 0 && route.setLife == s.setLife {
		return route.set
	}
	key := make([]byte, 0, 8*len(members))
	sorted := slices.Clone(members)
	slices.Sort(sorted)
	for _, c := range sorted {
		key = binary.BigEndian.AppendUint64(key, uint64(c))
	}
	id, ok := s.sets[string(key)]
	if !ok {
		if len(s.sets) >= 4096 {
			s.retireSets()
		}
		id = RouteSetID(s.newID())
		s.sets[string(key)] = id
		s.turn.batch.Sets = append(s.turn.batch.Sets, RouteSet{ID: id, Members: sorted})
	}
	if all {
		route.set, route.setLife = id, s.setLife
	}
	return id
}

func (s *shard) retireSets() {
	for _, id := range s.sets {
		s.retiring = append(s.retiring, RouteSet{ID: id})
	}
	clear(s.sets)
	s.setLife++
}

func (s *shard) newID() uint64 {
	s.nextID++
	return s.nextID
}

func (s *shard) eachTag(c *command, do func(*queue, Tag)) {
	if c.tag.Place != 0 {
		if q := s.places[c.tag.Place]; q != nil {
			do(q, c.tag)
		}
	}
	for _, t := range c.tags {
		if q := s.places[t.Place]; q != nil {
			do(q, t)
		}
	}
}
