//go:build !unix

package badger

import (
	"errors"
	"os"
)

// isMount does not know here; the rename at the end is refused then.
func isMount(string) bool { return false }

// syncPath makes durable what a file has; directories cannot be asked here.
func syncPath(path string) error {
	if st, err := os.Stat(path); err != nil || st.IsDir() {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
