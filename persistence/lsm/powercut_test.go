package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A shot is a directory as it was after a step.
type shot struct {
	files map[string][]byte
	named map[string]bool // names that a sync of the directory has made certain
	mark  uint64          // the checkpoint whose Finish had returned
}

// shoot reads a directory. Badger goes on in the background, so it reads until
// the list of tables is the same before and after.
func shoot(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	for {
		before, _ := os.ReadFile(filepath.Join(dir, "MANIFEST"))
		files := map[string][]byte{}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err == nil {
				files[e.Name()] = b
			} else if !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if after, _ := os.ReadFile(filepath.Join(dir, "MANIFEST")); bytes.Equal(before, after) {
			return files
		}
	}
}

// A power cut at any moment leaves all that was finished, or Open tells.
// Transaction n puts a pair of keys with its number.
func TestPowerCut(t *testing.T) {
	b := newBench(t, Tiny)
	names := func(s shot) map[string]bool {
		m := map[string]bool{}
		for name := range s.files {
			m[name] = true
		}
		return m
	}
	s := shot{files: shoot(t, b.o.Dir)}
	s.named = names(s)
	shots := []shot{s}
	finished := uint64(0)
	b.db.hooks.step = func(step string) {
		s := shot{files: shoot(t, b.o.Dir), named: shots[len(shots)-1].named, mark: finished}
		if step == "dirsync" {
			s.named = names(s)
		}
		shots = append(shots, s)
	}
	for c := uint64(1); c <= 3; c++ {
		w := b.db.Writer(c)
		for range 25 {
			n := b.db.txn + 1
			b.must(w.Put(pair(n)...))
			b.must(w.Flush())
		}
		b.must(w.Finish(Mark{Checkpoint: c}))
		finished = c
	}
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	outcomes := map[string]int{}
	for range rounds {
		i := 1 + rand.IntN(len(shots)-1)
		files := cutBetween(shots[i-1], shots[i])
		dir := t.TempDir()
		for name, octets := range files {
			b.must(os.WriteFile(filepath.Join(dir, name), octets, 0o600))
		}
		outcomes[afterCut(t, dir, shots[i-1].mark)]++
		b.must(os.RemoveAll(dir))
		if t.Failed() {
			break
		}
	}
	t.Logf("%d moments: %v", len(shots), outcomes)
}

func pair(n uint64) []Entry {
	return []Entry{
		{fmt.Appendf(nil, "t%05d-a", n), bytes.Repeat([]byte{byte(n) | 1}, 20000)},
		{fmt.Appendf(nil, "t%05d-b", n), fmt.Append(nil, n)},
	}
}

// cutBetween is a directory of which the power was cut between two steps: what
// was certain at the first is there, of each sector that was written since the
// old or the new octets, and of each new log without a certain name maybe
// nothing.
func cutBetween(before, after shot) map[string][]byte {
	files := maps.Clone(before.files)
	for name, now := range after.files {
		was, there := before.files[name]
		if !strings.HasSuffix(name, ".mem") || there && len(was) != len(now) {
			continue
		}
		if !there {
			was = make([]byte, len(now))
		}
		files[name] = mix(was, now)
	}
	for name := range files {
		if strings.HasSuffix(name, ".mem") && !before.named[name] && rand.IntN(2) == 0 {
			if rand.IntN(2) == 0 {
				files[name] = nil
			} else {
				delete(files, name)
			}
		}
	}
	return files
}

// mix takes each sector from one or the other; now and then all of one.
func mix(was, now []byte) []byte {
	out := bytes.Clone(was)
	of := rand.IntN(5)
	for at := 0; at < len(out); at += 512 {
		if end := min(at+512, len(out)); rand.IntN(4) < of {
			copy(out[at:end], now[at:end])
		}
	}
	return out
}

// afterCut opens what a power cut left, twice.
func afterCut(t *testing.T, dir string, finished uint64) string {
	t.Helper()
	outcome := ""
	for range 2 {
		db, err := Open(Options{Dir: dir, Sizes: Tiny, Log: testLog(t)})
		if err != nil {
			t.Fatalf("checkpoint %d was finished: %v", finished, err)
		}
		if err := consistent(db, finished); err != nil {
			t.Errorf("recovered %+v: %v", db.Recovered(), err)
		}
		if r := db.Recovered(); outcome == "" && r.SetBack {
			outcome = "with a hole"
		} else if r.SetBack {
			t.Errorf("set back a second time: %+v", r)
		} else if outcome == "" {
			outcome = "whole"
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return outcome
}

// consistent compares marks, markers and pairs.
func consistent(db *DB, finished uint64) error {
	m := db.Mark()
	if m.Checkpoint < finished {
		return fmt.Errorf("checkpoint %d was finished, the mark is %d", finished, m.Checkpoint)
	}
	markers, err := db.readMarkers()
	if err != nil {
		return err
	}
	for _, k := range markers {
		if k.txn <= m.Txn && k.kind == kindLost {
			return fmt.Errorf("transaction %d is lost, the mark says that it is there", k.txn)
		}
		for _, e := range pair(k.txn) {
			v, err := db.Get(e.Key)
			if want := k.kind == kindCheckpoint; want != (err == nil) || want && !bytes.Equal(v, e.Value) {
				return fmt.Errorf("transaction %d of kind %d: %s is %.10q, %w", k.txn, k.kind, e.Key, v, err)
			}
		}
	}
	n := 0
	err = db.Scan([]byte("t"), nil, false, func([]byte, []byte) error { n++; return nil })
	for _, k := range markers {
		if k.kind == kindCheckpoint {
			n -= 2
		}
	}
	if n != 0 {
		return fmt.Errorf("%d halves of pairs without a marker", n)
	}
	return err
}
