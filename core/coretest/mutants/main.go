// Mutants plants known bugs into copies of core and expects the simulation to
// see each of them: a simulation that passes whatever one does proves nothing.
//
// Each file of testdata holds one bug:
//
//	# what it breaks
//	file core/commit.go
//	--- old
//	the text as it stands, once
//	--- new
//	the text with the bug
//
// Run it from the project's root: go run ./core/coretest/mutants
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	seeds := flag.Int("seeds", 400, "histories to try")
	only := flag.String("only", "", "one mutant's name")
	flag.Parse()
	files, _ := filepath.Glob("core/coretest/mutants/testdata/*.txt")
	if len(files) == 0 {
		fail("no mutants found: run this from the project's root")
	}
	survived := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		if *only != "" && *only != name {
			continue
		}
		began := time.Now()
		if err := try(file, *seeds); err != nil {
			survived++
			fmt.Printf("%-32s SURVIVED: %v\n", name, err)
			continue
		}
		fmt.Printf("%-32s killed  %5.1fs\n", name, time.Since(began).Seconds())
	}
	if survived > 0 {
		fail("%d mutants survived: the simulation does not see them", survived)
	}
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// try returns nil if the simulation fails, as it should.
func try(file string, seeds int) error {
	m, err := read(file)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a leftover in the temporary folder harms nobody
	for _, part := range []string{"go.mod", "go.sum", "core", "persistence"} {
		if err := copyInto(dir, part); err != nil {
			return err
		}
	}
	if err := m.plant(dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	test := exec.CommandContext(ctx, "go", "test", "./core", "-run", "TestSimulate$", "-args", "-seeds", fmt.Sprint(seeds))
	test.Dir = dir
	out, err := test.CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("%s", m.what)
	case strings.Contains(string(out), "[build failed]"), strings.Contains(string(out), "[setup failed]"):
		return fmt.Errorf("it does not build: %s", out)
	}
	return nil
}

type mutant struct{ what, file, old, new string }

func read(file string) (m mutant, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	head, rest, ok := strings.Cut(string(b), "--- old\n")
	m.old, m.new, _ = strings.Cut(rest, "--- new\n")
	if !ok {
		return m, fmt.Errorf("%s: no \"--- old\"", file)
	}
	for line := range strings.SplitSeq(head, "\n") {
		if what, ok := strings.CutPrefix(line, "# "); ok {
			m.what = what
		}
		if name, ok := strings.CutPrefix(line, "file "); ok {
			m.file = name
		}
	}
	return m, nil
}

func (m *mutant) plant(dir string) error {
	path := filepath.Join(dir, m.file)
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := strings.Count(string(b), m.old); n != 1 {
		return fmt.Errorf("its old text stands %d times in %s, want once", n, m.file)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(b), m.old, m.new, 1)), 0o644)
}

// copyInto copies a file, or the Go files below a folder.
func copyInto(dir, part string) error {
	return filepath.WalkDir(part, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
}
