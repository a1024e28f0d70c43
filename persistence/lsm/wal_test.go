package lsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Badger 4.9.6: "a mapped log dirties large folios". Each log's mapping is
// found and advised on, at open and after each change of logs.
func TestTrapWriteAmplification(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it is Linux's affair")
	}
	b := newBench(t, Tiny)
	if n := b.db.Stats().Advised; n != 1 {
		t.Errorf("advice for %d mappings at open, want 1", n)
	}
	logs := map[int]bool{}
	b.db.hooks.step = func(string) { logs[b.db.wal.active] = true }
	b.must(fill(b.db, "k", 100, 20000))
	if n := b.db.Stats().Advised; n != int64(len(logs)) || n < 4 {
		t.Errorf("advice for %d mappings of %d logs", n, len(logs))
	}
	b.must(b.db.Reclaim())
	logs[b.db.wal.active] = true
	if n := b.db.Stats().Advised; n != int64(len(logs)) || n < 5 {
		t.Errorf("after a reclaim: advice for %d mappings of %d logs", n, len(logs))
	}
}

// A transaction never begins without room for all of it in a log, or in the
// next.
func TestLogsHaveRoom(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it is Linux's affair")
	}
	b := newBench(t, Tiny)
	changes, last := 0, b.db.wal.active
	b.db.hooks.step = func(step string) {
		w := &b.db.wal
		if w.active != last {
			changes, last = changes+1, w.active
		}
		if step != "commit" {
			return
		}
		octets, err := os.ReadFile(w.path(w.active))
		b.must(err)
		used := int64(len(bytes.TrimRight(octets, "\x00")))
		if used > w.used || w.used > w.room || allocated(w.path(w.active)) < w.room {
			t.Errorf("log %d: %d octets are used, we think %d; %d have room, we think %d",
				w.active, used, w.used, allocated(w.path(w.active)), w.room)
		}
	}
	w := b.db.Writer(1)
	for i := range 3000 {
		b.must(w.Put(Entry{fmt.Appendf(nil, "k%d", i), make([]byte, rand.IntN(1000))}))
		if rand.IntN(40) == 0 || i%3 == 0 && i > 2000 {
			b.must(w.Flush())
		}
	}
	if changes < 4 {
		t.Errorf("%d changes of logs: too few", changes)
	}
	b.close()
	left, _ := filepath.Glob(filepath.Join(b.o.Dir, "*.mem"))
	for _, name := range left {
		t.Errorf("%s is left", name)
	}
}

// A disk without room for a transaction is an error before anything is written,
// and no failure: the same can be tried again.
func TestNoSpaceIsNoFailure(t *testing.T) {
	b := newBench(t, Tiny)
	b.db.hooks.allocate = func(int64) error { return fmt.Errorf("%w: for a test", ErrNoSpace) }
	w := b.db.Writer(1)
	b.must(w.Put(Entry{[]byte("a"), make([]byte, 20000)}))
	if err := w.Flush(); !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrFailed) {
		t.Errorf("Flush says %v", err)
	}
	b.db.hooks.allocate = nil
	b.must(w.Finish(Mark{Checkpoint: 1}))
	b.reopen()
	if v, err := b.db.Get([]byte("a")); err != nil || len(v) != 20000 {
		t.Errorf("%d octets, %v", len(v), err)
	}
}

func TestOpenOnAFullDisk(t *testing.T) {
	b := newBench(t, Tiny)
	b.put(1, "a", "1")
	b.close()
	o := b.o
	o.hooks.freeSpace = func(string) int64 { return 1 << 20 }
	if _, err := Open(o); !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("Open says %v", err)
	}
}

// fillMe writes until the disk is full, then tries on, and prints what it was
// told.
func fillMe(dir string) {
	db, err := Open(Options{Dir: filepath.Join(dir, "db"), Sizes: Edge})
	die(err)
	w := db.Writer(1)
	put := func(i, n int) error {
		if err := w.Put(Entry{binary.BigEndian.AppendUint64(nil, uint64(i)), bytes.Repeat([]byte{byte(i) | 1}, n)}); err != nil {
			return err
		}
		return w.Flush()
	}
	die(put(0, 1000))
	fmt.Println("ready")
	// Another fills the disk.
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	die(err)
	chunk := bytes.Repeat([]byte("x"), 1<<16)
	for _, err = ballast.Write(chunk); err == nil; _, err = ballast.Write(chunk) {
	}
	for _, err = ballast.Write(chunk[:1]); err == nil; _, err = ballast.Write(chunk[:1]) {
	}
	_ = ballast.Sync()
	n := 1
	for ; n < 1000; n++ {
		if err := put(n, 50_000); err != nil {
			if !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrFailed) {
				die(err)
			}
			break
		}
	}
	fmt.Println("full after", n)
	for range 3 {
		if err := w.Flush(); !errors.Is(err, ErrNoSpace) {
			die(fmt.Errorf("a full disk says %w", err))
		}
	}
	for i := range n {
		v, err := db.Get(binary.BigEndian.AppendUint64(nil, uint64(i)))
		if err != nil || v[0] != byte(i)|1 {
			die(fmt.Errorf("key %d: %w", i, err))
		}
	}
	die(ballast.Truncate(0))
	die(ballast.Sync())
	die(w.Flush())
	for ; n < 100; n++ {
		die(put(n, 50_000))
	}
	die(db.Writer(1).Finish(Mark{Checkpoint: 1}))
	die(db.Close())
	fmt.Println("well")
}

// Badger 4.9.6: "a full disk is SIGBUS in Badger's goroutine". On a small disk
// that others fill, a log has its room before it is written.
func TestTrapFullDiskKills(t *testing.T) {
	disk := smallDisk(t, 60)
	out, err := child("full", disk).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "well\n") {
		t.Fatalf("%v: %.2000s", err, out)
	}
	t.Logf("%s", out)
}

// smallDisk mounts an ext4 of so many MB.
func smallDisk(t *testing.T, mb int) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("it takes root to mount a disk")
	}
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, int64(mb)<<20); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no small disk: %s: %v %s", c[0], err, out)
		}
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", dir).Run(); err != nil {
			_ = exec.Command("umount", "-l", dir).Run()
		}
	})
	return dir
}
