package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/journal/journaltest"
)

func TestJournal(t *testing.T) {
	o := small(newDisk())
	j := mustOpen(t, o)
	mustWrite(t, j, "a", "b", "c", "d", "e") // three fit into a segment
	if s := j.State(); s.First != 1 || s.Segment != 2 || s.Live != 2 || s.Spare != 1 || s.Commit != 5 || s.Rolls != 2 || s.Offset != 3*4096 {
		t.Errorf("State is %+v", s)
	}
	mustClose(t, j)
	if err := j.Close(); err != nil {
		t.Errorf("a second Close gives %v", err)
	}
	if _, err := write(j, "f"); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Write after Close gives %v", err)
	}

	j = holds(t, o, "a b c d e")
	if r := j.Recovered(); r != (journal.Recovered{Frames: 5, Bytes: 5, Commit: 5, Clean: true}) {
		t.Errorf("Recovered is %+v", r)
	}
	if s := j.State(); s.Segment != 3 || s.Commit != 5 {
		t.Errorf("it goes on in a segment that has frames: %+v", s)
	}
	mustWrite(t, j, "f")
	o.Disk = o.Disk.(*journaltest.Disk).PowerCut()
	if r := holds(t, o, "a b c d e f").Recovered(); r.Clean {
		t.Errorf("after a power cut Recovered is %+v", r)
	}
}

// Starts without work between them do not use up the disk.
func TestEmptySegmentIsUsedAgain(t *testing.T) {
	o := small(newDisk())
	for range 5 {
		mustClose(t, mustOpen(t, o))
	}
	j := mustOpen(t, o)
	if s := j.State(); s.Segment != 1 || s.Live != 1 {
		t.Errorf("after five starts State is %+v", s)
	}
	mustWrite(t, j, "a")
	mustClose(t, j)
	for range 5 {
		mustClose(t, holds(t, o, "a"))
	}
	o.Segment *= 2
	if s := holds(t, o, "a").State(); s.Segment != 3 {
		t.Errorf("an empty segment of another size is used: %+v", s)
	}
}

func TestPayloadSizes(t *testing.T) {
	o := small(newDisk())
	j := mustOpen(t, o)
	var want []string
	for _, n := range []int{0, 1, 4069, 4070, 4071, j.MaxPayload() - 1, j.MaxPayload(), 4096, 0} {
		p := strings.Repeat("x", n)
		before, room := j.State(), j.Room()
		mustWrite(t, j, p)
		if rolled := j.State().Rolls > before.Rolls; rolled != (int64(n) > room) {
			t.Errorf("room for %d bytes, %d written: a new segment was begun: %v", room, n, rolled)
		}
		want = append(want, p)
	}
	if _, err := write(j, strings.Repeat("x", j.MaxPayload()+1)); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("a payload that is too large gives %v", err)
	}
	mustClose(t, j)
	holds(t, o, strings.Join(want, " "))
}

// A buffer that was large once is let go.
func TestBufferShrinks(t *testing.T) {
	o := small(newDisk())
	o.Segment = 8 << 20
	j := mustOpen(t, o)
	mustWrite(t, j, strings.Repeat("x", j.MaxPayload()))
	for range 70 {
		mustWrite(t, j, "small")
	}
	if n := cap(j.Buffer()); n > 1<<20 {
		t.Errorf("the buffer keeps %d bytes", n)
	}
}

func TestReadAt(t *testing.T) {
	o := small(newDisk())
	j := mustOpen(t, o)
	var frames []journal.Frame
	for i := range 10 {
		f, err := write(j, fmt.Sprintf("payload %d", i))
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
	}
	read := func(f journal.Frame) (string, error) {
		p := make([]byte, len("payload 0"))
		err := j.ReadAt(f.Segment, p, f.At)
		return string(p), err
	}
	for i, f := range frames {
		if p, err := read(f); err != nil || p != fmt.Sprintf("payload %d", i) {
			t.Errorf("ReadAt of frame %d gives %q, %v", i, p, err)
		}
	}
	if err := j.Recycle(frames[4].Segment); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		_, err := read(f)
		if gone := errors.Is(err, journal.ErrRecycled); gone != (f.Segment < frames[4].Segment) || !gone && err != nil {
			t.Errorf("ReadAt of frame %d, with the segments before %d recycled, gives %v", i, frames[4].Segment, err)
		}
	}
	if _, err := read(journal.Frame{Segment: 99}); !errors.Is(err, journal.ErrRecycled) {
		t.Errorf("ReadAt of a segment to come gives %v", err)
	}
	if err := j.ReadAt(frames[9].Segment, make([]byte, 10), o.Segment-9); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("ReadAt past the end gives %v", err)
	}
	mustClose(t, j)
	if _, err := read(frames[9]); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("ReadAt after Close gives %v", err)
	}
}

