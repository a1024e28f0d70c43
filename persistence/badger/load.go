package badger

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/godwitmq/godwit/core"
)

// load reads a partition, or creates it. It reads no block: the index says
// what they hold. What a crash left to be deleted is deleted with the next
// transaction.
func (s *store) load(id core.PartitionID) (*part, error) {
	p := newPart(id)
	v, err := s.get(partKey(kindPartition, id, 0))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return p, s.create(p)
	}
	if err == nil {
		p.lastID, err = decodePart(v)
	}
	if err != nil {
		return nil, fmt.Errorf("partition %d: %w", id, err)
	}
	var lost txn // keys that are nobody's any more
	for _, step := range []struct {
		kind byte
		read func(key, value []byte) error
	}{
		{kindLog, p.loadLog},
		{kindSet, p.loadSet},
		{kindCursor, p.loadCursor},
		{kindIndex, p.loadIndex},
		{kindAcks, p.acks.load},
	} {
		if err := s.scan(partKey(step.kind, id, 0), true, step.read); err != nil {
			return nil, fmt.Errorf("partition %d: %w", id, err)
		}
	}
	if err := p.replay(); err != nil {
		return nil, fmt.Errorf("partition %d: %w", id, err)
	}
	p.out = &lost
	p.account()
	p.out = nil
	err = s.scan(partKey(kindMark, id, 0), true, func(key, value []byte) error { return p.loadMark(&lost, key, value) })
	if err == nil {
		err = s.writeAlone(&lost)
	}
	if err != nil {
		return nil, fmt.Errorf("partition %d: %w", id, err)
	}
	for set, r := range p.sets {
		if !r.retired {
			p.defined[set] = struct{}{}
		}
	}
	p.accepted = p.lastID
	return p, nil
}

// create makes a partition durable.
func (s *store) create(p *part) error {
	var t txn
	t.put(partKey(kindPartition, p.id, 0), encodePart(0))
	return s.writeAlone(&t)
}

// writeAlone writes t between the committer's transactions.
func (s *store) writeAlone(t *txn) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if err := s.write(t); err != nil {
		return s.fail(err)
	}
	return nil
}

func (p *part) loadLog(key, value []byte) error {
	id := core.LogID(number(key, 0))
	l, err := decodeLog(id, value)
	if err != nil {
		return fmt.Errorf("log %d: %w", id, err)
	}
	l.visible = l.next
	p.logs[id] = l
	return nil
}

