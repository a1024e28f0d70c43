package mqtt

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/topic"
)

// A subscription is what a client wants from one filter. It does not change:
// the same filter again makes another one.
type subscription struct {
	filter   string
	source   source
	qos      byte
	noLocal  bool
	asIs     bool   // Retain As Published
	handling byte   // of retained values
	id       uint32 // the client's number; 0: none
	sub      uint32 // core's number

	only  core.Only // what the live listener takes
	bound bool      // QoS 1 and 2 come through the session's queue by now
}

func (s *subscription) options() byte {
	b := s.qos | s.handling<<4
	if s.noLocal {
		b |= 4
	}
	if s.asIs {
		b |= 8
	}
	return b
}

func (s *subscription) setOptions(b byte) {
	s.qos, s.noLocal, s.asIs, s.handling = b&3, b&4 != 0, b&8 != 0, b>>4&3
}

// A table is a session's subscriptions at a moment, in the order of core's
// numbers. It does not change either.
type table struct {
	list      []*subscription
	noLocal   bool
	exchanges bool // some are of exchanges beside the topics
}

func (t *table) byFilter(filter string) *subscription {
	for _, s := range t.list {
		if s.filter == filter {
			return s
		}
	}
	return nil
}

func (t *table) bySub(sub uint32) *subscription {
	at, found := slices.BinarySearchFunc(t.list, sub, func(s *subscription, sub uint32) int { return int(s.sub) - int(sub) })
	if !found {
		return nil
	}
	return t.list[at]
}

// subscriptions are a session's. The reader changes them, and the flusher what
// core refuses; deliveries read the table as it is.
type subscriptions struct {
	now atomic.Pointer[table]

	// order is held while a subscription is taken away together with its
	// binding, and while a binding is made of one that is still there: so none
	// is left behind. Core's verbs, called meanwhile, never block.
	order sync.Mutex

	mu    sync.Mutex // guards the rest, changes of the table, and subscribings
	next  uint32     // core's number given out last
	steps map[uint64]*step
	step  uint64
}

var noTable table

func (s *subscriptions) table() *table {
	if t := s.now.Load(); t != nil {
		return t
	}
	return &noTable
}

// put adds a subscription under a new number, in the place of the one it
// replaces, which it returns.
func (s *subscriptions) put(sub *subscription) (old *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	sub.sub = s.next
	old = s.table().byFilter(sub.filter)
	s.change(old, sub)
	return old
}

// change takes one subscription out and puts another in. s.mu is held.
func (s *subscriptions) change(out, in *subscription) {
	t := &table{list: make([]*subscription, 0, len(s.table().list)+1)}
	for _, sub := range s.table().list {
		if sub != out {
			t.list = append(t.list, sub)
		}
	}
	if in != nil {
		at, _ := slices.BinarySearchFunc(t.list, in.sub, func(s *subscription, sub uint32) int { return int(s.sub) - int(sub) })
		t.list = slices.Insert(t.list, at, in)
	}
	for _, sub := range t.list {
		t.noLocal = t.noLocal || sub.noLocal
		t.exchanges = t.exchanges || sub.source.isExchange()
	}
	s.now.Store(t)
}

func (s *subscriptions) remove(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change(sub, nil)
}

// replace puts old back where sub was, if it still is.
func (s *subscriptions) replace(sub, by *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.table().list, sub) {
		s.change(sub, by)
	}
}

// A subscribing is a SUBSCRIBE or UNSUBSCRIBE whose answer is owed: it leaves
// when core has confirmed all of it.
type subscribing struct {
	kind    packetType // of the answer
	id      uint16
	codes   []byte
	text    string // of the first refusal
	waiting int    // steps, and the reader while it hands them out
	recalls []*subscription
	asks    bool // it has arguments for a headers exchange
}

// asksForHeaders says whether a SUBSCRIBE has what STOMP clients ask a headers
// exchange for. To ignore that would be to deliver everything.
func asksForHeaders(user []packets.UserProperty) bool {
	return slices.ContainsFunc(user, func(p packets.UserProperty) bool { return strings.HasPrefix(p.Key, "x-match") })
}

// What a step waits for.
type doing byte

const (
	sharing doing = iota // the group's queue is being declared
	listening
	keeping // the rest of its todo
)

// A step is one filter of a subscribing on its way through core: first the
// guard and the live part, then what must be on the disk.
type step struct {
	pack  *subscribing
	at    int // in codes
	sub   *subscription
	old   *subscription // replaced
	doing doing
	todo  []durable
}