func TestRecycle(t *testing.T) {
	d := newDisk()
	o := small(d)
	o.Keep = 2
	j := mustOpen(t, o)
	mustWrite(t, j, strings.Split("abcdefghijklmnopqr", "")...) // six segments
	o.From = journal.Position{Segment: 5, Commit: 12}
	if err := j.Recycle(5); err != nil {
		t.Fatal(err)
	}
	if s := j.State(); s.First != 5 || s.Live != 2 || s.Spare != 2 {
		t.Errorf("State is %+v", s)
	}
	if err := j.Recycle(99); err != nil { // the one that is written stays
		t.Fatal(err)
	}
	if s := j.State(); s.First != 6 || s.Live != 1 || s.Spare != 2 {
		t.Errorf("State is %+v", s)
	}
	d.Ops()
	mustWrite(t, j, "s", "t", "u")
	for _, op := range d.Ops() {
		if op.Kind == journaltest.Create {
			t.Errorf("there were spare files, and it did %v", op)
		}
	}
	// Of another size: read, then deleted.
	mustClose(t, j)
	o.Segment, o.From = o.Segment*2, journal.Position{Segment: 7, Commit: 18}
	j = holds(t, o, "s t u")
	if err := j.Recycle(j.State().Segment); err != nil {
		t.Fatal(err)
	}
	entries, _ := d.List()
	for _, e := range entries {
		if e.Size != o.Segment {
			t.Errorf("%s of %d bytes is still there", e.Name, e.Size)
		}
	}
}

// Segments that nobody needs may be anything; those that are needed may not
// be missing.
func TestFrom(t *testing.T) {
	base := newDisk()
	o := small(base)
	j := mustOpen(t, o)
	mustWrite(t, j, strings.Split("abcdefghi", "")...) // 1: a b c, 2: d e f, 3: g h i
	_ = j                                              // and then it is killed
	for _, row := range []struct {
		says   string
		from   journal.Position
		remove []uint32
		want   string
	}{
		{"all", journal.Position{}, nil, "a b c d e f g h i"},
		{"from a segment on", journal.Position{Segment: 2, Commit: 3}, nil, "d e f g h i"},
		{"frames that are known already are given too", journal.Position{Segment: 2, Commit: 5}, nil, "d e f g h i"},
		{"all is known", journal.Position{Segment: 3, Commit: 9}, nil, "g h i"},
		{"the first there is", journal.Position{Commit: 3}, []uint32{1}, "d e f g h i"},
		{"one before is missing", journal.Position{Segment: 3, Commit: 6}, []uint32{1, 2}, "g h i"},
		{"J1: the first is missing", journal.Position{}, []uint32{1}, "segment 2 at 4096, commit 1"},
		{"J1: one commit is missing", journal.Position{Segment: 2, Commit: 2}, []uint32{1}, "segment 2 at 4096, commit 3"},
		{"J1: one in the middle is missing", journal.Position{}, []uint32{2}, "segment 1 at 16384, commit 4"},
		{"one in the middle is missing whose commits are known", journal.Position{Segment: 1, Commit: 6}, []uint32{2}, "a b c g h i"},
		{"all are missing", journal.Position{Segment: 3, Commit: 6}, []uint32{1, 2, 3}, "segment 3 at 0, commit 7"},
		{"all that are needed are missing", journal.Position{Segment: 3, Commit: 6}, []uint32{3}, "segment 3 at 0, commit 7"},
		{"there never were any", journal.Position{Commit: 6}, []uint32{1, 2, 3}, ""},
	} {
		t.Run(row.says, func(t *testing.T) {
			d := base.Clone()
			for _, n := range row.remove {
				if err := d.Remove(segmentName(n)); err != nil {
					t.Fatal(err)
				}
			}
			o.Disk, o.From = d, row.from
			j, all, err := reopen(o)
			if err != nil {
				if got := corruptAt(err); got != row.want {
					t.Errorf("%s, want %q", got, row.want)
				}
				return
			}
			if payloads(all) != row.want {
				t.Errorf("it has %q, want %q", payloads(all), row.want)
			}
			f, err := write(j, "next")
			if want := max(row.from.Commit, j.Recovered().Commit) + 1; err != nil || f.Commit != want {
				t.Errorf("the next commit is %d, %v, want %d", f.Commit, err, want)
			}
			mustClose(t, j)
			mustClose(t, holds(t, o, strings.TrimSpace(row.want+" next")))
		})
	}
}

