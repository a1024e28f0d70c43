package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/persistence/badger"
)

// held is what a data directory holds, read to its end.
func held(t *testing.T, dir string) storeSum {
	t.Helper()
	s, err := badger.Open(dir, badger.Options{Profile: badger.Edge, NoBallast: true})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := readStore(t.Context(), s)
	if closing := s.Close(t.Context()); err != nil || closing != nil {
		t.Fatal(err, closing)
	}
	return sum
}

// says wants an exit code and a sentence.
func says(t *testing.T, want string, wantCode int, args ...string) {
	t.Helper()
	code, out, errs := godwit(t, args...)
	if code != wantCode || !strings.Contains(out+errs, want) {
		t.Errorf("godwit %s: %d, %q, %q; want %d, %q", strings.Join(args, " "), code, out, errs, wantCode, want)
	}
}

// A directory that was backed up and restored holds the same.
func TestBackupCommands(t *testing.T) {
	dir := stored(t)
	want := held(t, dir)
	at := t.TempDir()
	file, back := filepath.Join(at, "a.godwit"), filepath.Join(at, "back")
	says(t, "is whole", 0, "store", "backup", dir, file, "--profile", "edge")
	says(t, "is restored, up to commit", 0, "restore", file, back, "--profile", "edge")
	if d := cmp.Diff(want, held(t, back)); d != "" {
		t.Error("restored (-before +after):", d)
	}
	if names, _ := os.ReadDir(at); len(names) != 2 {
		t.Errorf("there are %v", names)
	}
	code, out, errs := godwit(t, "store", "backup", dir, "-", "--profile", "edge")
	if whole, err := os.ReadFile(file); err != nil || code != 0 || !strings.HasPrefix(out, string(whole[:8])) || !strings.Contains(errs, "is whole") {
		t.Errorf("to the standard output: %d, %d octets, %q", code, len(out), errs)
	}

	says(t, "is there already", 1, "store", "backup", dir, file)
	says(t, "not empty", 1, "restore", file, back)
	says(t, "no data directory", 1, "store", "backup", filepath.Join(at, "none"), file+"2")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	whole[len(whole)/2] ^= 1
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, "damaged before octet", 1, "restore", file, back+"2", "--profile", "edge")
	if err := os.WriteFile(file, whole[:len(whole)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, "cut short", 1, "restore", file, back+"2", "--profile", "edge")

	s, err := badger.Open(dir, badger.Options{Profile: badger.Edge})
	if err != nil {
		t.Fatal(err)
	}
	says(t, "stop that", 1, "store", "backup", dir, file+"2")
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(at); len(names) != 2 {
		t.Errorf("what failed left something: %v", names)
	}
}

// A backup that is killed leaves the store as it was, and no file with the
// name that was asked for.
//
// mission: S8
func TestKilledBackup(t *testing.T) {
	dir := stored(t)
	want := held(t, dir)
	killed := 0
	for range 5 {
		at := t.TempDir()
		file := filepath.Join(at, "a.godwit")
		cmd := program(t, "store", "backup", dir, file, "--profile", "edge")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(within); ; { // as soon as something is there
			if names, _ := os.ReadDir(at); len(names) > 0 || time.Now().After(end) {
				break
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if whole, err := os.ReadFile(file); err == nil { // it was faster
			back := filepath.Join(at, "back")
			if _, err := badger.Restore(t.Context(), bytes.NewReader(whole), back, badger.Options{Profile: badger.Edge}); err != nil {
				t.Error(err)
			}
		} else {
			killed++
		}
		if d := cmp.Diff(want, held(t, dir)); d != "" {
			t.Fatal("the store (-before +after):", d)
		}
	}
	t.Logf("%d of 5 were killed before they were done", killed)
}
