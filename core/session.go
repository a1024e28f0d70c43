package core

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"strconv"
	"sync"
	"time"
)

// A Session is one client's face inside the broker. Nobody blocks: a verb
// returns at once, and every answer is an event in the Outbox.
//
// Publish, Submit, Answer and May are called by the connection's reader; the
// others by its reader or its flusher.
type Session struct {
	broker   *Broker
	vhost    *vhost
	home     *inbox // of the shard that has its queues and state
	identity Identity
	id       string // vhost and key; unique also without a key
	out      *Outbox
	limits   Limits
	lane     Lane
	numbered bool // its tokens are a producer's numbers

	// The reader's: what topics came to, as of gen.
	gen    uint64
	topics map[string]*routes
	memos  map[string]*memo // of other exchanges, by name
	memo   *memo            // the one used last
	known  int              // routes in memos and choices

	mu      sync.Mutex
	subs    map[uint32]*subscription
	replies []string
	closed  bool
}

// A subscription is what Cancel needs to end one.
type subscription struct {
	where    Address
	consumer *consumer
	listener *listener
	binding  *binding
}

// Open starts a session. Its Confirmed, with Resumed, comes when the record is
// durable and an older connection of the same key is gone; until then no
// other verb may be called. An empty key is a session nobody can resume: it
// is confirmed at once.
func (b *Broker) Open(id Identity, spec SessionSpec, token uint64, w Waker) *Session {
	limits := id.Limits.or(b.options.Limits)
	if spec.Unanswered > 0 {
		limits.Unanswered = spec.Unanswered
	}
	v := b.vhost(id.VHost)
	s := &Session{
		broker: b, vhost: v, home: b.shards[v.shard].inbox, identity: id,
		out: newOutbox(w, limits), limits: limits,
		topics: make(map[string]*routes), memos: make(map[string]*memo),
		subs: make(map[uint32]*subscription),
	}
	key := spec.Key
	if key == "" {
		key = "\x01" + strconv.FormatUint(b.names.Add(1), 36)
	}
	s.id = sessionID(v.name, key)
	if err := b.openable(&spec); err != nil {
		s.out.put(Event{Kind: Confirmed, Token: token, Err: err})
		return s
	}
	s.home.put(command{kind: cmdOpen, x: &openRequest{
		out: s.out, vhost: v, from: &sender{identity: &s.identity, id: s.id}, spec: spec, token: token,
	}})
	s.numbered = spec.Producer != ""
	if spec.Key == "" && spec.Producer == "" {
		s.out.put(Event{Kind: Confirmed, Token: token, Resumed: &Resumed{}})
	}
	return s
}

func (b *Broker) openable(spec *SessionSpec) error {
	switch {
	case b.closed.Load():
		return &Error{Code: CodeUnavailable, Text: "shutting down"}
	case spec.Will != nil && spec.Will.Message.Size() > int64(b.caps.MaxRecord):
		return ErrTooLarge
	}
	for _, name := range []string{spec.Key, spec.Producer} {
		if name == "" {
			continue
		}
		if err := CheckName(name); err != nil {
			return err
		}
	}
	return nil
}

// Identity is who the session belongs to.
func (s *Session) Identity() *Identity { return &s.identity }

// Events is where the broker's answers come out.
func (s *Session) Events() *Outbox { return s.out }

// Publish sends m on its way; from now on m must not change. It returns nil
// (the answer is a Confirmed with the token, in the order of the Publish,
// Submit and Answer calls), ErrWait (nothing was taken, one Again follows) or
// ErrClosed. With token 0 only a refusal is told, with the Message; a QoS 0
// message with token 0 is told nothing.
func (s *Session) Publish(m *Message, token uint64) error {
	if err := s.prepare(m); err != nil {
		return s.refuse(m, token, err)
	}
	answered := token != 0 || m.QoS > 0
	if pipe := s.broker.pipe.Load(); pipe != nil {
		return s.enter(pipe, m, token, answered)
	}
	way, err := s.routes(m)
	if err != nil {
		return s.refuse(m, token, AsError(err))
	}
	if !m.NotBefore.IsZero() || m.Dedup != "" || s.number(token) > 0 {
		return s.viaShard(way, m, token, answered)
	}
	if e := wayRefusal(way, m); e != nil {
		return s.refuse(m, token, e)
	}
	if len(way.shards) == 0 && !m.Retain { // live readers alone
		if answered {
			if err := s.out.answer(token, m, uint64(way.targets()), nil); err != nil {
				return err
			}
		}
		s.broker.deliverLive(way, m, s.out)
		return nil
	}
	if !s.passes(m) {
		return ErrWait
	}
	p := &Publication{message: m, out: s.out, key: s.id}
	if answered {
		if p.place, err = s.out.reserve(token, m); err != nil {
			return err
		}
		p.answered = true
	}
	s.broker.send(p, way)
	return nil
}

