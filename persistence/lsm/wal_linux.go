package lsm

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// advise finds the mappings of a file and says MADV_RANDOM for each. It says
// how many there were.
func advise(name string) int {
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
		// The mapping lives as long as its file is the active log, and we run
		// between two writes to it.
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, uintptr(low), uintptr(high-low), unix.MADV_RANDOM); e == 0 {
			n++
		}
	}
	return n
}

// allocate gives the first n octets of a file their place, without changing
// its length.
func allocate(f *os.File, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
		if err != unix.EINTR {
			return err
		}
	}
}

func freeSpace(dir string) (octets int64, ok bool) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true //nolint:unconvert // it is an int32 on 32-bit machines
}

// Where the read-ahead is larger, a commit writes more than it should, advice
// or not.
const mostReadAhead = 512

// filesToSpare are open files that Badger may want beside one for each table.
const filesToSpare = 256

// warnOfLimits tells an operator what will make it slow, or lose data: if a
// compaction cannot open one of its new tables, Badger does without it.
func (db *DB) warnOfLimits() {
	if kb := readAhead(db.dir); kb > mostReadAhead {
		db.log.Warn("the disk's read-ahead is large, so the database writes more than it should: set read_ahead_kb to 128",
			slog.String("dir", db.dir), slog.Int("read_ahead_kb", kb))
	}
	tables, _ := filepath.Glob(filepath.Join(escapeGlob(db.dir), "*.sst"))
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil && r.Cur < uint64(len(tables)+filesToSpare) {
		db.log.Warn("the limit of open files is low, and Badger loses data when it is reached: raise it (ulimit -n, LimitNOFILE)",
			slog.Uint64("limit", r.Cur), slog.Int("tables", len(tables)))
	}
}

// readAhead is the read-ahead of a directory's disk in KB; 0: unknown.
func readAhead(dir string) int {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return 0
	}
	device := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	for _, name := range []string{"queue/read_ahead_kb", "../queue/read_ahead_kb"} { // a disk's, a partition's
		if b, err := os.ReadFile(device + "/" + name); err == nil {
			kb, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			return kb
		}
	}
	return 0
}
