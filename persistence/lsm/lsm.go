// Package lsm is a Badger 4.9.6 database with its traps closed: the place where
// data rests behind a journal. It knows keys and values, and nothing of
// messages, cursors or partitions.
//
//	Writer: Put, Put, Put -> transactions -> WAL, synced -> Finish: the mark
//	Get, Scan, View       <- memtables, tables
//
// There is one writer, the checkpointer, and any number of readers. The writer
// works in checkpoints: transactions, then a mark which says that they are all
// there and up to where in the journal they reach. A checkpoint without its
// mark is unfinished, and is done again.
//
// Badger drops what follows a damaged octet of a write-ahead log, and says
// nothing. So each transaction leaves a marker with its number, and Open looks
// whether one is missing (marker.go). What else Badger is silent about, or dies
// of, is told where it is prevented:
//
//	repair.go   files of no octets, with which Badger does not open
//	table.go    damaged tables, which Badger leaves out, or dies of
//	wal*.go     a full disk, which is a signal and no error; write amplification
//	dirsync*.go names of files that a power cut takes
//	write.go    transactions that are too large; errors after which nothing is certain
//	reclaim.go  space that is not given back
//	ledger.go   tables that a compaction could not make, and keys with them
//	sizes.go    options that refuse, panic, or take a great deal of memory
package lsm

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Options say where the database is and how large its parts are.
type Options struct {
	// Dir is made if there is none. One process at a time can have it.
	Dir string
	// Sizes are Edge, Server, or numbers of your own; none: Server.
	Sizes Sizes
	// Log hears what an operator should know, and a step lower what Badger has
	// to say; nil: nobody.
	Log *slog.Logger
	// Bulk are the prefixes of keys of which the caller would notice that one
	// is missing, and whose values carry a checksum of the caller's. All else is
	// read and checked at Open, because Badger leaves out a damaged piece of a
	// table without a word. Empty: everything is checked.
	Bulk [][]byte

	window uint64        // tests: how many markers are kept; 0: markerWindow
	hooks  hooks         // tests
	grace  time.Duration // tests: how long Close waits for a database that failed
}

// hooks are called by tests' leave, nil in life.
type hooks struct {
	beforeCommit func() error       // an error of it is the commit's
	step         func(string)       // "commit", "mark", "dirsync": it is done
	allocate     func(int64) error  // before a WAL is extended by so many octets
	freeSpace    func(string) int64 // instead of statfs
}

// A DB is open until Close. Its methods are safe for any goroutine, but only
// one may use Writers, Rewrite, DropPrefix and Reclaim at a time, to any sense.
type DB struct {
	dir   string
	sizes Sizes
	log   *slog.Logger
	bulk  [][]byte
	hooks hooks
	grace time.Duration
	b     *badger.DB

	writing sync.Mutex // held while a transaction is written, and during a reclaim
	wal     wal
	dirs    dirSyncer
	ledger  ledger
	window  uint64
	txn     uint64  // number of the last transaction
	marks   markSet // the newest mark and the one before it

	reading readers

	recovered Recovered
	ignored   atomic.Pointer[string] // a table that Badger left out at Open
	failure   atomic.Pointer[error]  // why nothing is written any more
	failed    chan struct{}          // closed with it
	failOnce  sync.Once
	closeOnce sync.Once
	closeErr  error
	counts    counters
}

// Recovered is what Open found and did.
type Recovered struct {
	// Removed are the names of the files that a crash had left and that were
	// removed; they had nothing in them.
	Removed []string
	// SetBack says that transactions were missing, a damaged write-ahead log
	// had them, and that Mark is one whose transactions are all there. What of
	// the later ones is left carries checkpoint numbers above the mark's.
	SetBack bool
	// Lost is how many transactions were missing, as far as can be known: those
	// at the very end leave no trace, then Mark is simply an older one.
	Lost uint64
	// Txns is the number of the last transaction that is there.
	Txns uint64
	// Checkpoint is the highest checkpoint number that was ever used, as far as
	// can be seen. The next should be above it.
	Checkpoint uint64
	// Tables is how many tables there are; Checked how many octets of them were
	// read and checked.
	Tables  int
	Checked int64
}

// Errors.
var (
	// ErrNotFound: there is no such key.
	ErrNotFound = errors.New("lsm: no such key")
	// ErrFailed: a write failed, and from then on all do, and reads too, because
	// the database may show what is not on the disk. Opening it again makes it
	// certain.
	ErrFailed = errors.New("lsm: a write failed; nothing more is written or read until the store is opened again")
	// ErrTooLarge: it does not fit into one transaction. Nothing was written.
	ErrTooLarge = errors.New("lsm: too large for one transaction")
	// ErrNoSpace: the disk is full. Nothing of this transaction was written,
	// and it may be tried again when there is space.
	ErrNoSpace = errors.New("lsm: no space left on the disk")
	// ErrNoFiles: the process, or the machine, has no file descriptor left, and
	// Badger would not survive that. Nothing was written; it may be tried again.
	ErrNoFiles = errors.New("lsm: too many open files: raise the limit (ulimit -n, LimitNOFILE), or allow fewer connections")
	// ErrClosed: the database is closed or being closed.
	ErrClosed = errors.New("lsm: closed")
)

