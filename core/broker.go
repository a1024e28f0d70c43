package core

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure a Broker. Store is required.
type Options struct {
	Store    Store
	Guard    Guard            // nil: LoopbackGuard
	Now      func() time.Time // nil: time.Now
	Shards   int              // 0: as many as CPUs, 2 to 16. Never fewer than the store was used with
	Limits   Limits
	Policies map[string][]Policy // by virtual host
	VHosts   []string            // virtual hosts beside "/" and those that the store holds
	Manual   bool                // no goroutines: Step runs the shards (simulation)

	Topology TopologyLimits

	NoAutoCreate bool   // an unknown queue is 404, not declared
	Fates        int    // ends kept for explain, a shard; 0: 65,536
	Window       int64  // bytes of ready messages in memory, a shard; 0: 32 MiB
	Loose        int64  // messages in memory alone, a queue; 0: 100,000
	Seed         uint64 // of the jitter of backoffs; 0: another at each start
}

// A Broker is the whole.
type Broker struct {
	options Options
	now     func() time.Time
	guard   Guard
	store   Store
	caps    Caps
	shards  []*shard
	pipe    atomic.Pointer[pipeline]
	live    journal // ends outside of shards: live readers, nobody
	names   atomic.Uint64
	bounds  bounds // of every virtual host
	gate    gate
	closed  atomic.Bool
	fatal   chan struct{}
	lost    sync.Once
	running sync.WaitGroup

	mu     sync.RWMutex
	vhosts map[string]*vhost
}

func (b *Broker) setDefaults() {
	o := &b.options
	if b.now == nil {
		b.now = time.Now //nolint:forbidigo // the one clock, unless another is given
	}
	if b.guard == nil {
		b.guard = LoopbackGuard{}
	}
	if o.Shards == 0 {
		o.Shards = min(max(runtime.GOMAXPROCS(0), 2), 16)
	}
	if o.Fates == 0 {
		o.Fates = 65_536
	}
	if o.Window == 0 {
		o.Window = 32 << 20
	}
	if o.Loose == 0 {
		o.Loose = 100_000
	}
	o.Limits = o.Limits.or(Limits{Unanswered: 1024, Subscriptions: 1024, LiveMessages: 10_000, LiveBytes: 8 << 20})
	b.live.size = o.Fates
	b.bounds.limits = o.Topology.orDefault()
}

// or fills in what is not set.
func (l Limits) or(d Limits) Limits {
	if l.Unanswered == 0 {
		l.Unanswered = d.Unanswered
	}
	if l.Subscriptions == 0 {
		l.Subscriptions = d.Subscriptions
	}
	if l.LiveMessages == 0 {
		l.LiveMessages = d.LiveMessages
	}
	if l.LiveBytes == 0 {
		l.LiveBytes = d.LiveBytes
	}
	return l
}

func (b *Broker) newShard(i int, p Partition) *shard {
	s := &shard{
		id: i, inbox: newInbox(), store: p, caps: b.caps, health: b.store.Health, now: b.now,
		fates: &journal{size: b.options.Fates}, gate: &b.gate, publish: b.publishWill, live: b.fromShard, fatal: b.lose,
		autoCreate: !b.options.NoAutoCreate,
		policies:   b.options.Policies,
		places:     make(map[uint64]*queue),
		vhost:      b.vhost,
		vhostNames: b.vhostNames,
		retained:   make(map[string]*retained),
		bindings:   make(map[*queueRef]map[*binding]bool),
		reading:    make(map[*Outbox][]*queue),
		sessions:   make(map[string]*sessionState),
		producers:  make(map[string]*producer),
		attached:   make(map[*Outbox]*sessionState),
		sets:       make(map[string]RouteSetID),
		nextID:     max(p.NextID(), uint64(i)<<48), // a place names its shard too
	}
	s.turn = s.newTurn()
	seed := b.options.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	s.env = queueEnv{
		now: b.now(), fates: s.fates, window: b.options.Window, least: min(64<<10, b.options.Window), loose: b.options.Loose,
		dice: rand.New(rand.NewPCG(seed, uint64(i))),
	}
	return s
}

// fromShard gives a message that a shard routes to those who read its address
// live.
func (b *Broker) fromShard(way *routes, m *Message, from *Outbox) {
	if len(way.listeners)+len(way.merged) > 0 || from != nil {
		b.deliverLive(way, m, from)
	}
}

func (b *Broker) lose(err error) {
	b.lost.Do(func() { close(b.fatal) })
}