// A segment below From that cannot be read is nobody's trouble, and Recycle
// takes it.
func TestUnneededSegmentMayBeDamaged(t *testing.T) {
	d := newDisk()
	o := small(d)
	j := mustOpen(t, o)
	mustWrite(t, j, "a", "b", "c", "d")
	d.Flip(segmentName(1), 30, 1)
	d = d.Kill()
	o.Disk, o.From = d, journal.Position{Segment: 2, Commit: 3}
	j = holds(t, o, "d")
	if err := j.Recycle(2); err != nil || j.State().First != 2 {
		t.Errorf("Recycle gives %v, State is %+v", err, j.State())
	}
}

func TestOptions(t *testing.T) {
	for _, row := range []struct {
		says   string
		change func(*journal.Options)
		want   string
	}{
		{"no disk", func(o *journal.Options) { o.Disk = nil }, "Disk is missing"},
		{"align is no power of two", func(o *journal.Options) { o.Align = 5000 }, "Align is 5000"},
		{"align is too small", func(o *journal.Options) { o.Align = 256 }, "Align is 256"},
		{"a segment is too small", func(o *journal.Options) { o.Segment = 3 * 4096 }, "Segment is 12288"},
		{"a segment is not aligned", func(o *journal.Options) { o.Segment += 512 }, "multiple of Align"},
		{"another's journal", func(o *journal.Options) { o.Instance[3]++ }, "belongs to another store: segment 1"},
	} {
		t.Run(row.says, func(t *testing.T) {
			o := small(newDisk())
			mustClose(t, mustOpen(t, o))
			row.change(&o)
			if _, _, err := reopen(o); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("Open gives %v, want %q", err, row.want)
			}
		})
	}
}

// An error of replay ends Open, and changes nothing.
func TestReplayFails(t *testing.T) {
	o := small(newDisk())
	j := mustOpen(t, o)
	mustWrite(t, j, "a", "b")
	sorry := errors.New("sorry")
	if _, err := journal.Open(o, func(journal.Frame) error { return sorry }); !errors.Is(err, sorry) {
		t.Errorf("Open gives %v", err)
	}
	holds(t, o, "a b")
}

