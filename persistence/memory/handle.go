package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/godwitmq/godwit/core"
)

// A handle is a partition in the hands of one owner.
type handle struct {
	store *Store
	part  *part

	// store.mu guards the rest.
	dead   error // why nothing goes any more
	lastID uint64
}

var _ core.Partition = (*handle)(nil)

func (h *handle) NextID() uint64 {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	return max(h.lastID, h.part.lastID) + 1
}

func (h *handle) Logs() []core.LogState {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	var states []core.LogState
	for id, l := range h.part.logs {
		st := core.LogState{ID: id, First: l.next, Next: l.next}
		for i := range l.records {
			if l.records[i].gone {
				continue
			}
			st.First = min(st.First, l.records[i].offset)
			st.Records++
			st.Bytes += l.records[i].size
		}
		states = append(states, st)
	}
	slices.SortFunc(states, func(a, b core.LogState) int { return cmp.Compare(a.ID, b.ID) })
	return states
}

func (h *handle) Cursors() []core.CursorState {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	var states []core.CursorState
	for id, c := range h.part.cursors {
		st := core.CursorState{ID: id, Log: c.log, Floor: c.floor, Settled: slices.Clone(c.settled)}
		if l := h.part.logs[c.log]; l != nil {
			for i := range l.records {
				if h.part.owes(id, c.log, &l.records[i]) {
					st.Depth++
					st.Bytes += l.records[i].size
				}
			}
		}
		states = append(states, st)
	}
	slices.SortFunc(states, func(a, b core.CursorState) int { return cmp.Compare(a.ID, b.ID) })
	return states
}

func (h *handle) Commit(b *core.Batch) error { return h.store.commit(h, b) }

// Fetch reads at once: Done is called before it returns.
func (h *handle) Fetch(f *core.Fetch) error {
	h.store.mu.Lock()
	l, err := h.fetchable(f)
	if err != nil {
		h.store.mu.Unlock()
		return err
	}
	f.Out = f.Out[:0]
	err = h.part.fetch(f, l)
	h.store.stats.Fetches++
	h.store.mu.Unlock()
	f.Done.Fetched(f, err)
	return nil
}

// fetchable finds the log of f. store.mu is held.
func (h *handle) fetchable(f *core.Fetch) (*log, error) {
	if h.dead != nil {
		return nil, h.dead
	}
	if h.store.failed {
		return nil, core.ErrPoisoned
	}
	l := h.part.logs[f.Log]
	if l == nil {
		return nil, fmt.Errorf("log %d: %w", f.Log, core.ErrNotFound)
	}
	if f.Cursor != 0 && h.part.cursors[f.Cursor] == nil {
		return nil, fmt.Errorf("cursor %d: %w", f.Cursor, core.ErrNotFound)
	}
	return l, nil
}

func (h *handle) Get(_ context.Context, t core.Table, key []byte) ([]byte, error) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if h.dead != nil {
		return nil, h.dead
	}
	v, ok := h.part.tables[t][string(key)]
	if !ok {
		return nil, fmt.Errorf("record %q of table %d: %w", key, t, core.ErrNotFound)
	}
	return append([]byte{}, v...), nil
}

// Scan goes through the records as they were when it was called.
func (h *handle) Scan(ctx context.Context, t core.Table, prefix []byte) iter.Seq2[core.Record, error] {
	return func(yield func(core.Record, error) bool) {
		records, err := h.snapshot(t, prefix)
		if err != nil {
			yield(core.Record{}, err)
			return
		}
		for _, r := range records {
			if err := ctx.Err(); err != nil {
				yield(core.Record{}, err)
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (h *handle) snapshot(t core.Table, prefix []byte) ([]core.Record, error) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	if h.dead != nil {
		return nil, h.dead
	}
	var records []core.Record
	for k, v := range h.part.tables[t] {
		if bytes.HasPrefix([]byte(k), prefix) {
			records = append(records, core.Record{Table: t, Key: []byte(k), Value: append([]byte{}, v...)})
		}
	}
	slices.SortFunc(records, func(a, b core.Record) int { return bytes.Compare(a.Key, b.Key) })
	return records, nil
}

// Close makes durable what this partition holds and gives it back.
func (h *handle) Close(context.Context) error {
	h.store.mu.Lock()
	if h.dead == nil {
		h.store.settle(h.part)
		h.dead = core.ErrClosed
		h.part.owner = nil
	}
	h.store.mu.Unlock()
	h.part.tell(h.store)
	return nil
}

// noteIDs keeps NextID above what b uses.
func (h *handle) noteIDs(b *core.Batch) { h.lastID = max(h.lastID, highest(b)) }

// highest is the highest id that b uses.
func highest(b *core.Batch) uint64 {
	var top uint64
	for _, c := range b.Cursors {
		top = max(top, uint64(c.ID), uint64(c.Log))
	}
	for _, s := range b.Sets {
		top = max(top, uint64(s.ID))
	}
	for i := range b.Appends {
		top = max(top, uint64(b.Appends[i].Log), uint64(b.Appends[i].Routes)&^(1<<63))
	}
	return top
}

// checkSets says whether every route set that b uses has been defined. To
// take an unknown one for an empty one would lose the message.
func (h *handle) checkSets(b *core.Batch) error {
	for i := range b.Appends {
		r := b.Appends[i].Routes
		if _, solo := r.Member(); r == 0 || solo || h.defined(r, b) {
			continue
		}
		return fmt.Errorf("bug: an append uses route set %d, which no batch has defined", r)
	}
	return nil
}

func (h *handle) defined(r core.RouteSetID, b *core.Batch) bool {
	known := h.part.sets[r] != nil
	note := func(b *core.Batch) {
		for i := range b.Sets {
			if b.Sets[i].ID == r {
				known = b.Sets[i].Members != nil
			}
		}
	}
	for _, held := range h.store.held {
		if held.by.part == h.part {
			note(held.b)
		}
	}
	note(b)
	return known
}

// ops is how many ops b has.
func ops(b *core.Batch) int {
	return len(b.Cursors) + len(b.Sets) + len(b.Appends) + len(b.Records) + len(b.Marks) + len(b.Acks) + len(b.Trims)
}

// check says whether b is within the limits.
func (o *Options) check(b *core.Batch) error {
	if n := ops(b); n > o.MaxOps {
		return fmt.Errorf("a batch of %d ops, the limit is %d: %w", n, o.MaxOps, core.ErrTooLarge)
	}
	if top := highest(b); top >= 1<<63 {
		return fmt.Errorf("bug: id %d, ids end below 2^63", top)
	}
	total := 16 * ops(b)
	for i := range b.Sets {
		total += 8 * len(b.Sets[i].Members)
	}
	for i := range b.Records {
		r := &b.Records[i]
		if len(r.Key) > o.MaxKey || len(r.Value) > o.MaxValue {
			return fmt.Errorf("a record of %d octets under a key of %d, the limits are %d and %d: %w",
				len(r.Value), len(r.Key), o.MaxValue, o.MaxKey, core.ErrTooLarge)
		}
		total += len(r.Key) + len(r.Value)
	}
	for i := range b.Appends {
		n := len(core.AppendMessage(nil, b.Appends[i].Message))
		if n > o.MaxRecord {
			return fmt.Errorf("a message of %d octets, the limit is %d: %w", n, o.MaxRecord, core.ErrTooLarge)
		}
		total += n
	}
	if total > o.MaxBatch {
		return fmt.Errorf("a batch of %d octets, the limit is %d: %w", total, o.MaxBatch, core.ErrTooLarge)
	}
	return nil
}
