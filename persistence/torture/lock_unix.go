//go:build unix

package torture

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// refuseBroker refuses a data directory that a broker has. It makes no file.
func refuseBroker(dir string) error {
	f, err := os.Open(filepath.Join(dir, "LOCK"))
	if err != nil {
		return nil //nolint:nilerr // there is no lock
	}
	defer func() { _ = f.Close() }() // it was read
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		owner := make([]byte, 32)
		n, _ := f.Read(owner)
		return fmt.Errorf("process %s has %s: stop that broker, or name another directory on the same disk",
			strings.TrimSpace(string(owner[:n])), dir)
	}
	return unix.Flock(int(f.Fd()), unix.LOCK_UN)
}
