package badger

import (
	"github.com/godwitmq/godwit/core"
)

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
	if p.loading {
		return
	}
	for from, to := range c.settled.gaps(l.first, l.next) {
		c.routed(from, to, func(b *block, n int) { b.owed += sign * int64(n) })
	}
}

// release frees the blocks of c's routes that nobody wants any more.
func (p *part) release(c *cursor, l *log) {
	if p.loading {
		return
	}
	var dead []*block
	for _, r := range c.routes {
		for i := range r.used {
			if b := r.used[i].block; !b.live() {
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
	if c == nil || p.logs[c.log] == nil || p.settledAtRest(a.Cursor) {
		return
	}
	l := p.logs[c.log]
	from, to := a.From, min(a.To, l.next)
	if p.loading {
		c.settled.add(from, to)
		p.change(c)
		return
	}
	if a.To > l.next {
		p.change(c) // what it settled depends on when it came, so its page must say that it knows
	}
	from = max(from, l.first)
	if from < to && p.settle(c, l, from, to) {
		p.unmark(c, from, to)
		p.change(c)
	}
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
			if !b.live() {
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
