package badger

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/godwitmq/godwit/core"
)

// mission: S8. A kill leaves such files once in some dozens of times, and the
// database does not open with one.
func TestOpenRemovesEmptyFiles(t *testing.T) {
	for _, name := range []string{"00099.mem", "000099.vlog"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, edgeProfile)
			b.appendTo(1, "a")
			if err := b.s.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(b.dir, "badger", name)
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			b.open()
			if got := b.bodies(1); got != "a" {
				t.Errorf("log 1 holds %q, want a", got)
			}
		})
	}
}

func TestOpenKeepsOtherFiles(t *testing.T) {
	dir := t.TempDir()
	for name, octets := range map[string]int{"00001.mem": 1, "MANIFEST": 0, "000001.sst": 0, "00002.mem": 0} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, octets), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeEmpty(dir, testLog(t)); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 3 {
		t.Errorf("left: %v, want all but 00002.mem", left)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	b := newBench(t, edgeProfile)
	_, err := Open(b.dir, Options{Profile: Edge})
	if err == nil || !strings.Contains(err.Error(), "process") {
		t.Errorf("the second Open said %v, want which process has it", err)
	}
	b.reopen()
}

func TestUnknownFormatIsRefused(t *testing.T) {
	b := newBench(t, edgeProfile)
	var x txn
	x.put(metaKey("format"), []byte{7})
	if err := b.s.(*store).writeAlone(&x); err != nil {
		t.Fatal(err)
	}
	if err := b.s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, err := Open(b.dir, Options{Profile: Edge})
	if err == nil || !strings.Contains(err.Error(), "format is [7], this Godwit reads 1") {
		t.Errorf("Open said %v", err)
	}
}

func TestUnknownProfileIsRefused(t *testing.T) {
	if _, err := Open(t.TempDir(), Options{Profile: "huge"}); err == nil || !strings.Contains(err.Error(), "huge") {
		t.Errorf("Open said %v", err)
	}
}

func TestWalAdviceFindsTheMapping(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it is Linux's affair")
	}
	b := newBench(t, edgeProfile)
	w := walAdvice{dir: filepath.Join(b.dir, "badger")}
	if n := w.renew(); n != 1 {
		t.Errorf("advice for %d mappings, want 1: that of the active log", n)
	}
	if n := w.renew(); n != 0 {
		t.Errorf("advice for %d mappings a second time", n)
	}
}

// flip changes one octet of a value in the database.
func (b *bench) flip(key []byte, at int) {
	b.t.Helper()
	s := b.s.(*store)
	v, err := s.get(key)
	if err != nil {
		b.t.Fatal(err)
	}
	v[at%len(v)] ^= 0x40
	var x txn
	x.put(key, v)
	if err := s.writeAlone(&x); err != nil {
		b.t.Fatal(err)
	}
}

func TestADamagedBlockIsReported(t *testing.T) {
	for at := range 60 {
		b := newBench(t, edgeProfile)
		b.appendTo(1, "first")
		b.appendTo(1, strings.Repeat("second", 20))
		b.flip(blockKey(kindBlock, 1, 1, 2), at*3)
		err := b.fetch(&core.Fetch{Log: 1})
		var corrupt *core.CorruptError
		if !errors.As(err, &corrupt) || corrupt.Log != 1 || corrupt.From != 2 || corrupt.To != 3 {
			t.Fatalf("octet %d: fetch said %v, want that log 1 is damaged from 2 to 3", at*3, err)
		}
		_ = b.s.Close(context.Background())
	}
}

func TestAMissingBlockIsReported(t *testing.T) {
	b := newBench(t, edgeProfile)
	b.appendTo(1, "a")
	var x txn
	x.del(blockKey(kindBlock, 1, 1, 1))
	if err := b.s.(*store).writeAlone(&x); err != nil {
		t.Fatal(err)
	}
	var corrupt *core.CorruptError
	if err := b.fetch(&core.Fetch{Log: 1}); !errors.As(err, &corrupt) {
		t.Errorf("fetch said %v, want damage", err)
	}
}

