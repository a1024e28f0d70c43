package badger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/godwitmq/godwit/core"
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

// mayWrite says whether the database may be written to: with its reserve free,
// or with the ballast, which is given up for it. It would die of a full disk,
// so where even both are too little, what is settled has to wait in the journal.
func (s *store) mayWrite() error {
	st := s.space.Look()
	if st.Level != space.ReadOnly {
		return nil
	}
	if need := s.db.Reserve(); st.Free+st.Ballast < need {
		return fmt.Errorf("%w: %d MB are free and %d MB of ballast, the database may need %d MB", errNoRoom, st.Free>>20, st.Ballast>>20, need>>20)
	}
	if st.Ballast == 0 {
		return nil
	}
	s.log.Warn("giving up the ballast to move what is settled", slog.Int64("bytes", st.Ballast))
	return s.space.Release()
}

// openDatabase opens the database, if need be in the place of the ballast:
// opening it writes.
func (s *store) openDatabase() (err error) {
	o := lsm.Options{Dir: filepath.Join(s.dir, "badger"), Sizes: s.profile.sizes, Log: s.log, Bulk: bulk}
	s.db, err = lsm.Open(o)
	if !errors.Is(err, lsm.ErrNoSpace) {
		return err
	}
	freed, released := space.Release(s.dir)
	if freed == 0 || released != nil {
		return fmt.Errorf("%w: %w", core.ErrReadOnly, errors.Join(err, released))
	}
	s.log.Warn("the disk is full: the store opens in the place of its ballast", slog.Int64("bytes", freed))
	if s.db, err = lsm.Open(o); errors.Is(err, lsm.ErrNoSpace) {
		return fmt.Errorf("%w: %w", core.ErrReadOnly, err)
	}
	return err
}
