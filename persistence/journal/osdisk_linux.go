package journal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Sync leaves out what is not needed to read the data again, which on a file
// of fixed size, allocated and written before, is all of the metadata.
func (f *osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.fd))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// allocate gives a new file its size and its place on the disk.
func allocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return fill(f, size)
		default:
			return err
		}
	}
}