// mission: S8. Nothing is confirmed before the disk has it: its bytes, the
// head of its segment, and the segment's name.
func TestOrderOfSyncs(t *testing.T) {
	d := newDisk()
	o := small(d)
	seen := watch{dirty: map[string]bool{}, written: map[string]bool{}, headless: map[string]bool{}}
	j := mustOpen(t, o)
	for i := range 40 {
		mustWrite(t, j, fmt.Sprint(i))
		seen.all(t, d.Ops())
		if len(seen.dirty) > 0 || seen.names {
			t.Fatalf("frame %d is confirmed, and not synced are %v, names: %v", i, seen.dirty, seen.names)
		}
		if i%7 == 6 {
			if err := j.Recycle(j.State().Segment - 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustClose(t, j)
	if seen.all(t, d.Ops()); len(seen.dirty) > 0 {
		t.Errorf("closed, and not synced are %v", seen.dirty)
	}
}

// A watch follows what the disk is asked to do.
type watch struct {
	names    bool            // changed and not synced
	dirty    map[string]bool // files that are written and not synced
	written  map[string]bool
	headless map[string]bool // spares whose name is not on the disk
}

func (w *watch) all(t *testing.T, ops []journaltest.Op) {
	t.Helper()
	for _, op := range ops {
		switch op.Kind {
		case journaltest.Write:
			if strings.HasSuffix(op.Name, ".jnl") && w.names {
				t.Errorf("a frame is written to %s before its name is synced", op.Name)
			}
			if w.headless[op.Name] {
				t.Errorf("%s is written to while it may still be found as a segment", op.Name)
			}
			w.dirty[op.Name] = true
		case journaltest.Sync:
			delete(w.dirty, op.Name)
		case journaltest.Rename:
			if strings.HasSuffix(op.To, ".jnl") && w.dirty[op.Name] {
				t.Errorf("%s becomes %s before it is synced", op.Name, op.To)
			}
			w.names = true
			w.headless[op.To] = strings.HasSuffix(op.To, ".free")
		case journaltest.Remove:
			w.names = true
		case journaltest.SyncDir:
			w.names = false
			clear(w.headless)
		case journaltest.Open, journaltest.Read, journaltest.Create:
		}
	}
}

// Every error but a full disk is the end, whatever the disk says later.
func TestDiskFails(t *testing.T) {
	for _, k := range []journaltest.Kind{
		journaltest.Open, journaltest.Create, journaltest.Write, journaltest.Sync,
		journaltest.Rename, journaltest.Remove, journaltest.SyncDir,
	} {
		t.Run(k.String(), func(t *testing.T) {
			d := newDisk()
			o := small(d)
			j := mustOpen(t, o)
			mustWrite(t, j, "a", "b", "c", "d", "e", "f")
			d.Fail(k, 1, syscall.EIO)
			err := j.Recycle(2)
			for i := 0; err == nil && i < 20; i++ {
				_, err = write(j, "x")
				if err == nil {
					err = j.Recycle(j.State().Segment)
				}
			}
			if !errors.Is(err, journal.ErrFailed) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("it gives %v", err)
			}
			for range 3 {
				if _, err := write(j, "y"); !errors.Is(err, journal.ErrFailed) {
					t.Errorf("a later Write gives %v", err)
				}
			}
			if err := j.Recycle(99); !errors.Is(err, journal.ErrFailed) {
				t.Errorf("a later Recycle gives %v", err)
			}
			d.Ops()
			if err := j.Close(); !errors.Is(err, journal.ErrFailed) {
				t.Errorf("Close gives %v", err)
			}
			if ops := d.Ops(); len(ops) > 0 {
				t.Errorf("Close does %v", ops)
			}
		})
	}
}

// What was read may be gone on the disk when a sync has failed before: opening
// writes the last frame again, so the next power cut leaves no gap (J3).
func TestFailedSyncIsRepaired(t *testing.T) {
	for seed := range uint64(50) {
		d := journaltest.New(seed)
		o := small(d)
		j := mustOpen(t, o)
		mustWrite(t, j, "a")
		d.Fail(journaltest.Sync, 1, syscall.EIO)
		if _, err := write(j, "b"); !errors.Is(err, journal.ErrFailed) {
			t.Fatal(err)
		}
		d = d.Kill() // the kernel still shows "b"
		o.Disk = d
		mustWrite(t, holds(t, o, "a b"), "c")
		o.Disk = d.PowerCut()
		holds(t, o, "a b c")
	}
}

// A frame that could not be taken back may be on the disk although it does not
// show when the journal is opened. It must not come back once it did not (J3).
func TestWhatIsDroppedStaysDropped(t *testing.T) {
	for seed := range uint64(400) {
		d := journaltest.New(seed)
		o := small(d)
		j := mustOpen(t, o)
		mustWrite(t, j, "a")
		if seed%2 == 0 { // the newest segment is not the one that has the last frame
			mustClose(t, j)
			j = holds(t, o, "a")
		}
		d.Fail(journaltest.Write, 1, syscall.ENOSPC)
		if seed%4 < 2 {
			d.Fail(journaltest.Write, 1, syscall.ENOSPC)
		} else {
			d.Fail(journaltest.Sync, 1, syscall.EIO)
		}
		if _, err := write(j, "b"); !errors.Is(err, journal.ErrFailed) && !errors.Is(err, journal.ErrFull) {
			t.Fatal(err)
		}
		d = d.Kill()
		o.Disk = d
		j, all, err := reopen(o)
		if err != nil {
			t.Fatal(err)
		}
		if payloads(all) != "a" {
			continue // "b" was whole, and is accepted
		}
		d.StopAfter(int(seed/4) % 3)
		_, _ = write(j, strings.Repeat("c", 5000))
		o.Disk = d.PowerCut()
		j, all, err = reopen(o)
		if err != nil || payloads(all) != "a" && payloads(all) != "a "+strings.Repeat("c", 5000) {
			t.Fatalf("seed %d: it has %.20q, %v", seed, payloads(all), err)
		}
		mustClose(t, j)
	}
}

// Killed at any step on the way into a new segment, then started, then without
// power: what was confirmed in between is there.
func TestKilledInRoll(t *testing.T) {
	for seed := range uint64(300) {
		d := journaltest.New(seed)
		o := small(d)
		j := mustOpen(t, o)
		mustWrite(t, j, "a", "b", "c")
		d.StopAfter(int(seed) % 6)
		want := "a b c"
		if _, err := write(j, "d"); err == nil {
			want = "a b c d"
		}
		d = d.Kill()
		o.Disk = d
		j, all, err := reopen(o)
		if err != nil || !strings.HasPrefix(payloads(all), want) {
			t.Fatalf("seed %d: it has %q, %v, want %q", seed, payloads(all), err, want)
		}
		mustWrite(t, j, "e")
		want = payloads(all) + " e"
		o.Disk = d.PowerCut()
		if _, all, err = reopen(o); err != nil || payloads(all) != want {
			t.Fatalf("seed %d: without power it has %q, %v, want %q", seed, payloads(all), err, want)
		}
	}
}

// On a full disk there is the spare segment, then ErrFull, and it goes on when
// there is space.
func TestFull(t *testing.T) {
	d := newDisk()
	o := small(d)
	j := mustOpen(t, o)
	mustWrite(t, j, "a")
	d.SetFull(true)
	mustWrite(t, j, "b", "c", "d", "e", "f") // into the spare one
	for range 3 {
		if _, err := write(j, "no"); !errors.Is(err, journal.ErrFull) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("Write on a full disk gives %v", err)
		}
	}
	if s := j.State(); s.Commit != 6 || s.Spare != 0 {
		t.Errorf("State is %+v", s)
	}
	// It starts on a full disk, too.
	d = d.Kill()
	d.SetFull(true)
	o.Disk = d
	j = holds(t, o, "a b c d e f")
	if s := j.State(); s.Segment != 0 || j.Room() != 0 {
		t.Errorf("State is %+v, Room %d", s, j.Room())
	}
	if _, err := write(j, "no"); !errors.Is(err, journal.ErrFull) {
		t.Fatalf("Write on a full disk gives %v", err)
	}
	mustClose(t, j)
	j = holds(t, o, "a b c d e f")
	// What is recycled can be written at once.
	o.From = journal.Position{Segment: 2, Commit: 3}
	if err := j.Recycle(2); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, j, "g", "h", "i")
	if _, err := write(j, "no"); !errors.Is(err, journal.ErrFull) {
		t.Fatalf("Write on a full disk gives %v", err)
	}
	d.SetFull(false)
	mustWrite(t, j, "j")
	mustClose(t, j)
	holds(t, o, "d e f g h i j")
}

