package stomp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// An ackMode is how a subscription's deliveries are settled.
type ackMode uint8

const (
	ackAuto       ackMode = iota // by writing them
	ackClient                    // by the client, with all earlier ones
	ackIndividual                // by the client, one by one
)

// A source is where a subscription's deliveries come from.
type source uint8

const (
	liveSource  source = iota // a topic or reply address, as messages pass by
	queueSource               // a queue
)

// A subscription is what one SUBSCRIBE asked for.
type subscription struct {
	number uint32
	id     string // the client's
	mode   ackMode
	acks   bool // its MESSAGEs carry an ack header
	source source
	where  core.Address
	spec   core.Sub
	prefix []byte // MESSAGE, subscription and "message-id:"
	form   core.FormKey
	build  func(*core.Message) []byte

	made    []core.Change // to be declared first
	browse  bool          // shows what a queue holds, and takes nothing
	private bool          // the queue is this subscription's own
	strict  bool          // what exists with other settings is an error
	named   bool          // it is a group's, or outlives the connection
	forget  bool          // and goes when this subscription has ended
	recall  bool          // wants the retained values
	auto    bool          // made for a reply-to, not by SUBSCRIBE
	warning string        // on its RECEIPT

	cancelled atomic.Bool // the client wants no more of it

	// Under the handler's mutex.
	declaring bool   // its queue is not confirmed: the core does not know it yet
	ending    uint64 // token of UNSUBSCRIBE's answer; 0: none
	gone      bool   // Cancelled has come
	ring      ring
	place     uint64 // of its queue, and
	newest    uint64 // the highest seq that was delivered
}

// wanted is what the headers of a SUBSCRIBE say.
type wanted struct {
	mode      ackMode
	messages  int64
	bytes     int64
	spec      core.Sub
	recall    bool
	recallSet bool       // retain-handling was said
	group     string     // shared by its members
	name      string     // of a durable subscription of the client-id
	queue     string     // x-queue-name: of a queue to be bound
	arguments []argument // of a queue
	exchange  []argument // of an exchange
}

// durable says whether the header durable says so.
func (w *wanted) durable() bool {
	return slices.Contains(w.arguments, argument{"durable", "true"})
}

type argument struct{ name, value string }

// subscribe makes a subscription.
func (h *handler) subscribe() error {
	destination, ok := h.get(frame.Destination)
	if !ok {
		return missing(frame.Destination)
	}
	id, named := h.get(frame.Id)
	if !named {
		if h.version > wire.V10 {
			return missing(frame.Id)
		}
		id = destination // STOMP 1.0 tells subscriptions by it
	}
	w, err := h.readWanted()
	if err != nil {
		return err
	}
	p, err := h.names.source(destination)
	if err != nil {
		return err
	}
	if p.kind == tempPlace {
		h.dropAuto(destination)
	}
	if err := h.mayAdd(id); err != nil {
		return err
	}
	s := h.newSubscription(id, named, w)
	if err := h.point(s, p, w, destination); err != nil {
		return err
	}
	if err := h.reserve(s, w); err != nil {
		return err
	}
	s.form, s.build = formKey(h.version, p.style), h.protocol.build[h.version][p.style]
	h.start(s, answer{command: frame.SUBSCRIBE, receipt: h.receipt(), sub: s})
	return nil
}

func (h *handler) mayAdd(id string) error {
	if h.subscribed[id] != nil {
		return core.Errorf(core.CodeConflict, "subscription %s exists", quoted(id))
	}
	if limit := h.protocol.options.Limits.Subscriptions; len(h.subscribed) >= limit {
		return core.Errorf(core.CodeQuota, "%d subscriptions are the limit of a connection", limit)
	}
	return nil
}

func (h *handler) newSubscription(id string, named bool, w *wanted) *subscription {
	h.numbers++
	s := &subscription{number: h.numbers, id: id, mode: w.mode, spec: w.spec, acks: h.version == wire.V12 && w.mode != ackAuto}
	s.spec.ID = s.number
	s.prefix = append(s.prefix, frame.MESSAGE+"\n"...)
	if named {
		s.prefix, _ = wire.AppendHeader(s.prefix, h.version, frame.Subscription, id)
	}
	s.prefix = append(s.prefix, frame.MessageId+":"...)
	return s
}

