// Package memory keeps everything in slices and maps and nothing on a disk.
// It is the store of a broker that may forget, the reference that other
// drivers are compared with, and the tests' disk: it can be slow (Hold), full
// (SetFull), broken (Fail) and lose its power (Cut).
//
//	Commit -> check -> [held] -> apply -> Done
//
// What has been applied is the disk: nothing reaches it before the batch is
// durable, so a power cut needs only to forget what is held. The data lives
// as long as the Store, over Close too: the next Open is the next life of it.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/godwitmq/godwit/core"
)

// Options are the limits, and what a test wants to be told.
type Options struct {
	MaxRecord int           // bytes of one message at rest; 16 MiB
	MaxBatch  int           // bytes of one batch; 32 MiB
	MaxOps    int           // ops in one batch; 65,536
	MaxKey    int           // bytes of a record's key; 8 KiB
	MaxValue  int           // bytes of a record's value; 1 MiB
	Survives  core.Survival // what Caps claims; the truth is the zero value
}

func (o *Options) defaults() {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&o.MaxRecord, 16 << 20},
		{&o.MaxBatch, 32 << 20},
		{&o.MaxOps, 65536},
		{&o.MaxKey, 8 << 10},
		{&o.MaxValue, 1 << 20},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
}

// A Store is a core.Store in memory. Its methods may be called by any
// goroutine; Done is never called with a lock held.
type Store struct {
	options Options

	mu     sync.Mutex
	parts  map[core.PartitionID]*part
	hold   bool
	held   []held // accepted, not durable, oldest first
	full   bool
	failed bool
	stats  core.StoreStats
}

// held is an accepted batch and the handle that committed it.
type held struct {
	by *handle
	b  *core.Batch
}

var _ core.Store = (*Store)(nil)

// New makes an empty store.
func New(o Options) *Store {
	o.defaults()
	return &Store{options: o, parts: map[core.PartitionID]*part{}}
}

// Caps says that nothing survives, unless the Options claim otherwise.
func (s *Store) Caps() core.Caps {
	return core.Caps{
		Name:      "memory",
		MaxRecord: s.options.MaxRecord,
		MaxBatch:  s.options.MaxBatch,
		MaxOps:    s.options.MaxOps,
		Survives:  s.options.Survives,
	}
}

// Open takes ownership of a partition. The batches of an earlier owner that
// are not durable get ErrFenced.
func (s *Store) Open(ctx context.Context, id core.PartitionID) (core.Partition, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.failed {
		s.mu.Unlock()
		return nil, core.ErrPoisoned
	}
	p := s.parts[id]
	if p == nil {
		p = newPart(id)
		s.parts[id] = p
	}
	if p.owner != nil {
		p.owner.dead = core.ErrFenced
		s.dropHeld(p, core.ErrFenced)
	}
	p.owner = &handle{store: s, part: p}
	h := p.owner
	s.mu.Unlock()
	p.tell(s)
	return h, nil
}

// Health is read-only while the disk is full, and has Err once it failed.
func (s *Store) Health() core.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := core.Health{ReadOnly: s.full}
	if s.failed {
		h.Err = core.ErrPoisoned
	}
	return h
}

// Stats counts since New.
func (s *Store) Stats() core.StoreStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Backup is refused: there is nothing at rest.
func (s *Store) Backup(context.Context, io.Writer) error {
	return core.NotYet("a backup of the memory store")
}

// Close makes durable what is held and closes all partitions. The data stays:
// Open is the next life of it.
func (s *Store) Close(context.Context) error {
	s.mu.Lock()
	s.settle(nil)
	for _, p := range s.parts {
		if p.owner != nil {
			p.owner.dead = core.ErrClosed
			p.owner = nil
		}
	}
	s.mu.Unlock()
	s.tell()
	return nil
}

// Hold lets commits be accepted and not become durable.
func (s *Store) Hold() {
	s.mu.Lock()
	s.hold = true
	s.mu.Unlock()
}

// Resume makes what is held durable, in order, calls its Done before it
// returns, and ends Hold.
func (s *Store) Resume() {
	s.mu.Lock()
	s.settle(nil)
	s.hold = false
	s.mu.Unlock()
	s.tell()
}

