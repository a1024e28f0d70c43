package badger

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sort"
	"sync"

	"github.com/godwitmq/godwit/core"
)

// readers are the goroutines that answer fetches.
type readers struct {
	mu     sync.Mutex
	some   *sync.Cond // queue is not empty, or closed
	queue  []ask
	closed bool
	all    sync.WaitGroup
}

// An ask is one accepted fetch.
type ask struct {
	h *handle
	f *core.Fetch
}

// maxFetches bounds the fetches that wait.
const maxFetches = 65536

func (r *readers) start(s *store, n int) {
	r.some = sync.NewCond(&r.mu)
	for range n {
		r.all.Go(func() { r.run(s) })
	}
}

// run answers fetches until the readers are stopped and none is left.
func (r *readers) run(s *store) {
	var v fetching
	for {
		r.mu.Lock()
		for len(r.queue) == 0 && !r.closed {
			r.some.Wait()
		}
		if len(r.queue) == 0 {
			r.mu.Unlock()
			return
		}
		a := r.queue[0]
		r.queue[0] = ask{}
		r.queue = r.queue[1:]
		r.mu.Unlock()
		err := s.fetch(a.h.part, a.f, &v)
		s.counts.fetches.Add(1)
		a.f.Done.Fetched(a.f, err)
	}
}

func (r *readers) add(a ask) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return core.ErrClosed
	}
	if len(r.queue) >= maxFetches {
		return fmt.Errorf("%d fetches wait: %w", len(r.queue), core.ErrOverload)
	}
	r.queue = append(r.queue, a)
	r.some.Signal()
	return nil
}

func (r *readers) stop() {
	r.mu.Lock()
	r.closed = true
	r.some.Broadcast()
	r.mu.Unlock()
	r.all.Wait()
}

// Fetch hands f to the readers.
func (h *handle) Fetch(f *core.Fetch) error {
	if err := h.state(); err != nil {
		return err
	}
	p := h.part
	p.mu.RLock()
	_, hasLog := p.logs[f.Log]
	_, hasCursor := p.cursors[f.Cursor]
	p.mu.RUnlock()
	if !hasLog {
		return fmt.Errorf("log %d: %w", f.Log, core.ErrNotFound)
	}
	if f.Cursor != 0 && !hasCursor {
		return fmt.Errorf("cursor %d: %w", f.Cursor, core.ErrNotFound)
	}
	return h.s.readers.add(ask{h, f})
}

// A fetch under way. It reads in rounds: with the partition's mutex held it
// plans which blocks it will read and what of them, and then reads them
// without. What a block holds may meanwhile have been settled, or have moved
// from the journal to the database; then it plans again.
type fetching struct {
	s     *store
	p     *part
	f     *core.Fetch
	bytes int64
	from  core.Offset // everything below has been given or is not wanted

	plan  []planned
	begun int // how many of plan have been opened
	heads []planned
	gaps  [][2]core.Offset // those of plan
	spare [][]byte         // buffers for runs
	until core.Offset      // where the next plan begins
	moves int
}

// planned is what is wanted of one block. What of the block may change, a
// chunk that grows, is as it was when it was planned.
type planned struct {
	block *block
	n     int
	which []uint8
	runs  []place
	mine  [maxUses / 64]uint64 // the uses that are wanted, a bit each
	gaps  [][2]core.Offset     // and where
	marks []core.Mark

	records recordReader
	i       int         // which record it is at
	data    []byte      // what records goes through
	run     int         // the next of runs
	at      core.Offset // where it begins
}

// planBlocks bounds a round.
const planBlocks = 64

func plan(b *block) planned {
	return planned{block: b, n: b.n, which: b.which, runs: b.runs}
}

func (h *planned) want(use int) { h.mine[use/64] |= 1 << (use % 64) }

// wanted says whether the record h is at is of a use that is wanted.
func (h *planned) wanted() bool {
	use := uint8(0)
	if h.which != nil {
		use = h.which[h.i]
	}
	return h.mine[use/64]>>(use%64)&1 == 1
}

