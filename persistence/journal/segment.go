package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
)

// The names of a journal's files. Everything else in the directory is left
// alone.
const (
	liveExt  = ".jnl"  // a segment: its number in ten digits
	spareExt = ".free" // a file to be used again; its number means nothing
	cutExt   = ".cut"  // what Cut has put away; it belongs to the operator
)

// fileName is a number in ten digits and an extension.
func fileName(number uint32, ext string) string {
	s := strconv.FormatUint(uint64(number), 10)
	return strings.Repeat("0", 10-len(s)) + s + ext
}

// fileNumber is the number of a file with that extension.
func fileNumber(name, ext string) (uint32, bool) {
	digits, ok := strings.CutSuffix(name, ext)
	if !ok || len(digits) != 10 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err == nil && fileName(uint32(n), ext) == name
}

// roll goes on in a new segment. The order keeps three promises: a file has
// the name of a segment only once its head is on the disk; no frame is written
// before that name is on the disk; and a spare is written to only after its
// own name is (Recycle), so it is not found under the name it had before.
func (j *Journal) roll() error {
	if j.newest == math.MaxUint32 {
		return fmt.Errorf("%w: it has used all numbers of segments", ErrFull)
	}
	number := j.newest + 1
	spare, err := j.takeSpare()
	if err != nil {
		return err
	}
	salt, err := j.writeHead(spare, number)
	if err == nil {
		err = j.rename(spare, fileName(number, liveExt))
	}
	if err != nil {
		j.giveSpares(spare)
		return err
	}
	if err := j.syncNames(); err != nil {
		return err
	}
	if err := j.adopt(number, salt); err != nil {
		return err
	}
	j.rolls.Add(1)
	return j.ensureSpare()
}

// adopt makes the newest segment the one that is written.
func (j *Journal) adopt(number uint32, salt uint64) error {
	f, err := j.disk.Open(fileName(number, liveExt))
	if err != nil {
		return j.fail("open a segment", err)
	}
	s := &segment{number: number, size: j.options.Segment, file: f}
	j.mu.Lock()
	j.live = append(j.live, s)
	j.mu.Unlock()
	j.goOnIn(s, salt)
	return nil
}

// goOnIn lets the next frame be the first of s.
func (j *Journal) goOnIn(s *segment, salt uint64) {
	j.current, j.salted, j.newest = s, saltSum(salt), max(j.newest, s.number)
	j.offset.Store(j.options.Align)
	j.writing.Store(s.number)
}

// writeHead makes a spare ready to be a segment, and closes it.
func (j *Journal) writeHead(spare string, number uint32) (salt uint64, err error) {
	f, err := j.disk.Open(spare)
	if err != nil {
		return 0, j.fail("open a spare segment", err)
	}
	defer func() {
		if closing := f.Close(); err == nil && closing != nil {
			err = j.fail("close a spare segment", closing)
		}
	}()
	h := head{
		instance: j.options.Instance, first: j.commit.Load() + 1,
		align: uint32(j.options.Align), salt: newSalt(), size: uint64(j.options.Segment),
	}
	frame := pad(sealedHead(&h, number), j.options.Align)
	n, err := f.WriteAt(frame, 0)
	j.written.Add(int64(n))
	if err != nil {
		return 0, j.failUnlessFull("write the head of a segment", err)
	}
	return h.salt, j.sync(f)
}

func sealedHead(h *head, number uint32) []byte {
	frame := h.appendTo(make([]byte, prefixSize))
	seal(frame, kindHead, number, 0, saltSum(0))
	return frame
}

// newSalt is random; a client must not guess it.
func newSalt() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return le.Uint64(b[:])
}

func (j *Journal) rename(from, to string) error {
	if err := j.disk.Rename(from, to); err != nil {
		return j.failUnlessFull("rename a segment", err)
	}
	return nil
}

// failUnlessFull is for what had no effect if the disk was full.
func (j *Journal) failUnlessFull(what string, err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: %s: %w", ErrFull, what, err)
	}
	return j.fail(what, err)
}

// takeSpare returns the name of a spare file, one made now if there is none.
func (j *Journal) takeSpare() (string, error) {
	if name := j.popSpare(); name != "" {
		return name, nil
	}
	return j.makeSpare()
}

func (j *Journal) popSpare() (name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.spares); n > 0 {
		name, j.spares = j.spares[n-1], j.spares[:n-1]
	}
	return name
}

func (j *Journal) giveSpares(names ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spares = append(j.spares, names...)
}

func (j *Journal) makeSpare() (string, error) {
	name := j.spareName()
	f, err := j.disk.Create(name, j.options.Segment)
	if err != nil {
		return "", j.failUnlessFull("allocate a segment", err)
	}
	if err := f.Close(); err != nil {
		return "", j.fail("allocate a segment", err)
	}
	return name, nil
}

// spareName is one that no file has.
func (j *Journal) spareName() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spared++
	return fileName(j.spared, spareExt)
}

// ensureSpare tries to have a spare file, so that acknowledgements still find
// a place when the disk is full. Without space it does without.
func (j *Journal) ensureSpare() error {
	if j.State().Spare > 0 {
		return nil
	}
	name, err := j.makeSpare()
	if errors.Is(err, ErrFull) {
		j.log.Warn("journal: no space for a spare segment", slog.Any("err", err))
		return nil
	}
	if err != nil {
		return err
	}
	j.giveSpares(name)
	return nil
}

// Recycle says that nobody needs the segments below before any more. Their
// files are used again; what is over Options.Keep is deleted. The segment that
// is written stays. One goroutine at a time.
func (j *Journal) Recycle(before uint32) error {
	j.recycling.Lock()
	defer j.recycling.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	gone := j.dropLive(before)
	if len(gone) == 0 {
		return nil
	}
	var spares []string
	keep := j.options.Keep - j.State().Spare
	for _, s := range gone {
		if err := s.file.Close(); err != nil {
			return j.fail("close a segment", err)
		}
		if s.size != j.options.Segment || len(spares) >= keep {
			if err := j.disk.Remove(fileName(s.number, liveExt)); err != nil {
				return j.fail("delete a segment", err)
			}
			continue
		}
		name := j.spareName()
		if err := j.rename(fileName(s.number, liveExt), name); err != nil {
			return err
		}
		spares = append(spares, name)
	}
	if err := j.syncNames(); err != nil {
		return err
	}
	j.giveSpares(spares...)
	return nil
}

// dropLive takes the segments below before out of live. No reader has them
// any more when it returns.
func (j *Journal) dropLive(before uint32) []*segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for n < len(j.live)-1 && j.live[n].number < before {
		n++
	}
	gone := j.live[:n:n]
	j.live = append([]*segment(nil), j.live[n:]...)
	return gone
}
