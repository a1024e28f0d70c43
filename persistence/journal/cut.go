package journal

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Cut lets the log end before the place at of a segment, so that a damaged
// journal can be opened: what is confirmed from there on is given up, on the
// operator's word. Segment and at are what a [CorruptError] says. The journal
// must not be open.
//
// Nothing is deleted: all later segments are renamed to *.cut, and of the
// segment itself a whole copy is kept by such a name. That needs space for two
// segments. When Cut has failed, the log is as it was, or damaged still at
// that place: cut again.
func Cut(d Disk, number uint32, at int64) error {
	files, err := liveFiles(d)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(files, func(e Entry) bool { return e.Name == fileName(number, liveExt) })
	if i < 0 {
		return fmt.Errorf("journal: there is no segment %d", number)
	}
	// A file that was cut short in the padding of a frame ends before the log.
	if at < 0 || at > roundUp(files[i].Size, 65536) {
		return fmt.Errorf("journal segment %d has %d bytes: it cannot end at %d", number, files[i].Size, at)
	}
	c := cutter{disk: d}
	if c.keepsHead(files[i], number, at) {
		if err := c.shorten(files[i], at); err != nil {
			return fmt.Errorf("journal segment %d, cut at %d: %w", number, at, err)
		}
		i++
	}
	return c.putAway(files[i:])
}

// A cutter carries out one Cut.
type cutter struct {
	disk Disk
	size int64 // the segment's, by its head
}

// keepsHead says whether something is left of the segment. It also finds out
// the size it should have, which a file that was cut short has not.
func (c *cutter) keepsHead(e Entry, number uint32, at int64) bool {
	f, err := c.disk.Open(e.Name)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // it was only read
	s := scan{file: f, number: number, size: e.Size}
	if err := s.readHead(); err != nil || at < int64(s.head.align) || s.head.size > maxSegment {
		return false
	}
	c.size = int64(s.head.size)
	return true
}

// shorten puts a file with what lies before at in the segment's place, in one
// step, when the copy of the whole is safe.
func (c *cutter) shorten(e Entry, at int64) error {
	kept, err := c.cutName(e.Name)
	if err != nil {
		return err
	}
	if err := c.copy(e, kept, e.Size, e.Size); err != nil {
		return err
	}
	short := strings.TrimSuffix(kept, cutExt) + ".tmp"
	_ = c.disk.Remove(short) // of a Cut that failed
	if err := c.copy(e, short, c.size, min(at, e.Size)); err != nil {
		return err
	}
	if err := c.disk.Sync(); err != nil {
		return err
	}
	if err := c.disk.Rename(short, e.Name); err != nil {
		return err
	}
	return c.disk.Sync()
}

// putAway renames segments, the newest first: as long as one is left, the log
// has a gap before it and does not open.
func (c *cutter) putAway(files []Entry) error {
	for _, e := range slices.Backward(files) {
		name, err := c.cutName(e.Name)
		if err != nil {
			return err
		}
		if err := c.disk.Rename(e.Name, name); err != nil {
			return fmt.Errorf("journal: put %s away: %w", e.Name, err)
		}
		if err := c.disk.Sync(); err != nil { // in this order also if the power fails
			return err
		}
	}
	return nil
}

// cutName is a name for what is put away of a segment, that no file has.
func (c *cutter) cutName(segment string) (string, error) {
	all, err := c.disk.List()
	if err != nil {
		return "", err
	}
	number := strings.TrimSuffix(segment, liveExt)
	name := number + cutExt
	for n := 2; slices.ContainsFunc(all, func(e Entry) bool { return e.Name == name }); n++ {
		name = number + "-" + strconv.Itoa(n) + cutExt
	}
	return name, nil
}

// copy makes a file of size bytes with the first n bytes of another. What the
// disk cannot read becomes zeros.
func (c *cutter) copy(e Entry, to string, size, n int64) (err error) {
	in, err := c.disk.Open(e.Name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	out, err := c.disk.Create(to, size)
	if err != nil {
		return err
	}
	defer func() {
		if closing := out.Close(); err == nil {
			err = closing
		}
	}()
	b := make([]byte, 512) // what a disk loses, it loses by sectors
	chunk := make([]byte, readAhead)
	for at := int64(0); at < n; at += int64(len(chunk)) {
		part := chunk[:min(int64(len(chunk)), n-at)]
		if m, _ := in.ReadAt(part, at); m < len(part) {
			readSectors(in, part, at, b)
		}
		if _, err := out.WriteAt(part, at); err != nil {
			return err
		}
	}
	return out.Sync()
}

// readSectors reads what can be read of part, sector by sector.
func readSectors(in File, part []byte, at int64, sector []byte) {
	clear(part)
	for i := 0; i < len(part); i += len(sector) {
		m, _ := in.ReadAt(sector[:min(len(sector), len(part)-i)], at+int64(i))
		copy(part[i:], sector[:m])
	}
}