func (s *store) fetch(p *part, f *core.Fetch, v *fetching) error {
	f.Out = f.Out[:0]
	v.s, v.p, v.f, v.bytes, v.from, v.moves = s, p, f, 0, f.From, 0
	for {
		if !v.look() {
			f.Next = max(f.From, v.until)
			return nil
		}
		full, err := v.read()
		switch {
		case errors.Is(err, errMoved):
			if v.moves++; v.moves > maxMoves {
				return fmt.Errorf("bug: a block of log %d is looked for again and again", f.Log)
			}
			continue
		case err != nil:
			return err
		case full:
			f.Next = f.Out[len(f.Out)-1].Offset + 1
			return nil
		}
		v.from = v.until
	}
}

// maxMoves is how often a fetch looks for blocks again that have moved.
const maxMoves = 1000

// errMoved: a block is not where it was.
var errMoved = errors.New("moved")

// look plans a round. False: there is nothing at or after v.from; until is
// then the end of the log.
func (v *fetching) look() bool {
	v.plan, v.gaps, v.begun = v.plan[:0], v.gaps[:0], 0
	p, f := v.p, v.f
	p.mu.RLock()
	defer p.mu.RUnlock()
	v.until = 0
	l := p.logs[f.Log]
	if l == nil {
		return false // dropped in the meantime
	}
	v.until = l.next
	from := max(v.from, l.first)
	if f.Cursor == 0 {
		v.lookAtAll(l, from)
		return len(v.plan) > 0
	}
	c := p.cursors[f.Cursor]
	if c == nil || c.log != f.Log {
		return false
	}
	v.lookFor(c, max(from, c.settled.floor))
	return len(v.plan) > 0
}

// A lane is a list of blocks that do not overlap.
type lane struct {
	at     int
	blocks func(i int) *block // nil at the end
}

func (r *route) lane(from core.Offset) lane {
	return lane{at: r.search(from), blocks: func(i int) *block {
		if i < len(r.used) {
			return r.used[i].block
		}
		return nil
	}}
}

func listLane(list []*block, from core.Offset) lane {
	at := sort.Search(len(list), func(i int) bool { return from < list[i].end() })
	return lane{at: at, blocks: func(i int) *block {
		if i < len(list) {
			return list[i]
		}
		return nil
	}}
}

// lookFor plans what cursor c owes.
func (v *fetching) lookFor(c *cursor, from core.Offset) {
	lanes := make([]lane, 0, 4)
	for _, r := range c.routes {
		lanes = append(lanes, r.lane(from))
	}
	v.collect(lanes, func(b *block) (int, bool) {
		pl := plan(b)
		for _, r := range c.routes {
			if i := r.search(b.base); i < len(r.used) && r.used[i].block == b {
				pl.want(int(r.used[i].use))
			}
		}
		n, first := 0, len(v.gaps)
		for a, z := range c.settled.gaps(max(from, b.base), b.end()) {
			v.gaps = append(v.gaps, [2]core.Offset{a, z})
			n += pl.count(a, z)
		}
		pl.gaps = v.gaps[first:len(v.gaps):len(v.gaps)]
		if n == 0 {
			return 0, false
		}
		for o, attempts := range c.marks {
			if o >= b.base && o < b.end() {
				pl.marks = append(pl.marks, core.Mark{At: o, Attempts: attempts})
			}
		}
		v.plan = append(v.plan, pl)
		return n, true
	})
}

// count is how many records are wanted in [from, to).
func (h *planned) count(from, to core.Offset) (n int) {
	for i, word := range h.mine {
		for ; word != 0; word &= word - 1 {
			n += h.block.count(uint8(64*i+bits.TrailingZeros64(word)), from, to)
		}
	}
	return n
}

// lookAtAll plans every record.
func (v *fetching) lookAtAll(l *log, from core.Offset) {
	lanes := []lane{listLane(l.blocks, from)}
	for _, r := range l.routes {
		if own := r.own(); len(own) > 0 {
			lanes = append(lanes, listLane(own, from))
		}
	}
	v.collect(lanes, func(b *block) (int, bool) {
		pl := plan(b)
		for i := range b.uses {
			pl.want(i)
		}
		pl.gaps = [][2]core.Offset{{max(from, b.base), b.end()}}
		v.plan = append(v.plan, pl)
		return b.n, true
	})
}

