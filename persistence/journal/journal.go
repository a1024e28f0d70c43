// Package journal is a log of frames on a disk: what Write has returned for
// survives a power cut. It lies in segments, files of one size that are made
// once and used again and again.
//
//	Write -> [roll] -> pwrite -> fdatasync -> the frame is safe
//	            |
//	            spare file: write its head, sync, rename, sync the directory
//
// It knows nothing of what is in a frame. One goroutine writes, one frame at a
// time; any goroutine reads what was written, while it goes on. [Open] reads
// everything back, and either gives every frame that was ever confirmed or
// refuses with a [CorruptError]. What that rests on:
//
//   - The next frame is written only after the one before is synced. So after
//     a frame that a power cut has torn nothing valid can follow (J2), and of
//     what is read back only the last frame may not be on the disk yet (J3).
//   - Commits are numbered without a gap, over all segments (J1).
//   - A segment has its name only once its head is on the disk, and a frame
//     only once its name is. So a segment whose head does not read is damaged.
//   - A failed sync is the end of a Journal (J4).
//
// The layout of a frame is at [magic] and in FORMAT.md.
package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
)

// Options say where a journal is and how large its pieces are.
type Options struct {
	Disk     Disk
	Instance [16]byte // whose journal it is; a segment of another is refused

	// Segment is the size of a new segment in bytes: a multiple of Align, at
	// least 4 of them, at most 1 GiB. Segments of other sizes are read and,
	// once recycled, deleted.
	Segment int64

	// Align is where frames begin: a power of two from 512 to 65,536 bytes;
	// 0 is 4096, the size of a page, so that a frame that is confirmed never
	// shares a page with one that is not.
	Align int64

	// Keep is how many spare files are kept for reuse; at least 1.
	Keep int

	// From says what is needed of the journal.
	From Position

	Log *slog.Logger // nil: silent
}

// A Position is how far somebody has what is in the journal.
type Position struct {
	// Segment is the first one that is still needed; 0: the first there is,
	// if there is any. With another number it is damage that it is missing.
	Segment uint32
	// Commit and all before it are kept elsewhere.
	Commit uint64
}

// A Frame is what Write has written, or Open has read.
type Frame struct {
	Segment uint32
	Commit  uint64
	At      int64  // where in the segment's file Payload begins
	Payload []byte // lent: until the next Buffer, or until replay returns
}

// Recovered says what Open has found from [Position.Segment] on.
type Recovered struct {
	Frames int64
	Bytes  int64  // of their payloads
	Commit uint64 // the last one
	Torn   int64  // bytes of a frame that was under way and has been dropped; 0: none was seen
	Clean  bool   // the journal had been closed
}

// State is how a journal is.
type State struct {
	First   uint32 // the oldest segment
	Segment uint32 // the one that is written; 0: none, for want of space
	Live    int    // segments
	Spare   int    // files to be used again
	Offset  int64  // where in Segment the next frame goes
	Commit  uint64 // the last one

	BytesWritten int64 // with padding, since Open
	Syncs        int64 // of files and of the directory, since Open
	Rolls        int64 // segments begun, since Open
}

// A Journal is an open log. Buffer, Write, Room and Close are called by one
// goroutine, everything else by any.
type Journal struct {
	disk      Disk
	options   Options
	log       *slog.Logger
	recovered Recovered

	// The writer's alone.
	buffer  []byte
	roomy   int      // frames in a row that were much smaller than buffer
	current *segment // nil: none, for want of space; also in live
	salted  uint32   // what current's checksums begin with
	newest  uint32   // the highest number ever used, of segments and of what Cut has put away

	// Read by State.
	writing               atomic.Uint32 // current's number
	offset                atomic.Int64
	commit                atomic.Uint64
	written, syncs, rolls atomic.Int64

	failure   atomic.Pointer[error]
	closed    atomic.Bool
	recycling sync.Mutex // Recycle is under way

	mu     sync.RWMutex // also held, to read, while a segment is read
	live   []*segment   // in order of their numbers
	spares []string     // files of size options.Segment, not open
	spared uint32       // the highest number of a spare's name
}

// A segment is a file of the journal. It is open as long as it is live.
type segment struct {
	number uint32
	size   int64
	file   File
}

