package badger

import (
	"bytes"
	"encoding/binary"

	"github.com/godwitmq/godwit/core"
)

// A block is what is known in memory of some records of one log: where they
// are, and who may owe them. It is either
//
//	a chunk      runs of the journal, with all of the log's records from base to last
//	at rest      one value in the database, of one cursor or shared, with gaps
//
// The applier alone changes it, with its partition's mutex held.
type block struct {
	base, last core.Offset
	n          int
	bytes      int64 // Message.Size of all
	minTime    int64
	maxTime    int64
	uses       []use
	which      []uint8 // by record, the index into uses; nil: all 0
	steps      []byte  // by record but the first, the distance to the one before, uvarint; nil: all 1
	owed       int64   // (record, cursor) pairs that are not settled
	kept       int     // records that stay until a trim: those without routes
	gone       bool    // nobody finds it any more

	segment uint32 // of a chunk: its journal segment; 0: at rest
	runs    []place
	length  int // octets of runs

	owner      core.CursorID // at rest: whose; 0: shared, or a stream's
	pieces     uint16        // values behind the first
	checkpoint uint64        // that wrote it
	stored     int           // octets
}

// A use is how often one route set is used in a block.
type use struct {
	route *route
	n     int
	bytes int64
}

// A place is a run in the journal.
type place struct {
	at   int64
	time int64
	len  uint32
	crc  uint32
	n    int32
}

// maxUses is the most different route sets in one block.
const maxUses = 256

func (b *block) end() core.Offset { return b.last + 1 }

// live says whether somebody still wants something of b.
func (b *block) live() bool { return b.owed > 0 || b.kept > 0 }

func (b *block) chunk() bool { return b.segment != 0 }

// takes says whether a run of n records may become a part of chunk b.
func (b *block) takes(segment uint32, r *run) bool {
	return b.segment == segment && b.end() == r.base && b.length < chunkBytes && len(b.uses)+int(r.n) <= maxUses
}

// note takes the next record into account; it is of the i-th use.
func (b *block) note(o core.Offset, i int, size, time int64) {
	if i > 0 && b.which == nil {
		b.which = make([]uint8, b.n, max(64, 2*b.n))
	}
	if b.which != nil {
		b.which = append(b.which, uint8(i))
	}
	b.uses[i].n++
	b.uses[i].bytes += size
	if b.n == 0 {
		b.minTime = time
	} else {
		b.step(o - b.last)
	}
	b.maxTime = time
	b.bytes += size
	b.n++
	b.last = o
}

// step notes the distance to the record before.
func (b *block) step(d core.Offset) {
	if b.steps == nil {
		if d == 1 {
			return
		}
		b.steps = bytes.Repeat([]byte{1}, b.n-1)
	}
	b.steps = binary.AppendUvarint(b.steps, uint64(d))
}

// use finds the index of r in the uses of a chunk, or makes one.
func (b *block) use(r *route) int {
	if n := len(b.uses); n > 0 && b.uses[n-1].route == r {
		return n - 1
	}
	if r.last != b {
		r.last, r.lastUse = b, len(b.uses)
		b.uses = append(b.uses, use{route: r})
	}
	return r.lastUse
}

// A walk goes through the offsets of a block's records.
//
//	for w := b.walk(); w.next(); { ... w.i, w.o ... }
type walk struct {
	i     int
	o     core.Offset
	n     int
	steps []byte // what is left of the block's
	dense bool
}

func (b *block) walk() walk {
	return walk{i: -1, o: b.base - 1, n: b.n, steps: b.steps, dense: b.steps == nil}
}

func (w *walk) next() bool {
	w.i++
	switch {
	case w.i >= w.n:
		return false
	case w.dense || w.i == 0:
		w.o++
		return true
	}
	d, n := binary.Uvarint(w.steps)
	w.o += core.Offset(d)
	w.steps = w.steps[n:]
	return true
}

// count is how many records in [from, to) are of the i-th use.
func (b *block) count(i uint8, from, to core.Offset) int {
	from, to = max(from, b.base), min(to, b.end())
	switch {
	case from >= to:
		return 0
	case from == b.base && to == b.end():
		return b.uses[i].n
	case b.steps != nil:
		return b.countSteps(i, from, to)
	case b.which == nil:
		return int(to - from)
	}
	return bytes.Count(b.which[from-b.base:to-b.base], []byte{i})
}

func (b *block) countSteps(i uint8, from, to core.Offset) (n int) {
	for w := b.walk(); w.next() && w.o < to; {
		if w.o >= from && (b.which == nil || b.which[w.i] == i) {
			n++
		}
	}
	return n
}

// first is the first offset from from on that is of the i-th use.
func (b *block) first(i uint8, from core.Offset) (o core.Offset, ok bool) {
	from = max(from, b.base)
	switch {
	case from >= b.end():
		return 0, false
	case b.steps != nil:
		for w := b.walk(); w.next(); {
			if w.o >= from && (b.which == nil || b.which[w.i] == i) {
				return w.o, true
			}
		}
		return 0, false
	case b.which == nil:
		return from, true
	}
	n := bytes.IndexByte(b.which[from-b.base:], i)
	return from + core.Offset(n), n >= 0
}

// route is the route of the i-th record.
func (b *block) route(i int) *route {
	if b.which == nil {
		return b.uses[0].route
	}
	return b.uses[b.which[i]].route
}