// viaShard publishes what is not due yet, or may have come before.
func (s *Session) viaShard(way *routes, m *Message, token uint64, answered bool) (err error) {
	if e := s.broker.undelayable(way, m); e != nil {
		return s.refuse(m, token, e)
	}
	if !s.passes(m) {
		return ErrWait
	}
	p := &Publication{message: m, out: s.out, key: s.id, number: s.number(token)}
	if answered {
		if p.place, err = s.out.reserve(token, m); err != nil {
			return err
		}
		p.answered = true
	}
	s.broker.toShard(p)
	return nil
}

// number is a token as a producer's number.
func (s *Session) number(token uint64) uint64 {
	if !s.numbered || token >= firstUnnumbered {
		return 0
	}
	return token
}

// passes asks whether shard and store keep up.
func (s *Session) passes(m *Message) bool {
	return (m.QoS == 0 || s.broker.gate.passes(s.out)) && s.home.passes(s.out)
}

// enter gives a publication to the pipeline.
func (s *Session) enter(pipe *pipeline, m *Message, token uint64, answered bool) (err error) {
	if !s.passes(m) {
		return ErrWait
	}
	p := &Publication{message: m, out: s.out, key: s.id, lane: &s.lane, number: s.number(token)}
	if pipe.admit != nil && !pipe.admit(p) {
		return ErrWait
	}
	if answered {
		if p.place, err = s.out.reserve(token, m); err != nil {
			return err
		}
		p.answered = true
	}
	pipe.enter(p)
	return nil
}

// prepare completes a message and says why it cannot be taken, or nil.
func (s *Session) prepare(m *Message) *Error {
	if m.Address.VHost == "" {
		m.Address.VHost = s.vhost.name
	}
	m.From = &s.identity
	if m.Arrived.IsZero() {
		m.Arrived = s.broker.now()
	}
	if !m.NotBefore.IsZero() {
		m.NotBefore = delayed(m)
	}
	switch {
	case m.Address.VHost != s.vhost.name:
		return &Error{Code: CodeDenied, Reason: ReasonDenied, Text: "another virtual host"}
	case m.stored() > int64(s.broker.caps.MaxRecord):
		return Errorf(CodeTooLarge, "the message is larger than the store takes (%d bytes)", s.broker.caps.MaxRecord)
	case m.Retain && m.Address.Exchange == TopicExchange && m.stored() > s.broker.maxValue():
		return &Error{Code: CodeQuota, Reason: ReasonTooLarge, Text: "a retained value may have " + strconv.FormatInt(s.broker.maxValue(), 10) + " bytes"}
	case !m.NotBefore.IsZero() && m.NotBefore.Sub(m.Arrived) > maxDelay:
		return Errorf(CodeBadValue, "a delay is 366 days at most")
	case len(m.Dedup) > MaxNameBytes:
		return Errorf(CodeBadValue, "a dedup id has %d bytes at most", MaxNameBytes)
	case m.Expect != 0:
		return NotYet("expect")
	case m.Address.Exchange == DefaultExchange && m.Address.Topic == "":
		return Errorf(CodeSyntax, "the name of a queue cannot be empty")
	case m.Address.Exchange == DefaultExchange && ReservedName(m.Address.Topic) && s.may(ActManage, m.Address) != nil:
		return &Error{Code: CodeDenied, Reason: ReasonDenied, Text: "names that begin with $ are the broker's"}
	}
	if m.Expired(m.Arrived) {
		return &Error{Code: CodeTooSlow, Reason: ReasonExpired, Text: "the message expired before it was published"}
	}
	return s.allowed(Access{Do: ActPublish, Where: m.Address, QoS: m.QoS, Retain: m.Retain})
}

