package badger

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/lsm"
)

// A checkpointer moves what is still wanted of the oldest segments into the
// database, so that they can be used again. It is the database's only writer.
// A checkpoint goes
//
//	messages that are owed -> blocks, of one cursor or shared
//	small values, logs, pages of cursors; blocks nobody wants are deleted
//	the mark: the journal is needed only from here on
//	the blocks take the chunks' places in memory
//	segments that the checkpoint before did not need are used again
//
// A crash on the way leaves blocks with a number above the mark's, which the
// next Open deletes, and pages of cursors that are newer than the mark; replay
// steps over what they know.
type checkpointer struct {
	s       *store
	turn    sync.Mutex // held during a checkpoint
	mu      sync.Mutex
	some    *sync.Cond // something to do, or stopped
	firsts  []segment  // that no checkpoint covers, oldest first; the last is being written
	stopped bool
	end     chan struct{} // closed by stop
	ended   sync.WaitGroup
	asked   int // checkpoints that somebody waits for
	passes  int // checkpoints done or failed

	last      uint64      // number of the last checkpoint
	leftover  []lsm.Entry // to be deleted first: what one that failed has written
	previous  uint32      // the first segment its predecessor needs
	buf       []byte
	reclaimed time.Time
}

// A segment is one of the journal's with the commits that are applied.
type segment struct {
	number      uint32
	first, last uint64
}

func (k *checkpointer) init(s *store) {
	k.s = s
	k.some, k.end = sync.NewCond(&k.mu), make(chan struct{})
	k.last = max(s.db.Mark().Checkpoint, s.db.Recovered().Checkpoint)
	k.previous = s.db.Mark().Segment
}

// applied is told of each frame, in order.
func (k *checkpointer) applied(number uint32, commit uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.firsts); n > 0 && k.firsts[n-1].number == number {
		k.firsts[n-1].last = commit
		return
	}
	k.firsts = append(k.firsts, segment{number, commit, commit})
	k.s.behindN.Store(int64(len(k.firsts)))
	k.some.Broadcast()
}

func (k *checkpointer) start() {
	k.ended.Go(k.run)
	k.ended.Go(k.tick)
}

func (k *checkpointer) stop() {
	k.mu.Lock()
	k.stopped = true
	k.some.Broadcast()
	k.mu.Unlock()
	close(k.end)
	k.ended.Wait()
}

// tick wakes the checkpointer each second, for what grows without new
// segments.
func (k *checkpointer) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-k.end:
			return
		case <-t.C:
			k.mu.Lock()
			k.some.Broadcast()
			k.mu.Unlock()
		}
	}
}

func (k *checkpointer) run() {
	for k.wait() {
		k.turn.Lock()
		err := k.s.poisoned()
		if err == nil {
			err = k.checkpoint()
		}
		k.turn.Unlock()
		if err != nil {
			k.failed(err)
		}
		k.mu.Lock()
		k.passes++
		k.some.Broadcast()
		k.mu.Unlock()
	}
}

// failed says what a failed checkpoint means: without space it is tried again,
// anything else is the end.
func (k *checkpointer) failed(err error) {
	if errors.Is(err, errNoRoom) || errors.Is(err, lsm.ErrNoSpace) || errors.Is(err, lsm.ErrNoFiles) {
		k.s.log.Warn("no space to move the journal's messages to the database; trying again", slog.Any("err", err))
	} else if k.s.poisoned() == nil {
		_ = k.s.fail(err)
	}
	k.mu.Lock()
	for until := time.Now().Add(time.Second); !k.stopped && time.Now().Before(until); {
		k.some.Wait()
	}
	k.mu.Unlock()
}

var errNoRoom = errors.New("no room")

// wait waits until a checkpoint is due. False: the store is closed.
func (k *checkpointer) wait() bool {
	for {
		k.mu.Lock()
		if k.stopped {
			k.mu.Unlock()
			return false
		}
		if k.asked > 0 || len(k.firsts) > k.s.profile.closedSegments() {
			k.asked = 0
			k.mu.Unlock()
			return true
		}
		k.mu.Unlock()
		if k.grown() {
			return true
		}
		k.mu.Lock()
		if !k.stopped && k.asked == 0 {
			k.some.Wait()
		}
		k.mu.Unlock()
	}
}