// durable is one thing that must be on the disk before the answer.
type durable struct {
	changes []core.Change
	note    *core.Note
	binds   bool // the session's queue
	removes bool // that there is nothing to remove is no fault
}

// subscribe handles a SUBSCRIBE.
func (c *conn) subscribe(body []byte) error {
	if bad := checkSubscribe(body, c.version, c.options); bad != nil {
		return bad
	}
	pk, bad := c.decode(typeSubscribe, body, c.version)
	if bad != nil {
		return bad
	}
	pack := &subscribing{
		kind: typeSuback, id: pk.PacketID, codes: make([]byte, len(pk.Filters)), waiting: 1,
		asks: asksForHeaders(pk.Properties.User),
	}
	for i := range pk.Filters {
		c.subscribeFilter(pack, i, &pk.Filters[i])
	}
	c.finish(pack)
	return nil
}

func (c *conn) subscribeFilter(pack *subscribing, i int, f *packets.Subscription) {
	s := &subscription{
		filter: f.Filter, qos: f.Qos, noLocal: f.NoLocal || c.bridge, asIs: f.RetainAsPublished || c.bridge,
		handling: f.RetainHandling, id: uint32(f.Identifier),
	}
	old := c.subs.table().byFilter(s.filter)
	var err *core.Error
	switch {
	case i >= c.options.FiltersMax:
		err = core.Errorf(core.CodeQuota, "more than %d filters in one packet", c.options.FiltersMax)
	case old == nil && len(c.subs.table().list) >= c.options.SubscriptionsMax:
		err = core.Errorf(core.CodeQuota, "more than %d subscriptions", c.options.SubscriptionsMax)
	default:
		s.source, err = c.sourceOf(s.filter)
		if err == nil && pack.asks && s.source.isExchange() {
			err = core.NotYet("asking a headers exchange for headers by MQTT: bind a queue on the line or in the configuration instead")
		}
	}
	if err != nil {
		c.refuseFilter(pack, i, err)
		return
	}
	pack.codes[i] = s.qos // [MQTT-3.8.4-7]
	if s.source.queue && old != nil {
		s.sub = old.sub
		c.subs.replace(old, s) // the same consumer goes on
		return
	}
	if wantsRetained(s, old) {
		pack.recalls = append(pack.recalls, s)
	}
	s.only = core.All
	if c.durable && s.qos > 0 && !s.source.queue {
		s.only = core.Transient
	}
	st := &step{pack: pack, at: i, sub: s, doing: listening}
	if s.source.share != "" && s.noLocal { // [MQTT-3.8.3-4]
		c.refuseFilter(pack, i, core.Errorf(core.CodeSyntax, "No Local of a shared subscription"))
		return
	}
	st.old = c.subs.put(s)
	st.todo = c.todo(s, st.old)
	c.begin(st)
}

// sourceOf is what a filter stands for; one that an exchange cannot have is
// refused.
func (c *conn) sourceOf(filter string) (source, *core.Error) {
	s, err := sourceOf(c.topics.vhost, filter)
	if err != nil || !s.isExchange() {
		return s, err
	}
	spec, there := c.broker.Exchange(s.address.VHost, s.address.Exchange)
	if !there {
		return s, core.Errorf(core.CodeNotFound, "no exchange %q", s.address.Exchange)
	}
	return s, s.suits(&spec)
}

// wantsRetained is Retain Handling [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11].
func wantsRetained(s, old *subscription) bool {
	if s.source.address.Exchange != core.TopicExchange || s.source.share != "" { // MQTT 5, 4.8.2: none for a shared one
		return false
	}
	return s.handling == 0 || (s.handling == 1 && old == nil)
}

func (c *conn) refuseFilter(pack *subscribing, i int, err *core.Error) {
	code := byte(subackFailure)
	if c.version == 5 {
		code = subackCode(err)
	}
	c.subs.mu.Lock()
	defer c.subs.mu.Unlock()
	pack.codes[i] = code
	if pack.text == "" {
		pack.text = err.Error()
	}
}

// todo is what must be on the disk for a subscription of a session that
// outlives its connection: a binding of its queue for QoS 1 and 2, or a note
// that there is one with QoS 0. What the replaced one had and this one has not
// goes.
func (c *conn) todo(s, old *subscription) (todo []durable) {
	if !c.durable || (s.source.queue && s.source.share == "") {
		return nil
	}
	if s.qos > 0 && s.source.share == "" {
		changes := []core.Change{c.queueSpec(), {Do: core.Alter, Binding: c.binding(s)}}
		todo = append(todo, durable{changes: changes, binds: true})
	} else {
		todo = append(todo, durable{note: &core.Note{Key: filterKey(s.filter), Value: encodeSubscription(s)}})
	}
	if old != nil && s.source.share == "" && (old.qos > 0) != (s.qos > 0) {
		todo = append(todo, c.undone(old)...)
	}
	return todo
}