// vhost finds or makes a virtual host. A new one lives in the shard its name
// hashes to; one that the store holds, where it was found.
func (b *Broker) vhost(name string) *vhost {
	b.mu.RLock()
	v := b.vhosts[name]
	b.mu.RUnlock()
	if v != nil {
		return v
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	return b.vhostAt(name, int(h.Sum32()%uint32(len(b.shards))))
}

func (b *Broker) vhostAt(name string, shard int) *vhost {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v := b.vhosts[name]; v != nil {
		return v
	}
	v := newVHost(name, shard, &b.bounds)
	b.vhosts[name] = v
	return v
}

func (b *Broker) vhostNames() []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return slices.Sorted(maps.Keys(b.vhosts))
}

// Now is the broker's clock.
func (b *Broker) Now() time.Time { return b.now() }

// maxValue is how large a record's value may be.
func (b *Broker) maxValue() int64 {
	if b.caps.MaxValue > 0 {
		return int64(b.caps.MaxValue)
	}
	return int64(b.caps.MaxRecord)
}

// Caps is what the store can take.
func (b *Broker) Caps() Caps { return b.caps }

// Enter asks the guard who this is. It may block.
func (b *Broker) Enter(ctx context.Context, l Login) (Identity, error) {
	id, err := b.guard.Enter(ctx, l)
	if err != nil {
		return id, err
	}
	if id.VHost == "" {
		id.VHost = "/"
	}
	if !b.HasVHost(id.VHost) {
		return Identity{}, Errorf(CodeNotFound, "no virtual host %q: the configuration names them under vhosts", id.VHost)
	}
	return id, nil
}

// HasVHost says whether there is such a virtual host.
func (b *Broker) HasVHost(name string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.vhosts[name] != nil
}

// Tick tells the broker the time: leases, waits, expiry. About every 250 ms.
func (b *Broker) Tick(time.Time) {
	for _, s := range b.shards {
		s.inbox.put(command{kind: cmdTick})
	}
}

// Step runs each shard of a Manual broker once and says whether any had work.
func (b *Broker) Step() bool {
	worked := false
	for _, s := range b.shards {
		worked = s.round() || worked
	}
	return worked
}

// Fatal is closed when the store is lost and nothing can be confirmed any
// more; the process should end with code 74.
func (b *Broker) Fatal() <-chan struct{} { return b.fatal }

// Close settles what was accepted and closes the partitions. Sessions should
// be closed before; those that are not are parked or end.
func (b *Broker) Close(ctx context.Context) error {
	if b.closed.Swap(true) {
		return nil
	}
	for _, s := range b.shards {
		s.inbox.put(command{kind: cmdStop})
	}
	if err := b.await(ctx); err != nil {
		return err
	}
	for _, s := range b.shards {
		if err := s.store.Close(ctx); err != nil && !s.dead {
			return fmt.Errorf("close partition %d: %w", s.id, err)
		}
	}
	return nil
}

func (b *Broker) await(ctx context.Context) error {
	if b.options.Manual {
		for b.Step() {
		}
		return nil
	}
	done := make(chan struct{})
	go func() { // ends with the shards, whose last commits are bounded by the store
		b.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shards have not settled: %w", ctx.Err())
	}
}

// Pipe puts a stage in the way of all publications, or none with nil. admit
// says whether the stage has room; it is asked before a message is taken.
func (b *Broker) Pipe(stage Stage, admit func(*Publication) bool) {
	if stage == nil {
		b.pipe.Store(nil)
		return
	}
	b.pipe.Store(&pipeline{enter: stage(b.routeAndSend), admit: admit})
}

// routeAndSend is the end of the pipeline: what a session does itself when no
// stage is in the way.
func (b *Broker) routeAndSend(p *Publication) {
	m := p.message
	way, err := b.vhost(m.Address.VHost).route(&m.Address, m, nil)
	if err == nil && b.waits(p) {
		if e := b.undelayable(way, m); e != nil {
			b.refuse(p, e)
			return
		}
		b.toShard(p)
		return
	}
	if err == nil {
		if e := wayRefusal(way, m); e != nil {
			err = e
		}
	}
	if err != nil {
		b.refuse(p, AsError(err))
		return
	}
	b.send(p, way)
}

// waits says whether a shard has to look at a publication before it is
// routed: it is not due yet, or may have come before.
func (b *Broker) waits(p *Publication) bool {
	return !p.message.NotBefore.IsZero() || p.message.Dedup != "" || p.number > 0
}

// toShard gives a publication that waits to the shard of its virtual host: it
// is routed there, when it is due and if it is new.
func (b *Broker) toShard(p *Publication) {
	p.targets = 1
	p.owed.Store(1)
	c := command{kind: cmdDelay, pub: p, key: p.key}
	if p.message.Dedup != "" || p.number > 0 {
		c.kind = cmdOnce
	}
	b.shards[b.vhost(p.message.Address.VHost).shard].inbox.put(c)
}