// grown says whether small values, or what is dead in the database, have grown
// so that a checkpoint is worth it.
func (k *checkpointer) grown() bool {
	var small int64
	for _, p := range k.s.allParts() {
		p.mu.RLock()
		small += p.fresh.bytes
		p.mu.RUnlock()
	}
	return small > k.s.profile.overlay || k.worthReclaim(k.s.dead())
}

// now makes a checkpoint and waits for it: for tests.
func (k *checkpointer) now() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	before := k.passes
	k.some.Broadcast()
	for !k.stopped && k.passes < before+1 || k.asked > 0 && !k.stopped {
		k.some.Wait()
	}
}

func (s *store) allParts() []*part {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := make([]*part, 0, len(s.parts))
	for _, p := range s.parts {
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(a, b *part) int { return cmp.Compare(a.id, b.id) })
	return parts
}

// covers is which segments a checkpoint moves: all but the one that is being
// written. needed is the first it leaves, done the last commit before.
func (k *checkpointer) covers() (needed uint32, done uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.firsts) == 0 {
		m := k.s.db.Mark()
		return m.Segment, m.Commit
	}
	current := k.firsts[len(k.firsts)-1]
	return current.number, current.first - 1
}

// checkpoint makes one.
func (k *checkpointer) checkpoint() error {
	s := k.s
	needed, done := k.covers()
	if err := s.mayWrite(s.moving(needed)); err != nil {
		return err
	}
	begun, number := time.Now(), k.last+1
	parts := s.allParts()
	moves := make([]move, len(parts))
	for i, p := range parts {
		moves[i] = move{s: s, p: p, number: number, needed: needed}
	}
	if err := k.write(moves, lsm.Mark{Checkpoint: number, Segment: needed, Commit: done}); err != nil {
		for i := range moves {
			k.leftover = moves[i].undo(k.leftover)
		}
		return err
	}
	spilled := int64(0)
	for i := range moves {
		moves[i].swap()
		spilled += moves[i].stored
	}
	s.counts.spilled.Add(spilled)
	s.counts.checkpoints.Add(1)
	if err := k.finished(number, needed); err != nil {
		return err
	}
	s.log.Debug("checkpoint", slog.Uint64("number", number), slog.Int64("spilled", spilled), slog.Duration("took", time.Since(begun)))
	if err := k.rewrite(parts); err != nil {
		return err
	}
	return k.tidy(parts)
}

