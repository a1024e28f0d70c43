package badger

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/godwitmq/godwit/core"
)

// A part is one partition as it is known in memory: everything but the
// messages. All of it is on the disk, in the journal or in the database: a
// batch is applied when its frame is synced, by the applier, which alone
// changes it. Readers hold the mutex.
type part struct {
	id    core.PartitionID
	owner *handle // store.mu

	accepted uint64                       // the highest id of an accepted batch; store.mu
	defined  map[core.RouteSetID]struct{} // the sets an append may use; store.mu

	assigning sync.Mutex // of offsets, to batches on their way
	ends      map[core.LogID]*logEnd

	mu       sync.RWMutex
	commit   uint64 // the last frame applied
	lastID   uint64
	logs     map[core.LogID]*log
	cursors  map[core.CursorID]*cursor
	sets     map[core.RouteSetID]*routeSet
	loading  bool         // nothing is accounted for yet
	applying bool         // the applier has the mutex; its own
	dropped  []core.LogID // by the frame that is being applied; the applier's own

	fresh overlay // what has still to go to the database; newest values
	unfit overlay // what a checkpoint is writing

	changedID      bool
	changedLogs    map[core.LogID]struct{}
	changedCursors []*cursor
	changedPages   map[uint64]struct{}      // pages of cursors that were dropped
	pages          map[uint64]uint64        // while loading: the commit a page of cursors is true for
	wides          map[core.CursorID]uint64 // and a cursor with a value of its own
	freed          []freed
	deadBytes      int64 // octets of freed, and of what was deleted since the last reclaim
}

// logEnd is where a log will go on, counting what is on its way.
type logEnd struct {
	next  core.Offset
	clock int64
}

// A log is one log.
type log struct {
	id     core.LogID
	first  core.Offset // nothing below is seen any more
	next   core.Offset
	clock  int64    // time of the newest record; never goes back
	rest   uint64   // the commit that what the database says of it is true for
	blocks []*block // shared ones at rest and chunks, oldest first: none overlaps another
	routes map[core.RouteSetID]*route
	sets   []*route             // those of routes that are a set's
	ahead  map[*cursor]struct{} // those that were set beyond the end; nil: none

	lastRoute *route // of the record before: most often also of the next
}

// A cursor is one reader's place in a log.
type cursor struct {
	id      core.CursorID
	log     core.LogID
	settled ranges
	marks   map[core.Offset]uint16 // delivery counts; nil: none
	routes  []*route               // of its log, those that lead to it
	changed bool                   // it is in changedCursors
	wide    bool                   // it has a value of its own at rest
}

// A routeSet is a set that a batch has defined.
type routeSet struct {
	id      core.RouteSetID
	members []core.CursorID // sorted
	retired bool
}

// A route is the use of one route set in one log.
type route struct {
	id   core.RouteSetID
	solo core.CursorID // of a Solo set
	set  *routeSet     // of the others; nil: 0, which leads to nobody
	live int           // how many members have a cursor on the log
	used []usedIn      // oldest first: none overlaps another

	last    *block // the block that used it last, and as which use
	lastUse int
}

// usedIn is a block that uses a route, and as which of its uses.
type usedIn struct {
	block *block
	use   uint8
}

// freed is a block to be deleted from the database.
type freed struct {
	id     blockID
	pieces uint16
	stored int
}

func newPart(id core.PartitionID) *part {
	return &part{
		id:           id,
		defined:      map[core.RouteSetID]struct{}{},
		ends:         map[core.LogID]*logEnd{},
		logs:         map[core.LogID]*log{},
		cursors:      map[core.CursorID]*cursor{},
		sets:         map[core.RouteSetID]*routeSet{},
		fresh:        newOverlay(),
		unfit:        newOverlay(),
		changedLogs:  map[core.LogID]struct{}{},
		changedPages: map[uint64]struct{}{},
	}
}

