package badger

import (
	"errors"
	"fmt"
	"sort"
	"sync"

	"github.com/dgraph-io/badger/v4"

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
	var view view
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
		err := s.fetch(a.h.part, a.f, &view)
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

// A view is what a fetch wants of one block, found with the partition's mutex
// held, so that the block can be read without it.
type view struct {
	block *block
	wants []bool // by record
	marks []core.Mark
	end   core.Offset // of what readers may see
}

// fetch reads block by block until a limit is reached or nothing is left.
func (s *store) fetch(p *part, f *core.Fetch, v *view) error {
	f.Out = f.Out[:0]
	var bytes int64
	for from := f.From; ; from = v.block.end() {
		if !p.view(f, from, v) {
			f.Next = max(f.From, v.end)
			return nil
		}
		full := false
		err := s.readBlock(p.id, f.Log, v.block, func(r *blockReader) (err error) {
			full, err = v.read(f, r, &bytes)
			return err
		})
		if errors.Is(err, badger.ErrKeyNotFound) && p.wasFreed(v.block) {
			continue // it was settled in the meantime
		}
		if err != nil {
			return damaged(f.Log, v.block, err)
		}
		if full {
			f.Next = f.Out[len(f.Out)-1].Offset + 1
			return nil
		}
	}
}

// damaged makes a CorruptError of what is wrong with a block.
func damaged(l core.LogID, b *block, err error) error {
	if _, ok := errors.AsType[*core.CorruptError](err); ok {
		return err
	}
	return &core.CorruptError{Log: l, From: b.base, To: b.end(), Text: "a block cannot be read (" + err.Error() + "): restore a backup, or skip it"}
}

// wasFreed says whether a block was deleted since it was looked at.
func (p *part) wasFreed(b *block) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return b.gone
}

// view finds the next block with something for f at or after from, and what.
func (p *part) view(f *core.Fetch, from core.Offset, v *view) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	v.end = 0
	l := p.logs[f.Log]
	if l == nil {
		return false // dropped in the meantime
	}
	v.end = l.visible
	from = max(from, l.first)
	if f.Cursor == 0 {
		return l.viewAll(f, from, v)
	}
	c := p.cursors[f.Cursor]
	if c == nil || c.log != f.Log {
		return false
	}
	for from = max(from, c.settled.floor); ; from = v.block.end() {
		v.block = c.next(from)
		if v.block == nil || v.block.base >= v.end {
			return false
		}
		if v.wantOwed(f, c, from) {
			v.noteMarks(c)
			return true
		}
	}
}

// viewAll wants every record from from on, or since f.Since.
func (l *log) viewAll(f *core.Fetch, from core.Offset, v *view) bool {
	i := l.search(from)
	if f.From == 0 && f.Since > 0 {
		i += sort.Search(len(l.blocks)-i, func(n int) bool { return l.blocks[i+n].maxTime >= f.Since })
	}
	if i == len(l.blocks) || l.blocks[i].base >= l.visible {
		return false
	}
	v.block = l.blocks[i]
	v.all(v.block.n)
	for o := v.block.base; o < v.block.end(); o++ {
		v.wants[o-v.block.base] = o >= from
	}
	v.marks = v.marks[:0]
	return true
}

func (v *view) all(n int) {
	if cap(v.wants) < n {
		v.wants = make([]bool, n)
	}
	v.wants = v.wants[:n]
	clear(v.wants)
}

// next is the first block at or after from that has records routed to c.
func (c *cursor) next(from core.Offset) *block {
	var first *block
	for _, r := range c.routes {
		if i := r.search(from); i < len(r.used) && (first == nil || r.used[i].block.base < first.base) {
			first = r.used[i].block
		}
	}
	return first
}

// wantOwed wants what c owes of the block at or after from, and says whether
// there is any.
func (v *view) wantOwed(f *core.Fetch, c *cursor, from core.Offset) bool {
	b, any := v.block, false
	if f.From == 0 && b.maxTime < f.Since {
		return false
	}
	v.all(b.n)
	for a, z := range c.settled.gaps(max(from, b.base), b.end()) {
		for o := a; o < z; o++ {
			if b.route(o).has(c.id) {
				v.wants[o-b.base], any = true, true
			}
		}
	}
	return any
}

// noteMarks takes the delivery counts of the block along.
func (v *view) noteMarks(c *cursor) {
	v.marks = v.marks[:0]
	for o, n := range c.marks {
		if o >= v.block.base && o < v.block.end() {
			v.marks = append(v.marks, core.Mark{At: o, Attempts: n})
		}
	}
}

func (v *view) attempts(o core.Offset) uint16 {
	for i := range v.marks {
		if v.marks[i].At == o {
			return v.marks[i].Attempts
		}
	}
	return 0
}

// read takes what is wanted of a block; full: a limit was reached.
func (v *view) read(f *core.Fetch, r *blockReader, bytes *int64) (full bool, err error) {
	for r.next() {
		i := r.offset - v.block.base
		if i >= core.Offset(len(v.wants)) {
			return false, fmt.Errorf("it holds offset %d, its index ends at %d", r.offset, v.block.end())
		}
		if !v.wants[i] || (f.From == 0 && r.time < f.Since) {
			continue
		}
		m, err := core.DecodeMessage(r.message)
		if err != nil {
			return false, &core.CorruptError{Log: f.Log, From: r.offset, To: r.offset + 1, Text: err.Error()}
		}
		size := m.Size()
		if len(f.Out) > 0 && f.Bytes > 0 && *bytes+size > int64(f.Bytes) {
			return true, nil
		}
		*bytes += size
		f.Out = append(f.Out, core.Stored{Offset: r.offset, Time: r.time, Attempts: v.attempts(r.offset), Message: m})
		if f.Records > 0 && len(f.Out) >= f.Records {
			return true, nil
		}
	}
	return false, r.err
}

// readBlock reads a block from the disk and lends it to use. In-memory copies
// are the garbage collector's; most blocks are read where Badger has them.
func (s *store) readBlock(p core.PartitionID, l core.LogID, b *block, use func(*blockReader) error) error {
	return s.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(blockKey(kindBlock, p, l, b.base))
		if err != nil {
			return err
		}
		read := func(value []byte) error {
			r, err := openBlock(value)
			if err != nil {
				return err
			}
			if r.offset != b.base {
				return fmt.Errorf("it begins at offset %d, its key says %d", r.offset, b.base)
			}
			return use(&r)
		}
		if b.pieces == 0 {
			return item.Value(read)
		}
		whole, err := item.ValueCopy(make([]byte, 0, pieceBytes*(int(b.pieces)+1)))
		for n := uint16(1); n <= b.pieces && err == nil; n++ {
			if item, err = tx.Get(pieceKey(p, l, b.base, n)); err == nil {
				err = item.Value(func(v []byte) error { whole = append(whole, v...); return nil })
			}
		}
		if err != nil {
			return err
		}
		return read(whole)
	})
}
