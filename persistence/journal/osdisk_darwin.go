package journal

import (
	"os"

	"golang.org/x/sys/unix"
)

// Sync asks the drive itself to write its cache: fsync does not do so here.
func (f *osFile) Sync() error {
	_, err := unix.FcntlInt(f.fd, unix.F_FULLFSYNC, 0)
	return err
}

// allocate asks for the place and then sets the size. A file system that
// cannot reserve gives the size alone.
func allocate(f *os.File, size int64) error {
	store := unix.Fstore_t{Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: size}
	if err := unix.FcntlFstore(f.Fd(), unix.F_PREALLOCATE, &store); isFull(err) {
		return err
	}
	return f.Truncate(size)
}
