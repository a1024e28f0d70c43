package stomp

import (
	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// A receipt is what a client asked for with the header receipt. An empty id
// may be asked for too.
type receipt struct {
	id    string
	asked bool
}

// A step is what follows when the core has confirmed.
type step uint8

const (
	stepReceipt  step = iota // say the receipt
	stepSession              // say CONNECTED
	stepDeclared             // the subscription's queue is there: consume it
	stepStanding             // the subscription stands
	stepResume               // the queue of a SEND is there: it comes again
	stepGone                 // the subscription's queue is removed
	stepExchange             // the exchange of a SEND is there: it comes again
)

// An answer is what the core owes us, and we the client.
type answer struct {
	step    step
	command string
	receipt receipt
	sub     *subscription
	wanted  bool // of a SEND: that nobody takes it is worth saying
	used    bool
}

// owe makes a token for a verb of the core. Its Confirmed gives it back.
func (h *handler) owe(a answer) (token uint64) {
	a.used = true
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.free); n > 0 {
		i := h.free[n-1]
		h.free = h.free[:n-1]
		h.answers[i] = a
		return uint64(i) + 1
	}
	h.answers = append(h.answers, a)
	return uint64(len(h.answers))
}

// redeem takes the answer of a token, which is free from then on. Nothing
// owed lets go of the room that a burst has taken.
func (h *handler) redeem(token uint64) (a answer, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if token == 0 || token > uint64(len(h.answers)) || !h.answers[token-1].used {
		return a, false
	}
	a, h.answers[token-1] = h.answers[token-1], answer{}
	h.free = append(h.free, uint32(token-1))
	if len(h.free) == len(h.answers) && len(h.answers) > 1024 {
		h.answers, h.free = nil, nil
	}
	h.relent()
	return a, true
}

// relent lets a client go on that waits for what it is owed. h.mu is held.
func (h *handler) relent() {
	if h.full && h.owed() <= h.protocol.options.Limits.Receipts/2 {
		h.full = false
		h.resumable = true
	}
}

// owed is how many answers are owed. h.mu is held.
func (h *handler) owed() int { return len(h.answers) - len(h.free) + len(h.said) }

// owesTooMuch says whether the client must wait for what it is owed.
func (h *handler) owesTooMuch() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.full = h.owed() >= h.protocol.options.Limits.Receipts
	return h.full
}

// sayReceipt queues a receipt that waits for nothing.
func (h *handler) sayReceipt(r receipt) {
	if !r.asked {
		return
	}
	h.mu.Lock()
	h.said = append(h.said, r)
	h.mu.Unlock()
	h.link.Wake()
}

// deliverSaid says the receipts that wait for nothing.
func (h *handler) deliverSaid(out []byte) []byte {
	h.mu.Lock()
	said := h.said
	h.said = nil
	h.relent()
	h.mu.Unlock()
	for _, r := range said {
		out = h.appendReceipt(out, r, "")
	}
	return out
}

// appendReceipt says one receipt. The id goes back as it came, in the
// version's escapes.
func (h *handler) appendReceipt(out []byte, r receipt, warning string) []byte {
	if h.finished {
		return out
	}
	out = append(out, frame.RECEIPT+"\n"...)
	out, _ = wire.AppendHeader(out, h.version, frame.ReceiptId, r.id)
	if warning != "" {
		out, _ = wire.AppendHeader(out, h.version, "warning", warning)
	}
	out = append(out, '\n', 0)
	h.link.Border(len(out), true)
	return out
}

// confirmed goes on with what the core has done, or says why it has not.
func (h *handler) confirmed(out []byte, e *core.Event) []byte {
	if e.Token == 0 {
		h.refused(e)
		return out
	}
	a, ok := h.redeem(e.Token)
	if !ok {
		return out
	}
	if e.Err != nil {
		return h.unconfirmed(out, &a, core.AsError(e.Err))
	}
	switch a.step {
	case stepSession:
		return h.connected(out)
	case stepDeclared:
		return h.declared(out, &a)
	case stepResume, stepExchange:
		h.link.Resume()
		return out
	case stepStanding:
		h.stands(a.sub)
	case stepReceipt, stepGone:
	}
	if a.receipt.asked {
		return h.appendReceipt(out, a.receipt, warningOf(&a, e))
	}
	return out
}

// nobody is said of a SEND that no queue and no reader wants: that is no
// failure, and worth knowing.
const nobody = "nobody takes it: no queue and no subscription"

func warningOf(a *answer, e *core.Event) string {
	switch {
	case a.sub != nil:
		return a.sub.warning
	case a.wanted && e.N == 0:
		return nobody
	}
	return ""
}

// unconfirmed ends the connection with what the core would not do, or goes on
// where that is no harm.
func (h *handler) unconfirmed(out []byte, a *answer, e *core.Error) []byte {
	switch {
	case a.step == stepDeclared && e.Code == core.CodeConflict && a.sub.strict:
	case a.step == stepDeclared && e.Code == core.CodeConflict && a.sub.named:
		return h.declared(out, a) // it is there, as another member made it
	case a.step == stepDeclared && e.Code == core.CodeConflict && !h.protocol.options.StrictQueues:
		a.sub.warning = "the queue exists with other settings: " + e.Text
		return h.declared(out, a)
	case a.step == stepResume && e.Code == core.CodeConflict && !h.protocol.options.StrictQueues:
		h.link.Resume()
		return out
	case a.step == stepGone:
		return out // somebody else has removed it
	}
	f := &failure{err: e, command: a.command, receipt: a.receipt}
	if e.Code == core.CodeInternal {
		// What was done is unknown, and a receipt-id would say that it was not.
		f.receipt = receipt{}
	}
	h.endLater(f)
	return out
}

// refused is what becomes of a SEND that nobody waits for. What cannot ever
// succeed ends the connection; what is of the moment is counted, as its sender
// asked not to be told.
func (h *handler) refused(e *core.Event) {
	if err := core.AsError(e.Err); err != nil && passing(err) {
		h.protocol.counts.sendsDropped.Add(1)
	} else if err != nil {
		h.endLater(&failure{err: err, command: frame.SEND})
	}
}

var _ protocols.Debtor = (*handler)(nil)

// Owes says whether receipts are still to come.
func (h *handler) Owes() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.owed() > 0
}
