package journal

import (
	"errors"
	"fmt"
)

// Frames gives each the frames from a position up to the commit last, which
// has to be written already, in order. It may be called while writing goes on,
// by any goroutine, and checks what it reads as Open does: it gives all of
// these frames or returns an error. Frames up to from.Commit are left out.
// Nobody may Recycle what it reads meanwhile: that is ErrRecycled.
func (j *Journal) Frames(from Position, last uint64, each func(Frame) error) error {
	if written := j.commit.Load(); last > written {
		return fmt.Errorf("bug: asked for the journal up to commit %d, it has %d", last, written)
	}
	if last <= from.Commit {
		return nil
	}
	c := chain{from: from, instance: j.options.Instance, replay: func(f Frame) error {
		if f.Commit > from.Commit {
			if err := each(f); err != nil {
				return err
			}
		}
		if f.Commit == last { // what follows may be under way
			return errLast
		}
		return nil
	}}
	for _, s := range j.liveFrom(from.Segment) {
		if err := c.follow(&segment{number: s.number, size: s.size, file: lent{s.file, j, s.number}}); err != nil {
			if errors.Is(err, errLast) {
				return nil
			}
			return err
		}
	}
	if c.scan == nil {
		return &CorruptError{Segment: from.Segment, Commit: from.Commit + 1, Text: "the segment is missing, and all after it"}
	}
	return c.scan.corrupt(fmt.Sprintf("a frame cannot be read, although commit %d was written", last))
}

var errLast = errors.New("the last frame that was asked for")

func (j *Journal) liveFrom(number uint32) (some []*segment) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for _, s := range j.live {
		if s.number >= number {
			some = append(some, s)
		}
	}
	return some
}

// A lent file is read through the journal, which knows whether it still is
// that segment.
type lent struct {
	File
	j      *Journal
	number uint32
}

func (l lent) ReadAt(p []byte, at int64) (int, error) {
	if err := l.j.ReadAt(l.number, p, at); err != nil {
		return 0, err
	}
	return len(p), nil
}
