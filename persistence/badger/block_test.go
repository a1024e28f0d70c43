package badger

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/godwitmq/godwit/core"
)

var updateGolden = flag.Bool("update-format", false, "write the golden files of the formats anew")

// A stored is one record of a block, for comparison.
type stored struct {
	Offset  core.Offset
	Time    int64
	Routes  core.RouteSetID
	Message string
}

// sample is a block with everything in it: its index, its value and its
// records.
func sample() (*block, []byte, []stored) {
	p := newPart(1)
	p.sets[9] = &routeSet{id: 9, members: []core.CursorID{5, 300}}
	l := newLog(7)
	b := &block{base: 1000}
	records := []stored{
		{1000, 1_790_000_000_000, core.Solo(5), "first"},
		{1001, 1_790_000_000_000, 9, ""},
		{1002, 1_790_000_000_017, 0, "third"},
		{1003, 1_790_000_001_000, core.Solo(5), strings.Repeat("long ", 50)},
	}
	var body []byte
	last := int64(0)
	for i, r := range records {
		body = appendRecord(body, i == 0, r.Time, last, r.Routes, []byte(r.Message))
		b.note(p.route(l, r.Routes), int64(len(r.Message)), r.Time)
		last = r.Time
	}
	b.pieces = 2
	return b, sealBlock(nil, b, body), records
}

func readAll(value []byte) (records []stored, err error) {
	r, err := openBlock(value)
	if err != nil {
		return nil, err
	}
	for r.next() {
		records = append(records, stored{r.offset, r.time, r.routes, string(r.message)})
	}
	return records, r.err
}

// An indexed is what an index entry says, for comparison.
type indexed struct {
	N                       int
	Pieces                  uint16
	Bytes, MinTime, MaxTime int64
	Uses                    []core.RouteSetID
	Counts                  []int
	Sizes                   []int64
	Which                   []uint8
}

func indexOf(b *block) indexed {
	x := indexed{N: b.n, Pieces: b.pieces, Bytes: b.bytes, MinTime: b.minTime, MaxTime: b.maxTime, Which: b.which}
	for _, u := range b.uses {
		x.Uses, x.Counts, x.Sizes = append(x.Uses, u.route.id), append(x.Counts, u.n), append(x.Sizes, u.bytes)
	}
	return x
}

func anyRoute(id core.RouteSetID) *route { return &route{id: id} }

func TestBlockRoundTrip(t *testing.T) {
	b, value, want := sample()
	got, err := readAll(value)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	again, err := decodeIndex(appendIndex(nil, b), b.base, anyRoute)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(indexOf(b), indexOf(again)); d != "" {
		t.Error(d)
	}
}

// The golden files are the formats as they were when they came to be. A
// Godwit that cannot read them cannot read its users' disks.
func TestGoldenFormats(t *testing.T) {
	b, value, records := sample()
	l := &log{first: 5, next: 1_000_000, clock: 1_790_000_000_000}
	c := &cursor{id: 3, seq: 77, log: 7, settled: ranges{floor: 10, above: [][2]core.Offset{{12, 13}, {500, 100_000}}}}
	chunks, sum := redoChunks([]entry{{[]byte("key"), []byte("value")}, {[]byte("gone"), nil}, {[]byte("empty"), []byte{}}})
	for name, now := range map[string][]byte{
		"block_v1":     value,
		"index_v1":     appendIndex(nil, b),
		"partition_v1": encodePart(123_456),
		"log_v1":       encodeLog(l),
		"cursor_v1":    encodeCursor(c),
		"set_v1":       setChunks([]core.CursorID{2, 3, 1_000_000})[0],
		"redo_v1":      chunks[0],
		"redoseal_v1":  sealOf(1, sum),
	} {
		golden := readGolden(t, name, now)
		if !bytes.Equal(golden, now) {
			t.Errorf("%s is written differently now:\n got %x\nwant %x", name, now, golden)
		}
	}
	got, err := readAll(readGolden(t, "block_v1", nil))
	if d := cmp.Diff(records, got); err != nil || d != "" {
		t.Error("block_v1:", err, d)
	}
	index, err := decodeIndex(readGolden(t, "index_v1", nil), 1000, anyRoute)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(indexOf(b), indexOf(index)); d != "" {
		t.Error("index_v1:", d)
	}
	if id, err := decodePart(readGolden(t, "partition_v1", nil)); id != 123_456 || err != nil {
		t.Error("partition_v1:", id, err)
	}
	if got, err := decodeLog(7, readGolden(t, "log_v1", nil)); err != nil || got.first != 5 || got.next != 1_000_000 || got.clock != 1_790_000_000_000 {
		t.Error("log_v1:", got, err)
	}
	if got, err := decodeCursor(3, readGolden(t, "cursor_v1", nil)); err != nil || got.seq != 77 || got.log != 7 || !cmp.Equal(got.settled.above, c.settled.above) || got.settled.floor != 10 {
		t.Error("cursor_v1:", got, err)
	}
	if got, err := decodeMembers(nil, readGolden(t, "set_v1", nil)); err != nil || !slices.Equal(got, []core.CursorID{2, 3, 1_000_000}) {
		t.Error("set_v1:", got, err)
	}
	if got, err := decodeRedo(readGolden(t, "redo_v1", nil)); err != nil || len(got) != 3 || string(got[0].value) != "value" || got[1].value != nil || got[2].value == nil {
		t.Error("redo_v1:", got, err)
	}
}

