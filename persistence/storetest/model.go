package storetest

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
)

var modelTests = []test{
	{"any history leaves what it leaves in memory", nil, func(x *box) {
		id := core.PartitionID(100)
		rapid.Check(x.T, func(t *rapid.T) {
			id++
			m := newMachine(t, x, id)
			t.Repeat(map[string]func(*rapid.T){
				"commit": m.commit,
				"fetch":  m.fetch,
				"reopen": m.reopen,
				"":       m.check,
			})
			m.reopen(t)
			m.check(t)
		})
	}},
}

// A machine does the same to a driver and to the memory store.
type machine struct {
	x     *box
	id    core.PartitionID
	disk  core.Partition // what is tested
	model *memory.Store
	ideal core.Partition
	next  uint64

	cursors []core.CursorID // that exist
	of      map[core.CursorID]core.LogID
	sets    []core.RouteSetID // that may be used
	logOf   map[core.RouteSetID]core.LogID
	logs    []core.LogID
	body    int
}

func newMachine(t *rapid.T, x *box, id core.PartitionID) *machine {
	m := &machine{
		x: x, id: id, model: memory.New(memory.Options{}),
		disk: openPart(t, x.store, id), next: 10,
		of: map[core.CursorID]core.LogID{}, logOf: map[core.RouteSetID]core.LogID{},
	}
	m.ideal = openPart(t, m.model, id)
	return m
}

func (m *machine) fresh() uint64 {
	m.next++
	return m.next
}

// commit commits a random batch to both.
func (m *machine) commit(t *rapid.T) {
	now := rapid.Int64Range(1000, 1100).Draw(t, "now")
	b := core.Batch{Now: now}
	m.drawLogs(t)
	m.drawCursors(t, &b)
	m.drawSets(t, &b)
	m.drawAppends(t, &b)
	for range rapid.IntRange(0, 2).Draw(t, "records") {
		r := core.Record{Table: core.Table(rapid.IntRange(0, 1).Draw(t, "table")), Key: []byte(rapid.StringMatching(`[ab]{1,2}`).Draw(t, "key"))}
		if rapid.IntRange(0, 3).Draw(t, "delete") > 0 {
			r.Value = []byte(fmt.Sprint(m.fresh()))
		}
		b.Records = append(b.Records, r)
	}
	m.drawAcks(t, &b)
	m.drawTrims(t, &b)
	twin := b
	twin.Appends = slices.Clone(b.Appends)
	want, got := commit(t, m.ideal, &twin), commit(t, m.disk, &b)
	if fmt.Sprint(want) != fmt.Sprint(got) {
		t.Fatalf("memory says %v, the driver %v", want, got)
	}
	for i := range b.Appends {
		if b.Appends[i].Offset != twin.Appends[i].Offset {
			t.Fatalf("append %d: offset %d, in memory %d", i, b.Appends[i].Offset, twin.Appends[i].Offset)
		}
	}
}

func (m *machine) drawLogs(t *rapid.T) {
	if len(m.logs) < 3 {
		m.logs = append(m.logs, core.LogID(m.fresh()))
	}
}

func (m *machine) drawCursors(t *rapid.T, b *core.Batch) {
	for range rapid.IntRange(0, 2).Draw(t, "cursor ops") {
		switch kind := rapid.IntRange(0, 5).Draw(t, "cursor op"); {
		case kind <= 2 && len(m.cursors) < 8:
			c := core.CursorID(m.fresh())
			l := rapid.SampledFrom(m.logs).Draw(t, "log")
			m.cursors, m.of[c] = append(m.cursors, c), l
			b.Cursors = append(b.Cursors, core.CursorOp{ID: c, Log: l})
		case kind == 3 && len(m.cursors) > 0:
			c := rapid.SampledFrom(m.cursors).Draw(t, "seek")
			if slices.ContainsFunc(b.Cursors, func(op core.CursorOp) bool { return op.ID == c }) {
				continue // forth and back: what comes back is not promised either
			}
			b.Cursors = append(b.Cursors, core.CursorOp{ID: c, Log: m.of[c], At: max(m.drawOffset(t), m.settled(c))})
		case kind == 4 && len(m.cursors) > 1:
			i := rapid.IntRange(0, len(m.cursors)-1).Draw(t, "drop")
			b.Cursors = append(b.Cursors, core.CursorOp{ID: m.cursors[i], Log: m.of[m.cursors[i]], Drop: true})
			m.cursors = slices.Delete(m.cursors, i, i+1)
		}
	}
}