// readWanted reads the headers of a SUBSCRIBE. What is not built is refused by
// name, what is of other brokers alone (activemq.*, x-*) is passed over.
func (h *handler) readWanted() (*wanted, error) {
	l := &h.protocol.options.Limits
	w := &wanted{messages: int64(l.Prefetch), bytes: l.PrefetchBytes, recall: true}
	seen := make(map[string]bool, len(h.view.Headers))
	for _, hd := range h.view.Headers {
		name := string(hd.Name)
		if seen[name] { // STOMP 1.2, "Repeated Header Entries"
			continue
		}
		seen[name] = true
		if err := w.read(name, string(hd.Value), l); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *wanted) read(name, value string, l *Limits) (err error) {
	switch name {
	case frame.Ack:
		w.mode, err = readMode(value)
	case "prefetch-count", "activemq.prefetchSize":
		w.messages, err = count(name, value)
		if w.messages = min(w.messages, 65_535); w.messages == 0 {
			w.messages = int64(l.Prefetch)
		}
	case "prefetch-bytes", "consumer-window-size":
		err = w.readWindow(name, value)
	case "no-local":
		w.spec.NoLocal, err = boolean(name, value)
	case "retain-handling":
		w.recall, w.recallSet = value != "2", true
		if value != "0" && value != "1" && value != "2" {
			err = badValue(name, value, "0, 1 or 2")
		}
	case "lease":
		w.spec.Lease, err = milliseconds(name, value)
	case "x-priority":
		w.spec.Priority, err = strconv.Atoi(value)
		if err != nil {
			err = badValue(name, value, "a number")
		}
	case "x-exclusive", "activemq.exclusive":
		w.spec.Exclusive, err = boolean(name, value)
	case "browser":
		w.spec.Peek, err = boolean(name, value)
	case "persistent":
		w.arguments = append(w.arguments, argument{name, value})
	case bindingMatch:
		w.spec.Match, err = readMatch(name, value)
	case "group":
		w.group, err = value, core.CheckName(value)
	case "x-queue-name":
		w.queue, err = value, core.CheckTopic(value)
	case "activemq.subscriptionName", "durable-subscription-name", "durable-subscriber-name":
		w.name, err = value, core.CheckName(value)
	default:
		return w.readArgument(name, value)
	}
	return err
}

// readArgument reads what describes a queue, an exchange or what it is asked for.
func (w *wanted) readArgument(name, value string) error {
	argumentOf, isBinding := strings.CutPrefix(name, bindingArgument)
	switch {
	case isBinding:
		w.spec.Args = append(w.spec.Args, core.Header{Name: argumentOf, Value: value})
	case isQueueArgument(name):
		w.arguments = append(w.arguments, argument{name, value})
	case isExchangeArgument(name):
		w.exchange = append(w.exchange, argument{name, value})
	default:
		return laterOption(name, value)
	}
	return nil
}

// laterOption refuses what a SUBSCRIBE cannot ask for yet.
func laterOption(name, value string) error {
	switch name {
	case "selector":
		if value == "" {
			return nil
		}
	case "x-stream-offset", "x-stream-epoch":
	default:
		if strings.HasPrefix(name, "x-stream-filter") {
			return core.Errorf(core.CodeBadValue, "header %s is not supported: use selector", quoted(name))
		}
		return nil
	}
	return core.NotYet("header " + name)
}

// readMode reads the ack header. STOMP 1.2, "SUBSCRIBE ack Header": "The valid
// values for the ack header are auto, client, or client-individual."
func readMode(value string) (ackMode, error) {
	switch value {
	case frame.AckAuto:
		return ackAuto, nil
	case frame.AckClient:
		return ackClient, nil
	case frame.AckClientIndividual:
		return ackIndividual, nil
	}
	return 0, badValue(frame.Ack, value, "auto, client or client-individual")
}

// readWindow reads how many octets may be out: -1 is plenty, 0 is one message.
func (w *wanted) readWindow(name, value string) (err error) {
	switch value {
	case "-1":
		w.bytes = 16 << 20
	case "0":
		w.messages = 1
	default:
		w.bytes, err = count(name, value)
		w.bytes = min(w.bytes, 1<<30)
	}
	return err
}

// point says where a subscription reads.
func (h *handler) point(s *subscription, p place, w *wanted, destination string) (err error) {
	s.where = p.at
	if err := w.misplaced(p.kind); err != nil {
		return err
	}
	switch p.kind {
	case queuePlace, madePlace:
		return h.pointQueue(s, p, w)
	case exchangePlace:
		if len(w.exchange) > 0 {
			if p, err = h.describe(s, p, w, destination); err != nil {
				return err
			}
		}
		return h.pointTopic(s, p, w)
	case topicPlace:
		return h.pointTopic(s, p, w)
	case tempPlace:
		if s.mode != ackAuto {
			return core.NotYet("another ack mode than auto on a temporary queue")
		}
		s.where, err = h.replyAddressOf(destination)
		s.spec.Where = s.where
		return err
	case streamPlace:
		return core.NotYet("streams")
	case replyPlace:
		return core.Errorf(core.CodeDenied, "a reply address is read by its owner alone, as the /temp-queue it was made for")
	}
	return nil
}

// misplaced refuses what only an exchange has.
func (w *wanted) misplaced(kind placeKind) error {
	switch {
	case kind == exchangePlace:
	case len(w.exchange) > 0:
		return core.Errorf(core.CodeBadValue, "header %s: only /exchange/NAME is an exchange", w.exchange[0].name)
	case len(w.spec.Args) > 0 || w.spec.Match != core.MatchAll:
		return core.Errorf(core.CodeBadValue, "header %s: only a headers exchange is asked for headers", bindingMatch)
	case kind != queuePlace && kind != madePlace && kind != topicPlace && w.group+w.name+w.queue != "":
		return core.Errorf(core.CodeBadValue, "headers group, x-queue-name and those of a durable subscription are for topics and exchanges")
	}
	return nil
}

// describe declares the exchange of a SUBSCRIBE first, and reads its key as
// that kind of exchange reads it.
func (h *handler) describe(s *subscription, p place, w *wanted, destination string) (place, error) {
	spec, err := h.exchangeSpec(p.at.Exchange, w.exchange)
	if err != nil {
		return p, err
	}
	n := h.names
	n.isTopic = func(string) bool { return spec.Kind == core.TopicKind }
	if p, err = n.source(destination); err != nil {
		return p, err
	}
	s.where = p.at
	if old, there := h.broker.Exchange(p.at.VHost, spec.Name); there && old == *spec {
		return p, nil
	}
	s.made = append(s.made, core.Change{Do: core.Declare, Exchange: spec})
	s.strict = true
	return p, nil
}

// pointBound binds a named queue to a topic or exchange, both made if they are
// not there, and consumes it: others may share it, and it stays.
func (h *handler) pointBound(s *subscription, p place, w *wanted) error {
	if s.spec.Peek {
		return core.Errorf(core.CodeBadValue, "header browser is for queues alone")
	}
	if core.ReservedName(w.queue) {
		return core.Errorf(core.CodeDenied, "queues whose names begin with $ are the broker's own")
	}
	spec := &core.QueueSpec{Name: w.queue}
	for _, a := range w.arguments {
		if err := setArgument(spec, a.name, a.value); err != nil {
			return err
		}
	}
	if len(w.arguments) > 0 || h.mustExist(w.queue) != nil { // one that is there keeps its settings
		s.made = append(s.made, core.Change{Do: core.Declare, Queue: spec})
	}
	to := s.binding(p)
	to.Queue = w.queue
	s.made = append(s.made, core.Change{Do: core.Declare, Binding: &to})
	s.source, s.strict = queueSource, true
	s.recall = w.recall && w.recallSet && p.kind == topicPlace
	s.reads(w.queue)
	return nil
}

// binding is what the queue behind a subscription is bound to: its conditions
// are the binding's from now on.
func (s *subscription) binding(p place) core.BindingSpec {
	to := core.BindingSpec{Source: p.at, Args: s.spec.Args, Match: s.spec.Match, NoLocal: s.spec.NoLocal}
	s.spec.Args, s.spec.Match, s.spec.NoLocal = nil, core.MatchAll, false
	return to
}

// reads lets a subscription read a queue of its destination's virtual host.
func (s *subscription) reads(queue string) {
	s.spec.Where = core.Address{VHost: s.where.VHost, Exchange: core.DefaultExchange, Topic: queue}
}

func (h *handler) pointQueue(s *subscription, p place, w *wanted) error {
	if core.ReservedName(p.at.Topic) {
		if err := h.session.May(core.Access{Do: core.ActManage, Where: p.at}); err != nil {
			return core.Errorf(core.CodeDenied, "queues whose names begin with $ are the broker's own")
		}
	}
	if s.spec.NoLocal {
		return core.Errorf(core.CodeBadValue, "header no-local: a queue gives each message to somebody")
	}
	if w.group != "" || w.name != "" || w.queue != "" {
		return core.Errorf(core.CodeBadValue, "headers group, x-queue-name and those of a durable subscription are for topics: a queue is shared and durable by itself")
	}
	s.source, s.spec.Where = queueSource, p.at
	if s.spec.Peek {
		s.browse, s.mode, s.acks = true, ackAuto, false // what is not taken is not settled
		return nil
	}
	if p.kind == madePlace {
		if len(w.arguments) > 0 {
			s.warning = "the queue exists: its arguments were not used"
		}
		return h.mustExist(p.at.Topic)
	}
	if len(w.arguments) == 0 {
		return nil
	}
	spec := &core.QueueSpec{Name: p.at.Topic}
	for _, a := range w.arguments {
		if err := setArgument(spec, a.name, a.value); err != nil {
			return err
		}
	}
	s.made = []core.Change{{Do: core.Declare, Queue: spec}}
	return nil
}

// pointTopic makes a live subscription, or with acknowledgements a private
// queue, so that prefetch, NACK and redelivery mean what they say.
func (h *handler) pointTopic(s *subscription, p place, w *wanted) error {
	switch {
	case w.group == "" && w.name == "" && w.queue != "":
		return h.pointBound(s, p, w)
	case w.group != "" || w.name != "" || w.durable():
		return h.pointNamed(s, p, w)
	}
	for _, a := range w.arguments {
		if !ofPassing(a) {
			return core.NotYet("header " + a.name + " of a durable subscription on a topic")
		}
	}
	if s.spec.Peek || s.spec.Exclusive || s.spec.Priority != 0 {
		return core.Errorf(core.CodeBadValue, "headers browser, x-exclusive and x-priority are for queues alone")
	}
	s.recall = w.recall && p.kind == topicPlace
	s.spec.Where = p.at
	if s.mode == ackAuto {
		if s.spec.Lease > 0 {
			return core.Errorf(core.CodeBadValue, "header lease: with ack:auto nothing is awaited")
		}
		return nil
	}
	l := &h.protocol.options.Limits
	name := fmt.Sprintf("$live/%s/%d", h.id, s.number)
	s.source, s.private = queueSource, true
	to := s.binding(p)
	to.Queue, to.Owned = name, true
	s.made = append(s.made,
		core.Change{Do: core.Declare, Queue: &core.QueueSpec{
			Name: name, Class: core.Memory, Overflow: core.DropOldest, AutoDelete: true, Owned: true,
			MaxMessages: l.LiveMessages, MaxBytes: l.LiveBytes,
		}},
		core.Change{Do: core.Declare, Binding: &to})
	s.reads(name)
	return nil
}

// pointNamed puts a queue behind a subscription on a topic: a group's, or one
// that outlives its connection.
func (h *handler) pointNamed(s *subscription, p place, w *wanted) error {
	switch {
	case w.queue != "":
		return core.Errorf(core.CodeBadValue, "header x-queue-name: a group, and a durable subscription with a name, have queues of their own")
	case s.spec.Peek:
		return core.Errorf(core.CodeBadValue, "header browser is for queues alone")
	case w.group != "" && s.spec.NoLocal:
		return core.Errorf(core.CodeBadValue, "header no-local: a group gives each message to one of its members")
	case w.name != "" && w.group == "" && h.client == "":
		return core.Errorf(core.CodeBadValue, "a durable subscription with a name needs the header client-id in CONNECT")
	}
	s.source, s.named = queueSource, true
	s.recall = w.recall && w.recallSet && w.group == "" && p.kind == topicPlace
	to := s.binding(p)
	var made []core.Change
	switch {
	case w.group != "":
		keep := time.Duration(0)
		if w.durable() {
			keep = maxSpan
		}
		to.Queue, made = core.Shared(w.group, to, keep)
	case w.name != "":
		to.Queue = h.ownQueue(h.client, w.name)
		s.spec.TakeOver = true
	default:
		to.Queue = h.ownQueue(s.id, sumOf(&to))
	}
	if made == nil {
		made = h.broker.Durable(h.names.vhost, to)
	}
	s.made = append(s.made, made...)
	s.reads(to.Queue)
	return nil
}

// sumOf tells what durable subscriptions of one id ask for apart.
func sumOf(to *core.BindingSpec) string {
	sum := sha256.New()
	sum.Write([]byte(to.Source.String()))
	for _, f := range to.Settings() {
		fmt.Fprintf(sum, " %q %q", f.Name, f.Value)
	}
	return hex.EncodeToString(sum.Sum(nil)[:4])
}

// ownQueue is the name of a durable subscription's queue. The user is part of
// it: nobody reads another's.
func (h *handler) ownQueue(who, name string) string {
	return "$stomp/" + core.QueuePart(h.session.Identity().User) + "/" + core.QueuePart(who) + "/" + core.QueuePart(name)
}

// ofPassing says whether an argument says what a subscription on a topic is
// anyway: gone with its connection.
func ofPassing(a argument) bool {
	switch a.name {
	case "durable", "persistent":
		return a.value == "false"
	case "auto-delete", "exclusive":
		return a.value == "true"
	}
	return false
}

// reserve sets the credit. What all subscriptions together may have out is
// bounded, and each gets at least one.
func (h *handler) reserve(s *subscription, w *wanted) error {
	if s.source != queueSource {
		return nil
	}
	s.spec.Credit = core.Credit{Messages: w.messages, Bytes: w.bytes, Auto: !s.browse}
	if s.mode == ackAuto {
		return nil
	}
	l := &h.protocol.options.Limits
	h.mu.Lock()
	defer h.mu.Unlock()
	free := int64(l.Unacked - h.unacked)
	if free <= 0 {
		return core.Errorf(core.CodeQuota, "%d deliveries are out or may be: settle some, or ask for less with prefetch-count", h.unacked)
	}
	// One is kept for each subscription that may still come.
	s.spec.Credit.Messages = min(w.messages, max(1, free-int64(l.Subscriptions-len(h.subscribed))))
	h.unacked += int(s.spec.Credit.Messages)
	return nil
}

// start enters a subscription and asks the core for it.
func (h *handler) start(s *subscription, a answer) {
	h.subscribed[s.id] = s
	h.mu.Lock()
	if h.standing == nil {
		h.standing = make(map[uint32]*subscription)
	}
	h.standing[s.number] = s
	s.declaring = s.made != nil
	h.mu.Unlock()
	switch {
	case s.made != nil:
		a.step = stepDeclared
		h.session.Apply(s.made, h.owe(a))
	case s.source == queueSource:
		a.step = stepStanding
		h.session.Consume(s.spec, h.owe(a))
	default:
		a.step = stepStanding
		h.session.Listen(s.spec, h.owe(a))
	}
}

// declared goes on when the queue of a subscription is there. If the client
// has changed its mind meanwhile, a private one is taken away again.
func (h *handler) declared(out []byte, a *answer) []byte {
	s := a.sub
	h.mu.Lock()
	s.declaring = false
	ending := s.ending
	cancelled := s.cancelled.Load()
	h.mu.Unlock()
	if !cancelled {
		a.step = stepStanding
		if s.source == queueSource {
			h.session.Consume(s.spec, h.owe(*a))
		} else {
			h.session.Listen(s.spec, h.owe(*a))
		}
		return out
	}
	if a.receipt.asked {
		out = h.appendReceipt(out, a.receipt, s.warning)
	}
	if s.private {
		remove := core.Change{Do: core.Remove, Queue: &core.QueueSpec{Name: s.spec.Where.Topic, Owned: true}}
		h.session.Apply([]core.Change{remove}, h.owe(answer{step: stepGone, command: frame.UNSUBSCRIBE}))
	}
	return h.letGo(out, s, ending)
}

// browsed says that a browser has seen all there is, or all that it has room
// for: a MESSAGE that says so.
func (h *handler) browsed(out []byte, e *core.Event) []byte {
	s := h.subscription(e.Sub)
	if s == nil || !s.browse || s.cancelled.Load() || h.over() {
		return out
	}
	out = append(out, s.prefix...)
	out = append(out, "0-0\ndestination:"...)
	out, _ = wire.AppendText(out, h.version, string(appendDestination(nil, s.where, h.names.opaqueStyle())))
	out = append(out, "\nbrowser:end\ncontent-length:0\n\n\x00"...)
	h.link.Border(len(out), true)
	return out
}

// stands goes on when a subscription stands: now its reader may see what is
// retained.
func (h *handler) stands(s *subscription) {
	if s.recall {
		h.session.Recall(core.Sub{ID: s.number, Where: s.where}, 0)
	}
}

// unsubscribe ends a subscription. What comes of it until the core has heard
// of that goes back, and is not written.
func (h *handler) unsubscribe() error {
	id, ok := h.get(frame.Id)
	if !ok {
		if h.version > wire.V10 {
			return missing(frame.Id)
		}
		if id, ok = h.get(frame.Destination); !ok {
			return missing(frame.Destination)
		}
	}
	s := h.subscribed[id]
	if s == nil {
		return core.Errorf(core.CodeNotFound, "no subscription %s", quoted(id))
	}
	s.forget = s.named && h.forgets()
	h.drop(s, h.owe(answer{step: stepReceipt, command: frame.UNSUBSCRIBE, receipt: h.receipt()}))
	return nil
}

// forgets says whether an UNSUBSCRIBE deletes what is kept for it: it says that
// it is durable, as its SUBSCRIBE did.
func (h *handler) forgets() bool {
	if durable, _ := h.get("durable"); durable == "true" {
		return true
	}
	for _, name := range []string{"activemq.subscriptionName", "durable-subscription-name", "durable-subscriber-name"} {
		if _, ok := h.get(name); ok {
			return true
		}
	}
	return false
}

// drop cancels a subscription; ending is the token of who waits for that.
func (h *handler) drop(s *subscription, ending uint64) {
	delete(h.subscribed, s.id)
	h.mu.Lock()
	s.ending = ending
	s.cancelled.Store(true)
	declaring := s.declaring
	h.mu.Unlock()
	if !declaring {
		h.session.Cancel(s.number)
	}
}

// cancelled says that nothing of a subscription will come any more. If the
// client has not asked for that, there is only one way to tell it.
func (h *handler) cancelled(out []byte, e *core.Event) []byte {
	s := h.subscription(e.Sub)
	if s == nil {
		return out
	}
	if !s.cancelled.Load() {
		err := core.AsError(e.Err)
		if err == nil {
			err = core.Errorf(core.CodeNotFound, "the subscription has ended")
		}
		h.endLater(&failure{err: err})
		return out
	}
	h.mu.Lock()
	ending := s.ending
	h.mu.Unlock()
	return h.letGo(out, s, ending)
}

// letGo lets go of a subscription that has ended, and says its receipt. What
// is out of it can still be settled.
func (h *handler) letGo(out []byte, s *subscription, ending uint64) []byte {
	h.last = nil
	h.mu.Lock()
	s.gone = true
	if s.mode != ackAuto && s.source == queueSource {
		h.unacked -= int(s.spec.Credit.Messages) - s.ring.alive
	}
	if s.ring.alive == 0 {
		delete(h.standing, s.number)
	}
	h.mu.Unlock()
	if s.forget {
		remove := core.Change{Do: core.Remove, Queue: &core.QueueSpec{Name: s.spec.Where.Topic}, Own: true}
		h.session.Apply([]core.Change{remove}, h.owe(answer{step: stepGone, command: frame.UNSUBSCRIBE}))
	}
	if a, ok := h.redeem(ending); ok && a.receipt.asked {
		out = h.appendReceipt(out, a.receipt, "")
	}
	return out
}

// replyAddressOf is the reply address that stands for a /temp-queue of this
// session, made when it is first named.
func (h *handler) replyAddressOf(destination string) (core.Address, error) {
	if at, ok := h.temps[destination]; ok {
		return at, nil
	}
	if limit := h.protocol.options.Limits.Subscriptions; len(h.temps) >= limit {
		return core.Address{}, core.Errorf(core.CodeQuota, "%d temporary queues are the limit of a connection", limit)
	}
	if h.temps == nil {
		h.temps = make(map[string]core.Address)
	}
	at := h.session.Reply()
	h.temps[destination] = at
	return at, nil
}

// replyAddress is replyAddressOf for a reply-to: it subscribes to the answers
// under the destination as its id, unless the client has done that itself.
func (h *handler) replyAddress(destination string) (core.Address, error) {
	_, known := h.temps[destination]
	at, err := h.replyAddressOf(destination)
	if known || err != nil {
		return at, err
	}
	if err := h.mayAdd(destination); err != nil {
		return at, err
	}
	s := h.newSubscription(destination, true, &wanted{})
	s.where, s.spec.Where, s.auto = at, at, true
	s.form, s.build = formKey(h.version, h.names.opaqueStyle()), h.protocol.build[h.version][h.names.opaqueStyle()]
	h.start(s, answer{command: frame.SEND, sub: s})
	return at, nil
}

// dropAuto ends the subscription that a reply-to has made, as the client now
// makes its own.
func (h *handler) dropAuto(destination string) {
	if s := h.subscribed[destination]; s != nil && s.auto {
		h.drop(s, 0)
	}
}