// A segment that could not be begun for want of space stays a spare one.
func TestFullOnTheWay(t *testing.T) {
	for _, k := range []journaltest.Kind{journaltest.Write, journaltest.Rename} {
		d := newDisk()
		o := small(d)
		j := mustOpen(t, o)
		mustWrite(t, j, "a", "b", "c")
		d.SetFull(true)
		d.Fail(k, 1, syscall.ENOSPC)
		if _, err := write(j, "d"); !errors.Is(err, journal.ErrFull) || j.State().Spare != 1 {
			t.Errorf("full while it was to %v: %v, State is %+v", k, err, j.State())
		}
		mustWrite(t, j, "d")
		mustClose(t, j)
		holds(t, o, "a b c d")
	}
}

// Where a write may find no space, what it left does not come back.
func TestFullInTheMiddle(t *testing.T) {
	for seed := range uint64(50) {
		d := journaltest.New(seed)
		o := small(d)
		j := mustOpen(t, o)
		mustWrite(t, j, "a")
		d.Fail(journaltest.Write, 1, syscall.ENOSPC)
		// Zeros on a disk of zeros: a part is as good as the whole.
		if _, err := write(j, "b"+strings.Repeat("\x00", 3000)); !errors.Is(err, journal.ErrFull) {
			t.Fatal(err)
		}
		o.Disk = d.Clone()
		holds(t, o, "a")
		mustWrite(t, j, "c")
		o.Disk = d.PowerCut()
		holds(t, o, "a c")
	}
}

