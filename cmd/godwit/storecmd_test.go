package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/lsm"
)

// stored is a closed data directory with some messages in two partitions.
func stored(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := badger.Open(dir, badger.Options{Profile: badger.Edge})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		p, err := s.Open(t.Context(), core.PartitionID(i))
		if err != nil {
			t.Fatal(err)
		}
		done := make(batchDone, 1)
		for n := range 20 {
			b := &core.Batch{Wait: true, Done: done}
			if n == 0 {
				b.Cursors = []core.CursorOp{{ID: 2, Log: 1}}
			}
			m := &core.Message{Address: core.Address{VHost: "/", Exchange: core.DefaultExchange, Topic: "a"}, Body: []byte(strings.Repeat("x", 1000))}
			b.Appends = []core.Append{{Log: 1, Routes: core.Solo(2), Message: m}}
			b.Records = []core.Record{{Table: 3, Key: fmt.Appendf(nil, "queue %d", n), Value: []byte("v")}}
			if err := errors.Join(p.Commit(b), <-done); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir
}

type batchDone chan error

func (b batchDone) Committed(_ *core.Batch, err error) { b <- err }

// godwit runs a command line.
func godwit(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e strings.Builder
	code = run(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

// files are the names and contents of a directory, to see that nothing changed.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestStoreCheckASoundStore(t *testing.T) {
	dir := stored(t)
	before := files(t, dir)
	code, out, errs := godwit(t, "store", "check", dir, "--profile", "edge", "--scratch", t.TempDir())
	if code != 0 || !strings.Contains(out, "2 partitions, 2 logs, 40 messages") || !strings.Contains(out, "40 records") || !strings.HasSuffix(out, "SOUND\n") {
		t.Errorf("check = %d\n%s%s", code, out, errs)
	}
	code, out, errs = godwit(t, "store", "repair", dir, "--yes", "--profile", "edge", "--scratch", t.TempDir())
	if code != 0 || !strings.Contains(out, "The store is sound") {
		t.Errorf("repair = %d\n%s%s", code, out, errs)
	}
	after := files(t, dir)
	for name, text := range before {
		if after[name] != text {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
}

func TestStoreStats(t *testing.T) {
	dir := stored(t)
	code, out, errs := godwit(t, "store", "stats", dir, "--profile", "edge", "--json")
	var s storeStats
	if err := json.Unmarshal([]byte(out), &s); code != 0 || err != nil {
		t.Fatalf("stats = %d, %v\n%s%s", code, err, out, errs)
	}
	if len(s.Store.Partitions) != 2 || s.Store.Messages != 40 || s.Store.Records != 40 || s.Store.Partitions[1].Owed != 20 || s.Store.Bytes < 40_000 || s.Free == 0 || len(s.Files) == 0 {
		t.Errorf("%+v", s)
	}
	if code, out, _ = godwit(t, "store", "stats", dir, "--profile", "edge"); code != 0 || !strings.Contains(out, "records: queues 40") {
		t.Errorf("stats = %d\n%s", code, out)
	}
}

func TestStoreCommandsRefuse(t *testing.T) {
	dir := stored(t)
	s, err := badger.Open(dir, badger.Options{Profile: badger.Edge})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	for _, tt := range []struct {
		sentence string
		dir      string
		says     string
	}{
		{"a directory that a broker has", dir, fmt.Sprintf("process %d has", os.Getpid())},
		{"no directory", filepath.Join(dir, "none"), "no such file"},
		{"a directory of something else", t.TempDir(), "neither journal nor badger"},
	} {
		for _, verb := range []string{"check", "repair", "stats"} {
			code, _, errs := godwit(t, "store", verb, tt.dir)
			want := int(storeCantTell)
			if verb == "stats" {
				want = 1
			}
			if code != want || !strings.Contains(errs, tt.says) {
				t.Errorf("%s: %s = %d, %s; want %d, %q", tt.sentence, verb, code, errs, want, tt.says)
			}
			if left, err := os.ReadDir(tt.dir); err == nil && tt.dir != dir && len(left) > 0 {
				t.Errorf("%s: %s left %v", tt.sentence, verb, left)
			}
		}
	}
}

// Damage in a segment: named, and cut on the operator's word alone.
func TestStoreRepairsTheJournal(t *testing.T) {
	dir := stored(t)
	segments, _ := filepath.Glob(filepath.Join(dir, "journal", "*.jnl"))
	if len(segments) == 0 {
		t.Skip("this driver has no journal")
	}
	damage(t, segments)
	before := files(t, filepath.Join(dir, "journal"))
	scratch := t.TempDir()

	code, out, errs := godwit(t, "store", "check", dir, "--profile", "edge", "--scratch", scratch)
	if code != int(storeDamaged) || !strings.Contains(out, "damaged  journal/") || !strings.Contains(errs, "godwit store repair") {
		t.Errorf("check = %d\n%s%s", code, out, errs)
	}
	code, out, errs = godwit(t, "store", "repair", dir, "--profile", "edge", "--scratch", scratch)
	if code != int(storeDamaged) || !strings.Contains(out, "all from 8") || !strings.Contains(errs, "say --yes") {
		t.Errorf("repair = %d\n%s%s", code, out, errs)
	}
	for name, text := range files(t, filepath.Join(dir, "journal")) {
		if before[name] != text {
			t.Errorf("%s was changed without --yes", name)
		}
	}
	code, out, errs = godwit(t, "store", "repair", dir, "--yes", "--profile", "edge", "--scratch", scratch)
	if code != 0 || !strings.Contains(out, "journal/*.cut") || !strings.Contains(out, "The store is sound") {
		t.Errorf("repair --yes = %d\n%s%s", code, out, errs)
	}
	code, out, errs = godwit(t, "store", "check", dir, "--profile", "edge", "--scratch", scratch)
	if code != 0 || !strings.Contains(out, "that a repair has put away") || !strings.HasSuffix(out, "SOUND\n") {
		t.Errorf("check after the repair = %d\n%s%s", code, out, errs)
	}
	if left, _ := os.ReadDir(scratch); len(left) > 0 {
		t.Errorf("copies are left: %v", left)
	}
}

// damage changes an octet in the middle of what the segments hold.
func damage(t *testing.T, segments []string) {
	t.Helper()
	for _, name := range segments {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		end := len(strings.TrimRight(string(text), "\x00"))
		if end < 20_000 {
			continue
		}
		text[end/2] ^= 0x40
		if text[end/2] == 0x40 { // padding: no frame has it
			text[end/2] ^= 0x40
			at := end/2/4096*4096 + 100
			text[at] ^= 0x40
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no segment holds anything")
}

func TestWhereToCut(t *testing.T) {
	first := &journal.CorruptError{Segment: 3}
	opened := &journal.CorruptError{Segment: 5}
	for _, tt := range []struct {
		sentence string
		err      error
		want     *journal.CorruptError
	}{
		{"what the store stumbles over", fmt.Errorf("open: %w", opened), opened},
		{"damage of a queue: the first of the journal's", &core.CorruptError{}, first},
		{"damage of the database is not the journal's", &lsm.CorruptError{}, nil},
		{"no space is no damage", errors.New("no space left"), nil},
	} {
		if got := whereToCut(tt.err, first); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.sentence, got, tt.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"300": 300, "16K": 16 << 10, "5M": 5 << 20, "16G": 16 << 30, "1T": 1 << 40, "": 0, "-1": 0, "0": 0, "5X": 0, "9999999999G": 0, "5 M": 5 << 20} {
		got, err := parseSize(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("parseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for n, want := range map[int64]string{5: "5 B", 11 << 10: "11 KiB", 4 << 10: "4 KiB", 64 << 20: "64 MiB", 73<<30 + 5: "73 GiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("sizeText(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestTortureCommand(t *testing.T) {
	for _, tt := range []struct {
		sentence string
		args     []string
		says     string
	}{
		{"a disk must be named", nil, "say --data DIR"},
		{"one thing at a time", []string{"--data", "x", "--write", "--verify"}, "choose one"},
		{"a record must survive", []string{"--data", "x", "--write"}, "--record FILE on another disk, or --confirm ADDR"},
		{"not in two places", []string{"--data", "x", "--write", "--record", "a", "--confirm", "b:1"}, "--record FILE on another disk, or --confirm ADDR"},
		{"a record must be there", []string{"--data", "x", "--verify"}, "say --record FILE"},
		{"sizes are sizes", []string{"--data", "x", "--fill-most", "lots"}, "want a size"},
		{"the directory must be there", []string{"--data", filepath.Join(t.TempDir(), "none")}, "is not a directory"},
	} {
		code, _, errs := godwit(t, append([]string{"torture"}, tt.args...)...)
		if code != 2 || !strings.Contains(strings.ToLower(errs), strings.ToLower(tt.says)) {
			t.Errorf("%s: %d, %s; want 2, %q", tt.sentence, code, errs, tt.says)
		}
	}
}

// The program itself as the child.
func TestTortureAsAProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("it kills for some seconds")
	}
	dir := t.TempDir()
	out, err := program(t, "torture", "--data", dir, "--rounds", "2", "--profile", "edge", "--seed", "3", "--json").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r struct {
		Verdict  string
		Messages int64 `json:"messages_confirmed"`
	}
	if err := json.Unmarshal(out, &r); err != nil || r.Verdict != "kept" || r.Messages == 0 {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "torture")); err == nil {
		t.Error("the run's directory is left")
	}
}