func TestADamagedIndexIsReportedAtOpen(t *testing.T) {
	b := newBench(t, edgeProfile)
	b.appendTo(1, "a")
	b.flip(blockKey(kindIndex, 1, 1, 1), 9)
	b.reopenStore()
	_, err := b.s.Open(context.Background(), 1)
	if _, ok := errors.AsType[*core.CorruptError](err); !ok {
		t.Errorf("open said %v, want damage", err)
	}
}

// A redo list with a seal is done again, one without is forgotten.
func TestRedoIsFinishedOrForgotten(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		b := newBench(t, edgeProfile)
		s := b.s.(*store)
		var x txn
		x.put(recordKey(1, 1, []byte("k")), []byte("new"))
		x.put(recordKey(1, 1, []byte("large")), bytes.Repeat([]byte("x"), 3*pieceBytes/2))
		x.del(recordKey(1, 1, []byte("old")))
		chunks, sum := redoChunks(x.entries)
		list := []entry{{recordKey(1, 1, []byte("old")), []byte("old")}}
		for i, c := range chunks {
			list = append(list, entry{redoKey(uint32(i)), c})
		}
		if sealed {
			list = append(list, entry{redoKey(redoSeal), sealOf(len(chunks), sum)})
		}
		if err := s.writeParts(list); err != nil {
			t.Fatal(err)
		}
		b.reopen()
		got := map[string]bool{}
		for r, err := range b.p.Scan(context.Background(), 1, nil) {
			if err != nil {
				t.Fatal(err)
			}
			got[string(r.Key)] = true
		}
		if got["k"] != sealed || got["large"] != sealed || got["old"] == sealed {
			t.Errorf("sealed %v: records %v", sealed, got)
		}
		if n := b.keys(kindRedo); n != 0 {
			t.Errorf("sealed %v: %d keys of the list are left", sealed, n)
		}
	}
}

// keys counts the keys of a kind.
func (b *bench) keys(kind byte) (n int) {
	b.t.Helper()
	err := b.s.(*store).scan([]byte{kind}, false, func([]byte, []byte) error { n++; return nil })
	if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
		b.t.Fatal(err)
	}
	return n
}

// What is settled leaves the disk, and takes all that was about it along.
func TestNothingIsLeftOfWhatIsSettled(t *testing.T) {
	tiny := edgeProfile
	tiny.blockBytes, tiny.foldDeltas = 400, 3
	b := newBench(t, tiny)
	b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}}, Sets: []core.RouteSet{{ID: 4, Members: []core.CursorID{2, 3}}}})
	var last core.Offset
	for range 30 {
		batch := &core.Batch{}
		for range 10 {
			batch.Appends = append(batch.Appends, core.Append{Log: 1, Routes: 4, Message: small("x")})
		}
		large := small("")
		large.Body = make([]byte, 2*pieceBytes)
		batch.Appends = append(batch.Appends, core.Append{Log: 1, Routes: 4, Message: large})
		b.commit(batch)
		last = batch.Appends[10].Offset
		b.commit(&core.Batch{Marks: []core.Mark{{Cursor: 2, At: last, Attempts: 1}}})
	}
	if b.keys(kindBlock) == 0 || b.keys(kindPart) == 0 || b.keys(kindMark) == 0 {
		t.Fatal("the test stores nothing")
	}
	for o := core.Offset(1); o <= last; o++ {
		acks := []core.Ack{{Cursor: 2, From: o, To: o + 1}}
		if o%7 == 0 || o == last {
			acks = append(acks, core.Ack{Cursor: 3, From: o - 6, To: o + 1})
		}
		b.commit(&core.Batch{Acks: acks})
	}
	if n := b.keys(kindMark); n > 0 {
		t.Errorf("%d delivery counts are left of what is settled", n)
	}
	b.commit(&core.Batch{Sets: []core.RouteSet{{ID: 4}}, Trims: []core.Trim{{Log: 9, Before: core.MaxOffset}}})
	b.reopen() // settles the rest of the deletions
	b.commit(&core.Batch{})
	for kind, name := range map[byte]string{kindBlock: "block", kindIndex: "index", kindPart: "piece", kindMark: "delivery count", kindSet: "set"} {
		if n := b.keys(kind); n > 0 {
			t.Errorf("%d keys of kind %s are left", n, name)
		}
	}
	if n := b.keys(kindAcks); n > tiny.foldDeltas {
		t.Errorf("%d deltas of acks are left, a fold begins at %d", n, tiny.foldDeltas)
	}
}