// end is where a log will go on. p.assigning is held.
func (p *part) end(id core.LogID) *logEnd {
	if e := p.ends[id]; e != nil {
		return e
	}
	e := &logEnd{next: 1}
	p.mu.RLock()
	if l := p.logs[id]; l != nil {
		e.next, e.clock = l.next, l.clock
	}
	p.mu.RUnlock()
	p.ends[id] = e
	return e
}

// forgetEnds forgets the ends of the logs that a frame has dropped. p.mu must
// not be held: who gives out offsets waits for it.
func (p *part) forgetEnds() {
	if len(p.dropped) == 0 {
		return
	}
	p.assigning.Lock()
	for _, id := range p.dropped {
		delete(p.ends, id)
	}
	p.assigning.Unlock()
	p.dropped = p.dropped[:0]
}

// A source is a batch to be applied, and where its frame is. Only Log and
// Routes of its appends are looked at.
type source struct {
	batch   *core.Batch
	runs    []run
	sizes   []int64
	commit  uint64
	segment uint32
	at      int64 // of the batch in the segment's file
}

// apply does all of a batch, in the order of its fields. p.mu is held.
func (p *part) apply(s *source) error {
	b := s.batch
	p.commit = s.commit
	for i := range b.Cursors {
		p.move(b.Cursors[i])
	}
	if top := highest(b); top > p.lastID {
		p.lastID, p.changedID = top, true
	}
	for i := range b.Sets {
		p.define(&b.Sets[i])
	}
	for i := range s.runs {
		if err := p.add(s, &s.runs[i]); err != nil {
			return err
		}
	}
	for i := range b.Records {
		r := &b.Records[i]
		p.fresh.put(recordKey(p.id, r.Table, r.Key), r.Value)
	}
	for i := range b.Marks {
		p.mark(b.Marks[i])
	}
	for i := range b.Acks {
		p.ack(b.Acks[i])
	}
	for i := range b.Trims {
		p.trim(b.Trims[i])
	}
	return nil
}

// highest is the highest id that b uses.
func highest(b *core.Batch) uint64 {
	var top uint64
	for i := range b.Cursors {
		top = max(top, uint64(b.Cursors[i].ID), uint64(b.Cursors[i].Log))
	}
	for i := range b.Sets {
		top = max(top, uint64(b.Sets[i].ID))
		for _, m := range b.Sets[i].Members {
			top = max(top, uint64(m))
		}
	}
	for i := range b.Appends {
		top = max(top, uint64(b.Appends[i].Log), uint64(b.Appends[i].Routes)&^(1<<63))
	}
	return top
}

// log finds a log, or makes it.
func (p *part) log(id core.LogID) *log {
	l := p.logs[id]
	if l == nil {
		l = newLog(id)
		p.logs[id] = l
		p.changedLogs[id] = struct{}{}
	}
	return l
}

func newLog(id core.LogID) *log {
	return &log{id: id, first: 1, next: 1, routes: map[core.RouteSetID]*route{}}
}

// settledAtRest says whether ops on a cursor are older than what the database
// has of it: an op of the journal may be replayed that a checkpoint has seen.
func (p *part) settledAtRest(c core.CursorID) bool {
	return p.loading && max(p.pages[pageOf(c)], p.wides[c]) >= p.commit
}

// knownAtRest says whether ops on a log are older than what the database has of
// it. What such an op reached was known when it came; by now the log is longer.
func (p *part) knownAtRest(id core.LogID) bool {
	l := p.logs[id]
	return p.loading && l != nil && l.rest >= p.commit
}

