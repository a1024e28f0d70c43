package space

import (
	"errors"

	"golang.org/x/sys/unix"
)

// fewFiles is where a file system has no room for files: a store needs some.
const fewFiles = 32

// size asks the file system of dir.
func size(dir string) (Size, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return Size{}, err
		}
	}
	unit := st.Frsize
	if unit <= 0 {
		unit = st.Bsize
	}
	return Size{
		Free:  int64(st.Bavail) * int64(unit), //nolint:unconvert // 32 bits on some machines
		Total: int64(st.Blocks) * int64(unit), //nolint:unconvert // the same
		// Some file systems make their tables as they go and count none.
		NoFiles: st.Files > 0 && st.Ffree < fewFiles,
	}, nil
}
