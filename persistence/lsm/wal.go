package lsm

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// A wal keeps Badger's write-ahead logs from killing us. Badger maps a log at
// twice the size of a memtable and writes into the mapping; where the disk has
// no room for a page that is a signal, in a goroutine of Badger's, and the
// process dies of it, and again when it opens what it left. So the log has its
// octets allocated before each transaction, through a descriptor of our own,
// where no room is an error.
//
// Badger goes on in a new log in the middle of a transaction. It takes a file
// that is there and has no octets for new; so the next log is made ready under
// its name, with room but no length, before Badger can want it. A kill leaves
// such a file, as Badger itself does now and then, and repair removes it.
//
// And a mapped log is written page by page, by a kernel that may hold a file in
// pieces of a megabyte and writes whole ones: so it is told that the access is
// random (advise).
//
// It is used with DB.writing held.
type wal struct {
	db     *DB
	active int   // the number of the log that Badger writes; 0: unknown
	room   int64 // octets of it that are allocated
	used   int64 // of it, at most
	mem    int64 // of its memtable, at most
	spare  int64 // octets that are allocated of the next log; 0: there is none
	lame   bool  // the file system cannot allocate
}

// What a log and a memtable hold beside keys and values, at most.
const (
	walHead      = 4096 // head of a log, and what is cleared behind its end
	walEntryCost = 48   // lengths, version, checksum
	memEntryCost = 160  // a node of the skip list, version, header
)

func newWAL(db *DB) wal { return wal{db: db} }

func (w *wal) path(n int) string {
	s := strconv.Itoa(n)
	return filepath.Join(w.db.dir, strings.Repeat("0", max(0, 5-len(s)))+s+".mem")
}

// prepare makes room for a transaction. ErrNoSpace: nothing was written.
func (w *wal) prepare(entries []Entry) error {
	if w.active == 0 || w.lame {
		return nil
	}
	logged, _ := costs(entries)
	if want := min(w.used+logged, 2*w.db.sizes.MemTable); want > w.room {
		want = min(want+w.db.sizes.MemTable/8, 2*w.db.sizes.MemTable)
		if err := w.allocate(w.active, os.O_RDWR, want); err != nil {
			return err
		}
		w.room = want
	}
	if w.mem < w.db.sizes.MemTable*3/4 {
		return nil
	}
	if err := w.db.enoughFiles(); err != nil {
		return err
	}
	if w.spare >= logged+walHead {
		return nil
	}
	want := w.db.sizes.batchBytes() + w.db.sizes.MemTable/16 + walHead
	want = max(want, logged+walHead)
	if err := w.allocate(w.active+1, os.O_RDWR|os.O_CREATE, want); err != nil {
		return err
	}
	w.spare = want
	return nil
}

// costs are what entries take of a log and of a memtable, at most.
func costs(entries []Entry) (logged, mem int64) {
	for i := range entries {
		n := int64(len(entries[i].Key) + len(entries[i].Value))
		logged += n + walEntryCost
		mem += n + memEntryCost
	}
	return logged + walEntryCost, mem
}

// allocate gives the first n octets of a log their place on the disk.
func (w *wal) allocate(number, flags int, n int64) error {
	name := w.path(number)
	if w.db.hooks.allocate != nil {
		if err := w.db.hooks.allocate(n); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return noSpace(err)
	}
	defer f.Close() //nolint:errcheck // nothing was written through it
	err = allocate(f, n)
	if isUnsupported(err) {
		w.lame = true
		w.db.log.Warn("this file system cannot reserve space; a full disk will end the process",
			slog.String("dir", w.db.dir))
		return nil
	}
	if err != nil {
		return noSpace(fmt.Errorf("reserve %d octets of %s: %w", n, name, err))
	}
	return nil
}

// noSpace makes an error ErrNoSpace if the disk or a quota is full.
func noSpace(err error) error {
	if isNoSpace(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// written counts a transaction, which may have begun a new log.
func (w *wal) written(entries []Entry) {
	w.renew()
	logged, mem := costs(entries)
	w.used += logged
	w.mem += mem
}

// renew looks whether Badger has begun a new log.
func (w *wal) renew() {
	last := w.active
	if last == 0 {
		w.active = w.newest()
	}
	for w.active > 0 {
		st, err := os.Stat(w.path(w.active + 1))
		if err != nil || st.Size() == 0 {
			break
		}
		w.active++
	}
	if w.active == last {
		return
	}
	w.room, w.spare = w.spare, 0
	w.used, w.mem = walHead, walHead
	w.db.counts.advised.Add(int64(advise(w.path(w.active))))
}

// newest is the highest number of a log that has been begun.
func (w *wal) newest() int {
	names, _ := filepath.Glob(filepath.Join(escapeGlob(w.db.dir), "*.mem"))
	var numbers []int
	for _, name := range names {
		st, err := os.Stat(name)
		n, bad := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), ".mem"))
		if err == nil && bad == nil && st.Size() > 0 {
			numbers = append(numbers, n)
		}
	}
	sort.Ints(numbers)
	if len(numbers) == 0 {
		return 0
	}
	return numbers[len(numbers)-1]
}

// forgetSpare removes the next log, which nobody is going to use.
func (w *wal) forgetSpare() {
	name := w.path(w.active + 1)
	if st, err := os.Stat(name); err == nil && st.Size() == 0 && w.active > 0 {
		_ = os.Remove(name)
	}
}

// filesToChange are descriptors that Badger may open at once when it changes
// logs, builds tables and syncs its directory.
const filesToChange = 16

// enoughFiles keeps Badger from finding no descriptor for its next log: it then
// has no memtable, and whoever reads dies of it. Others may take the last one
// the moment after; it is for them to leave some.
func (db *DB) enoughFiles() error {
	var files [filesToChange]*os.File
	defer func() {
		for _, f := range files {
			if f != nil {
				_ = f.Close()
			}
		}
	}()
	for i := range files {
		f, err := os.Open(os.DevNull)
		if isNoFiles(err) {
			return fmt.Errorf("%w: %w", ErrNoFiles, err)
		}
		files[i] = f
	}
	return nil
}

// enoughToOpen keeps Badger from dying at Open: it writes the logs that it
// finds to tables and begins new ones, into mappings.
func (db *DB) enoughToOpen() error {
	free, ok := db.free()
	if !ok {
		return nil
	}
	need := int64(4 << 20)
	names, err := filepath.Glob(filepath.Join(escapeGlob(db.dir), "*.mem"))
	if err != nil {
		return err
	}
	for _, name := range names {
		need += allocated(name)
	}
	if free < need {
		return fmt.Errorf("%w: %d octets are free, and opening it may write %d: make room and start again", ErrNoSpace, free, need)
	}
	db.warnOfLimits()
	return nil
}

func (db *DB) free() (octets int64, ok bool) {
	if db.hooks.freeSpace != nil {
		return db.hooks.freeSpace(db.dir), true
	}
	return freeSpace(db.dir)
}
