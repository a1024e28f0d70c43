package badger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/lsm"
)

// A handle is a partition in the hands of one owner.
type handle struct {
	s       *store
	part    *part
	cursors []core.CursorState // as of Open

	dead     error // why nothing goes any more; store.mu
	inFlight int   // batches accepted and not told; store.mu
}

var _ core.Partition = (*handle)(nil)

// Open loads a partition if need be and takes it over. Batches of an earlier
// owner that are not written yet get ErrFenced.
func (s *store) Open(ctx context.Context, id core.PartitionID) (core.Partition, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if err := errors.Join(ctx.Err(), s.poisoned()); err != nil {
		return nil, err
	}
	p, err := s.part(id)
	if err != nil {
		return nil, err
	}
	h := &handle{s: s, part: p}
	before, err := s.takeOver(h)
	if err != nil {
		return nil, err
	}
	s.awaitEnd(before)
	if h.cursors, err = s.cursorStates(p); err != nil {
		return nil, err
	}
	return h, nil
}

// takeOver makes h the owner of its partition, and gives the one before it.
func (s *store) takeOver(h *handle) (before *handle, err error) {
	s.turn.Lock() // whoever has the turn may be writing for the owner before us
	defer s.turn.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, core.ErrClosed
	}
	before = h.part.owner
	if before != nil {
		before.dead = core.ErrFenced
	}
	h.part.owner = h
	return before, nil
}

// awaitEnd waits until all batches of an owner that is fenced are told: what
// was written for it may not have reached the memory yet that the next one
// looks at.
func (s *store) awaitEnd(before *handle) {
	if before == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry++
	s.wake()
	for before.inFlight > 0 {
		s.settled.Wait()
	}
	s.hurry--
}

// part finds a partition, or makes it: its first batch will make it durable.
func (s *store) part(id core.PartitionID) (*part, error) {
	s.mu.Lock()
	p, closed := s.parts[id], s.closed
	s.mu.Unlock()
	if closed {
		return nil, core.ErrClosed
	}
	if p != nil {
		return p, nil
	}
	p = newPart(id)
	s.mu.Lock()
	s.parts[id] = p
	s.mu.Unlock()
	return p, nil
}

// lost is why the batches of h are not written: it is fenced. A handle that is
// closed has none left.
func (s *store) lost(h *handle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.dead
}

// state is why nothing goes any more, or nil.
func (h *handle) state() error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return h.stateLocked()
}

func (h *handle) stateLocked() error {
	switch {
	case h.dead != nil:
		return h.dead
	case h.s.closed:
		return core.ErrClosed
	}
	return h.s.poisoned()
}

func (h *handle) NextID() uint64 {
	h.part.mu.RLock()
	last := h.part.lastID
	h.part.mu.RUnlock()
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return max(last, h.part.accepted) + 1
}

// Logs counts what is stored: a block of which a part is settled counts whole.
func (h *handle) Logs() []core.LogState {
	h.part.mu.RLock()
	defer h.part.mu.RUnlock()
	states := make([]core.LogState, 0, len(h.part.logs))
	for _, l := range h.part.logs {
		states = append(states, l.state())
	}
	slices.SortFunc(states, func(a, b core.LogState) int { return cmp.Compare(a.ID, b.ID) })
	return states
}

// state is l as readers see it. The head of a block that was trimmed counts by
// its share.
func (l *log) state() core.LogState {
	st := core.LogState{ID: l.id, First: l.next, Next: l.next}
	for _, lane := range l.lanes() {
		for i, b := range lane {
			n, bytes := b.n, b.bytes
			if b.base < l.first {
				n = 0
				for use := range b.uses {
					n += b.count(uint8(use), l.first, b.end())
				}
				bytes = b.bytes * int64(n) / int64(b.n)
			}
			if i == 0 {
				st.First = min(st.First, max(b.base, l.first))
			}
			st.Records += int64(n)
			st.Bytes += bytes
		}
	}
	return st
}

func (h *handle) Cursors() []core.CursorState { return h.cursors }

