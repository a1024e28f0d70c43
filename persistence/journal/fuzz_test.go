package journal_test

import (
	"strings"
	"testing"

	"github.com/godwitmq/godwit/persistence/journal"
)

// Whatever the bytes of a segment are, reading them ends, holds no more than
// there is, and finds the survivors that a search one by one finds.
func FuzzScan(f *testing.F) {
	for _, closed := range []bool{false, true} {
		im := newImage(f, closed)
		for n := uint32(1); n <= 3; n++ {
			f.Add(n, im.disk.Bytes(segmentName(n)))
		}
		torn := im.disk.Bytes(segmentName(3))
		torn[1600] ^= 1
		f.Add(uint32(3), torn)
	}
	for _, stale := range recycled(f) {
		f.Add(uint32(5), stale)
	}
	many := append(journal.Head(1, instance, 1, 512, 9, 8*512), make([]byte, 8*512)...)[:8*512]
	for at := 512; at < len(many); at += 512 {
		copy(many[at:], journal.Seal(1, 1, uint64(at/512), 8, []byte(strings.Repeat("x", at/2))))
	}
	copy(many[3*512:], journal.Seal(1, 1, 4, 9, []byte("real")))
	f.Add(uint32(1), many)
	f.Fuzz(func(t *testing.T, number uint32, data []byte) {
		r := journal.Scan(number, data)
		if r.Window > len(data) {
			t.Errorf("it holds %d bytes of %d", r.Window, len(data))
		}
		if r.Bytes+r.Frames*journal.PrefixSize > int64(len(data)) {
			t.Errorf("%d frames of %d bytes in %d", r.Frames, r.Bytes, len(data))
		}
		if r.Survivors != r.Naive {
			t.Errorf("survivors: %v, one by one: %v", r.Survivors, r.Naive)
		}
		// And so are the same bytes behind a head that is right.
		head := journal.Head(number, instance, 1, 512, 9, uint64(512+len(data)))
		if r := journal.Scan(number, append(append(head, make([]byte, 512-len(head))...), data...)); r.Err == nil && r.Survivors != r.Naive {
			t.Errorf("with a head, survivors: %v, one by one: %v", r.Survivors, r.Naive)
		}
	})
}

// recycled are segments in files that have been used before.
func recycled(t testing.TB) (files [][]byte) {
	t.Helper()
	d := newDisk()
	o := small(d)
	o.Segment, o.Align = 6*512, 512
	j := mustOpen(t, o)
	for range 40 {
		mustWrite(t, j, "short", strings.Repeat("long", 150))
		if err := j.Recycle(j.State().Segment); err != nil {
			t.Fatal(err)
		}
		files = append(files, d.Bytes(segmentName(j.State().Segment)))
	}
	return files[30:]
}
