package stomp

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// A state is how far a connection has come.
//
//	fresh -> opening -> open -> leaving (DISCONNECT)
//	  \---------\---------\---> failed (ERROR)
type state = int32

const (
	fresh   state = iota // CONNECT or STOMP alone
	opening              // the session is not confirmed yet
	open
	leaving // after DISCONNECT: input is discarded, receipts are awaited
	failed  // ERROR is to be said, or was
)

// A handler is one connection.
type handler struct {
	protocol *Protocol
	broker   *core.Broker
	link     protocols.Link
	peer     protocols.Peer
	opened   time.Time
	state    atomic.Int32

	// Set by the reader before the session is open, then only read.
	session *core.Session
	version wire.Version
	names   names
	id      string // of the session
	login   bool   // it has logged in, or came with an identity
	beat    heartBeat
	refusal *failure // of the login, said when its penalty is over

	// The reader's.
	view         wire.View
	draft        draft
	greeted      int // octets taken before login
	known        map[string]target
	subscribed   map[string]*subscription // by the client's id
	numbers      uint32                   // of subscriptions, given so far
	transactions map[string]*transaction
	client       string                  // the client-id of CONNECT
	temps        map[string]core.Address // reply addresses by their /temp-queue name
	tags         []core.Tag

	// Told by the reader to the flusher's Tick, in unix nanoseconds.
	heard     atomic.Int64 // when something was read
	held      atomic.Bool  // we hold the client back
	begun     atomic.Int64 // when the unfinished frame began; 0: there is none
	allowed   atomic.Int64 // how long it may take
	oldest    atomic.Int64 // when the oldest open transaction began; 0: there is none
	leftAt    atomic.Int64 // when DISCONNECT came
	penalised atomic.Int64 // when the ERROR of a refused login is due

	lives atomic.Uint64 // live deliveries made: the flusher counts, an ACK may name one

	mu       sync.Mutex
	answers  []answer // owed, by token-1
	free     []uint32 // places in answers
	full     bool     // Receive waits until half of them are gone
	standing map[uint32]*subscription
	unacked  int // deliveries that are out or may be
	said     []receipt
	failure  *failure
	parting  receipt // DISCONNECT's

	// The flusher's.
	last      *subscription // the subscription of the last delivery
	settled   []core.Tag    // of this Deliver: acked as they are written
	returned  []core.Tag    // of this Deliver: of subscriptions that are over
	released  int
	bytes     int64
	heartDue  bool
	finished  bool // the last word was said
	wrote     time.Time
	resumable bool // Receive waited for what was owed, and may go on
}

func newHandler(p *Protocol, l protocols.Link, b *core.Broker) *handler {
	h := &handler{protocol: p, broker: b, link: l, peer: l.Peer(), opened: b.Now()}
	h.view = wire.View{Limits: greetingLimits, Version: wire.V12}
	h.version = wire.V12 // until there is one, an ERROR is escaped as the newest
	h.wrote = h.opened
	h.heard.Store(h.opened.UnixNano())
	return h
}

// Receive takes the frames in in. See protocols.Handler.
func (h *handler) Receive(in []byte) (n int, err error) {
	h.heard.Store(h.broker.Now().UnixNano())
	h.held.Store(false)
	for n < len(in) {
		switch h.state.Load() {
		case leaving, failed:
			return len(in), nil
		case opening:
			return n, h.hold()
		}
		if h.owesTooMuch() {
			return n, h.hold()
		}
		taken, err := wire.Scan(in[n:], &h.view)
		if err != nil {
			return n, h.fail(h.unwelcome(err))
		}
		if h.view.Command == "" {
			n += taken
			h.waitFor(len(in) - n)
			return n, h.countGreeting(taken)
		}
		h.begun.Store(0)
		if err := h.take(); err != nil {
			if errors.Is(err, core.ErrWait) {
				return n, h.hold() // the frame comes again
			}
			return n, h.fail(err)
		}
		n += taken
		if err := h.countGreeting(taken); err != nil {
			return n, err
		}
	}
	return n, nil
}

// unwelcome is the error of a frame that could not be read. Who has not logged
// in and says something else than CONNECT hears of that first.
func (h *handler) unwelcome(err error) error {
	if h.state.Load() != fresh || h.view.Command == frame.CONNECT || h.view.Command == frame.STOMP {
		return err
	}
	return errGreeting
}

// hold makes the client wait: TCP will tell it. Meanwhile its silence is ours.
func (h *handler) hold() error {
	h.begun.Store(0)
	h.held.Store(true)
	return core.ErrWait
}

// waitFor notes an unfinished frame of which so many octets are here, and
// since when it is awaited.
func (h *handler) waitFor(here int) {
	if here == 0 {
		return
	}
	if h.begun.Load() == 0 {
		h.begun.Store(h.heard.Load())
	}
	more := time.Duration(max(here, h.view.Need)>>16) * time.Second // one for each 64 KiB
	h.allowed.Store(int64(h.protocol.options.Limits.Frame + more))
	if h.beat.from == 0 && h.view.Need > here {
		h.link.Want(h.view.Need) // else each piece counts as a sign of life
	}
}

