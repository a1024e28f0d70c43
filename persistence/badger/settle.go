package badger

import (
	"encoding/binary"
	"sort"

	"github.com/godwitmq/godwit/core"
)

// search is the index of the first place whose block ends above o.
func (r *route) search(o core.Offset) int {
	return sort.Search(len(r.used), func(i int) bool { return o < r.used[i].block.end() })
}

// routed goes through the blocks that have records in [from, to) that are
// routed to c, and says how many. A block comes once for each of its routes.
func (c *cursor) routed(from, to core.Offset, each func(b *block, n int)) {
	for _, r := range c.routes {
		for i := r.search(from); i < len(r.used) && r.used[i].block.base < to; i++ {
			b := r.used[i].block
			if n := b.count(r.used[i].use, from, to); n > 0 {
				each(b, n)
			}
		}
	}
}

// owe adds what c has not settled to its blocks, or takes it off.
func (p *part) owe(c *cursor, l *log, sign int64) {
	for from, to := range c.settled.gaps(l.first, l.next) {
		c.routed(from, to, func(b *block, n int) { b.owed += sign * int64(n) })
	}
}

// release frees the blocks of c's routes that nobody wants any more.
func (p *part) release(c *cursor, l *log) {
	var dead []*block
	for _, r := range c.routes {
		for i := range r.used {
			if b := r.used[i].block; !b.live() && b != l.open {
				dead = append(dead, b)
			}
		}
	}
	for _, b := range dead {
		p.free(l, b)
	}
}

// ack settles a range of a cursor, as far as the log has given it out.
func (p *part) ack(a core.Ack) {
	c := p.cursors[a.Cursor]
	if c == nil || p.logs[c.log] == nil {
		return
	}
	l := p.logs[c.log]
	from, to := max(a.From, l.first), min(a.To, l.next)
	if from >= to || !p.settle(c, l, from, to) {
		return
	}
	p.unmark(c, from, to)
	p.acks.note(c.id, from, to)
}

// settle settles [from, to), frees blocks, lifts the floor, and says whether
// that changed anything.
func (p *part) settle(c *cursor, l *log, from, to core.Offset) bool {
	changed := false
	var dead []*block
	for a, z := range c.settled.gaps(from, to) {
		changed = true
		c.routed(a, z, func(b *block, n int) {
			b.owed -= int64(n)
			if !b.live() && b != l.open {
				dead = append(dead, b)
			}
		})
	}
	if !changed {
		return false
	}
	floor := c.settled.floor
	c.settled.add(from, to)
	if c.settled.floor != floor {
		c.lift(l)
	}
	for _, b := range dead {
		p.free(l, b)
	}
	return true
}

// lift raises the floor of c to the first record it may want. What lies
// between is settled or was never its affair, as most of a shared log is.
func (c *cursor) lift(l *log) {
	for c.settled.floor < l.next { // a cursor may have been set beyond the end
		o, ok := c.first(l, max(c.settled.floor, l.first))
		if !ok {
			o = l.next
		}
		c.settled.raise(o)
		if c.settled.floor == o {
			return
		}
	}
}

// first finds the first stored record at or after from that c may want: one
// routed to it, or one of a stream, which is routed to nobody and read by any.
func (c *cursor) first(l *log, from core.Offset) (first core.Offset, ok bool) {
	look := func(r *route) {
		for i := r.search(from); i < len(r.used); i++ {
			b := r.used[i].block
			if ok && b.base >= first {
				return
			}
			if o, found := b.first(r.used[i].use, from); found {
				if !ok || o < first {
					first, ok = o, true
				}
				return
			}
		}
	}
	for _, r := range c.routes {
		look(r)
	}
	if stream := l.routes[0]; stream != nil {
		look(stream)
	}
	return first, ok
}

// An ackLog is the acks on their way to their cursors. To write a cursor for
// each ack would cost a key each, and more for one with many ranges. So the
// acks of a transaction are one value, a delta, and when there are many deltas
// the cursors they are about are written whole, some with each transaction,
// and the deltas deleted: a fold.
//
// A cursor at rest knows the transaction it was written in; the deltas up to
// that one are in it.
type ackLog struct {
	out    []byte // of the transaction being filled
	deltas []delta
	bytes  int
	dirty  map[core.CursorID]struct{} // in deltas since the fold began, or the last one ended

	folding []core.CursorID // still to be written by the fold under way
	foldTo  uint64          // the deltas up to it go when the fold is done; 0: no fold
}