// delayed is when m is due, in whole milliseconds and never early; zero if it
// is due already.
func delayed(m *Message) time.Time {
	if !m.NotBefore.After(m.Arrived) {
		return time.Time{}
	}
	return m.NotBefore.Add(time.Millisecond - 1).Truncate(time.Millisecond)
}

func (s *Session) allowed(a Access) *Error {
	if s.broker.guard.Allow(&s.identity, a, nil) == Yes {
		return nil
	}
	return &Error{Code: CodeDenied, Reason: ReasonDenied, Text: "not allowed to " + a.Do.String() + " " + a.Where.String()}
}

func (s *Session) may(do Action, where Address) *Error {
	return s.allowed(Access{Do: do, Where: where})
}

// refuse answers in the publish's place. An expired message is no failure of
// its publisher: it is confirmed, and its end counted.
func (s *Session) refuse(m *Message, token uint64, e *Error) error {
	var told error = e
	if e.Reason == ReasonExpired {
		told = nil
	}
	if token != 0 || m.QoS > 0 {
		if err := s.out.answer(token, m, 0, told); err != nil {
			return err
		}
	}
	s.hole(token)
	s.broker.live.record(Fate{
		At: m.Arrived, Reason: e.Reason, Address: m.Address, Place: s.identity.Client, Text: e.Text, By: e.By,
	})
	return nil
}

// A memo is what publishes to one exchange came to.
type memo struct {
	exchange string
	any      *routes // whatever the key is
	byKey    map[string]*routes
}

// maxKnown bounds what a session remembers of routes; beyond it the memory
// starts anew.
const maxKnown = 1024

// routes is what a message comes to. Publishers repeat themselves: what was
// matched holds until a binding, queue or subscription changes.
func (s *Session) routes(m *Message) (*routes, error) {
	if gen := s.vhost.gen.Load(); gen != s.gen || len(s.topics)+s.known > maxKnown {
		clear(s.topics)
		clear(s.memos)
		s.memo, s.known, s.gen = nil, 0, gen
	}
	var head *routes
	if m.Address.Exchange == TopicExchange {
		head = s.topics[m.Address.Topic]
	} else {
		head = s.remembered(&m.Address)
	}
	if head != nil {
		if head.choice == nil {
			return head, nil
		}
		if r := head.choice.way(m); r != nil {
			return r, nil
		}
	}
	r, err := s.vhost.route(&m.Address, m, nil)
	if err != nil || r.gen != s.gen {
		return r, err
	}
	if head == nil && r.asked {
		if r.choice, r.anyKey = s.vhost.choiceFrom(r, m); r.choice == nil {
			return r, nil
		}
		r.choice.way(m)
	}
	if head == nil {
		s.remember(&m.Address, r)
		head = r
	}
	if head.choice != nil {
		head.choice.learn(r)
		s.known++
	}
	return r, nil
}

func (s *Session) remembered(a *Address) *routes {
	m := s.memo
	if m == nil || m.exchange != a.Exchange {
		if m = s.memos[a.Exchange]; m == nil {
			return nil
		}
		s.memo = m
	}
	if m.any != nil {
		return m.any
	}
	return m.byKey[a.Topic]
}

func (s *Session) remember(a *Address, r *routes) {
	if a.Exchange == TopicExchange {
		s.topics[a.Topic] = r
		return
	}
	s.known++
	m := s.memos[a.Exchange]
	if m == nil {
		m = &memo{exchange: a.Exchange, byKey: make(map[string]*routes)}
		s.memos[a.Exchange] = m
	}
	if r.anyKey {
		m.any = r
		return
	}
	m.byKey[a.Topic] = r
}

