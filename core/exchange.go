package core

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/godwitmq/godwit/core/topic"
)

// A vhost is a space of names: its exchanges, queues and reply addresses, and
// who is bound to what. Publishers match under its read lock and remember the
// result until gen changes; the lock is never held while anybody is called.
type vhost struct {
	name  string
	shard int // where its queues, sessions and retained values live
	gen   atomic.Uint64

	mu        sync.RWMutex
	exchanges map[string]*exchange
	queues    map[string]*queueRef
	replies   map[string]*replyAddress
	sessions  map[string]sessionInfo
}

// An exchange knows who wants which topics.
type exchange struct {
	spec    ExchangeSpec
	builtin bool
	table   topic.Trie[*binding]
}

// A binding is one wish: a queue's or a live listener's.
type binding struct {
	queue    *queueRef
	listener *listener
	only     Only
	noLocal  bool
	owner    string // id of the session that declared it, for noLocal
	spec     BindingSpec
}

// takes says whether a queue's binding is meant by a message of that session.
func (b *binding) takes(m *Message, from string) bool {
	return b.only.Takes(m.QoS) && !(b.noLocal && from == b.owner)
}

type replyAddress struct {
	owner     *Outbox
	listeners []*listener
}

type sessionInfo struct {
	user, protocol, remote string
	connected              bool
}

// routes is what a topic comes to: whom to deliver to now, and which queues.
// It is immutable, but for the cached sets, which only their shard touches.
type routes struct {
	gen       uint64
	listeners []*listener
	merged    [][]*listener // of one session each: one delivery among them
	shards    []*shardRoute
	rejects   []*queueRef // asked before anything is delivered
	missing   bool        // a queue that does not exist
	gone      bool        // a reply address that does not exist
	found     []*binding  // what matched, for explain
}

// targets is how many will settle.
func (r *routes) targets() int { return len(r.listeners) + len(r.merged) + len(r.shards) }

// A shardRoute is the queues of one shard that a topic comes to: one command,
// one append.
type shardRoute struct {
	shard   int
	targets []queueTarget
	vhost   *vhost
	name    string // a queue to be declared first
	set     RouteSetID
	setLife int
}

// A queueTarget is a queue and the bindings that led there; no conditions: it
// takes all.
type queueTarget struct {
	ref        *queueRef
	conditions []*binding
}

func (t *queueTarget) takes(m *Message, key string) bool {
	return len(t.conditions) == 0 || slices.ContainsFunc(t.conditions, func(b *binding) bool { return b.takes(m, key) })
}

func newVHost(name string, shard int) *vhost {
	v := &vhost{
		name: name, shard: shard,
		exchanges: make(map[string]*exchange),
		queues:    make(map[string]*queueRef),
		replies:   make(map[string]*replyAddress),
		sessions:  make(map[string]sessionInfo),
	}
	v.exchanges[TopicExchange] = &exchange{spec: ExchangeSpec{Name: TopicExchange}, builtin: true}
	v.gen.Store(1)
	return v
}

// route matches an address.
func (v *vhost) route(exchangeName, name string) (*routes, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	r := &routes{gen: v.gen.Load()}
	switch exchangeName {
	case DefaultExchange:
		ref := v.queues[name]
		if ref == nil {
			r.missing = true
			r.shards = []*shardRoute{{shard: v.shard, vhost: v, name: name}}
			return r, nil
		}
		r.toQueue(ref, nil)
		return r, nil
	case ReplyExchange:
		reply := v.replies[name]
		if reply == nil {
			r.gone = true
			return r, nil
		}
		r.listeners = slices.Clone(reply.listeners)
		return r, nil
	case StreamExchange:
		return nil, NotYet("streams")
	}
	x := v.exchanges[exchangeName]
	if x == nil {
		switch exchangeName {
		case DirectExchange, FanoutExchange, HeadersExchange:
			return nil, NotYet("exchange " + exchangeName)
		}
		return nil, Errorf(CodeNotFound, "no exchange %q", exchangeName)
	}
	r.found = x.table.Match(name, nil)
	for _, b := range r.found {
		switch {
		case b.queue != nil:
			r.toQueue(b.queue, b)
		case b.listener.merge:
			r.toMerged(b.listener)
		default:
			r.listeners = append(r.listeners, b.listener)
		}
	}
	return r, nil
}

func (r *routes) toMerged(l *listener) {
	for i := range r.merged {
		if r.merged[i][0].out == l.out {
			r.merged[i] = append(r.merged[i], l)
			return
		}
	}
	r.merged = append(r.merged, []*listener{l})
}