// write writes what is to be moved, and the mark.
func (k *checkpointer) write(moves []move, m lsm.Mark) error {
	w := k.s.db.Writer(m.Checkpoint)
	for _, e := range k.leftover {
		if err := w.Put(e); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	k.leftover = nil
	for i := range moves {
		moves[i].w = w
		if err := moves[i].name(); err != nil {
			return err
		}
	}
	for i := range moves {
		if err := moves[i].blocks(); err != nil {
			return err
		}
	}
	for i := range moves {
		if err := moves[i].rest(); err != nil {
			return err
		}
	}
	return w.Finish(m)
}

// finished gives the segments back that the checkpoint before this one did not
// need either: the database may have lost the end of this one's transactions,
// and then it is done again.
func (k *checkpointer) finished(number uint64, needed uint32) error {
	k.mu.Lock()
	for len(k.firsts) > 0 && k.firsts[0].number < needed {
		k.firsts = k.firsts[1:]
	}
	k.s.behindN.Store(int64(len(k.firsts)))
	k.mu.Unlock()
	before := k.previous
	k.last, k.previous = number, needed
	return k.s.journal.Recycle(before)
}

// tidy gives space back, when there is enough of it.
func (k *checkpointer) tidy(parts []*part) error {
	if !k.worthReclaim(k.s.dead()) {
		return nil
	}
	k.reclaimed = time.Now()
	if err := k.s.db.Reclaim(); err != nil {
		return err
	}
	for _, p := range parts {
		p.mu.Lock()
		p.deadBytes = 0
		for i := range p.freed {
			p.deadBytes += int64(p.freed[i].stored)
		}
		p.mu.Unlock()
	}
	return nil
}

// What is dead is worth a reclaim when it is much, and a part of the whole.
const (
	deadMuch     = 16 << 20
	reclaimEvery = 5 * time.Second
)

func (k *checkpointer) worthReclaim(dead int64) bool {
	return dead > deadMuch && time.Since(k.reclaimed) > reclaimEvery && dead > k.s.db.Size()/4
}

// A move is one partition's part of a checkpoint.
type move struct {
	s      *store
	p      *part
	w      *lsm.Writer
	number uint64
	needed uint32 // chunks of segments below move

	made   []made
	moved  []chunk
	stored int64

	taken []freed // from the partition, to be deleted
	logs  []core.LogID
	pages []uint64
}

// made is a block that will take the place of chunks.
type made struct {
	log   *log
	block *block
}

// chunk is a block of the journal that has been moved, of a log.
type chunk struct {
	log   *log
	block *block
}

// name writes the partition's own key before anything else of it: what a crash
// leaves of a partition that Open does not know would never be looked at.
func (m *move) name() error {
	m.p.mu.RLock()
	v := encodePart(m.p.lastID)
	m.p.mu.RUnlock()
	return m.w.Put(lsm.Entry{Key: partKey(kindPartition, m.p.id, 0), Value: v})
}

// blocks writes what is owed of the chunks as blocks.
func (m *move) blocks() error {
	m.p.mu.RLock()
	logs := make([]*log, 0, len(m.p.logs))
	for _, l := range m.p.logs {
		logs = append(logs, l)
	}
	m.p.mu.RUnlock()
	slices.SortFunc(logs, func(a, b *log) int { return cmp.Compare(a.id, b.id) })
	for _, l := range logs {
		if err := m.log(l); err != nil {
			return err
		}
	}
	return nil
}

// chunks is those of a log that are to be moved.
// Their log is written too: not all that has been given an offset moves.
func (m *move) chunks(l *log) []*block {
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	var some []*block
	for _, b := range l.blocks {
		if b.chunk() && b.segment < m.needed {
			some = append(some, b)
		}
	}
	if len(some) > 0 {
		m.p.changedLogs[l.id] = struct{}{}
	}
	return some
}

// log moves the chunks of one log. The writers hold what belongs together;
// when they hold too much all are emptied, and the blocks are smaller than
// they could be.
func (m *move) log(l *log) error {
	g := gatherer{move: m, log: l, writers: map[core.CursorID]*blockWriter{}}
	for _, b := range m.chunks(l) {
		if err := g.chunk(b); err != nil {
			return err
		}
		m.moved = append(m.moved, chunk{l, b})
		if g.held > m.s.profile.spillBytes {
			if err := g.flushAll(); err != nil {
				return err
			}
		}
	}
	return g.flushAll()
}

// A gatherer puts the records of one log into blocks: one for each cursor that
// alone owes some, and one for what is owed by more.
type gatherer struct {
	move    *move
	log     *log
	writers map[core.CursorID]*blockWriter // 0: what is shared
	held    int
	owners  []core.CursorID // by record of a chunk
}

// nobody owns what is not wanted any more.
const nobody = core.CursorID(1<<64 - 1)

// chunk gathers what is wanted of a chunk. What is settled while it is at it
// may come along; swap will know.
func (g *gatherer) chunk(b *block) error {
	m := g.move
	if !g.whose(b) {
		return nil
	}
	at := b.base
	i := 0
	for r := range b.runs {
		p := &b.runs[r]
		buf, err := m.s.readRun(b, p, m.s.points.buf)
		if err != nil {
			return damaged(g.log.id, b, err)
		}
		m.s.points.buf = buf
		records, err := openRun(buf, at, p)
		for err == nil && records.next() {
			if owner := g.owners[i]; owner != nobody {
				if err := g.record(owner, b, i, &records); err != nil {
					return err // of the database, as that it is full: the block is sound
				}
			}
			i++
		}
		if err = errors.Join(err, records.err); err != nil {
			return damaged(g.log.id, b, err)
		}
		at += core.Offset(p.n)
	}
	return nil
}

// whose finds out who owns the records of a chunk, and says whether anybody.
// It is the only place where a route set is expanded.
func (g *gatherer) whose(b *block) (any bool) {
	p := g.move.p
	p.mu.RLock()
	defer p.mu.RUnlock()
	if b.gone {
		return false
	}
	g.owners = g.owners[:0]
	for i := range b.n {
		owner := g.owner(b, i)
		any = any || owner != nobody
		g.owners = append(g.owners, owner)
	}
	return any
}

// owner is whose the i-th record of a chunk is: one cursor's, shared (0), or
// nobody's.
func (g *gatherer) owner(b *block, i int) core.CursorID {
	o, r := b.base+core.Offset(i), b.route(i)
	if o < g.log.first {
		return nobody
	}
	if r.id == 0 {
		return 0
	}
	owner := nobody
	for _, m := range r.members() {
		if c := g.move.p.cursors[m]; c == nil || c.log != g.log.id || c.settled.has(o) {
			continue
		}
		if owner != nobody {
			return 0
		}
		owner = m
	}
	return owner
}

// record adds a record to the block of its owner.
func (g *gatherer) record(owner core.CursorID, b *block, i int, r *recordReader) error {
	w := g.writers[owner]
	route := b.route(i)
	if owner != 0 {
		route = g.solo(owner, w)
	}
	if w != nil && !w.takes(route, len(r.message), g.move.s.profile.blockBytes) {
		if err := g.flush(w); err != nil {
			return err
		}
		w = nil
	}
	if w == nil {
		w = newBlockWriter(owner, g.move.number)
		g.writers[owner] = w
	}
	before := len(w.buf)
	w.add(r.offset, route, r.size, r.time, r.message)
	g.held += len(w.buf) - before
	return nil
}

// solo is the route that leads to one cursor.
func (g *gatherer) solo(owner core.CursorID, w *blockWriter) *route {
	if w != nil && w.block.n > 0 {
		return w.block.uses[0].route
	}
	p := g.move.p
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.route(g.log, core.Solo(owner))
}

// flushAll closes all open blocks.
func (g *gatherer) flushAll() error {
	for _, owner := range slices.Sorted(maps.Keys(g.writers)) {
		if err := g.flush(g.writers[owner]); err != nil {
			return err
		}
	}
	clear(g.writers)
	return nil
}

// flush closes a block and puts it into the database: the pieces of one that
// is large, then itself with its index entry.
func (g *gatherer) flush(w *blockWriter) error {
	m, b := g.move, w.block
	g.held -= len(w.buf)
	value := w.seal()
	b.stored = len(value)
	id := b.id(m.p.id, g.log.id)
	most := min(pieceBytes, m.s.db.MaxEntry()/2)
	for from := most; from < len(value); from += most {
		b.pieces++
		piece := value[from:min(len(value), from+most)]
		if err := m.w.Put(lsm.Entry{Key: id.piece(b.pieces), Value: piece}); err != nil {
			return err
		}
	}
	err := m.w.Put(
		lsm.Entry{Key: id.key(kindBlock), Value: value[:min(len(value), most)]},
		lsm.Entry{Key: id.key(kindIndex), Value: appendIndex(nil, b)},
	)
	m.made = append(m.made, made{g.log, b})
	m.stored += int64(len(value))
	return err
}

// pieceBytes is the largest value of a block: a longer one is in pieces.
const pieceBytes = 256 << 10

// rest writes all but the blocks, and deletes blocks. What it says of a log is
// older than what it says of the log's cursors, and is written after it: so
// replay, which meets an op older than that, knows that the cursors know it.
func (m *move) rest() error {
	p := m.p
	p.mu.Lock()
	maps.Copy(p.unfit.values, p.fresh.values)
	p.fresh = newOverlay()
	m.taken, p.freed = p.freed, nil
	entries := []lsm.Entry{{Key: partKey(kindPartition, p.id, 0), Value: encodePart(p.lastID)}} // name's may be older
	for id := range p.changedLogs {
		m.logs = append(m.logs, id)
		e := lsm.Entry{Key: numberKey(kindLog, p.id, uint64(id))}
		if l := p.logs[id]; l != nil {
			e.Value = encodeLog(l, p.commit)
		}
		entries = append(entries, e)
	}
	clear(p.changedLogs)
	m.pages = m.changedPages()
	p.mu.Unlock()
	for k, v := range p.unfit.sorted() {
		if err := m.w.Put(lsm.Entry{Key: []byte(k), Value: v}); err != nil {
			return err
		}
	}
	for _, page := range m.pages {
		if err := m.page(page); err != nil {
			return err
		}
	}
	if err := m.delete(); err != nil {
		return err
	}
	for _, e := range entries { // last: see above
		if err := m.w.Put(e); err != nil {
			return err
		}
	}
	return nil
}

// page writes a page of cursors, and before it those of them that have values
// of their own: a crash in between leaves both, and the newer one counts.
func (m *move) page(page uint64) error {
	own, together := m.encodePage(page)
	for _, e := range own {
		if err := m.w.Put(e); err != nil {
			return err
		}
	}
	return m.w.Put(together...)
}

// encodePage is a page, with the cursors that have values of their own, and
// those that have had and are on the page again.
func (m *move) encodePage(page uint64) (own, together []lsm.Entry) {
	p := m.p
	p.mu.Lock() // whoever drops a cursor must see that it is wide
	defer p.mu.Unlock()
	value, wide, n := p.encodePage(page)
	if n == 0 {
		value = nil
	}
	together = []lsm.Entry{{Key: numberKey(kindPage, p.id, page), Value: value}}
	for i := range 1 << pageBits {
		c := p.cursors[core.CursorID(page<<pageBits|uint64(i))]
		if c == nil {
			continue
		}
		key := numberKey(kindWide, p.id, uint64(c.id))
		if !slices.Contains(wide, c) {
			if c.wide {
				together = append(together, lsm.Entry{Key: key})
			}
			c.wide = false
			continue
		}
		c.wide = true
		v, whole := p.encodeWide(c, m.s.db.MaxEntry()-len(key))
		if !whole {
			m.s.log.Warn("a cursor has settled in so many places that some are forgotten at a restart", slog.Uint64("cursor", uint64(c.id)), slog.Int("ranges", len(c.settled.above)))
		}
		own = append(own, lsm.Entry{Key: key, Value: v})
	}
	return own, together
}

// changedPages is the pages of cursors that have changed. p.mu is held.
func (m *move) changedPages() []uint64 {
	p := m.p
	for _, c := range p.changedCursors {
		c.changed = false
		p.changedPages[pageOf(c.id)] = struct{}{}
	}
	clear(p.changedCursors)
	p.changedCursors = p.changedCursors[:0]
	pages := slices.Sorted(maps.Keys(p.changedPages))
	clear(p.changedPages)
	return pages
}

// delete deletes blocks that nobody wants.
func (m *move) delete() error {
	for i := range m.taken {
		if err := m.w.Put(m.taken[i].entries()...); err != nil {
			return err
		}
	}
	return nil
}

// entries delete a block.
func (f *freed) entries() []lsm.Entry {
	entries := []lsm.Entry{
		{Key: f.id.key(kindBlock)},
		{Key: f.id.key(kindIndex)},
	}
	for n := range f.pieces {
		entries = append(entries, lsm.Entry{Key: f.id.piece(n + 1)})
	}
	return entries
}

// undo gives back what a checkpoint that failed has taken, and adds to
// leftover what has to be deleted before the next one begins: it may cut the
// blocks elsewhere.
func (m *move) undo(leftover []lsm.Entry) []lsm.Entry {
	p := m.p
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freed = append(m.taken, p.freed...)
	for _, id := range m.logs {
		p.changedLogs[id] = struct{}{}
	}
	for _, page := range m.pages {
		p.changedPages[page] = struct{}{}
	}
	for i := range m.made {
		b := m.made[i].block
		f := freed{b.id(p.id, m.made[i].log.id), b.pieces, b.stored}
		leftover = append(leftover, f.entries()...)
	}
	return leftover
}

// swap lets readers find the blocks where the chunks were.
func (m *move) swap() {
	p := m.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range m.moved {
		if !c.block.gone {
			p.unlink(c.log, c.block)
		}
	}
	for i := range m.made {
		l, b := m.made[i].log, m.made[i].block
		if p.logs[l.id] != l || b.end() <= l.first {
			p.bury(l, b)
			continue
		}
		p.revive(l, b)
		if err := p.link(l, b); err != nil {
			_ = m.s.fail(err)
			return
		}
		p.recount(l, b)
	}
	for _, c := range m.moved {
		p.release0(c.log, c.block)
	}
	p.unfit = newOverlay()
}

// revive brings the routes back that were forgotten while the block was made.
func (p *part) revive(l *log, b *block) {
	for i := range b.uses {
		if id := b.uses[i].route.id; l.routes[id] != b.uses[i].route {
			b.uses[i].route = p.route(l, id)
		}
	}
}