// Submit does all ops or none, durably, with one answer as Publish's. Without
// a publish among them it never waits; of Notes alone it takes no place in
// the order and is answered when it is done.
func (s *Session) Submit(ops []Op, token uint64) error {
	sub := &submission{out: s.out, group: &together{out: s.out, token: token}, number: s.number(token)}
	var ways []*routes
	var refused *Error
	for i := range ops {
		way, err := s.gather(sub, &ops[i])
		if err != nil && refused == nil {
			refused = err
		}
		if way != nil {
			ways = append(ways, way)
			if sub.group.targets += uint64(way.targets()); way == delayedWay {
				sub.group.targets++
			}
		}
	}
	publishes := ways != nil || refused != nil
	if refused == nil {
		refused = s.fits(ops)
	}
	if publishes && s.broker.pipe.Load() != nil {
		refused = NotYet("a transaction through plugins")
	}
	if publishes || len(sub.acks) > 0 || len(sub.nacks) > 0 {
		var err error
		if publishes && refused == nil && !(s.broker.gate.passes(s.out) && s.home.passes(s.out)) {
			return ErrWait
		}
		if sub.group.place, err = s.out.reserve(token, nil); err != nil {
			if !publishes && errors.Is(err, ErrWait) {
				sub.group.ordered = false // an ack never waits: it is answered when it is done
			} else {
				return err
			}
		} else {
			sub.group.ordered = true
		}
	}
	if refused != nil {
		sub.group.owed.Store(1)
		sub.group.settle(refused)
		s.hole(token)
		return nil
	}
	s.submit(sub, ops, ways)
	return nil
}

// fits says whether ops can be one batch.
func (s *Session) fits(ops []Op) *Error {
	var bytes, n int64
	for i := range ops {
		n += int64(1 + len(ops[i].Ack) + len(ops[i].Nack))
		if m := ops[i].Publish; m != nil {
			bytes += m.stored()
		}
		if note := ops[i].Note; note != nil {
			bytes += int64(len(note.Value))
			if int64(len(note.Value)) > s.broker.maxValue() {
				return ErrTooLarge
			}
		}
	}
	if bytes > int64(s.broker.caps.MaxBatch/2) || n > int64(s.broker.caps.MaxOps/2) {
		return Errorf(CodeTooLarge, "too much to be done together: %d bytes in %d operations", bytes, n)
	}
	return nil
}

// delayedWay is the route of what a shard has to look at first: it is not due
// yet, or may have come before.
var delayedWay = &routes{gen: 1}

// gather sorts an op into the submission. Of a publish it gives the route.
func (s *Session) gather(sub *submission, op *Op) (*routes, *Error) {
	switch {
	case op.Publish != nil:
		m := op.Publish
		if err := s.prepare(m); err != nil {
			return nil, err
		}
		way, err := s.routes(m)
		if err != nil {
			return nil, AsError(err)
		}
		if !m.NotBefore.IsZero() || m.Dedup != "" || sub.number > 0 {
			if e := s.broker.undelayable(way, m); e != nil {
				return nil, e
			}
			return delayedWay, nil
		}
		if e := wayRefusal(way, m); e != nil {
			return nil, e
		}
		return way, nil
	case op.Note != nil:
		sub.notes = append(sub.notes, *op.Note)
	case op.Nack != nil:
		for _, t := range op.Nack {
			sub.nacks = append(sub.nacks, nacked{t, op.Back})
		}
	default:
		sub.acks = append(sub.acks, op.Ack...)
	}
	return nil, nil
}

// submit sends what was gathered. All queues of a virtual host are in one
// shard, so that one batch holds it all.
func (s *Session) submit(sub *submission, ops []Op, ways []*routes) {
	owed := int32(0)
	if sub.settles() {
		owed++
	}
	i := 0
	for k := range ops {
		m := ops[k].Publish
		if m == nil {
			continue
		}
		way := ways[i]
		i++
		p := &Publication{message: m, out: s.out, key: s.id, group: sub.group}
		parts := int32(0)
		for _, r := range way.shards {
			sub.pubs = append(sub.pubs, submitted{pub: p, key: s.id, route: r})
			parts++
		}
		if way == delayedWay {
			sub.pubs = append(sub.pubs, submitted{pub: p, key: s.id, later: m.Dedup == "" && sub.number == 0, once: m.Dedup != "" || sub.number > 0})
			parts++
		} else if m.Retain && m.Address.Exchange == TopicExchange {
			sub.pubs = append(sub.pubs, submitted{pub: p, key: s.id})
			parts++
		}
		if parts > 0 {
			p.owed.Store(parts)
			owed++
		}
	}
	sub.group.owed.Store(max(owed, 1))
	i = 0
	for k := range ops {
		if m := ops[k].Publish; m != nil {
			if ways[i] != delayedWay {
				s.broker.deliverLive(ways[i], m, s.out)
			}
			i++
		}
	}
	if owed == 0 {
		sub.group.settle(nil)
		return
	}
	s.home.put(command{kind: cmdSubmit, x: sub})
}

