package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// recover reads what there is and makes the journal ready to be written.
func (j *Journal) recover(replay func(Frame) error) error {
	if err := j.look(); err != nil {
		return err
	}
	c := chain{from: j.options.From, instance: j.options.Instance, replay: replay}
	for _, s := range j.live {
		if s.number < j.options.From.Segment {
			continue // kept for Recycle; nobody needs what is in it
		}
		if err := c.follow(s); err != nil {
			return err
		}
	}
	if err := c.end(); err != nil {
		return err
	}
	if c.scan == nil && j.lost() {
		return &CorruptError{
			Segment: j.options.From.Segment, Commit: j.options.From.Commit + 1,
			Text: "the segment is missing, and all after it",
		}
	}
	j.recovered = c.found
	j.commit.Store(max(c.found.Commit, j.options.From.Commit))
	if c.found.Torn > 0 {
		j.log.Info("journal: the last run ended while it wrote a frame; that frame was never confirmed and is dropped",
			slog.Int64("bytes", c.found.Torn), slog.Uint64("commit", c.found.Commit+1))
	}
	if err := j.syncNames(); err != nil {
		return err
	}
	if err := j.settle(&c); err != nil {
		return err
	}
	return j.begin(&c)
}

// look finds the files, opens the segments, and deletes spare files that are
// of no use.
func (j *Journal) look() error {
	entries, err := j.disk.List()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range entries {
		if n, ok := fileNumber(e.Name, liveExt); ok {
			f, err := j.disk.Open(e.Name)
			if err != nil {
				return fmt.Errorf("journal: %w", err)
			}
			j.live = append(j.live, &segment{number: n, size: e.Size, file: f})
			j.newest = max(j.newest, n)
		} else if n, ok := fileNumber(e.Name, cutExt); ok {
			j.newest = max(j.newest, n)
		} else if n, ok := fileNumber(e.Name, spareExt); ok {
			j.spared = max(j.spared, n)
			if err := j.lookAtSpare(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (j *Journal) lookAtSpare(e Entry) error {
	if e.Size == j.options.Segment && len(j.spares) < j.options.Keep {
		j.spares = append(j.spares, e.Name)
		return nil
	}
	if err := j.disk.Remove(e.Name); err != nil {
		return j.fail("delete a spare segment", err)
	}
	return nil
}

// lost says whether there should be a segment, when none that is needed was
// found. Where Cut has put one away it was the operator's word.
func (j *Journal) lost() bool {
	return j.options.From.Segment > 0 && j.newest < j.options.From.Segment
}

// A chain is the frames of one segment after another.
type chain struct {
	from     Position
	instance [16]byte
	replay   func(Frame) error

	scan   *scan    // of the newest segment so far
	newest *segment // it
	found  Recovered

	last lastFrame
}

// A lastFrame says where the last frame is. The zero value: there is none.
type lastFrame struct {
	in     *segment
	at     int64 // where its header begins
	size   int64 // without padding
	align  int64
	salted uint32
}

// follow goes on with the next segment.
func (c *chain) follow(s *segment) error {
	next := &scan{file: s.file, number: s.number, size: s.size}
	if c.scan != nil {
		next.window, c.scan.window = c.scan.window[:0], nil
	}
	if err := next.readHead(); err != nil {
		return err
	}
	if next.head.instance != c.instance {
		return fmt.Errorf("%w: segment %d is of instance %x, this one is %x: it was copied here, or the rest of the store was",
			ErrInstance, s.number, next.head.instance, c.instance)
	}
	if err := c.joins(next); err != nil {
		return err
	}
	c.scan, c.newest = next, s
	if err := c.frames(); err != nil {
		return err
	}
	if next.short != "" {
		return next.corrupt(next.short)
	}
	return nil
}

// joins checks that no commit is missing before a segment's first, but for
// those that are kept elsewhere (J1). That first one also proves where the
// segment before it ended, so that what a power cut left there is no matter.
func (c *chain) joins(next *scan) error {
	first := next.head.first
	if c.scan == nil {
		if first > c.from.Commit+1 {
			next.last = c.from.Commit
			return next.corrupt(fmt.Sprintf("the journal begins with commit %d: those before it are missing", first))
		}
		return nil
	}
	switch last := c.scan.last; {
	case first > max(last, c.from.Commit)+1:
		return c.scan.corrupt(fmt.Sprintf("a frame cannot be read; the next segment, %d, begins with commit %d", next.number, first))
	case first <= last:
		return next.corrupt(fmt.Sprintf("segment %d already has the commits from %d to %d", c.scan.number, first, last))
	}
	return nil
}

// frames gives every frame of the segment to replay.
func (c *chain) frames() error {
	for {
		f, ok, err := c.scan.next()
		if err != nil || !ok {
			return err
		}
		if err := c.replay(f); err != nil {
			return err
		}
		c.found.Frames++
		c.found.Bytes += int64(len(f.Payload))
		c.last = lastFrame{
			in: c.newest, at: f.At - prefixSize, size: int64(prefixSize + len(f.Payload)),
			align: int64(c.scan.head.align), salted: c.scan.salted,
		}
	}
}

const laterFrames = "a frame cannot be read, although later ones can"

// end looks at where the newest segment ends: a frame that was under way is
// legal there, unless something that was written later can be read (J2).
func (c *chain) end() error {
	if c.scan == nil {
		return nil
	}
	c.found.Commit, c.found.Clean, c.found.Torn = c.scan.last, c.scan.closed, c.scan.torn()
	found, err := c.scan.survivors()
	if err == nil && found {
		err = c.scan.corrupt(laterFrames)
	}
	return err
}

// settle makes sure that the disk has what has been read (J3). The last frame
// may have come from memory, where a kill left it before its sync, or a sync
// that failed did: were it not on the disk, a later power cut would leave a
// gap. And the disk may have a frame that memory has not any more, one that
// was taken back: it must not come back when others have its number. So the
// last frame is written once more, and the place after it marked as empty.
func (j *Journal) settle(c *chain) error {
	if err := j.writeAgain(c.last); err != nil {
		return err
	}
	if err := j.markEnd(c); err != nil {
		return err
	}
	if c.last.in != nil {
		if err := j.sync(c.last.in.file); err != nil {
			return err
		}
	}
	if c.newest != nil && c.newest != c.last.in {
		return j.sync(c.newest.file)
	}
	return nil
}

func (j *Journal) writeAgain(f lastFrame) error {
	if f.in == nil {
		return nil
	}
	b := make([]byte, f.size, roundUp(f.size, f.align))
	if n, err := f.in.file.ReadAt(b, f.at); n < len(b) {
		return fmt.Errorf("journal segment %d, read at %d: %w", f.in.number, f.at, err)
	}
	if h, _ := parseHeader(b); checksum(b, f.salted) != h.sum {
		return &CorruptError{
			Segment: f.in.number, At: f.at, Commit: h.commit,
			Text: "the disk gives other bytes when it is read again",
		}
	}
	n, err := f.in.file.WriteAt(pad(b, f.align), f.at)
	j.written.Add(int64(n))
	if err != nil {
		return j.failUnlessFull("write the last frame again", err)
	}
	return nil
}

// markEnd lets no frame begin where the log ends. It changes the magic number
// alone: if that was a confirmed frame which the disk has damaged, people can
// still look at it.
func (j *Journal) markEnd(c *chain) error {
	if c.scan == nil || c.scan.closed || c.scan.at+int64(c.scan.head.align) > c.scan.size {
		return nil
	}
	b, err := c.scan.peek(c.scan.at, int64(c.scan.head.align))
	if err != nil {
		return err
	}
	clear(b[:4])
	n, err := c.newest.file.WriteAt(b, c.scan.at)
	j.written.Add(int64(n))
	if err != nil {
		return j.failUnlessFull("mark the end of the log", err)
	}
	return nil
}

// begin goes on in a segment without frames: the newest if it has none, so
// that starts without work between them do not use up the disk, or a new one.
func (j *Journal) begin(c *chain) error {
	if s := c.scan; s != nil && s.head.first == j.commit.Load()+1 && // so it has none
		s.size == j.options.Segment && int64(s.head.align) == j.options.Align {
		j.goOnIn(c.newest, s.head.salt)
		return j.ensureSpare()
	}
	err := j.roll()
	if errors.Is(err, ErrFull) {
		j.log.Warn("journal: no space for a segment; it can be read, and written when there is space", slog.Any("err", err))
		return nil
	}
	return err
}
