package lsm

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// repair removes what a crash left and Badger does not open with, or leaves
// for ever: logs of no octets, which come to be between a file's creation and
// its first extension, and as our spares; and a manifest that was not yet in
// place. Nothing else.
func (db *DB) repair() error {
	for _, pattern := range []string{"*.mem", "*.vlog", "MANIFEST-REWRITE"} {
		names, err := filepath.Glob(filepath.Join(escapeGlob(db.dir), pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := db.removeLeftover(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (db *DB) removeLeftover(name string) error {
	base := filepath.Base(name)
	if st, err := os.Lstat(name); err != nil || !st.Mode().IsRegular() || st.Size() > 0 && base != "MANIFEST-REWRITE" {
		return err
	}
	if err := os.Remove(name); err != nil {
		return fmt.Errorf("remove a file that a crash left: %w", err)
	}
	db.log.Info("removed a file that a crash left", slog.String("file", name))
	db.recovered.Removed = append(db.recovered.Removed, base)
	return nil
}

// escapeGlob lets a path stand for itself in a pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// overhear listens to Badger's complaints for those that it makes to nobody
// else.
func (db *DB) overhear(format, text string) {
	switch {
	// "Ignoring table %s", as its checksum is wrong: its keys are gone, and Open
	// says that all is well. (4.9.6 compares with another text and refuses; it
	// was so, and may be again.)
	case strings.HasPrefix(format, "Ignoring table"):
		db.ignored.Store(&text)
	// It tries again each second, for ever, and writers wait for it.
	// A compaction that failed as a whole did no harm. The next may fail in
	// part, and that does.
	case strings.HasPrefix(format, "error flushing memtable"), strings.Contains(format, "LOG Compact FAILED"):
		_ = db.fail(fmt.Errorf("badger: %s", text))
	}
}