// A delta is one transaction's acks at rest.
type delta struct {
	seq    uint64
	chunks uint16
	bytes  int
}

// note adds an ack: cursor, from, length.
func (a *ackLog) note(c core.CursorID, from, to core.Offset) {
	a.out = binary.AppendUvarint(a.out, uint64(c))
	a.out = binary.AppendUvarint(a.out, uint64(from))
	a.out = binary.AppendUvarint(a.out, uint64(to-from))
	a.dirty[c] = struct{}{}
}

// finish puts into the transaction what the partition has still to write.
// p.mu is held.
func (p *part) finish(c *profile) {
	p.seq++
	if p.changedID {
		p.changedID = false
		p.out.put(partKey(kindPartition, p.id, 0), encodePart(p.lastID))
	}
	for _, l := range p.changedLogs {
		p.seal(l)
	}
	for _, l := range p.changedLogs { // sealing may have asked for it
		if l.write {
			l.write = false
			p.out.put(numberKey(kindLog, p.id, uint64(l.id)), encodeLog(l))
		}
	}
	for _, cur := range p.changedCursors {
		cur.changed = false
		if p.cursors[cur.id] == cur {
			p.writeCursor(cur)
		}
	}
	p.changedCursors = p.changedCursors[:0]
	p.writeDelta()
	p.fold(c)
	p.deleteFreed()
}

func (p *part) writeCursor(c *cursor) int {
	c.seq = p.seq
	v := encodeCursor(c)
	p.out.put(numberKey(kindCursor, p.id, uint64(c.id)), v)
	return len(v)
}

// writeDelta puts the acks of the transaction into it.
func (p *part) writeDelta() {
	a := &p.acks
	if len(a.out) == 0 {
		return
	}
	d := delta{seq: p.seq, bytes: len(a.out)}
	value := append([]byte(nil), a.out...)
	for len(value) > 0 {
		n := min(len(value), pieceBytes)
		p.out.put(chunkKey(kindAcks, p.id, d.seq, d.chunks), value[:n])
		value = value[n:]
		d.chunks++
	}
	a.out = a.out[:0]
	if cap(a.out) > 4*pieceBytes {
		a.out = nil
	}
	a.deltas = append(a.deltas, d)
	a.bytes += d.bytes
}

// fold writes some of the cursors whose acks are in deltas, and deletes the
// deltas when all are written.
func (p *part) fold(c *profile) {
	a := &p.acks
	if a.foldTo == 0 {
		if len(a.deltas) < c.foldDeltas && a.bytes < c.foldBytes {
			return
		}
		a.foldTo = p.seq
		a.folding = a.folding[:0]
		for id := range a.dirty {
			a.folding = append(a.folding, id)
		}
		clear(a.dirty)
	}
	for room := c.foldEachBytes; room > 0 && len(a.folding) > 0; {
		last := len(a.folding) - 1
		if cur := p.cursors[a.folding[last]]; cur != nil {
			room -= 64 + p.writeCursor(cur)
		}
		a.folding = a.folding[:last]
	}
	for len(a.folding) == 0 && len(a.deltas) > 0 && a.deltas[0].seq <= a.foldTo && p.out.room() {
		d := a.deltas[0]
		for chunk := range d.chunks {
			p.out.del(chunkKey(kindAcks, p.id, d.seq, chunk))
		}
		a.deltas = a.deltas[1:]
		a.bytes -= d.bytes
	}
	if len(a.folding) == 0 && (len(a.deltas) == 0 || a.deltas[0].seq > a.foldTo) {
		a.foldTo = 0
	}
}

// deleteFreed deletes freed blocks while there is room in the transaction.
func (p *part) deleteFreed() {
	n := 0
	for ; n < len(p.freed) && p.out.room(); n++ {
		f := p.freed[n]
		p.out.del(blockKey(kindBlock, p.id, f.log, f.base))
		p.out.del(blockKey(kindIndex, p.id, f.log, f.base))
		for i := range f.pieces {
			p.out.del(pieceKey(p.id, f.log, f.base, i+1))
		}
	}
	p.freed = p.freed[:copy(p.freed, p.freed[n:])]
}
