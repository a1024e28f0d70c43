package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/journal/journaltest"
)

// An image is a disk with three segments, of 6 blocks of 512, with two frames
// each, all but the first and the fourth of two blocks.
type image struct {
	disk    *journaltest.Disk
	options journal.Options
	frames  []got
	closed  bool
}

func newImage(t testing.TB, closed bool) *image {
	t.Helper()
	d := newDisk()
	o := journal.Options{Disk: d, Instance: instance, Segment: 6 * 512, Align: 512, Keep: 1}
	j := mustOpen(t, o)
	for i, n := range []int{20, 900, 800, 30, 700, 600} {
		mustWrite(t, j, fmt.Sprintf("%d:%s", i, strings.Repeat("x", n)))
	}
	if closed {
		mustClose(t, j)
	}
	im := &image{disk: d.Clone(), options: o, closed: closed}
	o.Disk = d.Clone()
	_, all, err := reopen(o)
	if err != nil || len(all) != 6 || all[4].segment != 3 || all[3].segment != 2 || all[1].segment != 1 {
		t.Fatalf("the image is not as it should be: %+v, %v", all, err)
	}
	im.frames = all
	return im
}

// open opens a copy of the image, changed.
func (im *image) open(change func(*journaltest.Disk)) ([]got, journal.Recovered, error) {
	d := im.disk.Clone()
	change(d)
	o := im.options
	o.Disk = d
	j, all, err := reopen(o)
	if err != nil {
		return nil, journal.Recovered{}, err
	}
	return all, j.Recovered(), nil
}

var allowGot = cmp.AllowUnexported(got{})

// outcome is what Open may say about a byte that has changed.
type outcome string

const (
	same    outcome = "all frames"
	shorter outcome = "all frames but the last"
	unclean outcome = "all frames, not closed"
	corrupt outcome = "a CorruptError"
	later   outcome = "ErrVersion"
)

func (im *image) outcome(all []got, r journal.Recovered, err error) outcome {
	var c *journal.CorruptError
	switch {
	case errors.As(err, &c) && strings.Contains(err.Error(), "godwit store repair DIR"):
		return corrupt
	case errors.Is(err, journal.ErrVersion):
		return later
	case err != nil:
		return outcome(err.Error())
	case cmp.Equal(all, im.frames, allowGot) && r.Clean == im.closed:
		return same
	case cmp.Equal(all, im.frames, allowGot):
		return unclean
	case cmp.Equal(all, im.frames[:len(im.frames)-1], allowGot):
		return shorter
	}
	return outcome(fmt.Sprintf("%+v", all))
}

// class says what a byte of a segment is, and what must come of a change.
func (im *image) class(number uint32, at int64) (string, outcome) {
	switch {
	case at == 3: // "GWJ2" is how a later format says so
		return "magic", later
	case at < journal.HeadEnd:
		return "head", corrupt
	}
	var end int64
	for i, f := range im.frames {
		if f.segment != number {
			continue
		}
		from, to := f.at-journal.PrefixSize, f.at+int64(len(f.payload))
		end = (to + 511) &^ 511
		if at < from || at >= to {
			continue
		}
		what := "body"
		if at < f.at {
			what = "header"
		}
		if i == len(im.frames)-1 && !im.closed {
			return what + " of the last frame", shorter
		}
		return what, corrupt
	}
	if number == 3 && im.closed && at >= end && at < end+journal.PrefixSize {
		return "close", unclean
	}
	return "padding", same
}

// mission: S8. A flipped bit in any place shows, or does not matter: never
// other data, never a gap.
func TestBitFlips(t *testing.T) {
	for _, closed := range []bool{false, true} {
		im := newImage(t, closed)
		seen := map[string]int{}
		random := rand.New(rand.NewPCG(7, 7))
		for number := uint32(1); number <= 3; number++ {
			for at := range im.options.Segment {
				mask := byte(1) << random.IntN(8)
				what, want := im.class(number, at)
				if testing.Short() && want == same && at%8 > 0 {
					continue // one byte of padding is as good as another
				}
				all, r, err := im.open(func(d *journaltest.Disk) { d.Flip(segmentName(number), at, mask) })
				if at == 3 && number > 1 {
					what = "magic of a later segment"
				}
				seen[what]++
				if got := im.outcome(all, r, err); got != want {
					t.Fatalf("closed: %v, segment %d, byte %d (%s): it gives %s, want %s", closed, number, at, what, got, want)
				}
			}
		}
		t.Log(seen)
	}
}

