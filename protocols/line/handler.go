package line

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// A state is where a connection is. Only Receive moves it.
type state uint8

const (
	stateNew  state = iota // nobody knows who this is
	stateOpen              // a session is there; held until Open is answered
	stateClosing
)

// A handler is one connection.
//
// Receive takes requests and may run beside Deliver and Tick, which alone make
// bytes for the wire. What both touch is under mu, and no verb of core is
// called with it held.
type handler struct {
	options  *Options
	protocol *Protocol
	link     protocols.Link
	broker   *core.Broker
	began    time.Time

	// Receive's alone.
	state    state
	pid      string // of HELLO
	proven   bool   // something was done for it: errors are no longer fatal
	session  *core.Session
	identity *core.Identity
	name     string // of the session
	lastID   int64  // the newest id
	skip     skipping
	first    int // octets before login
	last     destination
	nextID   uint32 // core's number of the next subscription
	token    uint64 // of the newest request of our own
	privates int    // private queues so far
	hb       time.Duration

	cancel atomic.Pointer[context.CancelFunc] // ends a login that takes too long
	heard  atomic.Bool                        // something came since the last Tick
	opened atomic.Bool                        // the login is over
	beat   atomic.Int64                       // hb, for Tick

	// The flusher's alone.
	wrote     bool // something left since the last Tick
	lastIn    time.Time
	lastOut   time.Time
	stalled   time.Time
	auto      []core.Tag // acks of this Deliver
	todo      []chore
	farewells int

	mu       sync.Mutex
	replies  []byte // of Receive, for Deliver
	farewell []byte // the last thing that is said
	full     bool   // Receive waits until replies are written
	crowded  bool   // Receive waits until publishes are answered
	waits    bool   // Receive waits for Again
	held     held   // the request whose answer Receive waits for
	quitting bool   // QUIT waits for its CONFIRMs
	quitAt   time.Time
	batch    *batch
	subs     subscriptions
	now      time.Time // of the newest Tick
	commits  []commit  // submitted and not answered, oldest first
	owed     owed
	done     uint64 // the highest id that is answered
	doneTag  core.Tag
	confirms bool // a CONFIRM is due
	errors   errorTimes
}

var _ protocols.Handler = (*handler)(nil)

// A destination is the one that was parsed last: publishers repeat themselves.
type destination struct {
	text    string
	address core.Address
}

// skipping is the payload of a refused PUB that is still to come. It is never
// buffered, and nothing in it is run.
type skipping struct {
	left int
	end  bool // then the end of line
}

// errHeld says that a request is taken, and that the reader waits for its
// answer, so that answers keep their order.
var errHeld = errors.New("held")

// ownToken is set in tokens that are no id of the client.
const ownToken = 1 << 63

// nobody is the token of answers that nobody waits for.
const nobody = ownToken

// errBrowser ends a connection without a word.
var errBrowser = errors.New("a browser is being used against us")

// Receive takes requests off in.
func (h *handler) Receive(in []byte) (n int, err error) {
	h.heard.Store(true)
	if h.holds() {
		return 0, core.ErrWait
	}
	r := requests.Get().(*request)
	for n < len(in) && err == nil {
		var took int
		took, err = h.next(in[n:], r)
		n += took
		if took == 0 {
			break
		}
	}
	r.forget()
	h.wake()
	if errors.Is(err, errHeld) {
		err = core.ErrWait
	}
	return n, err
}

// holds says whether a request is being waited for.
func (h *handler) holds() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.replies) > maxReplies {
		h.full = true
	}
	h.waits = false
	return h.full || h.crowded || h.held.what != heldNothing || h.quitting
}

// wake has Deliver called if there is something to write.
func (h *handler) wake() {
	h.mu.Lock()
	wake := len(h.replies) > 0 || len(h.farewell) > 0
	h.mu.Unlock()
	if wake {
		h.link.Wake()
	}
}

