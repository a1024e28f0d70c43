package lsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fill writes so many blocks of n octets that cannot be compressed, a
// checkpoint each 16 MB.
func fill(db *DB, prefix string, blocks, n int) error {
	chacha := rand.NewChaCha8([32]byte{})
	w, c := db.Writer(db.Mark().Checkpoint+1), db.Mark().Checkpoint+1
	for i := range blocks {
		value := make([]byte, n)
		_, _ = chacha.Read(value)
		if err := w.Put(Entry{binary.BigEndian.AppendUint64([]byte(prefix), uint64(i)), value}); err != nil {
			return err
		}
		if (i+1)%((16<<20)/n) == 0 || i == blocks-1 {
			if err := w.Finish(Mark{Checkpoint: c}); err != nil {
				return err
			}
			c++
			w = db.Writer(c)
		}
	}
	return nil
}

func (b *bench) deleteAll(prefix string) {
	b.t.Helper()
	w := b.db.Writer(1)
	b.must(b.db.Scan([]byte(prefix), nil, false, func(k, _ []byte) error {
		return w.Put(Entry{Key: bytes.Clone(k)})
	}))
	b.must(w.Flush())
}

// Badger 4.9.6: "drained space stays: 1.3k deletions never fill a memtable".
func TestTrapDrainedSpaceStays(t *testing.T) {
	octets := 200 << 20
	if testing.Short() {
		octets = 60 << 20
	}
	b := newBench(t, Edge)
	b.must(fill(b.db, "k", octets/(64<<10), 64<<10))
	b.put(9, "stays", "x")
	full := b.db.Size()
	b.deleteAll("k")
	deleted := b.db.Size()
	start := time.Now()
	b.must(b.db.Reclaim())
	took := time.Since(start)
	left := b.db.Size()
	t.Logf("%d MB: size %d MB, deleted %d MB, reclaimed %.1f MB in %v", octets>>20, full>>20, deleted>>20, float64(left)/(1<<20), took)
	if full < int64(octets)*9/10 || left > 30<<20 {
		t.Errorf("size %d, %d after it was deleted, %d after the reclaim", full, deleted, left)
	}
	if got := b.all("s"); got != "stays=x" {
		t.Errorf("there is %q", got)
	}
	if s := b.db.Stats(); s.Reclaims != 1 || s.Reclaimed == 0 {
		t.Errorf("stats %+v", s)
	}
	b.reopen()
	if got := b.all("s"); got != "stays=x" || b.db.Size() > 30<<20 {
		t.Errorf("after a restart: size %d, there is %q", b.db.Size(), got)
	}
}

// Reclaim does no harm where there is nothing, and where all is live.
func TestReclaimOfWhatIsLive(t *testing.T) {
	b := newBench(t, Tiny)
	b.must(b.db.Reclaim())
	b.must(fill(b.db, "k", 100, 10000))
	before := b.all("k")
	b.must(b.db.Reclaim())
	b.must(b.db.Reclaim())
	if b.all("k") != before {
		t.Error("something is missing")
	}
	if got := b.all("\x01R"); got != "" {
		t.Errorf("the key %q is left", got)
	}
	b.reopen()
	if b.all("k") != before || b.db.Recovered().SetBack {
		t.Errorf("something is missing after a restart: %+v", b.db.Recovered())
	}
}

// Badger 4.9.6: "DropPrefix does nothing without live keys", and lost writes
// in earlier versions.
func TestTrapDropPrefix(t *testing.T) {
	b := newBench(t, Tiny)
	b.must(fill(b.db, "a", 100, 10000))
	b.must(fill(b.db, "b", 100, 10000))
	b.must(b.db.DropPrefix([]byte("c"))) // there is none
	b.deleteAll("a")
	b.must(b.db.DropPrefix([]byte("a"))) // none is live
	b.put(7, "a1", "new")
	before := b.all("b")
	b.must(b.db.DropPrefix([]byte("a"), []byte("c")))
	for range 2 {
		if got := b.all("a"); got != "" {
			t.Errorf("of what was dropped there is %.100q", got)
		}
		if b.all("b") != before {
			t.Error("something else is missing")
		}
		b.put(7, "c1", "new")
		if got := b.all("c"); got != "c1=new" {
			t.Errorf("of what was put afterwards there is %q", got)
		}
		b.reopen()
		if r := b.db.Recovered(); r.SetBack {
			t.Errorf("recovered %+v", r)
		}
	}
}