// A file that is shorter than it was is noticed, also the newest, and also
// where no frame is lost.
func TestTruncatedFiles(t *testing.T) {
	for _, closed := range []bool{false, true} {
		im := newImage(t, closed)
		for number := uint32(1); number <= 3; number++ {
			for n := int64(0); n < im.options.Segment; n += 37 {
				all, r, err := im.open(func(d *journaltest.Disk) {
					d.Put(segmentName(number), d.Bytes(segmentName(number))[:n])
				})
				if got := im.outcome(all, r, err); got != corrupt {
					t.Fatalf("closed: %v, segment %d cut to %d bytes: it gives %s", closed, number, n, got)
				}
			}
		}
	}
}

// NULs from some place on, as file systems leave them, are damage, but at the
// end of the newest segment: there they look like what was never written.
func TestNULs(t *testing.T) {
	for _, closed := range []bool{false, true} {
		im := newImage(t, closed)
		for number := uint32(1); number <= 3; number++ {
			for n := int64(0); n < im.options.Segment; n += 37 {
				all, r, err := im.open(func(d *journaltest.Disk) {
					b := d.Bytes(segmentName(number))
					clear(b[n:])
					d.Put(segmentName(number), b)
				})
				got := im.outcome(all, r, err)
				_, last := im.class(number, n)
				switch {
				case number == 3 && n >= journal.HeadEnd && err == nil:
					if len(all) < 4 || !cmp.Equal(all, im.frames[:len(all)], allowGot) {
						t.Fatalf("segment 3, NULs from %d: it gives %s", n, got)
					}
				case last == same && got == same, last == unclean && got == unclean:
				case got != corrupt:
					t.Fatalf("closed: %v, segment %d, NULs from %d: it gives %s", closed, number, n, got)
				}
			}
		}
	}
}

// After a clean close a last frame that is lost is damage.
func TestLostTailAfterClose(t *testing.T) {
	im := newImage(t, true)
	last := im.frames[5]
	_, _, err := im.open(func(d *journaltest.Disk) {
		b := d.Bytes(segmentName(3))
		clear(b[last.at-journal.PrefixSize:][:1024]) // the frame of Close follows
		d.Put(segmentName(3), b)
	})
	if got, want := corruptAt(err), fmt.Sprintf("segment 3 at %d, commit 6", last.at-journal.PrefixSize); got != want {
		t.Errorf("it gives %s, want %s", got, want)
	}
}

// What a recycled file held before never reads as what it is now, whatever is
// done to it but with the segment's own salt.
func TestStaleAndForgedFrames(t *testing.T) {
	d := newDisk()
	o := small(d)
	o.Align, o.Segment = 512, 8*512
	j := mustOpen(t, o)
	mustWrite(t, j, "a")
	file := d.Bytes(segmentName(1))
	salt := journal.SaltOf(file)
	for _, row := range []struct {
		says  string
		frame []byte
		want  string
	}{
		{"with the salt it is one: the test can see it", journal.Seal(1, 1, 2, salt, []byte("b")), "a b"},
		{"without a salt", journal.Seal(1, 1, 2, 0, []byte("b")), "a"},
		{"with the salt of another segment", journal.Seal(1, 1, 2, salt+1, []byte("b")), "a"},
		{"of another segment", journal.Seal(1, 7, 2, salt, []byte("b")), "a"},
		{"a head", journal.Head(1, instance, 2, 512, salt, 8*512), "a"},
		{"the frame of Close of another segment", journal.Seal(3, 1, 1, salt+1, nil), "a"},
		{"a wrong commit", journal.Seal(1, 1, 3, salt, []byte("b")), "segment 1 at 1024, commit 2"},
		{"the same commit", journal.Seal(1, 1, 1, salt, []byte("b")), "segment 1 at 1024, commit 2"},
		{"Close at another commit", journal.Seal(3, 1, 5, salt, nil), "segment 1 at 1024, commit 2"},
	} {
		for _, at := range []int{1024, 1536, 3584} {
			b := bytes.Clone(file)
			copy(b[at:], row.frame)
			d := newDisk()
			d.Put(segmentName(1), b)
			o.Disk = d
			_, all, err := reopen(o)
			got, want := payloads(all), row.want
			if err != nil {
				got = corruptAt(err)
			}
			if want == "a b" && at > 1024 { // it survived, and what was before it did not
				want = "segment 1 at 1024, commit 2"
			}
			if got != want {
				t.Errorf("%s, at %d: it gives %q, want %q", row.says, at, got, want)
			}
		}
	}
}

// Two segments that both have a commit are no log (J1).
func TestOverlap(t *testing.T) {
	for first, want := range map[uint64]string{1: "segment 2 at 512, commit 1", 2: "segment 2 at 512, commit 2", 3: "a b"} {
		d := newDisk()
		o := small(d)
		o.Align, o.Segment = 512, 8*512
		mustWrite(t, mustOpen(t, o), "a", "b")
		second := make([]byte, o.Segment)
		copy(second, journal.Head(2, instance, first, 512, 1, uint64(o.Segment)))
		d.Put(segmentName(2), second)
		_, all, err := reopen(o)
		got := payloads(all)
		if err != nil {
			got = corruptAt(err)
		}
		if got != want {
			t.Errorf("the second segment begins with commit %d: Open gives %s, want %s", first, got, want)
		}
	}
}

