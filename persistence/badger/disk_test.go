package badger

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/journal/journaltest"
	"github.com/godwitmq/godwit/persistence/lsm"
	"github.com/godwitmq/godwit/persistence/space"
	"github.com/godwitmq/godwit/persistence/storetest"
)

// One append with the reply that is wanted of it.
func (b *bench) try(batch *core.Batch) error {
	said := make(chan error, 1)
	batch.Wait, batch.Done = true, doneFunc(func(_ *core.Batch, err error) { said <- err })
	if err := b.p.Commit(batch); err != nil {
		return err
	}
	return hear(b.t, said)
}

func message(l core.LogID, body string) *core.Batch {
	return &core.Batch{Appends: []core.Append{{Log: l, Routes: core.Solo(2), Message: small(body)}}}
}

// On a full disk messages are refused, what settles is done, Health says so,
// and when there is space again messages are taken.
func TestReadOnlyRefusesMessagesAlone(t *testing.T) {
	p := tinyProfile()
	var free atomic.Int64
	free.Store(100 << 30)
	p.statfs = func(string) (space.Size, error) { return space.Size{Total: 200 << 30, Free: free.Load()}, nil }
	b := newBench(t, p)
	b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}}})
	b.commit(message(1, "before"))
	free.Store(1 << 20)
	b.store().space.Look()
	if h := b.s.Health(); !h.ReadOnly || h.Pressure != core.PressureLow || h.Err != nil {
		t.Errorf("health %+v", h)
	}
	if err := b.try(message(1, "refused")); !errors.Is(err, core.ErrReadOnly) {
		t.Errorf("a message on a full disk: %v", err)
	}
	b.commit(&core.Batch{Records: []core.Record{{Table: 1, Key: []byte("k"), Value: []byte("v")}}, Acks: []core.Ack{{Cursor: 2, From: 1, To: 2}}})
	free.Store(100 << 30)
	b.store().space.Look()
	b.commit(message(1, "after"))
	if got := b.owed(2); got != "after" {
		t.Errorf("owed: %q", got)
	}
}

// When the journal finds no space for a segment, messages are refused, and what
// settles waits its turn: the answers keep their order.
func TestAFullJournalKeepsTheOrderOfAnswers(t *testing.T) {
	p, disk := modelProfile(), journaltest.New(2)
	p.disk, p.segments = disk, 20
	b := newBench(t, p)
	b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}}})
	b.store().points.turn.Lock()
	disk.SetFull(true)
	order := make(chan int, 1000)
	errs := make([]error, 60)
	for i := range errs {
		batch := &core.Batch{Wait: true, Appends: []core.Append{{Log: 1, Routes: core.Solo(2), Message: filler(7000)}}}
		if i%2 == 1 {
			batch = &core.Batch{Wait: true, Acks: []core.Ack{{Cursor: 2, From: core.Offset(i), To: core.Offset(i + 1)}}}
		}
		batch.Done = doneFunc(func(_ *core.Batch, err error) {
			errs[i] = err
			order <- i
		})
		for err := b.p.Commit(batch); err != nil; err = b.p.Commit(batch) {
			if !errors.Is(err, core.ErrOverload) {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if i == 40 { // space comes back, and a checkpoint may give segments
			for until := time.Now().Add(20 * time.Second); b.store().counts.full.Load() == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(until) {
					t.Fatal("the journal is never full")
				}
			}
			disk.SetFull(false)
			b.store().points.turn.Unlock()
		}
	}
	refused := 0
	for want := range errs {
		select {
		case got := <-order:
			if got != want {
				t.Fatalf("batch %d is told after %d", got, want-1)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("batch %d is never told", want)
		}
		switch {
		case want%2 == 1 && errs[want] != nil:
			t.Errorf("what settles was refused: %v", errs[want])
		case errs[want] != nil && !errors.Is(errs[want], core.ErrReadOnly):
			t.Errorf("a message: %v", errs[want])
		case errs[want] != nil:
			refused++
		}
	}
	if refused == 0 {
		t.Error("no message was refused")
	}
}

// After an error of the disk nothing is confirmed any more, by nobody, for
// ever; the next start has what was.
func TestAFailedDiskConfirmsNothingMore(t *testing.T) {
	for name, kind := range map[string]journaltest.Kind{"write": journaltest.Write, "sync": journaltest.Sync} {
		t.Run(name, func(t *testing.T) {
			p, disk := modelProfile(), journaltest.New(3)
			p.disk = disk
			b := newBench(t, p)
			b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}}})
			b.commit(message(1, "before"))
			disk.Fail(kind, 1, syscall.EIO)
			for range 5 {
				if err := b.try(message(1, "after")); !errors.Is(err, core.ErrPoisoned) {
					t.Fatalf("after the disk has failed: %v", err)
				}
			}
			if b.s.Health().Err == nil {
				t.Error("health says nothing")
			}
			if _, err := b.s.Open(context.Background(), 2); !errors.Is(err, core.ErrPoisoned) {
				t.Errorf("another partition: %v", err)
			}
			_ = b.s.Close(context.Background())
			b.profile.disk = disk.PowerCut()
			b.open()
			if got := b.owed(2); got != "before" && got != "before after" {
				t.Errorf("owed: %q", got)
			}
		})
	}
}