// next takes one request, or a part of a payload that is skipped.
func (h *handler) next(in []byte, r *request) (int, error) {
	if h.skip.left > 0 || h.skip.end {
		return h.skipped(in)
	}
	n, fault := r.scan(in, h.maxLine())
	switch {
	case fault != nil:
		return n, h.fatal(fault)
	case n == 0:
		h.link.Want(len(in) + 1)
		return 0, nil
	case len(r.line) == 0:
		return n, nil // a heart-beat
	}
	if r.verb == nil || r.verb.name == "GET" || h.state == stateNew {
		if r.webby() {
			return 0, errBrowser
		}
	}
	if err := h.count(n); err != nil {
		return n, err
	}
	if r.verb == nil {
		return n, h.noVerb(r)
	}
	return h.admit(in, n, r)
}

func (h *handler) maxLine() int {
	if h.state == stateNew {
		return min(h.options.MaxLine, maxFirstBytes)
	}
	return h.options.MaxLine
}

// count bounds what a stranger may say.
func (h *handler) count(n int) error {
	if h.state != stateNew {
		return nil
	}
	if h.first += n; h.first > maxFirstBytes {
		return h.fatal(core.Errorf(core.CodeTooLarge, "over %d octets before HELLO", maxFirstBytes))
	}
	return nil
}

func (h *handler) noVerb(r *request) error {
	word := r.line[:len(r.line)-len(r.rest)]
	if !r.bare {
		word = word[:len(word)-1]
	}
	e := core.Errorf(core.CodeUnknownVerb, "unknown verb %q: HELP tells what there is", clip(word))
	if r.digits() {
		return h.fatal(e)
	}
	return h.refuse(r, e)
}

// admit asks whether the verb may come now. A line is n octets long.
func (h *handler) admit(in []byte, n int, r *request) (int, error) {
	v := r.verb
	switch {
	case h.state == stateNew && v.when&unknown != 0:
	case h.state == stateNew:
		return 0, h.enter(core.Login{}, heldAnonymous)
	case h.inBatch() && v.when&batched == 0:
		return h.refuseAll(n, r, core.Errorf(core.CodeConflict, "%s cannot stand in a batch: COMMIT or ABORT comes first", v.name))
	}
	if v.payload {
		return h.publication(in, n, r)
	}
	if err := r.parse(); err != nil {
		return n, h.refuse(r, err)
	}
	return n, h.run(r)
}

// publication is a request with a payload: wrong or not, its length says where
// the next one begins.
func (h *handler) publication(in []byte, n int, r *request) (int, error) {
	if r.length > h.options.MaxPayload {
		if r.length > 16*h.options.MaxPayload {
			return n, h.fatal(core.Errorf(core.CodeTooLarge, "payload over 16 times %d", h.options.MaxPayload))
		}
		return h.refuseAll(n, r, core.Errorf(core.CodeTooLarge, "payload over %d", h.options.MaxPayload))
	}
	if err := r.parse(); err != nil {
		return h.refuseAll(n, r, err)
	}
	m, fault := r.body(in[n:])
	switch {
	case fault != nil:
		return n, h.fatal(fault)
	case m == 0:
		h.link.Want(max(n+r.length+1, len(in)+1))
		return 0, nil
	}
	err := h.run(r)
	if errors.Is(err, core.ErrWait) {
		return 0, err
	}
	return n + m, err
}

// run runs a verb and says what it could not do.
func (h *handler) run(r *request) error {
	err := r.verb.run(h, r)
	var e *core.Error
	switch {
	case err == nil || errors.Is(err, errHeld):
		h.proven = true
		return err
	case errors.Is(err, core.ErrWait), errors.Is(err, core.ErrClosed):
		// Closed: an Evicted is on its way, and says why.
		h.mu.Lock()
		h.waits = true
		h.mu.Unlock()
		return core.ErrWait
	case errors.As(err, &e):
		return h.refuse(r, e)
	}
	return err
}

