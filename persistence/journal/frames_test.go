package journal_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/godwitmq/godwit/persistence/journal"
)

// between reads the frames of a range.
func between(j *journal.Journal, from journal.Position, last uint64) ([]got, error) {
	var all []got
	err := j.Frames(from, last, func(f journal.Frame) error {
		all = append(all, got{f.Segment, f.Commit, f.At, string(f.Payload)})
		return nil
	})
	return all, err
}

// What was written is read again while the journal goes on, over the ends of
// segments, and no further than was asked.
func TestFrames(t *testing.T) {
	d := newDisk()
	j := mustOpen(t, small(d))
	defer mustClose(t, j)
	mustWrite(t, j, "1", "2", "3", "4", "5", "6", "7", "8")
	for _, c := range []struct {
		from journal.Position
		last uint64
		want string
	}{
		{journal.Position{}, 8, "1 2 3 4 5 6 7 8"},
		{journal.Position{Segment: 1}, 5, "1 2 3 4 5"},
		{journal.Position{Segment: 2, Commit: 3}, 8, "4 5 6 7 8"},
		{journal.Position{Segment: 1, Commit: 4}, 7, "5 6 7"},
		{journal.Position{Segment: 3, Commit: 8}, 8, ""},
	} {
		all, err := between(j, c.from, c.last)
		if err != nil || payloads(all) != c.want {
			t.Errorf("from %+v to %d: %q, %v; want %q", c.from, c.last, payloads(all), err, c.want)
		}
	}
	if all, err := between(j, journal.Position{}, 9); err == nil || len(all) > 0 || errors.As(err, new(*journal.CorruptError)) {
		t.Errorf("up to what was never written: %d frames, %v", len(all), err)
	}
	enough := errors.New("enough")
	if err := j.Frames(journal.Position{}, 8, func(journal.Frame) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("the caller's error became %v", err)
	}
}

// A frame that cannot be read, or is not there any more, is an error and no
// gap.
func TestFramesMissing(t *testing.T) {
	for at := 1; at <= 8; at++ {
		t.Run(fmt.Sprint("frame ", at), func(t *testing.T) {
			d := newDisk()
			j := mustOpen(t, small(d))
			mustWrite(t, j, "1", "2", "3", "4", "5", "6", "7", "8")
			f, err := d.Open(segmentName(uint32((at-1)/3 + 1)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("x"), int64((at-1)%3+1)*4096+journal.PrefixSize); err != nil {
				t.Fatal(err)
			}
			all, err := between(j, journal.Position{}, 8)
			if c := new(journal.CorruptError); !errors.As(err, &c) || c.Commit != uint64(at) || len(all) != at-1 {
				t.Errorf("%d frames, %v", len(all), err)
			}
		})
	}
	j := mustOpen(t, small(newDisk()))
	defer mustClose(t, j)
	mustWrite(t, j, "1", "2", "3", "4", "5", "6", "7", "8")
	err := j.Frames(journal.Position{}, 8, func(f journal.Frame) error {
		if f.Commit == 1 {
			return j.Recycle(3)
		}
		return nil
	})
	if !errors.Is(err, journal.ErrRecycled) {
		t.Errorf("recycled meanwhile: %v", err)
	}
	if _, err := between(j, journal.Position{Segment: 1}, 8); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("of a journal without its beginning: %v", err)
	}
}
