package badger

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineMemory is the memory this process may use, in bytes: the machine's
// or the container's. 0: unknown.
func machineMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	memory := int64(info.Totalram) * int64(info.Unit)
	if b, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			memory = min(memory, limit)
		}
	}
	return memory
}

// walAdvice tells the kernel that Badger's log files are written in small
// pieces. Badger maps them, and where the page cache uses large folios a
// commit of 36 KB otherwise dirties, and writes, about a megabyte.
type walAdvice struct {
	dir  string
	next int // the first file that has had no advice
}

// renew advises on files that are new. It is cheap when there are none.
func (w *walAdvice) renew() int {
	advised := 0
	for ; ; w.next++ {
		name := filepath.Join(w.dir, w.file(w.next))
		if _, err := os.Stat(name); err != nil {
			if w.next > 0 || !w.skipAhead() {
				return advised
			}
			continue
		}
		advised += adviseRandom(name)
	}
}

func (w *walAdvice) file(n int) string {
	s := strconv.Itoa(n)
	return strings.Repeat("0", max(0, 5-len(s))) + s + ".mem"
}

// skipAhead moves next before the first file there is, and says whether there
// is one.
func (w *walAdvice) skipAhead() bool {
	names, _ := filepath.Glob(filepath.Join(w.dir, "*.mem"))
	for _, name := range names {
		if n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), ".mem")); err == nil && n > 0 {
			w.next = n - 1
			return true
		}
	}
	return false
}

// adviseRandom finds the mappings of a file and says MADV_RANDOM for each.
func adviseRandom(name string) int {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0
	}
	n := 0
	for scan := bufio.NewScanner(bytes.NewReader(maps)); scan.Scan(); {
		line := scan.Text()
		if !strings.HasSuffix(line, " "+name) {
			continue
		}
		from, to, ok := strings.Cut(line[:strings.IndexByte(line, ' ')], "-")
		low, errLow := strconv.ParseUint(from, 16, 64)
		high, errHigh := strconv.ParseUint(to, 16, 64)
		if !ok || errLow != nil || errHigh != nil {
			continue
		}
		// The mapping lives as long as its file is the active log; we run
		// between two writes to it.
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, uintptr(low), uintptr(high-low), unix.MADV_RANDOM); e == 0 {
			n++
		}
	}
	return n
}
