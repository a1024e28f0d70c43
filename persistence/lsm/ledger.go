package lsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// A ledger sees to it that each table that Badger begins comes to be.
//
// If a compaction cannot make one of its tables, because no file descriptor is
// left for it or the disk does not take it, Badger 4.9.6 loses the error on the
// way, makes do with the other tables, and removes those that it read: the keys
// are gone, and nobody is told. But tables have numbers, one after the other,
// and each is named in the manifest when it is there; so a number that is left
// out is a table that was lost. (A number whose compaction failed as a whole is
// left out, too; but that Badger does say, and then we go no further.)
type ledger struct {
	mu     sync.Mutex
	dir    string
	file   os.FileInfo          // the manifest; it is replaced when it has grown
	offset int64                // of what has been read of it
	next   uint64               // all numbers below are accounted for
	named  map[uint64]bool      // numbers from next up that the manifest has named
	absent map[uint64]time.Time // since when the others have been missed
}

// How long a number may be missing while tables are made: between its giving
// out and the making of its file, and from then to the manifest.
const (
	patienceForFile  = 10 * time.Second
	patienceForTable = 10 * time.Minute
)

// damagedName is a file that says why the database is not to be opened again.
const damagedName = "DAMAGED"

// start begins with the manifest as it is, before Badger opens it: tables are
// the ones that it names, read is how far.
func (l *ledger) start(dir string, tables []uint64, read int64) {
	*l = ledger{dir: dir, offset: read, next: 1, named: map[uint64]bool{}, absent: map[uint64]time.Time{}}
	for _, id := range tables {
		l.next = max(l.next, id+1)
	}
	l.file, _ = os.Stat(l.manifest())
}

func (l *ledger) manifest() string { return filepath.Join(l.dir, badger.ManifestFilename) }

// look reads on in the manifest and returns the numbers of tables that were
// lost. When nothing is under way, quiet, all that are missing are.
func (l *ledger) look(now time.Time, quiet bool) (lost []uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.readOn(); err != nil {
		return nil, fmt.Errorf("read the list of tables: %w", err)
	}
	last := l.next
	for id := range l.named {
		last = max(last, id)
	}
	for id := l.next; id <= last; id++ {
		switch {
		case l.named[id]:
			delete(l.absent, id)
			if id == l.next {
				delete(l.named, id)
				l.next++
			}
		case id < last && l.isLost(id, now, quiet):
			lost = append(lost, id)
		}
	}
	return lost, nil
}

func (l *ledger) isLost(id uint64, now time.Time, quiet bool) bool {
	since, known := l.absent[id]
	if !known {
		l.absent[id] = now
		since = now
	}
	patience := patienceForTable
	if _, err := os.Stat(table.NewFilename(id, l.dir)); errors.Is(err, os.ErrNotExist) {
		patience = patienceForFile
	}
	return quiet || now.Sub(since) > patience
}

// manifestHead is what a manifest begins with: two words and two versions.
const manifestHead = 8

// readOn reads the changes that have been added. The last may not be whole yet.
func (l *ledger) readOn() error {
	f, err := os.Open(l.manifest())
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	st, err := f.Stat()
	if err != nil {
		return err
	}
	anew := l.file == nil || !os.SameFile(l.file, st) || st.Size() < l.offset
	if anew {
		l.file, l.offset = st, 0
	}
	l.offset = max(l.offset, manifestHead)
	b := make([]byte, max(0, st.Size()-l.offset))
	n, err := f.ReadAt(b, l.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	l.offset += l.changes(b[:n])
	if anew {
		l.forget()
	}
	return nil
}

// forget takes all numbers so far for accounted for. A manifest that was
// written anew, as happens after ten thousand deletions, names only the tables
// that there are.
func (l *ledger) forget() {
	for id := range l.named {
		l.next = max(l.next, id+1)
	}
	clear(l.named)
	clear(l.absent)
}

// changes takes note of whole sets of changes and says how many octets they
// were.
//
//	length u32 | crc32c u32 | set
func (l *ledger) changes(b []byte) (read int64) {
	for len(b) >= 8 {
		n := int64(binary.BigEndian.Uint32(b))
		if n > int64(len(b)-8) {
			break
		}
		set := b[8 : 8+n]
		var c pb.ManifestChangeSet
		if crc32.Checksum(set, y.CastagnoliCrcTable) != binary.BigEndian.Uint32(b[4:]) || proto.Unmarshal(set, &c) != nil {
			break // not whole yet
		}
		for _, change := range c.GetChanges() {
			if id := change.GetId(); change.GetOp() == pb.ManifestChange_CREATE && id >= l.next {
				l.named[id] = true
			}
		}
		read += 8 + n
		b = b[8+n:]
	}
	return read
}

// account fails the database if a table was lost.
func (db *DB) account(quiet bool) error {
	if err := db.failing(); err != nil {
		return err // a failed compaction leaves numbers out
	}
	lost, err := db.ledger.look(time.Now(), quiet)
	if err == nil && len(lost) == 0 {
		return nil
	}
	if err != nil {
		return db.fail(err)
	}
	c := corrupt("Badger could not make %d tables of a compaction, the first of them %s, and lost what should have been in them; %s",
		len(lost), filepath.Base(table.NewFilename(lost[0], db.dir)), advice(db.dir))
	db.condemn(c)
	return db.fail(c)
}

// accountAll waits until what is missing has come to be, or is lost.
func (db *DB) accountAll() error {
	for {
		if err := db.account(false); err != nil {
			return err
		}
		if !db.ledger.waits() {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waits says whether a number is missing for want of a file.
func (l *ledger) waits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.absent {
		if _, err := os.Stat(table.NewFilename(id, l.dir)); errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// condemn leaves a note for the next Open: Badger would not notice.
func (db *DB) condemn(c *CorruptError) {
	f, err := os.OpenFile(filepath.Join(db.dir, damagedName), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.WriteString(c.Text + "\n")
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		db.log.Error("a note about damage could not be left", slog.String("dir", db.dir), slog.Any("err", err))
	}
}

// condemned says why the database is not to be opened, if there is a note.
func (db *DB) condemned() error {
	b, err := os.ReadFile(filepath.Join(db.dir, damagedName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return corrupt("it was found damaged earlier: %.1000s", b)
}
