package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/godwitmq/godwit/core"
)

// Options of a run. Dir, Self and Out are needed.
type Options struct {
	// Dir is a directory on the disk that is tried. The run works in its
	// subdirectory "torture", which must not be there.
	Dir string
	// Rounds is how often the store is killed, or the disk filled.
	Rounds int
	// Seed decides what is written and when to kill.
	Seed uint64
	// Profile is the driver's.
	Profile string
	// Self makes the command of a child: this program, doing that job, which
	// calls RunChild.
	Self func(job string) *exec.Cmd
	// Out is told how it goes; a line a round.
	Out io.Writer
	// Keep leaves the directory after a run without faults. One with faults
	// always stays.
	Keep bool
	// FillMost is how many bytes Fill may take from the disk; 0: 16 GiB.
	FillMost int64

	longest  time.Duration // tests: of a life; 1.5 s
	patience time.Duration // tests: until a child hangs; 2 minutes
}

const (
	longestLife = 1500 * time.Millisecond
	patience    = 2 * time.Minute
	earlyKills  = 4 // one kill in so many comes before the child has opened
)

// histPart is the partition of a number.
func histPart(i int) core.PartitionID { return core.PartitionID(i) }

// A run is one torture of one directory.
type run struct {
	Options
	dir    string // the store's
	told   *told
	random *rand.Rand
	result Result
	began  time.Time
	ended  bool // the last life has compared all
}

// newRun refuses a directory that a broker has, and one that is left.
func newRun(o Options) (*run, error) {
	o.Dir = filepath.Clean(o.Dir)
	if o.longest == 0 {
		o.longest = longestLife
	}
	if o.patience == 0 {
		o.patience = patience
	}
	if st, err := os.Stat(o.Dir); err != nil || !st.IsDir() {
		return nil, errors.Join(fmt.Errorf("%s is not a directory: name one on the disk that is to be tried", o.Dir), err)
	}
	if err := refuseBroker(o.Dir); err != nil {
		return nil, err
	}
	r := &run{
		Options: o, dir: filepath.Join(o.Dir, "torture"), told: newTold(o.Seed),
		random: rand.New(rand.NewPCG(o.Seed, 1)), began: time.Now(),
	}
	r.result = Result{Dir: r.dir, Profile: o.Profile, Seed: o.Seed}
	return r, nil
}

// make makes the directory, which must not be there.
func (r *run) make() error {
	err := os.Mkdir(r.dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is what an earlier run left: look at it, then remove it", r.dir)
	}
	return err
}

func (r *run) print(format string, args ...any) { fmt.Fprintf(r.Out, format+"\n", args...) }

// Kill kills a writing store again and again, and compares what is there with
// what was confirmed. An error means that the run could not be done; faults
// are in the Result. ctx ends it after the round that runs.
func Kill(ctx context.Context, o Options) (Result, error) {
	r, err := newRun(o)
	if err != nil {
		return Result{}, err
	}
	if err := r.make(); err != nil {
		return Result{}, err
	}
	r.measureFlush()
	r.print("killing %d times with seed %d; a line is a life of the store", r.Rounds, r.Seed)
	for n := 1; n <= r.Rounds && ctx.Err() == nil; n++ {
		if err := r.round(ctx, n); err != nil {
			return r.finish(), err
		}
		r.result.Rounds = n
	}
	return r.lastLife(doVerify)
}

func (r *run) job(do string) job {
	return job{Do: do, Dir: r.dir, Profile: r.Profile, Seed: r.Seed}
}

// round lets a child live for a while and kills it.
func (r *run) round(ctx context.Context, n int) error {
	p, err := start(r.Self, r.job(doWrite), r.told)
	if err != nil {
		return err
	}
	before := r.confirmedMessages()
	began := time.Now()
	early := n > 1 && r.random.IntN(earlyKills) == 0
	if early { // somewhere in its recovery, if that takes as long as the last
		r.waitUntil(ctx, p, time.Duration(r.random.Int64N(int64(r.result.recovery)+int64(20*time.Millisecond))), nil)
	} else {
		if !r.waitUntil(ctx, p, r.patience, func(t *told) bool { return t.written }) && ctx.Err() == nil {
			r.notWritten(p)
			return r.stopped()
		}
		r.waitUntil(ctx, p, time.Duration(r.random.Int64N(int64(r.longest))), nil)
	}
	if !p.kill() {
		r.endedByItself(p)
	}
	r.note(n, early, time.Since(began), before)
	return r.stopped()
}

