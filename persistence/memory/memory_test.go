package memory_test

import (
	"context"
	"errors"
	"testing"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/persistence/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		s := memory.New(memory.Options{MaxRecord: 1 << 20, MaxBatch: 4 << 20, MaxOps: 4096})
		return storetest.Harness{
			Store: s,
			Reopen: func() core.Store {
				if err := s.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
				return s
			},
			Crash: func() core.Store { s.Cut(); return s },
			Full:  s.SetFull,
			Fail:  s.Fail,
			Hold:  func() (held, release func()) { s.Hold(); return func() {}, s.Resume },
		}
	})
}

// told collects what Done says.
type told struct{ errs []error }

func (d *told) Committed(_ *core.Batch, err error) { d.errs = append(d.errs, err) }

func open(t *testing.T, s *memory.Store) core.Partition {
	t.Helper()
	p, err := s.Open(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func put(t *testing.T, p core.Partition, d *told, key string) {
	t.Helper()
	if err := p.Commit(&core.Batch{Records: []core.Record{{Key: []byte(key), Value: []byte("v")}}, Done: d}); err != nil {
		t.Fatal(err)
	}
}

func has(p core.Partition, key string) bool {
	_, err := p.Get(context.Background(), 0, []byte(key))
	return err == nil
}

func TestSyncMakesDurableAndHoldsOn(t *testing.T) {
	s := memory.New(memory.Options{})
	p, d := open(t, s), &told{}
	s.Hold()
	put(t, p, d, "a")
	put(t, p, d, "b")
	if n := s.Sync(); n != 2 || len(d.errs) != 2 {
		t.Errorf("Sync said %d, %d Done calls came, want 2 and 2", n, len(d.errs))
	}
	put(t, p, d, "c")
	if len(d.errs) != 2 || s.Held() != 1 || has(p, "c") {
		t.Error("the hold ended with Sync")
	}
	s.Resume()
	put(t, p, d, "d")
	if len(d.errs) != 4 || !has(p, "c") || !has(p, "d") {
		t.Errorf("after Resume: %d Done calls, want 4", len(d.errs))
	}
}

func TestCutForgetsWhatIsHeld(t *testing.T) {
	s := memory.New(memory.Options{})
	p, d := open(t, s), &told{}
	put(t, p, d, "a")
	s.Hold()
	put(t, p, d, "b")
	s.Cut()
	if len(d.errs) != 1 {
		t.Errorf("%d Done calls, want only that of what was durable", len(d.errs))
	}
	if err := p.Commit(&core.Batch{}); !errors.Is(err, core.ErrClosed) {
		t.Errorf("commit on a handle from before the cut: %v, want closed", err)
	}
	p = open(t, s)
	if !has(p, "a") || has(p, "b") {
		t.Errorf("a %v, b %v: want what was durable alone", has(p, "a"), has(p, "b"))
	}
	s.Resume()
	if has(p, "b") {
		t.Error("what the cut took came back")
	}
}

func TestFailFailsWhatIsHeldUntilTheNextLife(t *testing.T) {
	s := memory.New(memory.Options{})
	p, d := open(t, s), &told{}
	s.Hold()
	put(t, p, d, "a")
	s.Fail()
	if len(d.errs) != 1 || !errors.Is(d.errs[0], core.ErrPoisoned) {
		t.Errorf("Done said %v, want poisoned", d.errs)
	}
	s.Cut()
	s.Resume()
	p = open(t, s)
	put(t, p, d, "b")
	if has(p, "a") || !has(p, "b") {
		t.Error("the next life does not work")
	}
}

// chain commits the next batch inside the Done of the one before.
type chain struct {
	p     core.Partition
	left  int
	order []int64
}

func (c *chain) Committed(b *core.Batch, _ error) {
	c.order = append(c.order, b.Now)
	if c.left--; c.left > 0 {
		if err := c.p.Commit(&core.Batch{Now: b.Now + 1, Done: c}); err != nil {
			panic(err)
		}
	}
}

func TestDoneMayCommit(t *testing.T) {
	s := memory.New(memory.Options{})
	c := &chain{p: open(t, s), left: 1000}
	if err := c.p.Commit(&core.Batch{Now: 1, Done: c}); err != nil {
		t.Fatal(err)
	}
	if len(c.order) != 1000 || c.order[999] != 1000 {
		t.Errorf("%d of 1000 Done calls came", len(c.order))
	}
}
