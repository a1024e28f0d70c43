package stomp

import (
	"time"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
)

// A transaction is what its client wants done together. Its receipts are of
// two kinds: those of its SENDs, ACKs and NACKs say that they were taken into
// it, COMMIT's says that all of it is done and durable.
type transaction struct {
	begun time.Time
	ops   []core.Op
	bytes int
	held  []heldDeliveries
}

// heldDeliveries are deliveries that a transaction settles when it commits.
type heldDeliveries struct {
	sub     *subscription
	numbers []uint64
}

func noTransaction(name string) error {
	return core.Errorf(core.CodeNotFound, "transaction %s was not begun", quoted(name))
}

// begin opens a transaction.
func (h *handler) begin() error {
	name, ok := h.get(frame.Transaction)
	limit := h.protocol.options.Limits.Transactions
	switch {
	case !ok:
		return missing(frame.Transaction)
	case h.transactions[name] != nil:
		return core.Errorf(core.CodeConflict, "transaction %s is open already", quoted(name))
	case len(h.transactions) >= limit:
		return core.Errorf(core.CodeQuota, "%d transactions are open: more cannot be", limit)
	}
	if h.transactions == nil {
		h.transactions = make(map[string]*transaction)
	}
	h.transactions[name] = &transaction{begun: h.broker.Now()}
	h.noteOldest()
	h.sayReceipt(h.receipt())
	return nil
}

// commit does all of a transaction, or nothing and ends the connection.
func (h *handler) commit() error {
	name, ok := h.get(frame.Transaction)
	if !ok {
		return missing(frame.Transaction)
	}
	tx := h.transactions[name]
	if tx == nil {
		return noTransaction(name)
	}
	receipt := h.receipt()
	if len(tx.ops) == 0 {
		h.sayReceipt(receipt)
	} else {
		token := h.owe(answer{step: stepReceipt, command: frame.COMMIT, receipt: receipt})
		if err := h.session.Submit(tx.ops, token); err != nil {
			h.redeem(token)
			return err // ErrWait: the frame comes again, and the transaction is still there
		}
	}
	h.forget(name, tx, slotDone)
	return nil
}

// abort forgets a transaction. What it would have settled is out as before.
func (h *handler) abort() error {
	name, ok := h.get(frame.Transaction)
	if !ok {
		return missing(frame.Transaction)
	}
	tx := h.transactions[name]
	if tx == nil {
		return noTransaction(name)
	}
	h.forget(name, tx, slotOpen)
	h.sayReceipt(h.receipt())
	return nil
}

func (h *handler) forget(name string, tx *transaction, to slotState) {
	delete(h.transactions, name)
	h.noteOldest()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range tx.held {
		before := d.sub.ring.alive
		d.sub.ring.set(d.numbers, to)
		h.settledOf(d.sub, before-d.sub.ring.alive)
	}
}

// noteOldest tells Tick which transaction is open longest.
func (h *handler) noteOldest() {
	oldest := int64(0)
	for _, tx := range h.transactions {
		if at := tx.begun.UnixNano(); oldest == 0 || at < oldest {
			oldest = at
		}
	}
	h.oldest.Store(oldest)
}

// sendLater takes a message into a transaction. Whether it may be published is
// asked now, so that the client learns of it at the frame at fault.
func (h *handler) sendLater(name string, m *core.Message, r receipt) error {
	tx := h.transactions[name]
	if tx == nil {
		return noTransaction(name)
	}
	if err := h.session.May(core.Access{Do: core.ActPublish, Where: m.Address, QoS: m.QoS, Retain: m.Retain}); err != nil {
		return err
	}
	return h.later(tx, core.Op{Publish: m}, int(m.Size()), r)
}

// settleLater takes acknowledgements into a transaction.
func (h *handler) settleLater(tx *transaction, s *subscription, numbers []uint64, op core.Op, r receipt) error {
	tx.held = append(tx.held, heldDeliveries{s, numbers})
	return h.later(tx, op, len(numbers)*64, r)
}

func (h *handler) later(tx *transaction, op core.Op, size int, r receipt) error {
	l := &h.protocol.options.Limits
	if len(tx.ops) >= l.Ops || tx.bytes+size > l.OpsBytes {
		return core.Errorf(core.CodeTooLarge, "a transaction can have %d frames and %d octets", l.Ops, l.OpsBytes)
	}
	tx.ops = append(tx.ops, op)
	tx.bytes += size
	h.sayReceipt(r)
	return nil
}
