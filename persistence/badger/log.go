package badger

import (
	"sort"

	"github.com/godwitmq/godwit/core"
)

// search is the index of the first block that ends above o.
func (l *log) search(o core.Offset) int {
	return sort.Search(len(l.blocks), func(i int) bool { return o < l.blocks[i].end() })
}

// block finds the block with an offset, or nil.
func (l *log) block(o core.Offset) *block {
	if i := l.search(o); i < len(l.blocks) && l.blocks[i].base <= o {
		return l.blocks[i]
	}
	return nil
}

// add appends a message to the open block of its log.
func (p *part) add(a *core.Append, now int64, encoded []byte, c *profile) {
	l := p.log(a.Log)
	r := p.route(l, a.Routes)
	if b := l.open; b != nil && (len(l.buf)+len(encoded) > c.blockBytes || (len(b.uses) == c.blockUses && r.last != b)) {
		p.seal(l)
	}
	if l.open == nil {
		l.open = &block{base: l.next}
		l.blocks = append(l.blocks, l.open)
		p.touch(l)
	}
	b, last := l.open, l.clock
	l.clock = max(l.clock, now)
	a.Offset = l.next
	l.next++
	l.buf = appendRecord(l.buf, b.n == 0, l.clock, last, a.Routes, encoded)
	b.note(r, a.Message.Size(), l.clock)
	if a.Routes == 0 {
		b.kept++
		return
	}
	if r.set == nil {
		b.owed += p.debt(r.solo, a)
		return
	}
	for _, m := range r.set.members {
		b.owed += p.debt(m, a)
	}
}

// debt is 1 if cursor id owes a, else 0.
func (p *part) debt(id core.CursorID, a *core.Append) int64 {
	if c := p.cursors[id]; c != nil && c.log == a.Log && !c.settled.has(a.Offset) {
		return 1
	}
	return 0
}

// seal closes the open block of l and puts it into the transaction, if
// anybody wants it.
func (p *part) seal(l *log) {
	b := l.open
	if b == nil {
		return
	}
	l.open = nil
	if b.live() {
		p.store(l, b)
	} else {
		p.forgetBlock(l, b)
	}
	l.buf = l.buf[:0]
	if cap(l.buf) > 4*pieceBytes {
		l.buf = nil // a very large record went through
	}
}

func (p *part) store(l *log, b *block) {
	value := sealBlock(make([]byte, 0, len(l.buf)+40), b, l.buf)
	p.out.put(blockKey(kindBlock, p.id, l.id, b.base), value[:min(len(value), pieceBytes)])
	for from := pieceBytes; from < len(value); from += pieceBytes {
		b.pieces++
		p.out.put(pieceKey(p.id, l.id, b.base, b.pieces), value[from:min(len(value), from+pieceBytes)])
	}
	p.out.put(blockKey(kindIndex, p.id, l.id, b.base), appendIndex(nil, b))
}

// free deletes a sealed block.
func (p *part) free(l *log, b *block) {
	if b.gone {
		return
	}
	p.forgetBlock(l, b)
	p.freed = append(p.freed, freed{l.id, b.base, b.pieces})
}

// forgetBlock takes a block out of memory. If it was the last of its log, the
// log has to remember by itself where it was.
func (p *part) forgetBlock(l *log, b *block) {
	b.gone = true
	if b.end() == l.next {
		p.write(l)
	}
	if i := l.search(b.base); i < len(l.blocks) && l.blocks[i] == b {
		l.blocks = cut(l.blocks, i)
	}
	for i := range b.uses {
		r := b.uses[i].route
		if r.last == b {
			r.last = nil
		}
		if j := r.search(b.base); j < len(r.used) && r.used[j].block == b {
			r.used = cut(r.used, j)
		}
		if len(r.used) > 0 {
			continue
		}
		if r.set != nil {
			p.forgetSet(r.set)
		} else if p.cursors[r.solo] == nil {
			delete(l.routes, r.id)
		}
	}
}

// cut takes s[i] out. The first is what leaves most, and costs nothing.
func cut[E any](s []E, i int) []E {
	var none E
	if i == 0 {
		s[0] = none
		return s[1:]
	}
	copy(s[i:], s[i+1:])
	s[len(s)-1] = none
	return s[:len(s)-1]
}

// trim shortens a log from its head.
func (p *part) trim(t core.Trim) {
	l := p.logs[t.Log]
	if l == nil {
		return
	}
	if t.Before == core.MaxOffset {
		p.dropLog(l)
		return
	}
	first := l.trimmed(t)
	if first <= l.first {
		return
	}
	l.first = first
	p.write(l)
	for len(l.blocks) > 0 && l.blocks[0].end() <= first && l.blocks[0] != l.open {
		p.free(l, l.blocks[0])
	}
	if len(l.blocks) > 0 && l.blocks[0].base < first {
		p.recount(l, l.blocks[0])
	}
}

// trimmed is where l begins after a trim: at Before, or behind the blocks that
// are too old or too many.
func (l *log) trimmed(t core.Trim) core.Offset {
	first := max(l.first, min(t.Before, l.next))
	stored := int64(0)
	if t.Keep > 0 {
		for _, b := range l.blocks {
			stored += b.bytes
		}
	}
	for _, b := range l.blocks {
		surplus := t.Keep > 0 && stored-b.bytes >= t.Keep
		if b.end() > first && b.maxTime >= t.OlderThan && !surplus {
			break
		}
		first = max(first, b.end())
		stored -= b.bytes
	}
	return first
}

// recount counts what is owed of a block whose head was trimmed.
func (p *part) recount(l *log, b *block) {
	b.owed, b.kept = 0, 0
	for o := max(b.base, l.first); o < b.end(); o++ {
		r := b.route(o)
		if r.id == 0 {
			b.kept++
		}
		for _, m := range r.members() {
			if c := p.cursors[m]; c != nil && c.log == l.id && !c.settled.has(o) {
				b.owed++
			}
		}
	}
	if !b.live() && b != l.open {
		p.free(l, b)
	}
}

// dropLog takes a log away. Its blocks leave the disk when there is room in a
// transaction: without their log they are nobody's.
func (p *part) dropLog(l *log) {
	for len(l.blocks) > 0 {
		if b := l.blocks[0]; b == l.open {
			p.forgetBlock(l, b)
			l.open, l.buf = nil, nil
		} else {
			p.free(l, b)
		}
	}
	delete(p.logs, l.id)
	l.write = false
	p.out.del(numberKey(kindLog, p.id, uint64(l.id)))
}
