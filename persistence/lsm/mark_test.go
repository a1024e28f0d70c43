package lsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var updateFormat = flag.Bool("update-format", false, "write the golden files of today's formats")

func TestMarkIsKept(t *testing.T) {
	b := newBench(t, Tiny)
	if m := b.db.Mark(); m.Txn != 0 || m.Checkpoint != 0 {
		t.Errorf("a new database has the mark %+v", m)
	}
	for c := uint64(1); c < 6; c++ {
		b.put(c, "k", fmt.Sprint(c))
		b.finish(c)
		b.put(c+1, "k", "unfinished")
		for range 2 {
			m := b.db.Mark()
			want := Mark{Checkpoint: c, Segment: uint32(c) + 100, Commit: c * 1000, Txn: m.Txn, Extra: []byte("x")}
			if diff := cmp.Diff(want, m); diff != "" || m.Txn != 3*c-1 {
				t.Errorf("checkpoint %d: mark %+v: %s", c, m, diff)
			}
			b.reopen()
		}
		if r := b.db.Recovered(); r.SetBack || r.Lost > 0 || r.Txns != 3*c || r.Checkpoint != c+1 {
			t.Errorf("checkpoint %d: recovered %+v", c, r)
		}
	}
}

func TestAMarkThatIsTooLarge(t *testing.T) {
	b := newBench(t, Edge)
	b.must(b.db.Writer(1).Finish(Mark{Checkpoint: 1, Extra: make([]byte, maxExtra)}))
	if err := b.db.Writer(2).Finish(Mark{Extra: make([]byte, maxExtra+1)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Finish says %v", err)
	}
	b.reopen()
	if n := len(b.db.Mark().Extra); n != maxExtra {
		t.Errorf("%d octets came back", n)
	}
}

func TestGoldenMark(t *testing.T) {
	m := stored{Mark{Checkpoint: 7, Segment: 300, Commit: 1 << 40, Txn: 9000, Extra: []byte("extra")}, 8000}
	name := filepath.Join("testdata", "mark_v1.hex")
	if *updateFormat {
		if err := os.WriteFile(name, []byte(hex.EncodeToString(encodeMark(m))+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	golden, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeMark(golden)
	if diff := cmp.Diff(m, got, cmp.AllowUnexported(stored{})); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for n := range golden[:len(golden)-5] {
		if _, err := decodeMark(golden[:n]); err == nil {
			t.Errorf("the first %d octets are read as a mark", n)
		}
	}
	golden[0] = 9
	if _, err := decodeMark(golden); err == nil || !strings.Contains(err.Error(), "version 9, this Godwit reads 1") {
		t.Errorf("another version: %v", err)
	}
}

func FuzzMark(f *testing.F) {
	f.Add(encodeMark(stored{Mark{Checkpoint: 7, Segment: 300, Commit: 1 << 40, Txn: 9000, Extra: []byte("extra")}, 8000}))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMark(b)
		if err != nil {
			return
		}
		again, err := decodeMark(encodeMark(m))
		if diff := cmp.Diff(m, again, cmp.AllowUnexported(stored{})); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

// markers writes a row of the table below: a letter is a transaction's kind,
// a point one that is missing.
func markersOf(row string) (markers []marker) {
	kinds := map[rune]byte{'c': kindCheckpoint, 'r': kindRewrite, 'm': kindMark, 'h': kindHouse, 'l': kindLost}
	for i, k := range row {
		if k != '.' {
			markers = append(markers, marker{txn: uint64(i) + 1, kind: kinds[k]})
		}
	}
	return markers
}

// marks is a set of the last two marks, by their transactions.
func marksOf(before, previous, newest uint64) markSet {
	return markSet{newest: stored{Mark{Txn: newest}, before}, previous: stored{Mark{Txn: previous}, 0}}
}

// R1: the markers are contiguous and reach the mark, or the mark is set back.
func TestJudge(t *testing.T) {
	const window = 100
	for _, c := range []struct {
		say     string
		markers string
		marks   markSet
		holes   []span
		back    bool
		why     string
	}{
		{"a new database", "", marksOf(0, 0, 0), nil, false, ""},
		{"no checkpoint is finished", "cc", marksOf(0, 0, 0), nil, false, ""},
		{"all is there", "cmccmcc", marksOf(2, 2, 5), nil, false, ""},
		{"rewrites are no harm where nothing is missing", "cmrcmrc", marksOf(2, 2, 5), nil, false, ""},
		{"a hole behind the mark: what follows is unfinished", "cmccmc..cc", marksOf(2, 2, 5), []span{{7, 9}}, false, ""},
		{"a hole right behind the mark", "cmccm.c", marksOf(2, 2, 5), []span{{6, 7}}, false, ""},
		{"a hole before the first mark", "c.ccm", marksOf(0, 0, 5), []span{{2, 3}}, true, ""},
		{"the very first is missing", ".cccm", marksOf(0, 0, 5), []span{{1, 2}}, true, ""},
		{"a hole between the marks", "cmc.mc", marksOf(2, 2, 5), []span{{4, 5}}, true, ""},
		{"several holes", "cmc.c.mc..c", marksOf(2, 2, 7), []span{{4, 5}, {6, 7}, {9, 11}}, true, ""},
		{"a rewrite before the hole stays", "cmrc.cm", marksOf(2, 2, 7), []span{{5, 6}}, true, ""},
		{"a rewrite behind the hole moved what is missing", "cmc.mr", marksOf(2, 2, 5), nil, false, "moved data"},
		{"also if the mark is before", "cmccm.cr", marksOf(2, 2, 5), nil, false, "moved data"},
		{"a hole before both marks", "c.cmccm", marksOf(4, 4, 7), nil, false, "two checkpoints"},
		{"the previous mark is in the hole, so an older one is in its place", "cmc..cmc", marksOf(5, 2, 7), nil, false, "two checkpoints"},
		{"the previous mark was set back to, its own previous is gone", "c.cmc", marksOf(2, 0, 4), nil, false, "two checkpoints"},
		{"a mark without its transaction", "cm", marksOf(2, 2, 5), nil, false, "last that is there is 2"},
		{"a hole that was healed", "cmcllmhc", marksOf(2, 2, 6), nil, false, ""},
	} {
		v, err := judge(markersOf(c.markers), c.marks, window)
		if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", c.say, err, c.why)
		}
		if err != nil {
			continue
		}
		if diff := cmp.Diff(c.holes, v.holes, cmp.AllowUnexported(span{})); diff != "" || v.back != c.back || v.last != uint64(len(c.markers)) {
			t.Errorf("%s: %+v: %s", c.say, v, diff)
		}
	}
}

func TestJudgeWithinTheWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		last := rapid.Uint64Range(1, 60).Draw(t, "last")
		window := rapid.Uint64Range(1, 30).Draw(t, "window")
		missing := rapid.SliceOfN(rapid.Uint64Range(1, last), 0, 5).Draw(t, "missing")
		gone := map[uint64]bool{}
		for _, n := range missing {
			gone[n] = n != last // without the last it would be an earlier moment
		}
		var markers []marker
		want := 0
		for n := uint64(1); n <= last; n++ {
			if !gone[n] {
				markers = append(markers, marker{txn: n, kind: kindCheckpoint})
			} else if n+window > last {
				want++
			}
		}
		got := 0
		for _, h := range holes(markers, last, window) {
			for n := h.from; n < h.to; n++ {
				got++
				if !gone[n] {
					t.Errorf("%d is said to be missing", n)
				}
			}
		}
		if got != want {
			t.Errorf("%d missing, want %d", got, want)
		}
	})
}

// Markers are kept for a window and no longer.
func TestMarkersLeave(t *testing.T) {
	b := newBench(t, Tiny)
	b.close()
	b.o.window = 10
	b.open()
	for i := range 35 {
		b.put(1, "k", fmt.Sprint(i))
	}
	b.reopen()
	markers, err := b.db.readMarkers()
	if err != nil || len(markers) != 10 || markers[0].txn != 26 || markers[9].txn != 35 {
		t.Errorf("%v, %v", markers, err)
	}
	// One whose deletion was lost leaves at the next open.
	b.must(b.db.write([]Entry{{markerKey(3), markerValue(kindCheckpoint, 1)}}))
	b.reopen()
	if markers, err = b.db.readMarkers(); err != nil || len(markers) != 10 || markers[0].txn != 27 {
		t.Errorf("%v, %v", markers, err)
	}
}

// holed makes a directory with three checkpoints of several transactions each,
// in several logs, as if Badger had been too slow to make tables of them.
func holed(t *testing.T, rewrite int) (dir string, states map[uint64]string) {
	t.Helper()
	b := newBench(t, Tiny)
	dir = t.TempDir()
	copyDir(t, b.o.Dir, dir)
	b.db.hooks.step = func(step string) {
		if step == "commit" {
			copyFile(t, b.db.wal.path(b.db.wal.active), dir)
		}
	}
	states = map[uint64]string{0: ""}
	n := 0
	for c := uint64(1); c <= 3; c++ {
		for range 12 {
			n++
			if n == rewrite {
				b.must(b.db.Rewrite(c-1, Entry{[]byte("rewritten"), []byte("x")}))
			}
			w := b.db.Writer(c)
			b.must(w.Put(Entry{fmt.Appendf(nil, "k%03d", n), append(fmt.Appendf(nil, "%d,", c), make([]byte, 20000)...)}, Entry{[]byte("same"), fmt.Append(nil, c)}))
			b.must(w.Flush())
		}
		b.finish(c)
		states[c] = finished(b.db, c)
	}
	return dir, states
}

// finished are the keys that checkpoints up to c wrote.
func finished(db *DB, c uint64) string {
	var s []string
	_ = db.Scan([]byte("k"), nil, true, func(k, v []byte) error {
		n, _, _ := bytes.Cut(v, []byte(","))
		if string(n) <= fmt.Sprint(c) {
			s = append(s, string(k))
		}
		return nil
	})
	return strings.Join(s, " ")
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		copyFile(t, filepath.Join(from, f.Name()), to)
	}
}

