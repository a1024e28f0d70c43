package journal_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/journal/journaltest"
)

var (
	cuts   = flag.Int("cuts", 4000, "how often TestPowerCut stops the machine")
	cutOne = flag.Uint64("cut-seed", 0, "the one history TestPowerCut is to repeat")
)

// mission: S8. Whatever the moment at which the machine stops, while it opens
// too, every confirmed frame is there, in order, and nothing else but perhaps
// the one that was under way.
func TestPowerCut(t *testing.T) {
	const each = 50
	total, seed := map[string]int{}, uint64(0)
	defer func() {
		if t.Failed() {
			t.Logf("repeat with -cuts %d -cut-seed %d", *cuts, seed)
		}
	}()
	for seed = 1; seed <= uint64(*cuts/each); seed++ {
		if *cutOne != 0 && seed != *cutOne {
			continue
		}
		w := newWorld(t, seed)
		for w.stops < each {
			w.life()
		}
		for k, n := range w.seen {
			total[k] += n
		}
	}
	t.Log(total)
}

// A world is a disk, and what must be on it.
type world struct {
	t       *testing.T
	random  *rand.Rand
	disk    *journaltest.Disk
	options journal.Options
	journal *journal.Journal

	truth     map[uint64]string // by commit; what cannot change any more
	frames    map[uint64]journal.Frame
	confirmed uint64
	underWay  string // what may be there as confirmed+1; "": nothing
	full      bool
	faulty    bool // something fails at some time
	tight     bool // a write may find no space
	stops     int
	seen      map[string]int
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, random: rand.New(rand.NewPCG(seed, 1)), disk: journaltest.New(seed),
		truth: map[uint64]string{}, frames: map[uint64]journal.Frame{}, seen: map[string]int{},
	}
	align := []int64{512, 1024, 4096}[w.random.IntN(3)]
	w.options = journal.Options{
		Instance: instance, Align: align,
		Segment: align * int64(4+w.random.IntN(12)), Keep: 1 + w.random.IntN(3),
	}
	return w
}

// life is one run of the process.
func (w *world) life() {
	w.options.Disk, w.faulty, w.tight = w.disk, false, false
	if w.random.IntN(3) == 0 {
		w.disk.StopAfter(w.random.IntN(12))
	}
	if w.random.IntN(8) == 0 {
		w.faulty = true
		k := []journaltest.Kind{
			journaltest.Open, journaltest.Create, journaltest.Read, journaltest.Write,
			journaltest.Sync, journaltest.Rename, journaltest.Remove, journaltest.SyncDir,
		}[w.random.IntN(8)]
		w.disk.Fail(k, 1+w.random.IntN(20), syscall.EIO)
	}
	w.setFull(w.random.IntN(6) == 0)
	if w.open() {
		w.work()
	}
	w.stop()
}

func (w *world) setFull(full bool) {
	w.full = full
	w.disk.SetFull(full)
}

// stop ends the process, or the machine.
func (w *world) stop() {
	if w.random.IntN(3) == 0 {
		w.disk = w.disk.Kill()
		w.seen["kills"]++
	} else {
		w.disk = w.disk.PowerCut()
		w.seen["cuts"]++
	}
	w.stops++
}

// open opens the journal and compares; false: the machine stopped.
func (w *world) open() bool {
	w.t.Helper()
	j, all, err := reopen(w.options)
	if err != nil {
		w.seen["stops in open"]++
		w.mayFail(err)
		return false
	}
	w.compare(all)
	w.journal = j
	for _, f := range all {
		w.frames[f.commit] = journal.Frame{Segment: f.segment, Commit: f.commit, At: f.at}
	}
	return true
}

// mayFail checks that an error is one of those the disk was told to give.
func (w *world) mayFail(err error) {
	w.t.Helper()
	if errors.Is(err, journaltest.ErrStopped) || w.faulty && errors.Is(err, syscall.EIO) ||
		w.tight && errors.Is(err, syscall.ENOSPC) {
		return
	}
	w.t.Fatalf("after %d stops: %v", w.stops, err)
}

// compare checks what was replayed, and takes what it has as true.
func (w *world) compare(all []got) {
	w.t.Helper()
	next := w.options.From.Commit + 1
	if len(all) > 0 {
		if all[0].commit > next {
			w.t.Fatalf("after %d stops the first frame is commit %d, and %d is needed", w.stops, all[0].commit, next)
		}
		next = all[0].commit
	}
	for _, f := range all {
		if f.commit != next {
			w.t.Fatalf("after %d stops commit %d follows on %d", w.stops, f.commit, next-1)
		}
		want, known := w.truth[f.commit]
		if !known && f.commit == w.confirmed+1 && w.underWay != "" {
			want, w.truth[f.commit], w.confirmed = w.underWay, w.underWay, f.commit
			w.seen["under way and kept"]++
		} else if !known {
			w.t.Fatalf("after %d stops commit %d is there, and %d was the last", w.stops, f.commit, w.confirmed)
		}
		if f.payload != want {
			w.t.Fatalf("after %d stops commit %d has %.40q, want %.40q", w.stops, f.commit, f.payload, want)
		}
		next++
	}
	if next <= w.confirmed {
		w.t.Fatalf("after %d stops commit %d was confirmed and is gone", w.stops, next)
	}
	w.underWay = ""
	w.seen["frames read"] += len(all)
}

