package lsm

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if child := children[os.Getenv(childEnv)]; child != nil {
		child(os.Getenv(childDir))
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// Children are this test binary with another task.
const childEnv, childDir = "GODWIT_TEST_LSM_CHILD", "GODWIT_TEST_LSM_DIR"

var children map[string]func(dir string)

func init() {
	children = map[string]func(dir string){"kill": killMe, "full": fillMe, "memory": measureMe, "bare": openBare}
}

// child starts this test binary with another task, for a directory.
func child(name, dir string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childEnv+"="+name, childDir+"="+dir), env...)
	return cmd
}

// die ends a child.
func die(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// bare is what Badger without us says when it opens a directory and reads all
// of it. It may leave goroutines, and may end the process.
func bare(t *testing.T, dir string) string {
	t.Helper()
	out, _ := child("bare", dir).CombinedOutput()
	return string(out)
}

func openBare(dir string) {
	db, err := badger.Open(Tiny.options(dir, nil))
	die(err)
	n := 0
	die(db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			n++
		}
		return nil
	}))
	fmt.Println("no error,", n, "keys")
	die(db.Close())
}

// A bench is a database under test.
type bench struct {
	t  *testing.T
	o  Options
	db *DB
}

func newBench(t *testing.T, s Sizes) *bench {
	t.Helper()
	b := &bench{t: t, o: Options{Dir: t.TempDir(), Sizes: s, Log: testLog(t)}}
	b.open()
	t.Cleanup(func() { b.close() })
	return b
}

func (b *bench) open() {
	b.t.Helper()
	db, err := Open(b.o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.db = db
}

func (b *bench) close() {
	b.t.Helper()
	if b.db == nil {
		return
	}
	if err := b.db.Close(); err != nil && !errors.Is(err, ErrFailed) {
		b.t.Error(err)
	}
	b.db = nil
}

func (b *bench) reopen() {
	b.t.Helper()
	b.close()
	b.open()
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// put writes one key in a transaction of its own.
func (b *bench) put(checkpoint uint64, key, value string) {
	b.t.Helper()
	w := b.db.Writer(checkpoint)
	b.must(w.Put(Entry{[]byte(key), []byte(value)}))
	b.must(w.Flush())
}

func (b *bench) finish(checkpoint uint64) {
	b.t.Helper()
	b.must(b.db.Writer(checkpoint).Finish(Mark{Checkpoint: checkpoint, Segment: uint32(checkpoint) + 100, Commit: checkpoint * 1000, Extra: []byte("x")}))
}

// all is what is there under a prefix, as text.
func (b *bench) all(prefix string) string {
	b.t.Helper()
	var s []string
	b.must(b.db.Scan([]byte(prefix), nil, true, func(k, v []byte) error {
		if !reserved(k) {
			s = append(s, string(k)+"="+string(v))
		}
		return nil
	}))
	return strings.Join(s, " ")
}

// A syncWriter leads a log into a test's.
type syncWriter struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *syncWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func testLog(t *testing.T) *slog.Logger {
	w := &syncWriter{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.b.String())
		}
	})
	return slog.New(slog.NewTextHandler(w, nil))
}

func TestWhatIsPutIsThere(t *testing.T) {
	b := newBench(t, Tiny)
	w := b.db.Writer(1)
	b.must(w.Put(Entry{[]byte("a"), []byte("1")}, Entry{[]byte("b"), []byte{}}))
	b.must(w.Put(Entry{[]byte("c"), []byte("3")}))
	if _, err := b.db.Get([]byte("a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("before Flush Get says %v, want that there is no such key", err)
	}
	b.must(w.Flush())
	b.must(w.Put(Entry{Key: []byte("c")}))
	b.must(w.Flush())
	for range 2 {
		if got := b.all(""); !strings.HasSuffix(got, "a=1 b=") {
			t.Errorf("there is %q, want a=1 b=", got)
		}
		if v, err := b.db.Get([]byte("b")); err != nil || v == nil || len(v) != 0 {
			t.Errorf("b is %v, %v, want a value of no octets", v, err)
		}
		if _, err := b.db.Get([]byte("c")); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get of a deleted key says %v", err)
		}
		b.reopen()
	}
}

