package badger

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/journal/journaltest"
)

// put stages a batch and says where its answer will come.
func (b *bench) put(batch *core.Batch) <-chan error {
	b.t.Helper()
	said := make(chan error, 1)
	batch.Done = doneFunc(func(_ *core.Batch, err error) { said <- err })
	if err := b.p.Commit(batch); err != nil {
		b.t.Fatal(err)
	}
	return said
}

func hear(t testing.TB, said <-chan error) error {
	t.Helper()
	select {
	case err := <-said:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("no answer within 20 s")
		return nil
	}
}

func (b *bench) store() *store { return b.s.(*store) }

func (b *bench) checkpoint() { b.store().points.now() }

// A frame of which nothing was written, because its batches were fenced, must
// not move the mark.
func TestAFencedFrameDoesNotMoveTheMark(t *testing.T) {
	b := newBench(t, modelProfile())
	b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}}})
	for range 12 { // some segments
		b.commit(&core.Batch{Appends: []core.Append{{Log: 1, Routes: core.Solo(3), Message: filler(7000)}}})
		b.checkpoint()
	}
	b.commit(&core.Batch{Appends: []core.Append{{Log: 1, Routes: core.Solo(2), Message: small("before")}}})
	late := b.put(&core.Batch{Appends: []core.Append{{Log: 1, Routes: core.Solo(2), Message: small("fenced")}}})
	b.openPart()
	if err := hear(t, late); !errors.Is(err, core.ErrFenced) {
		t.Skipf("it was too late to fence: %v", err)
	}
	b.checkpoint()
	mark, at := b.store().db.Mark(), b.store().journal.State().Commit
	if mark.Segment == 0 || mark.Commit > at {
		t.Errorf("the mark is segment %d, commit %d; the journal is at commit %d", mark.Segment, mark.Commit, at)
	}
	b.commit(&core.Batch{Appends: []core.Append{{Log: 1, Routes: core.Solo(2), Message: small("after")}}})
	b.crash()
	if got := b.owed(2); got != "before after" {
		t.Errorf("cursor 2 owes %q, want %q", got, "before after")
	}
}

// owed is what a cursor owes, with spaces between.
func (b *bench) owed(c core.CursorID) string {
	b.t.Helper()
	b.openPart()
	f := &core.Fetch{Log: 1, Cursor: c}
	if err := b.fetch(f); err != nil {
		b.t.Fatal(err)
	}
	all := ""
	for i := range f.Out {
		if i > 0 {
			all += " "
		}
		all += string(f.Out[i].Message.Body)
	}
	return all
}

// A log is dropped, as each minute one is, while another is first used.
func TestDroppingALogDoesNotLockCommits(t *testing.T) {
	b := newBench(t, tinyProfile())
	var last <-chan error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 3000 {
			l := core.LogID(10 + i)
			batch := &core.Batch{Wait: true, Appends: []core.Append{{Log: l, Message: small("x")}}}
			if i > 0 {
				batch.Trims = []core.Trim{{Log: l - 1, Before: core.MaxOffset}}
			}
			said := make(chan error, 1)
			batch.Done = doneFunc(func(_ *core.Batch, err error) { said <- err })
			if err := b.p.Commit(batch); err != nil {
				if errors.Is(err, core.ErrOverload) {
					<-last
					continue
				}
				t.Error(err)
				return
			}
			last = said
		}
	}()
	select {
	case <-done:
		if err := hear(t, last); err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		panic("commits do not come back: a lock is held for ever")
	}
}

