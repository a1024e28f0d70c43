package stomp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// A heartBeat is what was agreed on. Zero: none in that direction.
type heartBeat struct {
	to   time.Duration // we write at least so often
	from time.Duration // the client writes at least so often
}

const (
	minBeat        = 500 * time.Millisecond // oftener than that is a load, not a sign of life
	maxBeat        = 24 * time.Hour         // beyond that it is none
	browserSilence = 75 * time.Second       // a hidden tab's timer comes once a minute
	penalty        = 500 * time.Millisecond // and up to as much again: how long a refused login waits
)

var errGreeting = &core.Error{Code: core.CodeUnauthenticated, Text: "the first frame must be CONNECT or STOMP"}

// greet takes the first frame of a connection.
func (h *handler) greet() error {
	if h.view.Command != frame.CONNECT && h.view.Command != frame.STOMP {
		return errGreeting
	}
	f := h.view.Frame()
	version, err := agree(f.Header)
	if err != nil {
		return err
	}
	if version == wire.V10 { // spaces were padding then
		f.Header = trimmed(f.Header)
	}
	h.version, h.view.Version = version, version
	if h.beat, err = agreeBeat(f.Header, version); err != nil {
		return err
	}
	return h.enter(f.Header)
}

func trimmed(h *frame.Header) *frame.Header {
	out := new(frame.Header)
	for i := range h.Len() {
		name, value := h.GetAt(i)
		out.Add(strings.Trim(name, " "), strings.Trim(value, " "))
	}
	return out
}

// agree picks the version. STOMP 1.2, "Protocol Negotiation": the highest that
// both have; without accept-version it is 1.0.
func agree(h *frame.Header) (wire.Version, error) {
	accepted, ok := h.Contains(frame.AcceptVersion)
	if !ok {
		return wire.V10, nil
	}
	best, found := wire.V10, false
	for text := range strings.SplitSeq(accepted, ",") {
		for v := wire.V10; v <= wire.V12; v++ {
			if strings.TrimSpace(text) == v.String() {
				best, found = max(best, v), true
			}
		}
	}
	if !found {
		return wire.V12, errNoVersion
	}
	return best, nil
}

// agreeBeat answers sx = max(500, cy) and sy = max(500, cx), or 0 where the
// client cannot or will not. STOMP 1.2, "Heart-beating".
func agreeBeat(h *frame.Header, version wire.Version) (b heartBeat, err error) {
	text, ok := h.Contains(frame.HeartBeat)
	if !ok || version == wire.V10 {
		return b, nil
	}
	cx, cy, err := frame.ParseHeartBeat(text)
	if err != nil {
		return b, core.Errorf(core.CodeSyntax, "header heart-beat is %s: want two numbers of milliseconds with a comma between", quoted(text))
	}
	if cy > 0 && cy <= maxBeat {
		b.to = max(minBeat, cy)
	}
	if cx > 0 && cx <= maxBeat {
		b.from = max(minBeat, cx)
	}
	return b, nil
}

// enter asks the guard who this is and opens the session. It may block, and
// so many of all connections' readers at once.
func (h *handler) enter(header *frame.Header) error {
	p := h.protocol
	if p.entering.Add(1) > maxEntering {
		p.entering.Add(-1)
		h.end(&failure{err: core.Errorf(core.CodeUnavailable, "too many logins at once"), silent: true})
		return core.ErrClosed
	}
	defer p.entering.Add(-1)
	login, err := h.loginOf(header)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.options.Limits.Login)
	defer cancel()
	id, err := h.broker.Enter(ctx, login)
	if err != nil {
		return h.refuseLogin(err)
	}
	h.names = names{vhost: id.VHost, separator: p.options.Separator, bare: p.options.Bare, isTopic: h.isTopic}
	h.view.Limits = p.limits
	h.known = make(map[string]target)
	h.subscribed = make(map[string]*subscription)
	h.state.Store(opening)
	h.session = h.broker.Open(id, core.SessionSpec{}, h.owe(answer{step: stepSession, command: h.view.Command}), h.link)
	h.link.Attach(h.session.Events())
	if tick := h.beat.tick(); tick < time.Second {
		h.link.TickEvery(tick)
	}
	return nil
}

// loginOf is what a CONNECT says of its sender. A login in the frame wins over
// what the connection came with.
func (h *handler) loginOf(header *frame.Header) (l core.Login, err error) {
	h.id = rand.Text()[:16]
	l.Identity = core.Identity{Client: h.id, Protocol: "stomp", Listener: h.peer.Listener, Remote: h.peer.Remote}
	if client := header.Get("client-id"); client != "" {
		if err := core.CheckName(client); err != nil {
			return l, err
		}
		l.Identity.Client = client
		h.client = client
	}
	if l.Identity.VHost, err = h.vhost(header.Get(frame.Host)); err != nil {
		return l, err
	}
	user, hasUser := header.Contains(frame.Login)
	pass, hasPass := header.Contains(frame.Passcode)
	switch {
	case hasUser || hasPass:
		l.Identity.User, l.Secret, h.login = user, []byte(pass), true
	case h.peer.User != "":
		l.Identity.User, l.TLS, h.login = h.peer.User, []byte(h.peer.User), true
	}
	return l, nil
}

// vhost is what a host header chooses. Clients put the address there that they
// have dialled, so what is not known chooses nothing.
func (h *handler) vhost(host string) (string, error) {
	o := &h.protocol.options
	switch {
	case host != "" && h.broker.HasVHost(host):
		return host, nil
	case o.StrictHost && host != o.VHost:
		return "", core.Errorf(core.CodeNotFound, "there is no host %s", quoted(host))
	case h.peer.VHost != "":
		return h.peer.VHost, nil
	}
	return o.VHost, nil
}

