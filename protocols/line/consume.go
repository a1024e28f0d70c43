package line

import (
	"strconv"
	"time"

	"github.com/godwitmq/godwit/core"
)

// An ackMode is who settles a delivery: its values are the words of ack=.
type ackMode uint8

const (
	ackNone   ackMode = iota // nobody: it is live
	ackAuto                  // we, as it is sent
	ackManual                // the client
)

// A subscription is a SUB, or the handle of a GET.
type subscription struct {
	sid     uint32 // the client's number
	head    []byte // of its MSGs
	id      uint32 // core's
	where   core.Address
	ack     ackMode
	lease   time.Duration
	opening bool   // its answer is not there yet
	ending  bool   // UNSUB was said
	over    bool   // END was said: what is unsettled can still be
	quiet   bool   // no END: a GET's handle that another took
	recall  bool   // retained values are wanted
	queue   string // behind a group or a durable one
	private string // the queue behind an acked live subscription
	match   core.Match
	args    []core.Header // of a headers exchange
	group   string        // shares with its members
	durable string        // keeps while the client is away
	forget  bool          // UNSUB forget: the queue goes too
	peek    bool          // takes nothing: its deliveries are not to be settled
	rank    int
	alone   bool // exclusive
	evicts  bool // takeover
	reply   bool // it is a reply address

	credit  int64 // of SUB credit= and GET: granted and not used
	refills bool  // window=: core gives credit back
	limited bool  // has credit in bytes
	promise int64 // its share of promised

	handle  bool // a GET's
	pulling bool // and one runs
	pulled  uint64

	place     uint64 // of its tags
	seq       uint64 // of live deliveries
	sent      uint64
	unsettled ledger
	early     []core.Event // came before its OK
}

// subscriptions are a connection's, by core's number and by the client's.
type subscriptions struct {
	byID     map[uint32]*subscription
	bySid    map[uint32]*subscription
	last     *subscription // the one looked up last
	promised int64         // deliveries with ack=manual that are or may come unsettled
}

func (s *subscriptions) find(id uint32) *subscription {
	if s.last != nil && s.last.id == id {
		return s.last
	}
	s.last = s.byID[id]
	return s.last
}

func (s *subscriptions) add(sub *subscription) {
	if s.byID == nil {
		s.byID, s.bySid = map[uint32]*subscription{}, map[uint32]*subscription{}
	}
	s.byID[sub.id], s.bySid[sub.sid] = sub, sub
	sub.head = msgHead(sub.sid)
}

// drop forgets a subscription: entirely when nothing of it is unsettled.
func (s *subscriptions) drop(sub *subscription) {
	delete(s.byID, sub.id)
	if s.last == sub {
		s.last = nil
	}
	if s.bySid[sub.sid] == sub && sub.unsettled.live == 0 {
		delete(s.bySid, sub.sid)
	}
}

// sub subscribes.
func (h *handler) sub(r *request) error {
	sid, err := sidOf(r)
	if err != nil {
		return err
	}
	if sid == 0 {
		return core.Errorf(core.CodeBadValue, "0 is GET's: a subscription's number is 1 to %d", maxSid)
	}
	if string(r.arg(1)) == "r/new" {
		return h.subReply(r, sid)
	}
	where, err := h.address(r, 1)
	if err != nil {
		return err
	}
	s := &subscription{sid: sid, where: where, opening: true}
	if s.match, s.args, err = arguments(r, subMatch); err != nil {
		return err
	}
	if err := s.options(r); err != nil {
		return err
	}
	if s.durable != "" && h.identity.Client == "" {
		return core.Errorf(core.CodeBadValue, "durable= needs a client: say HELLO 1 client=NAME first")
	}
	credit, err := s.flow(r)
	if err != nil {
		return err
	}
	if err := h.register(s); err != nil {
		return err
	}
	h.subscribe(s, credit)
	return errHeld
}

// subReply makes a reply address and listens to it.
func (h *handler) subReply(r *request, sid uint32) error {
	if r.seen != 0 || len(r.headers) > 0 {
		return core.Errorf(core.CodeBadValue, "a reply address has no options: SUB sid r/new")
	}
	s := &subscription{sid: sid, opening: true, reply: true}
	if err := h.register(s); err != nil {
		return err
	}
	s.where = h.session.Reply()
	h.subscribe(s, core.Credit{})
	return errHeld
}