// Open reads what there is, in order, and gives every frame from the segment
// From.Segment on to replay, also those up to From.Commit. Then it makes sure
// that the last one is on the disk, and goes on in a segment that has no
// frames. On a full disk it opens too, and Write returns ErrFull.
//
// An error of replay ends Open. After any error Open may be called again: it
// has changed nothing that was confirmed.
func Open(o Options, replay func(Frame) error) (*Journal, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	j := &Journal{disk: o.Disk, options: o, log: o.Log, buffer: make([]byte, prefixSize, o.Align)}
	if err := j.recover(replay); err != nil {
		return nil, errors.Join(err, j.closeFiles())
	}
	return j, nil
}

// complete puts in the defaults and checks the rest.
func (o *Options) complete() error {
	if o.Align == 0 {
		o.Align = 4096
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Keep = max(o.Keep, 1)
	switch {
	case o.Disk == nil:
		return errors.New("journal: Options.Disk is missing")
	case !validAlign(o.Align):
		return fmt.Errorf("journal: Options.Align is %d: it must be a power of two from 512 to 65536", o.Align)
	case o.Segment < 4*o.Align || o.Segment > maxSegment || o.Segment%o.Align != 0:
		return fmt.Errorf("journal: Options.Segment is %d: it must be a multiple of Align (%d), "+
			"at least 4 times as much and at most %d", o.Segment, o.Align, int64(maxSegment))
	}
	return nil
}

const maxSegment = 1 << 30

func validAlign(n int64) bool { return n >= 512 && n <= 65536 && n&(n-1) == 0 }

// Recovered says what Open has found.
func (j *Journal) Recovered() Recovered { return j.recovered }

// Buffer returns the buffer of the next frame. Append the payload to it and
// give it to Write. It is one and the same buffer each time.
func (j *Journal) Buffer() []byte {
	if j.roomy >= 64 { // a large frame long ago
		j.buffer, j.roomy = make([]byte, prefixSize, j.options.Align), 0
	}
	return j.buffer[:prefixSize]
}

// MaxPayload is the longest payload Write takes: about half a segment, since
// a frame is never divided.
func (j *Journal) MaxPayload() int { return int(j.options.Segment/2) - prefixSize }

// Room is how many bytes of payload the current segment still takes. What is
// longer goes into the next segment.
func (j *Journal) Room() int64 {
	if j.current == nil {
		return 0
	}
	return max(0, j.room()-prefixSize)
}

// room is what is left for frames. The last place is kept for the frame that
// Close writes.
func (j *Journal) room() int64 {
	return j.current.size - j.options.Align - j.offset.Load()
}

// Write makes a frame durable: when it returns nil, a power cut does not take
// it away. buf is a Buffer with the payload appended.
//
// After ErrFull nothing has happened and the next Write may succeed. After
// ErrFailed nothing ever does.
func (j *Journal) Write(buf []byte) (Frame, error) {
	if err := j.usable(); err != nil {
		return Frame{}, err
	}
	if len(buf)-prefixSize > j.MaxPayload() {
		return Frame{}, fmt.Errorf("%w: %d bytes, and %d at most", ErrTooLarge, len(buf)-prefixSize, j.MaxPayload())
	}
	if j.current == nil || int64(len(buf)) > j.room() {
		if err := j.roll(); err != nil {
			return Frame{}, err
		}
	}
	f := Frame{
		Segment: j.current.number, Commit: j.commit.Load() + 1,
		At: j.offset.Load() + prefixSize, Payload: buf[prefixSize:],
	}
	seal(buf, kindGroup, f.Segment, f.Commit, j.salted)
	if err := j.append(buf); err != nil {
		return Frame{}, err
	}
	j.commit.Store(f.Commit)
	return f, nil
}

// append puts a sealed frame where the last one ends, and waits for the disk.
func (j *Journal) append(frame []byte) error {
	padded := pad(frame, j.options.Align)
	j.keep(padded)
	if err := j.put(padded, j.offset.Load()); err != nil {
		return err
	}
	if err := j.sync(j.current.file); err != nil {
		return err
	}
	j.offset.Add(int64(len(padded)))
	return nil
}

// keep lets buf be the next Buffer, and notices if it is far too large.
func (j *Journal) keep(buf []byte) {
	j.buffer = buf
	if cap(buf) > 1<<20 && len(buf) < cap(buf)/4 {
		j.roomy++
	} else {
		j.roomy = 0
	}
}

// put writes a padded frame at its place. If it does not go on the disk for
// want of space, no part of it may come back at the next start: a write that
// was cut short can be a whole frame, where zeros were to follow on zeros.
func (j *Journal) put(padded []byte, at int64) error {
	n, err := j.current.file.WriteAt(padded, at)
	j.written.Add(int64(n))
	switch {
	case err == nil:
		return nil
	case !isFull(err):
		return j.fail("write a frame", err)
	case n > 0:
		if _, wipe := j.current.file.WriteAt(zeros[:min(int64(len(zeros)), j.options.Align)], at); wipe != nil {
			return j.fail("take back a frame that did not fit", wipe)
		}
		if err := j.sync(j.current.file); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: write a frame: %w", ErrFull, err)
}

// sync waits until the disk has a file.
func (j *Journal) sync(f File) error {
	if err := f.Sync(); err != nil {
		return j.fail("sync a segment", err)
	}
	j.syncs.Add(1)
	return nil
}

// syncNames waits until the disk has the directory.
func (j *Journal) syncNames() error {
	if err := j.disk.Sync(); err != nil {
		return j.fail("sync the directory", err)
	}
	j.syncs.Add(1)
	return nil
}

// fail is the end: every later call returns what it returns (J4).
func (j *Journal) fail(what string, cause error) error {
	err := fmt.Errorf("%w: %s: %w; nothing more is written: check the disk and start again", ErrFailed, what, cause)
	if j.failure.CompareAndSwap(nil, &err) {
		j.log.Error("journal: the disk has failed", slog.String("while", what), slog.Any("err", cause))
	}
	return *j.failure.Load()
}

// usable returns why nothing can be written any more, or nil.
func (j *Journal) usable() error {
	if err := j.failure.Load(); err != nil {
		return *err
	}
	if j.closed.Load() {
		return ErrClosed
	}
	return nil
}

// ReadAt reads what was written to a segment, len(p) bytes or an error. It
// never gives what a file held before it was, or after it will be, that
// segment.
func (j *Journal) ReadAt(number uint32, p []byte, at int64) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed.Load() {
		return ErrClosed
	}
	s := j.find(number)
	if s == nil {
		return fmt.Errorf("%w: %d", ErrRecycled, number)
	}
	if at < 0 || at > s.size-int64(len(p)) {
		return fmt.Errorf("bug: journal segment %d has %d bytes, asked for %d at %d", number, s.size, len(p), at)
	}
	if n, err := s.file.ReadAt(p, at); n < len(p) {
		return fmt.Errorf("journal segment %d, read at %d: %w", number, at, err)
	}
	return nil
}

// find is the live segment of that number, or nil. j.mu is held.
func (j *Journal) find(number uint32) *segment {
	low, high := 0, len(j.live)
	for low < high {
		if mid := (low + high) / 2; j.live[mid].number < number {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == len(j.live) || j.live[low].number != number {
		return nil
	}
	return j.live[low]
}

// State says how the journal is now.
func (j *Journal) State() State {
	j.mu.RLock()
	defer j.mu.RUnlock()
	s := State{
		Segment: j.writing.Load(), Live: len(j.live), Spare: len(j.spares),
		Offset: j.offset.Load(), Commit: j.commit.Load(),
		BytesWritten: j.written.Load(), Syncs: j.syncs.Load(), Rolls: j.rolls.Load(),
	}
	if len(j.live) > 0 {
		s.First = j.live[0].number
	}
	return s
}

// Close writes that the log ends here, so that a tail lost later is told from
// a frame that was under way. A disk that is full does not prevent it.
func (j *Journal) Close() error {
	j.recycling.Lock() // let it finish
	defer j.recycling.Unlock()
	err := j.usable()
	if err == nil && j.current != nil {
		frame := j.Buffer()
		seal(frame, kindClose, j.current.number, j.commit.Load(), j.salted)
		if err = j.append(frame); errors.Is(err, ErrFull) {
			err = nil
		}
	}
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return errors.Join(err, j.closeFiles())
}

func (j *Journal) closeFiles() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, s := range j.live {
		if s.file != nil {
			errs = append(errs, s.file.Close())
		}
	}
	j.live = nil
	j.closed.Store(true)
	return errors.Join(errs...)
}
