package badger

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/lsm"
)

// loadAll reads what is at rest: all but the blocks, whose index says what
// they hold. What an unfinished checkpoint has left is deleted; it will be
// done again.
func (s *store) loadAll() error {
	var ids []core.PartitionID
	err := s.db.Scan([]byte{kindPartition}, nil, false, func(key, _ []byte) error {
		ids = append(ids, core.PartitionID(binary.BigEndian.Uint16(key[1:])))
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.load(s.loading(id)); err != nil {
			return fmt.Errorf("partition %d: %w", id, err)
		}
	}
	l := blockLoader{s: s, w: s.db.Writer(s.points.last), mark: s.db.Mark().Checkpoint, known: map[blockID]uint16{}}
	for _, step := range []struct {
		kind   byte
		values bool
		read   func(key, value []byte) error
	}{
		{kindIndex, true, l.index},
		{kindBlock, false, l.block},
		{kindPiece, false, l.piece},
	} {
		if err := s.db.Scan([]byte{step.kind}, nil, step.values, step.read); err != nil {
			return err
		}
	}
	return l.w.Flush()
}

func (s *store) load(p *part) error {
	v, err := s.db.Get(partKey(kindPartition, p.id, 0))
	if err == nil {
		p.lastID, err = decodePart(v)
	}
	if err != nil {
		return err
	}
	l := loader{p}
	for _, step := range []struct {
		kind byte
		read func(key, value []byte) error
	}{
		{kindLog, l.log},
		{kindSet, l.set},
		{kindPage, l.page},
		{kindWide, l.wide},
		{kindMark, l.count},
	} {
		if err := s.db.Scan(partKey(step.kind, p.id, 0), nil, true, step.read); err != nil {
			return err
		}
	}
	return nil
}

// A loader reads what is small of one partition.
type loader struct{ p *part }

func (l *loader) log(key, value []byte) error {
	id := core.LogID(number(key, 0))
	lg, err := decodeLog(id, value)
	if err != nil {
		return fmt.Errorf("log %d: %w", id, err)
	}
	l.p.logs[id] = lg
	return nil
}

// set reads a chunk of a set, or that it is retired. Chunks come in order.
func (l *loader) set(key, value []byte) (err error) {
	id := core.RouteSetID(number(key, 0))
	set := l.p.sets[id]
	if set == nil {
		set = &routeSet{id: id}
		l.p.sets[id] = set
	}
	if binary.BigEndian.Uint16(key[11:]) == setRetired {
		set.retired = true
		return nil
	}
	if set.members, err = decodeMembers(set.members, value); err != nil {
		return fmt.Errorf("route set %d: %w", id, err)
	}
	return nil
}

func (l *loader) page(key, value []byte) error {
	page := number(key, 0)
	commit, err := decodePage(page, value, func(c *cursor) { l.p.cursors[c.id] = c })
	if err != nil {
		return fmt.Errorf("cursors from %d: %w", page<<pageBits, err)
	}
	l.p.pages[page] = commit
	return nil
}

// wide reads a cursor with a value of its own. Its page may still have it, as
// it was before.
func (l *loader) wide(key, value []byte) error {
	id := core.CursorID(number(key, 0))
	c, commit, err := decodeWide(id, value)
	if err != nil {
		return fmt.Errorf("cursor %d: %w", id, err)
	}
	if known := l.p.cursors[id]; known == nil || commit >= l.p.pages[pageOf(id)] {
		l.p.cursors[id] = c
		l.p.wides[id] = commit
	} else {
		known.wide = true
	}
	return nil
}

func (l *loader) count(key, value []byte) error {
	id, at := core.CursorID(number(key, 0)), core.Offset(number(key, 1))
	n, err := decodeMark(value)
	if err != nil {
		return fmt.Errorf("delivery count of cursor %d at %d: %w", id, at, err)
	}
	c := l.p.cursors[id]
	if c == nil {
		l.p.fresh.del(key)
		return nil
	}
	if c.marks == nil {
		c.marks = map[core.Offset]uint16{}
	}
	c.marks[at] = n
	return nil
}

// A blockLoader reads the index of the blocks.
type blockLoader struct {
	s     *store
	w     *lsm.Writer
	mark  uint64             // the last checkpoint that was finished
	known map[blockID]uint16 // pieces of the blocks that are there
}

// index reads about one block. One of a checkpoint that was not finished will
// be written again, perhaps cut otherwise; one without a log, or below its
// log's first, was to be deleted.
func (l *blockLoader) index(key, value []byte) error {
	id := parseBlockID(key)
	b, err := decodeIndex(value, id, func(r core.RouteSetID) *route { return &route{id: r} })
	if err != nil {
		return &core.CorruptError{Log: id.log, From: id.base, To: id.base + 1, Text: "the index of a block is damaged (" + err.Error() + "): restore a backup"}
	}
	p := l.s.parts[id.part]
	if id.checkpoint > l.mark || p == nil {
		return l.w.Put(lsm.Entry{Key: slices.Clone(key)})
	}
	l.known[id] = b.pieces
	lg := p.logs[id.log]
	if lg == nil || b.end() <= lg.first {
		p.freed = append(p.freed, freed{id, b.pieces, b.stored})
		return nil
	}
	p.revive(lg, b) // not before: of an unfinished checkpoint the sets may be missing
	return p.link(lg, b)
}

// block deletes a block without an index entry.
func (l *blockLoader) block(key, _ []byte) error {
	if _, ok := l.known[parseBlockID(key)]; ok {
		return nil
	}
	return l.w.Put(lsm.Entry{Key: slices.Clone(key)})
}

func (l *blockLoader) piece(key, _ []byte) error {
	n := binary.BigEndian.Uint16(key[35:])
	if pieces, ok := l.known[parseBlockID(key)]; ok && n <= pieces {
		return nil
	}
	return l.w.Put(lsm.Entry{Key: slices.Clone(key)})
}

// link makes a block at rest known to its log and routes, which have nothing
// newer at rest.
func (p *part) link(l *log, b *block) error {
	if b.owner == 0 {
		i := l.search(b.base)
		if i < len(l.blocks) && l.blocks[i].base <= b.last {
			return overlap(l, b)
		}
		l.blocks = slices.Insert(l.blocks, i, b)
	}
	for i := range b.uses {
		r := b.uses[i].route
		j := r.search(b.base)
		if j < len(r.used) && r.used[j].block.base <= b.last {
			return overlap(l, b)
		}
		r.used = slices.Insert(r.used, j, usedIn{b, uint8(i)})
	}
	l.next = max(l.next, b.end())
	l.clock = max(l.clock, b.maxTime)
	return nil
}

func overlap(l *log, b *block) error {
	return &core.CorruptError{Log: l.id, From: b.base, To: b.end(), Text: "two blocks hold the same offsets: restore a backup"}
}

// replay opens the journal and does again what the database has not seen.
func (s *store) replay(instance [16]byte) error {
	begun := time.Now()
	mark := s.db.Mark()
	var d decoder
	disk := s.profile.disk
	if disk == nil {
		disk = journalDisk{journal.OSDisk(filepath.Join(s.dir, "journal")), s}
	}
	j, err := journal.Open(journal.Options{
		Disk:     disk,
		Instance: instance,
		Segment:  s.profile.segment,
		Keep:     max(1, s.profile.segments/2),
		From:     journal.Position{Segment: mark.Segment, Commit: mark.Commit},
		Log:      s.log,
	}, func(f journal.Frame) error {
		err := d.batches(f.Payload, f.At, func(id core.PartitionID, src *source) error {
			src.commit, src.segment = f.Commit, f.Segment
			return s.loading(id).apply(src)
		})
		if err != nil {
			return fmt.Errorf("commit %d of the journal: %w", f.Commit, err)
		}
		s.points.applied(f.Segment, f.Commit)
		return nil
	})
	if err != nil {
		return err
	}
	s.journal = j
	if most := j.MaxPayload() - 2*binary.MaxVarintLen64; s.profile.maxBatch > most {
		return fmt.Errorf("bug: a batch may have %d octets, a frame %d", s.profile.maxBatch, most)
	}
	for _, p := range s.parts {
		if err := p.account(j.State().Commit); err != nil {
			return fmt.Errorf("partition %d: %w", p.id, err)
		}
	}
	if r := j.Recovered(); r.Frames > 0 {
		s.log.Info("the journal was replayed", slog.Int64("frames", r.Frames), slog.Int64("bytes", r.Bytes),
			slog.Bool("clean", r.Clean), slog.Duration("took", time.Since(begun)))
	}
	return nil
}

// loading finds a partition, or makes it, while the journal is replayed.
func (s *store) loading(id core.PartitionID) *part {
	p := s.parts[id]
	if p == nil {
		p = newPart(id)
		p.loading, p.pages, p.wides = true, map[uint64]uint64{}, map[core.CursorID]uint64{}
		s.parts[id] = p
	}
	return p
}

// account finds out what is owed, and frees what nobody owes.
func (p *part) account(last uint64) error {
	for page, commit := range p.pages {
		if commit > last {
			return fmt.Errorf("cursors from %d are of commit %d, the journal ends with %d: %w: restore a backup", page<<pageBits, commit, last, errLostTail)
		}
	}
	p.loading, p.pages, p.wides, p.commit = false, nil, nil, last
	for _, l := range p.logs {
		l.lastRoute = nil
		for _, r := range l.routes {
			p.owedBy(l, r)
		}
	}
	for _, c := range p.cursors {
		if l := p.logs[c.log]; l != nil {
			c.lift(l)
			if c.settled.floor > l.next {
				l.setAhead(c)
			}
		}
	}
	for _, l := range p.logs {
		p.cutHead(l)
		for _, lane := range l.lanes() {
			for _, b := range lane {
				if !b.live() {
					p.free(l, b)
				}
			}
		}
	}
	for id, set := range p.sets {
		if set.retired {
			p.forgetSet(set)
		} else {
			p.defined[id] = struct{}{}
		}
	}
	for _, c := range p.cursors {
		for at := range c.marks {
			if !p.owes(c, at) {
				p.unmark(c, at, at+1)
			}
		}
	}
	p.accepted = p.lastID
	return nil
}

var errLostTail = errors.New("its tail is lost")

// owedBy counts what is owed of the uses of one route, for all its members at
// once: a member owes most often everything from some block on.
func (p *part) owedBy(l *log, r *route) {
	if r.id == 0 {
		for i := range r.used {
			b := r.used[i].block
			b.kept += b.count(r.used[i].use, l.first, b.end())
		}
		return
	}
	whole := make([]int64, len(r.used)+1) // by block, how many members owe all of it more than of the one before
	for _, m := range r.members() {
		c := p.cursors[m]
		if c == nil || c.log != l.id {
			continue
		}
		for from, to := range c.settled.gaps(l.first, l.next) {
			r.owes(from, to, whole)
		}
	}
	members := int64(0)
	for i := range r.used {
		members += whole[i]
		r.used[i].block.owed += members * int64(r.used[i].block.uses[r.used[i].use].n)
	}
}

// owes adds one member's gap to the blocks it covers: in whole, where it
// covers all of a block.
func (r *route) owes(from, to core.Offset, whole []int64) {
	i := r.search(from)
	for ; i < len(r.used) && r.used[i].block.base < from; i++ {
		r.used[i].block.owed += int64(r.used[i].block.count(r.used[i].use, from, to))
	}
	j := max(i, r.search(to))
	whole[i]++
	whole[j]--
	if j < len(r.used) {
		r.used[j].block.owed += int64(r.used[j].block.count(r.used[j].use, from, to))
	}
}

// cursorStates is the cursors as they are. A block of which a cursor has
// settled a part is read, to know the size of the rest.
func (s *store) cursorStates(p *part) ([]core.CursorState, error) {
	p.mu.RLock()
	states := make([]core.CursorState, 0, len(p.cursors))
	sums := map[*route]*totals{}
	var partly []portion
	for _, c := range p.cursors {
		st := core.CursorState{ID: c.id, Log: c.log, Floor: c.settled.floor, Settled: slices.Clone(c.settled.above)}
		if l := p.logs[c.log]; l != nil {
			for _, r := range c.routes {
				if sums[r] == nil {
					sums[r] = newTotals(r)
				}
				for from, to := range c.settled.gaps(l.first, l.next) {
					partly = sums[r].add(&st, from, to, len(states), partly)
				}
			}
		}
		states = append(states, st)
	}
	p.mu.RUnlock()
	if err := s.addPortions(p, partly, states); err != nil {
		return nil, err
	}
	slices.SortFunc(states, func(a, b core.CursorState) int { return cmp.Compare(a.ID, b.ID) })
	return states, nil
}

// totals are how much of a route is in its blocks up to one.
type totals struct {
	r       *route
	records []int64
	bytes   []int64
}

func newTotals(r *route) *totals {
	t := &totals{r: r, records: make([]int64, len(r.used)+1), bytes: make([]int64, len(r.used)+1)}
	for i := range r.used {
		u := &r.used[i].block.uses[r.used[i].use]
		t.records[i+1], t.bytes[i+1] = t.records[i]+int64(u.n), t.bytes[i]+u.bytes
	}
	return t
}

// A portion is the records of one use in [from, to) of a block, which belong
// to a state.
type portion struct {
	state    int
	block    *block
	use      uint8
	log      core.LogID
	from, to core.Offset
}

// add adds what is in [from, to) to st; what is in a part of a block goes to
// partly.
func (t *totals) add(st *core.CursorState, from, to core.Offset, state int, partly []portion) []portion {
	used := t.r.used
	part := func(i int) {
		b, use := used[i].block, used[i].use
		n := b.count(use, from, to)
		st.Depth += int64(n)
		if n == b.uses[use].n {
			st.Bytes += b.uses[use].bytes
		} else if n > 0 {
			partly = append(partly, portion{state, b, use, st.Log, from, to})
		}
	}
	i := t.r.search(from)
	for ; i < len(used) && used[i].block.base < from; i++ {
		part(i)
	}
	j := max(i, t.r.search(to))
	st.Depth += t.records[j] - t.records[i]
	st.Bytes += t.bytes[j] - t.bytes[i]
	if j < len(used) && used[j].block.base < to {
		part(j)
	}
	return partly
}

// addPortions reads how large the records of portions are, each block once. A
// block that is gone meanwhile has nothing to count.
func (s *store) addPortions(p *part, partly []portion, states []core.CursorState) error {
	of := map[*block][]portion{}
	for _, o := range partly {
		of[o.block] = append(of[o.block], o)
	}
	for b, portions := range of {
		sizes, err := s.sizesOf(p, portions[0].log, b)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return err
		}
		for _, o := range portions {
			states[o.state].Bytes += sizes[o.use].between(o.from, o.to)
		}
	}
	return nil
}

