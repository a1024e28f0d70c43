package torture

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Result is what a run found: its certificate.
type Result struct {
	Verdict Verdict `json:"verdict"`

	Dir           string           `json:"dir"`
	Profile       string           `json:"profile"`
	Seed          uint64           `json:"seed"`
	Rounds        int              `json:"rounds"`            // kills, or fillings
	InRecovery    int              `json:"kills_in_recovery"` // of the kills
	Batches       int64            `json:"batches_confirmed"`
	Messages      int64            `json:"messages_confirmed"`
	Verified      int64            `json:"messages_compared"` // over all verifications
	Verifications int              `json:"verifications"`
	Faults        map[string]int64 `json:"faults"` // by kind; empty: none
	Findings      []string         `json:"findings,omitempty"`
	Flush         Flush            `json:"flush"`
	Full          *FullResult      `json:"full,omitempty"`
	Seconds       float64          `json:"seconds"`

	SlowestRecovery float64 `json:"slowest_recovery_seconds"`

	recovery, slowest time.Duration
	stopped           error
}

// A Verdict is a Result in a word.
type Verdict string

// The verdicts.
const (
	Kept   Verdict = "kept"   // all that was confirmed is there or was settled, and nothing else is wrong
	Broken Verdict = "broken" // something was lost, or is wrong
	Untold Verdict = "untold" // it ended before anything was compared
)

// A FullResult is what happened on a full disk.
type FullResult struct {
	Filled  int64  `json:"filled_bytes"`
	Free    int64  `json:"left_free_bytes"`
	Refused int64  `json:"appends_refused"`
	Settled int64  `json:"acks_confirmed_while_full"`
	Held    int64  `json:"acks_refused_while_full"` // legal: they come again, nothing is lost
	Kills   int    `json:"kills_while_full"`
	Resumed int    `json:"resumed"`
	Says    string `json:"refusal"`
}

// Print prints the verdict for people.
func (r *Result) Print(w io.Writer) {
	fmt.Fprintln(w)
	for _, f := range r.Findings {
		fmt.Fprintln(w, " ", f)
	}
	if n := r.faults(); n > int64(len(r.Findings)) {
		fmt.Fprintf(w, "  and %d more\n", n-int64(len(r.Findings)))
	}
	fmt.Fprintln(w, r.Flush.Sentence())
	if r.Full != nil {
		r.Full.print(w)
	} else if r.Rounds > 0 { // of Kill
		fmt.Fprintf(w, "%d kills, %d of them while it recovered; the slowest recovery took %.2f s.\n", r.Rounds, r.InRecovery, r.SlowestRecovery)
	}
	fmt.Fprintf(w, "%d batches with %d messages were confirmed; %d messages were compared in %d verifications.\n",
		r.Batches, r.Messages, r.Verified, r.Verifications)
	switch r.Verdict {
	case Kept:
		fmt.Fprintf(w, "KEPT: all that was confirmed is there, or was settled. 0 lost. (seed %d, %.0f s)\n", r.Seed, r.Seconds)
	case Untold:
		fmt.Fprintf(w, "UNTOLD: nothing was compared with what was confirmed. What was written is in %s. (seed %d, %.0f s)\n", r.Dir, r.Seed, r.Seconds)
	case Broken:
		fmt.Fprintf(w, "BROKEN: %s. What is left is in %s. (seed %d, %.0f s)\n", r.kinds(), r.Dir, r.Seed, r.Seconds)
	}
}

// kinds are the faults, counted: 3 lost, 1 order.
func (r *Result) kinds() string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(r.Faults)) {
		parts = append(parts, fmt.Sprintf("%d %s", r.Faults[kind], kind))
	}
	return strings.Join(parts, ", ")
}

func (r *Result) faults() (n int64) {
	for _, k := range r.Faults {
		n += k
	}
	return n
}

func (f *FullResult) print(w io.Writer) {
	fmt.Fprintf(w, "Full disk: %s were taken and %s left; %d appends were refused; meanwhile %d acks were confirmed and %d refused; killed %d times while full; resumed %d times.\n",
		bytesText(f.Filled), bytesText(f.Free), f.Refused, f.Settled, f.Held, f.Kills, f.Resumed)
	if f.Says != "" {
		fmt.Fprintf(w, "The refusal reads: %q.\n", f.Says)
	}
}

// bytesText is a size as people say it.
func bytesText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