// A client sends what looks like frames. When the frame around them is torn,
// they are looked at, and are none.
func TestForgedInPayload(t *testing.T) {
	for _, salted := range []bool{false, true} {
		d := newDisk()
		o := small(d)
		j := mustOpen(t, o)
		mustWrite(t, j, "a")
		var salt uint64 // what the client believes it is
		if salted {
			salt = journal.SaltOf(d.Bytes(segmentName(1)))
		}
		forged := journal.Seal(1, 1, 3, salt, []byte("paid"))
		// It comes to lie where a frame may begin.
		payload := append(make([]byte, 4096-journal.PrefixSize), forged...)
		mustWrite(t, j, string(payload))
		d.Flip(segmentName(1), 2*4096+100, 1) // the frame is torn
		o.Disk = d.Kill()
		_, all, err := reopen(o)
		if salted {
			// So the test would see it.
			if corruptAt(err) != "segment 1 at 8192, commit 2" {
				t.Errorf("with the right salt it gives %v", err)
			}
		} else if err != nil || payloads(all) != "a" {
			t.Errorf("it gives %q, %v", payloads(all), err)
		}
	}
}

// Many overlapping headers cost no more than one pass.
func TestForgedHeadersAreCheap(t *testing.T) {
	const size, align = 8 << 20, 512
	file := make([]byte, size)
	copy(file, journal.Head(1, instance, 1, align, 99, size))
	for at := align; at < size-align; at += align {
		forged := journal.Seal(1, 1, 1, 0, nil)
		forged[16], forged[17], forged[18], forged[19] = 0, 0, 0x40, 0 // half of the file
		copy(file[at:], forged)
	}
	// One by one these are 16,000 checksums of 4 MiB: many seconds.
	d := newDisk()
	d.Put(segmentName(1), file)
	o := journal.Options{Disk: d, Instance: instance, Segment: size, Align: align}
	j := holds(t, o, "")
	mustClose(t, j)
	// And a real one among them is found.
	copy(file[size/2:], journal.Seal(1, 1, 7, 99, []byte("real")))
	d.Put(segmentName(1), file)
	if _, _, err := reopen(o); corruptAt(err) != "segment 1 at 512, commit 1" {
		t.Errorf("it gives %v", err)
	}
}

// The checksum of two ranges follows from theirs.
func TestCombine(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		a, b := make([]byte, random.IntN(100)), make([]byte, random.IntN(1<<random.IntN(20)))
		for _, p := range [][]byte{a, b} {
			for i := range p {
				p[i] = byte(random.Uint32())
			}
		}
		want := crc32.Checksum(append(bytes.Clone(a), b...), table)
		if got := journal.Combine(crc32.Checksum(a, table), crc32.Checksum(b, table), int64(len(b))); got != want {
			t.Fatalf("of %d and %d bytes it is %08x, want %08x", len(a), len(b), got, want)
		}
	}
	// Lengths that no test can hold in memory: x^(8n) is x^(8m) * x^(8(n-m)).
	for _, n := range []int64{1 << 30, 1<<32 - 1} {
		if one, two := journal.Combine(1, 0, n), journal.Combine(journal.Combine(1, 0, n/2), 0, n-n/2); one != two {
			t.Errorf("of %d bytes it is %08x at once and %08x in two steps", n, one, two)
		}
	}
}

// What a later Godwit has written is refused, not misread.
func TestLaterVersions(t *testing.T) {
	im := newImage(t, true)
	last := im.frames[5].at - journal.PrefixSize
	for _, row := range []struct {
		says   string
		change func(b []byte, salt uint64)
	}{
		{"the magic number", func(b []byte, _ uint64) { b[3] = '2' }},
		{"the head's version", func(b []byte, _ uint64) { journal.SetVersion(b[:journal.HeadEnd], 2, 0) }},
		{"a frame's version", func(b []byte, salt uint64) {
			journal.SetVersion(b[last:][:journal.PrefixSize+len(im.frames[5].payload)], 2, salt)
		}},
		{"a frame's kind", func(b []byte, salt uint64) { copy(b[last:], journal.Seal(4, 3, 6, salt, []byte("?"))) }},
	} {
		_, _, err := im.open(func(d *journaltest.Disk) {
			b := d.Bytes(segmentName(3))
			row.change(b, journal.SaltOf(b))
			d.Put(segmentName(3), b)
		})
		if !errors.Is(err, journal.ErrVersion) {
			t.Errorf("%s: Open gives %v", row.says, err)
		}
	}
}
