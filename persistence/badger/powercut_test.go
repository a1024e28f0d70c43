package badger

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/journal/journaltest"
	"github.com/godwitmq/godwit/persistence/lsm"
)

var (
	cuts    = flag.Int("cuts", 25, "how often TestPowerCut cuts the power")
	cutSeed = flag.Uint64("cutseed", 0, "the seed of the first of them; 0: any")
)

// mission: S8. Whatever is being done when the power goes, what was confirmed
// is there, whole, and nothing else is.
func TestPowerCut(t *testing.T) {
	seed := *cutSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for i := range *cuts {
		if !t.Run(fmt.Sprint(seed+uint64(i)), func(t *testing.T) { cutPower(t, seed+uint64(i)) }) {
			t.Logf("again: go test ./persistence/badger -run 'TestPowerCut$' -cuts 1 -cutseed %d", seed+uint64(i))
			return
		}
	}
}

// cutPower cuts the power of one store a few times.
func cutPower(t *testing.T, seed uint64) {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 1)), disk: journaltest.New(seed), dir: t.TempDir(), next: 10}
	w.sure.init()
	for round := range 3 {
		w.open()
		w.check(fmt.Sprintf("opened for the %d. time", round+1))
		if t.Failed() {
			return
		}
		if w.random.IntN(4) > 0 {
			w.disk.StopAfter(w.random.IntN(80))
		}
		for range w.random.IntN(60) {
			if !w.step() {
				break
			}
		}
		w.cut()
	}
	w.open()
	w.check("at the end")
	_ = w.s.Close(context.Background())
}

// A world is a store with a machine around it, and what it has been told.
type world struct {
	t      *testing.T
	random *rand.Rand
	disk   *journaltest.Disk
	dir    string
	s      *store
	p      core.Partition
	next   uint64
	body   int

	sure    state    // what has been confirmed
	unknown []*order // what was not, in order: each may be there if those before it are
}

// An order is a batch on its way, and what it does to a state.
type order struct {
	batch *core.Batch
	done  chan struct{}
	err   error
}

// A state is what a store should have.
type state struct {
	cursors map[core.CursorID]core.LogID
	sets    map[core.RouteSetID][]core.CursorID
	owed    map[core.CursorID]map[core.Offset]string
	streams map[core.LogID]map[core.Offset]string
	records map[string]string
	marks   map[core.CursorID]map[core.Offset]uint16
	settled map[core.CursorID]core.Offset // nothing at or above was ever settled
}

func (s *state) init() {
	*s = state{
		cursors: map[core.CursorID]core.LogID{}, sets: map[core.RouteSetID][]core.CursorID{},
		owed: map[core.CursorID]map[core.Offset]string{}, streams: map[core.LogID]map[core.Offset]string{},
		records: map[string]string{}, marks: map[core.CursorID]map[core.Offset]uint16{},
		settled: map[core.CursorID]core.Offset{},
	}
}

// clone copies what apply changes.
func (s *state) clone() *state {
	c := &state{
		cursors: maps.Clone(s.cursors), sets: maps.Clone(s.sets), settled: maps.Clone(s.settled), records: maps.Clone(s.records),
		owed: map[core.CursorID]map[core.Offset]string{}, streams: map[core.LogID]map[core.Offset]string{},
		marks: map[core.CursorID]map[core.Offset]uint16{},
	}
	for k, v := range s.owed {
		c.owed[k] = maps.Clone(v)
	}
	for k, v := range s.streams {
		c.streams[k] = maps.Clone(v)
	}
	for k, v := range s.marks {
		c.marks[k] = maps.Clone(v)
	}
	return c
}

