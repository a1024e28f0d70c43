package badger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/lsm"
	"github.com/godwitmq/godwit/persistence/space"
)

// watchSpace begins to look at what is free on the disk. The reserve is what
// the database and the journal may still need to settle and delete what is
// stored: they never write without it, because a full disk kills the database.
func (s *store) watchSpace() error {
	w, err := space.New(space.Options{
		Dir:     s.dir,
		Reserve: s.db.Reserve() + 2*s.profile.segment,
		Ballast: s.profile.ballast,
		Log:     s.log,
		Stat:    s.profile.statfs,
	})
	if err != nil {
		return fmt.Errorf("looking at the free space: %w", err)
	}
	s.space = w
	ctx, cancel := context.WithCancel(context.Background())
	s.stopSpace = cancel
	go w.Run(ctx)
	return nil
}

// databaseNeed is what the database may need of the disk beyond what it has: its
// reserve, or enough to write all of it anew if that is less. size is what it
// has.
func databaseNeed(reserve, size int64) int64 { return min(reserve, 2*size+8<<20) }

// mayWrite says whether the database may be given moving octets more: with what
// it may need free, or with the ballast, which is given up for it. It would die
// of a full disk, so where even both are too little, what is settled has to
// wait in the journal.
func (s *store) mayWrite(moving int64) error {
	st := s.space.Look()
	if st.Level != space.ReadOnly {
		return nil
	}
	need := databaseNeed(s.db.Reserve(), s.db.Size()) + 3*moving // its log, a table of it, and that again in the next level
	if st.Free >= need {
		return nil
	}
	if st.Free+st.Ballast < need {
		return fmt.Errorf("%w: %d MB are free and %d MB of ballast, the database may need %d MB", errNoRoom, st.Free>>20, st.Ballast>>20, need>>20)
	}
	s.log.Warn("giving up the ballast to move what is settled", slog.Int64("bytes", st.Ballast))
	return s.space.Release()
}

// moving is how much a checkpoint would move of the segments below needed.
func (s *store) moving(needed uint32) (octets int64) {
	for _, p := range s.allParts() {
		p.mu.RLock()
		octets += p.fresh.bytes
		for _, l := range p.logs {
			for _, b := range l.blocks {
				if b.chunk() && b.segment < needed {
					octets += int64(b.length)
				}
			}
		}
		p.mu.RUnlock()
	}
	return octets
}

// openDatabase opens the database, if need be in the place of the ballast:
// opening it writes.
func (s *store) openDatabase() (err error) {
	dir := filepath.Join(s.dir, "badger")
	need := databaseNeed(s.profile.sizes.Reserve(), lsm.SizeOf(dir))
	if free, err := s.free(); err != nil {
		return err
	} else if free < need {
		freed, err := space.Release(s.dir)
		if err != nil {
			return err
		}
		if free+freed < need {
			return fmt.Errorf("%w: %d MB are free, with what the ballast held, and to open the database may take %d MB", core.ErrReadOnly, (free+freed)>>20, need>>20)
		}
		s.log.Warn("the disk is full: the store opens in the place of its ballast", slog.Int64("bytes", freed))
	}
	s.db, err = lsm.Open(lsm.Options{Dir: dir, Sizes: s.profile.sizes, Log: s.log, Bulk: bulk})
	if errors.Is(err, lsm.ErrNoSpace) {
		return fmt.Errorf("%w: %w", core.ErrReadOnly, err)
	}
	return err
}

// free is what is free on the disk.
func (s *store) free() (int64, error) {
	if s.profile.statfs == nil {
		return space.Free(s.dir)
	}
	size, err := s.profile.statfs(s.dir)
	return size.Free, err
}

// A journalDisk leaves the database what it may need: a segment more is good for
// acks, but a database without space dies.
type journalDisk struct {
	journal.Disk
	s *store
}

func (d journalDisk) Create(name string, size int64) (journal.File, error) {
	if free, err := d.s.free(); err == nil && free < size+databaseNeed(d.s.db.Reserve(), d.s.db.Size()) {
		return nil, fmt.Errorf("%d MB are free, and the database may need them: %w", free>>20, syscall.ENOSPC)
	}
	return d.Disk.Create(name, size)
}