// collect goes through the lanes in the order of their blocks' bases until
// there is enough. want plans a block, and says how many records that is.
func (v *fetching) collect(lanes []lane, want func(*block) (int, bool)) {
	records := 0
	var bytes int64
	var seen map[*block]struct{}
	if len(lanes) > 1 {
		seen = map[*block]struct{}{}
	}
	for {
		var next *lane
		var first *block
		for i := range lanes {
			if b := lanes[i].blocks(lanes[i].at); b != nil && (first == nil || b.base < first.base) {
				next, first = &lanes[i], b
			}
		}
		if first == nil {
			return
		}
		if _, twice := seen[first]; twice || v.f.From == 0 && first.maxTime < v.f.Since {
			next.at++
			continue
		}
		enough := len(v.plan) >= planBlocks || v.f.Records > 0 && records > v.f.Records || v.f.Bytes > 0 && bytes > int64(v.f.Bytes)
		if enough && first.base > v.from {
			v.until = first.base
			return
		}
		next.at++
		if seen != nil {
			seen[first] = struct{}{}
		}
		if n, any := want(first); any {
			records += n
			bytes += first.bytes * int64(n) / int64(first.n)
		}
	}
}

// read reads what is planned in the order of offsets, up to until; full: a
// limit was reached.
func (v *fetching) read() (full bool, err error) {
	v.heads = v.heads[:0]
	for {
		least := v.leastHead()
		for v.begun < len(v.plan) && (least < 0 || v.plan[v.begun].block.base < v.heads[least].records.offset) {
			h := v.plan[v.begun]
			v.begun++
			if more, err := v.open(&h); err != nil {
				return false, err
			} else if more {
				v.heads = append(v.heads, h)
			} else {
				v.giveBack(&h)
			}
			least = v.leastHead()
		}
		if least < 0 || v.heads[least].records.offset >= v.until {
			return false, nil
		}
		h := &v.heads[least]
		if full, err = v.take(h); full || err != nil {
			return full, err
		}
		more, err := v.next(h)
		if err != nil {
			return false, err
		}
		if !more {
			v.giveBack(h)
			v.heads = slices.Delete(v.heads, least, least+1)
		}
	}
}

// giveBack keeps the buffer of a chunk that has been read: messages are copies.
func (v *fetching) giveBack(h *planned) {
	if h.block.chunk() && len(v.spare) < 4 && cap(h.data) <= 64<<10 {
		v.spare = append(v.spare, h.data)
	}
	h.data = nil
}

// leastHead is the open block whose next record has the lowest offset; -1:
// none is open.
func (v *fetching) leastHead() int {
	least := -1
	for i := range v.heads {
		if least < 0 || v.heads[i].records.offset < v.heads[least].records.offset {
			least = i
		}
	}
	return least
}

// take gives the reader the record that h is at.
func (v *fetching) take(h *planned) (full bool, err error) {
	f, r := v.f, &h.records
	if r.offset < v.from {
		return false, nil // one that is in the blocks of several owners
	}
	m, err := core.DecodeMessage(r.message)
	if err != nil {
		return false, &core.CorruptError{Log: f.Log, From: r.offset, To: r.offset + 1, Text: err.Error()}
	}
	size := m.Size()
	if len(f.Out) > 0 && f.Bytes > 0 && v.bytes+size > int64(f.Bytes) {
		return true, nil
	}
	v.bytes += size
	f.Out = append(f.Out, core.Stored{Offset: r.offset, Time: r.time, Attempts: h.attempts(r.offset), Message: m})
	v.from = r.offset + 1
	return f.Records > 0 && len(f.Out) >= f.Records, nil
}

func (h *planned) attempts(o core.Offset) uint16 {
	for i := range h.marks {
		if h.marks[i].At == o {
			return h.marks[i].Attempts
		}
	}
	return 0
}

// open reads a block, or a chunk's first run, and goes to the first record
// that is wanted.
func (v *fetching) open(h *planned) (more bool, err error) {
	h.at, h.i = h.block.base, -1
	if h.block.chunk() {
		if n := len(v.spare); n > 0 {
			h.data, v.spare = v.spare[n-1], v.spare[:n-1]
		}
		return v.next(h)
	}
	if h.data, err = v.s.readBlock(v.p.id, v.f.Log, h.block); err == nil {
		h.records, err = openBlock(h.data)
	}
	if err == nil && h.records.offset != h.block.base {
		err = fmt.Errorf("it begins at offset %d, its key says %d", h.records.offset, h.block.base)
	}
	if err != nil {
		return false, v.failed(h.block, err)
	}
	return v.next(h)
}