// apply does a batch, whose offsets are known.
func (s *state) apply(b *core.Batch) {
	for _, op := range b.Cursors {
		if op.Drop {
			delete(s.cursors, op.ID)
			delete(s.owed, op.ID)
			delete(s.marks, op.ID)
			continue
		}
		if s.owed[op.ID] == nil {
			s.cursors[op.ID], s.owed[op.ID], s.marks[op.ID] = op.Log, map[core.Offset]string{}, map[core.Offset]uint16{}
		}
		s.settle(op.ID, 0, op.At)
	}
	for _, r := range b.Sets {
		if r.Members != nil {
			s.sets[r.ID] = r.Members
		}
	}
	for _, a := range b.Appends {
		members := s.sets[a.Routes]
		if c, solo := a.Routes.Member(); solo {
			members = []core.CursorID{c}
		}
		for _, c := range members {
			if s.cursors[c] == a.Log {
				s.owed[c][a.Offset] = string(a.Message.Body)
			}
		}
		if a.Routes == 0 {
			if s.streams[a.Log] == nil {
				s.streams[a.Log] = map[core.Offset]string{}
			}
			s.streams[a.Log][a.Offset] = string(a.Message.Body)
		}
	}
	for _, r := range b.Records {
		if r.Value == nil {
			delete(s.records, string(r.Key))
		} else {
			s.records[string(r.Key)] = string(r.Value)
		}
	}
	for _, m := range b.Marks {
		if _, ok := s.owed[m.Cursor][m.At]; ok {
			s.marks[m.Cursor][m.At] = m.Attempts
		}
	}
	for _, a := range b.Acks {
		s.settle(a.Cursor, a.From, a.To)
	}
	for _, t := range b.Trims {
		s.trim(t)
	}
}

func (s *state) settle(c core.CursorID, from, to core.Offset) {
	s.settled[c] = max(s.settled[c], to)
	in := func(o core.Offset) bool { return o >= from && o < to }
	maps.DeleteFunc(s.owed[c], func(o core.Offset, _ string) bool { return in(o) })
	maps.DeleteFunc(s.marks[c], func(o core.Offset, _ uint16) bool { return in(o) })
}

func (s *state) trim(t core.Trim) {
	maps.DeleteFunc(s.streams[t.Log], func(o core.Offset, _ string) bool { return o < t.Before })
	for c, l := range s.cursors {
		if l == t.Log {
			s.settle(c, 0, t.Before)
		}
	}
}

func cutProfile() profile {
	p := modelProfile()
	p.segments = 2
	return p
}

func (w *world) open() {
	w.t.Helper()
	p := cutProfile()
	p.disk = w.disk
	s, err := open(w.dir, p, testLog(w.t))
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	w.s = s.(*store)
	w.t.Cleanup(func() { _ = s.Close(context.Background()) })
	if w.p, err = s.Open(context.Background(), 1); err != nil {
		w.t.Fatal(err)
	}
}

// step does one thing. False: the machine is off.
func (w *world) step() bool {
	switch k := w.random.IntN(12); {
	case k == 0:
		done := make(chan struct{})
		go func() { w.s.points.now(); close(done) }()
		for waiting := true; waiting && w.s.poisoned() == nil; {
			select {
			case <-done:
				waiting = false
			case <-time.After(10 * time.Millisecond): // it never ends on a broken disk
			}
		}
	case k == 1: // in the middle of other things
		go w.s.points.now()
	default:
		b := w.batch()
		o := &order{batch: b, done: make(chan struct{})}
		b.Done = o
		if err := w.p.Commit(b); err != nil {
			return errors.Is(err, core.ErrOverload)
		}
		w.unknown = append(w.unknown, o)
		if b.Wait && w.random.IntN(3) == 0 {
			<-o.done
		}
	}
	return w.s.poisoned() == nil
}

// Committed is a core.BatchDone's.
func (o *order) Committed(_ *core.Batch, err error) {
	o.err = err
	close(o.done)
}

// expected is the state after all that is on its way.
func (w *world) expected() *state {
	s := w.sure.clone()
	for _, o := range w.unknown {
		s.apply(o.batch)
	}
	return s
}