// Reads go on during a reclaim.
func TestReadsDuringAReclaim(t *testing.T) {
	b := newBench(t, Tiny)
	b.must(fill(b.db, "k", 300, 5000))
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			n := 0
			err := b.db.Scan([]byte("k"), nil, true, func(_, v []byte) error {
				if len(v) != 5000 {
					return fmt.Errorf("a value of %d octets", len(v))
				}
				n++
				return nil
			})
			if err == nil && n != 300 {
				err = fmt.Errorf("%d keys of 300", n)
			}
			if err != nil {
				stopped <- err
				return
			}
		}
	}()
	for i := range 10 {
		b.put(100, "x", fmt.Sprint(i))
		b.must(b.db.Reclaim())
	}
	close(stop)
	b.must(<-stopped)
}

// measureMe fills an edge or server database and says what memory it took.
func measureMe(dir string) {
	s, octets, block := Edge, 200<<20, 64<<10
	if os.Getenv("GODWIT_TEST_LSM_SERVER") != "" {
		s = Server
	}
	if n, err := strconv.Atoi(os.Getenv("GODWIT_TEST_LSM_MB")); err == nil {
		octets = n << 20
	}
	if n, err := strconv.Atoi(os.Getenv("GODWIT_TEST_LSM_BLOCK")); err == nil {
		block = n
	}
	for name, field := range map[string]*int64{"BASE": &s.BaseLevel, "TABLE": &s.BaseTable, "MEM": &s.MemTable} {
		if n, err := strconv.ParseInt(os.Getenv("GODWIT_TEST_LSM_"+name), 10, 64); err == nil {
			*field = n << 20
		}
	}
	if n, err := strconv.Atoi(os.Getenv("GODWIT_TEST_LSM_L0")); err == nil {
		s.L0, s.L0Stall = n, 2*n
	}
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(96 << 20)
	if s == Server {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(1 << 40)
	}
	db, err := Open(Options{Dir: dir, Sizes: s})
	die(err)
	base := written()
	start := time.Now()
	die(fill(db, "k", octets/block, block))
	took := time.Since(start)
	wrote := written() - base
	peak, now := anonymous()
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	_, after := anonymous()
	fmt.Printf("rate %.0f MB/s, amplification %.2f, anonymous peak %d now %d after GC %d MB, heap %d MB, size %d MB, advised %d\n",
		float64(octets)/1e6/took.Seconds(), float64(wrote)/float64(octets), peak, now, after, m.HeapInuse>>20, db.Size()>>20, db.Stats().Advised)
	fmt.Println("peak", peak)
	die(db.Close())
}

// anonymous is the memory of this process that is no file's, in MB: RSS at its
// peak less what mapped files hold now, and now.
func anonymous() (peak, now int) {
	b, err := os.ReadFile("/proc/self/status")
	die(err)
	field := func(name string) int {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); f[0] == name {
				kb, _ := strconv.Atoi(f[1])
				return kb >> 10
			}
		}
		return 0
	}
	return field("VmHWM:"), field("RssAnon:")
}

// written is how many octets this process has had written to disks.
func written() int64 {
	b, err := os.ReadFile("/proc/self/io")
	die(err)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}

// Badger 4.9.6: "table builders keep their buffers on the heap".
func TestTrapMemoryOfTableBuilders(t *testing.T) {
	if runtime.GOOS != "linux" || raced {
		t.Skip("it looks into /proc, and for the memory of the real thing")
	}
	cmd := child("memory", t.TempDir())
	if testing.Short() {
		cmd.Env = append(cmd.Env, "GODWIT_TEST_LSM_MB=60")
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
	var rate, amplification float64
	var peak, now, after int
	if _, err := fmt.Sscanf(string(out), "rate %f MB/s, amplification %f, anonymous peak %d now %d after GC %d MB", &rate, &amplification, &peak, &now, &after); err != nil {
		t.Fatal(err)
	}
	if now > 120 || after > 100 {
		t.Errorf("%d MB of memory, %d after a collection", now, after)
	}
	if amplification > 6 {
		t.Errorf("write amplification %.1f: is the advice not taken?", amplification)
	}
}
