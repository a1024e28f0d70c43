package space

import "golang.org/x/sys/unix"

// size asks the file system of dir.
func size(dir string) (Size, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Size{}, err
	}
	return Size{Free: int64(st.Bavail) * int64(st.Bsize), Total: int64(st.Blocks) * int64(st.Bsize)}, nil
}