// batch makes a random batch.
func (w *world) batch() *core.Batch {
	r, s := w.random, w.expected()
	b := &core.Batch{Now: 1_790_000_000_000 + r.Int64N(1000), Wait: r.IntN(4) > 0}
	cursors := slices.Sorted(maps.Keys(s.cursors))
	if len(cursors) < 2 || len(cursors) < 7 && r.IntN(8) == 0 {
		w.next++
		c := core.CursorID(w.next)
		b.Cursors = append(b.Cursors, core.CursorOp{ID: c, Log: core.LogID(1 + r.IntN(2))})
		return b
	}
	c := cursors[r.IntN(len(cursors))]
	if r.IntN(20) == 0 && len(cursors) > 3 {
		b.Cursors = append(b.Cursors, core.CursorOp{ID: c, Log: s.cursors[c], Drop: true})
		cursors = slices.DeleteFunc(cursors, func(x core.CursorID) bool { return x == c })
		c = cursors[0]
	}
	if r.IntN(6) == 0 {
		w.next++
		var members []core.CursorID
		for _, m := range cursors {
			if s.cursors[m] == s.cursors[c] && r.IntN(3) > 0 {
				members = append(members, m)
			}
		}
		if len(members) > 0 {
			b.Sets = append(b.Sets, core.RouteSet{ID: core.RouteSetID(w.next), Members: members})
			s.sets[core.RouteSetID(w.next)] = members
		}
	}
	sets := slices.Sorted(maps.Keys(s.sets))
	for range r.IntN(12) {
		w.body++
		m := small(fmt.Sprintf("%d-%0*d", w.body, r.IntN(300)+1, 0))
		a := core.Append{Message: m}
		switch k := r.IntN(6); {
		case k < 3:
			to := cursors[r.IntN(len(cursors))]
			a.Log, a.Routes = s.cursors[to], core.Solo(to)
		case k < 5 && len(sets) > 0:
			a.Routes = sets[r.IntN(len(sets))]
			for _, m := range s.sets[a.Routes] {
				if l, ok := s.cursors[m]; ok {
					a.Log = l
				}
			}
			if a.Log == 0 {
				continue
			}
		default:
			a.Log = 3
		}
		b.Appends = append(b.Appends, a)
	}
	for range r.IntN(3) {
		rec := core.Record{Table: 1, Key: fmt.Appendf(nil, "k%d", r.IntN(6))}
		if r.IntN(5) > 0 {
			w.body++
			rec.Value = fmt.Appendf(nil, "v%d", w.body)
		}
		b.Records = append(b.Records, rec)
	}
	w.settleSome(b, s, cursors)
	return b
}

// settleSome acks, marks, seeks and trims.
func (w *world) settleSome(b *core.Batch, s *state, cursors []core.CursorID) {
	r := w.random
	for range r.IntN(5) {
		c := cursors[r.IntN(len(cursors))]
		offsets := slices.Sorted(maps.Keys(s.owed[c]))
		if len(offsets) == 0 {
			continue
		}
		i := r.IntN(len(offsets))
		switch k := r.IntN(12); {
		case k == 0:
			b.Marks = append(b.Marks, core.Mark{Cursor: c, At: offsets[i], Attempts: uint16(1 + r.IntN(4))})
		case k == 1 && !slices.ContainsFunc(b.Cursors, func(op core.CursorOp) bool { return op.ID == c }):
			b.Cursors = append(b.Cursors, core.CursorOp{ID: c, Log: s.cursors[c], At: max(offsets[i], s.settled[c])})
		default:
			j := min(len(offsets)-1, i+r.IntN(20))
			b.Acks = append(b.Acks, core.Ack{Cursor: c, From: offsets[i], To: offsets[j] + 1, N: int64(j - i + 1)})
		}
	}
	if r.IntN(15) == 0 {
		l := core.LogID(1 + r.IntN(3))
		var all []core.Offset
		for o := range s.streams[l] {
			all = append(all, o)
		}
		for c, of := range s.cursors {
			if of == l {
				all = append(all, slices.Collect(maps.Keys(s.owed[c]))...)
			}
		}
		if slices.Sort(all); len(all) > 0 {
			b.Trims = append(b.Trims, core.Trim{Log: l, Before: all[r.IntN(len(all))]})
		}
	}
}