// move creates, seeks or drops a cursor.
func (p *part) move(op core.CursorOp) {
	if p.settledAtRest(op.ID) {
		p.log(op.Log)
		return
	}
	c := p.cursors[op.ID]
	if c != nil && (op.Drop || c.log != op.Log) {
		p.drop(c)
		c = nil
	}
	if op.Drop {
		return
	}
	l := p.log(op.Log)
	if c == nil {
		c = &cursor{id: op.ID, log: op.Log}
		p.cursors[op.ID] = c
		if uint64(op.ID) <= p.lastID { // else nothing can lead to it yet
			p.findRoutes(c, l)
		}
	} else {
		p.owe(c, l, -1)
	}
	c.settled = ranges{floor: max(op.At, 1)}
	p.owe(c, l, +1)
	if c.settled.floor > l.next {
		l.setAhead(c)
	}
	p.unmark(c, 0, c.settled.floor)
	p.release(c, l)
	p.change(c)
}

// setAhead remembers that c skips what is still to come.
func (l *log) setAhead(c *cursor) {
	if l.ahead == nil {
		l.ahead = map[*cursor]struct{}{}
	}
	l.ahead[c] = struct{}{}
}

// change remembers that c has to be written.
func (p *part) change(c *cursor) {
	if !c.changed {
		c.changed = true
		p.changedCursors = append(p.changedCursors, c)
	}
}

func (p *part) findRoutes(c *cursor, l *log) {
	join := func(r *route) {
		c.routes = append(c.routes, r)
		r.live++
	}
	if r := l.routes[core.Solo(c.id)]; r != nil {
		join(r)
	}
	for _, r := range l.sets {
		if r.has(c.id) {
			join(r)
		}
	}
}

// drop takes a cursor away and frees what it alone owed.
func (p *part) drop(c *cursor) {
	delete(p.cursors, c.id)
	p.changedPages[pageOf(c.id)] = struct{}{}
	if c.wide {
		p.fresh.del(numberKey(kindWide, p.id, uint64(c.id)))
	}
	p.unmark(c, 0, core.MaxOffset)
	l := p.logs[c.log]
	if l == nil {
		return
	}
	p.owe(c, l, -1)
	for _, r := range c.routes {
		r.live--
	}
	delete(l.ahead, c)
	p.release(c, l)
	if solo := l.routes[core.Solo(c.id)]; solo != nil && len(solo.used) == 0 {
		l.forgetRoute(solo)
	}
}

func (l *log) forgetRoute(r *route) {
	delete(l.routes, r.id)
	if r.set != nil {
		l.sets = slices.DeleteFunc(l.sets, func(x *route) bool { return x == r })
	}
	if l.lastRoute == r {
		l.lastRoute = nil
	}
}

// define makes a route set known, or retires it.
func (p *part) define(s *core.RouteSet) {
	known := p.sets[s.ID]
	if s.Members == nil {
		if known != nil && !known.retired {
			known.retired = true
			p.fresh.put(chunkKey(kindSet, p.id, uint64(s.ID), setRetired), []byte{})
			p.forgetSet(known)
		}
		return
	}
	if known != nil {
		return // immutable
	}
	members := slices.Clone(s.Members)
	slices.Sort(members)
	members = slices.Compact(members)
	p.sets[s.ID] = &routeSet{id: s.ID, members: members}
	for _, l := range p.logs { // one that was made when it led to nobody
		if r := l.routes[s.ID]; r != nil && r.set == nil {
			l.forgetRoute(r)
		}
	}
	for i, chunk := range setChunks(members) {
		p.fresh.put(chunkKey(kindSet, p.id, uint64(s.ID), uint16(i)), chunk)
	}
}

// forgetSet removes a retired set once no stored record names it.
func (p *part) forgetSet(s *routeSet) {
	if !s.retired || p.loading {
		return
	}
	for _, l := range p.logs {
		r := l.routes[s.id]
		if r == nil {
			continue
		}
		if len(r.used) > 0 {
			return
		}
		p.unroute(l, r)
	}
	delete(p.sets, s.id)
	for i := range max(1, (len(s.members)+setChunkMembers-1)/setChunkMembers) {
		p.fresh.del(chunkKey(kindSet, p.id, uint64(s.id), uint16(i)))
	}
	p.fresh.del(chunkKey(kindSet, p.id, uint64(s.id), setRetired))
}

