package core

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A vhost is a space of names: its exchanges, queues and reply addresses, and
// who is bound to what. Publishers match under its read lock and remember the
// result until gen changes; the lock is never held while anybody is called.
type vhost struct {
	name   string
	shard  int // where its queues, sessions and retained values live
	bounds *bounds
	gen    atomic.Uint64

	mu        sync.RWMutex
	exchanges map[string]*exchange
	queues    map[string]*queueRef
	replies   map[string]*replyAddress
	sessions  map[string]sessionInfo
}

// bounds are the limits of all virtual hosts, and how often they bit.
type bounds struct {
	limits                                 TopologyLimits
	vhosts, exchanges, bindings, arguments atomic.Int64 // refused
}

// An exchange knows who wants which of its messages.
type exchange struct {
	spec      ExchangeSpec
	builtin   bool
	alternate Address
	matcher
	declared int               // bindings that count against the limit
	incoming map[*binding]bool // of other exchanges to this one

	unrouted atomic.Int64 // messages that nobody wanted, no alternate either
	diverted atomic.Int64 // messages that went to the alternate
}

func newExchange(spec ExchangeSpec) *exchange {
	x := &exchange{spec: spec, matcher: newMatcher(spec.Kind), incoming: make(map[*binding]bool)}
	x.setAlternate(spec.Alternate)
	return x
}

func (x *exchange) setAlternate(text string) {
	x.alternate = Address{}
	if text != "" {
		x.alternate, _ = ParseAddress("", text) // it was checked when it was declared
	}
}

// refusesPublish says why nobody may publish there, or nil.
func (x *exchange) refusesPublish(a *Address) *Error {
	switch {
	case x.spec.Internal:
		return &Error{Code: CodeDenied, Reason: ReasonDenied, Text: "exchange " + quote(x.spec.Name) + " is internal: it gets messages from other exchanges alone"}
	case a.Topic == "" && x.keyed():
		return Errorf(CodeSyntax, "exchange %q is %s and wants a key: x/%s/KEY", x.spec.Name, x.spec.Kind, x.spec.Name)
	}
	return nil
}

// keyed says whether the key of a message decides where it goes.
func (x *exchange) keyed() bool { return x.spec.keyed() }

// keyOf is a binding's key as the exchange keeps it: no key is all there is.
func (x *exchange) keyOf(key string) string {
	if key == "" && x.spec.Kind == TopicKind {
		return "#"
	}
	return key
}

// idle says whether nobody wants anything of it.
func (x *exchange) idle() bool { return x.len() == 0 }

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
	exchange  *exchange   // where it began; nil: not at one
	diverted  []*exchange // whose alternates it took
	anyKey    bool        // the key does not matter
	asked     bool        // headers decided
	choice    *choice     // of a remembered route where they did
}

// targets is how many will settle.
func (r *routes) targets() int { return len(r.listeners) + len(r.merged) + len(r.shards) }