// next goes to the next record of h that is wanted.
func (v *fetching) next(h *planned) (more bool, err error) {
	for {
		for h.records.next() {
			h.i++
			if h.i >= h.n {
				return false, v.failed(h.block, fmt.Errorf("it holds more than the %d records of its index", h.n))
			}
			if h.wants() && (v.f.From != 0 || h.records.time >= v.f.Since) {
				return true, nil
			}
		}
		if h.records.err != nil {
			return false, v.failed(h.block, h.records.err)
		}
		if !h.block.chunk() || h.run == len(h.runs) {
			return false, nil
		}
		if err := v.nextRun(h); err != nil {
			return false, v.failed(h.block, err)
		}
	}
}

// wants says whether the record h is at is wanted.
func (h *planned) wants() bool {
	o := h.records.offset
	for len(h.gaps) > 0 && o >= h.gaps[0][1] {
		h.gaps = h.gaps[1:]
	}
	if len(h.gaps) == 0 || o < h.gaps[0][0] {
		return false
	}
	return h.wanted()
}

// nextRun reads the next run of a chunk of which something is wanted.
func (v *fetching) nextRun(h *planned) error {
	for ; h.run < len(h.runs); h.run++ {
		p := &h.runs[h.run]
		end := h.at + core.Offset(p.n)
		if len(h.gaps) > 0 && h.gaps[0][0] < end && h.wantedIn(h.i+1, int(p.n)) {
			var err error
			if h.data, err = v.s.readRun(h.block, p, h.data); err == nil {
				h.records, err = openRun(h.data, h.at, p)
			}
			h.run++
			h.at = end
			return err
		}
		h.i += int(p.n)
		h.at = end
	}
	return nil
}

// wantedIn says whether one of n records from the i-th on is of a use that is
// wanted: most runs have nothing for one of many cursors, and are not read.
func (h *planned) wantedIn(i, n int) bool {
	if h.which == nil {
		return true
	}
	for _, use := range h.which[i:min(i+n, len(h.which))] {
		if h.mine[use/64]>>(use%64)&1 == 1 {
			return true
		}
	}
	return false
}

// failed says what it means that a block cannot be read: that it is not what
// or where it was any more, or damage. A rewrite changes the database before
// the memory, so what is at rest is looked at again when none is under way.
func (v *fetching) failed(b *block, err error) error {
	if v.gone(b) {
		return errMoved
	}
	if !b.chunk() {
		v.s.points.turn.Lock()
		v.s.points.turn.Unlock() //nolint:staticcheck // it is only waited for
		if v.gone(b) {
			return errMoved
		}
	}
	if err := v.s.poisoned(); err != nil {
		return err // perhaps nothing can be read any more, which is no damage
	}
	return damaged(v.f.Log, b, err)
}

func (v *fetching) gone(b *block) bool {
	v.p.mu.RLock()
	defer v.p.mu.RUnlock()
	return b.gone
}

// damaged makes a CorruptError of what is wrong with a block.
func damaged(l core.LogID, b *block, err error) error {
	if _, ok := errors.AsType[*core.CorruptError](err); ok {
		return err
	}
	return &core.CorruptError{Log: l, From: b.base, To: b.end(), Text: "a block cannot be read (" + err.Error() + "): restore a backup, or skip it"}
}

// readRun reads a run of the journal into buf.
func (s *store) readRun(b *block, p *place, buf []byte) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(p.len))[:p.len]
	return buf, s.journal.ReadAt(b.segment, buf, p.at)
}

// readBlock reads a block at rest.
func (s *store) readBlock(p core.PartitionID, l core.LogID, b *block) ([]byte, error) {
	id := b.id(p, l)
	value, err := s.db.Get(id.key(kindBlock))
	for n := uint16(1); n <= b.pieces && err == nil; n++ {
		var piece []byte
		if piece, err = s.db.Get(id.piece(n)); err == nil {
			value = append(value, piece...)
		}
	}
	return value, err
}