// Answer takes the place of an answer the adapter gives itself.
func (s *Session) Answer(token uint64, err error) {
	s.out.told(token, err)
	if err != nil {
		s.hole(token)
	}
}

// hole tells the shard of a producer's number that was refused: the answer may
// not arrive, and the same again is new.
func (s *Session) hole(token uint64) {
	if n := s.number(token); n > 0 {
		s.home.put(command{kind: cmdRefused, out: s.out, tag: Tag{Seq: n}})
	}
}

// May asks early what a verb would ask the guard.
func (s *Session) May(a Access) error {
	if a.Where.VHost == "" {
		a.Where.VHost = s.vhost.name
	}
	if e := s.allowed(a); e != nil {
		return e
	}
	return nil
}

// Apply declares, alters, removes or purges, all in one batch; one Confirmed
// when it is durable, whose Err is the first refusal: then nothing was done.
func (s *Session) Apply(c []Change, token uint64) {
	r := &applyRequest{vhost: s.vhost, out: s.out, changes: c, token: token}
	for i := range c {
		if b := c[i].Binding; b != nil {
			b.Source.VHost = s.vhost.name
		}
		if c[i].Do == Move {
			r.may = func(a Address) bool { return s.may(ActPublish, a) == nil }
		}
		if err := s.mayChange(&c[i]); err != nil {
			s.out.put(Event{Kind: Confirmed, Token: token, Err: err})
			return
		}
	}
	s.home.put(command{kind: cmdApply, x: r})
}

func (s *Session) mayChange(c *Change) *Error {
	do := ActDeclare
	if c.Do != Declare {
		do = ActManage
	}
	where := Address{VHost: s.vhost.name}
	switch {
	case c.Queue != nil:
		where.Exchange, where.Topic = DefaultExchange, c.Queue.Name
		if c.Queue.Owned || c.Own {
			return s.may(ActListen, where)
		}
		if ReservedName(c.Queue.Name) {
			do = ActManage
		}
	case c.Binding != nil:
		where = c.Binding.Source
		if c.Binding.Owned || c.Own {
			return s.may(ActListen, where)
		}
		if c.Do == Remove {
			do = ActDeclare
		}
		if c.Binding.Exchange != "" {
			if err := s.may(do, Address{VHost: s.vhost.name, Exchange: c.Binding.Exchange}); err != nil {
				return err
			}
		}
	case c.Exchange != nil:
		where.Exchange = c.Exchange.Name
	case c.VHost != nil:
		do, where = ActManage, Address{VHost: c.VHost.Name}
	}
	if c.Do == Move && c.To != "" {
		if to, err := ParseAddress(s.vhost.name, c.To); err == nil {
			if err := s.may(ActPublish, to); err != nil {
				return err
			}
		}
	}
	return s.may(do, where)
}

// over says whether the broker has ended or refused the subscription.
func (e *subscription) over() bool {
	return (e.consumer != nil && e.consumer.over.Load()) || (e.listener != nil && e.listener.over.Load())
}

// live is how many subscriptions there are; those that are over go when there
// seem to be too many. s.mu is held.
func (s *Session) live() int {
	if len(s.subs) >= s.limits.Subscriptions {
		maps.DeleteFunc(s.subs, func(_ uint32, e *subscription) bool { return e.over() })
	}
	return len(s.subs)
}