// Commit encodes b and stages it.
func (h *handle) Commit(b *core.Batch) error {
	if err := h.s.refuses(b); err != nil {
		return err
	}
	st := stagedPool.Get().(*staged)
	if err := st.prepare(h, b); err != nil {
		st.recycle()
		return err
	}
	s := h.s
	s.mu.Lock()
	if err := s.stage(st); err != nil {
		s.mu.Unlock()
		st.recycle()
		return err
	}
	wake := b.Wait || len(s.staged) == 1 || s.pending.Load() > s.profile.staging/2
	s.mu.Unlock()
	if wake {
		s.wake()
	}
	return nil
}

// refuses says why no messages are taken: there is no room for them.
func (s *store) refuses(b *core.Batch) error {
	if len(b.Appends) > 0 && s.readOnly() {
		st := s.space.State()
		return fmt.Errorf("%d MB are free, %d are kept to settle and delete with: %w", st.Spare>>20, st.Reserve>>20, core.ErrReadOnly)
	}
	return nil
}

// stage accepts st. s.mu is held.
func (s *store) stage(st *staged) error {
	h, b := st.handle, st.batch
	if err := h.stateLocked(); err != nil {
		return err
	}
	if pending := s.pending.Load(); pending > 2*s.profile.staging {
		return fmt.Errorf("%d bytes wait for the disk: %w", pending, core.ErrOverload)
	}
	if err := s.behind(b); err != nil {
		return err
	}
	if err := h.part.checkSets(b); err != nil {
		return err
	}
	h.part.noteSets(b)
	h.part.accepted = max(h.part.accepted, highest(b))
	h.inFlight++
	st.at = time.Now()
	s.pending.Add(st.size)
	s.staged = append(s.staged, st)
	if b.Wait {
		s.waiting++
	}
	return nil
}

// checkSets says whether the route sets that b uses are defined. To take an
// unknown one for an empty one would lose the message.
func (p *part) checkSets(b *core.Batch) error {
	for i := range b.Appends {
		r := b.Appends[i].Routes
		if _, solo := r.Member(); r == 0 || solo {
			continue
		}
		if p.definedFor(b, r) {
			continue
		}
		return fmt.Errorf("bug: an append uses route set %d, which no batch has defined", r)
	}
	return nil
}

// definedFor says whether a set can be used by b: its own sets come first, the
// last word counts, and to retire one while it is used would lose messages.
func (p *part) definedFor(b *core.Batch, r core.RouteSetID) bool {
	_, ok := p.defined[r]
	for i := range b.Sets {
		if b.Sets[i].ID == r {
			ok = b.Sets[i].Members != nil
		}
	}
	return ok
}

// definedIn says whether b itself defines a set.
func definedIn(b *core.Batch, r core.RouteSetID) bool {
	return slices.ContainsFunc(b.Sets, func(s core.RouteSet) bool { return s.ID == r && s.Members != nil })
}

func (p *part) noteSets(b *core.Batch) {
	for i := range b.Sets {
		if b.Sets[i].Members == nil {
			delete(p.defined, b.Sets[i].ID)
		} else {
			p.defined[b.Sets[i].ID] = struct{}{}
		}
	}
}

// ops is how many ops b has.
func ops(b *core.Batch) int {
	return len(b.Cursors) + len(b.Sets) + len(b.Appends) + len(b.Records) + len(b.Marks) + len(b.Acks) + len(b.Trims)
}

// prepare checks b against the limits and encodes it.
func (st *staged) prepare(h *handle, b *core.Batch) error {
	c := &h.s.profile
	st.handle, st.batch = h, b
	if n := ops(b); n > c.maxOps {
		return fmt.Errorf("a batch of %d ops, the limit is %d: %w", n, c.maxOps, core.ErrTooLarge)
	}
	if top := highest(b); top >= 1<<63 {
		return fmt.Errorf("bug: id %d, ids end below 2^63", top)
	}
	for i := range b.Trims {
		if b.Trims[i].Compact {
			return core.NotYet("compacting a stream in this store")
		}
	}
	for i := range b.Records {
		r := &b.Records[i]
		if len(r.Key) > c.maxKey || len(r.Value) > c.maxValue {
			return fmt.Errorf("a record of %d octets under a key of %d, the limits are %d and %d: %w",
				len(r.Value), len(r.Key), c.maxValue, c.maxKey, core.ErrTooLarge)
		}
	}
	if err := st.encode(h.part, b); err != nil {
		return err
	}
	if len(st.encoded) > c.maxBatch {
		return fmt.Errorf("a batch of %d octets, the limit is %d: %w", len(st.encoded), c.maxBatch, core.ErrTooLarge)
	}
	st.size = int64(len(st.encoded)) + 64
	return nil
}

