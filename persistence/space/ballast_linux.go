package space

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// canHoldSpace: a file can have space that was never written.
const canHoldSpace = true

// errNoBallast: this file system has no such files.
var errNoBallast = errors.New("the file system does not allocate in advance")

// A ballast is the file, looked at anew each time: an operator may remove it.
type ballast struct{ path string }

func newBallast(dir string) ballast { return ballast{filepath.Join(dir, ballastName)} }

// size is what the file really holds. A copy of it by a tool that saves holes
// holds nothing.
func (b ballast) size() int64 {
	var st unix.Stat_t
	if unix.Lstat(b.path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return min(st.Size, st.Blocks*512)
}

// grow makes the file hold n bytes. What there was of a smaller one is kept
// where the space does not suffice.
func (b ballast) grow(n int64) error {
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // flushed below
	for {
		err = unix.Fallocate(int(f.Fd()), 0, 0, n)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return errors.Join(errNoBallast, os.Remove(b.path))
	}
	if err != nil {
		return fmt.Errorf("hold %d bytes in %s: %w", n, b.path, err)
	}
	return f.Sync()
}

// shrink gives back what is above n bytes. The directory is flushed: until
// then ext4 does not give the space to anybody.
func (b ballast) shrink(n int64) error {
	st, err := os.Lstat(b.path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && n > 0 && st.Size() <= n) {
		return nil
	}
	if err == nil && n > 0 {
		err = os.Truncate(b.path, n)
	} else if err == nil {
		err = os.Remove(b.path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(b.path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