// undelayable says what is wrong already with a message that is not due yet,
// or nil.
func (b *Broker) undelayable(way *routes, m *Message) *Error {
	switch {
	case way.gone:
		return Errorf(CodeGone, "reply address %q does not exist", m.Address.Topic)
	case way.missing && (b.options.NoAutoCreate || ReservedName(m.Address.Topic)):
		return Errorf(CodeNotFound, "no queue %q", m.Address.Topic)
	case m.Must && (way.targets() == 0 || way.missing):
		return &Error{Code: CodeNotFound, Reason: ReasonNoTarget, Text: "nobody takes messages of " + m.Address.String()}
	}
	return nil
}

func (b *Broker) refuse(p *Publication, e *Error) {
	b.live.record(Fate{At: b.now(), Reason: e.Reason, Address: p.message.Address, Text: e.Text, By: e.By})
	p.owed.Store(1)
	p.settle(e)
}

// send gives a publication to all its targets. Live readers get it at once,
// queues when their shard comes to it.
func (b *Broker) send(p *Publication, way *routes) {
	m := p.message
	retain := m.Retain && m.Address.Exchange == TopicExchange
	p.targets = uint64(way.targets())
	owed := int32(len(way.shards))
	if retain {
		owed++
	}
	if owed == 0 {
		b.deliverLive(way, m, p.out)
		p.owed.Store(1)
		p.settle(nil)
		return
	}
	p.owed.Store(owed)
	b.deliverLive(way, m, p.out)
	if retain {
		b.shards[b.vhost(m.Address.VHost).shard].inbox.put(command{kind: cmdRetain, pub: p})
	}
	for _, r := range way.shards {
		b.shards[r.shard].inbox.put(command{kind: cmdPublish, pub: p, key: p.key, route: r})
	}
}

// deliverLive gives m to the live readers. One whose outbox is full misses it:
// counted, and kept in the journal.
func (b *Broker) deliverLive(way *routes, m *Message, from *Outbox) {
	for _, x := range way.diverted {
		x.diverted.Add(1)
	}
	if way.targets() == 0 {
		if way.exchange != nil {
			way.exchange.unrouted.Add(1)
		}
		b.live.record(Fate{At: m.Arrived, Reason: ReasonNoTarget, Address: m.Address})
		return
	}
	n := len(way.listeners) + len(way.merged)
	if n == 0 {
		return
	}
	size := m.Size()
	for _, l := range way.listeners {
		if l.wants(m, from) && !l.accept(m, size) {
			b.missed(l, m)
		}
	}
	for _, group := range way.merged {
		for _, l := range group {
			if l.wants(m, from) {
				if !l.accept(m, size) {
					b.missed(l, m)
				}
				break
			}
		}
	}
	b.live.counts[ReasonDelivered].Add(int64(n))
}

func (b *Broker) missed(l *listener, m *Message) {
	b.live.record(Fate{At: b.now(), Reason: ReasonSlowReader, Address: m.Address, Place: l.client})
}

// publishWill sends what a dead session left.
func (b *Broker) publishWill(from *sender, m *Message) {
	if b.guard.Allow(from.identity, Access{Do: ActPublish, Where: m.Address, QoS: m.QoS, Retain: m.Retain}, nil) != Yes {
		b.live.record(Fate{At: b.now(), Reason: ReasonDenied, Address: m.Address, Text: "a will"})
		return
	}
	m.From, m.Arrived = from.identity, b.now()
	p := &Publication{message: m, key: from.id, lane: new(Lane)}
	if pipe := b.pipe.Load(); pipe != nil {
		pipe.enter(p)
		return
	}
	b.routeAndSend(p)
}

// Explain walks m's way with the recorder on and publishes nothing.
func (b *Broker) Explain(id Identity, m *Message) *Recorder {
	rec := new(Recorder)
	if b.guard.Allow(&id, Access{Do: ActPublish, Where: m.Address, QoS: m.QoS, Retain: m.Retain}, nil) != Yes {
		rec.add("guard", id.User, "may not publish there")
		return rec
	}
	way, err := b.vhost(m.Address.VHost).route(&m.Address, m, rec)
	if err != nil {
		rec.add("refused", AsError(err).Code.Name(), err.Error())
		return rec
	}
	rec.routed(way, m, "")
	if e := wayRefusal(way, m); e != nil {
		rec.add("refused", e.Code.Name(), e.Text)
	}
	return rec
}