// work writes until something stops it.
func (w *world) work() {
	w.t.Helper()
	if w.random.IntN(4) > 0 && !w.disk.Stopped() {
		w.disk.StopAfter(w.random.IntN(200))
	}
	for steps := 0; ; steps++ {
		switch r := w.random.IntN(40); {
		case r == 0:
			w.setFull(!w.full)
		case r < 3:
			if !w.recycle() {
				return
			}
		case r < 12:
			if !w.read() {
				return
			}
		case r == 12 || steps > 300:
			if err := w.journal.Close(); err != nil {
				w.mayFail(err)
			}
			return
		default:
			if !w.write() {
				return
			}
		}
	}
}

// write writes one frame; false: that was the end.
func (w *world) write() bool {
	w.t.Helper()
	size := 1 + w.random.IntN(60)
	if w.random.IntN(3) == 0 {
		size = 1 + w.random.IntN(w.journal.MaxPayload())
	}
	payload := make([]byte, size)
	copy(payload, fmt.Sprintf("%d %d|", w.confirmed+1, w.random.Uint64()))
	for i := size / 2; i < size; i++ {
		payload[i] = byte(w.random.IntN(3)) // often zeros, and often not
	}
	if w.random.IntN(8) == 0 { // a file system that copies on write
		w.tight = true
		w.disk.Fail(journaltest.Write, 1, syscall.ENOSPC)
		if w.random.IntN(4) == 0 { // and cannot take back what it wrote
			w.disk.Fail(journaltest.Write, 1, syscall.ENOSPC)
		}
	}
	f, err := w.journal.Write(append(w.journal.Buffer(), payload...))
	switch {
	case err == nil:
		if f.Commit != w.confirmed+1 {
			w.t.Fatalf("Write gives commit %d after %d", f.Commit, w.confirmed)
		}
		w.confirmed, w.truth[f.Commit], w.frames[f.Commit] = f.Commit, string(payload), f
		w.seen["frames written"]++
		return true
	case errors.Is(err, journal.ErrFull) && errors.Is(err, syscall.ENOSPC):
		w.seen["full"]++
		return true
	default:
		if !errors.Is(err, journal.ErrFailed) {
			w.t.Fatalf("Write gives %v, which is no ErrFailed", err)
		}
		w.mayFail(err)
		w.underWay = string(payload)
		if _, again := write(w.journal, "again"); !errors.Is(again, journal.ErrFailed) {
			w.t.Fatalf("Write after ErrFailed gives %v", again)
		}
		return false
	}
}

// read compares a frame that was written with what ReadAt gives.
func (w *world) read() bool {
	w.t.Helper()
	for range 3 {
		commit := 1 + w.random.Uint64N(w.confirmed+1)
		f, ok := w.frames[commit]
		if !ok {
			continue
		}
		want := w.truth[commit]
		p := make([]byte, len(want))
		err := w.journal.ReadAt(f.Segment, p, f.At)
		if errors.Is(err, journal.ErrRecycled) {
			if f.Segment >= w.options.From.Segment {
				w.t.Fatalf("segment %d is not there, and %d is needed", f.Segment, w.options.From.Segment)
			}
			delete(w.frames, commit)
			return true
		}
		if err != nil {
			w.mayFail(err)
			return false
		}
		if string(p) != want {
			w.t.Fatalf("ReadAt of commit %d gives %.40q, want %.40q", commit, p, want)
		}
		return true
	}
	return true
}

// recycle lets the journal forget up to some frame, as a checkpoint does.
func (w *world) recycle() bool {
	w.t.Helper()
	if w.confirmed <= w.options.From.Commit {
		return true
	}
	upTo := w.options.From.Commit + 1 + w.random.Uint64N(w.confirmed-w.options.From.Commit)
	f, ok := w.frames[upTo]
	if !ok {
		return true
	}
	w.options.From = journal.Position{Segment: f.Segment, Commit: upTo}
	if err := w.journal.Recycle(f.Segment); err != nil {
		w.mayFail(err)
		return false
	}
	w.seen["recycled"]++
	return true
}
