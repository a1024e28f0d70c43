package memory

import (
	"cmp"
	"slices"
	"sort"

	"github.com/godwitmq/godwit/core"
)

// A part is one partition's data: what is durable, and nothing else. The
// store's mutex guards it.
type part struct {
	id      core.PartitionID
	owner   *handle
	lastID  uint64
	logs    map[core.LogID]*log
	cursors map[core.CursorID]*cursor
	sets    map[core.RouteSetID]*routeSet
	tables  map[core.Table]map[string][]byte

	dones   []done // to be told, oldest first
	telling bool
}

type log struct {
	next    core.Offset
	clock   int64 // the time of the newest record: it never goes back
	records []record
	gone    int // how many of records are
}

type record struct {
	offset  core.Offset
	time    int64
	size    int64 // Message.Size
	routes  core.RouteSetID
	witness core.CursorID // one that still owes it; 0 where routes is 0
	gone    bool
	key     string // of the message
	data    []byte // the message at rest
}

// A cursor has settled all below floor and in settled, whose ranges are
// sorted, above the floor, and do not touch.
type cursor struct {
	log     core.LogID
	floor   core.Offset
	settled [][2]core.Offset
	marks   map[core.Offset]uint16
}

type routeSet struct{ members []core.CursorID }

func newPart(id core.PartitionID) *part {
	return &part{
		id:      id,
		logs:    map[core.LogID]*log{},
		cursors: map[core.CursorID]*cursor{},
		sets:    map[core.RouteSetID]*routeSet{},
		tables:  map[core.Table]map[string][]byte{},
	}
}

// apply does all of b, in the order of its fields.
func (p *part) apply(b *core.Batch) {
	p.lastID = max(p.lastID, highest(b))
	for _, op := range b.Cursors {
		p.move(op)
	}
	var retired []core.RouteSetID
	for _, s := range b.Sets {
		if s.Members == nil {
			retired = append(retired, s.ID)
			continue
		}
		p.sets[s.ID] = &routeSet{slices.Clone(s.Members)}
	}
	for i := range b.Appends {
		p.add(&b.Appends[i], b.Now)
	}
	for i := range b.Records {
		p.put(&b.Records[i])
	}
	for _, m := range b.Marks {
		p.mark(m)
	}
	for _, a := range b.Acks {
		p.ack(a)
	}
	for _, t := range b.Trims {
		p.trim(t)
	}
	p.forgetSets(retired)
}

// forgetSets removes the retired sets that no record names any more. One that
// a record does name stays for good: it costs a test nothing.
func (p *part) forgetSets(retired []core.RouteSetID) {
	for _, id := range retired {
		used := false
		for _, l := range p.logs {
			used = used || slices.ContainsFunc(l.records, func(r record) bool { return !r.gone && r.routes == id })
		}
		if !used {
			delete(p.sets, id)
		}
	}
}

// log finds a log, or makes it.
func (p *part) log(id core.LogID) *log {
	l := p.logs[id]
	if l == nil {
		l = &log{next: 1}
		p.logs[id] = l
	}
	return l
}

// move creates, seeks or drops a cursor.
func (p *part) move(op core.CursorOp) {
	c := p.cursors[op.ID]
	if op.Drop {
		if c != nil {
			delete(p.cursors, op.ID)
			p.release(op.ID, c, 0, core.MaxOffset)
		}
		return
	}
	p.log(op.Log)
	if c != nil && c.log != op.Log {
		delete(p.cursors, op.ID)
		p.release(op.ID, c, 0, core.MaxOffset)
		c = nil
	}
	if c == nil {
		c = &cursor{log: op.Log, marks: map[core.Offset]uint16{}}
		p.cursors[op.ID] = c
	}
	c.floor, c.settled = max(op.At, 1), nil
	p.release(op.ID, c, 0, c.floor)
}