// subscribe starts what stands behind a SUB; the answers do the rest.
func (h *handler) subscribe(s *subscription, credit core.Credit) {
	sub := core.Sub{
		ID: s.id, Where: s.where, Credit: credit, Lease: s.lease,
		Peek: s.peek, Priority: s.rank, Exclusive: s.alone, TakeOver: s.evicts,
		Args: s.args, Match: s.match,
	}
	switch {
	case s.where.Exchange == core.DefaultExchange:
		h.session.Consume(sub, h.hold(held{what: heldSub, sub: s}))
	case s.group != "" || s.durable != "":
		h.subNamed(s, sub)
	case s.ack == ackNone:
		h.session.Listen(sub, h.hold(held{what: heldSub, sub: s}))
	default:
		h.subPrivate(s, sub)
	}
}

// Limits of the private queue behind an acked live subscription. The oldest
// go when it is full: live is live.
const (
	privateMessages = 100_000
	privateBytes    = 64 << 20
)

// subNamed puts a queue behind a subscription that others share, or that
// outlives its connection.
func (h *handler) subNamed(s *subscription, sub core.Sub) {
	var queue string
	var changes []core.Change
	to := core.BindingSpec{Source: s.where, Args: s.args, Match: s.match}
	if s.group != "" {
		queue, changes = core.Shared(s.group, to, 0)
	} else {
		queue = "$line/" + core.QueuePart(h.identity.User) + "/" + core.QueuePart(h.identity.Client) + "/" + core.QueuePart(s.durable)
		to.Queue = queue
		changes = h.broker.Durable(h.identity.VHost, to)
		sub.TakeOver = true
	}
	s.queue = queue
	sub.Where = core.Address{VHost: s.where.VHost, Exchange: core.DefaultExchange, Topic: queue}
	sub.Args, sub.Match = nil, core.MatchAll // the binding's
	token := h.hold(held{what: heldPrivate, sub: s, pull: chore{what: doConsume, sub: sub}})
	h.token++ // the Consume's, which Deliver asks for
	h.session.Apply(changes, token)
}

// subPrivate puts a queue of the session's own behind a live subscription.
func (h *handler) subPrivate(s *subscription, sub core.Sub) {
	h.privates++
	s.private = "$live/" + h.name + "/" + strconv.Itoa(h.privates)
	sub.Where = core.Address{VHost: s.where.VHost, Exchange: core.DefaultExchange, Topic: s.private}
	sub.Owned = true
	token := h.hold(held{what: heldPrivate, sub: s, pull: chore{what: doConsume, sub: sub}})
	h.token++ // the Consume's, which Deliver asks for
	h.session.Apply([]core.Change{
		{Queue: &core.QueueSpec{
			Name: s.private, Class: core.Memory, Owned: true,
			MaxMessages: privateMessages, MaxBytes: privateBytes, Overflow: core.DropOldest,
		}},
		{Binding: &core.BindingSpec{Queue: s.private, Source: s.where, Args: s.args, Match: s.match, Owned: true}},
	}, token)
}

func sidOf(r *request) (uint32, error) {
	n, ok := number(r.arg(0))
	if !ok || n > maxSid || len(r.arg(0)) > 9 {
		return 0, core.Errorf(core.CodeSyntax, "%q is no number of a subscription: 1 to 9 digits", clip(r.arg(0)))
	}
	return uint32(n), nil
}