// undone is what leaves the disk with a subscription.
func (c *conn) undone(s *subscription) []durable {
	switch {
	case !c.durable || (s.source.queue && s.source.share == ""):
		return nil
	case s.qos > 0 && s.source.share == "":
		return []durable{{changes: []core.Change{{Do: core.Remove, Binding: c.binding(s)}}, removes: true}}
	}
	return []durable{{note: &core.Note{Key: filterKey(s.filter)}, removes: true}}
}

func (c *conn) binding(s *subscription) *core.BindingSpec {
	return &core.BindingSpec{
		Queue: c.queueName(), Source: s.source.address, Only: core.Durable,
		NoLocal: s.noLocal, Data: encodeSubscription(s), Owned: true,
	}
}

// begin asks core for the live part of a step: the guard's answer comes with it.
func (c *conn) begin(st *step) {
	s := st.sub
	where := core.Sub{ID: s.sub, Where: s.source.address}
	if s.source.share != "" {
		var changes []core.Change
		where.Where.Exchange = core.DefaultExchange
		where.Where.Topic, changes = core.Shared(s.source.share, core.BindingSpec{Source: s.source.address}, c.keepsGroup())
		if st.doing != sharing {
			st.doing = sharing
			c.session.Apply(changes, c.waitFor(st))
			return
		}
		st.doing = listening
	}
	token := c.waitFor(st)
	if s.source.queue {
		where.Credit = c.credit()
		c.session.Consume(where, token)
		return
	}
	where.Only, where.NoLocal, where.Merge = s.only, s.noLocal, true
	c.session.Listen(where, token)
}

// keepsGroup is how long the queue of a group waits for this session to come
// back; 0: it goes with its last member.
func (c *conn) keepsGroup() time.Duration {
	if !c.durable {
		return 0
	}
	return max(c.expiry, time.Minute)
}

// waitFor remembers a step until core confirms it.
func (c *conn) waitFor(st *step) (token uint64) {
	c.subs.mu.Lock()
	defer c.subs.mu.Unlock()
	if c.subs.steps == nil {
		c.subs.steps = make(map[uint64]*step)
	}
	c.subs.step++
	c.subs.steps[c.subs.step] = st
	st.pack.waiting++
	return tokenStep | c.subs.step
}

// confirmStep takes a step on: to what is to be kept next, or to its end.
func (c *conn) confirmStep(out []byte, e *core.Event) []byte {
	st := c.confirmedStep(e.Token)
	if st == nil {
		return out
	}
	err := core.AsError(e.Err)
	if st.doing == sharing && (err == nil || err.Code == core.CodeConflict) {
		c.begin(st) // the group's queue is there
		return c.finished(out, st.pack)
	}
	if st.doing == keeping {
		if err != nil && err.Code == core.CodeNotFound && st.todo[0].removes {
			err = nil
		}
		if err == nil && st.todo[0].binds {
			c.bound(st)
		}
		st.todo = st.todo[1:]
	}
	switch {
	case err != nil:
		c.undo(st, err)
	case len(st.todo) > 0:
		c.keepStill(st)
	case st.old != nil:
		c.session.Cancel(st.old.sub)
	}
	return c.finished(out, st.pack)
}

func (c *conn) confirmedStep(token uint64) *step {
	c.subs.mu.Lock()
	defer c.subs.mu.Unlock()
	st := c.subs.steps[token&^tokenKind]
	delete(c.subs.steps, token&^tokenKind)
	return st
}

// bound notes that a subscription's messages come through the session's queue.
func (c *conn) bound(st *step) {
	s := *st.sub
	s.bound = true
	c.subs.replace(st.sub, &s)
	st.sub = &s
	c.readQueue()
}

// keepStill goes on with a step, unless its subscription has gone or has been
// replaced meanwhile: then the newer one says what is kept.
func (c *conn) keepStill(st *step) {
	c.subs.order.Lock()
	defer c.subs.order.Unlock()
	if st.pack.kind == typeSuback && !slices.Contains(c.subs.table().list, st.sub) {
		return
	}
	c.keep(st)
}

func (c *conn) keep(st *step) {
	st.doing = keeping
	token := c.waitFor(st)
	if d := st.todo[0]; d.note == nil {
		c.session.Apply(d.changes, token)
	} else if c.session.Submit([]core.Op{{Note: d.note}}, token) != nil {
		c.confirmedStep(token) // closed: nothing is answered any more
	}
}

