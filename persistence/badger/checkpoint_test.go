package badger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/godwitmq/godwit/core"
)

// filled is a store with something of everything in the journal, so much that
// a checkpoint has blocks to write, and what its cursors owe.
func filled(t *testing.T) (*bench, map[core.CursorID]string) {
	p := modelProfile()
	p.segments, p.overlay = 20, 1<<30 // no checkpoint but ours
	b := newBench(t, p)
	b.commit(&core.Batch{
		Cursors: []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}},
		Sets:    []core.RouteSet{{ID: 100, Members: []core.CursorID{2, 3}}},
	})
	want := map[core.CursorID]string{}
	b.more(want, 60)
	return b, want
}

func (b *bench) more(want map[core.CursorID]string, n int) {
	b.t.Helper()
	add := func(c core.CursorID, body string) {
		if want[c] != "" {
			want[c] += " "
		}
		want[c] += body
	}
	for i := range n {
		batch := &core.Batch{Records: []core.Record{{Table: 1, Key: fmt.Appendf(nil, "k%d", i%7), Value: make([]byte, 700)}}}
		routes := []core.RouteSetID{core.Solo(2), core.Solo(3), 100}[i%3]
		batch.Appends = []core.Append{{Log: 1, Routes: routes, Message: small(fmt.Sprintf("%d-%d", len(want[2]), i))}}
		body := string(batch.Appends[0].Message.Body)
		for c := core.CursorID(2); c <= 3; c++ {
			if routes == 100 || routes == core.Solo(c) {
				add(c, body)
			}
		}
		b.commit(batch)
	}
}

func (b *bench) wants(when string, want map[core.CursorID]string) {
	b.t.Helper()
	for c, w := range want {
		if got := b.owed(c); got != w {
			b.t.Fatalf("%s: cursor %d owes %q, want %q", when, c, got, w)
		}
	}
	if why := consistent(b.store()); why != "" {
		b.t.Fatalf("%s: %s", when, why)
	}
}

// half does a checkpoint up to its mark, which it does not write, and hands its
// moves back; it leaves the turn taken.
func (b *bench) half(flush bool) []move {
	b.t.Helper()
	s := b.store()
	s.points.turn.Lock()
	needed, _ := s.points.covers()
	number := s.points.last + 1
	w := s.db.Writer(number)
	var moves []move
	for _, p := range s.allParts() {
		moves = append(moves, move{s: s, p: p, number: number, needed: needed, w: w})
	}
	for i := range moves {
		m := &moves[i]
		if err := errors.Join(m.name(), m.blocks(), m.rest()); err != nil {
			b.t.Fatal(err)
		}
	}
	if flush {
		if err := w.Flush(); err != nil {
			b.t.Fatal(err)
		}
	}
	return moves
}

// A checkpoint that ended before its mark leaves nothing: what it wrote is
// deleted at the next start, and done again.
func TestAnUnfinishedCheckpointIsDoneAgain(t *testing.T) {
	b, want := filled(t)
	for round := range 3 {
		b.half(true)
		b.store().points.turn.Unlock()
		b.crash()
		b.wants(fmt.Sprint("unfinished ", round), want)
		b.checkpoint()
		b.wants(fmt.Sprint("finished ", round), want)
		b.openPart()
		b.more(want, 20)
	}
	b.crash()
	b.wants("at the end", want)
}

// A checkpoint for which there was no space is tried again, and leaves neither
// blocks that nobody knows nor such as overlap.
func TestAFailedCheckpointIsTriedAgain(t *testing.T) {
	b, want := filled(t)
	for round := range 3 {
		moves := b.half(round != 1)
		k := &b.store().points
		for i := range moves {
			k.leftover = moves[i].undo(k.leftover)
		}
		k.turn.Unlock()
		b.openPart()
		b.more(want, 20)
		b.checkpoint()
		b.wants(fmt.Sprint("tried again ", round), want)
	}
	b.crash()
	b.wants("opened", want)
}

// Pages are newer than the mark after a checkpoint that did not end: acks and
// seeks of the journal are not done twice.
func TestNewerPagesAreNotSettledTwice(t *testing.T) {
	b, want := filled(t)
	b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 4, Log: 1, At: 1}}, Acks: []core.Ack{{Cursor: 2, From: 1, To: 1000}}})
	want[2] = ""
	b.half(true)
	b.store().points.turn.Unlock()
	b.more(want, 5)
	b.crash()
	b.wants("opened", want)
	for _, st := range b.p.Cursors() {
		f := &core.Fetch{Log: 1, Cursor: st.ID}
		if err := b.fetch(f); err != nil || st.Depth != int64(len(f.Out)) {
			t.Errorf("cursor %d owes %d, its depth is %d: %v", st.ID, len(f.Out), st.Depth, err)
		}
	}
}

// The database has lost the end of its log with the last checkpoint in it: the
// mark before counts, and the segments it needs are still there.
func TestALostLogOfTheDatabaseIsDoneAgain(t *testing.T) {
	b, want := filled(t)
	b.checkpoint()
	b.more(want, 20)
	b.store().points.turn.Lock()
	before := map[string][]byte{}
	names, _ := filepath.Glob(filepath.Join(b.dir, "badger", "*.mem"))
	for _, name := range names {
		before[filepath.Base(name)], _ = os.ReadFile(name)
	}
	b.store().points.turn.Unlock()
	b.more(want, 20)
	b.checkpoint()
	if now, _ := filepath.Glob(filepath.Join(b.dir, "badger", "*.mem")); len(now) != 1 || len(before) != 1 || now[0] != names[0] {
		t.Skip("the database has begun another log meanwhile")
	}
	b.more(want, 5)
	b.crashWith(func(dir string) {
		for name, octets := range before { // what came later is as it was: zeros
			if err := os.WriteFile(filepath.Join(dir, "badger", name), octets, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n := b.store().journal.Recovered().Frames; n < 45 {
		t.Errorf("%d frames were replayed: nothing was lost", n)
	}
	b.wants("opened", want)
	b.checkpoint()
	b.wants("done again", want)
}

// crashWith goes on with a copy of the directory, after harm was done to it.
func (b *bench) crashWith(harm func(dir string)) {
	b.t.Helper()
	s := b.store()
	s.points.turn.Lock()
	s.turn.Lock()
	copied := b.t.TempDir()
	err := copyDir(copied, b.dir)
	s.turn.Unlock()
	s.points.turn.Unlock()
	if err != nil {
		b.t.Fatal(err)
	}
	_ = s.Close(context.Background())
	harm(copied)
	b.dir = copied
	b.open()
}