// options reads what a SUB says beside its flow, and refuses what its
// destination cannot have.
func (s *subscription) options(r *request) error {
	queue := s.where.Exchange == core.DefaultExchange
	switch {
	case s.where.Exchange == core.StreamExchange:
		return core.NotYet("streams (s/...)")
	case s.where.Exchange == core.ReplyExchange:
		return core.Errorf(core.CodeBadValue, "a reply address is made by SUB sid r/new")
	case queue && s.where.Topic == "":
		return core.Errorf(core.CodeBadValue, "%s has the queues by their names: SUB sid q/QUEUE", core.DefaultExchange)
	case queue && (len(s.args) > 0 || r.has(subMatch)):
		return core.Errorf(core.CodeBadValue, "match= and :name=value are for a headers exchange, x/")
	case s.where.Exchange == core.TopicExchange && s.where.Topic == "":
		s.where.Topic = "#"
	}
	if err := s.names(r, queue); err != nil {
		return err
	}
	if queue || s.group != "" || s.durable != "" {
		s.ack = ackManual
	}
	if r.has(subAck) {
		s.ack = ackMode(r.num[subAck])
	}
	switch {
	case s.ack == ackNone && (s.group != "" || s.durable != ""):
		return core.Errorf(core.CodeBadValue, "group= and durable= have ack=manual, or ack=auto to settle as it is sent")
	case queue && s.ack == ackNone:
		return core.Errorf(core.CodeBadValue, "a queue has ack=manual, or ack=auto to settle as it is sent")
	case !queue && (r.has(subPeek) || r.has(subRank) || r.has(subExclusive) || r.has(subTakeover)):
		return core.Errorf(core.CodeBadValue, "peek, rank=, exclusive and takeover are for q/ alone")
	case r.has(subPeek) && (r.has(subAck) || r.has(subLease) || r.has(subRank) || r.has(subExclusive) || r.has(subTakeover)):
		return core.Errorf(core.CodeBadValue, "peek takes nothing: ack=, lease=, rank=, exclusive and takeover mean nothing beside it")
	case r.has(subRetained) && s.where.Exchange != core.TopicExchange:
		return core.Errorf(core.CodeBadValue, "retained= is for t/ alone")
	case r.has(subLease) && s.ack != ackManual:
		return core.Errorf(core.CodeBadValue, "lease= needs ack=manual")
	}
	s.peek, s.alone, s.evicts = r.has(subPeek), r.has(subExclusive), r.has(subTakeover)
	if s.peek {
		s.ack = ackAuto
	}
	if r.has(subRank) {
		s.rank = int(r.num[subRank])
	}
	if r.has(subLease) {
		s.lease = time.Duration(r.num[subLease])
	}
	s.recall = s.where.Exchange == core.TopicExchange && !(r.has(subRetained) && retainedWords[r.num[subRetained]] == "none")
	if s.group != "" || s.durable != "" { // what is retained is not for one of many, nor for each time
		s.recall = s.recall && r.has(subRetained) && s.group == ""
	}
	return nil
}

// names reads group= and durable=.
func (s *subscription) names(r *request, queue bool) error {
	for _, w := range [...]struct {
		option int
		to     *string
	}{{subGroup, &s.group}, {subDurable, &s.durable}} {
		if !r.has(w.option) {
			continue
		}
		text, err := r.value(w.option)
		if err != nil {
			return err
		}
		if err := core.CheckName(text); err != nil {
			return err
		}
		*w.to = text
	}
	switch {
	case s.group == "" && s.durable == "":
	case queue:
		return core.Errorf(core.CodeBadValue, "a queue is shared and durable by itself: leave group= and durable= out")
	case s.group != "" && s.durable != "":
		return core.Errorf(core.CodeBadValue, "group= and durable= are two ways: use one")
	}
	return nil
}

// flow reads window= or credit=, and bytes=.
func (s *subscription) flow(r *request) (c core.Credit, err error) {
	if s.ack == ackNone {
		if r.has(subWindow) || r.has(subCredit) || r.has(subBytes) {
			return c, core.Errorf(core.CodeBadValue, "a live subscription has no window: add ack=manual")
		}
		return c, nil
	}
	if r.has(subCredit) {
		if r.has(subWindow) {
			return c, core.Errorf(core.CodeBadValue, "window= refills by itself, credit= does not: use one")
		}
		c.Messages = r.num[subCredit]
		s.credit = c.Messages
	} else {
		s.refills = !s.peek // what is not taken is not settled either
		c.Messages, c.Bytes, c.Auto = defaultWindow, defaultBytes, true
		if r.has(subWindow) {
			c.Messages = r.num[subWindow]
		}
	}
	if r.has(subBytes) {
		c.Bytes = r.num[subBytes]
	}
	s.limited = c.Bytes > 0
	if s.ack == ackManual {
		s.promise = c.Messages
	}
	return c, nil
}