// No batch is told that it is done before its octets are synced.
func TestNothingIsConfirmedBeforeItsSync(t *testing.T) {
	p, disk := modelProfile(), journaltest.New(4)
	p.disk = disk
	b := newBench(t, p)
	b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}}})
	disk.Ops()
	for range 100 {
		var ops []journaltest.Op
		said := make(chan error, 1)
		batch := message(1, "x")
		batch.Appends[0].Message = filler(3000)
		batch.Acks = []core.Ack{{Cursor: 2, From: 1, To: core.MaxOffset}}
		batch.Wait, batch.Done = true, doneFunc(func(_ *core.Batch, err error) { ops = disk.Ops(); said <- err })
		for err := b.p.Commit(batch); err != nil; err = b.p.Commit(batch) {
			if !errors.Is(err, core.ErrOverload) {
				t.Fatal(err)
			}
			b.checkpoint()
			disk.Ops()
		}
		b.waitFor(said)
		// A write of a frame, its sync, and no naming of that file undone since.
		written := map[string]bool{}
		frames := 0
		for _, op := range ops {
			switch op.Kind { //nolint:exhaustive // the others change nothing that a batch rests on
			case journaltest.Write:
				written[op.Name], frames = true, frames+1
			case journaltest.Sync:
				delete(written, op.Name)
			case journaltest.Rename:
				written["names"] = true
			case journaltest.SyncDir:
				delete(written, "names")
			}
		}
		if frames == 0 || written["names"] && len(written) > 1 {
			t.Fatalf("confirmed after %v", ops)
		}
		for name := range written {
			if name != "names" {
				t.Fatalf("confirmed, and %s is not synced: %v", name, ops)
			}
		}
	}
}

// A block that is damaged, or not there, stops its queue and nobody else's.
func TestADamagedBlockStopsItsQueueAlone(t *testing.T) {
	for name, harm := range map[string]func(id blockID, value []byte) lsm.Entry{
		"flipped": func(id blockID, value []byte) lsm.Entry {
			value[len(value)-3] ^= 1
			return lsm.Entry{Key: id.key(kindBlock), Value: value}
		},
		"missing": func(id blockID, _ []byte) lsm.Entry { return lsm.Entry{Key: id.key(kindBlock)} },
		"truncated": func(id blockID, value []byte) lsm.Entry {
			return lsm.Entry{Key: id.key(kindBlock), Value: value[:len(value)/2]}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, modelProfile())
			b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}}})
			b.commit(message(1, "lost"))
			other := message(1, "fine")
			other.Appends[0].Routes = core.Solo(3)
			b.commit(other)
			for range 10 { // the next segment
				b.commit(&core.Batch{Records: []core.Record{{Table: 1, Key: []byte("k"), Value: make([]byte, 8000)}}})
			}
			b.checkpoint()
			s := b.store()
			s.points.turn.Lock()
			harmed := false
			for _, l := range s.allParts()[0].logs {
				for _, lane := range l.lanes() {
					for _, bl := range lane {
						if bl.owner != 2 {
							continue
						}
						id := bl.id(1, l.id)
						value, err := s.db.Get(id.key(kindBlock))
						if err != nil {
							t.Fatal(err)
						}
						if err := s.db.Rewrite(s.points.last, harm(id, value)); err != nil {
							t.Fatal(err)
						}
						harmed = true
					}
				}
			}
			s.points.turn.Unlock()
			if !harmed {
				t.Fatal("there is no block of cursor 2 at rest")
			}
			err := b.fetch(&core.Fetch{Log: 1, Cursor: 2})
			c, ok := errors.AsType[*core.CorruptError](err)
			if !ok || c.Log != 1 || c.From != 1 || c.To != 2 {
				t.Errorf("fetch: %v", err)
			}
			if got := b.owed(3); got != "fine" {
				t.Errorf("the other queue: %q", got)
			}
			b.commit(message(1, "more"))
			if b.s.Health().Err != nil {
				t.Error(b.s.Health().Err)
			}
		})
	}
}

// A damaged index entry is found at once: nobody can say what is missing.
func TestADamagedIndexIsRefused(t *testing.T) {
	b := newBench(t, modelProfile())
	b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}}})
	b.commit(message(1, "x"))
	for range 10 {
		b.commit(&core.Batch{Records: []core.Record{{Table: 1, Key: []byte("k"), Value: make([]byte, 8000)}}})
	}
	b.checkpoint()
	s := b.store()
	s.points.turn.Lock()
	var key, value []byte
	_ = s.db.Scan([]byte{kindIndex}, nil, true, func(k, v []byte) error {
		key, value = append([]byte(nil), k...), append([]byte(nil), v...)
		return nil
	})
	value[len(value)-1] ^= 1
	err := s.db.Rewrite(s.points.last, lsm.Entry{Key: key, Value: value})
	s.points.turn.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	_ = b.s.Close(context.Background())
	again, err := open(b.dir, b.profile, testLog(t))
	if err == nil {
		_ = again.Close(context.Background())
	}
	if c, ok := errors.AsType[*core.CorruptError](err); !ok || c.Log != 1 || c.From != 1 {
		t.Errorf("open: %v", err)
	}
}

// The model, with checkpoints all the time.
func TestModelWithCheckpoints(t *testing.T) {
	storetest.Model(t, func(t *testing.T) storetest.Harness {
		p := modelProfile()
		p.overlay = 1 // each small value is worth one
		p.segments = 6
		return harness(t, p)
	})
}
