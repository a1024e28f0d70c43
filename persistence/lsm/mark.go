package lsm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Mark says that a checkpoint is whole, and up to where in the journal the
// database therefore has everything.
type Mark struct {
	Checkpoint uint64
	Segment    uint32
	Commit     uint64
	// Txn is the number of the mark's own transaction: all up to it belong to
	// this mark. Finish gives it.
	Txn uint64
	// Extra is the caller's, 64 KiB at most.
	Extra []byte
}

// maxExtra is the most octets of Mark.Extra.
const maxExtra = 64 << 10

// A markSet is the newest mark and the one before it. They live in two keys
// that take turns, so one write leaves the other as it is.
type markSet struct {
	newest, previous stored
	slot             byte // where newest is
}

// A stored mark knows which one came before it.
type stored struct {
	Mark
	before uint64 // its Txn; 0: none
}

// Mark is the newest mark: as recovered, or as finished since. It is zero if
// there is none.
func (db *DB) Mark() Mark {
	db.writing.Lock()
	defer db.writing.Unlock()
	return db.marks.newest.Mark
}

// Finish flushes and then writes the mark, in a transaction of its own. When
// it returns nil the checkpoint is on the disk, names of files included.
func (w *Writer) Finish(m Mark) error {
	if len(m.Extra) > maxExtra || len(m.Extra)+markRoom > w.db.MaxEntry() {
		return fmt.Errorf("%w: a mark with %d octets of the caller's, %d at most",
			ErrTooLarge, len(m.Extra), min(maxExtra, w.db.MaxEntry()-markRoom))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	w.db.writing.Lock()
	defer w.db.writing.Unlock()
	return w.db.finishLocked(m)
}

// finishLocked is called with writing held. The directory is synced before the
// mark, because it speaks for files whose names a power cut could take, and
// after it, because its own log may be new.
func (db *DB) finishLocked(m Mark) error {
	if err := db.account(false); err != nil {
		return err
	}
	if err := db.syncDir(); err != nil {
		return err
	}
	m.Txn = db.txn + 1
	next := markSet{newest: stored{m, db.marks.newest.Txn}, previous: db.marks.newest, slot: 1 - db.marks.slot}
	err := db.commitLocked(kindMark, m.Checkpoint, []Entry{{markKey(next.slot), encodeMark(next.newest)}})
	if err != nil {
		return err
	}
	db.marks = next
	db.step("mark")
	return db.syncDir()
}

// syncDir makes names durable. If it fails nothing is certain any more.
func (db *DB) syncDir() error {
	synced, err := db.dirs.sync()
	if err != nil {
		return db.fail(fmt.Errorf("sync the directory: %w", err))
	}
	if synced {
		db.counts.dirsyncs.Add(1)
	}
	db.step("dirsync")
	return nil
}

// A mark at rest, version 1. Numbers are unsigned varints.
//
//	version octet = 1 | checkpoint | segment | commit | txn | txn of the mark before, or 0 | extra
const markVersion = 1

// markRoom is more than a mark takes beside its Extra, key included.
const markRoom = 64

func encodeMark(m stored) []byte {
	b := append(make([]byte, 0, len(m.Extra)+markRoom), markVersion)
	b = binary.AppendUvarint(b, m.Checkpoint)
	b = binary.AppendUvarint(b, uint64(m.Segment))
	b = binary.AppendUvarint(b, m.Commit)
	b = binary.AppendUvarint(b, m.Txn)
	b = binary.AppendUvarint(b, m.before)
	return append(b, m.Extra...)
}

func decodeMark(b []byte) (m stored, err error) {
	if len(b) == 0 {
		return m, errors.New("a mark of no octets")
	}
	if b[0] != markVersion {
		return m, fmt.Errorf("the mark has version %d, this Godwit reads %d: start the Godwit that wrote it, or restore a backup", b[0], markVersion)
	}
	b = b[1:]
	var segment uint64
	for _, field := range []*uint64{&m.Checkpoint, &segment, &m.Commit, &m.Txn, &m.before} {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return m, errors.New("a mark that ends too early")
		}
		*field, b = v, b[n:]
	}
	if segment > 1<<32-1 {
		return m, fmt.Errorf("a mark with segment %d", segment)
	}
	m.Segment = uint32(segment)
	m.Extra = append([]byte(nil), b...)
	return m, nil
}

// readMarks reads both slots.
func (db *DB) readMarks() (s markSet, err error) {
	var marks [2]stored
	for slot := range marks {
		b, err := db.Get(markKey(byte(slot)))
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return s, err
		}
		if marks[slot], err = decodeMark(b); err != nil {
			return s, err
		}
	}
	if marks[1].Txn > marks[0].Txn {
		s.slot = 1
	}
	s.newest, s.previous = marks[s.slot], marks[1-s.slot]
	return s, nil
}
