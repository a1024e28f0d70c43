package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4/table"
)

// levels makes a database with tables in two levels, so that Badger has
// something to compact, and returns the number of the next table.
func levels(t *testing.T) (b *bench, next uint64) {
	t.Helper()
	b = newBench(t, Tiny)
	w := b.db.Writer(1)
	for i := range 200 {
		b.must(w.Put(Entry{fmt.Appendf(nil, "k%04d", i), bytes.Repeat([]byte{byte(i)}, 3000)}))
	}
	b.must(w.Finish(Mark{Checkpoint: 1}))
	b.must(b.db.Reclaim())
	b.put(1, "k0000", "x")
	b.put(1, "k9", "x")
	b.reopen()
	for _, info := range b.db.b.Tables() {
		next = max(next, info.ID+1)
	}
	return b, next
}

func (b *bench) count(prefix string) (n int) {
	b.t.Helper()
	b.must(b.db.Scan([]byte(prefix), nil, false, func([]byte, []byte) error { n++; return nil }))
	return n
}

// Badger 4.9.6: a compaction that cannot make one of its tables does without,
// and says nothing. The database fails, and is not opened again until it is
// repaired.
func TestTrapLostTable(t *testing.T) {
	for _, way := range []string{"Reclaim", "Close"} {
		b, next := levels(t)
		before := b.count("k")
		// The name is taken, so the second table of the compaction fails.
		b.must(os.WriteFile(table.NewFilename(next+1, b.db.dir), []byte("x"), 0o600))
		b.must(b.db.b.Flatten(1))
		if after := b.count("k"); after == before {
			t.Errorf("all %d keys are there: is the ledger not needed any more?", after)
		}
		b.must(os.Remove(table.NewFilename(next+1, b.db.dir)))
		b.db.ledger.absent[next+1] = time.Now().Add(-time.Hour)
		db := b.db
		b.db = nil
		var err error
		var c *CorruptError
		if way == "Reclaim" {
			err = db.Reclaim()
			if !errors.Is(err, ErrFailed) {
				t.Errorf("Reclaim says %v, want that it failed", err)
			}
			_ = db.Close()
		} else {
			err = db.Close()
		}
		if !errors.As(err, &c) {
			t.Errorf("%s says %v, want damage", way, err)
		}
		if _, err := Open(b.o); !errors.As(err, &c) || !strings.Contains(err.Error(), filepath.Base(table.NewFilename(next+1, ""))) {
			t.Errorf("Open says %v, want which table", err)
		}
	}
}

// What Badger does in life is no loss, however long it takes.
func TestLedgerIsQuietInLife(t *testing.T) {
	b := newBench(t, Tiny)
	for range 3 {
		for i := range 5 {
			b.must(fill(b.db, "k", 60, 10000))
			if i == 3 {
				b.deleteAll("k")
			}
			b.must(b.db.Reclaim())
		}
		first := b.db.ledger.next
		b.reopen()
		if first < 20 {
			t.Errorf("%d tables: too few", first)
		}
	}
}

// The manifest is replaced now and then.
func TestLedgerFollowsTheManifest(t *testing.T) {
	b := newBench(t, Tiny)
	b.must(fill(b.db, "k", 60, 10000))
	b.must(b.db.Reclaim())
	name := b.db.ledger.manifest()
	old, err := os.ReadFile(name)
	b.must(err)
	b.close()
	var l ledger
	l.start(b.o.Dir, nil, 0)
	if lost, err := l.look(time.Now(), true); err != nil || len(lost) > 0 || l.next < 5 {
		t.Errorf("lost %v, %v, next %d", lost, err, l.next)
	}
	next := l.next
	b.must(os.WriteFile(name+".new", old[:len(old)-3], 0o600)) // not whole
	b.must(os.Rename(name+".new", name))
	if lost, err := l.look(time.Now(), true); err != nil || len(lost) > 0 || l.next != next {
		t.Errorf("lost %v, %v, next %d, was %d", lost, err, l.next, next)
	}
	l.named[next+5] = true // numbers of before mean nothing in a new one
	b.must(os.WriteFile(name+".new", old, 0o600))
	b.must(os.Rename(name+".new", name))
	if lost, err := l.look(time.Now(), true); err != nil || len(lost) > 0 || l.offset != int64(len(old)) {
		t.Errorf("lost %v, %v, read %d of %d", lost, err, l.offset, len(old))
	}
}