// A shardRoute is the queues of one shard that a topic comes to: one command,
// one append.
type shardRoute struct {
	shard   int
	targets []queueTarget
	places  map[*queueRef]int // of the targets; nil while they are few
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

func newVHost(name string, shard int, limits *bounds) *vhost {
	v := &vhost{
		name: name, shard: shard, bounds: limits,
		exchanges: make(map[string]*exchange),
		queues:    make(map[string]*queueRef),
		replies:   make(map[string]*replyAddress),
		sessions:  make(map[string]sessionInfo),
	}
	for _, spec := range predeclared {
		x := newExchange(spec)
		x.builtin = true
		v.exchanges[spec.Name] = x
	}
	v.gen.Store(1)
	return v
}

// predeclared are the exchanges of every virtual host, beside the default one.
var predeclared = []ExchangeSpec{
	{Name: TopicExchange, Kind: TopicKind},
	{Name: DirectExchange, Kind: DirectKind},
	{Name: FanoutExchange, Kind: FanoutKind},
	{Name: HeadersExchange, Kind: HeadersKind},
}

// route finds whom a message is for that goes to an address: its own, or where
// it goes in its stead. With a recorder it says why.
func (v *vhost) route(to *Address, m *Message, rec *Recorder) (*routes, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	r := &routes{gen: v.gen.Load()}
	name := to.Topic
	switch to.Exchange {
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
	x := v.exchanges[to.Exchange]
	if x == nil {
		return nil, noExchange(to.Exchange)
	}
	if err := x.refusesPublish(to); err != nil {
		return nil, err
	}
	r.exchange, r.anyKey = x, true
	w := walk{vhost: v, message: m, key: to.Topic, to: r, rec: rec}
	w.visit(x)
	return r, nil
}

// A walk follows a message from exchange to exchange, through each once.
type walk struct {
	vhost   *vhost
	message *Message
	key     string
	to      *routes
	rec     *Recorder
	seen    []*exchange
	found   []*binding // scratch
}

func (w *walk) visit(x *exchange) {
	if slices.Contains(w.seen, x) {
		w.rec.add("exchange", x.spec.Name, "was here before: once is enough")
		return
	}
	w.seen = append(w.seen, x)
	w.to.asked = w.to.asked || x.spec.Kind == HeadersKind
	w.to.anyKey = w.to.anyKey && !x.keyed()
	from := len(w.found)
	w.found = x.match(w.message, w.key, w.found)
	found := w.found[from:]
	w.rec.met(x, w.message, found)
	if len(found) == 0 {
		w.divert(x)
		return
	}
	for _, b := range found {
		switch {
		case b.queue != nil:
			w.to.toQueue(b.queue, b)
		case b.exchange != "":
			if next := w.vhost.exchanges[b.exchange]; next != nil {
				w.visit(next)
			}
		case b.listener.merge:
			w.to.toMerged(b.listener)
		default:
			w.to.listeners = append(w.to.listeners, b.listener)
		}
	}
}

// divert goes on with the alternate of an exchange none of whose bindings
// takes the message.
func (w *walk) divert(x *exchange) {
	a := &x.alternate
	if a.Exchange == "" {
		return
	}
	there := false
	if a.Topic != "" { // a queue
		var ref *queueRef
		if ref, there = w.vhost.queues[a.Topic]; there {
			w.rec.add("alternate", x.spec.Alternate, "no binding of "+x.spec.Name+" takes it")
			w.to.diverted = append(w.to.diverted, x)
			w.to.toQueue(ref, nil)
		}
	} else {
		var next *exchange
		if next, there = w.vhost.exchanges[a.Exchange]; there {
			w.rec.add("alternate", x.spec.Alternate, "no binding of "+x.spec.Name+" takes it")
			w.to.diverted = append(w.to.diverted, x)
			w.visit(next)
		}
	}
	if !there {
		w.rec.add("alternate", x.spec.Alternate, "of "+x.spec.Name+" does not exist any more")
	}
}

// told is how many bindings that do not match are named to whoever asks why.
const told = 20

// met notes what a message found at an exchange.
func (r *Recorder) met(x *exchange, m *Message, found []*binding) {
	if r == nil {
		return
	}
	how := [...]string{"compares the key with filters", "compares the whole key", "takes any key", "asks the headers"}
	r.add("exchange", x.spec.Name, x.spec.Kind.String()+": "+how[x.spec.Kind])
	for _, b := range found {
		switch {
		case b.queue != nil:
			text := "takes it"
			if !b.takes(m, "") {
				text = "does not take it: QoS or No Local"
			}
			r.add("binding", boundTo(&b.spec), "queue "+quote(b.queue.name)+" "+text)
		case b.exchange != "":
			r.add("binding", boundTo(&b.spec), "on to exchange "+b.exchange)
		default:
			r.add("listener", b.listener.client, "live, filter "+b.listener.filter)
		}
	}
	n := 0
	for _, b := range x.all() {
		if x.spec.Kind != HeadersKind || b.meets(m) {
			continue
		}
		if n++; n > told {
			r.add("binding", x.spec.Name, "and more that are not met")
			break
		}
		who := "a live reader"
		if b.listener == nil {
			who = b.spec.Target()
		}
		r.add("binding", boundTo(&b.spec), who+" is not met: "+b.unmet(m))
	}
}

// unmet says which argument a message does not meet.
func (b *binding) unmet(m *Message) string {
	if b.any {
		return "none of its arguments is"
	}
	for i := range b.args {
		a := &b.args[i]
		switch value, there := m.Header(a.Name); {
		case !there:
			return "no header " + a.Name
		case a.Value != "" && a.Value != value:
			return "header " + a.Name + " is " + quote(value)
		}
	}
	return "it is"
}

// A choice remembers what a key comes to where headers decide too: by which of
// the questions that bindings ask have which answer. It belongs to one session.
type choice struct {
	questions []question
	facts     int
	holds     []byte // scratch: a bit for each fact
	ways      map[string]*routes
}

// A question is a header that bindings ask for. Each value they want, and that
// it is there at all, is a fact; the values come first.
type question struct {
	name   string
	values map[string]int // fact by value
	there  int            // the fact that it is there; -1: nobody asks
}

// choiceFrom finds every binding with arguments that a message of that key
// could meet, whatever its headers. Where other headers could lead to an
// exchange that compares keys, anyKey is false. Nil: something has changed
// since r was found.
func (v *vhost) choiceFrom(r *routes, m *Message) (c *choice, anyKey bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.gen.Load() != r.gen {
		return nil, false
	}
	c = &choice{ways: make(map[string]*routes)}
	seen := []*exchange{r.exchange}
	anyKey = true
	to := func(next *exchange) {
		if next != nil && !slices.Contains(seen, next) {
			seen = append(seen, next)
		}
	}
	for i := 0; i < len(seen); i++ {
		x := seen[i]
		anyKey = anyKey && !x.keyed()
		var found []*binding
		if x.spec.Kind == HeadersKind {
			found = x.all()
			c.ask(found)
		} else {
			found = x.match(m, m.Address.Topic, nil)
		}
		for _, b := range found {
			if b.exchange != "" {
				to(v.exchanges[b.exchange])
			}
		}
		if x.alternate.Exchange != "" && x.alternate.Topic == "" {
			to(v.exchanges[x.alternate.Exchange])
		}
	}
	c.holds = make([]byte, (c.facts+7)/8)
	return c, anyKey
}

// ask adds what bindings want to know.
func (c *choice) ask(bindings []*binding) {
	for _, b := range bindings {
		for i := range b.args {
			q := c.question(b.args[i].Name)
			if value := b.args[i].Value; value != "" {
				if _, ok := q.values[value]; !ok {
					q.values[value] = c.facts
					c.facts++
				}
			} else if q.there < 0 {
				q.there = c.facts
				c.facts++
			}
		}
	}
}

func (c *choice) question(name string) *question {
	at := slices.IndexFunc(c.questions, func(q question) bool { return q.name == name })
	if at < 0 {
		at = len(c.questions)
		c.questions = append(c.questions, question{name: name, values: make(map[string]int), there: -1})
	}
	return &c.questions[at]
}

// way is what was remembered for headers like those of m; nil: nothing yet,
// and learn may follow.
func (c *choice) way(m *Message) *routes {
	clear(c.holds)
	for i := range c.questions {
		q := &c.questions[i]
		value, there := m.Header(q.name)
		if !there {
			continue
		}
		if q.there >= 0 {
			c.holds[q.there>>3] |= 1 << (q.there & 7)
		}
		if fact, wanted := q.values[value]; wanted {
			c.holds[fact>>3] |= 1 << (fact & 7)
		}
	}
	return c.ways[string(c.holds)]
}

// learn remembers r for the headers that way was asked about last.
func (c *choice) learn(r *routes) {
	c.ways[string(c.holds)] = r
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
	if t := s.target(ref); t != nil {
		if len(conditions) == 0 {
			t.conditions = nil
		} else if len(t.conditions) > 0 {
			t.conditions = append(t.conditions, conditions...)
		}
		return
	}
	s.targets = append(s.targets, queueTarget{ref, conditions})
	if s.places != nil {
		s.places[ref] = len(s.targets) - 1
	}
}

// target finds a queue among the targets. Many are found by their places: a
// fanout to ten thousand queues must not compare each with each.
func (s *shardRoute) target(ref *queueRef) *queueTarget {
	if s.places == nil && len(s.targets) >= manyTargets {
		s.places = make(map[*queueRef]int, 2*manyTargets)
		for i := range s.targets {
			s.places[s.targets[i].ref] = i
		}
	}
	if s.places != nil {
		if i, ok := s.places[ref]; ok {
			return &s.targets[i]
		}
		return nil
	}
	for i := range s.targets {
		if s.targets[i].ref == ref {
			return &s.targets[i]
		}
	}
	return nil
}

const manyTargets = 32

// bind puts a wish in force, and says whether its exchange is there.
func (v *vhost) bind(b *binding) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.exchanges[b.spec.Source.Exchange]
	if x == nil {
		return false // it went a moment ago
	}
	v.add(x, b)
	return true
}

func (v *vhost) add(x *exchange, b *binding) {
	x.add(x.keyOf(b.spec.Source.Topic), b)
	if b.counts() {
		x.declared++
	}
	if target := v.exchanges[b.exchange]; target != nil {
		target.incoming[b] = true
	}
	v.gen.Add(1)
}

// counts says whether a binding counts against the limit of its exchange: an
// operator's does, a session's is bounded by the session.
func (b *binding) counts() bool { return b.listener == nil && !b.spec.Owned }

// unbind takes a wish away, and says whether its exchange goes with it.
func (v *vhost) unbind(b *binding) (idle bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if target := v.exchanges[b.exchange]; target != nil {
		delete(target.incoming, b)
	}
	x := v.exchanges[b.spec.Source.Exchange]
	if x == nil || !x.remove(x.keyOf(b.spec.Source.Topic), b) {
		return false
	}
	if b.counts() {
		x.declared--
	}
	v.gen.Add(1)
	return x.spec.AutoDelete && x.idle()
}

func (v *vhost) exchange(name string) *exchange {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.exchanges[name]
}

// exchangeSpec is the spec of an exchange as it is now, or nil.
func (v *vhost) exchangeSpec(name string) *ExchangeSpec {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if x := v.exchanges[name]; x != nil {
		spec := x.spec
		return &spec
	}
	return nil
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
func (v *vhost) listen(spec BindingSpec, l *listener) (*binding, error) {
	where := spec.Source
	if where.Exchange == ReplyExchange {
		return nil, v.listenReply(where.Topic, l)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.exchanges[where.Exchange]
	if x == nil {
		return nil, noExchange(where.Exchange)
	}
	if err := v.refusesBinding(x, &spec); err != nil {
		return nil, err
	}
	if err := v.refusesMore(x, &spec, 1); err != nil {
		return nil, err
	}
	b := newBinding(spec)
	b.listener = l
	v.add(x, b)
	return b, nil
}

// refusesBinding says why nothing can be bound so, or nil. v.mu is held.
func (v *vhost) refusesBinding(x *exchange, spec *BindingSpec) *Error {
	if key := x.keyOf(spec.Source.Topic); key != "" {
		if err := CheckTopic(key); err != nil {
			return AsError(err)
		}
	}
	if err := x.refuses(x.spec.Name, x.keyOf(spec.Source.Topic)); err != nil {
		return err
	}
	if x.spec.Kind != HeadersKind {
		if len(spec.Args) > 0 || spec.Match != MatchAll {
			return Errorf(CodeBadValue, "exchange %q is %s: arguments are asked by a headers exchange alone", x.spec.Name, x.spec.Kind)
		}
		return nil
	}
	return v.refusesArguments(spec.Args)
}

// refusesMore says why an exchange cannot have n more bindings like that one,
// or nil. v.mu is held.
func (v *vhost) refusesMore(x *exchange, spec *BindingSpec, n int) *Error {
	l := &v.bounds.limits
	switch {
	case x.spec.Kind == HeadersKind && x.len()+n > l.HeaderBindings:
		v.bounds.bindings.Add(1)
		return Errorf(CodeQuota, "headers exchange %q has %d bindings, and %d are the limit: each message asks each of them", x.spec.Name, x.len(), l.HeaderBindings)
	case (spec.Queue != "" || spec.Exchange != "") && !spec.Owned && x.declared+n > l.Bindings:
		v.bounds.bindings.Add(1)
		return Errorf(CodeQuota, "exchange %q has %d bindings, and %d are the limit", x.spec.Name, x.declared, l.Bindings)
	}
	return nil
}

func (v *vhost) refusesArguments(args []Header) *Error {
	if most := v.bounds.limits.Arguments; len(args) > most {
		v.bounds.arguments.Add(1)
		return Errorf(CodeTooMany, "a binding of %d arguments: the limit is %d", len(args), most)
	}
	for i := range args {
		if err := checkArgument(&args[i]); err != nil {
			return err
		}
		if slices.ContainsFunc(args[:i], func(a Header) bool { return a.Name == args[i].Name }) {
			return Errorf(CodeBadValue, "argument %q stands there twice: keep one", args[i].Name)
		}
	}
	return nil
}

// maxArgument is how long the value of an argument may be, in octets.
const maxArgument = 4096

func checkArgument(a *Header) *Error {
	if err := CheckName(a.Name); err != nil {
		return Errorf(CodeSyntax, "argument: %s", err)
	}
	if len(a.Value) > maxArgument {
		return Errorf(CodeTooLarge, "argument %q has %d bytes: the limit is %d", a.Name, len(a.Value), maxArgument)
	}
	return nil
}

func noExchange(name string) *Error {
	switch name {
	case DefaultExchange:
		return Errorf(CodeDenied, "%s takes no bindings and no subscriptions: read the queue", DefaultExchange)
	case StreamExchange:
		return NotYet("streams")
	}
	return &Error{Code: CodeNotFound, Reason: ReasonNoTarget, Text: "no exchange " + quote(name)}
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

// unlisten takes a live listener away, and says whether its exchange goes with it.
func (v *vhost) unlisten(where Address, l *listener, b *binding) (idle bool) {
	if b != nil {
		return v.unbind(b)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if r := v.replies[where.Topic]; r != nil {
		r.listeners = slices.DeleteFunc(r.listeners, func(o *listener) bool { return o == l })
		v.gen.Add(1)
	}
	return false
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
		v.exchanges[spec.Name] = newExchange(spec)
	}
	v.gen.Add(1)
}

// alterExchange changes what of an exchange can change while it is in use.
func (v *vhost) alterExchange(spec ExchangeSpec) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if x := v.exchanges[spec.Name]; x != nil {
		x.spec = spec
		x.setAlternate(spec.Alternate)
	}
	v.gen.Add(1)
}

// removeExchange takes an exchange away and gives what was bound to it and
// what it was bound to.
func (v *vhost) removeExchange(name string) (bound, incoming []*binding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.exchanges[name]
	if x == nil {
		return nil, nil
	}
	delete(v.exchanges, name)
	v.gen.Add(1)
	for b := range x.incoming {
		incoming = append(incoming, b)
	}
	return x.all(), incoming
}

// bound finds the binding that a spec names among those of an exchange, or
// nil. Where there may be many the shorter list is searched.
func (v *vhost) bound(spec *BindingSpec, ofQueue map[*binding]bool) *binding {
	v.mu.RLock()
	defer v.mu.RUnlock()
	x := v.exchanges[spec.Source.Exchange]
	if x == nil {
		return nil
	}
	ofTarget := ofQueue
	if spec.Exchange != "" {
		target := v.exchanges[spec.Exchange]
		if target == nil {
			return nil
		}
		ofTarget = target.incoming
	}
	if near, known := x.near(spec.Source.Topic); known && len(near) < len(ofTarget) {
		for _, b := range near {
			if b.listener == nil && b.spec.alike(spec) {
				return b
			}
		}
		return nil
	}
	for b := range ofTarget {
		if b.spec.alike(spec) {
			return b
		}
	}
	return nil
}

// mayBind and mayBindMore are refusesBinding and refusesMore for the shard.
func (v *vhost) mayBind(x *exchange, spec *BindingSpec) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.refusesBinding(x, spec); err != nil {
		return err
	}
	return nil
}

func (v *vhost) mayBindMore(x *exchange, spec *BindingSpec, n int) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.refusesMore(x, spec, n); err != nil {
		return err
	}
	return nil
}

// declaredExchanges is how many there are beside the predeclared ones.
func (v *vhost) declaredExchanges() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.exchanges) - len(predeclared)
}

// uses is how many bindings and subscriptions an exchange has.
func (v *vhost) uses(name string) int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if x := v.exchanges[name]; x != nil {
		return x.len()
	}
	return 0
}

// alternateOf names an exchange that has that one as its alternate, or "".
func (v *vhost) alternateOf(name string) string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, x := range v.exchanges {
		if x.alternate.Exchange == name && x.alternate.Topic == "" && x.spec.Name != name {
			return x.spec.Name
		}
	}
	return ""
}

// isIdle says whether an exchange that goes with its last binding has none.
func (v *vhost) isIdle(name string) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	x := v.exchanges[name]
	return x != nil && x.spec.AutoDelete && x.idle()
}