// settled is where nothing a cursor has settled lies behind. What comes back
// when it seeks below is what a driver happens to have still.
func (m *machine) settled(c core.CursorID) core.Offset {
	for _, st := range m.ideal.Cursors() {
		if st.ID == c && len(st.Settled) > 0 {
			return st.Settled[len(st.Settled)-1][1]
		}
		if st.ID == c {
			return st.Floor
		}
	}
	return 0
}

func (m *machine) drawOffset(t *rapid.T) core.Offset {
	return core.Offset(rapid.IntRange(0, 60).Draw(t, "offset"))
}

func (m *machine) drawSets(t *rapid.T, b *core.Batch) {
	if len(m.cursors) > 0 && len(m.sets) < 5 && rapid.Bool().Draw(t, "set") {
		members := rapid.SliceOfNDistinct(rapid.SampledFrom(m.cursors), 1, -1, rapid.ID).Draw(t, "members")
		r := core.RouteSetID(m.fresh())
		l := m.of[members[0]]
		members = slices.DeleteFunc(members, func(c core.CursorID) bool { return m.of[c] != l })
		m.sets, m.logOf[r] = append(m.sets, r), l
		b.Sets = append(b.Sets, core.RouteSet{ID: r, Members: members})
	}
	if len(m.sets) > 1 && rapid.IntRange(0, 9).Draw(t, "retire") == 0 {
		b.Sets = append(b.Sets, core.RouteSet{ID: m.sets[0]})
		m.sets = m.sets[1:]
	}
}

func (m *machine) drawAppends(t *rapid.T, b *core.Batch) {
	for range rapid.IntRange(0, 6).Draw(t, "appends") {
		m.body++
		a := add(rapid.SampledFrom(m.logs).Draw(t, "log"), 0, fmt.Sprintf("%0*d", rapid.IntRange(1, 9).Draw(t, "length"), m.body))
		switch kind := rapid.IntRange(0, 4).Draw(t, "routes"); {
		case kind <= 2 && len(m.cursors) > 0:
			c := rapid.SampledFrom(m.cursors).Draw(t, "solo")
			a.Log, a.Routes = m.of[c], core.Solo(c)
		case kind == 3 && len(m.sets) > 0:
			r := rapid.SampledFrom(m.sets).Draw(t, "set")
			a.Log, a.Routes = m.logOf[r], r
		}
		b.Appends = append(b.Appends, a)
	}
}

func (m *machine) drawAcks(t *rapid.T, b *core.Batch) {
	if len(m.cursors) == 0 {
		return
	}
	for range rapid.IntRange(0, 4).Draw(t, "acks") {
		c := rapid.SampledFrom(m.cursors).Draw(t, "ack")
		from := m.drawOffset(t)
		a := core.Ack{Cursor: c, From: from, To: from + core.Offset(rapid.IntRange(1, 6).Draw(t, "n"))}
		if rapid.IntRange(0, 9).Draw(t, "wide") == 0 {
			a.To = core.MaxOffset
		}
		f := &core.Fetch{Log: m.of[c], Cursor: c, From: from}
		if fetch(t, m.ideal, f) == nil {
			for _, s := range f.Out {
				if s.Offset < a.To {
					a.N++
					a.Bytes += s.Message.Size()
				}
			}
		}
		b.Acks = append(b.Acks, a)
		b.Marks = append(b.Marks, core.Mark{Cursor: c, At: m.drawOffset(t), Attempts: uint16(rapid.IntRange(1, 3).Draw(t, "attempts"))})
	}
}

func (m *machine) drawTrims(t *rapid.T, b *core.Batch) {
	if rapid.IntRange(0, 9).Draw(t, "trim") > 0 || len(m.logs) < 2 {
		return
	}
	l := m.logs[0]
	if rapid.IntRange(0, 3).Draw(t, "drop log") > 0 {
		b.Trims = append(b.Trims, core.Trim{Log: l, Before: m.drawOffset(t)})
		return
	}
	// A log goes, and with it all that stood on it: ids are never used again.
	b.Trims = append(b.Trims, core.Trim{Log: l, Before: core.MaxOffset})
	m.logs = m.logs[1:]
	for _, c := range m.cursors {
		if m.of[c] == l {
			b.Cursors = append(b.Cursors, core.CursorOp{ID: c, Log: l, Drop: true})
		}
	}
	m.cursors = slices.DeleteFunc(m.cursors, func(c core.CursorID) bool { return m.of[c] == l })
	m.sets = slices.DeleteFunc(m.sets, func(r core.RouteSetID) bool { return m.logOf[r] == l })
}

