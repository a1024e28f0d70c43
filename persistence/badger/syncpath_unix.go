//go:build unix

package badger

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// isMount says whether another file system begins at a directory. It does not
// know of one that is mounted into itself.
func isMount(dir string) bool {
	var here, above unix.Stat_t
	return unix.Stat(dir, &here) == nil && unix.Stat(filepath.Dir(dir), &above) == nil && here.Dev != above.Dev
}

// syncPath makes durable what a file or a directory has.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