// unroute takes a route that no block uses out of its log and cursors.
func (p *part) unroute(l *log, r *route) {
	l.forgetRoute(r)
	for _, m := range r.members() {
		if c := p.cursors[m]; c != nil && c.log == l.id {
			c.routes = slices.DeleteFunc(c.routes, func(x *route) bool { return x == r })
		}
	}
}

// A set at rest: chunks of members, each the difference to the one before.
const setChunkMembers = 16384

func setChunks(members []core.CursorID) [][]byte {
	if len(members) == 0 {
		return [][]byte{{}}
	}
	var chunks [][]byte
	last := core.CursorID(0)
	for some := range slices.Chunk(members, setChunkMembers) {
		b := []byte{}
		for _, m := range some {
			b = binary.AppendUvarint(b, uint64(m-last))
			last = m
		}
		chunks = append(chunks, b)
	}
	return chunks
}

// has says whether r leads to c.
func (r *route) has(c core.CursorID) bool {
	if r.set == nil {
		return r.id != 0 && r.solo == c
	}
	_, ok := slices.BinarySearch(r.set.members, c)
	return ok
}

// members is whom r leads to.
func (r *route) members() []core.CursorID {
	switch {
	case r.set != nil:
		return r.set.members
	case r.solo != 0:
		return []core.CursorID{r.solo}
	}
	return nil
}

// route finds the route of a set in l, or makes it. A set that is not known
// has been forgotten, which is when all it led to was settled.
func (p *part) route(l *log, id core.RouteSetID) *route {
	if r := l.lastRoute; r != nil && r.id == id {
		return r
	}
	r := l.routes[id]
	if r == nil {
		r = p.newRoute(l, id)
	}
	l.lastRoute = r
	return r
}

func (p *part) newRoute(l *log, id core.RouteSetID) *route {
	r := &route{id: id}
	if solo, ok := id.Member(); ok {
		r.solo = solo
	} else if set := p.sets[id]; id != 0 && set != nil {
		r.set = set
		l.sets = append(l.sets, r)
	}
	l.routes[id] = r
	for _, m := range r.members() {
		if c := p.cursors[m]; c != nil && c.log == l.id {
			c.routes = append(c.routes, r)
			r.live++
		}
	}
	return r
}

// mark notes a delivery count.
func (p *part) mark(m core.Mark) {
	c := p.cursors[m.Cursor]
	if c == nil || p.knownAtRest(c.log) || !p.owes(c, m.At) {
		return
	}
	if m.Attempts == 0 {
		p.unmark(c, m.At, m.At+1)
		return
	}
	if c.marks == nil {
		c.marks = map[core.Offset]uint16{}
	}
	c.marks[m.At] = m.Attempts
	p.fresh.put(markKey(p.id, c.id, m.At), binary.AppendUvarint(nil, uint64(m.Attempts)))
}

// owes says whether c owes the record at an offset.
func (p *part) owes(c *cursor, at core.Offset) bool {
	l := p.logs[c.log]
	if l == nil || at < l.first || at >= l.next || c.settled.has(at) {
		return false
	}
	for _, r := range c.routes {
		if i := r.search(at); i < len(r.used) && r.used[i].block.count(r.used[i].use, at, at+1) > 0 {
			return true
		}
	}
	return false
}

// unmark forgets delivery counts of c in [from, to).
func (p *part) unmark(c *cursor, from, to core.Offset) {
	if len(c.marks) == 0 {
		return
	}
	if to-from == 1 {
		if _, ok := c.marks[from]; ok {
			delete(c.marks, from)
			p.fresh.del(markKey(p.id, c.id, from))
		}
		return
	}
	for o := range c.marks {
		if o >= from && o < to {
			delete(c.marks, o)
			p.fresh.del(markKey(p.id, c.id, o))
		}
	}
}