// A block of which the head was trimmed leaves when the rest is settled.
func TestATrimmedBlockLeavesWithItsRest(t *testing.T) {
	b := newBench(t, edgeProfile)
	batch := &core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}}}
	for range 3 {
		batch.Appends = append(batch.Appends, core.Append{Log: 1, Routes: core.Solo(2), Message: small("x")})
	}
	b.commit(batch)
	b.commit(&core.Batch{Trims: []core.Trim{{Log: 1, Before: 2}}})
	b.commit(&core.Batch{Acks: []core.Ack{{Cursor: 2, From: 2, To: 3}}})
	if n := b.keys(kindBlock); n != 1 {
		t.Fatalf("%d blocks while the third message is owed, want 1", n)
	}
	b.commit(&core.Batch{Acks: []core.Ack{{Cursor: 2, From: 3, To: 4}}})
	if n := b.keys(kindBlock); n != 0 {
		t.Errorf("%d blocks are left of what was trimmed and settled", n)
	}
}

// An ack and a seek back behind it, in one transaction: the ack is not done
// again at the next open.
func TestASeekAfterAnAckInOneTransaction(t *testing.T) {
	b := newBench(t, edgeProfile)
	b.commit(&core.Batch{
		Cursors: []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}},
		Sets:    []core.RouteSet{{ID: 4, Members: []core.CursorID{2, 3}}},
		Appends: []core.Append{{Log: 1, Routes: 4, Message: small("a")}, {Log: 1, Routes: 4, Message: small("b")}},
	})
	s := b.s.(*store)
	said := make(chan error, 2)
	s.turn.Lock() // both gather, and go as one
	for _, batch := range []*core.Batch{
		{Acks: []core.Ack{{Cursor: 2, From: 1, To: 3}}},
		{Cursors: []core.CursorOp{{ID: 2, Log: 1, At: 2}}},
	} {
		batch.Done = doneFunc(func(_ *core.Batch, err error) { said <- err })
		if err := b.p.Commit(batch); err != nil {
			t.Fatal(err)
		}
	}
	s.turn.Unlock()
	b.waitFor(said)
	b.waitFor(said)
	for range 2 {
		f := &core.Fetch{Log: 1, Cursor: 2}
		if err := b.fetch(f); err != nil {
			t.Fatal(err)
		}
		if len(f.Out) != 1 || f.Out[0].Offset != 2 {
			t.Errorf("cursor 2 owes %v, want the second message", f.Out)
		}
		b.reopen()
	}
}

// mission: S28. A write that fails confirms nothing, then or later, and what
// was confirmed before is there.
func TestAFailedWriteConfirmsNothing(t *testing.T) {
	b := newBench(t, edgeProfile)
	b.appendTo(1, "a")
	s := b.s.(*store)
	s.turn.Lock()
	s.beforeWrite = func() error { return errors.New("input/output error") }
	s.turn.Unlock()
	said := make(chan error, 2)
	done := doneFunc(func(_ *core.Batch, err error) { said <- err })
	for _, body := range []string{"b", "c"} {
		batch := &core.Batch{Wait: true, Appends: []core.Append{{Log: 1, Message: small(body)}}, Done: done}
		if err := b.p.Commit(batch); err != nil {
			said <- err // the one before has failed already
		}
	}
	for range 2 {
		if err := <-said; !errors.Is(err, core.ErrPoisoned) || !strings.Contains(err.Error(), "input/output") {
			t.Errorf("a batch was told %v, want poisoned, and why", err)
		}
	}
	s.turn.Lock()
	s.beforeWrite = nil // the disk is well again, and is not trusted
	s.turn.Unlock()
	if err := b.p.Commit(&core.Batch{Done: done}); !errors.Is(err, core.ErrPoisoned) {
		t.Errorf("a later commit said %v, want poisoned", err)
	}
	if s.Health().Err == nil {
		t.Error("Health says that all is well")
	}
	b.reopen()
	if got := b.bodies(1); got != "a" {
		t.Errorf("log 1 holds %q, want what was confirmed", got)
	}
}