// undo takes back what a refused step has begun.
func (c *conn) undo(st *step, err *core.Error) {
	switch st.pack.kind {
	case typeSuback:
		if st.doing == keeping {
			c.session.Cancel(st.sub.sub)
		}
		c.subs.replace(st.sub, st.old)
		c.refuseFilter(st.pack, st.at, err)
	case typeUnsuback: // the live part is gone already
		c.refuseFilter(st.pack, st.at, err)
	default: // a subscription of an earlier connection that is not allowed any more
		if st.doing != keeping {
			c.subs.remove(st.sub)
			c.keep(&step{pack: st.pack, sub: st.sub, todo: c.undone(st.sub)})
		}
	}
}

// finish is the reader's part of finished: its answer goes with the replies.
func (c *conn) finish(pack *subscribing) {
	if c.last(pack) {
		c.replyBytes(c.encodeSuback(pack)...)
		c.recall(pack)
	}
}

// finished appends the answer once nothing more is waited for. SUBACK leaves
// before the retained values it calls for.
func (c *conn) finished(out []byte, pack *subscribing) []byte {
	if c.last(pack) {
		out = append(out, c.encodeSuback(pack)...)
		c.recall(pack)
	}
	return out
}

// last says whether nothing more is waited for.
func (c *conn) last(pack *subscribing) bool {
	c.subs.mu.Lock()
	defer c.subs.mu.Unlock()
	pack.waiting--
	return pack.waiting == 0
}

// recall calls for the retained values of what was granted.
func (c *conn) recall(pack *subscribing) {
	for _, s := range pack.recalls {
		if c.subs.table().bySub(s.sub) != nil {
			c.session.Recall(core.Sub{ID: s.sub, Where: s.source.address}, 0)
		}
	}
}

// encodeSuback is the SUBACK or UNSUBACK: a code for each filter, in order
// [MQTT-3.8.4-6] [MQTT-3.9.3-1].
func (c *conn) encodeSuback(pack *subscribing) []byte {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: byte(pack.kind)}, ProtocolVersion: c.version,
		PacketID: pack.id, ReasonCodes: pack.codes,
	}
	if c.version == 5 && pack.text != "" && !c.noProblems {
		pk.Properties.ReasonString = clip(pack.text)
		pk.Mods.MaxSize = uint32(max(c.clientMax-len(pack.codes)-10, 1)) // [MQTT-3.9.2-1] [MQTT-3.11.2-1]
	}
	b := encodeCold(&pk)
	if len(b) > c.clientMax {
		c.bye(&fault{codePacketTooLarge, "the answer does not fit into a packet that the client takes"})
	}
	return c.within(b)
}

// unsubscribe handles an UNSUBSCRIBE: filters are compared character by
// character [MQTT-3.10.4-1].
func (c *conn) unsubscribe(body []byte) error {
	if bad := checkUnsubscribe(body, c.version, c.options); bad != nil {
		return bad
	}
	pk, bad := c.decode(typeUnsubscribe, body, c.version)
	if bad != nil {
		return bad
	}
	pack := &subscribing{kind: typeUnsuback, id: pk.PacketID, codes: make([]byte, len(pk.Filters)), waiting: 1}
	for i := range pk.Filters {
		s := c.subs.table().byFilter(pk.Filters[i].Filter)
		if s == nil {
			pack.codes[i] = codeNoSubscription
			continue
		}
		c.unsubscribeFilter(pack, i, s)
	}
	c.finish(pack) // [MQTT-3.10.4-4]
	return nil
}

func (c *conn) unsubscribeFilter(pack *subscribing, i int, s *subscription) {
	c.subs.order.Lock()
	defer c.subs.order.Unlock()
	c.subs.remove(s) // [MQTT-3.10.4-2]
	c.session.Cancel(s.sub)
	if st := (&step{pack: pack, at: i, sub: s, todo: c.undone(s)}); len(st.todo) > 0 {
		c.keep(st)
	}
}

// A grant is what all subscriptions that match a message come to: one copy,
// with the highest QoS and all identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3]
// [MQTT-3.3.4-4] [3.1.1: MQTT-3.3.5-1].
type grant struct {
	qos    byte
	asIs   bool
	bound  bool // the session's queue brings it, if its QoS is above 0
	queue  bool
	found  bool
	prefix string
	ids    []uint32
}

func (g *grant) add(s *subscription) {
	g.qos = max(g.qos, s.qos)
	g.asIs = g.asIs || s.asIs
	g.bound = g.bound || s.bound
	if s.id > 0 {
		g.ids = append(g.ids, s.id)
	}
	g.prefix, g.queue, g.found = s.source.prefix, s.source.queue && s.source.share == "", true
}