// register gives a new subscription its number, if there is room.
func (h *handler) register(s *subscription) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &h.subs
	old := t.bySid[s.sid]
	switch {
	case old != nil && old.over:
		return core.Errorf(core.CodeConflict, "sid %d has unsettled deliveries: ACK or NACK them first", s.sid)
	case old != nil:
		return core.Errorf(core.CodeConflict, "sid %d is in use: UNSUB it first", s.sid)
	case len(t.byID) >= h.options.Subscriptions:
		return core.Errorf(core.CodeQuota, "%d subscriptions are the limit", h.options.Subscriptions)
	}
	if err := h.promise(s.promise); err != nil {
		return err
	}
	h.nextID++
	s.id = h.nextID
	t.add(s)
	return nil
}

// promise bounds what may be unsettled. h.mu is held.
func (h *handler) promise(n int64) error {
	if n > 0 && h.subs.promised+n > maxUnsettled {
		return core.Errorf(core.CodeQuota, "%d unsettled deliveries are a connection's limit: ask for a smaller window or credit", maxUnsettled)
	}
	h.subs.promised += n
	return nil
}

// free takes n settled deliveries off what was promised. h.mu is held.
func (h *handler) free(s *subscription, n int) {
	if s.over || !s.refills {
		s.promise -= int64(n)
		h.subs.promised -= int64(n)
	}
	if s.over && s.unsettled.live == 0 && h.subs.bySid[s.sid] == s {
		delete(h.subs.bySid, s.sid)
	}
}

// end notes that no more will come. h.mu is held.
func (h *handler) end(s *subscription) {
	s.over = true
	left := int64(s.unsettled.live)
	h.subs.promised -= s.promise - left
	s.promise = left
	h.subs.drop(s)
}

// subscribed is an answer on the way to a subscription; goes says that the
// request goes on being held. h.mu is held.
func (h *handler) subscribed(out []byte, w *held, err *core.Error) (_ []byte, goes bool) {
	s := w.sub
	if err != nil && err.Code == core.CodeConflict && w.what == heldPrivate && s.queue != "" {
		err = nil // it is there, as another member made it
	}
	if err != nil {
		h.end(s)
		if s.private != "" && w.what == heldSub {
			h.chore(chore{what: doRemove, sub: core.Sub{Where: core.Address{Topic: s.private}}, token: nobody})
		}
		return h.errOut(out, err, subject{sid: s.sid, hasSid: true}), false
	}
	if w.what == heldPrivate {
		h.held = held{what: heldSub, sub: s, token: w.token + 1}
		c := w.pull
		c.token = w.token + 1
		h.chore(c)
		return out, true
	}
	s.opening = false
	if w.what == heldGet {
		h.chore(w.pull)
	} else {
		out = append(out, "OK sid="...)
		out = strconv.AppendUint(out, uint64(s.sid), 10)
		if s.reply {
			out = append(out, " as="...)
			out = append(out, s.where.String()...)
		}
		out = append(out, '\n')
	}
	if s.recall {
		h.chore(chore{what: doRecall, sub: core.Sub{ID: s.id, Where: s.where}})
	}
	for i := range s.early {
		out = h.delivered(out, &s.early[i])
	}
	s.early = nil
	return out, false
}

// delivered writes a MSG. h.mu is held.
func (h *handler) delivered(out []byte, e *core.Event) []byte {
	s := h.subs.find(e.Sub)
	if s == nil {
		return out // it was refused
	}
	if s.opening {
		s.early = append(s.early, *e)
		return out
	}
	s.sent++
	if s.pulling {
		s.pulled++
	}
	seq := uint64(0)
	switch {
	case e.Tag != (core.Tag{}):
		seq = wireSeq(e.Tag.Seq)
		s.place = e.Tag.Place
		h.take(s, e, seq)
	case s.ack == ackNone:
		s.seq++
		seq = s.seq
	}
	return appendMsg(out, s.head, seq, e)
}

// take notes who settles a delivery. h.mu is held.
func (h *handler) take(s *subscription, e *core.Event, seq uint64) {
	if s.credit > 0 {
		s.credit--
	}
	if s.peek {
		return
	}
	if s.ack != ackManual {
		h.auto = append(h.auto, e.Tag)
		return
	}
	d := due{seq: seq, attempt: e.Tag.Attempt}
	if s.lease > 0 {
		d.deadline = h.now.Add(s.lease + leaseSlack)
	}
	if !s.unsettled.add(d) && !s.refills { // it came again: one promise is kept twice
		s.promise--
		h.subs.promised--
	}
}