// fetch reads the same from both.
func (m *machine) fetch(t *rapid.T) {
	if len(m.cursors) == 0 {
		t.Skip("no cursors")
	}
	c := rapid.SampledFrom(m.cursors).Draw(t, "cursor")
	m.compare(t, core.Fetch{
		Log: m.of[c], Cursor: c, From: m.drawOffset(t),
		Since:   rapid.Int64Range(0, 1110).Draw(t, "since"),
		Records: rapid.IntRange(0, 8).Draw(t, "records"),
		Bytes:   rapid.IntRange(0, 800).Draw(t, "bytes"),
	})
}

func (m *machine) compare(t *rapid.T, ask core.Fetch) {
	want, got := ask, ask
	errWant, errGot := fetch(t, m.ideal, &want), fetch(t, m.disk, &got)
	if (errWant == nil) != (errGot == nil) {
		t.Fatalf("fetch %+v: memory says %v, the driver %v", ask, errWant, errGot)
	}
	if d := cmp.Diff(lines(&want), lines(&got), cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("fetch %+v (-memory +driver):\n%s", ask, d)
	}
}

func lines(f *core.Fetch) []string {
	var l []string
	for _, s := range f.Out {
		l = append(l, fmt.Sprintf("%d at %d, %d attempts: %s", s.Offset, s.Time, s.Attempts, s.Message.Body))
	}
	return append(l, fmt.Sprint("next ", f.Next))
}

// reopen closes the driver's store, or crashes it, and goes on.
func (m *machine) reopen(t *rapid.T) {
	switch kind := rapid.IntRange(0, 7).Draw(t, "how"); {
	case kind == 0:
		m.x.store = m.x.h.Reopen()
	case kind == 1 && m.x.h.Crash != nil:
		m.x.store = m.x.h.Crash()
	}
	m.disk = openPart(t, m.x.store, m.id) // fences the one before
	m.ideal = openPart(t, m.model, m.id)
}

// check compares all that can be seen.
func (m *machine) check(t *rapid.T) {
	if want, got := m.ideal.NextID(), m.disk.NextID(); got < want {
		t.Fatalf("NextID %d, in memory %d", got, want)
	}
	wantLogs, gotLogs := m.ideal.Logs(), m.disk.Logs()
	if d := cmp.Diff(wantLogs, gotLogs, cmpopts.IgnoreFields(core.LogState{}, "First", "Records", "Bytes"), cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("logs (-memory +driver):\n%s", d)
	}
	for i := range wantLogs {
		if gotLogs[i].First > wantLogs[i].First || gotLogs[i].Records < wantLogs[i].Records {
			t.Fatalf("log %+v, in memory %+v", gotLogs[i], wantLogs[i])
		}
	}
	for _, c := range m.cursors {
		m.compare(t, core.Fetch{Log: m.of[c], Cursor: c})
	}
	for table := range core.Table(2) {
		if d := cmp.Diff(scanAll(t, m.ideal, table), scanAll(t, m.disk, table)); d != "" {
			t.Fatalf("table %d (-memory +driver):\n%s", table, d)
		}
	}
	m.checkCursors(t)
}

// checkCursors compares the cursors, which a handle knows as of its Open.
func (m *machine) checkCursors(t *rapid.T) {
	m.disk, m.ideal = openPart(t, m.x.store, m.id), openPart(t, m.model, m.id)
	want, got := m.ideal.Cursors(), m.disk.Cursors()
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(core.CursorState{}, "Floor", "Settled"), cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("cursors (-memory +driver):\n%s", d)
	}
	for _, c := range got {
		f := &core.Fetch{Log: c.Log, Cursor: c.ID}
		if fetch(t, m.ideal, f) != nil {
			continue
		}
		for _, s := range f.Out {
			if s.Offset < c.Floor || slices.ContainsFunc(c.Settled, func(r [2]core.Offset) bool { return r[0] <= s.Offset && s.Offset < r[1] }) {
				t.Fatalf("%+v says that %d is settled, it is owed", c, s.Offset)
			}
		}
	}
}

func scanAll(t *rapid.T, p core.Partition, table core.Table) map[string]string {
	all := map[string]string{}
	for r, err := range p.Scan(context.Background(), table, nil) {
		if err != nil {
			t.Fatalf("scan: %v", err)
		}
		all[string(r.Key)] = string(r.Value)
	}
	return all
}
