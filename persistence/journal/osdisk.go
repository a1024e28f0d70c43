package journal

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// OSDisk is a directory of the operating system. It must exist.
//
// On Linux new files are allocated (fallocate), so that a full disk shows when
// a segment is made and not in the middle of one. Elsewhere, and on file
// systems that copy on write, it can show at any write.
func OSDisk(dir string) Disk { return osDisk(dir) }

type osDisk string

func (d osDisk) path(name string) string { return filepath.Join(string(d), name) }

func (d osDisk) Open(name string) (File, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return newOSFile(f), nil
}

func (d osDisk) Create(name string, size int64) (File, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := allocate(f, size); err != nil {
		return nil, errors.Join(&os.PathError{Op: "allocate", Path: f.Name(), Err: err}, f.Close(), os.Remove(f.Name()))
	}
	return newOSFile(f), nil
}

func (d osDisk) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }
func (d osDisk) Remove(name string) error     { return os.Remove(d.path(name)) }
func (d osDisk) Sync() error                  { return syncDir(string(d)) }

func (d osDisk) List() ([]Entry, error) {
	found, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(found))
	for _, e := range found {
		if !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		entries = append(entries, Entry{Name: e.Name(), Size: info.Size()})
	}
	return entries, nil
}

// An osFile is an open file. Its descriptor is asked for once, because the
// write path syncs with it and must not allocate.
type osFile struct {
	*os.File
	fd uintptr
}

func newOSFile(f *os.File) *osFile { return &osFile{f, f.Fd()} }

// isFull says whether an error means that there is no space left for us.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || isPlatformFull(err)
}

// fill writes zeros, where the file system has no better way to allocate.
func fill(f *os.File, size int64) error {
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}
