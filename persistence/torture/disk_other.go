//go:build !linux

package torture

import (
	"errors"
	"os"
)

func flush(f *os.File) error { return f.Sync() }

// describe knows nothing here.
func describe(string) medium { return medium{} }

func fill(string, int64) (*os.File, error) {
	return nil, errors.New("filling a disk is done on Linux alone")
}

// sameDisk is not known.
func sameDisk(string, string) bool { return false }