// add appends a message. One that nobody owes is not kept, but has an offset.
func (p *part) add(a *core.Append, now int64) {
	l := p.log(a.Log)
	a.Offset = l.next
	l.next++
	l.clock = max(l.clock, now)
	r := record{
		offset: a.Offset, time: l.clock, size: a.Message.Size(), routes: a.Routes,
		key: a.Message.Key, data: core.AppendMessage(nil, a.Message),
	}
	if a.Routes != 0 && !p.watch(a.Log, &r) {
		return
	}
	l.records = append(l.records, r)
}

// watch finds a cursor that owes r, and says whether there is one.
func (p *part) watch(id core.LogID, r *record) bool {
	for _, m := range p.members(r.routes) {
		if p.owes(m, id, r) {
			r.witness = m
			return true
		}
	}
	return false
}

func (p *part) members(r core.RouteSetID) []core.CursorID {
	if c, solo := r.Member(); solo {
		return []core.CursorID{c}
	}
	if s := p.sets[r]; s != nil {
		return s.members
	}
	return nil
}

// owes says whether cursor m has still to settle r.
func (p *part) owes(m core.CursorID, id core.LogID, r *record) bool {
	c := p.cursors[m]
	return c != nil && c.log == id && !r.gone && p.routed(m, r.routes) && !c.has(r.offset)
}

func (p *part) routed(m core.CursorID, r core.RouteSetID) bool {
	if c, solo := r.Member(); solo {
		return c == m
	}
	return slices.Contains(p.members(r), m)
}

// has says whether c has settled an offset.
func (c *cursor) has(o core.Offset) bool {
	if o < c.floor {
		return true
	}
	i := sort.Search(len(c.settled), func(i int) bool { return o < c.settled[i][1] })
	return i < len(c.settled) && c.settled[i][0] <= o
}

func (p *part) put(r *core.Record) {
	t := p.tables[r.Table]
	if r.Value == nil {
		delete(t, string(r.Key))
		return
	}
	if t == nil {
		t = map[string][]byte{}
		p.tables[r.Table] = t
	}
	t[string(r.Key)] = slices.Clone(r.Value)
}

func (p *part) mark(m core.Mark) {
	c := p.cursors[m.Cursor]
	if c == nil || p.logs[c.log] == nil {
		return
	}
	r := p.logs[c.log].find(m.At)
	if r == nil || !p.owes(m.Cursor, c.log, r) {
		return
	}
	if m.Attempts == 0 {
		delete(c.marks, m.At)
		return
	}
	c.marks[m.At] = m.Attempts
}

// find is the record at an offset.
func (l *log) find(o core.Offset) *record {
	if i := l.search(o); i < len(l.records) && l.records[i].offset == o && !l.records[i].gone {
		return &l.records[i]
	}
	return nil
}

// search is the index of the first record at or after an offset.
func (l *log) search(o core.Offset) int {
	return sort.Search(len(l.records), func(i int) bool { return l.records[i].offset >= o })
}

// ack settles a range. What the log has not given out yet cannot be settled.
func (p *part) ack(a core.Ack) {
	c := p.cursors[a.Cursor]
	if c == nil || p.logs[c.log] == nil {
		return
	}
	l := p.logs[c.log]
	from, to := a.From, min(a.To, l.next)
	if from >= to {
		return
	}
	c.settle(from, to)
	p.release(a.Cursor, c, from, to)
	p.raise(a.Cursor, c, l)
}

// settle adds [from, to) to what is settled.
func (c *cursor) settle(from, to core.Offset) {
	ranges := append(slices.Clone(c.settled), [2]core.Offset{0, c.floor}, [2]core.Offset{from, to})
	slices.SortFunc(ranges, func(a, b [2]core.Offset) int { return cmp.Compare(a[0], b[0]) })
	merged := ranges[:1]
	for _, r := range ranges[1:] {
		if last := &merged[len(merged)-1]; r[0] <= last[1] {
			last[1] = max(last[1], r[1])
			continue
		}
		merged = append(merged, r)
	}
	c.floor = merged[0][1]
	c.settled = slices.Clone(merged[1:])
}

