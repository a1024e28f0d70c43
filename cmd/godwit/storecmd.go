package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func newStoreCommand() *cobra.Command {
	c := &cobra.Command{Use: "store", Short: "Look into a data directory, repair one, and back one up", Args: cobra.NoArgs}
	c.AddCommand(newStoreCheckCommand(), newStoreRepairCommand(), newStoreStatsCommand(), newStoreBackupCommand())
	return c
}

// A storeVerdict is what is known about a data directory: the exit code.
type storeVerdict int

// The verdicts. What is worse is said where both hold.
const (
	storeSound    storeVerdict = iota // all of it was read
	storeDamaged                      // something is not what was written
	storeCantTell                     // not all of it was read
)

var storeVerdictNames = [...]string{"sound", "damaged", "cannot tell"}

func (v storeVerdict) String() string { return storeVerdictNames[v] }

// MarshalText is the verdict in JSON.
func (v storeVerdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// A storeFinding is one line of a check.
type storeFinding struct {
	Kind string `json:"kind"` // ok, note, damaged, unread
	What string `json:"what"` // a file or a part of the store
	Text string `json:"text"`
}

const (
	kindOK      = "ok"
	kindNote    = "note"
	kindDamaged = "damaged"
	kindUnread  = "unread" // it was not read, or not understood
)

// A storeReport is what a check found.
type storeReport struct {
	Dir      string         `json:"dir"`
	Verdict  storeVerdict   `json:"verdict"`
	Findings []storeFinding `json:"findings"`

	lines io.Writer // each finding at once; nil: nobody reads
}

func (r *storeReport) add(kind, what, format string, args ...any) {
	f := storeFinding{kind, what, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")}
	r.Findings = append(r.Findings, f)
	if r.lines != nil {
		fmt.Fprintf(r.lines, "%-8s %-28s %s\n", f.Kind, f.What, f.Text)
	}
}

// has says whether there is a finding of that kind.
func (r *storeReport) has(kind string) bool {
	for _, f := range r.Findings {
		if f.Kind == kind {
			return true
		}
	}
	return false
}

// judge makes the verdict of the findings.
func (r *storeReport) judge() {
	switch {
	case r.has(kindDamaged):
		r.Verdict = storeDamaged
	case r.has(kindUnread):
		r.Verdict = storeCantTell
	default:
		r.Verdict = storeSound
	}
}

// exit is the error with the verdict's exit code.
func (r *storeReport) exit() error {
	switch r.Verdict {
	case storeDamaged:
		return &exitError{int(storeDamaged), fmt.Errorf("%s is damaged: restore a backup, or see what a repair would give up: godwit store repair %s", r.Dir, r.Dir)}
	case storeCantTell:
		return &exitError{int(storeCantTell), fmt.Errorf("not all of %s was read: see the lines with %q", r.Dir, kindUnread)}
	case storeSound:
	}
	return nil
}

// isStore says whether dir is a data directory; nothing is made of one that is
// not.
func isStore(dir string) error {
	for _, part := range []string{"journal", "badger"} {
		if st, err := os.Stat(filepath.Join(dir, part)); err == nil && st.IsDir() {
			return nil
		}
	}
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("no data directory: %w", err)
	}
	return fmt.Errorf("%s is not a data directory: it has neither journal nor badger in it", dir)
}

// lockStore is lockDir for a tool that must be alone.
func lockStore(dir string) (release func(), err error) {
	if err := isStore(dir); err != nil {
		return nil, &exitError{int(storeCantTell), err}
	}
	release, err = lockDir(dir)
	if err != nil {
		return nil, &exitError{int(storeCantTell), err}
	}
	return release, nil
}

// printJSON prints a result for programs.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// storeExits is the paragraph on exit codes.
const storeExits = "Exit code 0: sound. 1: damaged. 2: it cannot be told; the lines say what was not read."

// sizeText is a size as people say it.
func sizeText(n int64) string {
	for _, u := range []struct {
		unit int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= 10*u.unit || (n >= u.unit && n%u.unit == 0) {
			return fmt.Sprintf("%d %s", n/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// errNotYes is the end of a repair that was only shown.
var errNotYes = errors.New("nothing was changed: say --yes to do it")
