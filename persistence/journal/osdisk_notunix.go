//go:build !unix

package journal

import (
	"errors"
	"syscall"
)

// syncDir does nothing where a directory cannot be synced. NTFS journals its
// names by itself, a moment later: good enough to develop on.
func syncDir(string) error { return nil }

// Windows has its own numbers for a full disk.
const errHandleDiskFull, errDiskFull syscall.Errno = 39, 112

func isPlatformFull(err error) bool {
	return errors.Is(err, errHandleDiskFull) || errors.Is(err, errDiskFull)
}
