//go:build unix

package lsm

import (
	"errors"
	"syscall"
)

// allocated is how many octets of the disk a file holds.
func allocated(name string) int64 {
	var st syscall.Stat_t
	if syscall.Lstat(name, &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func isNoFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

func isUnsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
