package journal

import "io"

// A Disk is one directory and nothing below it. [OSDisk] is the real one; the
// package journaltest has one that loses power. Any goroutine may call it.
//
// An error that says the disk is full (ENOSPC, EDQUOT) is a condition the
// journal lives with; every other error of a write is the end.
type Disk interface {
	// Open opens an existing file to read and to write.
	Open(name string) (File, error)
	// Create makes a new file of size bytes that have their place on the
	// disk. On an error no file is left. It fails if the name is taken.
	Create(name string, size int64) (File, error)
	// Rename gives a file another name, in one step. A file that had that
	// name is gone.
	Rename(from, to string) error
	Remove(name string) error
	// List tells the files of the directory, in any order.
	List() ([]Entry, error)
	// Sync makes durable which files the directory has.
	Sync() error
}

// An Entry is a file in a Disk.
type Entry struct {
	Name string
	Size int64 // bytes
}

// A File is an open file of a Disk. Reads may go on beside a write.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync makes durable what has been written, and the file's size.
	Sync() error
	Close() error
}
