package badger

import (
	"context"
	"fmt"

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

// mayWrite says whether the database may be written to: with the reserve free,
// or with the ballast, which is given up for it.
func (s *store) mayWrite() error {
	st := s.space.Look()
	if st.Level != space.ReadOnly {
		return nil
	}
	if st.Ballast == 0 {
		return fmt.Errorf("%d MB are free and the ballast is spent; %d MB are needed", st.Free>>20, st.Reserve>>20)
	}
	return s.space.Release()
}
