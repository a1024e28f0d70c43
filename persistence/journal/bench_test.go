package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/godwitmq/godwit/persistence/journal"
)

var benchSizes = []int{300, 36 << 10, 256 << 10}

const benchSegment = 64 << 20

// BenchmarkWrite is one frame after another, in segments that have been used
// before, and by turns what the disk can do without us: pwrite and fdatasync
// of as many pages, in a file that has been written before. By turns, since a
// disk's mood changes. Run it on the disk that matters: TMPDIR says which.
func BenchmarkWrite(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchWrite(b, size) })
	}
}

func benchWrite(b *testing.B, size int) {
	j := mustOpen(b, journal.Options{Disk: journal.OSDisk(b.TempDir()), Instance: instance, Segment: benchSegment, Keep: 2})
	defer mustClose(b, j)
	one := func(payload []byte) {
		rolls := j.State().Rolls
		if _, err := j.Write(append(j.Buffer(), payload...)); err != nil {
			b.Fatal(err)
		}
		if j.State().Rolls > rolls {
			if err := j.Recycle(j.State().Segment); err != nil {
				b.Fatal(err)
			}
		}
	}
	for big := make([]byte, 1<<20-4096); j.State().Rolls < 5; { // every file has been written once
		one(big)
	}
	bare := newBareFile(b)
	payload := make([]byte, size)
	pages := make([]byte, (size+26+4095)&^4095)
	var ours, theirs time.Duration
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		one(payload)
		middle := time.Now()
		bare.write(b, pages)
		ours += middle.Sub(start)
		theirs += time.Since(middle)
	}
	b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N), "journal-ns")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(b.N), "bare-ns")
	b.ReportMetric(100*float64(theirs)/float64(ours), "%-of-bare")
}

// A bareFile is written round and round.
type bareFile struct {
	journal.File
	at int64
}

func newBareFile(b *testing.B) *bareFile {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bare"), make([]byte, benchSegment), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := journal.OSDisk(dir).Open("bare")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return &bareFile{File: f}
}

func (f *bareFile) write(b *testing.B, pages []byte) {
	if f.at+int64(len(pages)) > benchSegment {
		f.at = 0
	}
	if _, err := f.WriteAt(pages, f.at); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	f.at += int64(len(pages))
}

// BenchmarkReplay reads what lies in the page cache.
func BenchmarkReplay(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			o := journal.Options{Disk: journal.OSDisk(b.TempDir()), Instance: instance, Segment: benchSegment}
			j := mustOpen(b, unsynced(o))
			payload := make([]byte, size)
			const total = 256 << 20
			for written := 0; written < total; written += (size + 26 + 4095) &^ 4095 {
				if _, err := j.Write(append(j.Buffer(), payload...)); err != nil {
					b.Fatal(err)
				}
			}
			mustClose(b, j)
			mustClose(b, mustOpen(b, o)) // goes on in an empty segment, as each open below
			b.SetBytes(total)
			b.ReportAllocs()
			for b.Loop() {
				j, err := journal.Open(o, func(journal.Frame) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				mustClose(b, j)
				b.StartTimer()
			}
		})
	}
}

// unsynced is a disk that does not sync, to prepare a benchmark.
func unsynced(o journal.Options) journal.Options {
	o.Disk = lazyDisk{o.Disk}
	return o
}

type lazyDisk struct{ journal.Disk }

type lazyFile struct{ journal.File }

func (lazyFile) Sync() error { return nil }

func (d lazyDisk) Open(name string) (journal.File, error) {
	f, err := d.Disk.Open(name)
	return lazyFile{f}, err
}