// refuseAll refuses a request whose payload, if it has one, is still to come.
func (h *handler) refuseAll(n int, r *request, e *core.Error) (int, error) {
	err := h.refuse(r, e)
	if r.length != noLength && err == nil {
		h.skip = skipping{r.length, true}
	}
	return n, err
}

// skipped drops what came of a refused payload, and checks its end.
func (h *handler) skipped(in []byte) (int, error) {
	if h.skip.left > 0 {
		n := min(h.skip.left, len(in))
		h.skip.left -= n
		return n, nil
	}
	n, fault := eol(in)
	if fault != nil {
		return 0, h.fatal(fault)
	}
	if n == 0 {
		h.link.Want(2)
		return 0, nil
	}
	h.skip.end = false
	return n, nil
}

// refuse answers a request with an ERR. One with an id takes its place among
// the answers of those before it.
func (h *handler) refuse(r *request, e *core.Error) error {
	if !h.proven || e.Code == core.CodeUnauthenticated || e.Code == core.CodeTakenOver {
		return h.fatal(e)
	}
	h.failBatch(e)
	about := subject{id: r.id()}
	if about.id > h.lastID {
		return h.answer(about.id, e)
	}
	if about.id == 0 {
		about.sid, about.hasSid = r.sid()
	}
	h.mu.Lock()
	h.replies = appendErr(h.replies, e, about)
	fault := h.errs(e)
	h.mu.Unlock()
	if fault != nil {
		return h.fatal(fault)
	}
	return nil
}

// answer gives the answer to an id ourselves, in its place.
func (h *handler) answer(id int64, err error) error {
	h.lastID = id
	h.owe(uint64(id), 0)
	h.session.Answer(uint64(id), err)
	return nil
}

// errs counts errors of class no, and says when there were too many. h.mu is
// held.
func (h *handler) errs(e *core.Error) *core.Error {
	if e.Code.Retry() || !h.errors.add(h.broker.Now()) {
		return nil
	}
	return core.Errorf(core.CodeQuota, "%d errors in %s", maxErrors, formatDuration(maxErrorsTime))
}

// errorTimes are when the newest errors were, a ring.
type errorTimes struct {
	at   *[maxErrors]time.Time
	next int
}

// add notes one and says whether the ring is full of new ones.
func (t *errorTimes) add(now time.Time) bool {
	if t.at == nil {
		t.at = new([maxErrors]time.Time)
	}
	t.at[t.next] = now
	t.next = (t.next + 1) % maxErrors
	oldest := t.at[t.next]
	return !oldest.IsZero() && now.Sub(oldest) <= maxErrorsTime
}

// fatal says the last word. The error is Receive's or Tick's.
func (h *handler) fatal(e *core.Error) error {
	h.state = stateClosing
	h.mu.Lock()
	h.bye(appendFatal(nil, e))
	h.mu.Unlock()
	return &protocols.Close{Err: e}
}

// bye keeps the first farewell. h.mu is held.
func (h *handler) bye(farewell []byte) {
	if h.farewell == nil {
		h.farewell = farewell
	}
}

// reply queues an answer.
func (h *handler) reply(write func([]byte) []byte) {
	h.mu.Lock()
	h.replies = write(h.replies)
	h.mu.Unlock()
}

// A chore is what Deliver does when it has let go of mu: calls into core.
type chore struct {
	what  choreKind
	sub   core.Sub
	token uint64
	n     int64 // of doPull
	until time.Time
	err   error // of doClose
}

type choreKind uint8

const (
	doRecall choreKind = iota
	doConsume
	doPull
	doCancel
	doRemove
	doResume
	doClose
)

