package journal

import (
	"errors"
	"fmt"
	"io"
)

// readAhead is how much a scan reads at once.
const readAhead = 1 << 20

// A scan walks over the frames of one segment. It keeps in memory what it
// reads at once, or one frame if that is longer; never more than the file has.
type scan struct {
	file   io.ReaderAt
	number uint32
	size   int64 // of the file

	head   head
	salted uint32
	at     int64  // where the next frame begins, or would
	last   uint64 // commit of the last frame; before the first: head.first - 1
	frames int64
	bytes  int64  // of payloads
	closed bool   // the last frame says that the log ends here
	short  string // the file was cut short, as a sentence; its frames can be read up to there

	window []byte // what has been read, from the place start on
	start  int64
}

// corrupt is an error at the place the scan has come to.
func (s *scan) corrupt(text string) error {
	return &CorruptError{Segment: s.number, At: s.at, Commit: s.last + 1, Text: text}
}

// readHead reads the first frame. A segment has its name only since its head
// is on the disk, so one that does not read is damaged, even the newest.
func (s *scan) readHead() error {
	b, err := s.peek(0, min(s.size, prefixSize+headSize))
	if err != nil {
		return err
	}
	if len(b) >= 4 && string(b[:3]) == "GWJ" && b[3] != '1' {
		return fmt.Errorf("%w: segment %d begins with %q, this one knows %q", ErrVersion, s.number, b[:4], "GWJ1")
	}
	if len(b) < prefixSize+headSize {
		return s.corrupt("the file was cut short")
	}
	h, ok := parseHeader(b)
	if !ok || h.segment != s.number || h.length > int64(len(b)-headerSize) {
		return s.corrupt("its head cannot be read")
	}
	b = b[:headerSize+h.length]
	if checksum(b, saltSum(0)) != h.sum || kind(b[headerSize]) != kindHead {
		return s.corrupt("its head cannot be read")
	}
	if v := b[headerSize+1]; v != version {
		return fmt.Errorf("%w: segment %d has version %d, this one knows %d", ErrVersion, s.number, v, version)
	}
	if h.length != prefixSize-headerSize+headSize {
		return s.corrupt("its head has the wrong length")
	}
	s.head = parseHead(b[prefixSize:])
	if !validAlign(int64(s.head.align)) || s.head.first == 0 {
		return s.corrupt("its head makes no sense")
	}
	s.salted, s.at, s.last = saltSum(s.head.salt), int64(s.head.align), s.head.first-1
	if uint64(s.size) < s.head.size {
		s.short = fmt.Sprintf("the file was cut short: it has %d bytes of %d", s.size, s.head.size)
	} else {
		s.size = int64(s.head.size)
	}
	return nil
}

// next reads the next group frame. It is false when there is none at the place
// where it would be, and after the frame of Close. An error is one of the
// disk, or ErrVersion.
func (s *scan) next() (Frame, bool, error) {
	if s.closed {
		return Frame{}, false, nil
	}
	b, h, err := s.frame()
	if b == nil || err != nil {
		return Frame{}, false, err
	}
	k, v := kind(b[headerSize]), b[headerSize+1]
	if v != version || k != kindGroup && k != kindClose {
		return Frame{}, false, fmt.Errorf("%w: segment %d has at %d a frame of kind %d, version %d", ErrVersion, s.number, s.at, k, v)
	}
	f := Frame{Segment: s.number, Commit: h.commit, At: s.at + prefixSize, Payload: b[prefixSize:]}
	s.closed = k == kindClose && h.commit == s.last
	if !s.closed && (k == kindClose || h.commit != s.last+1) {
		return Frame{}, false, nil // survivors will find it
	}
	s.at += roundUp(int64(len(b)), int64(s.head.align))
	if s.closed {
		return Frame{}, false, nil
	}
	s.last = h.commit
	s.frames++
	s.bytes += int64(len(f.Payload))
	return f, true, nil
}

// frame is the frame with a good checksum at s.at, or nil.
func (s *scan) frame() ([]byte, header, error) {
	if s.at > s.size-prefixSize {
		return nil, header{}, nil
	}
	b, err := s.peek(s.at, headerSize)
	if err != nil {
		return nil, header{}, err
	}
	h, ok := parseHeader(b)
	if !ok || h.segment != s.number || h.length > s.size-s.at-headerSize {
		return nil, h, nil
	}
	b, err = s.peek(s.at, headerSize+h.length)
	if err != nil || checksum(b, s.salted) != h.sum {
		return nil, h, err
	}
	return b, h, nil
}

// torn is how much of a frame seems to lie at the end of the log: what its
// header says, if there is one.
func (s *scan) torn() int64 {
	if s.closed || s.at > s.size-headerSize {
		return 0
	}
	b, err := s.peek(s.at, headerSize)
	if err != nil {
		return 0
	}
	h, ok := parseHeader(b)
	if !ok || h.segment != s.number || h.commit != s.last+1 {
		return 0
	}
	return min(headerSize+h.length, s.size-s.at)
}

// peek returns n bytes of the file, which must have them, from at on. They
// are lent until the next call.
func (s *scan) peek(at, n int64) ([]byte, error) {
	if at < s.start || at+n > s.start+int64(len(s.window)) {
		if err := s.slide(at, n); err != nil {
			return nil, err
		}
	}
	return s.window[at-s.start:][:n], nil
}

// slide moves the window so that it begins at at and has n bytes or more.
func (s *scan) slide(at, n int64) error {
	want := min(max(n, readAhead), s.size-at)
	var have []byte
	if end := s.start + int64(len(s.window)); at >= s.start && at < end {
		have = s.window[at-s.start:]
	}
	if int64(cap(s.window)) < want {
		s.window = append(make([]byte, 0, want), have...)
	} else {
		s.window = s.window[:copy(s.window[:cap(s.window)], have)]
	}
	s.start = at
	old := len(s.window)
	if int64(old) >= want {
		return nil
	}
	s.window = s.window[:want]
	m, err := s.file.ReadAt(s.window[old:], at+int64(old))
	if old+m < int(want) {
		s.window = s.window[:old+m]
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the directory says that it is longer
		}
		return fmt.Errorf("journal segment %d, read at %d: %w", s.number, at+int64(old+m), err)
	}
	return nil
}
