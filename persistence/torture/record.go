package torture

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A record is what survives a power cut elsewhere: the seed, and what was
// confirmed. A file and a connection hold the same lines:
//
//	godwit torture 1 seed 42 profile edge
//	c 0 17
//	c 1 12
//
// A later line of a partition says that all up to its number was confirmed.
type record struct {
	seed      uint64
	profile   string
	confirmed []uint64
}

const recordHead = "godwit torture 1 seed %d profile %s\n"

func (r record) head() string {
	profile := r.profile
	if profile == "" {
		profile = "auto"
	}
	return fmt.Sprintf(recordHead, r.seed, profile)
}

// longestLine bounds what is taken from a connection at once.
const longestLine = 128

// readRecord reads a record to its end. A torn last line is left out.
func readRecord(from io.Reader) (record, error) {
	r := record{confirmed: make([]uint64, partitions)}
	lines := bufio.NewReaderSize(from, longestLine)
	if err := r.readHead(lines); err != nil {
		return r, err
	}
	for {
		more, err := r.readLine(lines)
		if err != nil || !more {
			return r, err
		}
	}
}

func (r *record) readHead(lines *bufio.Reader) error {
	text, err := lines.ReadSlice('\n')
	if err != nil {
		return errors.New("not a record of godwit torture: its first line is missing")
	}
	if _, err := fmt.Sscanf(string(text), recordHead, &r.seed, &r.profile); err != nil {
		return fmt.Errorf("not a record of godwit torture: it begins %q", text)
	}
	if r.profile == "auto" {
		r.profile = ""
	}
	return nil
}

// readLine takes one line; false: that was all.
func (r *record) readLine(lines *bufio.Reader) (more bool, err error) {
	text, err := lines.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the record: %w", err)
	}
	var part int
	var n uint64
	if _, err := fmt.Sscanf(string(text), "c %d %d\n", &part, &n); err != nil || part < 0 || part >= len(r.confirmed) {
		return false, fmt.Errorf("the record has the line %q", text)
	}
	r.confirmed[part] = max(r.confirmed[part], n)
	return true, nil
}

// loadRecord reads a file; ok is false if there is none, or nothing in it.
func loadRecord(path string) (r record, ok bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	defer func() { _ = f.Close() }() // it was read
	if st, err := f.Stat(); err == nil && st.Size() == 0 {
		return r, false, nil
	}
	if r, err = readRecord(f); err != nil {
		return r, false, fmt.Errorf("%s: %w", path, err)
	}
	return r, true, nil
}

// A recordFile grows, and is flushed at most each flushRecordEach: what is not
// yet flushed in a power cut was confirmed and is not counted.
type recordFile struct {
	f       *os.File
	flushed time.Time
}

const flushRecordEach = 100 * time.Millisecond

// appendRecord opens the file to go on with it, after a torn line too.
func appendRecord(path string, r record) (*recordFile, error) {
	old, there, err := loadRecord(path)
	if err != nil {
		return nil, err
	}
	if there && (old.seed != r.seed || old.profile != r.profile) {
		return nil, fmt.Errorf("%s is the record of another run (seed %d): name another file, or say --seed %d", path, old.seed, old.seed)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	at, err := endOfLines(f)
	if err == nil {
		err = f.Truncate(at)
	}
	if err == nil {
		_, err = f.Seek(at, io.SeekStart)
	}
	if err == nil && !there {
		_, err = f.WriteString(r.head())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &recordFile{f: f}, nil
}

// endOfLines is where the last whole line ends.
func endOfLines(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	b := make([]byte, min(st.Size(), longestLine))
	if _, err := f.ReadAt(b, st.Size()-int64(len(b))); err != nil {
		return 0, err
	}
	for i := len(b); i > 0; i-- {
		if b[i-1] == '\n' {
			return st.Size() - int64(len(b)-i), nil
		}
	}
	return 0, nil
}

func (w *recordFile) write(lines []byte) error {
	if _, err := w.f.Write(lines); err != nil {
		return err
	}
	if time.Since(w.flushed) < flushRecordEach {
		return nil
	}
	w.flushed = time.Now()
	return flush(w.f)
}

func (w *recordFile) close() error { return errors.Join(flush(w.f), w.f.Close()) }
