package core

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// maxHeld is how many bytes of one minute are in memory.
const maxHeld = 64 << 20

// A bucket holds the delayed messages of one minute: a log of its own and one
// cursor. In memory is what is due soon; of the rest only how much there is.
//
//	the log, in order of arrival:   o o . o . . o o o o     . fired, acked
//	held, in order of their time:   all whose key is below bound
type bucket struct {
	minute int64 // unix time / 60
	log    LogID
	cursor CursorID

	count int64  // not fired, with those that are not committed yet
	last  Offset // newest that is committed

	held      []dueItem // a heap, the next one first
	heldBytes int64
	bound     dueKey // below it all are held; all of them if it is whole
	loaded    bool   // was read once: bound means something

	scanning bool
	scanFrom Offset
	scanTo   Offset // what comes later is told by its commit
	next     dueKey // what bound will be when the scan is over
}

// A dueBook is all that is delayed in a shard.
type dueBook struct {
	buckets   []*bucket // by minute
	late      []firing  // due, and a queue does not take them now
	lateBytes int64
	stuck     bool // the disk takes nothing: until the next tick
	pending   atomic.Int64
}

// find is where the bucket of a minute is, or would be.
func (d *dueBook) find(minute int64) (at int, found bool) {
	return slices.BinarySearchFunc(d.buckets, minute, func(b *bucket, m int64) int { return cmp.Compare(b.minute, m) })
}

// A firing is a message on its way out of its minute.
type firing struct {
	bucket *bucket
	item   dueItem
}

// A dueItem is one message that waits for its time.
type dueItem struct {
	dueKey
	message *Message
	size    int64
}

// A dueKey is the order in which messages are fired.
type dueKey struct {
	at     int64 // unix ms
	offset Offset
}

// whole is above every key.
var whole = dueKey{at: 1<<63 - 1}

func (k dueKey) less(o dueKey) bool { return k.at < o.at || (k.at == o.at && k.offset < o.offset) }

func (k dueKey) compare(o dueKey) int {
	if c := cmp.Compare(k.at, o.at); c != 0 {
		return c
	}
	return cmp.Compare(k.offset, o.offset)
}

// hold puts an item into the heap.
func (b *bucket) hold(it dueItem) {
	b.held = append(b.held, it)
	b.heldBytes += it.size
	h := b.held
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].less(h[up].dueKey) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

// first takes the next item out of the heap.
func (b *bucket) first() dueItem {
	h := b.held
	it, end := h[0], len(h)-1
	h[0] = h[end]
	h[end] = dueItem{}
	b.held = h[:end]
	b.heldBytes -= it.size
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < end && h[down].less(h[least].dueKey) {
				least = down
			}
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	if end == 0 {
		b.held = nil // a minute is over: give the memory back
	}
	return it
}

// committed takes a message that the disk has now. One that is due later than
// what is held is left there.
func (b *bucket) committed(it dueItem, most int64) {
	b.last = max(b.last, it.offset)
	switch {
	case b.scanning:
		b.consider(it, most)
	case b.loaded && it.less(b.bound):
		b.hold(it)
		b.trim(most)
	}
}

// consider takes a message for the slice that is being read.
func (b *bucket) consider(it dueItem, most int64) {
	if it.less(b.next) {
		b.hold(it)
		b.trim(most)
	}
}

// trim lets go of what is due last when too much is held.
func (b *bucket) trim(most int64) {
	if b.heldBytes <= most+most/4 || len(b.held) < 2 {
		return
	}
	slices.SortFunc(b.held, func(x, y dueItem) int { return x.compare(y.dueKey) })
	keep := len(b.held)
	for keep > 1 && b.heldBytes > most {
		keep--
		b.heldBytes -= b.held[keep].size
	}
	bound := b.held[keep].dueKey
	clear(b.held[keep:])
	b.held = b.held[:keep]
	if b.scanning {
		b.next = bound
	} else {
		b.bound = bound
	}
}

// startScan begins to read the next slice.
func (b *bucket) startScan() {
	b.scanning, b.scanFrom, b.scanTo, b.next = true, 0, b.last, whole
}

// scanned takes what the store had, and says whether the slice is complete.
func (b *bucket) scanned(out []Stored, next Offset, most int64) (done bool) {
	for i := range out {
		st := &out[i]
		if st.Offset > b.scanTo {
			return b.endScan()
		}
		it := dueItem{dueKey{st.Message.NotBefore.UnixMilli(), st.Offset}, st.Message, st.Message.Size()}
		if !b.loaded || !it.less(b.bound) { // else it is held, or was fired a moment ago
			b.consider(it, most)
		}
	}
	b.scanFrom = next
	if len(out) == 0 || next > b.scanTo {
		return b.endScan()
	}
	return false
}

func (b *bucket) endScan() bool {
	b.scanning, b.loaded, b.bound = false, true, b.next
	return true
}

// abortScan forgets a slice that could not be read to its end.
func (b *bucket) abortScan() {
	kept := b.held
	b.held, b.heldBytes, b.scanning = nil, 0, false
	for _, it := range kept {
		if b.loaded && it.less(b.bound) {
			b.hold(it)
		}
	}
}

// wantsScan says whether more should be read: nothing was, or what is held
// runs out and there is more.
func (b *bucket) wantsScan(most int64) bool {
	if b.scanning || b.count == 0 {
		return false
	}
	return !b.loaded || (b.bound != whole && b.heldBytes < most/2)
}
