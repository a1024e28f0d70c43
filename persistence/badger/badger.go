// Package badger keeps messages, cursors and records in a Badger database. It
// is a driver of core.Store that survives a power cut.
//
//	Commit -> staging -> committer: offsets, blocks, one transaction -> Done
//	Fetch  -> readers:   block index in memory -> one block -> messages
//
// While one transaction is being synced the next batches gather, so the
// transactions grow with the load and each batch waits for one sync at most.
// The messages of a transaction become blocks, one or more for each log; what
// a block holds, and who still owes something in it, is known in memory. A
// block nobody owes leaves whole, in the transaction of the last ack. Acks are
// noted in one key a transaction and folded into their cursors now and then.
//
// The formats are in persistence/FORMAT.md.
package badger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"github.com/godwitmq/godwit/core"
)

// Options say how much the store may take. The zero value is right for most.
type Options struct {
	// Profile is Edge or Server; by default Edge below 2 GiB of memory.
	Profile Profile
	// Log hears what the database has to say; nil: nobody.
	Log *slog.Logger
}

// A store is a directory with a Badger database in it.
type store struct {
	profile profile
	log     *slog.Logger
	dir     string
	lock    *dirLock
	db      *badger.DB
	wal     walAdvice
	syncer  dirSyncer

	// turn is held while a group is applied and written: whoever has it sees
	// no half of one.
	turn      sync.Mutex
	committer committer

	opening sync.Mutex // one Open at a time
	mu      sync.Mutex
	parts   map[core.PartitionID]*part
	staged  []*staged // accepted and not taken by the committer, oldest first
	waiting int       // how many of staged somebody waits for
	hurry   int       // how many Close calls wait
	closed  bool      // accepts nothing more
	settled *sync.Cond

	kick    chan struct{} // one token: the committer should look
	ended   chan struct{} // closed when the committer has ended
	readers readers

	beforeWrite func() error // tests: called before a transaction is written, with the turn held

	poison  atomic.Pointer[error] // why nothing is confirmed any more
	pending atomic.Int64          // bytes accepted and not settled
	counts  counters
}

// counters are core.StoreStats in the making.
type counters struct {
	commits, ops, appends, syncs, user, written, fetches atomic.Int64
}

var _ core.Store = (*store)(nil)

// formatVersion is the version of everything below the directory. An unknown
// one is refused.
const formatVersion = 1

// Open opens the store in dir, or makes it. One process at a time can have it.
func Open(dir string, o Options) (core.Store, error) {
	p, err := o.Profile.resolve()
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return open(dir, p, o.Log)
}

func open(dir string, p profile, log *slog.Logger) (core.Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "badger"), 0o700); err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &store{
		profile: p, log: log, dir: dir, lock: lock,
		parts: map[core.PartitionID]*part{},
		kick:  make(chan struct{}, 1),
		ended: make(chan struct{}),
	}
	s.settled = sync.NewCond(&s.mu)
	if err := s.start(); err != nil {
		lock.release()
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	return s, nil
}

// start opens the database, finishes what a crash interrupted and starts the
// goroutines.
func (s *store) start() error {
	path := filepath.Join(s.dir, "badger")
	db, err := openRepaired(path, s.profile, s.log)
	if err != nil {
		return err
	}
	s.db = db
	s.syncer = dirSyncer{path: path}
	s.wal = walAdvice{dir: path}
	s.committer = newCommitter(s)
	if err := errors.Join(s.checkFormat(), s.finishRedo()); err != nil {
		return errors.Join(err, db.Close())
	}
	s.readers.start(s, s.profile.readers)
	go s.committer.run()
	return nil
}

// checkFormat refuses what another Godwit wrote, and marks a new directory.
func (s *store) checkFormat() error {
	v, err := s.get(metaKey("format"))
	if errors.Is(err, badger.ErrKeyNotFound) {
		var t txn
		t.put(metaKey("format"), []byte{formatVersion})
		return s.write(&t)
	}
	if err != nil {
		return err
	}
	if len(v) != 1 || v[0] != formatVersion {
		return fmt.Errorf("its format is %v, this Godwit reads %d: start the Godwit that wrote it, or restore a backup", v, formatVersion)
	}
	return nil
}

// get reads one key.
func (s *store) get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy([]byte{})
		return err
	})
	return value, err
}

// Caps survive a power cut, as far as the disk honours a flush.
func (s *store) Caps() core.Caps {
	return core.Caps{
		Name:      "badger",
		MaxRecord: s.profile.maxRecord,
		MaxBatch:  s.profile.maxBatch,
		MaxOps:    s.profile.maxOps,
		MaxValue:  s.profile.maxValue,
		Survives:  core.SurvivesPowerCut,
	}
}

// Health has High pressure while more is accepted than the profile likes to
// have in memory, and Err once a write has failed.
func (s *store) Health() core.Health {
	h := core.Health{Err: s.poisoned()}
	if s.pending.Load() > s.profile.staging {
		h.Pressure = core.PressureHigh
	}
	return h
}

func (s *store) Stats() core.StoreStats {
	return core.StoreStats{
		Commits:      s.counts.commits.Load(),
		Ops:          s.counts.ops.Load(),
		Appends:      s.counts.appends.Load(),
		Syncs:        s.counts.syncs.Load(),
		BytesUser:    s.counts.user.Load(),
		BytesWritten: s.counts.written.Load(),
		Fetches:      s.counts.fetches.Load(),
	}
}

// Backup does not exist yet.
func (s *store) Backup(context.Context, io.Writer) error {
	return core.NotYet("a backup of a running store (stop Godwit and copy its data directory)")
}

// poisoned is the reason why nothing is confirmed any more, or nil.
func (s *store) poisoned() error {
	if p := s.poison.Load(); p != nil {
		return *p
	}
	return nil
}

// fail poisons the store: after an error the database may show what is not on
// the disk, so nothing more is confirmed.
func (s *store) fail(err error) error {
	e := fmt.Errorf("%w: %w", core.ErrPoisoned, err)
	s.poison.CompareAndSwap(nil, &e)
	s.log.Error("the store failed; nothing more is confirmed", slog.String("dir", s.dir), slog.Any("err", err))
	return s.poisoned()
}

// Close settles what was accepted and closes the database.
func (s *store) Close(ctx context.Context) error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	s.wake()
	select {
	case <-s.ended:
	case <-ctx.Done():
		return fmt.Errorf("closing the store: what was accepted is still being written: %w", ctx.Err())
	}
	s.readers.stop()
	err := s.db.Close()
	s.lock.release()
	if err != nil {
		return fmt.Errorf("closing the store: %w", err)
	}
	return nil
}

// wake lets the committer look.
func (s *store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}