// cancelled writes the END of a subscription. h.mu is held.
func (h *handler) cancelled(out []byte, e *core.Event) []byte {
	s := h.subs.find(e.Sub)
	if s == nil {
		return out
	}
	h.end(s)
	if s.forget {
		h.chore(chore{what: doRemove, sub: core.Sub{Where: core.Address{Topic: s.queue}}, token: nobody})
	}
	if s.private != "" {
		h.chore(chore{what: doRemove, sub: core.Sub{Where: core.Address{Topic: s.private}}, token: nobody})
	}
	switch err := core.AsError(e.Err); {
	case s.quiet:
	case err == nil:
		out = appendEnd(out, s.sid, s.sent, "unsub", 0)
	case err.Code == core.CodeTakenOver:
		out = appendEnd(out, s.sid, s.sent, "taken", err.Code)
	default:
		out = appendEnd(out, s.sid, s.sent, err.Code.Name(), err.Code)
	}
	return out
}

// drained writes the END of a GET, or of a peek, which is over then. h.mu is
// held.
func (h *handler) drained(out []byte, e *core.Event) []byte {
	s := h.subs.find(e.Sub)
	if s == nil || s.quiet {
		return out
	}
	err := core.AsError(e.Err)
	why, code, n := "done", core.Code(0), s.pulled
	switch {
	case err != nil && err.Code == core.CodeTooSlow:
		why = "timeout"
	case err != nil:
		why, code = err.Code.Name(), err.Code
	}
	if !s.handle {
		n = s.sent
		s.quiet = true
		h.chore(chore{what: doCancel, sub: core.Sub{ID: s.id}})
	}
	if s.ack == ackManual && s.handle { // what was asked for and not given is not promised any more
		s.promise -= s.credit
		h.subs.promised -= s.credit
	}
	s.pulling, s.pulled, s.credit = false, 0, 0
	return appendEnd(out, s.sid, n, why, code)
}

// known finds the subscription a request speaks of.
func (h *handler) known(r *request) (*subscription, error) {
	sid, err := sidOf(r)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.subs.bySid[sid]
	if s == nil {
		return nil, core.Errorf(core.CodeNotFound, "no subscription %d", sid)
	}
	return s, nil
}

func (h *handler) unsub(r *request) error {
	s, err := h.known(r)
	if err != nil {
		return err
	}
	h.mu.Lock()
	gone := s.over || s.ending
	if r.has(only) && s.durable == "" {
		h.mu.Unlock()
		return core.Errorf(core.CodeBadValue, "forget is for a subscription with durable=")
	}
	s.ending, s.forget = true, r.has(only)
	h.mu.Unlock()
	if gone {
		return core.Errorf(core.CodeNotFound, "subscription %d is ending, or has ended", s.sid)
	}
	h.session.Cancel(s.id)
	return nil
}

// credit adds to what a subscription may still get.
func (h *handler) credit(r *request) error {
	s, err := h.known(r)
	if err != nil {
		return err
	}
	var c core.Credit
	for i, to := range [...]*int64{&c.Messages, &c.Bytes} {
		if i+1 >= r.nargs {
			break
		}
		n, ok := number(r.arg(i + 1))
		if most := [...]int64{maxCredit, maxCreditBytes}[i]; !ok || n > most {
			return core.Errorf(core.CodeBadValue, "credit is a number up to %d, not %q", most, clip(r.arg(i+1)))
		}
		*to = n
	}
	if err := h.mayGrant(s, c); err != nil {
		return err
	}
	h.session.Grant(s.id, c)
	return nil
}

func (h *handler) mayGrant(s *subscription, c core.Credit) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case s.over || s.ending:
		return core.Errorf(core.CodeNotFound, "subscription %d is ending, or has ended", s.sid)
	case s.ack == ackNone, s.refills, s.handle:
		return core.Errorf(core.CodeConflict, "subscription %d has no credit=: it needs no CREDIT", s.sid)
	case c.Bytes > 0 && !s.limited:
		return core.Errorf(core.CodeConflict, "subscription %d has no bytes=: it has no limit in bytes", s.sid)
	case s.credit+c.Messages > maxCredit:
		return core.Errorf(core.CodeBadValue, "credit is %d at most", maxCredit)
	}
	if s.ack == ackManual {
		if err := h.promise(c.Messages); err != nil {
			return err
		}
		s.promise += c.Messages
	}
	s.credit += c.Messages
	return nil
}
