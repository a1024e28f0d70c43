//go:build unix

package lsm

import (
	"os"
	"time"
)

// A dirSyncer makes the names of new files durable. Badger syncs a log file's
// content, and its directory not always; without its name the content is gone
// in a power cut.
type dirSyncer struct {
	path string
	seen time.Time // the directory's change that has been synced
}

// ticks is the coarsest step of a file system's clock. Within one, a second
// change does not show.
const ticks = 50 * time.Millisecond

// sync syncs the directory if it may have changed since the last time, and
// says whether it did.
func (d *dirSyncer) sync() (bool, error) {
	st, err := os.Stat(d.path)
	if err != nil {
		return false, err
	}
	changed := st.ModTime()
	if changed.Equal(d.seen) {
		return false, nil
	}
	f, err := os.Open(d.path)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	if err := f.Sync(); err != nil {
		return false, err
	}
	if time.Since(changed) > ticks {
		d.seen = changed
	}
	return true, nil
}
