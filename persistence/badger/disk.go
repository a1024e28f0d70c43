package badger

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
)

// openRepaired opens the database at path. A kill leaves a file of no octets
// now and then, between its creation and its first extension; Badger refuses
// to open with one and has nothing in it, so such files are removed first. A
// failed open may leave one itself, so it is tried twice.
func openRepaired(path string, p profile, log *slog.Logger) (*badger.DB, error) {
	if err := removeEmpty(path, log); err != nil {
		return nil, err
	}
	db, err := badger.Open(p.options(path, log))
	if err == nil {
		return db, nil
	}
	log.Warn("the database did not open; trying once more", slog.String("dir", path), slog.Any("err", err))
	if err := removeEmpty(path, log); err != nil {
		return nil, err
	}
	if db, err = badger.Open(p.options(path, log)); err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	return db, nil
}

// removeEmpty removes log files of no octets, and only those.
func removeEmpty(path string, log *slog.Logger) error {
	for _, pattern := range []string{"*.mem", "*.vlog"} {
		names, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			if st, err := os.Stat(name); err != nil || st.Size() > 0 {
				continue
			}
			log.Warn("removing an empty file that a crash left", slog.String("file", name))
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("remove the empty file %s: %w", name, err)
			}
		}
	}
	return nil
}
