package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/journal/journaltest"
)

// inspected is what Inspect says, a line a segment.
func inspected(t *testing.T, d journal.Disk) string {
	t.Helper()
	var b strings.Builder
	err := journal.Inspect(d, func(s journal.Segment) error {
		fmt.Fprintf(&b, "%d: first %d, frames %d, last %d, %s at %d", s.Number, s.First, s.Frames, s.Commit, s.End, s.At)
		if s.Err != nil {
			fmt.Fprintf(&b, " (%s)", corruptAt(s.Err))
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestInspect(t *testing.T) {
	for _, row := range []struct {
		says   string
		closed bool
		change func(d *journaltest.Disk)
		want   string
	}{
		{"after a kill", false, func(*journaltest.Disk) {}, `
1: first 1, frames 2, last 2, whole at 2048
2: first 3, frames 2, last 4, whole at 2048
3: first 5, frames 2, last 6, whole at 2560
`},
		{"after Close", true, func(*journaltest.Disk) {}, `
1: first 1, frames 2, last 2, whole at 2048
2: first 3, frames 2, last 4, whole at 2048
3: first 5, frames 2, last 6, closed at 3072
`},
		{"a torn frame", false, func(d *journaltest.Disk) { d.Flip(segmentName(3), 1600, 1) }, `
1: first 1, frames 2, last 2, whole at 2048
2: first 3, frames 2, last 4, whole at 2048
3: first 5, frames 1, last 5, torn at 1536
`},
		{"a damaged frame in the middle", true, func(d *journaltest.Disk) { d.Flip(segmentName(1), 1100, 1) }, `
1: first 1, frames 1, last 1, damaged at 1024 (segment 1 at 1024, commit 2)
2: first 3, frames 2, last 4, whole at 2048
3: first 5, frames 2, last 6, closed at 3072
`},
		{"a damaged frame before the end", true, func(d *journaltest.Disk) { d.Flip(segmentName(3), 1600, 1) }, `
1: first 1, frames 2, last 2, whole at 2048
2: first 3, frames 2, last 4, whole at 2048
3: first 5, frames 1, last 5, damaged at 1536 (segment 3 at 1536, commit 6)
`},
		{"a damaged head", true, func(d *journaltest.Disk) { d.Flip(segmentName(2), 40, 1) }, `
1: first 1, frames 2, last 2, whole at 2048
2: first 0, frames 0, last 0, damaged at 0 (segment 2 at 0, commit 1)
3: first 5, frames 2, last 6, closed at 3072
`},
		{"a missing segment", true, func(d *journaltest.Disk) { _ = d.Remove(segmentName(2)) }, `
1: first 1, frames 2, last 2, damaged at 2048 (segment 1 at 2048, commit 3)
3: first 5, frames 2, last 6, closed at 3072
`},
		{"a file cut short", true, func(d *journaltest.Disk) { d.Put(segmentName(3), d.Bytes(segmentName(3))[:1600]) }, `
1: first 1, frames 2, last 2, whole at 2048
2: first 3, frames 2, last 4, whole at 2048
3: first 5, frames 1, last 5, damaged at 1536 (segment 3 at 1536, commit 6)
`},
		{"an unreadable file", true, func(d *journaltest.Disk) { d.Fail(journaltest.Read, 1, syscall.EIO) }, `
1: first 0, frames 0, last 0, damaged at 0 (journal segment 1, read at 0: input/output error)
2: first 3, frames 2, last 4, whole at 2048
3: first 5, frames 2, last 6, closed at 3072
`},
	} {
		t.Run(row.says, func(t *testing.T) {
			d := newImage(t, row.closed).disk
			row.change(d)
			d.Ops()
			if diff := cmp.Diff(row.want, "\n"+inspected(t, d)); diff != "" {
				t.Error(diff)
			}
			if ops := d.Ops(); len(ops) > 0 {
				t.Errorf("Inspect does %v", ops)
			}
		})
	}
}

func TestInspectStops(t *testing.T) {
	sorry := errors.New("sorry")
	if err := journal.Inspect(newImage(t, true).disk, func(journal.Segment) error { return sorry }); !errors.Is(err, sorry) {
		t.Errorf("Inspect gives %v", err)
	}
}

// Whatever is damaged, cutting where Open says lets it open, with all that is
// before; and it goes on from there.
func TestCut(t *testing.T) {
	for _, row := range []struct {
		says   string
		change func(d *journaltest.Disk)
		kept   int // frames
	}{
		{"a frame in the first segment", func(d *journaltest.Disk) { d.Flip(segmentName(1), 1100, 1) }, 1},
		{"the first frame", func(d *journaltest.Disk) { d.Flip(segmentName(1), 530, 1) }, 0},
		{"the first head", func(d *journaltest.Disk) { d.Flip(segmentName(1), 40, 1) }, 0},
		{"a head", func(d *journaltest.Disk) { d.Flip(segmentName(2), 40, 1) }, 2},
		{"the last frame of a segment", func(d *journaltest.Disk) { d.Flip(segmentName(2), 1540, 1) }, 3},
		{"the last frame", func(d *journaltest.Disk) { d.Flip(segmentName(3), 1600, 1) }, 5},
		{"a missing segment", func(d *journaltest.Disk) { _ = d.Remove(segmentName(2)) }, 2},
		{"a file cut short", func(d *journaltest.Disk) { d.Put(segmentName(2), d.Bytes(segmentName(2))[:1580]) }, 3},
		{"a file cut short in the padding of a frame", func(d *journaltest.Disk) { d.Put(segmentName(2), d.Bytes(segmentName(2))[:1600]) }, 4},
		{"a file cut short where it was empty", func(d *journaltest.Disk) { d.Put(segmentName(3), d.Bytes(segmentName(3))[:2570]) }, 6},
	} {
		t.Run(row.says, func(t *testing.T) {
			im := newImage(t, true)
			row.change(im.disk)
			_, _, err := im.open(func(*journaltest.Disk) {})
			var c *journal.CorruptError
			if !errors.As(err, &c) {
				t.Fatalf("Open gives %v", err)
			}
			im.cutAtEveryStop(t, c, row.kept)
		})
	}
}

// cutAtEveryStop cuts, with the machine stopping at any of its steps.
func (im *image) cutAtEveryStop(t *testing.T, c *journal.CorruptError, kept int) {
	t.Helper()
	for stop := 0; ; stop++ {
		d := im.disk.Clone()
		d.StopAfter(stop / 4) // each several times
		err := journal.Cut(d, c.Segment, c.At)
		done := err == nil
		if stopped := errors.Is(err, journaltest.ErrStopped); !done && !stopped {
			t.Fatal(err)
		}
		d = d.PowerCut()
		im.nothingIsLost(t, d)
		o := im.options
		o.Disk = d
		for tries := 0; ; tries++ {
			j, all, err := reopen(o)
			if err == nil && !done && len(all) == len(im.frames) {
				break // begun, and nothing is missing: the file has its size again
			}
			if err == nil {
				im.isPrefix(t, all, kept)
				mustWrite(t, j, "on")
				o.Disk = d.PowerCut()
				_, all, err = reopen(o)
				if err != nil || len(all) != kept+1 || all[kept].payload != "on" || all[kept].commit != uint64(kept)+1 {
					t.Fatalf("stopped at %d: later it has %v, %v", stop, all, err)
				}
				break
			}
			if done || tries > 0 {
				t.Fatalf("stopped at %d: after Cut, Open gives %v", stop, err)
			}
			if err := journal.Cut(d, c.Segment, c.At); err != nil {
				t.Fatal(err)
			}
		}
		if done {
			return
		}
	}
}

func (im *image) isPrefix(t *testing.T, all []got, kept int) {
	t.Helper()
	if diff := cmp.Diff(im.frames[:kept], all, allowGot); kept+len(all) > 0 && diff != "" {
		t.Fatal(diff)
	}
}

// nothingIsLost checks that all that was in a segment is in some file.
func (im *image) nothingIsLost(t *testing.T, d *journaltest.Disk) {
	t.Helper()
	before, _ := im.disk.List()
	after, _ := d.List()
	for _, e := range before {
		if !slices.ContainsFunc(after, func(a journal.Entry) bool {
			return bytes.Equal(d.Bytes(a.Name), im.disk.Bytes(e.Name))
		}) {
			t.Errorf("what was in %s is nowhere after Cut", e.Name)
		}
	}
}

// The copy has its name on the disk before what it is a copy of goes.
func TestCutSyncsTheCopysName(t *testing.T) {
	im := newImage(t, true)
	if err := journal.Cut(im.disk, 2, 1536); err != nil {
		t.Fatal(err)
	}
	named := true
	for _, op := range im.disk.Ops() {
		switch {
		case op.Kind == journaltest.Create:
			named = false
		case op.Kind == journaltest.SyncDir:
			named = true
		case op.Kind == journaltest.Rename && !named:
			t.Errorf("%s is replaced before its copy is safe", op.To)
		}
	}
}

func TestCutRefuses(t *testing.T) {
	im := newImage(t, true)
	for _, err := range []error{
		journal.Cut(im.disk, 9, 0), journal.Cut(im.disk, 1, -1), journal.Cut(im.disk, 1, 1<<40),
	} {
		if err == nil {
			t.Error("Cut does what makes no sense")
		}
	}
	if ops := im.disk.Ops(); len(ops) > 0 {
		t.Errorf("it does %v", ops)
	}
}

// Where the driver has more than what is left after a Cut, numbers go on from
// what it has.
func TestCutBelowFrom(t *testing.T) {
	im := newImage(t, true)
	if err := journal.Cut(im.disk, 2, 0); err != nil {
		t.Fatal(err)
	}
	o := im.options
	o.Disk, o.From = im.disk, journal.Position{Segment: 3, Commit: 5}
	j := holds(t, o, "")
	f, err := write(j, "next")
	if err != nil || f.Commit != 6 || f.Segment != 4 {
		t.Errorf("Write gives %+v, %v", f, err)
	}
	mustClose(t, j)
	holds(t, o, "next")
	// And with an older position: what is missing shows.
	o.From = journal.Position{Segment: 1, Commit: 2}
	if _, _, err := reopen(o); corruptAt(err) != "segment 1 at 2048, commit 3" {
		t.Errorf("Open gives %v", err)
	}
}