// Sync is Resume, but the hold goes on. It says how many batches became
// durable.
func (s *Store) Sync() int {
	s.mu.Lock()
	n := s.settle(nil)
	s.mu.Unlock()
	s.tell()
	return n
}

// Held is how many batches are held.
func (s *Store) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

// SetFull makes the disk full: batches with Appends get ErrReadOnly.
func (s *Store) SetFull(full bool) {
	s.mu.Lock()
	s.full = full
	s.mu.Unlock()
}

// Fail breaks the disk until the next Cut: what is held, and every later
// Commit, Fetch and Open get ErrPoisoned.
func (s *Store) Fail() {
	s.mu.Lock()
	s.failed = true
	s.dropHeld(nil, core.ErrPoisoned)
	s.mu.Unlock()
	s.tell()
}

// Cut is a power cut: what is held is gone and its Done never comes, all
// handles are dead, and the disk, repaired if it had failed, has what was
// durable. A hold goes on.
func (s *Store) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.failed = nil, false
	for _, p := range s.parts {
		if p.owner != nil {
			p.owner.dead = core.ErrClosed
			p.owner = nil
		}
	}
}

// commit accepts b from h.
func (s *Store) commit(h *handle, b *core.Batch) error {
	s.mu.Lock()
	if err := s.refuse(h, b); err != nil {
		s.mu.Unlock()
		return err
	}
	h.noteIDs(b)
	s.held = append(s.held, held{h, b})
	if !s.hold {
		s.settle(nil)
	}
	s.mu.Unlock()
	h.part.tell(s)
	return nil
}

// refuse says why b cannot be accepted. s.mu is held.
func (s *Store) refuse(h *handle, b *core.Batch) error {
	switch {
	case h.dead != nil:
		return h.dead
	case s.failed:
		return core.ErrPoisoned
	case s.full && len(b.Appends) > 0:
		return fmt.Errorf("the test made the disk full: %w", core.ErrReadOnly)
	}
	if err := s.options.check(b); err != nil {
		return err
	}
	return h.checkSets(b)
}

// settle makes the held batches of p durable, of all partitions if p is nil.
// s.mu is held; tell follows.
func (s *Store) settle(p *part) int {
	n, rest := 0, s.held[:0]
	for _, h := range s.held {
		if p != nil && h.by.part != p {
			rest = append(rest, h)
			continue
		}
		h.by.part.apply(h.b)
		s.count(h.b)
		h.by.part.dones = append(h.by.part.dones, done{h.b, nil})
		n++
	}
	clear(s.held[len(rest):])
	s.held = rest
	return n
}

// dropHeld fails the held batches of p, of all partitions if p is nil. s.mu
// is held; tell follows.
func (s *Store) dropHeld(p *part, err error) {
	rest := s.held[:0]
	for _, h := range s.held {
		if p != nil && h.by.part != p {
			rest = append(rest, h)
			continue
		}
		h.by.part.dones = append(h.by.part.dones, done{h.b, err})
	}
	clear(s.held[len(rest):])
	s.held = rest
}

func (s *Store) count(b *core.Batch) {
	s.stats.Commits++
	s.stats.Syncs++
	s.stats.Ops += int64(ops(b))
	s.stats.Appends += int64(len(b.Appends))
	for i := range b.Appends {
		s.stats.BytesUser += b.Appends[i].Message.Size()
	}
}

// tell calls the Done of all that became durable or failed.
func (s *Store) tell() {
	s.mu.Lock()
	parts := make([]*part, 0, len(s.parts))
	for _, p := range s.parts {
		parts = append(parts, p)
	}
	s.mu.Unlock()
	// In the same order every time, so that a simulation can be repeated.
	slices.SortFunc(parts, func(a, b *part) int { return cmp.Compare(a.id, b.id) })
	for _, p := range parts {
		p.tell(s)
	}
}

// A done is a Done to be called.
type done struct {
	b   *core.Batch
	err error
}

// tell calls the Done of what waits for it, in order. If another goroutine is
// at it, or the caller is itself inside a Done, that one goes on with what is
// here.
func (p *part) tell(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.telling {
		return
	}
	p.telling = true
	for len(p.dones) > 0 {
		d := p.dones[0]
		p.dones = p.dones[1:]
		if d.b.Done != nil {
			s.mu.Unlock()
			d.b.Done.Committed(d.b, d.err)
			s.mu.Lock()
		}
	}
	p.telling = false
}