// countGreeting bounds what a connection may send before it has logged in.
func (h *handler) countGreeting(n int) error {
	if h.state.Load() != fresh {
		return nil
	}
	if h.greeted += n; h.greeted > greetingBytes {
		return h.fail(core.Errorf(core.CodeTooLarge, "more than %d octets before a login", greetingBytes))
	}
	return nil
}

// take does what the frame in the view asks.
func (h *handler) take() error {
	if h.state.Load() == fresh {
		return h.greet()
	}
	switch h.view.Command {
	case frame.SEND:
		return h.send()
	case frame.ACK:
		return h.ack()
	case frame.NACK:
		return h.nack()
	case frame.SUBSCRIBE:
		return h.subscribe()
	case frame.UNSUBSCRIBE:
		return h.unsubscribe()
	case frame.BEGIN:
		return h.begin()
	case frame.COMMIT:
		return h.commit()
	case frame.ABORT:
		return h.abort()
	case frame.DISCONNECT:
		return h.disconnect()
	case frame.CONNECT, frame.STOMP:
		return core.Errorf(core.CodeConflict, "this connection is connected already")
	}
	return core.Errorf(core.CodeUnknownVerb, "%s is a frame of the server's", h.view.Command)
}

// get is the value of a header of the frame in the view. It is good until the
// next frame.
func (h *handler) get(name string) (string, bool) {
	v, ok := h.view.Get(name)
	return string(v), ok
}

// receipt is the frame's receipt header.
func (h *handler) receipt() receipt {
	id, asked := h.get(frame.Receipt)
	return receipt{id, asked}
}

// fail ends the connection from Receive: an ERROR is said, then it is closed.
func (h *handler) fail(err error) error {
	if errors.Is(err, core.ErrClosed) {
		return err
	}
	f := &failure{err: asFailure(err), command: h.view.Command}
	if f.command != "" && f.command != frame.CONNECT && f.command != frame.STOMP {
		f.receipt = h.receipt()
	}
	h.end(f)
	return &protocols.Close{Err: f.err}
}

// end notes why the connection ends. The first reason counts.
func (h *handler) end(f *failure) {
	h.state.Store(failed)
	h.mu.Lock()
	if h.failure == nil {
		h.failure = f
	}
	h.mu.Unlock()
}

// endLater is fail for the flusher.
func (h *handler) endLater(f *failure) {
	h.end(f)
	h.link.Close(&protocols.Close{Err: f.err})
}

// over says whether deliveries are pointless: what was not written goes back
// to its queue when the session closes.
func (h *handler) over() bool {
	s := h.state.Load()
	return s == leaving || s == failed
}

// Deliver makes the bytes of what is to be said. See protocols.Handler.
func (h *handler) Deliver(out []byte, ev []core.Event) []byte {
	start := len(out)
	out = h.deliverSaid(out)
	for i := range ev {
		out = h.deliverEvent(out, &ev[i])
	}
	h.settleDelivered()
	out = h.deliverLast(out)
	if h.resumable {
		h.resumable = false
		h.link.Resume()
	}
	if h.heartDue {
		h.heartDue = false
		if len(out) == start && !h.finished {
			out = append(out, '\n')
			h.link.Border(len(out), true)
		}
	}
	if len(out) > start {
		h.wrote = h.broker.Now()
	}
	return out
}

func (h *handler) deliverEvent(out []byte, e *core.Event) []byte {
	switch e.Kind {
	case core.Delivered:
		return h.message(out, e)
	case core.Confirmed:
		return h.confirmed(out, e)
	case core.Cancelled:
		return h.cancelled(out, e)
	case core.Again:
		h.link.Resume()
	case core.Evicted:
		h.endLater(&failure{err: core.AsError(e.Err)})
	case core.Drained: // we never pull, but browse
		return h.browsed(out, e)
	}
	return out
}

// settleDelivered tells the core what this Deliver has written or dropped.
func (h *handler) settleDelivered() {
	if h.released > 0 {
		h.session.Events().Release(h.released, h.bytes)
		h.released, h.bytes = 0, 0
	}
	if len(h.settled) > 0 {
		h.session.Ack(h.settled...)
		h.settled = h.settled[:0]
	}
	if len(h.returned) > 0 {
		h.session.Nack(core.Back{}, h.returned...)
		h.returned = h.returned[:0]
	}
}

// deliverLast says what is said last: ERROR, or the receipt of DISCONNECT when
// no other is owed.
func (h *handler) deliverLast(out []byte) []byte {
	if h.finished || !h.over() {
		return out
	}
	h.mu.Lock()
	f, parting, owed := h.failure, h.parting, h.owed()
	h.mu.Unlock()
	switch {
	case f != nil:
		h.finished = true
		if f.silent {
			return out
		}
		h.protocol.counts.errors.Add(1)
		out = appendError(out, h.version, f)
		h.link.Border(len(out), true)
	case owed == 0 && h.penalised.Load() == 0:
		if parting.asked {
			out = h.appendReceipt(out, parting, "")
		}
		h.finished = true
		h.link.Close(nil)
	}
	return out
}

// Closed ends the session: what was not settled goes back, open transactions
// are forgotten. STOMP 1.2, "BEGIN": they "will be implicitly aborted".
func (h *handler) Closed(error) {
	if h.session != nil {
		h.session.Close(core.Closing{})
	}
}