// waitUntil returns when what is waited for has happened, and says so; else
// false, when the child or ctx has ended or the time is up.
func (r *run) waitUntil(ctx context.Context, p *process, within time.Duration, happened func(*told) bool) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		var moved <-chan struct{}
		if happened != nil {
			if r.told.look(func(t *told) bool { moved = t.moved; return happened(t) }) {
				return true
			}
		}
		select {
		case <-moved:
		case <-p.ended:
			return happened != nil && r.told.look(happened)
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// notWritten says why a child does not begin to write.
func (r *run) notWritten(p *process) {
	select {
	case <-p.ended:
		r.endedByItself(p)
	default:
		r.told.fault(hung, "the store did not open and read within %v", r.patience)
		p.kill()
	}
}

// endedByItself is a fault unless the child said what the user must do.
func (r *run) endedByItself(p *process) {
	failed := ""
	r.told.look(func(t *told) bool { failed = t.failed; return true })
	if failed == "" {
		failed = strings.TrimSpace("it said nothing " + string(p.cry.text))
	}
	if strings.Contains(failed, core.ErrReadOnly.Text) {
		r.result.stopped = errors.New(failed)
		return
	}
	r.told.fault(died, "the store's process ended by itself (%s): %s", p.cmd.ProcessState, failed)
}

// stopped is why the run cannot go on: the user's disk is full, or the store
// does not open any more.
func (r *run) stopped() error {
	if r.result.stopped != nil {
		return r.result.stopped
	}
	var broken int64
	r.told.look(func(t *told) bool { broken = t.faults[died] + t.faults[hung] + t.faults[damaged]; return true })
	if broken > 0 {
		return errBroken
	}
	return nil
}

// errBroken ends a run whose Result says why.
var errBroken = errors.New("the store does not go on")

func (r *run) confirmedMessages() (n int64) {
	r.told.look(func(t *told) bool { n = t.messages; return true })
	return n
}

// note prints the line of a round.
func (r *run) note(n int, early bool, lived time.Duration, before int64) {
	var s string
	r.told.look(func(t *told) bool {
		if t.opened {
			r.result.recovery = t.recovery
			r.result.slowest = max(r.result.slowest, t.recovery)
		}
		when := fmt.Sprintf("killed after %.2f s", lived.Seconds())
		switch {
		case !t.opened:
			when += " in recovery"
			r.result.InRecovery++
		case early && !t.written:
			when += " while it read"
			r.result.InRecovery++
		}
		s = fmt.Sprintf("%d/%d  %-32s recovery %4d ms, %7.0f msg/s, %d confirmed, %d lost",
			n, r.Rounds, when, r.result.recovery.Milliseconds(), float64(t.messages-before)/lived.Seconds(), t.messages, t.faults[lost])
		if others := t.sum() - t.faults[lost]; others > 0 {
			s += fmt.Sprintf(", %d other faults", others)
		}
		return true
	})
	r.print("%s", s)
}

// sum counts all faults. The mutex is held.
func (t *told) sum() (n int64) {
	for _, k := range t.faults {
		n += k
	}
	return n
}

// lastLife verifies and ends well.
func (r *run) lastLife(do string) (Result, error) {
	p, err := start(r.Self, r.job(do), r.told)
	if err != nil {
		return r.finish(), err
	}
	if !r.waitUntil(context.Background(), p, r.patience, func(t *told) bool { return t.written }) {
		r.notWritten(p)
	} else if r.ended = true; !p.stop(r.patience) {
		r.endedByItself(p)
	}
	return r.finish(), r.result.stopped
}

// finish makes the result. A run without faults leaves nothing behind.
func (r *run) finish() Result {
	r.told.look(func(t *told) bool {
		res := &r.result
		res.Messages, res.Verified, res.Verifications = t.messages, t.verified, t.checked
		res.Faults, res.Findings = t.faults, t.findings
		for _, n := range t.confirmed {
			res.Batches += int64(n)
		}
		return true
	})
	r.result.Seconds = time.Since(r.began).Seconds()
	r.result.SlowestRecovery = r.result.slowest.Seconds()
	switch {
	case len(r.result.Faults) > 0:
		r.result.Verdict = Broken
	case r.ended: // the last life compared all
		r.result.Verdict = Kept
	default:
		r.result.Verdict = Untold
	}
	if r.result.Verdict != Broken && !r.Keep && r.result.stopped == nil {
		if err := os.RemoveAll(r.dir); err != nil {
			slog.Warn("the directory of the run stays", slog.Any("err", err))
		}
	}
	return r.result
}