func (h *handle) Get(_ context.Context, t core.Table, key []byte) ([]byte, error) {
	if err := h.state(); err != nil {
		return nil, err
	}
	k := recordKey(h.part.id, t, key)
	v, known := h.part.pending(k)
	if !known {
		var err error
		if v, err = h.s.db.Get(k); err != nil && !errors.Is(err, lsm.ErrNotFound) {
			return nil, err
		}
	}
	if v == nil {
		return nil, fmt.Errorf("record %q of table %d: %w", key, t, core.ErrNotFound)
	}
	return append([]byte{}, v...), nil
}

// pending is a value that is not in the database yet.
func (p *part) pending(key []byte) (value []byte, known bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if value, known = p.fresh.get(key); !known {
		value, known = p.unfit.get(key)
	}
	return value, known
}

// Scan goes through the records as they were when it began, or newer. It
// should not take long: as long as it lasts, what it may still see is kept on
// the disk.
func (h *handle) Scan(ctx context.Context, t core.Table, prefix []byte) iter.Seq2[core.Record, error] {
	return func(yield func(core.Record, error) bool) {
		if err := h.state(); err != nil {
			yield(core.Record{}, err)
			return
		}
		start := recordKey(h.part.id, t, prefix)
		head := len(start) - len(prefix)
		give := func(key string, value []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !yield(core.Record{Table: t, Key: []byte(key[head:]), Value: append([]byte{}, value...)}, nil) {
				return errLeft
			}
			return nil
		}
		err := h.scan(start, give)
		if err != nil && !errors.Is(err, errLeft) {
			yield(core.Record{}, err)
		}
	}
}

// scan merges what is pending and what is at rest, in key order.
func (h *handle) scan(start []byte, give func(key string, value []byte) error) error {
	newer := map[string][]byte{}
	h.part.mu.RLock()
	h.part.unfit.below(string(start), newer)
	h.part.fresh.below(string(start), newer)
	h.part.mu.RUnlock()
	keys := slices.Sorted(maps.Keys(newer))
	pending := func(upTo string, all bool) error {
		for len(keys) > 0 && (all || keys[0] < upTo) {
			k := keys[0]
			keys = keys[1:]
			if newer[k] == nil {
				continue
			}
			if err := give(k, newer[k]); err != nil {
				return err
			}
		}
		return nil
	}
	err := h.s.db.Scan(start, nil, true, func(key, value []byte) error {
		k := string(key)
		if err := pending(k, false); err != nil {
			return err
		}
		if _, known := newer[k]; known {
			return nil // pending says it next, or it is deleted
		}
		return give(k, value)
	})
	if err == nil {
		err = pending("", true)
	}
	return err
}

// errLeft: the caller of a scan has seen enough.
var errLeft = errors.New("left")

// Close waits for the batches that were accepted and gives the partition back.
func (h *handle) Close(ctx context.Context) error {
	s := h.s
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.settled.Broadcast()
		s.mu.Unlock()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry++
	s.wake()
	for h.inFlight > 0 && ctx.Err() == nil {
		s.settled.Wait()
	}
	s.hurry--
	if h.inFlight > 0 {
		return fmt.Errorf("closing partition %d: %d batches are still being written: %w", h.part.id, h.inFlight, ctx.Err())
	}
	if h.dead == nil {
		h.dead = core.ErrClosed
		h.part.owner = nil
	}
	return nil
}
