package line

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// A heldKind is what the answer that Receive waits for will mean.
type heldKind uint8

const (
	heldNothing   heldKind = iota
	heldHello              // OK v=1 ...
	heldAnonymous          // silent: the verb behind it comes again
	heldApply              // OK
	heldPurge              // OK n=
	heldPrivate            // the private queue of an acked live subscription; then heldSub
	heldSub                // OK sid=
	heldGet                // then the pull begins
)

// held is the one request that waits for its answer.
type held struct {
	what    heldKind
	token   uint64
	welcome string
	sub     *subscription
	pull    chore
}

// hold notes that the answer to a request of our own is waited for. It comes
// before the verb is called: the answer may be quicker than its return.
func (h *handler) hold(w held) (token uint64) {
	w.token = h.newToken()
	h.mu.Lock()
	h.held = w
	h.mu.Unlock()
	return w.token
}

// hello logs in.
func (h *handler) hello(r *request) error {
	if string(r.arg(0)) != "1" {
		return h.fatal(core.Errorf(core.CodeBadValue, "version %q: this server speaks 1, say HELLO 1", clip(r.arg(0))))
	}
	if h.state != stateNew {
		return core.Errorf(core.CodeConflict, "HELLO comes once, and first")
	}
	login, err := h.login(r)
	if err != nil {
		return err
	}
	h.hb = time.Duration(r.num[helloHb])
	if !r.has(helloHb) {
		h.hb = 0
	}
	if r.has(helloPid) {
		pid, err := r.value(helloPid)
		if err != nil {
			return err
		}
		if err := core.CheckName(pid); err != nil {
			return err
		}
		h.pid = pid
	}
	return h.enter(login, heldHello)
}

func (h *handler) login(r *request) (l core.Login, err error) {
	secret := r.has(helloPass) || r.has(helloToken)
	switch {
	case r.has(helloToken) && (r.has(helloUser) || r.has(helloPass)):
		return l, core.Errorf(core.CodeBadValue, "token= stands alone, without user= and pass=")
	case r.has(helloPass) && !r.has(helloUser):
		return l, core.Errorf(core.CodeBadValue, "pass= needs user=")
	case secret && !h.link.Peer().Secure && !h.options.PlaintextLogin:
		return l, core.Errorf(core.CodeUnauthenticated, "a password or token in plain text: use TLS")
	}
	for _, w := range []struct {
		option int
		to     *string
	}{
		{helloUser, &l.Identity.User},
		{helloClient, &l.Identity.Client},
		{helloVHost, &l.Identity.VHost},
	} {
		if !r.has(w.option) {
			continue
		}
		text, err := r.value(w.option)
		if err != nil {
			return l, err
		}
		if err := core.CheckName(text); err != nil {
			return l, err
		}
		*w.to = text
	}
	for _, option := range []int{helloPass, helloToken} {
		if r.has(option) {
			text, err := r.value(option)
			if err != nil {
				return l, err
			}
			l.Secret = []byte(text)
		}
	}
	return l, nil
}

// enter asks the guard, and opens a session for whom it lets in.
func (h *handler) enter(l core.Login, what heldKind) error {
	peer := h.link.Peer()
	l.Identity.Protocol, l.Identity.Listener, l.Identity.Remote = "line", peer.Listener, peer.Remote
	if l.Identity.VHost == "" {
		l.Identity.VHost = peer.VHost
	}
	if peer.User != "" {
		l.TLS = []byte(peer.User)
	}
	ctx, cancel := context.WithCancel(context.Background()) // Tick ends it after 10 s
	h.cancel.Store(&cancel)
	id, err := h.broker.Enter(ctx, l)
	cancel()
	if err != nil {
		return h.fatal(loginError(err))
	}
	if id.Limits.Subscriptions == 0 {
		id.Limits.Subscriptions = h.options.Subscriptions
	}
	h.name = h.protocol.session()
	token := h.hold(held{what: what, welcome: h.welcome(&id)})
	h.state = stateOpen
	h.session = h.broker.Open(id, core.SessionSpec{Unanswered: h.options.Unconfirmed, Producer: h.pid}, token, h.link)
	h.identity = h.session.Identity()
	h.link.Attach(h.session.Events())
	return errHeld
}

