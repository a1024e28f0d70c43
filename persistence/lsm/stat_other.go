//go:build !unix

package lsm

import (
	"errors"
	"os"
)

// allocated is a file's length.
func allocated(name string) int64 {
	st, err := os.Lstat(name)
	if err != nil {
		return 0
	}
	return st.Size()
}

func isNoSpace(error) bool { return false }

func isNoFiles(error) bool { return false }

func isUnsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
