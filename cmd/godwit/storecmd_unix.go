//go:build unix

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// whoHas says which process has a data directory, if one has. It changes
// nothing, and lets nobody wait.
func whoHas(dir string) error {
	f, err := os.Open(filepath.Join(dir, "LOCK"))
	if err != nil {
		return nil //nolint:nilerr // no lock: nobody has it
	}
	defer func() { _ = f.Close() }() // it was only read
	return flockOf(f, dir, unix.LOCK_SH)
}

// lockDir has the directory until release.
func lockDir(dir string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	release = func() { _ = f.Close() } // the kernel gives the lock back
	if err := flockOf(f, dir, unix.LOCK_EX); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func flockOf(f *os.File, dir string, how int) error {
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		owner := make([]byte, 32)
		n, _ := f.Read(owner)
		return fmt.Errorf("process %s has %s: stop that broker first: %w", strings.TrimSpace(string(owner[:n])), dir, err)
	}
	return nil
}

// allocated is what a file takes of the disk.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
