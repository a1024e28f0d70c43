package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// tables makes a directory with tables, and returns their names.
func tables(t *testing.T) (b *bench, names []string) {
	t.Helper()
	b = newBench(t, Tiny)
	w := b.db.Writer(1)
	for i := range 300 {
		b.must(w.Put(Entry{fmt.Appendf(nil, "k%04d", i), bytes.Repeat([]byte{byte(i)}, 1500)}))
	}
	b.must(w.Finish(Mark{Checkpoint: 1}))
	b.must(b.db.Reclaim()) // so that they are all in tables, and quiet
	b.close()
	names, _ = filepath.Glob(filepath.Join(b.o.Dir, "*.sst"))
	if len(names) < 2 {
		t.Fatalf("%d tables", len(names))
	}
	return b, names
}

// Badger finds nothing in a damaged block, and in none behind it in the same
// table; it dies over a table that is too short. Open says so.
func TestTrapDamagedTable(t *testing.T) {
	b, names := tables(t)
	name := names[len(names)-1]
	whole, err := os.ReadFile(name)
	b.must(err)
	t.Logf("undamaged, Badger alone: %s", bare(t, b.o.Dir))
	for say, damage := range map[string]func(b []byte) []byte{
		"a flipped octet in a block":           func(b []byte) []byte { b[5000] ^= 1; return b },
		"a flipped octet in the index":         func(b []byte) []byte { b[len(b)-100] ^= 1; return b },
		"a flipped octet in the last length":   func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"a large last length":                  func(b []byte) []byte { b[len(b)-4] = 0x7f; return b },
		"the end is missing":                   func(b []byte) []byte { return b[:len(b)/2] },
		"the end is zeros":                     func(b []byte) []byte { clear(b[len(b)-5000:]); return b },
		"a length of three octets":             func(b []byte) []byte { return b[:3] },
		"nothing":                              func(b []byte) []byte { return nil },
		"a piece of another file in its place": func(b []byte) []byte { copy(b[8192:], b[:4096]); return b },
	} {
		b.must(os.WriteFile(name, damage(bytes.Clone(whole)), 0o600))
		t.Logf("%s, Badger alone: %.100q", say, bare(t, b.o.Dir))
		b.must(os.WriteFile(name, damage(bytes.Clone(whole)), 0o600))
		_, err := Open(b.o)
		var c *CorruptError
		if !errors.As(err, &c) || !strings.Contains(err.Error(), filepath.Base(name)) || !strings.Contains(err.Error(), "godwit store repair") {
			t.Errorf("%s: Open says %v, want which table, and what to do", say, err)
		}
		b.must(os.WriteFile(name, whole, 0o600))
	}
	b.must(os.Remove(name))
	if _, err := Open(b.o); err == nil {
		t.Error("a table that is not there: Open says nothing")
	}
}

// Check finds damage while the database is open.
func TestCheck(t *testing.T) {
	b, names := tables(t)
	b.open()
	b.must(b.db.Check())
	f, err := os.OpenFile(names[len(names)-1], os.O_RDWR, 0)
	b.must(err)
	_, err = f.WriteAt([]byte("damage"), 5000)
	b.must(err)
	b.must(f.Close())
	var c *CorruptError
	if err := b.db.Check(); !errors.As(err, &c) || !strings.Contains(err.Error(), filepath.Base(names[len(names)-1])) {
		t.Errorf("Check says %v", err)
	}
}

// Of keys that the caller would miss, the blocks are not read at Open.
func TestBulkIsNotRead(t *testing.T) {
	b, _ := tables(t)
	b.open()
	all := b.db.Recovered().Checked
	b.close()
	b.o.Bulk = [][]byte{[]byte("k")}
	b.open()
	if some := b.db.Recovered().Checked; all < 450_000 || some > all/4 {
		t.Errorf("%d octets were read of all, %d without bulk", all, some)
	}
}

func TestDamagedManifest(t *testing.T) {
	b, _ := tables(t)
	name := filepath.Join(b.o.Dir, badger.ManifestFilename)
	whole, err := os.ReadFile(name)
	b.must(err)
	for _, at := range []int{0, 7, 20, len(whole) / 2} {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1
		b.must(os.WriteFile(name, damaged, 0o600))
		var c *CorruptError
		if _, err := Open(b.o); !errors.As(err, &c) || !strings.Contains(err.Error(), "MANIFEST") {
			t.Errorf("octet %d: Open says %v", at, err)
		}
	}
	b.must(os.WriteFile(name, whole, 0o600))
}

func FuzzTable(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add(bytes.Repeat([]byte{0xff}, 64), 8)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0}, 0)
	f.Fuzz(func(t *testing.T, octets []byte, _ int) {
		name := filepath.Join(t.TempDir(), "000001.sst")
		if err := os.WriteFile(name, octets, 0o600); err != nil {
			t.Fatal(err)
		}
		var buf []byte
		if _, err := checkTable(name, nil, &buf); err == nil {
			t.Errorf("%x is a table", octets)
		}
		if cap(buf) > len(octets)+8 {
			t.Errorf("%d octets were allocated for %d", cap(buf), len(octets))
		}
	})
}
