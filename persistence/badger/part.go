package badger

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/godwitmq/godwit/core"
)

// A part is one partition as it is known in memory: everything but messages
// and records. The committer alone changes it, and does so before the
// transaction is written. That readers see an ack a moment before the disk
// does harms nobody; that they do not see an append too early is what
// log.visible is for.
type part struct {
	id    core.PartitionID
	owner *handle // store.mu

	accepted uint64                       // the highest id of an accepted batch; store.mu
	defined  map[core.RouteSetID]struct{} // the sets an append may use; store.mu

	mu      sync.RWMutex
	lastID  uint64
	logs    map[core.LogID]*log
	cursors map[core.CursorID]*cursor
	sets    map[core.RouteSetID]*routeSet

	// The committer's alone: the transaction being filled, and what has
	// still to go into it.
	out            *txn
	seq            uint64 // of the last transaction with something of this partition
	changedID      bool
	changedLogs    []*log
	changedCursors []*cursor
	freed          []freed
	acks           ackLog
}

// A log is one log.
type log struct {
	id      core.LogID
	first   core.Offset // nothing below is seen any more
	next    core.Offset
	visible core.Offset // readers see what is below: it is on the disk
	clock   int64       // time of the newest record; never goes back
	blocks  []*block    // oldest first
	routes  map[core.RouteSetID]*route

	open    *block // the last of blocks while records are added to it
	buf     []byte // the records of open, at rest
	touched bool   // it is in changedLogs
	write   bool   // and its key has to be written
}

// A cursor is one reader's place in a log.
type cursor struct {
	id      core.CursorID
	log     core.LogID
	settled ranges
	marks   map[core.Offset]uint16 // delivery counts; nil: none
	routes  []*route               // of its log, those that lead to it
	seq     uint64                 // of the transaction it was last written whole in
	changed bool                   // it is in changedCursors
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
	used []place       // oldest first

	last    *block // the block that used it last, and as which use
	lastUse int
}

// A place is a block that uses a route, and as which of its uses.
type place struct {
	block *block
	use   uint8
}

// freed is a block to be deleted from the disk.
type freed struct {
	log    core.LogID
	base   core.Offset
	pieces uint16
}

func newPart(id core.PartitionID) *part {
	return &part{
		id:      id,
		defined: map[core.RouteSetID]struct{}{},
		logs:    map[core.LogID]*log{},
		cursors: map[core.CursorID]*cursor{},
		sets:    map[core.RouteSetID]*routeSet{},
		acks:    ackLog{dirty: map[core.CursorID]struct{}{}},
	}
}

// apply does all of a batch, in the order of its fields, and puts what
// follows for the disk into p.out. p.mu is held.
func (p *part) apply(st *staged, c *profile) {
	b := st.batch
	for i := range b.Cursors {
		p.move(b.Cursors[i])
	}
	if top := highest(b); top > p.lastID {
		p.lastID, p.changedID = top, true
	}
	for i := range b.Sets {
		p.define(&b.Sets[i])
	}
	from := 0
	for i := range b.Appends {
		p.add(&b.Appends[i], max(b.Now, 0), st.encoded[from:st.ends[i]], c)
		from = st.ends[i]
	}
	for i := range b.Records {
		r := &b.Records[i]
		p.out.put(recordKey(p.id, r.Table, r.Key), r.Value)
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
		p.write(l)
	}
	return l
}

func newLog(id core.LogID) *log {
	return &log{id: id, first: 1, next: 1, visible: 1, routes: map[core.RouteSetID]*route{}}
}

// touch remembers that the transaction has something of l.
func (p *part) touch(l *log) {
	if !l.touched {
		l.touched = true
		p.changedLogs = append(p.changedLogs, l)
	}
}

// write is touch, and l's key has to be written.
func (p *part) write(l *log) {
	p.touch(l)
	l.write = true
}

// move creates, seeks or drops a cursor.
func (p *part) move(op core.CursorOp) {
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
	p.unmark(c, 0, c.settled.floor)
	p.release(c, l)
	if !c.changed {
		c.changed = true
		p.changedCursors = append(p.changedCursors, c)
	}
}

