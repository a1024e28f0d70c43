package badger

import (
	"fmt"
	"sort"

	"github.com/godwitmq/godwit/core"
)

// search is the index of the first block that ends above o.
func (l *log) search(o core.Offset) int {
	return sort.Search(len(l.blocks), func(i int) bool { return o < l.blocks[i].end() })
}

// search is the index of the first block of r that ends above o.
func (r *route) search(o core.Offset) int {
	return sort.Search(len(r.used), func(i int) bool { return o < r.used[i].block.end() })
}

// indexed is the end of what the blocks of l know.
func (l *log) indexed() core.Offset {
	if n := len(l.blocks); n > 0 {
		return l.blocks[n-1].end()
	}
	return 0
}

// add makes a run of the journal a part of its log.
func (p *part) add(s *source, r *run) error {
	l := p.log(r.log)
	if r.base < l.next && !p.loading || r.base < l.indexed() {
		return &core.CorruptError{Log: l.id, From: r.base, To: l.next, Text: fmt.Sprintf("commit %d of the journal begins at offset %d, the log is at %d: restore a backup", s.commit, r.base, l.next)}
	}
	if len(l.ahead) > 0 {
		return p.addAhead(s, l, r)
	}
	b := p.chunkFor(s, l, r)
	for i := range r.n {
		b.addRecord(p, l, r, i, s)
	}
	if !b.live() && !p.loading {
		p.free(l, b) // nobody has ever wanted it
	}
	l.next = max(l.next, r.base+core.Offset(r.n))
	l.clock = max(l.clock, r.time)
	return nil
}

// chunkFor finds or makes the chunk that takes a run.
func (p *part) chunkFor(s *source, l *log, r *run) *block {
	var b *block
	if n := len(l.blocks); n > 0 && l.blocks[n-1].takes(s.segment, r) {
		b = l.blocks[n-1]
	} else {
		b = &block{base: r.base, segment: s.segment}
		l.blocks = append(l.blocks, b)
	}
	b.runs = append(b.runs, place{at: s.at + int64(r.at), len: r.len, crc: r.crc, n: r.n, time: r.time})
	b.length += int(r.len)
	return b
}

// addRecord notes the i-th record of a run, and who owes it.
func (b *block) addRecord(p *part, l *log, r *run, i int32, s *source) {
	at := int(r.first) + int(i)
	route := p.route(l, s.batch.Appends[at].Routes)
	uses := len(b.uses)
	b.note(r.base+core.Offset(i), b.use(route), s.sizes[at], r.time)
	if len(b.uses) > uses {
		route.used = append(route.used, usedIn{b, uint8(uses)})
	}
	switch {
	case p.loading: // account will know
	case route.id == 0:
		b.kept++
	default:
		b.owed += int64(route.live)
	}
}

// addAhead adds a run to a log of which some cursors skip what is to come.
func (p *part) addAhead(s *source, l *log, r *run) error {
	ahead := l.ahead
	l.ahead = nil
	err := p.add(s, r)
	if p.logs[l.id] != l || err != nil {
		return err
	}
	for c := range ahead {
		if to := min(c.settled.floor, l.next); to > r.base && !p.loading {
			c.routed(r.base, to, func(b *block, n int) {
				b.owed -= int64(n)
				if !b.live() && !b.gone {
					p.free(l, b)
				}
			})
		}
		if c.settled.floor <= l.next {
			delete(ahead, c)
		}
	}
	if len(ahead) > 0 {
		l.ahead = ahead
	}
	return nil
}

// free takes a block out of memory, and if it is at rest has it deleted.
func (p *part) free(l *log, b *block) {
	if b.gone {
		return
	}
	p.unlink(l, b)
	p.release0(l, b)
	p.bury(l, b)
}

// bury has a block at rest deleted with the next checkpoint.
func (p *part) bury(l *log, b *block) {
	if b.chunk() {
		return
	}
	p.freed = append(p.freed, freed{b.id(p.id, l.id), b.pieces, b.stored})
	p.deadBytes += int64(b.stored)
}

// unlink takes a block out of its log and routes.
func (p *part) unlink(l *log, b *block) {
	b.gone = true
	p.changedLogs[l.id] = struct{}{} // if it was the last, the log has to remember by itself where it was
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
	}
}

// release0 forgets what a block that is gone was the last to use.
func (p *part) release0(l *log, b *block) {
	for i := range b.uses {
		r := b.uses[i].route
		if len(r.used) > 0 || l.routes[r.id] != r {
			continue
		}
		switch {
		case r.set != nil:
			p.forgetSet(r.set)
		case r.id != 0 && p.cursors[r.solo] == nil:
			l.forgetRoute(r)
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
	if l == nil || p.knownAtRest(t.Log) {
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
	p.changedLogs[l.id] = struct{}{}
	if !p.loading {
		p.cutHead(l)
	}
}

// cutHead frees the blocks below the log's first record, and counts anew what
// is owed of those it lies in.
func (p *part) cutHead(l *log) {
	for _, lane := range l.lanes() {
		for len(lane) > 0 && lane[0].base < l.first {
			if b := lane[0]; b.end() <= l.first {
				p.free(l, b)
			} else {
				p.recount(l, b)
			}
			lane = lane[1:]
		}
	}
}

// lanes is all blocks of l, in lists whose blocks do not overlap. The lists
// are the caller's.
func (l *log) lanes() [][]*block {
	lanes := [][]*block{append([]*block(nil), l.blocks...)}
	for _, r := range l.routes {
		if own := r.own(); len(own) > 0 {
			lanes = append(lanes, own)
		}
	}
	return lanes
}

// own is the blocks at rest that are one cursor's.
func (r *route) own() (own []*block) {
	for i := range r.used {
		if r.used[i].block.owner == 0 || r.solo == 0 {
			break // they are the oldest
		}
		own = append(own, r.used[i].block)
	}
	return own
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

// recount counts what is owed of a block, and frees it if that is nothing.
func (p *part) recount(l *log, b *block) {
	b.owed, b.kept = 0, 0
	for i := range b.uses {
		p.countUse(l, b, uint8(i))
	}
	if !b.live() {
		p.free(l, b)
	}
}

// countUse adds what is owed of one use of b.
func (p *part) countUse(l *log, b *block, i uint8) {
	r, from := b.uses[i].route, max(l.first, b.base)
	if r.id == 0 {
		b.kept += b.count(i, from, b.end())
		return
	}
	for _, m := range r.members() {
		c := p.cursors[m]
		if c == nil || c.log != l.id {
			continue
		}
		for a, z := range c.settled.gaps(from, b.end()) {
			b.owed += int64(b.count(i, a, z))
		}
	}
}

// dropLog takes a log away with all its blocks.
func (p *part) dropLog(l *log) {
	for _, lane := range l.lanes() {
		for _, b := range lane {
			p.free(l, b)
		}
	}
	delete(p.logs, l.id)
	p.changedLogs[l.id] = struct{}{}
	if !p.loading {
		p.dropped = append(p.dropped, l.id)
	}
}
