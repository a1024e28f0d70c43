package badger

import (
	"cmp"
	"errors"
	"slices"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/lsm"
)

// Blocks at rest that have become a bad shape are rewritten, each time in one
// transaction that puts the new ones and deletes the old ones:
//
//	many small blocks of one cursor    become one
//	the rest of a shared block         goes to the blocks of those who owe it
//
// so that neither a cursor with a trickle of messages has a key for each, nor
// one that is away holds what all the others have settled. Offsets stay. A
// rewrite carries the number of the last finished checkpoint: it is whole by
// itself.
const (
	smallBlock   = 8 << 10 // a block is small below it
	smallMany    = 8       // and so many in a row are worth one
	rewriteBytes = 8 << 20 // read by the rewrites of one checkpoint, at most
	restShare    = 4       // a shared block is rewritten when less than one in so many of its records is owed
)

// rewrite rewrites what is worth it, up to a limit.
func (k *checkpointer) rewrite(parts []*part) error {
	left := rewriteBytes
	for _, p := range parts {
		for _, job := range p.rewrites(left, min(smallBlock, k.s.profile.blockBytes/2)) {
			if k.s.poisoned() != nil {
				return nil
			}
			left -= job.stored()
			if err := k.do(p, &job); err != nil {
				return err
			}
		}
		if left <= 0 {
			return nil
		}
	}
	return nil
}

// A rewriting is the blocks of one log that are to become others: small ones of
// a cursor, or one that is shared.
type rewriting struct {
	log *log
	old []*block
}

func (j *rewriting) stored() (n int) {
	for _, b := range j.old {
		n += b.stored
	}
	return n
}

// rewrites finds what is worth it.
func (p *part) rewrites(left, most int) (jobs []rewriting) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, l := range p.logs {
		for _, r := range l.routes {
			if small := r.small(most); len(small) > 0 && left > 0 {
				j := rewriting{l, small}
				jobs, left = append(jobs, j), left-j.stored()
			}
		}
		for _, b := range l.blocks {
			if b.chunk() || left <= 0 {
				break
			}
			if b.kept == 0 && b.owed*restShare < int64(b.n) {
				jobs, left = append(jobs, rewriting{l, []*block{b}}), left-b.stored
			}
		}
	}
	slices.SortFunc(jobs, func(a, b rewriting) int {
		return cmp.Or(cmp.Compare(a.log.id, b.log.id), cmp.Compare(a.old[0].base, b.old[0].base))
	})
	return jobs
}

// small is a row of small blocks of the cursor that r leads to, if it is long
// enough. A block is small below most octets.
func (r *route) small(most int) (row []*block) {
	if r.solo == 0 {
		return nil
	}
	total := 0
	for i := range r.used {
		b := r.used[i].block
		if b.owner == 0 || b.stored >= most || b.pieces > 0 || total+b.stored > 16*most {
			if len(row) >= smallMany {
				return row
			}
			row, total = row[:0], 0
			if b.owner == 0 {
				break
			}
			continue
		}
		row, total = append(row, b), total+b.stored
	}
	if len(row) < smallMany {
		return nil
	}
	return row
}

// kept is a record on its way from one block to another.
type kept struct {
	offset  core.Offset
	time    int64
	size    int64
	message []byte
}

// do does one rewriting, unless it is too large for one transaction or its
// blocks have gone meanwhile.
func (k *checkpointer) do(p *part, j *rewriting) error {
	own := map[core.CursorID][]kept{}
	old := slices.Clone(j.old)
	for _, b := range j.old {
		if ok, err := k.collect(p, j.log, b, own); !ok || err != nil {
			return err
		}
	}
	// A cursor's blocks must not overlap: those that would are rewritten too.
	for owner, records := range own {
		for _, b := range p.between(j.log, owner, records) {
			if slices.Contains(old, b) {
				continue
			}
			if ok, err := k.collect(p, j.log, b, own); !ok || err != nil {
				return err
			}
			old = append(old, b)
		}
	}
	entries, fresh := k.cut(p, j.log, own)
	size := 0
	for i := range entries {
		size += len(entries[i].Key) + len(entries[i].Value) + 64
	}
	if size > k.s.db.MaxEntry() {
		return nil
	}
	entries = withDeleted(p, j.log, entries, old)
	err := k.s.db.Rewrite(k.last, entries...)
	if errors.Is(err, lsm.ErrTooLarge) {
		return nil
	}
	if err != nil {
		return err
	}
	k.s.counts.rewrites.Add(1)
	return p.exchange(j.log, old, fresh)
}