// A CorruptError says that what was written is not there any more, and what to
// do.
type CorruptError struct{ Text string }

func (e *CorruptError) Error() string { return "lsm: " + e.Text }

func corrupt(format string, a ...any) *CorruptError {
	return &CorruptError{Text: fmt.Sprintf(format, a...)}
}

// Open opens the database, or makes it, after it has looked whether all of it
// is there. A *CorruptError says that it is not, and what can be done;
// ErrNoSpace that Badger would not survive opening it on this full disk.
func Open(o Options) (*DB, error) {
	db, err := newDB(o)
	if err != nil {
		return nil, err
	}
	if err := db.open(o); err != nil {
		return nil, fmt.Errorf("open the database in %s: %w", db.dir, err)
	}
	return db, nil
}

func newDB(o Options) (*DB, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	// The mapping of a file is found by its name, so it has to be the real one.
	dir, err := filepath.Abs(o.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, err
	}
	db := &DB{
		dir: dir, sizes: o.Sizes, log: o.Log, bulk: o.Bulk, hooks: o.hooks,
		grace: o.grace, window: o.window, failed: make(chan struct{}),
	}
	if db.sizes == (Sizes{}) {
		db.sizes = Server
	}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if db.window == 0 {
		db.window = markerWindow
	}
	if db.grace == 0 {
		db.grace = 5 * time.Second
	}
	db.reading.init()
	db.dirs = dirSyncer{path: dir}
	db.wal = newWAL(db)
	return db, nil
}

func (db *DB) open(o Options) error {
	if err := db.sizes.validate(); err != nil {
		return err
	}
	if err := errors.Join(db.condemned(), db.repair()); err != nil {
		return err
	}
	if err := db.enoughToOpen(); err != nil {
		return err
	}
	if err := db.checkTables(); err != nil {
		return err
	}
	if err := db.openBadger(); err != nil {
		return err
	}
	if err := db.recover(); err != nil {
		return errors.Join(err, db.b.Close())
	}
	return nil
}

// openBadger tries twice, as a failed open may itself leave a file of no
// octets.
func (db *DB) openBadger() error {
	b, err := badger.Open(db.sizes.options(db.dir, badgerLog{db}))
	if err != nil {
		db.log.Warn("the database did not open; trying once more", slog.String("dir", db.dir), slog.Any("err", err))
		if err := errors.Join(db.repair(), db.checkTables()); err != nil {
			return err
		}
		if b, err = badger.Open(db.sizes.options(db.dir, badgerLog{db})); err != nil {
			return err
		}
	}
	if table := db.ignored.Load(); table != nil {
		return errors.Join(corrupt("Badger left a damaged table out: %s; %s", *table, advice(db.dir)), b.Close())
	}
	db.b = b
	db.wal.renew()
	return nil
}

// advice is what can be done about damage.
func advice(dir string) string {
	return fmt.Sprintf("restore a backup, or let `godwit store repair %s` keep what is readable", dir)
}

// Recovered is what Open found and did.
func (db *DB) Recovered() Recovered { return db.recovered }

// fail notes the first failure of a write; from then on nothing is written.
func (db *DB) fail(err error) error {
	db.failOnce.Do(func() {
		e := fmt.Errorf("%w: %w", ErrFailed, err)
		db.failure.Store(&e)
		close(db.failed)
		db.reading.stop(e)
		db.log.Error("the database failed; nothing more is written", slog.String("dir", db.dir), slog.Any("err", err))
	})
	return db.failing()
}

// failing is why nothing is written any more, or nil.
func (db *DB) failing() error {
	if e := db.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// Close waits for readers, whose Gets and Scans end with ErrClosed, and closes
// the database. What a Writer has not flushed is not written.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		db.reading.stop(ErrClosed)
		db.reading.wait()
		db.writing.Lock()
		defer db.writing.Unlock()
		db.closeErr = db.closeBadger()
	})
	return db.closeErr
}

// closeBadger gives up on a database that failed after a while: Badger tries
// for ever to write its memtables. The process should end then.
func (db *DB) closeBadger() error {
	done := make(chan error, 1)
	go func() { done <- db.b.Close() }()
	select {
	case err := <-done:
		db.wal.forgetSpare()
		if db.failing() == nil {
			err = errors.Join(err, db.account(true))
		}
		return err
	case <-db.failed:
	}
	select {
	case err := <-done:
		return err
	case <-time.After(db.grace):
		return fmt.Errorf("close the database in %s: it is still trying to write: %w", db.dir, db.failing())
	}
}
