//go:build unix

package badger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A dirLock keeps other processes out of a data directory. The kernel gives
// it back when the process dies.
type dirLock struct{ file *os.File }

func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner := make([]byte, 32)
		n, _ := f.Read(owner)
		_ = f.Close()
		return nil, fmt.Errorf("store %s: process %s has it: stop that one, or use another data directory: %w",
			dir, strings.TrimSpace(string(owner[:n])), err)
	}
	// For people who look. The lock does not depend on it.
	_ = f.Truncate(0)
	_, _ = fmt.Fprintln(f, os.Getpid())
	return &dirLock{f}, nil
}

func (l *dirLock) release() { _ = l.file.Close() }