// cut cuts the power: the journal's disk keeps what it may, and the database is
// copied as it is between two of its transactions.
func (w *world) cut() {
	w.t.Helper()
	frozen := make(chan struct{})
	if w.random.IntN(2) == 0 { // between two checkpoints
		w.s.points.turn.Lock()
		close(frozen)
	}
	// The journal first: a checkpoint that ends in between cannot recycle then,
	// so what the database says later is what it could have said now.
	disk := w.disk.PowerCut()
	copied := w.snapshot()
	select {
	case <-frozen:
		w.s.points.turn.Unlock()
	default:
	}
	_ = w.s.Close(context.Background())
	for _, o := range w.unknown {
		<-o.done
	}
	w.dir, w.disk = copied, disk
}

// snapshot copies the directory. A checkpoint may be under way: the copy is
// tried until no table has come or gone meanwhile.
func (w *world) snapshot() string {
	w.t.Helper()
	for range 1000 {
		to, before := w.t.TempDir(), listing(w.dir)
		if err := copyDir(to, w.dir); err == nil && listing(w.dir) == before {
			return to
		}
		_ = os.RemoveAll(to)
	}
	w.t.Fatal("the directory would not stand still for a copy")
	return ""
}

// check compares what is there with what should be: all that was confirmed,
// and of what was not some of the oldest.
func (w *world) check(when string) {
	w.t.Helper()
	s := &w.sure
	sure := 0
	for i, o := range w.unknown {
		if o.err == nil {
			sure = i + 1 // a cut disk confirms nothing, so this was before
		}
	}
	for _, o := range w.unknown[:sure] {
		if o.err != nil {
			w.t.Fatalf("%s: a batch failed with %v, and a later one was confirmed", when, o.err)
		}
		s.apply(o.batch)
	}
	var why string
	for i := sure; ; i++ {
		if why = w.differs(s); why == "" || i == len(w.unknown) {
			break
		}
		s.apply(w.unknown[i].batch)
	}
	if why != "" {
		w.t.Fatalf("%s (mark %+v): with %d of %d batches confirmed: %s", when, w.s.db.Mark(), sure, len(w.unknown), why)
	}
	w.unknown = nil
	w.integrity(when)
}

// differs says what the store has otherwise than s.
func (w *world) differs(s *state) string {
	ctx := context.Background()
	p, err := w.s.Open(ctx, 1)
	if err != nil {
		return err.Error()
	}
	w.p = p
	got := map[core.CursorID]core.CursorState{}
	for _, c := range p.Cursors() {
		got[c.ID] = c
		if l, ok := s.cursors[c.ID]; !ok || l != c.Log {
			return fmt.Sprintf("cursor %d on log %d should be on %d", c.ID, c.Log, l)
		}
	}
	b := &bench{t: w.t, s: w.s, p: p}
	for c, l := range s.cursors {
		st, ok := got[c]
		if !ok {
			return fmt.Sprintf("no cursor %d", c)
		}
		f := &core.Fetch{Log: l, Cursor: c}
		if err := b.fetch(f); err != nil {
			return fmt.Sprintf("cursor %d: %v", c, err)
		}
		if d := compareOut(s.owed[c], f.Out); d != "" {
			return fmt.Sprintf("cursor %d: %s", c, d)
		}
		if st.Depth != int64(len(f.Out)) {
			return fmt.Sprintf("cursor %d owes %d, its depth is %d", c, len(f.Out), st.Depth)
		}
		for i := range f.Out {
			if want := s.marks[c][f.Out[i].Offset]; f.Out[i].Attempts != want {
				return fmt.Sprintf("cursor %d at %d: %d attempts, want %d", c, f.Out[i].Offset, f.Out[i].Attempts, want)
			}
		}
	}
	for l, want := range s.streams {
		f := &core.Fetch{Log: l}
		if err := b.fetch(f); err != nil {
			return fmt.Sprintf("log %d: %v", l, err)
		}
		if d := compareOut(want, f.Out); d != "" {
			return fmt.Sprintf("log %d: %s", l, d)
		}
	}
	records := map[string]string{}
	for r, err := range p.Scan(ctx, 1, nil) {
		if err != nil {
			return err.Error()
		}
		records[string(r.Key)] = string(r.Value)
	}
	if !maps.Equal(records, s.records) {
		return fmt.Sprintf("records %v, want %v", records, s.records)
	}
	return ""
}