// useSizes is the records of one use of a block, and how large all before each
// of them are.
type useSizes struct {
	offsets []core.Offset
	before  []int64
	all     int64
}

func (u *useSizes) between(from, to core.Offset) int64 {
	upTo := func(o core.Offset) int64 {
		if i, _ := slices.BinarySearch(u.offsets, o); i < len(u.offsets) {
			return u.before[i]
		}
		return u.all
	}
	return upTo(to) - upTo(from)
}

// sizesOf reads a block's sizes, by use.
func (s *store) sizesOf(p *part, l core.LogID, b *block) (sizes [maxUses]useSizes, err error) {
	f := core.Fetch{Log: l, From: 1}
	v := fetching{s: s, p: p, f: &f}
	p.mu.RLock()
	h := plan(b)
	for use := range b.uses {
		h.want(use)
	}
	h.gaps = [][2]core.Offset{{b.base, b.end()}}
	p.mu.RUnlock()
	more, err := v.open(&h)
	for more && err == nil {
		var m *core.Message
		if m, err = core.DecodeMessage(h.records.message); err == nil {
			use := uint8(0)
			if h.which != nil {
				use = h.which[h.i]
			}
			u := &sizes[use]
			u.offsets, u.before = append(u.offsets, h.records.offset), append(u.before, u.all)
			u.all += m.Size()
			more, err = v.next(&h)
		}
	}
	return sizes, err
}