func loginError(err error) *core.Error {
	if _, ok := errors.AsType[*core.Challenge](err); ok {
		return core.Errorf(core.CodeUnauthenticated, "this login needs more than HELLO can say")
	}
	return core.AsError(err)
}

// welcome is HELLO's OK. Its limits are what a client must keep to.
func (h *handler) welcome(id *core.Identity) string {
	out := append([]byte("OK v=1 server="), appendEscaped(nil, h.options.Server, 0)...)
	out = appendOption(out, "sess", h.name)
	out = appendOption(out, "vhost", id.VHost)
	out = appendOption(out, "user", id.User)
	for _, w := range []struct {
		name string
		n    int
	}{
		{"max", h.options.MaxPayload},
		{"line", h.options.MaxLine},
		{"subs", h.options.Subscriptions},
		{"pubs", h.options.Unconfirmed},
	} {
		out = append(out, ' ')
		out = append(out, w.name...)
		out = append(out, '=')
		out = strconv.AppendInt(out, int64(w.n), 10)
	}
	return string(append(out, '\n'))
}

// answered is the answer to the request that is held. h.mu is held.
func (h *handler) answered(out []byte, e *core.Event) []byte {
	w := h.held
	h.held = held{}
	err := core.AsError(e.Err)
	switch w.what {
	case heldHello, heldAnonymous:
		if err != nil {
			h.bye(appendFatal(nil, err))
			h.chore(chore{what: doClose, err: err})
			return out
		}
		if w.what == heldHello {
			out = append(out, w.welcome...)
			if h.pid != "" && e.Resumed != nil {
				out = strconv.AppendUint(append(out[:len(out)-1], " last="...), e.Resumed.Last, 10)
				out = append(out, '\n')
			}
		}
		h.opened.Store(true)
		h.beat.Store(int64(h.hb))
		h.link.TickEvery(h.pace())
	case heldApply, heldPurge:
		if err != nil {
			out = h.errOut(out, err, subject{})
			break
		}
		out = append(out, "OK"...)
		if w.what == heldPurge {
			out = append(out, " n="...)
			out = strconv.AppendUint(out, e.N, 10)
		}
		out = append(out, '\n')
	case heldPrivate, heldSub, heldGet:
		var goes bool
		if out, goes = h.subscribed(out, &w, err); goes {
			return out
		}
	case heldNothing:
	}
	h.chore(chore{what: doResume})
	return out
}

// pace is how often Tick is needed.
func (h *handler) pace() time.Duration {
	if h.hb > 0 {
		return min(max(h.hb/4, 250*time.Millisecond), time.Second)
	}
	return time.Second
}

func (h *handler) ping(r *request) error {
	h.reply(func(out []byte) []byte {
		out = append(out, "PONG"...)
		if r.nargs > 0 {
			out = append(out, ' ')
			out = append(out, r.arg(0)...)
		}
		return append(out, '\n')
	})
	return nil
}

// quit ends politely: Deliver says OK when nothing is owed any more. An open
// batch is aborted.
func (h *handler) quit(*request) error {
	h.mu.Lock()
	h.batch = nil
	h.quitting, h.quitAt = true, h.broker.Now()
	h.mu.Unlock()
	h.link.Wake()
	return errHeld
}

var _ protocols.Debtor = (*handler)(nil)

// Owes says whether CONFIRMs or a GET's END are still to come.
func (h *handler) Owes() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.owed.list) > 0 || len(h.commits) > 0 {
		return true
	}
	for _, s := range h.subs.byID {
		if s.pulling {
			return true
		}
	}
	return false
}