// add enters a subscription under its number, or says why not.
func (s *Session) add(id uint32, sub *subscription) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return Errorf(CodeGone, "the session is closed")
	case id == 0:
		return Errorf(CodeBadValue, "a subscription needs a number above 0")
	case s.subs[id] != nil && !s.subs[id].over():
		return Errorf(CodeConflict, "subscription %d exists", id)
	case s.live() >= s.limits.Subscriptions:
		return Errorf(CodeQuota, "the limit is %d subscriptions", s.limits.Subscriptions)
	}
	s.subs[id] = sub
	return nil
}

func (s *Session) take(id uint32) *subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subs[id]
	delete(s.subs, id)
	return sub
}

func (s *Session) confirm(token uint64, err *Error) {
	e := Event{Kind: Confirmed, Token: token}
	if err != nil {
		e.Err = err
	}
	s.out.put(e)
}

// Listen subscribes live: what finds no room in the outbox is dropped and
// counted. Confirmed is the answer; deliveries may come before it. With
// Sub.Merge set, one message that several of the session's merged
// subscriptions want is delivered once, under one of their numbers.
func (s *Session) Listen(sub Sub, token uint64) { s.confirm(token, s.listen(&sub)) }

func (s *Session) listen(sub *Sub) *Error {
	if sub.Where.VHost == "" {
		sub.Where.VHost = s.vhost.name
	}
	if err := sub.unsupported(); err != nil {
		return err
	}
	if sub.Peek || sub.Exclusive || sub.TakeOver || sub.Priority != 0 {
		return Errorf(CodeBadValue, "a live subscription has no peek, exclusive, takeover or priority: consume a queue")
	}
	if err := s.may(ActListen, sub.Where); err != nil {
		return err
	}
	l := &listener{
		out: s.out, sub: sub.ID, filter: sub.Where.Topic, client: s.identity.Client,
		only: sub.Only, noLocal: sub.NoLocal, merge: sub.Merge,
	}
	entry := &subscription{where: sub.Where, listener: l}
	if err := s.add(sub.ID, entry); err != nil {
		return err
	}
	b, err := s.vhost.listen(BindingSpec{Source: sub.Where, Args: sub.Args, Match: sub.Match}, l)
	if err != nil {
		s.take(sub.ID)
		return AsError(err)
	}
	entry.binding = b
	return nil
}

// unsupported names what of a subscription does not exist yet.
func (sub *Sub) unsupported() *Error {
	switch {
	case sub.Group != "":
		return NotYet("group")
	case sub.Selector != "":
		return NotYet("selector")
	}
	return nil
}

// Consume reads a queue: deliveries have tags and wait for credit.
func (s *Session) Consume(sub Sub, token uint64) {
	if err := s.consume(&sub, token); err != nil {
		s.confirm(token, err)
	}
}

func (s *Session) consume(sub *Sub, token uint64) *Error {
	if sub.Where.VHost == "" {
		sub.Where.VHost = s.vhost.name
	}
	if err := sub.unsupported(); err != nil {
		return err
	}
	if err := s.may(ActConsume, sub.Where); err != nil {
		return err
	}
	con := &consumer{
		id: sub.ID, out: s.out, auto: sub.Credit.Auto, lease: sub.Lease,
		priority: sub.Priority, exclusive: sub.Exclusive, takeOver: sub.TakeOver, peek: sub.Peek,
	}
	con.grant(sub.Credit)
	if err := s.add(sub.ID, &subscription{where: sub.Where, consumer: con}); err != nil {
		return err
	}
	auto := !sub.Peek && sub.Owned || (!sub.Peek && !s.broker.options.NoAutoCreate && !ReservedName(sub.Where.Topic) &&
		s.may(ActDeclare, sub.Where) == nil)
	s.home.put(command{kind: cmdConsume, x: &consumeRequest{
		con: con, vhost: s.vhost, name: sub.Where.Topic, token: token, owned: sub.Owned, auto: auto,
	}})
	return nil
}

// Follow reads a stream.
func (s *Session) Follow(sub Sub, token uint64) { s.confirm(token, NotYet("streams")) }