func TestScan(t *testing.T) {
	b := newBench(t, Tiny)
	for _, k := range []string{"a1", "b1", "b2", "b3", "c1"} {
		b.put(1, k, "v"+k)
	}
	stop := errors.New("stop")
	for _, c := range []struct {
		say          string
		prefix, from string
		most         int
		want         string
		err          error
	}{
		{"a prefix", "b", "", 9, "b1 b2 b3", nil},
		{"from a key on", "b", "b2", 9, "b2 b3", nil},
		{"from between keys", "b", "b15", 9, "b2 b3", nil},
		{"from before the prefix", "b", "a", 9, "b1 b2 b3", nil},
		{"from behind the prefix", "b", "c", 9, "", nil},
		{"an error ends it", "b", "", 2, "b1 b2", stop},
		{"nothing there", "d", "", 9, "", nil},
	} {
		for _, values := range []bool{false, true} {
			var got []string
			err := b.db.Scan([]byte(c.prefix), []byte(c.from), values, func(k, v []byte) error {
				got = append(got, string(k))
				if values != (string(v) == "v"+string(k)) {
					t.Errorf("%s: values %v: the value is %q", c.say, values, v)
				}
				if len(got) == c.most {
					return stop
				}
				return nil
			})
			if s := strings.Join(got, " "); s != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s: %q, %v, want %q, %v", c.say, s, err, c.want, c.err)
			}
		}
	}
}

// A snapshot stays as it is.
func TestView(t *testing.T) {
	b := newBench(t, Tiny)
	b.put(1, "a", "1")
	b.must(b.db.View(func(s *Snapshot) error {
		b.put(1, "a", "2")
		b.put(1, "b", "2")
		if v, err := s.Get([]byte("a")); err != nil || string(v) != "1" {
			t.Errorf("a is %q, %v", v, err)
		}
		return s.Scan([]byte("b"), nil, false, func(k, _ []byte) error { return fmt.Errorf("there is %q", k) })
	}))
}

func TestCloseEndsReaders(t *testing.T) {
	b := newBench(t, Tiny)
	b.put(1, "a", "1")
	b.put(1, "b", "1")
	inside, closed := make(chan struct{}), make(chan error)
	go func() {
		<-inside
		closed <- b.db.Close()
	}()
	err := b.db.Scan([]byte(""), nil, false, func(k, _ []byte) error {
		if string(k) != "a" {
			return nil
		}
		close(inside)
		for b.db.reading.end() == nil {
			runtime.Gosched()
		}
		return nil
	})
	if !errors.Is(err, ErrClosed) {
		t.Errorf("the scan says %v, want closed", err)
	}
	b.must(<-closed)
	if _, err := b.db.Get([]byte("a")); !errors.Is(err, ErrClosed) {
		t.Errorf("a later Get says %v", err)
	}
	w := b.db.Writer(1)
	b.must(w.Put(Entry{[]byte("a"), nil}))
	if err := w.Flush(); !errors.Is(err, ErrClosed) {
		t.Errorf("a later Flush says %v", err)
	}
}

// What is the database's own cannot be put or dropped.
func TestReservedKeys(t *testing.T) {
	b := newBench(t, Tiny)
	for _, key := range []string{"", "!badger!x", "\xf0T", string(markerKey(1)), "\xf0Mmark1", "\xf1R", strings.Repeat("k", maxKey+1)} {
		if err := b.db.Writer(1).Put(Entry{Key: []byte(key)}); err == nil {
			t.Errorf("the key %.12q was put", key)
		}
	}
	b.put(1, "\xf0Mformat", "1")
	for _, p := range []string{"", "\xf0", "\xf0T", "\xf0M", "\xf0Mmark", "\xf1R"} {
		if err := b.db.DropPrefix([]byte(p)); err == nil {
			t.Errorf("the prefix %q was dropped", p)
		}
	}
}

// Badger 4.9.6: "a kill leaves a file of no octets, and Open fails".
func TestTrapEmptyFiles(t *testing.T) {
	b := newBench(t, Tiny)
	b.put(1, "a", "1")
	b.close()
	for name, octets := range map[string]int{"00099.mem": 0, "000099.vlog": 0, "MANIFEST-REWRITE": 5, "note.txt": 0, "000099.sst": 0} {
		b.must(os.WriteFile(filepath.Join(b.o.Dir, name), make([]byte, octets), 0o600))
	}
	if got := bare(t, b.o.Dir); !strings.Contains(got, "while opening fid") {
		t.Errorf("Badger alone says %q: is the repair not needed any more?", got)
	}
	b.must(os.WriteFile(filepath.Join(b.o.Dir, "00099.mem"), nil, 0o600)) // it had extended it
	b.open()
	if got := strings.Join(b.db.Recovered().Removed, " "); got != "00099.mem 000099.vlog MANIFEST-REWRITE" {
		t.Errorf("removed %q", got)
	}
	if _, err := os.Stat(filepath.Join(b.o.Dir, "note.txt")); err != nil {
		t.Errorf("a file that is not Badger's: %v", err)
	}
	if got := b.all("a"); got != "a=1" {
		t.Errorf("there is %q", got)
	}
}