func (r *routes) toQueue(ref *queueRef, b *binding) {
	if ref.reject.Load() && !slices.Contains(r.rejects, ref) {
		r.rejects = append(r.rejects, ref)
	}
	var conditions []*binding
	if b != nil && (b.only != All || b.noLocal) {
		conditions = []*binding{b}
	}
	at := slices.IndexFunc(r.shards, func(s *shardRoute) bool { return s.shard == ref.shard })
	if at < 0 {
		at = len(r.shards)
		r.shards = append(r.shards, &shardRoute{shard: ref.shard})
	}
	s := r.shards[at]
	for i := range s.targets {
		t := &s.targets[i]
		if t.ref != ref {
			continue
		}
		if len(conditions) == 0 {
			t.conditions = nil
		} else if len(t.conditions) > 0 {
			t.conditions = append(t.conditions, conditions...)
		}
		return
	}
	s.targets = append(s.targets, queueTarget{ref, conditions})
}

// bind adds a wish; unbind takes it away and says whether it was there.
func (v *vhost) bind(exchangeName, filter string, b *binding) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.exchanges[exchangeName]
	if x == nil {
		return false // it went a moment ago
	}
	x.table.Add(filter, b)
	v.gen.Add(1)
	return true
}

func (v *vhost) unbind(exchangeName, filter string, b *binding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if x := v.exchanges[exchangeName]; x != nil && x.table.Remove(filter, b) {
		v.gen.Add(1)
	}
}

func (v *vhost) exchange(name string) *exchange {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.exchanges[name]
}

func (v *vhost) bindings(x *exchange) int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return x.table.Len()
}

func (v *vhost) queue(name string) *queueRef {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.queues[name]
}

// changed makes publishers match again.
func (v *vhost) changed() { v.gen.Add(1) }

func (v *vhost) addQueue(ref *queueRef) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.queues[ref.name] = ref
	v.gen.Add(1)
}

func (v *vhost) removeQueue(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.queues, name)
	v.gen.Add(1)
}

// listen adds a live listener to an exchange or an own reply address.
func (v *vhost) listen(where Address, l *listener) (*binding, error) {
	if where.Exchange == ReplyExchange {
		return nil, v.listenReply(where.Topic, l)
	}
	if x := v.exchange(where.Exchange); x == nil {
		return nil, noExchange(where.Exchange)
	}
	b := &binding{listener: l}
	if !v.bind(where.Exchange, where.Topic, b) {
		return nil, noExchange(where.Exchange)
	}
	return b, nil
}

func noExchange(name string) *Error {
	switch name {
	case DirectExchange, FanoutExchange, HeadersExchange:
		return NotYet("exchange " + name)
	case StreamExchange:
		return NotYet("streams")
	}
	return Errorf(CodeNotFound, "no exchange %q", name)
}

func (v *vhost) listenReply(id string, l *listener) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := v.replies[id]
	if r == nil {
		return Errorf(CodeGone, "reply address %q does not exist", id)
	}
	if r.owner != l.out {
		return &Error{Code: CodeDenied, Reason: ReasonDenied, Text: "a reply address is read by its own session alone"}
	}
	r.listeners = append(r.listeners, l)
	v.gen.Add(1)
	return nil
}

// unlisten takes a live listener away.
func (v *vhost) unlisten(where Address, l *listener, b *binding) {
	if b != nil {
		v.unbind(where.Exchange, where.Topic, b)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if r := v.replies[where.Topic]; r != nil {
		r.listeners = slices.DeleteFunc(r.listeners, func(o *listener) bool { return o == l })
		v.gen.Add(1)
	}
}

func (v *vhost) addReply(id string, owner *Outbox) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.replies[id] = &replyAddress{owner: owner}
	v.gen.Add(1)
}

func (v *vhost) removeReply(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.replies, id)
	v.gen.Add(1)
}

func (v *vhost) noteSession(key string, info sessionInfo) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sessions[key] = info
}

func (v *vhost) forgetSession(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.sessions, key)
}

func (v *vhost) addExchange(spec ExchangeSpec) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.exchanges[spec.Name] == nil {
		v.exchanges[spec.Name] = &exchange{spec: spec}
	}
	v.gen.Add(1)
}

func (v *vhost) removeExchange(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.exchanges, name)
	v.gen.Add(1)
}

// bindingsAt lists what is bound to exactly that filter.
func (v *vhost) bindingsAt(source Address) []*binding {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if x := v.exchanges[source.Exchange]; x != nil {
		return slices.Clone(x.table.At(source.Topic))
	}
	return nil
}

func filterFault(filter string) string { return topic.Fault(filter, true) }