// Deliver writes our own replies, then what the events say.
func (h *handler) Deliver(out []byte, ev []core.Event) []byte {
	from := len(out)
	live, bytes := 0, int64(0)
	h.mu.Lock()
	out = append(out, h.replies...)
	h.replies = h.replies[:0]
	if cap(h.replies) > maxReplies {
		h.replies = nil
	}
	for i := range ev {
		e := &ev[i]
		if e.Kind == core.Delivered && e.Tag == (core.Tag{}) {
			live++
			bytes += e.Message.Size()
		}
		if h.farewells == 0 {
			out = h.event(out, e)
		}
	}
	out = h.confirm(out)
	h.leave()
	if h.full || (h.crowded && h.owed.bytes <= maxOwedBytes/2) {
		h.full, h.crowded = false, false
		h.chore(chore{what: doResume})
	}
	if h.farewell != nil && h.farewells == 0 {
		h.farewells++
		out = append(out, h.farewell...)
	}
	h.mu.Unlock()
	h.wrote = h.wrote || len(out) > from
	h.stalled = time.Time{}
	if live > 0 {
		h.session.Events().Release(live, bytes)
	}
	if len(h.auto) > 0 {
		h.session.Ack(h.auto...)
		h.auto = h.auto[:0]
	}
	for i := range h.todo {
		h.perform(&h.todo[i])
	}
	h.todo = h.todo[:0]
	return out
}

func (h *handler) chore(c chore) { h.todo = append(h.todo, c) }

func (h *handler) perform(c *chore) {
	switch c.what {
	case doRecall:
		h.session.Recall(c.sub, c.token)
	case doConsume:
		h.session.Consume(c.sub, c.token)
	case doPull:
		h.pull(c)
	case doCancel:
		h.session.Cancel(c.sub.ID)
	case doRemove:
		h.session.Apply([]core.Change{{Do: core.Remove, Queue: &core.QueueSpec{Name: c.sub.Where.Topic, Owned: true}}}, c.token)
	case doResume:
		h.link.Resume()
	case doClose:
		if c.err == nil && h.session != nil {
			h.session.Close(core.Closing{DropWill: true}) // what is unsettled is back before QUIT's OK is read
		}
		h.link.Close(c.err)
	}
}

// event writes what one event says. h.mu is held.
func (h *handler) event(out []byte, e *core.Event) []byte {
	switch e.Kind {
	case core.Delivered:
		return h.delivered(out, e)
	case core.Confirmed:
		return h.confirmed(out, e)
	case core.Cancelled:
		return h.cancelled(out, e)
	case core.Drained:
		return h.drained(out, e)
	case core.Again:
		h.chore(chore{what: doResume})
	case core.Evicted:
		err := core.AsError(e.Err)
		if err == nil {
			err = core.Errorf(core.CodeUnavailable, "the session was ended")
		}
		h.bye(appendFatal(nil, err))
		h.chore(chore{what: doClose, err: err})
	}
	return out
}

// confirmed is an answer to an id, a COMMIT or a request that is held.
func (h *handler) confirmed(out []byte, e *core.Event) []byte {
	switch {
	case e.Token == nobody, e.Token == 0 && e.Err == nil:
		return out
	case e.Token == 0: // of a publish without id: only refusals come
		return h.errOut(out, core.AsError(e.Err), subject{})
	case e.Token == h.held.token && h.held.what != heldNothing:
		return h.answered(out, e)
	case e.Token&ownToken != 0:
		return h.committed(out, e)
	}
	h.settled(e)
	if e.Err != nil {
		out = h.errOut(out, core.AsError(e.Err), subject{id: int64(e.Token)})
	}
	if done, good := h.owed.settle(e.Token, e.Err == nil); done > 0 {
		h.done, h.doneTag = done, e.Tag
		h.confirms = h.confirms || good
	}
	return out
}

// errOut writes an ERR from Deliver. h.mu is held.
func (h *handler) errOut(out []byte, e *core.Error, about subject) []byte {
	out = appendErr(out, e, about)
	if fault := h.errs(e); fault != nil {
		h.bye(appendFatal(nil, fault))
		h.chore(chore{what: doClose, err: fault})
	}
	return out
}

// confirm writes one CONFIRM for all that was done.
func (h *handler) confirm(out []byte) []byte {
	if !h.confirms || h.farewells > 0 {
		return out
	}
	h.confirms = false
	out = appendConfirm(out, h.done, h.doneTag)
	h.doneTag = core.Tag{}
	return out
}