// collect reads what is owed of a block, by who owes it. False: the block has
// gone, or is damaged, which its readers will hear of.
func (k *checkpointer) collect(p *part, l *log, b *block, own map[core.CursorID][]kept) (bool, error) {
	value, err := k.s.readBlock(p.id, l.id, b)
	if errors.Is(err, lsm.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r, err := openBlock(value)
	if err != nil {
		return false, nil
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if b.gone {
		return false, nil
	}
	for i := 0; r.next() && i < b.n; i++ {
		for _, m := range b.route(i).members() {
			c := p.cursors[m]
			if c == nil || c.log != l.id || c.settled.has(r.offset) || r.offset < l.first {
				continue
			}
			size, err := core.DecodeMessage(r.message)
			if err != nil {
				return false, nil
			}
			own[m] = append(own[m], kept{r.offset, r.time, size.Size(), r.message})
		}
	}
	return r.err == nil, nil
}

// between is the blocks of a cursor that lie among records.
func (p *part) between(l *log, owner core.CursorID, records []kept) (some []*block) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	r := l.routes[core.Solo(owner)]
	if r == nil {
		return nil
	}
	low, high := records[0].offset, records[0].offset
	for i := range records {
		low, high = min(low, records[i].offset), max(high, records[i].offset)
	}
	for i := r.search(low); i < len(r.used) && r.used[i].block.base <= high; i++ {
		if r.used[i].block.owner != 0 {
			some = append(some, r.used[i].block)
		}
	}
	return some
}

// cut puts records into blocks.
func (k *checkpointer) cut(p *part, l *log, own map[core.CursorID][]kept) (entries []lsm.Entry, fresh []*block) {
	owners := make([]core.CursorID, 0, len(own))
	for owner := range own {
		owners = append(owners, owner)
	}
	slices.Sort(owners)
	for _, owner := range owners {
		p.mu.Lock()
		route := p.route(l, core.Solo(owner))
		p.mu.Unlock()
		records := own[owner]
		slices.SortFunc(records, func(a, b kept) int { return cmp.Compare(a.offset, b.offset) })
		var w *blockWriter
		seal := func() {
			if w == nil || w.block.n == 0 {
				return
			}
			value := w.seal()
			w.block.stored = len(value)
			id := w.block.id(p.id, l.id)
			entries = append(entries,
				lsm.Entry{Key: id.key(kindBlock), Value: value},
				lsm.Entry{Key: id.key(kindIndex), Value: appendIndex(nil, w.block)})
			fresh = append(fresh, w.block)
		}
		for i := range records {
			if w == nil || !w.takes(route, len(records[i].message), k.s.profile.blockBytes) {
				seal()
				w = newBlockWriter(owner, k.last)
			}
			if w.block.n > 0 && records[i].offset == w.block.last {
				continue // it was in two of the blocks
			}
			w.add(records[i].offset, route, records[i].size, records[i].time, records[i].message)
		}
		seal()
	}
	return entries, fresh
}

// withDeleted adds that the old blocks go, those apart whose keys a new one
// has.
func withDeleted(p *part, l *log, entries []lsm.Entry, old []*block) []lsm.Entry {
	put := map[string]struct{}{}
	for i := range entries {
		put[string(entries[i].Key)] = struct{}{}
	}
	for _, b := range old {
		f := freed{b.id(p.id, l.id), b.pieces, b.stored}
		for _, e := range f.entries() {
			if _, again := put[string(e.Key)]; !again {
				entries = append(entries, e)
			}
		}
	}
	return entries
}

// exchange lets readers find the new blocks where the old ones were.
func (p *part) exchange(l *log, old, fresh []*block) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	buried := len(p.freed)
	for _, b := range old {
		p.deadBytes += int64(b.stored)
		if !b.gone {
			p.unlink(l, b)
			continue
		}
		// It was freed meanwhile and is to be deleted, which it is; a new
		// block may have its key.
		p.freed = slices.DeleteFunc(p.freed[:buried], func(f freed) bool {
			return f.id == b.id(p.id, l.id)
		})
		buried = len(p.freed)
	}
	for _, b := range fresh {
		if p.logs[l.id] != l {
			p.bury(l, b)
			continue
		}
		p.revive(l, b)
		if err := p.link(l, b); err != nil {
			return err
		}
		p.recount(l, b)
	}
	for _, b := range old {
		p.release0(l, b)
	}
	return nil
}
