package torture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A Flush says how long the disk takes to flush 4 KiB, and what that means.
type Flush struct {
	Median  float64 `json:"median_us"`
	Fastest float64 `json:"fastest_us"`
	Slowest float64 `json:"slowest_us"`
	Count   int     `json:"count"`
	Doubt   string  `json:"doubt,omitempty"` // why a flush may not reach the medium

	err error
}

// Where a flush is too fast to be true.
const (
	flushes        = 200
	fastForAny     = 30 * time.Microsecond // the fastest drives with their own power take about as long
	fastForTurning = time.Millisecond      // a platter turns 120 times a second
)

// measureFlush flushes a file that already has its place, as a journal does.
func (r *run) measureFlush() {
	r.result.Flush = MeasureFlush(r.dir)
	r.print("%s", r.result.Flush.Sentence())
}

// MeasureFlush writes and flushes 4 KiB in dir some hundred times.
func MeasureFlush(dir string) Flush {
	path := filepath.Join(dir, "flush")
	f, err := os.Create(path)
	if err != nil {
		return Flush{err: err}
	}
	took, err := timeFlushes(f)
	if err = errors.Join(err, f.Close(), os.Remove(path)); err != nil {
		return Flush{err: err}
	}
	slices.Sort(took)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	median := took[len(took)/2]
	return Flush{
		Median: us(median), Fastest: us(took[0]), Slowest: us(took[len(took)-1]), Count: len(took),
		Doubt: doubt(describe(dir), median),
	}
}

func timeFlushes(f *os.File) ([]time.Duration, error) {
	const page, pages = 4096, 64
	block := noise(nil, 1, page)
	if _, err := f.Write(noise(nil, 2, page*pages)); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	var took []time.Duration
	for i := range flushes {
		if _, err := f.WriteAt(block, int64(i%pages)*page); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := flush(f); err != nil {
			return nil, fmt.Errorf("flush: %w", err)
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// A medium is what the system says about the disk below a directory. It may
// say nothing.
type medium struct {
	memory    bool // a file system in memory
	turning   bool // a drive with platters
	noBarrier bool // mounted so that flushes do not reach the drive
}

// doubt says why a flush may not reach the medium. Nothing here is a proof:
// only a power cut is one.
func doubt(m medium, median time.Duration) string {
	switch {
	case m.memory:
		return "this file system is in memory: nothing on it survives a power cut"
	case m.noBarrier:
		return "it is mounted with nobarrier: flushes do not reach the drive. Mount it without"
	case m.turning && median < fastForTurning:
		return "no drive with platters flushes so fast: its cache, or a layer below this system, answers before the data is safe"
	case median < fastForAny:
		return "hardly a drive flushes so fast: unless it has its own power for its cache, it, or a layer below this system, may answer before the data is safe. Only a real power cut tells (--write)"
	}
	return ""
}

// Sentence is the measurement for people.
func (f Flush) Sentence() string {
	if f.err != nil {
		return "How long a flush takes could not be measured: " + f.err.Error()
	}
	if f.Count == 0 {
		return "How long a flush takes was not measured."
	}
	s := fmt.Sprintf("A flush of 4 KiB takes %.0f us here (median of %d; %.0f to %.0f).", f.Median, f.Count, f.Fastest, f.Slowest)
	if f.Doubt != "" {
		return s + " DOUBTFUL: " + f.Doubt + "."
	}
	return s + " That can be true; a kill does not prove it, a power cut would (--write)."
}