// copyFile copies a file, unless Badger has removed it meanwhile.
func copyFile(t *testing.T, name, dir string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Badger 4.9.6: "one flipped octet in a WAL drops all after it, and Open
// reports nil". R1 tells: either all that the mark names is there, or Open says
// what to do.
func TestTrapDamagedLog(t *testing.T) {
	step := 9001
	if testing.Short() {
		step = 23003
	}
	for _, rewrite := range []int{0, 9} {
		dir, states := holed(t, rewrite)
		logs, _ := filepath.Glob(filepath.Join(dir, "*.mem"))
		if len(logs) < 3 {
			t.Fatalf("%d logs, too few for holes", len(logs))
		}
		outcomes := map[string]int{}
		for _, log := range logs {
			whole, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			end := len(bytes.TrimRight(whole, "\x00"))
			for at := 20; at < end; at += step {
				damaged := t.TempDir()
				copyDir(t, dir, damaged)
				octets := bytes.Clone(whole)
				octets[at] ^= 0x10
				if err := os.WriteFile(filepath.Join(damaged, filepath.Base(log)), octets, 0o600); err != nil {
					t.Fatal(err)
				}
				outcomes[reopened(t, damaged, states)]++
			}
		}
		t.Logf("rewrite %d, %d logs: %v", rewrite, len(logs), outcomes)
		if outcomes["set back"] == 0 || outcomes["earlier"] == 0 || outcomes["corrupt"] == 0 {
			t.Errorf("rewrite %d: not all kinds of damage were met: %v", rewrite, outcomes)
		}
	}
}

// reopened opens a damaged directory and says how it ended; twice, as the first
// open repairs.
func reopened(t *testing.T, dir string, states map[uint64]string) string {
	t.Helper()
	outcome := ""
	for range 2 {
		db, err := Open(Options{Dir: dir, Sizes: Tiny, Log: testLog(t)})
		if _, ok := errors.AsType[*CorruptError](err); ok {
			return "corrupt"
		}
		if err != nil {
			t.Fatal(err)
		}
		m, r := db.Mark(), db.Recovered()
		if got := finished(db, m.Checkpoint); got != states[m.Checkpoint] {
			t.Errorf("mark %d, recovered %+v: there is %s, want %s", m.Checkpoint, r, got, states[m.Checkpoint])
		}
		switch {
		case outcome != "" && r.SetBack:
			t.Errorf("set back a second time: %+v", r)
		case outcome != "":
		case r.SetBack:
			outcome = "set back"
		case m.Checkpoint < 3:
			outcome = "earlier"
		default:
			outcome = "all there"
		}
		w := db.Writer(r.Checkpoint + 1)
		if err := errors.Join(w.Put(Entry{[]byte("later"), []byte("1")}), w.Flush(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return outcome
}