func compareOut(want map[core.Offset]string, got []core.Stored) string {
	last := core.Offset(0)
	for i := range got {
		o := got[i].Offset
		if o <= last {
			return fmt.Sprintf("offset %d after %d", o, last)
		}
		last = o
		if w, ok := want[o]; !ok || w != string(got[i].Message.Body) {
			return fmt.Sprintf("at %d it has %.20q, want %.20q (%v)", o, got[i].Message.Body, w, ok)
		}
	}
	if len(got) != len(want) {
		for _, o := range slices.Sorted(maps.Keys(want)) {
			if !slices.ContainsFunc(got, func(s core.Stored) bool { return s.Offset == o }) {
				return fmt.Sprintf("%d records, want %d: %d is missing", len(got), len(want), o)
			}
		}
	}
	return ""
}

// integrity looks whether memory and database agree: what is at rest is known,
// once, and what is known is at rest.
func (w *world) integrity(when string) {
	w.t.Helper()
	if why := consistent(w.s); why != "" {
		w.t.Fatalf("%s: %s", when, why)
	}
}

// consistent says what is wrong with a store that rests.
func consistent(s *store) string {
	s.points.turn.Lock()
	defer s.points.turn.Unlock()
	for _, p := range s.allParts() {
		if why := p.consistent(s.db); why != "" {
			return why
		}
	}
	return ""
}

func (p *part) consistent(db *lsm.DB) string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	known := map[string]string{}
	for _, f := range p.freed {
		known[string(f.id.key(kindBlock)[1:])] = "freed"
	}
	for _, l := range p.logs {
		for _, lane := range l.lanes() {
			for i, b := range lane {
				if i > 0 && b.base <= lane[i-1].last {
					return fmt.Sprintf("log %d: a block at %d after one up to %d", l.id, b.base, lane[i-1].last)
				}
				owed, kept := b.owed, b.kept
				b.owed, b.kept = 0, 0
				for use := range b.uses {
					p.countUse(l, b, uint8(use))
				}
				if b.owed != owed || b.kept != kept {
					return fmt.Sprintf("log %d: block %d-%d says %d are owed and %d kept, it is %d and %d", l.id, b.base, b.last, owed, kept, b.owed, b.kept)
				}
				if !b.live() {
					return fmt.Sprintf("log %d: nobody wants block %d-%d of cursor %d", l.id, b.base, b.last, b.owner)
				}
				if !b.chunk() {
					known[string(b.id(p.id, l.id).key(kindBlock)[1:])] = "live"
				}
			}
		}
	}
	why := ""
	for _, kind := range []byte{kindBlock, kindIndex} {
		found := 0
		err := db.Scan([]byte{kind}, nil, false, func(key, _ []byte) error {
			if parseBlockID(key).part != p.id {
				return nil
			}
			if known[string(key[1:])] == "" {
				why = fmt.Sprintf("nobody knows the block of key %x", key)
			} else if known[string(key[1:])] == "live" {
				found++
			}
			return nil
		})
		live := 0
		for _, what := range known {
			if what == "live" {
				live++
			}
		}
		if err != nil || found != live {
			return fmt.Sprintf("%d of %d blocks are at rest under kind %#x: %v", found, live, kind, err)
		}
	}
	return why
}
