package journal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An End is how the log ends in a segment.
type End string

const (
	EndClosed  End = "closed"  // the journal was closed there
	EndWhole   End = "whole"   // after a frame; nothing follows, or the next segment goes on
	EndTorn    End = "torn"    // a frame was under way, in the newest segment; legal
	EndDamaged End = "damaged" // see Segment.Err
)

// A Segment is what [Inspect] has seen of one.
type Segment struct {
	Name     string
	Number   uint32
	Size     int64 // of the file, bytes
	Instance [16]byte
	Align    int64
	First    uint64 // the commit its first frame has, or would have
	Commit   uint64 // the last commit; First-1: no frame
	Frames   int64
	Bytes    int64 // of the payloads
	End      End
	At       int64 // where the log ends in it
	Err      error // for EndDamaged: a CorruptError, or what the disk said
}

// Inspect reads every segment and reports each, in order. It writes nothing.
// It knows nothing of a [Position]: damage in a segment that is not needed any
// more is damage too. An error is report's, or that the directory cannot be
// read.
func Inspect(d Disk, report func(Segment) error) error {
	files, err := liveFiles(d)
	if err != nil {
		return err
	}
	var pending *inspection
	for _, e := range files {
		next := inspect(d, e)
		if pending != nil {
			pending.joins(next)
			if err := report(pending.Segment); err != nil {
				return err
			}
		}
		pending = next
	}
	if pending == nil {
		return nil
	}
	pending.end()
	return report(pending.Segment)
}

// liveFiles lists the segments in order.
func liveFiles(d Disk) ([]Entry, error) {
	all, err := d.List()
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	files := slices.DeleteFunc(all, func(e Entry) bool {
		_, ok := fileNumber(e.Name, liveExt)
		return !ok
	})
	slices.SortFunc(files, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

// An inspection is of one segment. What is asked of it after its frames are
// read is found out before, since the file is closed.
type inspection struct {
	Segment
	scan      *scan
	torn      bool
	survivors bool
}

func inspect(d Disk, e Entry) *inspection {
	number, _ := fileNumber(e.Name, liveExt)
	in := &inspection{Segment: Segment{Name: e.Name, Number: number, Size: e.Size, End: EndWhole}}
	f, err := d.Open(e.Name)
	if err != nil {
		in.damaged(err)
		return in
	}
	defer f.Close() //nolint:errcheck // it was only read
	in.scan = &scan{file: f, number: number, size: e.Size}
	if err := in.read(); err != nil {
		in.damaged(err)
	}
	in.scan.window = nil
	return in
}

func (in *inspection) read() error {
	s := in.scan
	err := s.readHead()
	for ok := err == nil; ok && err == nil; {
		_, ok, err = s.next()
	}
	in.Instance, in.Align, in.First = s.head.instance, int64(s.head.align), s.head.first
	in.Commit, in.Frames, in.Bytes, in.At = s.last, s.frames, s.bytes, s.at
	if err != nil {
		return err
	}
	if s.closed {
		in.End = EndClosed
	}
	if s.short != "" {
		return s.corrupt(s.short)
	}
	in.torn = s.torn() > 0
	in.survivors, err = s.survivors()
	return err
}

func (in *inspection) damaged(err error) {
	if in.Err == nil {
		in.End, in.Err = EndDamaged, err
	}
}

// joins compares with the next segment, which proves where this one ends.
func (in *inspection) joins(next *inspection) {
	if in.Err != nil || next.First == 0 {
		in.end()
		return
	}
	c := chain{scan: in.scan}
	err := c.joins(next.scan)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) && corrupt.Segment == next.Number {
		next.damaged(err)
	} else if err != nil {
		in.damaged(err)
	}
}

// end is for the newest segment, and for one before a segment without a head.
func (in *inspection) end() {
	switch {
	case in.Err != nil:
	case in.survivors:
		in.damaged(in.scan.corrupt(laterFrames))
	case in.torn:
		in.End = EndTorn
	}
}