// retains is the RETAIN flag: 1 on retained values, else as published if a
// subscription wants it so [MQTT-3.3.1-8] [MQTT-3.3.1-12] [MQTT-3.3.1-13].
func (g *grant) retains(e *core.Event) bool { return e.Retained || (g.asIs && e.Message.Retain) }

// matches remembers what topics come to, for the table it was made from. It is
// the flusher's.
type matches struct {
	table   *table
	byTopic map[string]*grant
	one     grant // scratch
}

// maxMatches bounds what is remembered; beyond it the memory starts anew.
const maxMatches = 1024

// grant decides how a delivery is written. ok is false if it is not: its
// subscription is gone, or the session's queue brings it too.
func (c *conn) grant(e *core.Event) (g *grant, ok bool) {
	t := c.subs.table()
	m := &c.matches
	if m.table != t {
		m.table = t
		clear(m.byTopic)
	}
	switch {
	case e.Retained:
		return m.alone(t.bySub(e.Sub))
	case e.Sub == sessionQueue:
		if g = c.match(t, e.Message); !g.found {
			g = c.matchKey(t, e.Message)
		}
		if !g.found {
			// Its subscription has ended since: what waits still comes, as at
			// most QoS 1, which any of them was granted.
			m.one = grant{qos: 1, found: true, prefix: prefixOf(e.Message.Address)}
			return &m.one, true
		}
		return g, true
	case e.Tag != core.Tag{}: // of a queue
		return m.alone(t.bySub(e.Sub))
	case len(t.list) == 1 && t.list[0].sub == e.Sub:
		g, ok = m.alone(t.list[0]) // no match needed: core has done it
	case t.cameAround(e):
		g, ok = m.alone(t.bySub(e.Sub))
	default:
		g = c.match(t, e.Message)
		ok = g.found
	}
	return g, ok && !(g.bound && e.Message.QoS > 0)
}

// cameAround says whether a live delivery came by way of another exchange than
// it was published to: then its address does not tell whose it is.
func (t *table) cameAround(e *core.Event) bool {
	if !t.exchanges && e.Message.Address.Exchange == core.TopicExchange {
		return false // the usual case
	}
	s := t.bySub(e.Sub)
	return s != nil && s.source.address.Exchange != e.Message.Address.Exchange
}

// matchKey finds the subscriptions of a message that came into the session's
// queue by way of exchanges that are bound to each other: the key alone is
// what it keeps on that way.
func (c *conn) matchKey(t *table, message *core.Message) *grant {
	m := &c.matches
	m.one = grant{ids: m.one.ids[:0]}
	for _, s := range t.list {
		if s.bound && topic.Match(s.source.address.Topic, message.Address.Topic) {
			m.one.add(s)
		}
	}
	return &m.one
}

// alone is the grant of one subscription.
func (m *matches) alone(s *subscription) (*grant, bool) {
	if s == nil {
		return nil, false
	}
	m.one = grant{ids: m.one.ids[:0]}
	m.one.add(s)
	return &m.one, true
}

// match finds all subscriptions of a message. Those with No Local do not count
// for what this session has published [MQTT-3.8.3-3].
func (c *conn) match(t *table, message *core.Message) *grant {
	m := &c.matches
	a := &message.Address
	if own := t.noLocal && c.published(message); own || a.Exchange != core.TopicExchange {
		m.one = grant{ids: m.one.ids[:0]}
		m.one.match(t, a, own)
		return &m.one
	}
	if g := m.byTopic[a.Topic]; g != nil {
		return g
	}
	if m.byTopic == nil || len(m.byTopic) >= maxMatches {
		m.byTopic = make(map[string]*grant)
	}
	g := new(grant)
	g.match(t, a, false)
	m.byTopic[a.Topic] = g
	return g
}

func (g *grant) match(t *table, a *core.Address, own bool) {
	for _, s := range t.list {
		if s.source.queue || s.source.address.Exchange != a.Exchange || (own && s.noLocal) {
			continue
		}
		if topic.Match(s.source.address.Topic, a.Topic) {
			g.add(s)
		}
	}
}

// published says whether this session is the publisher.
func (c *conn) published(m *core.Message) bool {
	return m.From != nil && m.From.Client == c.client && m.From.Protocol == "mqtt"
}

func prefixOf(a core.Address) string {
	if a.Exchange == core.TopicExchange {
		return ""
	}
	return exchangePrefix + a.Exchange + "/"
}