// Recall sends the retained values that the filter matches, in topic order, as
// live deliveries with Retained set, as room permits. No Confirmed.
func (s *Session) Recall(sub Sub, token uint64) {
	if sub.Where.VHost == "" {
		sub.Where.VHost = s.vhost.name
	}
	r := &recall{out: s.out, sub: sub.ID, only: sub.Only}
	r.again = func(r *recall) { s.home.put(command{kind: cmdRecall, recall: r}) }
	s.home.put(command{kind: cmdRecall, recall: r, x: sub.Where})
}

func (s *Session) consumer(sub uint32) *consumer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.subs[sub]; e != nil {
		return e.consumer
	}
	return nil
}

// Grant adds credit to a consumer.
func (s *Session) Grant(sub uint32, c Credit) {
	if con := s.consumer(sub); con != nil {
		s.home.put(command{kind: cmdGrant, x: &grantRequest{con: con, credit: c}})
	}
}

// Pull adds credit to a consumer until it is used up or the time has come;
// then a Drained follows the last Delivered and what credit is left is void.
// A zero until means: only what is there now.
func (s *Session) Pull(sub uint32, c Credit, until time.Time) {
	con := s.consumer(sub)
	if con == nil {
		s.out.put(Event{Kind: Drained, Sub: sub, Err: Errorf(CodeNotFound, "no subscription %d", sub)})
		return
	}
	s.home.put(command{kind: cmdPull, x: &grantRequest{con: con, credit: c, until: until}})
}

// Cancel ends a subscription of any kind; Cancelled follows its last
// Delivered. What a consumer has not settled stays settleable until the
// session ends.
func (s *Session) Cancel(sub uint32) {
	e := s.take(sub)
	switch {
	case e == nil:
		s.out.put(Event{Kind: Cancelled, Sub: sub, Err: Errorf(CodeNotFound, "no subscription %d", sub)})
	case e.listener != nil:
		s.unlisten(e)
		e.listener.end(nil)
	default:
		s.home.put(command{kind: cmdCancel, x: e.consumer})
	}
}

// unlisten takes a live listener away; an exchange that goes with its last one
// goes.
func (s *Session) unlisten(e *subscription) {
	if s.vhost.unlisten(e.where, e.listener, e.binding) {
		s.home.put(command{kind: cmdIdle, x: e.where})
	}
}

// Ack settles deliveries. Tags that are unknown or settled are ignored. The
// slice stays the caller's, here and in Nack and Touch.
func (s *Session) Ack(tags ...Tag) { s.settle(cmdAck, tags, nil) }

// Nack gives deliveries back: to their old place, or as b says.
func (s *Session) Nack(b Back, tags ...Tag) { s.settle(cmdNack, tags, b) }

// Touch renews leases.
func (s *Session) Touch(lease time.Duration, tags ...Tag) { s.settle(cmdTouch, tags, lease) }

func (s *Session) settle(kind commandKind, tags []Tag, x any) {
	switch len(tags) {
	case 0:
	case 1:
		s.home.put(command{kind: kind, out: s.out, tag: tags[0], x: x})
	default:
		s.home.put(command{kind: kind, out: s.out, tags: append([]Tag(nil), tags...), x: x})
	}
}

// Reply makes a reply address that dies with the session. Listen to it to read.
func (s *Session) Reply() Address {
	var random [16]byte
	rand.Read(random[:])
	id := base64.RawURLEncoding.EncodeToString(random[:])
	s.mu.Lock()
	s.replies = append(s.replies, id)
	s.mu.Unlock()
	s.vhost.addReply(id, s.out)
	return Address{VHost: s.vhost.name, Exchange: ReplyExchange, Topic: id}
}

// Close ends the connection's hold on the session: what it has not settled
// goes back, and the session is parked if it has an expiry, else it ends.
func (s *Session) Close(c Closing) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	subs, replies := s.subs, s.replies
	s.subs, s.replies = map[uint32]*subscription{}, nil
	s.mu.Unlock()
	for _, e := range subs {
		if e.listener != nil {
			s.unlisten(e)
		}
	}
	for _, id := range replies {
		s.vhost.removeReply(id)
	}
	s.out.close()
	s.home.put(command{kind: cmdClose, x: &closeRequest{out: s.out, id: s.id, closing: c}})
}