// loadSet reads a chunk of a set, or that it is retired. Chunks come in order.
func (p *part) loadSet(key, value []byte) (err error) {
	id := core.RouteSetID(number(key, 0))
	set := p.sets[id]
	if set == nil {
		set = &routeSet{id: id}
		p.sets[id] = set
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

func (p *part) loadCursor(key, value []byte) error {
	id := core.CursorID(number(key, 0))
	c, err := decodeCursor(id, value)
	if err != nil {
		return fmt.Errorf("cursor %d: %w", id, err)
	}
	p.cursors[id] = c
	p.seq = max(p.seq, c.seq)
	return nil
}

// loadIndex reads about one block. One without a log, or below its log's
// first, was to be deleted.
func (p *part) loadIndex(key, value []byte) error {
	id, base := core.LogID(number(key, 1)), core.Offset(number(key, 2))
	l := p.logs[id]
	routeOf := func(r core.RouteSetID) *route {
		if l == nil {
			return &route{id: r}
		}
		return p.route(l, r)
	}
	b, err := decodeIndex(value, base, routeOf)
	if err != nil {
		return &core.CorruptError{Log: id, From: base, To: base + 1, Text: "the index of a block is damaged (" + err.Error() + "): restore a backup"}
	}
	if l == nil || b.end() <= l.first {
		p.freed = append(p.freed, freed{id, base, b.pieces})
		return nil
	}
	if n := len(l.blocks); n > 0 && l.blocks[n-1].end() > base {
		return &core.CorruptError{Log: id, From: base, To: b.end(), Text: "two blocks hold the same offsets: restore a backup"}
	}
	l.blocks = append(l.blocks, b)
	for i := range b.uses {
		r := b.uses[i].route
		r.used = append(r.used, place{b, uint8(i)})
		if r.id == 0 {
			b.kept = b.count(uint8(i), l.first, b.end())
		}
	}
	l.next = max(l.next, b.end())
	l.visible = l.next
	l.clock = max(l.clock, b.maxTime)
	return nil
}

// load reads one chunk of a delta; replay will take it apart.
func (a *ackLog) load(key, value []byte) error {
	seq := number(key, 0)
	if n := len(a.deltas); n == 0 || a.deltas[n-1].seq != seq {
		a.deltas = append(a.deltas, delta{seq: seq})
	}
	d := &a.deltas[len(a.deltas)-1]
	d.chunks++
	d.bytes += len(value)
	a.bytes += len(value)
	a.out = append(a.out, value...)
	return nil
}

// replay takes the acks of the deltas to their cursors.
func (p *part) replay() error {
	rest := p.acks.out
	p.acks.out = nil
	for _, d := range p.acks.deltas {
		p.seq = max(p.seq, d.seq)
		r := reader{b: rest[:d.bytes]}
		rest = rest[d.bytes:]
		for len(r.b) > 0 {
			id, from, n := core.CursorID(r.number()), core.Offset(r.number()), core.Offset(r.number())
			if r.err != nil {
				return fmt.Errorf("acks of transaction %d: %w", d.seq, r.err)
			}
			if c := p.cursors[id]; c != nil && d.seq > c.seq {
				c.settled.add(from, from+n)
				p.acks.dirty[id] = struct{}{}
			}
		}
	}
	return nil
}

// account finds out what is owed, and frees what nobody owes.
func (p *part) account() {
	for _, c := range p.cursors {
		if l := p.logs[c.log]; l != nil {
			c.lift(l)
			p.owe(c, l, +1)
		}
	}
	for _, l := range p.logs {
		for _, b := range slices.Clone(l.blocks) {
			if !b.live() {
				p.free(l, b)
			}
		}
	}
	for _, s := range p.sets {
		p.forgetSet(s)
	}
}

func (p *part) loadMark(lost *txn, key, value []byte) error {
	id, at := core.CursorID(number(key, 0)), core.Offset(number(key, 1))
	n, err := decodeMark(value)
	if err != nil {
		return fmt.Errorf("delivery count of cursor %d at %d: %w", id, at, err)
	}
	c := p.cursors[id]
	if c == nil || !p.owes(c, at) {
		lost.del(slices.Clone(key))
		return nil
	}
	if c.marks == nil {
		c.marks = map[core.Offset]uint16{}
	}
	c.marks[at] = n
	return nil
}

// cursorStates is the cursors as they are. A block of which a cursor has
// settled a part is read, to know the size of the rest.
func (s *store) cursorStates(p *part) ([]core.CursorState, error) {
	p.mu.RLock()
	states := make([]core.CursorState, 0, len(p.cursors))
	partly := map[*block][]portion{}
	logOf := map[*block]*log{}
	for _, c := range p.cursors {
		st := core.CursorState{ID: c.id, Log: c.log, Floor: c.settled.floor, Settled: slices.Clone(c.settled.above)}
		if l := p.logs[c.log]; l != nil {
			for from, to := range c.settled.gaps(l.first, l.next) {
				for _, r := range c.routes {
					for i := r.search(from); i < len(r.used) && r.used[i].block.base < to; i++ {
						b, use := r.used[i].block, r.used[i].use
						n := b.count(use, from, to)
						st.Depth += int64(n)
						if n == b.uses[use].n {
							st.Bytes += b.uses[use].bytes
						} else if n > 0 {
							partly[b] = append(partly[b], portion{len(states), use, from, to})
							logOf[b] = l
						}
					}
				}
			}
		}
		states = append(states, st)
	}
	p.mu.RUnlock()
	for b, portions := range partly {
		if err := s.addSizes(p, logOf[b], b, portions, states); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(states, func(a, b core.CursorState) int { return cmp.Compare(a.ID, b.ID) })
	return states, nil
}

// A portion is the records of one use in [from, to) of a block, which belong
// to a state.
type portion struct {
	state    int
	use      uint8
	from, to core.Offset
}

func (s *store) addSizes(p *part, l *log, b *block, portions []portion, states []core.CursorState) error {
	return s.readBlock(p.id, l.id, b, func(r *blockReader) error {
		for r.next() {
			m, err := core.DecodeMessage(r.message)
			if err != nil {
				return err
			}
			use := uint8(0)
			if b.which != nil {
				use = b.which[r.offset-b.base]
			}
			for _, o := range portions {
				if use == o.use && o.from <= r.offset && r.offset < o.to {
					states[o.state].Bytes += m.Size()
				}
			}
		}
		return r.err
	})
}