// Sessions that all settle out of order are more on one page than one value
// may have.
func TestAPageOfCursorsWithManyRanges(t *testing.T) {
	b := newBench(t, tinyProfile())
	const cursors, records = 256, 400
	set := core.RouteSet{ID: 1000}
	batch := &core.Batch{}
	for i := range cursors {
		c := core.CursorID(256 + i)
		set.Members = append(set.Members, c)
		batch.Cursors = append(batch.Cursors, core.CursorOp{ID: c, Log: 1})
	}
	batch.Sets = []core.RouteSet{set}
	b.commit(batch)
	batch = &core.Batch{}
	for range records {
		batch.Appends = append(batch.Appends, core.Append{Log: 1, Routes: 1000, Message: small("x")})
	}
	b.commit(batch)
	batch = &core.Batch{}
	for i := range cursors {
		for o := core.Offset(2); o <= records; o += 2 {
			batch.Acks = append(batch.Acks, core.Ack{Cursor: core.CursorID(256 + i), From: o, To: o + 1, N: 1})
		}
	}
	b.commit(batch)
	b.checkpoint()
	if err := b.s.Health().Err; err != nil {
		t.Fatal(err)
	}
	b.reopenStore()
	begun := time.Now()
	b.openPart()
	t.Logf("%d cursors with %d settled ranges each are opened in %v", cursors, records/2, time.Since(begun))
	for _, st := range b.p.Cursors() {
		if st.Depth != records/2 {
			t.Fatalf("cursor %d owes %d, want %d", st.ID, st.Depth, records/2)
		}
	}
}

// What a refused batch has defined is not defined: a message for it would be
// confirmed and owed by nobody.
func TestARefusedBatchDefinesNothing(t *testing.T) {
	p, disk := modelProfile(), journaltest.New(1)
	p.disk = disk
	b := newBench(t, p)
	b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}}})
	b.store().points.turn.Lock()
	disk.SetFull(true)
	refused := false
	for i := range 100 {
		said := b.put(&core.Batch{
			Wait:    true,
			Sets:    []core.RouteSet{{ID: core.RouteSetID(100 + i), Members: []core.CursorID{2, 3}}},
			Appends: []core.Append{{Log: 1, Routes: core.RouteSetID(100 + i), Message: filler(8000)}},
		})
		err := hear(t, said)
		if err == nil {
			continue
		}
		if !errors.Is(err, core.ErrReadOnly) {
			t.Fatal(err)
		}
		refused = true
		disk.SetFull(false)
		batch := &core.Batch{Wait: true, Appends: []core.Append{{Log: 1, Routes: core.RouteSetID(100 + i), Message: small("last")}}}
		done := make(chan error, 1)
		batch.Done = doneFunc(func(_ *core.Batch, err error) { done <- err })
		if err := b.p.Commit(batch); err == nil {
			if err := hear(t, done); err == nil {
				if got := b.owed(2); len(got) < 4 || got[len(got)-4:] != "last" {
					t.Errorf("the message was confirmed and nobody owes it")
				}
			}
		}
		break
	}
	if !refused {
		t.Error("the journal was never full")
	}
	b.store().points.turn.Unlock()
}

func filler(n int) *core.Message {
	m := small("x")
	m.Body = make([]byte, n-200)
	return m
}

// A cursor that goes while a checkpoint writes it does not come back.
func TestADroppedCursorStaysAway(t *testing.T) {
	b := newBench(t, tinyProfile())
	batch := &core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}}}
	b.commit(batch)
	for range 2 {
		batch = &core.Batch{}
		for range 2000 {
			batch.Appends = append(batch.Appends, core.Append{Log: 1, Routes: core.Solo(2), Message: small("x")})
		}
		b.commit(batch)
	}
	batch = &core.Batch{}
	for o := core.Offset(2); o <= 4000; o += 2 {
		batch.Acks = append(batch.Acks, core.Ack{Cursor: 2, From: o, To: o + 1, N: 1})
	}
	b.commit(batch)
	var all sync.WaitGroup
	all.Go(func() { b.checkpoint() })
	b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1, Drop: true}}})
	all.Wait()
	b.checkpoint()
	b.reopen()
	if n := len(b.p.Cursors()); n != 0 {
		t.Errorf("%d cursors are there", n)
	}
}
