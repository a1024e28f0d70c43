package line

import (
	"errors"
	"slices"
	"time"

	"github.com/godwitmq/godwit/core"
)

// A batch is what stands between BEGIN and COMMIT, held and not done.
type batch struct {
	began   time.Time
	ops     []core.Op
	bytes   int64
	settles []settling
	dropped *core.Error // told when somebody asks
	refused bool
}

// settling are deliveries that a batch settles.
type settling struct {
	sub  *subscription
	seqs []uint64
}

// A commit is a batch on its way.
type commit struct {
	token   uint64
	settles []settling
}

func (b *batch) drop(why *core.Error) {
	b.ops, b.bytes, b.settles = nil, 0, nil
	if b.dropped == nil {
		b.dropped = why
	}
}

func (h *handler) inBatch() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.batch != nil
}

func (h *handler) begin(*request) error {
	if h.inBatch() {
		return core.Errorf(core.CodeConflict, "a batch is open: COMMIT or ABORT comes first")
	}
	h.mu.Lock()
	h.batch = &batch{began: h.broker.Now()}
	h.mu.Unlock()
	return nil
}

// enlist holds an op for COMMIT. It is checked at once.
func (h *handler) enlist(r *request, op core.Op, size int64, settles ...settling) error {
	if r.id() > 0 {
		return core.Errorf(core.CodeBadValue, "in a batch COMMIT alone has an id")
	}
	if m := op.Publish; m != nil {
		if err := h.session.May(core.Access{Do: core.ActPublish, Where: m.Address, QoS: m.QoS, Retain: m.Retain}); err != nil {
			return core.AsError(err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.batch
	switch {
	case b.dropped != nil && b.refused:
		return nil // it was said
	case b.dropped != nil:
		return b.dropped
	case len(b.ops) >= maxBatchOps:
		return core.Errorf(core.CodeTooLarge, "a batch has %d operations at most; it is dropped", maxBatchOps)
	case b.bytes+size > maxBatchBytes:
		return core.Errorf(core.CodeTooLarge, "a batch has %d octets at most; it is dropped", maxBatchBytes)
	}
	b.ops = append(b.ops, op)
	b.bytes += size
	b.settles = append(b.settles, settles...)
	return nil
}

// failBatch notes that something in a batch was refused: it is all or nothing.
func (h *handler) failBatch(e *core.Error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.batch != nil {
		h.batch.refused = true
		h.batch.drop(e)
	}
}

func (h *handler) commit(r *request) error {
	h.mu.Lock()
	b := h.batch
	h.mu.Unlock()
	if b == nil {
		return core.Errorf(core.CodeConflict, "no batch is open: BEGIN comes first")
	}
	id, err := h.rising(r, only)
	if err == nil && b.dropped != nil {
		err = core.Errorf(core.CodePrecondition, "nothing of the batch is done: %s", b.dropped.Text)
	}
	if err == nil {
		err = h.submit(b, uint64(id))
	}
	if errors.Is(err, core.ErrWait) || errors.Is(err, core.ErrClosed) {
		return err
	}
	h.mu.Lock()
	h.batch = nil
	h.mu.Unlock()
	return err
}

// submit hands a batch to core. What it settles stays with the client until
// the answer.
func (h *handler) submit(b *batch, id uint64) error {
	if len(b.ops) == 0 && id == 0 {
		return nil
	}
	token := id
	if id == 0 {
		token = h.newToken()
	} else if !h.owe(id, 0) {
		return core.ErrWait
	}
	if len(b.ops) == 0 {
		h.lastID = int64(id)
		h.session.Answer(id, nil)
		return nil
	}
	h.mu.Lock()
	h.commits = append(h.commits, commit{token, b.settles})
	h.mu.Unlock()
	if err := h.session.Submit(b.ops, token); err != nil {
		h.mu.Lock()
		h.commits = h.commits[:len(h.commits)-1]
		h.mu.Unlock()
		h.unowe(id)
		return err
	}
	if id > 0 {
		h.lastID = int64(id)
	}
	return nil
}

// committed is the answer to a COMMIT without id: silent unless it failed.
func (h *handler) committed(out []byte, e *core.Event) []byte {
	h.settled(e)
	if e.Err != nil {
		out = h.errOut(out, core.AsError(e.Err), subject{})
	}
	return out
}

// settled takes what a batch has settled out of the tables. h.mu is held.
func (h *handler) settled(e *core.Event) {
	at := slices.IndexFunc(h.commits, func(c commit) bool { return c.token == e.Token })
	if at < 0 {
		return
	}
	c := h.commits[at]
	h.commits = slices.Delete(h.commits, at, at+1)
	if e.Err != nil {
		return // nothing was done: they are still the client's
	}
	for _, s := range c.settles {
		for _, seq := range s.seqs {
			s.sub.unsettled.settle(seq)
		}
		h.free(s.sub, len(s.seqs))
	}
}

func (h *handler) abort(*request) error {
	if !h.inBatch() {
		return core.Errorf(core.CodeConflict, "no batch is open: BEGIN comes first")
	}
	h.mu.Lock()
	h.batch = nil
	h.mu.Unlock()
	return nil
}
