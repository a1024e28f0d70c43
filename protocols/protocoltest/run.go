package protocoltest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/coretest"
	"github.com/godwitmq/godwit/protocols"
)

// Options say what transcripts are played against.
type Options struct {
	// Protocols are the adapters by their first word: mqtt, stomp, line.
	Protocols map[string]protocols.Protocol
	// NewDisk makes an empty disk for a run. Nil: there is no broker, and
	// the adapters are given nil.
	NewDisk func() coretest.Disk
	Guard   core.Guard // nil: core's own
	Wire    *Wire      // over sockets: scripts that need the clock or the power are left out
	Split   bool       // each input goes in one byte at a time
	Update  bool       // of Run: rewrite what is expected. Read the diff
}

// Run plays each *.txt of a directory as a subtest; then, with Split, again
// one byte at a time.
func Run(t *testing.T, dir string, o Options) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no transcripts (%v)", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runFile(t, file, o) })
	}
}

func runFile(t *testing.T, file string, o Options) {
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if o.Update {
		update(t, file, src, o)
		return
	}
	s, err := parse(file, src)
	if err != nil {
		t.Fatal(err)
	}
	if o.Wire != nil && !s.wirable() {
		t.Skip("needs a hand on the clock, the power or the buffers")
	}
	whole := o
	whole.Split = false
	for _, values := range s.plays() {
		name := s.title(values)
		if name == "" {
			name = "whole"
		}
		t.Run(name, func(t *testing.T) {
			if _, err := play(s, values, whole); err != nil {
				t.Error(err)
			} else if o.Split {
				if _, err := play(s, values, o); err != nil {
					t.Errorf("one byte at a time: %v", err)
				}
			}
		})
	}
}

// Pending plays transcripts that show faults not mended yet: one that fails is
// skipped with its failure, one that passes asks to be moved.
func Pending(t *testing.T, dir string, o Options) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*.txt"))
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := Play(file, src, o); err != nil {
				t.Skipf("not mended yet: %v", err)
			}
			t.Logf("%s passes: move it to the others", file)
		})
	}
}

// Play plays one transcript, once per value of its each-variables. Its errors
// are joined; those of steps that did not come true are *Failure.
func Play(name string, src []byte, o Options) error {
	s, err := parse(name, src)
	if err != nil {
		return err
	}
	var all []error
	for _, values := range s.plays() {
		if _, err := play(s, values, o); err != nil {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// update rewrites the lines of a file that did not come true.
func update(t *testing.T, file string, src []byte, o Options) {
	fresh, err := rewrite(file, src, o)
	if err != nil {
		t.Fatal(err)
	}
	if string(fresh) == string(src) {
		return
	}
	t.Logf("%s: rewritten, read the diff", file)
	if err := os.WriteFile(file, fresh, 0o644); err != nil {
		t.Fatal(err)
	}
}

// rewrite plays a transcript and gives back what would have come true. An
// answer that did not come loses its line.
func rewrite(name string, src []byte, o Options) ([]byte, error) {
	s, err := parse(name, src)
	if err != nil {
		return nil, err
	}
	if len(s.each) > 0 {
		return src, nil // one line speaks for several runs: only a person can say
	}
	o.Update, o.Split = true, false
	w, err := play(s, map[string]string{}, o)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	for i, line := range s.lines {
		edit, edited := w.edits[i+1]
		switch {
		case !edited:
			out.WriteString(line + "\n")
		case edit != "":
			out.WriteString(edit + "\n")
		}
	}
	return []byte(out.String()), nil
}