// raise lifts the floor to the first record the cursor may want: one it owes,
// or one of a stream, which is routed to nobody and read by any. What lies
// below is settled or was never its affair, as most of a shared log is.
func (p *part) raise(id core.CursorID, c *cursor, l *log) {
	i := l.search(c.floor)
	for i < len(l.records) && (l.records[i].gone || l.records[i].routes != 0 && !p.owes(id, c.log, &l.records[i])) {
		i++
	}
	floor := l.next
	if i < len(l.records) {
		floor = l.records[i].offset
	}
	if floor > c.floor {
		c.settle(c.floor, floor)
	}
}

// release lets go of the records in [from, to) that only this cursor owed,
// and of its delivery counts there.
func (p *part) release(id core.CursorID, c *cursor, from, to core.Offset) {
	for o := range c.marks {
		if o >= from && o < to {
			delete(c.marks, o)
		}
	}
	l := p.logs[c.log]
	if l == nil {
		return
	}
	for i := l.search(from); i < len(l.records) && l.records[i].offset < to; i++ {
		r := &l.records[i]
		if !r.gone && r.witness == id && !p.watch(c.log, r) {
			l.remove(r)
		}
	}
	l.tidy()
}

func (l *log) remove(r *record) {
	r.gone, r.data = true, nil
	l.gone++
}

// tidy drops what is gone once it is more than half.
func (l *log) tidy() {
	if l.gone > len(l.records)/2 {
		l.records = slices.DeleteFunc(l.records, func(r record) bool { return r.gone })
		l.gone = 0
	}
}

func (p *part) trim(t core.Trim) {
	if t.Before == core.MaxOffset && !t.Compact {
		delete(p.logs, t.Log)
		return
	}
	l := p.logs[t.Log]
	if l == nil {
		return
	}
	if t.Compact {
		l.compact(t.Before)
		return
	}
	var stored int64
	for i := range l.records {
		if !l.records[i].gone {
			stored += l.records[i].size
		}
	}
	for i := range l.records {
		r := &l.records[i]
		if r.gone {
			continue
		}
		old := r.offset < t.Before || r.time < t.OlderThan
		surplus := t.Keep > 0 && stored-r.size >= t.Keep
		if !old && !surplus {
			break
		}
		stored -= r.size
		l.remove(r)
	}
	l.tidy()
}

// compact keeps the newest record of each key before an offset, and those
// without a key.
func (l *log) compact(before core.Offset) {
	newest := map[string]core.Offset{}
	end := l.search(before)
	for i := range l.records[:end] {
		if r := &l.records[i]; !r.gone && r.key != "" {
			newest[r.key] = r.offset
		}
	}
	for i := range l.records[:end] {
		if r := &l.records[i]; !r.gone && r.key != "" && newest[r.key] != r.offset {
			l.remove(r)
		}
	}
	l.tidy()
}

// fetch reads what f asks for.
func (p *part) fetch(f *core.Fetch, l *log) error {
	var bytes int64
	for i := l.search(f.From); i < len(l.records); i++ {
		r := &l.records[i]
		if r.gone || (f.From == 0 && r.time < f.Since) || (f.Cursor != 0 && !p.owes(f.Cursor, f.Log, r)) {
			continue
		}
		if n := len(f.Out); n > 0 && f.Bytes > 0 && bytes+r.size > int64(f.Bytes) {
			f.Next = f.Out[n-1].Offset + 1
			return nil
		}
		m, err := core.DecodeMessage(r.data)
		if err != nil {
			return &core.CorruptError{Log: f.Log, From: r.offset, To: r.offset + 1, Text: err.Error()}
		}
		s := core.Stored{Offset: r.offset, Time: r.time, Message: m}
		if c := p.cursors[f.Cursor]; c != nil {
			s.Attempts = c.marks[r.offset]
		}
		f.Out = append(f.Out, s)
		bytes += r.size
		if f.Records > 0 && len(f.Out) >= f.Records {
			f.Next = r.offset + 1
			return nil
		}
	}
	f.Next = max(f.From, l.next)
	return nil
}