// Badger 4.9.6: "ErrTxnTooBig". Entries of every size around the limits go
// into as many transactions as they take, or are refused before anything is
// written.
func TestTrapTransactionTooBig(t *testing.T) {
	for name, s := range map[string]Sizes{"edge": Edge, "server": Server, "tiny": Tiny} {
		b := newBench(t, s)
		most, count := b.db.limits()
		value := make([]byte, b.db.MaxEntry()+10)
		w := b.db.Writer(1)
		for d := -3; d <= 3; d++ {
			n := b.db.MaxEntry() + d
			err := w.Put(Entry{[]byte("k"), value[:n-1]})
			if d == 1 && s.ValueThreshold == int64(n) {
				continue // its value alone is just below the threshold
			}
			if want := d > 0; errors.Is(err, ErrTooLarge) != want {
				t.Errorf("%s: an entry of %d octets, MaxEntry %d: %v", name, n, b.db.MaxEntry(), err)
			}
			b.must(w.Flush())
		}
		// All the octets of a transaction, in entries of 10 + 12 + the rest.
		for d := int64(-2); d <= 2; d++ {
			var group []Entry
			left := most + d
			for left > 0 {
				n := min(left, s.ValueThreshold/2)
				if left-n < 100 {
					n = left
				}
				group = append(group, Entry{fmt.Appendf(nil, "key%07d", len(group)), value[:n-10-entryCost]})
				left -= n
			}
			err := w.Put(group...)
			if want := d > 0; errors.Is(err, ErrTooLarge) != want {
				t.Errorf("%s: a transaction of %d octets, %d at most: %v", name, most+d, most, err)
			}
			b.must(w.Flush())
		}
		for d := int64(-2); d <= 2; d++ {
			var group []Entry
			for i := range count + d {
				group = append(group, Entry{Key: fmt.Appendf(nil, "%d", i)})
			}
			err := w.Put(group...)
			if want := d > 0; errors.Is(err, ErrTooLarge) != want {
				t.Errorf("%s: a transaction of %d entries, %d at most: %v", name, count+d, count, err)
			}
			b.must(w.Flush())
		}
		b.must(b.db.failing())
		b.close()
	}
}

// Badger 4.9.6: "WriteBatch splits and is not atomic". A writer cuts only
// between groups: at no moment is one half there.
func TestTrapWriteBatchIsNotAtomic(t *testing.T) {
	b := newBench(t, Tiny)
	done := make(chan struct{})
	halves := 0
	b.db.hooks.step = func(string) {
		keys := map[string]int{}
		b.must(b.db.Scan([]byte("g"), nil, false, func(k, _ []byte) error { keys[string(k[:5])]++; return nil }))
		for _, n := range keys {
			if n != 7 {
				halves++
			}
		}
	}
	w := b.db.Writer(1)
	for g := range 200 {
		var group []Entry
		for i := range 7 {
			group = append(group, Entry{fmt.Appendf(nil, "g%04d%d", g, i), make([]byte, 300)})
		}
		b.must(w.Put(group...))
	}
	b.must(w.Flush())
	close(done)
	if n := b.db.Stats().Txns; halves > 0 || n < 10 {
		t.Errorf("%d groups were seen by halves in %d transactions", halves, n)
	}
}

// Badger 4.9.6: "after a failed msync the value can be read although Commit
// failed". So nothing is written afterwards.
func TestTrapFailedCommitPoisons(t *testing.T) {
	b := newBench(t, Tiny)
	b.put(1, "a", "1")
	b.finish(1)
	b.db.hooks.beforeCommit = func() error { return errors.New("input/output error") }
	w := b.db.Writer(2)
	b.must(w.Put(Entry{[]byte("a"), []byte("2")}))
	if err := w.Flush(); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "input/output") {
		t.Errorf("Flush says %v, want failed, and why", err)
	}
	b.db.hooks.beforeCommit = nil // the disk is well again, and is not trusted
	for name, err := range map[string]error{
		"Flush":      w.Flush(),
		"Finish":     b.db.Writer(2).Finish(Mark{Checkpoint: 2}),
		"Rewrite":    b.db.Rewrite(1, Entry{[]byte("a"), nil}),
		"DropPrefix": b.db.DropPrefix([]byte("a")),
		"Reclaim":    b.db.Reclaim(),
	} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s says %v afterwards, want failed", name, err)
		}
	}
	if _, err := b.db.Get([]byte("a")); !errors.Is(err, ErrFailed) {
		t.Errorf("Get says %v afterwards, want failed", err)
	}
	b.reopen()
	if got, m := b.all("a"), b.db.Mark(); got != "a=1" || m.Checkpoint != 1 {
		t.Errorf("there is %q, mark %d", got, m.Checkpoint)
	}
}