// Readers, the writer and the recycler at once: what is read is what was
// written, or ErrRecycled.
func TestConcurrency(t *testing.T) {
	for _, disk := range []journal.Disk{newDisk(), journal.OSDisk(t.TempDir())} {
		o := small(disk)
		o.Align, o.Segment, o.Keep = 512, 8*512, 2
		j := mustOpen(t, o)
		var (
			all     sync.WaitGroup
			written = make(chan journal.Frame, 64) // with payloads of their own
			stop    = make(chan struct{})
		)
		for range 3 {
			all.Go(func() {
				for f := range written {
					p := make([]byte, len(f.Payload))
					for range 4 {
						err := j.ReadAt(f.Segment, p, f.At)
						if err == nil && !bytes.Equal(p, f.Payload) || err != nil && !errors.Is(err, journal.ErrRecycled) {
							t.Errorf("commit %d reads %q, %v, want %q", f.Commit, p, err, f.Payload)
						}
					}
				}
			})
		}
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s := j.State()
				if err := j.Recycle(max(s.Segment, 2) - 2); err != nil {
					t.Error(err)
				}
			}
		})
		for i := range 300 {
			f, err := write(j, fmt.Sprintf("payload %d", i))
			if err != nil {
				t.Fatal(err)
			}
			f.Payload = slices.Clone(f.Payload)
			select {
			case written <- f:
			default:
			}
		}
		close(written)
		close(stop)
		all.Wait()
		mustClose(t, j)
	}
}

// The write path allocates nothing.
func TestWriteAllocatesNothing(t *testing.T) {
	o := small(journal.OSDisk(t.TempDir()))
	o.Segment = 64 << 20
	j := mustOpen(t, o)
	defer mustClose(t, j)
	payload := make([]byte, 5000)
	got := testing.AllocsPerRun(200, func() {
		if _, err := j.Write(append(j.Buffer(), payload...)); err != nil {
			t.Fatal(err)
		}
	})
	if got > 0 {
		t.Errorf("a Write allocates %.1f times", got)
	}
	p := make([]byte, 100)
	if got := testing.AllocsPerRun(200, func() { _ = j.ReadAt(1, p, 0) }); got > 0 {
		t.Errorf("a ReadAt allocates %.1f times", got)
	}
}

// An operator is told once what happened.
func TestLog(t *testing.T) {
	var b bytes.Buffer
	d := newDisk()
	o := small(d)
	o.Log = slog.New(slog.NewTextHandler(&b, nil))
	j := mustOpen(t, o)
	d.Fail(journaltest.Sync, 1, syscall.EIO)
	_, _ = write(j, "a")
	_, _ = write(j, "a")
	if n := strings.Count(b.String(), "the disk has failed"); n != 1 {
		t.Errorf("it says %d times that the disk has failed:\n%s", n, &b)
	}
}