// refuseLogin lets the client wait for its ERROR, so that guessing is slow.
// Nothing sleeps: Tick says it.
func (h *handler) refuseLogin(err error) error {
	if challenge := new(core.Challenge); errors.As(err, &challenge) {
		err = core.Errorf(core.CodeUnauthenticated, "this login needs a conversation that STOMP does not have")
	}
	e := core.AsError(err)
	now := h.broker.Now()
	h.refusal = &failure{err: e, command: h.view.Command}
	h.penalised.Store(now.Add(penalty + time.Duration(now.UnixNano())%penalty).UnixNano())
	h.state.Store(leaving) // what else comes is discarded
	h.link.TickEvery(minTick)
	return nil
}

// connected says CONNECTED and lets the client go on.
func (h *handler) connected(out []byte) []byte {
	if !h.state.CompareAndSwap(opening, open) {
		return out
	}
	f := frame.New(frame.CONNECTED, frame.Version, h.version.String(), frame.Session, h.id)
	if o := &h.protocol.options; !o.HideServer {
		server := "godwit"
		if o.ServerVersion != "" {
			server += "/" + o.ServerVersion
		}
		f.Header.Add(frame.Server, server)
	}
	if h.version > wire.V10 {
		f.Header.Add(frame.HeartBeat, fmt.Sprintf("%d,%d", h.beat.to.Milliseconds(), h.beat.from.Milliseconds()))
	}
	if h.login {
		f.Header.Add("user-name", h.session.Identity().User)
	}
	out = wire.Append(out, h.version, f)
	h.link.Border(len(out), true)
	h.link.Resume()
	return out
}

// disconnect stops reading. Its RECEIPT is the last word, after every other
// that is owed. STOMP 1.2, "DISCONNECT": "all previous frames have been
// received by the server".
func (h *handler) disconnect() error {
	r := h.receipt()
	h.transactions = nil
	h.leftAt.Store(h.heard.Load())
	h.mu.Lock()
	h.parting = r
	h.mu.Unlock()
	h.state.Store(leaving)
	h.link.Wake()
	return nil
}

const minTick = 250 * time.Millisecond

// tick is how often the heart must be looked at.
func (b heartBeat) tick() time.Duration {
	shortest := 4 * time.Second
	for _, d := range []time.Duration{b.to, b.from} {
		if d > 0 {
			shortest = min(shortest, d)
		}
	}
	return max(minTick, shortest/4)
}

// due is how long after the last octet a heart-beat is written: after three
// quarters of what was agreed, and a tick before it is late.
func (b heartBeat) due() time.Duration { return min(b.to*3/4, b.to-b.tick()) }

// Tick looks at the clocks. See protocols.Handler.
func (h *handler) Tick(now time.Time) error {
	switch h.state.Load() {
	case fresh, opening:
		return h.tickGreeting(now)
	case leaving:
		return h.tickLeaving(now)
	case failed:
		return nil
	}
	if h.beat.to > 0 && now.Sub(h.wrote) >= h.beat.due() {
		h.heartDue = true
		h.link.Wake()
	}
	return h.tickReading(now)
}

func (h *handler) tickGreeting(now time.Time) error {
	if now.Sub(h.opened) < h.protocol.options.Limits.Login {
		return nil
	}
	silent := h.begun.Load() == 0
	return h.tooSlow("no CONNECT came in time", silent)
}

func (h *handler) tickLeaving(now time.Time) error {
	if due := h.penalised.Load(); due != 0 {
		if now.UnixNano() < due {
			return nil
		}
		h.end(h.refusal)
		return &protocols.Close{Err: h.refusal.err}
	}
	if now.Sub(time.Unix(0, h.leftAt.Load())) < h.protocol.options.Limits.Disconnect {
		return nil
	}
	h.finished = true // its receipt would not be true
	return &protocols.Close{}
}

// tickReading looks at what the client owes us. While we hold it back it owes
// nothing: its octets wait where we cannot see them.
func (h *handler) tickReading(now time.Time) error {
	if oldest := h.oldest.Load(); oldest != 0 && since(now, oldest) >= h.protocol.options.Limits.Transaction {
		return h.tooSlow(fmt.Sprintf("a transaction was open for %v", h.protocol.options.Limits.Transaction), false)
	}
	if h.held.Load() {
		h.heard.Store(now.UnixNano())
		return nil
	}
	if begun := h.begun.Load(); begun != 0 && since(now, begun) >= time.Duration(h.allowed.Load()) {
		return h.tooSlow("a frame did not end in time", false)
	}
	if h.beat.from > 0 && since(now, h.heard.Load()) >= h.silence() {
		return h.tooSlow("no heart-beat came in time", false)
	}
	return nil
}

// silence is how long we bear it: twice what was agreed, whatever the octets
// are. STOMP 1.2, "Heart-beating": "the receiver SHOULD be tolerant".
func (h *handler) silence() time.Duration {
	if h.peer.Subprotocol != "" && !h.protocol.options.StrictHeartBeat {
		return max(2*h.beat.from, browserSilence)
	}
	return 2 * h.beat.from
}

func since(now time.Time, nanos int64) time.Duration { return time.Duration(now.UnixNano() - nanos) }

func (h *handler) tooSlow(text string, silent bool) error {
	e := core.Errorf(core.CodeTooSlow, "%s", text)
	h.end(&failure{err: e, silent: silent})
	return &protocols.Close{Err: e}
}

// isTopic says whether an exchange compares keys by levels.
func (h *handler) isTopic(exchange string) bool {
	spec, there := h.broker.Exchange(h.names.vhost, exchange)
	return there && spec.Kind == core.TopicKind
}
