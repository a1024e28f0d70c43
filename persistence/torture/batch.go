package torture

import (
	"strconv"

	"github.com/godwitmq/godwit/core"
)

// places are where the messages of the last batches are: offsets by batch and
// index, 0 where it is not known and nobody needs it; the open log's last.
type places map[uint64][]core.Offset

func (p places) put(h history, n name, at core.Offset) {
	k := h.messages(n.batch)
	if p[n.batch] == nil {
		p[n.batch] = make([]core.Offset, k+1)
	}
	p[n.batch][min(n.index, k)] = at
}

// at is where a message is; 0: not known.
func (p places) at(n name) core.Offset {
	if o := p[n.batch]; n.index < len(o)-1 {
		return o[n.index]
	}
	return 0
}

// open is where the open log's message of the batch is.
func (p places) open(batch uint64) core.Offset {
	if o := p[batch]; len(o) > 0 {
		return o[len(o)-1]
	}
	return 0
}

// batch makes batch n. What it settles must have been put into p.
func (h history) batch(n uint64, p places) *core.Batch {
	b := &core.Batch{
		Now:     int64(n),
		Wait:    n%5 != 0,
		Records: []core.Record{{Table: table, Key: lastKey, Value: strconv.AppendUint(nil, n, 10)}, h.value(n)},
	}
	if n == 1 {
		h.begin(b)
	}
	for i := range h.messages(n) {
		b.Appends = append(b.Appends, core.Append{Log: sharedLog, Routes: h.routes(name{n, i}), Message: h.message(name{n, i})})
	}
	b.Appends = append(b.Appends, core.Append{Log: openLog, Message: h.message(name{n, openIndex})})
	h.settle(b, n, p)
	if n > markAfter {
		h.mark(b, n-markAfter, p)
	}
	if n%trimEach == 0 && n > trimKeeps {
		if at := p.open(n - trimKeeps); at > 0 {
			b.Trims = []core.Trim{{Log: openLog, Before: at}}
		}
	}
	delete(p, n-longestOwed)
	return b
}

// begin is what the first batch does besides.
func (h history) begin(b *core.Batch) {
	var members []core.CursorID
	for _, r := range readers {
		b.Cursors = append(b.Cursors, core.CursorOp{ID: r.cursor, Log: sharedLog})
		members = append(members, r.cursor)
	}
	b.Sets = []core.RouteSet{{ID: pair, Members: []core.CursorID{swift, steady}}, {ID: all, Members: members}}
	b.Records = append(b.Records, core.Record{Table: table, Key: seedKey, Value: strconv.AppendUint(nil, h.seed, 10)})
}

// settle acknowledges what batch n does.
func (h history) settle(b *core.Batch, n uint64, p places) {
	if n > heldAfter {
		h.ack(b, swift, n, n-heldAfter, n-heldAfter, p)
	}
	if n > swiftAfter {
		h.ack(b, swift, n, n-swiftAfter, n-swiftAfter, p)
	}
	if n%steadyEach == 0 && n >= 3*steadyEach {
		h.ack(b, steady, n, n-3*steadyEach, n-2*steadyEach-1, p)
	}
	if n%sleeperEach == 0 && n >= 2*sleeperEach {
		h.ack(b, sleeper, n, n-2*sleeperEach, n-sleeperEach-1, p)
	}
}

// ack settles what the cursor owes of batches from to last and settles in
// batch n, with as few ranges as can be: one goes on until a message that the
// cursor keeps.
func (h history) ack(b *core.Batch, c core.CursorID, n, from, last uint64, p places) {
	var open *core.Ack
	for batch := max(1, from); batch <= last; batch++ {
		for i := range h.messages(batch) {
			m := name{batch, i}
			at := p.at(m)
			switch {
			case !h.owes(c, m) || at == 0:
			case h.settledBy(c, m) != n:
				open = nil
			default:
				if open == nil {
					b.Acks = append(b.Acks, core.Ack{Cursor: c, From: at})
					open = &b.Acks[len(b.Acks)-1]
				}
				open.To = at + 1
				open.N++
				open.Bytes += h.message(m).Size()
			}
		}
	}
}

// mark says that the steady reader has tried the messages of a batch twice.
func (h history) mark(b *core.Batch, batch uint64, p places) {
	for i := range h.messages(batch) {
		m := name{batch, i}
		if at := p.at(m); at > 0 && h.owes(steady, m) {
			b.Marks = append(b.Marks, core.Mark{Cursor: steady, At: at, Attempts: 2})
		}
	}
}