func (p *part) findRoutes(c *cursor, l *log) {
	for _, r := range l.routes {
		if r.has(c.id) {
			c.routes = append(c.routes, r)
		}
	}
}

// drop takes a cursor away and frees what it alone owed.
func (p *part) drop(c *cursor) {
	delete(p.cursors, c.id)
	delete(p.acks.dirty, c.id)
	p.unmark(c, 0, core.MaxOffset)
	p.out.del(numberKey(kindCursor, p.id, uint64(c.id)))
	if l := p.logs[c.log]; l != nil {
		p.owe(c, l, -1)
		p.release(c, l)
		if solo := l.routes[core.Solo(c.id)]; solo != nil && len(solo.used) == 0 {
			delete(l.routes, solo.id)
		}
	}
}

// define makes a route set known, or retires it.
func (p *part) define(s *core.RouteSet) {
	known := p.sets[s.ID]
	if s.Members == nil {
		if known != nil && !known.retired {
			known.retired = true
			p.out.put(chunkKey(kindSet, p.id, uint64(s.ID), setRetired), []byte{})
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
	for i, chunk := range setChunks(members) {
		p.out.put(chunkKey(kindSet, p.id, uint64(s.ID), uint16(i)), chunk)
	}
}

// forgetSet removes a retired set once no stored record names it.
func (p *part) forgetSet(s *routeSet) {
	if !s.retired {
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
		p.forgetRoute(l, r)
	}
	delete(p.sets, s.id)
	for i := range max(1, (len(s.members)+setChunkMembers-1)/setChunkMembers) {
		p.out.del(chunkKey(kindSet, p.id, uint64(s.id), uint16(i)))
	}
	p.out.del(chunkKey(kindSet, p.id, uint64(s.id), setRetired))
}

// forgetRoute takes a route that no block uses out of its log and cursors.
func (p *part) forgetRoute(l *log, r *route) {
	delete(l.routes, r.id)
	for _, m := range r.members() {
		if c := p.cursors[m]; c != nil && c.log == l.id {
			c.routes = slices.DeleteFunc(c.routes, func(x *route) bool { return x == r })
		}
	}
}

// A set at rest: chunks of members, each the difference to the one before.
const setChunkMembers = 65536

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
	case r.id != 0:
		return []core.CursorID{r.solo}
	}
	return nil
}

// route finds the route of a set in l, or makes it.
func (p *part) route(l *log, id core.RouteSetID) *route {
	r := l.routes[id]
	if r != nil {
		return r
	}
	r = &route{id: id}
	if solo, ok := id.Member(); ok {
		r.solo = solo
	} else if id != 0 {
		r.set = p.sets[id]
		if r.set == nil { // Commit refuses it; a damaged disk may name it
			r.set = &routeSet{id: id}
			p.sets[id] = r.set
		}
	}
	l.routes[id] = r
	for _, m := range r.members() {
		if c := p.cursors[m]; c != nil && c.log == l.id {
			c.routes = append(c.routes, r)
		}
	}
	return r
}

// mark sets a delivery count.
func (p *part) mark(m core.Mark) {
	c := p.cursors[m.Cursor]
	if c == nil || !p.owes(c, m.At) {
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
	p.out.put(markKey(p.id, c.id, m.At), binary.AppendUvarint(nil, uint64(m.Attempts)))
}

// owes says whether c has still to settle the record at o.
func (p *part) owes(c *cursor, o core.Offset) bool {
	l := p.logs[c.log]
	if l == nil || o < l.first || c.settled.has(o) {
		return false
	}
	b := l.block(o)
	return b != nil && b.route(o).has(c.id)
}

// unmark removes the delivery counts of c in [from, to).
func (p *part) unmark(c *cursor, from, to core.Offset) {
	if len(c.marks) == 0 {
		return
	}
	if to-from == 1 {
		if _, ok := c.marks[from]; ok {
			delete(c.marks, from)
			p.out.del(markKey(p.id, c.id, from))
		}
		return
	}
	for o := range c.marks {
		if o >= from && o < to {
			delete(c.marks, o)
			p.out.del(markKey(p.id, c.id, o))
		}
	}
}