func readGolden(t *testing.T, name string, now []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	if *updateGolden && now != nil {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(hex.EncodeToString(now)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every octet of a block and of its index is under a checksum.
func TestNoFlippedBitIsTakenForABlock(t *testing.T) {
	b, value, _ := sample()
	for what, v := range map[string][]byte{"block": value, "index": appendIndex(nil, b)} {
		for i := range 8 * len(v) {
			bad := bytes.Clone(v)
			bad[i/8] ^= 1 << (i % 8)
			var err error
			if what == "block" {
				_, err = readAll(bad)
			} else {
				_, err = decodeIndex(bad, b.base, anyRoute)
			}
			if err == nil {
				t.Fatalf("bit %d of the %s was flipped and nobody saw it", i, what)
			}
		}
		for n := range len(v) {
			if _, err := readAll(v[:n]); err == nil {
				t.Fatalf("the first %d octets were taken for a whole block", n)
			}
		}
	}
}

func FuzzBlock(f *testing.F) {
	b, value, _ := sample()
	f.Add(value[4:])
	f.Add(appendIndex(nil, b)[4:])
	f.Add(encodeCursor(&cursor{settled: ranges{floor: 2, above: [][2]core.Offset{{3, 4}}}}))
	f.Fuzz(func(t *testing.T, v []byte) {
		// The decoders behind the checksum: it is no defence against a forger.
		sealed := resum(v)
		if records, err := readAll(sealed); err == nil && len(records) > len(v) {
			t.Fatalf("%d octets made %d records", len(v), len(records))
		}
		if b, err := decodeIndex(sealed, 5, anyRoute); err == nil && len(b.uses)+len(b.which) > len(v) {
			t.Fatal("an index larger than its octets")
		}
		if c, err := decodeCursor(1, v); err == nil && len(c.settled.above) > len(v) {
			t.Fatal("a cursor larger than its octets")
		}
		_, _ = decodeLog(1, v)
		_, _ = decodePart(v)
		_, _ = decodeMembers(nil, v)
		_, _ = decodeRedo(v)
	})
}

// resum puts the right checksum before v.
func resum(v []byte) []byte { return fixSum(append(make([]byte, 4, 4+len(v)), v...)) }

// TestRanges compares with a set of offsets.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r ranges
		r.floor = 1
		var all [64]bool
		all[0] = true
		offset := rapid.Uint64Range(0, 63)
		for range rapid.IntRange(1, 30).Draw(t, "adds") {
			from, to := offset.Draw(t, "from"), offset.Draw(t, "to")
			r.add(core.Offset(from), core.Offset(to))
			for o := from; o < to; o++ {
				all[o] = true
			}
			last := r.floor
			for _, x := range r.above {
				if x[0] <= last || x[1] <= x[0] {
					t.Fatalf("%+v is not sorted, or its parts touch", r)
				}
				last = x[1]
			}
			for o := range all {
				if r.has(core.Offset(o)) != all[o] {
					t.Fatalf("%+v says %v of %d", r, !all[o], o)
				}
			}
			from, to = offset.Draw(t, "gap from"), offset.Draw(t, "gap to")
			var gaps [64]bool
			for a, z := range r.gaps(core.Offset(from), core.Offset(to)) {
				for o := a; o < z; o++ {
					gaps[o] = true
				}
			}
			for o := range uint64(64) {
				if want := o >= from && o < to && !all[o]; gaps[o] != want {
					t.Fatalf("gaps of %+v in [%d, %d) say %v of %d", r, from, to, gaps[o], o)
				}
			}
		}
	})
}
