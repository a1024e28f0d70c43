//go:build !linux && !darwin

package journal

import "os"

func (f *osFile) Sync() error { return f.File.Sync() }

// allocate sets the size; whether the place is reserved is the file system's
// affair.
func allocate(f *os.File, size int64) error { return f.Truncate(size) }
