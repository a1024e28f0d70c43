package torture

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// flush is what the journal does.
func flush(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// describe asks the kernel what dir is on.
func describe(dir string) (m medium) {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		m.memory = int64(fs.Type) == unix.TMPFS_MAGIC || int64(fs.Type) == unix.RAMFS_MAGIC //nolint:unconvert // 32 bits on some machines
	}
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return m
	}
	device := fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))) //nolint:unconvert // 32 bits on some machines
	m.noBarrier = mountedWithout(device)
	block := filepath.Join("/sys/dev/block", device)
	for _, queue := range []string{"queue", "../queue"} { // a partition's is its disk's
		if text, err := os.ReadFile(filepath.Join(block, queue, "rotational")); err == nil {
			// What runs below a hypervisor says 1 often enough, whatever it is.
			m.turning = strings.TrimSpace(string(text)) == "1" && !virtual(block)
			break
		}
	}
	return m
}

// virtual: the drive is one that a hypervisor or the kernel makes up.
func virtual(block string) bool {
	path, err := filepath.EvalSymlinks(block)
	return err != nil || strings.Contains(path, "virtio") || strings.Contains(path, "/virtual/") || strings.Contains(path, "xen") || strings.Contains(path, "vmbus")
}

// mountedWithout says whether the device is mounted without barriers.
func mountedWithout(device string) bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // it was read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) > 5 && words[2] == device {
			options := strings.Split(words[len(words)-1]+","+words[5], ",")
			if slices.Contains(options, "nobarrier") || slices.Contains(options, "barrier=0") {
				return true
			}
		}
	}
	return false
}

// fill takes n bytes of dir's file system, in a file without a name: the space
// returns when it is closed, or when this process dies.
func fill(dir string, n int64) (*os.File, error) {
	f, err := os.CreateTemp(dir, "filler-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
		return nil, errors.Join(fmt.Errorf("take %d bytes of %s: %w", n, dir, err), f.Close())
	}
	return f, nil
}

// sameDisk says whether both are on one file system.
func sameDisk(a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Stat(a, &sa) == nil && unix.Stat(b, &sb) == nil && sa.Dev == sb.Dev
}
