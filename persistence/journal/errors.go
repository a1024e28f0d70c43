package journal

import (
	"errors"
	"fmt"
)

var (
	// ErrFull means that the disk has no space for the frame. Nothing
	// happened: its commit number is not used, and a later Write may succeed.
	ErrFull = errors.New("the journal's disk is full")

	// ErrFailed means that a write or a sync has failed. Whether the frame is
	// on the disk is not known before the next Open, and this Journal accepts
	// nothing any more: a second sync may report success for pages the first
	// one dropped. It wraps the cause.
	ErrFailed = errors.New("the journal's disk has failed")

	// ErrRecycled means that a segment is not there any more.
	ErrRecycled = errors.New("that segment of the journal is not there any more")

	// ErrTooLarge means that a payload is over [Journal.MaxPayload].
	ErrTooLarge = errors.New("the frame is larger than the journal takes")

	// ErrClosed means that Close has been called.
	ErrClosed = errors.New("the journal is closed")

	// ErrInstance means that the journal belongs to another store.
	ErrInstance = errors.New("the journal belongs to another store")

	// ErrVersion means that a later Godwit has written it.
	ErrVersion = errors.New("the journal has a format that this Godwit does not know")
)

// A CorruptError says where the journal is not what was written. Segment and
// At are what [Cut] takes to let the log end there.
type CorruptError struct {
	Segment uint32
	At      int64  // bytes from the beginning of the segment's file
	Commit  uint64 // the first commit that cannot be read
	Text    string // what is wrong there
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("journal segment %d at %d, commit %d: %s; nothing was changed: restore a backup, "+
		"or let the log end there with: godwit store repair DIR", e.Segment, e.At, e.Commit, e.Text)
}
