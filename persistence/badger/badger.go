// Package badger is the durable store: a journal in front, a Badger database at
// rest. It is a driver of core.Store that survives a power cut.
//
//	Commit -> staging -> committer: one frame, written and synced
//	                     applier:   what the frame holds, in memory -> Done
//	Fetch  -> readers:   which blocks -> the journal or the database -> messages
//	checkpointer:        the oldest segments' live data -> database -> mark -> recycle
//
// While one frame is being synced the next batches gather, so the frames grow
// with the load and each batch waits for two syncs at most. What is consumed
// before its segment is needed again never reaches the database.
//
// Memory holds no message, but for each 16 KB of them where they are and who
// may owe them: a block. The formats are in persistence/FORMAT.md.
package badger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/lsm"
	"github.com/godwitmq/godwit/persistence/space"
)

// Options say how much the store may take. The zero value is right for most.
type Options struct {
	// Profile is Edge or Server; by default Edge below 2 GiB of memory.
	Profile Profile
	// NoBallast: no file is kept that is given up when others fill the disk, so
	// that what is stored can still be settled and deleted.
	NoBallast bool
	// Flash is what the disk stands, if it is a card that wears out.
	Flash Flash
	// Log hears what the database has to say; nil: nobody.
	Log *slog.Logger
}

// Flash is a medium that wears out. With both numbers the store can tell for
// how many days it will last at the present rate.
type Flash struct {
	Capacity int64 // bytes
	Cycles   int64 // how often each cell can be written: 1,000 for a simple card, 3,000 for a good one
}

// A store is a directory with a journal and a database in it.
type store struct {
	profile profile
	log     *slog.Logger
	dir     string
	lock    *dirLock
	db      *lsm.DB
	journal *journal.Journal
	space   *space.Watch

	stopSpace func()

	// turn is held while a frame is built, and by who must not see half of one.
	turn      sync.Mutex
	committer committer
	applier   applier

	opening sync.Mutex // one Open at a time
	mu      sync.Mutex
	parts   map[core.PartitionID]*part
	staged  []*staged // accepted and not taken by the committer, oldest first
	waiting int       // how many of staged somebody waits for
	hurry   int       // how many Close calls wait
	closed  bool      // accepts nothing more
	settled *sync.Cond

	kick    chan struct{} // one token: the committer should look
	ended   chan struct{} // closed when the applier has ended
	readers readers
	points  checkpointer

	beforeWrite func() error // tests: called before a frame is written

	poison  atomic.Pointer[error] // why nothing is confirmed any more
	pending atomic.Int64          // bytes accepted and not settled
	behindN atomic.Int64          // segments that no checkpoint covers
	counts  counters
}

var _ core.Store = (*store)(nil)

// formatVersion is the version of everything below the directory. An unknown
// one is refused.
const formatVersion = 2

// Open opens the store in dir, or makes it. One process at a time can have it.
// core.ErrReadOnly: the disk is so full that it cannot be opened; it can when
// there is space.
func Open(dir string, o Options) (core.Store, error) {
	p, err := o.Profile.resolve()
	if err != nil {
		return nil, err
	}
	p.ballast, p.flash = !o.NoBallast, o.Flash
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return open(dir, p, o.Log)
}

func open(dir string, p profile, log *slog.Logger) (core.Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "journal"), 0o700); err != nil {
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
		s.stop()
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	return s, nil
}

// start opens database and journal, replays what the database has not, and
// starts the goroutines.
func (s *store) start() (err error) {
	if err := s.openDatabase(); err != nil {
		return err
	}
	if err := s.watchSpace(); err != nil {
		return err
	}
	instance, err := s.identify()
	if err != nil {
		return err
	}
	s.points.init(s)
	s.counts.start()
	if err := s.loadAll(); err != nil {
		return err
	}
	if err := s.replay(instance); err != nil {
		return err
	}
	s.committer = committer{s: s}
	s.applier = applier{s: s, frames: make(chan *group, 1)}
	s.readers.start(s, s.profile.readers)
	go s.applier.run()
	go s.committer.run()
	s.points.start()
	return nil
}

// stop closes what start has opened.
func (s *store) stop() {
	if s.journal != nil {
		_ = s.journal.Close()
	}
	if s.db != nil {
		_ = s.db.Close()
	}
	if s.space != nil {
		s.stopSpace()
		s.space.Close()
	}
	s.lock.release()
}

// bulk is the keys of which we notice ourselves that one is missing or
// damaged: blocks, because of their index.
var bulk = [][]byte{{kindBlock}, {kindPiece}}

// identify refuses what another Godwit wrote, and names a new store.
func (s *store) identify() (instance [16]byte, err error) {
	v, err := s.db.Get(metaKey("format"))
	if errors.Is(err, lsm.ErrNotFound) {
		if _, err := rand.Read(instance[:]); err != nil {
			return instance, err
		}
		w := s.db.Writer(0)
		err := w.Put(lsm.Entry{Key: metaKey("format"), Value: append([]byte{formatVersion}, instance[:]...)})
		return instance, errors.Join(err, w.Flush())
	}
	if err != nil {
		return instance, err
	}
	if len(v) == 0 || v[0] != formatVersion || len(v) != 1+len(instance) {
		return instance, fmt.Errorf("its format is %v, this Godwit reads %d: start the Godwit that wrote it, or restore a backup", v[:min(1, len(v))], formatVersion)
	}
	copy(instance[:], v[1:])
	return instance, nil
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
// have in memory, and while the checkpointer is behind: publishers wait, and
// will go on soon. On a full disk it is Low and ReadOnly: nobody knows how long
// that takes, so publishers are not to wait, they are refused. Err is set once
// a write has failed.
func (s *store) Health() core.Health {
	h := core.Health{Err: s.poisoned(), ReadOnly: s.readOnly()}
	if s.space != nil {
		st := s.space.State()
		h.Free, h.Reserve = st.Free, st.Reserve
	}
	if h.ReadOnly {
		return h
	}
	if s.pending.Load() > s.profile.staging || s.behindN.Load() > int64(s.profile.highSegments()) {
		h.Pressure = core.PressureHigh
	}
	return h
}

// readOnly says that there is too little space for messages.
func (s *store) readOnly() bool {
	return s.space != nil && s.space.State().Level == space.ReadOnly
}

// behind refuses messages when the checkpointer is so far behind that the
// journal has grown to twice its size.
func (s *store) behind(b *core.Batch) error {
	if n := s.behindN.Load(); len(b.Appends) > 0 && n > 2*int64(s.profile.segments) {
		return fmt.Errorf("%d segments of the journal wait for the checkpointer: %w", n, core.ErrOverload)
	}
	return nil
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

// Close settles what was accepted and closes journal and database.
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
	s.points.stop()
	s.readers.stop()
	err := s.journal.Close()
	if s.poisoned() != nil {
		err = nil // it has been said
	}
	s.stopSpace()
	s.space.Close()
	err = errors.Join(err, s.db.Close())
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