// leave ends a connection that has said QUIT when nothing is owed any more.
func (h *handler) leave() {
	if h.quitting && len(h.owed.list) == 0 && len(h.commits) == 0 && h.farewell == nil {
		h.bye([]byte("OK\n"))
		h.chore(chore{what: doClose})
	}
}

// Tick watches what takes too long, and keeps the heart beating.
func (h *handler) Tick(now time.Time) error {
	if h.lastIn.IsZero() {
		h.lastIn, h.lastOut = now, now
	}
	if h.wrote {
		h.wrote, h.lastOut = false, now
	}
	if !h.opened.Load() && now.Sub(h.began) >= maxFirstTime {
		if cancel := h.cancel.Load(); cancel != nil {
			(*cancel)()
		}
		return h.late(core.Errorf(core.CodeTooSlow, "no HELLO within %s", formatDuration(maxFirstTime)))
	}
	if err := h.impatient(now); err != nil {
		return err
	}
	return h.heartbeat(now)
}

// impatient ends what waits too long.
func (h *handler) impatient(now time.Time) error {
	h.mu.Lock()
	if h.batch != nil && now.Sub(h.batch.began) >= maxBatchTime {
		h.batch.drop(core.Errorf(core.CodeTooSlow, "the batch was open for over %s, and is dropped", formatDuration(maxBatchTime)))
	}
	h.expire(now)
	quit := h.quitting && now.Sub(h.quitAt) >= maxQuitTime
	full := h.full
	waiting := h.full || h.crowded || h.waits || h.held.what != heldNothing || h.quitting
	h.mu.Unlock()
	if h.heard.Swap(false) || waiting {
		h.lastIn = now // whom we hold back is not late
	}
	switch {
	case quit:
		return h.late(core.Errorf(core.CodeTooSlow, "what is unconfirmed after %s stays so", formatDuration(maxQuitTime)))
	case !full:
		h.stalled = time.Time{}
	case h.stalled.IsZero():
		h.stalled = now
	case now.Sub(h.stalled) >= maxStall:
		return core.Errorf(core.CodeTooSlow, "answers are not read for %s", formatDuration(maxStall))
	}
	return nil
}

func (h *handler) heartbeat(now time.Time) error {
	hb := time.Duration(h.beat.Load())
	if hb == 0 {
		return nil
	}
	if now.Sub(h.lastIn) >= 2*hb {
		return h.late(core.Errorf(core.CodeTooSlow, "nothing came for twice hb=%s", formatDuration(hb)))
	}
	if now.Sub(h.lastOut) >= hb {
		h.lastOut = now
		h.mu.Lock()
		h.replies = append(h.replies, '\n')
		h.mu.Unlock()
		h.link.Wake()
	}
	return nil
}

// late is fatal, said from Tick.
func (h *handler) late(e *core.Error) error {
	h.mu.Lock()
	h.bye(appendFatal(nil, e))
	h.mu.Unlock()
	return &protocols.Close{Err: e}
}

// Closed ends the session: unsettled deliveries go back, a batch is dropped.
func (h *handler) Closed(error) {
	h.opened.Store(true)
	if cancel := h.cancel.Load(); cancel != nil {
		(*cancel)()
	}
	if h.session != nil {
		h.session.Close(core.Closing{DropWill: true})
	}
}

// newToken numbers a request of our own.
func (h *handler) newToken() uint64 {
	h.token++
	return h.token | ownToken
}

// sid is the subscription a request speaks of, if it does.
func (r *request) sid() (uint32, bool) {
	if r.verb == nil {
		return 0, false
	}
	if r.verb.name == "GET" {
		if r.nargs > 0 && r.has(getSid) {
			return uint32(r.num[getSid]), true
		}
		return 0, true
	}
	if len(r.verb.args) == 0 || r.verb.args[0] != argSid || r.nargs == 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(r.arg(0)), 10, 32)
	return uint32(n), err == nil && n <= maxSid
}