// Writes that are blocked by a DropPrefix were not made, and are no failure.
func TestBlockedWritesDoNotPoison(t *testing.T) {
	b := newBench(t, Tiny)
	b.db.hooks.beforeCommit = func() error { return badger.ErrBlockedWrites }
	w := b.db.Writer(1)
	b.must(w.Put(Entry{[]byte("a"), []byte("1")}))
	if err := w.Flush(); !errors.Is(err, badger.ErrBlockedWrites) || errors.Is(err, ErrFailed) {
		t.Errorf("Flush says %v", err)
	}
	b.db.hooks.beforeCommit = nil
	b.must(w.Flush())
	if got := b.all("a"); got != "a=1" {
		t.Errorf("there is %q", got)
	}
}

// Badger retries a memtable that it cannot write for ever, and a commit would
// wait for it.
func TestTrapFlushIsRetriedForEver(t *testing.T) {
	b := newBench(t, Tiny)
	badgerLog{b.db}.Errorf("error flushing memtable to disk: %v, retrying", errors.New("input/output error"))
	w := b.db.Writer(1)
	b.must(w.Put(Entry{[]byte("a"), []byte("1")}))
	if err := w.Flush(); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "input/output") {
		t.Errorf("Flush says %v", err)
	}
}

// Badger 4.9.6: "new names are not always synced". A mark is written after the
// directory is synced, and Finish returns after it is again.
func TestTrapNamesAreSyncedBeforeTheMark(t *testing.T) {
	b := newBench(t, Tiny)
	var steps []string
	b.db.hooks.step = func(s string) { steps = append(steps, s) }
	w := b.db.Writer(1)
	for i := range 40 {
		b.must(w.Put(Entry{fmt.Appendf(nil, "k%d", i), make([]byte, 20000)}))
	}
	b.must(w.Finish(Mark{Checkpoint: 1}))
	got := strings.Join(steps, " ")
	if !strings.HasSuffix(got, "commit dirsync commit mark dirsync") || b.db.Stats().DirSyncs == 0 {
		t.Errorf("steps %q, %d syncs", got, b.db.Stats().DirSyncs)
	}
	// The names of the logs that came to be meanwhile are older than the sync.
	if len(steps) < 30 || b.db.wal.active < 2 {
		t.Errorf("%d steps, log %d: too few for new files", len(steps), b.db.wal.active)
	}
}

func TestSizesAreChecked(t *testing.T) {
	for _, c := range []struct {
		say  string
		with func(*Sizes)
		want string
	}{
		{"Badger refuses one compactor", func(s *Sizes) { s.Compactors = 1 }, "2 at least"},
		{"without an index cache all indices are on the heap", func(s *Sizes) { s.IndexCache = 0 }, "heap"},
		{"values that would go to the value log", func(s *Sizes) { s.ValueThreshold = 2 << 20 }, "1 MiB at most"},
		{"a threshold above a transaction", func(s *Sizes) { s.MemTable = 1 << 20 }, "15 %"},
		{"a value log file that Badger refuses", func(s *Sizes) { s.ValueLogFile = 1000 }, "1 MiB at least"},
		{"a stall that comes before the compaction", func(s *Sizes) { s.L0Stall = s.L0 }, "want fewer"},
		{"nothing", func(s *Sizes) { s.MemTables = 0 }, "a memtable"},
	} {
		s := Edge
		c.with(&s)
		if _, err := Open(Options{Dir: t.TempDir(), Sizes: s}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Open says %v, want %q", c.say, err, c.want)
		}
	}
}

// Badger 4.9.6: "BlockCacheSize 0 with compression panics, IndexCacheSize 0
// keeps all on the heap, the next level's tables are twice as large".
func TestTrapOptions(t *testing.T) {
	for _, s := range []Sizes{Edge, Server, Tiny} {
		o := s.options("dir", nil)
		if o.Compression != 0 || o.BlockCacheSize != 0 || o.IndexCacheSize == 0 || o.TableSizeMultiplier != 1 ||
			!o.SyncWrites || o.DetectConflicts || o.MetricsEnabled || o.NumCompactors < 2 {
			t.Errorf("options %+v", o)
		}
	}
}
