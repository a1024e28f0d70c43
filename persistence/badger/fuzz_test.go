package badger

import (
	"runtime"
	"testing"

	"github.com/godwitmq/godwit/core"
)

// bounded says whether f allocates no more than a small multiple of its input.
func bounded(t *testing.T, n int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > uint64(1<<20+100*n) {
		t.Errorf("%d octets of input, %d allocated", n, got)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(sampleFrame(f))
	f.Add([]byte{frameVersion})
	f.Add([]byte{frameVersion, 4, 1, 0, tagSets, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, len(b), func() {
			var d decoder
			p := newPart(1)
			_ = d.batches(b, 0, func(_ core.PartitionID, s *source) error {
				s.commit, s.segment = 1, 1
				if len(s.sizes) != len(s.batch.Appends) {
					t.Errorf("%d sizes of %d appends", len(s.sizes), len(s.batch.Appends))
				}
				for i := range s.batch.Sets {
					if len(s.batch.Sets[i].Members) > len(b) {
						t.Error("more members than octets")
					}
				}
				_ = p
				return nil
			})
		})
	})
}

func FuzzBlock(f *testing.F) {
	for _, owner := range []core.CursorID{0, 5} {
		_, value := sampleBlock(owner)
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 {
			fixSum(b) // else nothing gets past the checksum
		}
		bounded(t, len(b), func() {
			r, err := openBlock(b)
			if err != nil {
				return
			}
			last := core.Offset(0)
			for first := true; r.next(); first = false {
				if !first && r.offset <= last {
					t.Errorf("offset %d after %d", r.offset, last)
				}
				last = r.offset
			}
		})
	})
}

func FuzzRun(f *testing.F) {
	f.Add([]byte{22, 0x83, 0x80, 0x80, 0, 1, 2, 3, 60}, uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		bounded(t, len(b), func() {
			r, err := openRun(b, 1, &place{crc: sum(b), n: int32(n)})
			if err != nil {
				t.Fatal(err)
			}
			for r.next() {
			}
		})
	})
}

func FuzzIndex(f *testing.F) {
	for _, owner := range []core.CursorID{0, 5} {
		b, _ := sampleBlock(owner)
		f.Add(appendIndex(nil, b), uint64(owner), int64(b.base))
	}
	f.Fuzz(func(t *testing.T, v []byte, owner uint64, base int64) {
		if len(v) >= 4 {
			fixSum(v)
		}
		bounded(t, len(v), func() {
			b, err := decodeIndex(v, blockID{checkpoint: 77, part: 1, owner: core.CursorID(owner), log: 7, base: core.Offset(max(1, base&(1<<40-1)))}, anyRoute)
			if err != nil {
				return
			}
			if b.which == nil && b.steps == nil {
				return // as many records as it likes to say
			}
			n := 0
			for i := range b.uses {
				n += b.count(uint8(i), b.base+1, b.last)
				b.first(uint8(i), b.base)
			}
			if n > b.n {
				t.Errorf("%d of %d records", n, b.n)
			}
		})
	})
}

func FuzzPage(f *testing.F) {
	page, wide := samplePage()
	f.Add(page)
	f.Add(wide)
	f.Fuzz(func(t *testing.T, v []byte) {
		bounded(t, len(v), func() {
			check := func(c *cursor) {
				at := c.settled.floor
				for _, r := range c.settled.above {
					if r[0] <= at || r[1] <= r[0] {
						t.Errorf("settled %v after %d", r, at)
					}
					at = r[1]
				}
			}
			_, _ = decodePage(1, v, check)
			if c, _, err := decodeWide(3, v); err == nil {
				check(c)
			}
		})
	})
}

func FuzzSmallValues(f *testing.F) {
	f.Add(encodePart(123_456))
	f.Add(encodeLog(&log{first: 5, next: 1_000_000, clock: 1_790_000_000_000}, 77))
	f.Add(setChunks([]core.CursorID{2, 3, 1_000_000})[0])
	f.Fuzz(func(t *testing.T, v []byte) {
		bounded(t, len(v), func() {
			_, _ = decodePart(v)
			_, _ = decodeLog(1, v)
			_, _ = decodeMark(v)
			if members, err := decodeMembers(nil, v); err == nil && len(members) > len(v) {
				t.Error("more members than octets")
			}
		})
	})
}
