package badger

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/core"
)

var updateGolden = flag.Bool("update-format", false, "write the golden files of the formats anew")

// A storedRecord is one record of a block, for comparison.
type storedRecord struct {
	Offset  core.Offset
	Time    int64
	Routes  core.RouteSetID
	Message string
}

// sampleRecords are records with everything in them: a gap, three kinds of
// routes, and time that passes.
var sampleRecords = []storedRecord{
	{1000, 1_790_000_000_000, core.Solo(5), "first"},
	{1001, 1_790_000_000_000, 9, ""},
	{1009, 1_790_000_000_017, 0, "third"},
	{1010, 1_790_000_001_000, core.Solo(5), strings.Repeat("long ", 50)},
}

// sampleBlock is a block at rest: a shared one, or cursor 5's.
func sampleBlock(owner core.CursorID) (*block, []byte) {
	p := newPart(1)
	p.sets[9] = &routeSet{id: 9, members: []core.CursorID{5, 300}}
	l := newLog(7)
	w := newBlockWriter(owner, 77)
	for _, r := range sampleRecords {
		id := r.Routes
		if owner != 0 {
			id = core.Solo(owner)
		}
		w.add(r.Offset, p.route(l, id), int64(len(r.Message))+30, r.Time, []byte(r.Message))
	}
	value := w.seal()
	w.block.stored, w.block.pieces = len(value), 2
	return w.block, value
}

// sampleBatch has an op of each kind.
func sampleBatch() *core.Batch {
	return &core.Batch{
		Now:     1_790_000_000_000,
		Cursors: []core.CursorOp{{ID: 5, Log: 7, At: 3}, {ID: 6, Log: 7, Drop: true}},
		Sets:    []core.RouteSet{{ID: 9, Members: []core.CursorID{5, 300}}, {ID: 8}},
		Appends: []core.Append{
			{Log: 7, Routes: core.Solo(5), Message: small("one")},
			{Log: 7, Routes: 9, Message: small("two")},
			{Log: 11, Message: small("of a stream")},
		},
		Records: []core.Record{{Table: 2, Key: []byte("key"), Value: []byte("value")}, {Table: 2, Key: []byte("gone")}, {Table: 3, Key: []byte{}, Value: []byte{}}},
		Marks:   []core.Mark{{Cursor: 5, At: 1, Attempts: 2}},
		Acks:    []core.Ack{{Cursor: 5, From: 1, To: 3, N: 2}},
		Trims:   []core.Trim{{Log: 11, Before: 4, OlderThan: 1_780_000_000_000, Keep: 1 << 20}, {Log: 12, Before: core.MaxOffset}},
	}
}

// sampleFrame is the payload of a frame with two batches.
func sampleFrame(t testing.TB) []byte {
	t.Helper()
	h := &handle{s: &store{profile: edgeProfile}, part: newPart(3)}
	frame := []byte{frameVersion}
	for range 2 {
		st := &staged{}
		if err := st.prepare(h, sampleBatch()); err != nil {
			t.Fatal(err)
		}
		frame, _ = appendFrame(frame, st)
	}
	return frame
}

func samplePage() (page, wide []byte) {
	p := newPart(1)
	p.commit = 4711
	p.cursors[256] = &cursor{id: 256, log: 7, settled: ranges{floor: 10}}
	p.cursors[300] = &cursor{id: 300, log: 7, settled: ranges{floor: 10, above: [][2]core.Offset{{12, 13}, {500, 100_000}}}}
	page, _, _ = p.encodePage(1)
	wide, _ = p.encodeWide(p.cursors[300], 1000)
	return page, wide
}

func readAll(value []byte) (records []storedRecord, err error) {
	r, err := openBlock(value)
	if err != nil {
		return nil, err
	}
	for r.next() {
		records = append(records, storedRecord{r.offset, r.time, unpackRoutes(r.routes), string(r.message)})
	}
	return records, r.err
}

// An indexed is what an index entry says, for comparison.
type indexed struct {
	Base, Last              core.Offset
	Owner                   core.CursorID
	Checkpoint              uint64
	N, Stored               int
	Pieces                  uint16
	Bytes, MinTime, MaxTime int64
	Uses                    []core.RouteSetID
	Counts                  []int
	Sizes                   []int64
	Which, Steps            []uint8
}

func indexOf(b *block) indexed {
	x := indexed{
		Base: b.base, Last: b.last, Owner: b.owner, Checkpoint: b.checkpoint, N: b.n, Stored: b.stored, Pieces: b.pieces,
		Bytes: b.bytes, MinTime: b.minTime, MaxTime: b.maxTime, Which: b.which, Steps: b.steps,
	}
	for _, u := range b.uses {
		x.Uses, x.Counts, x.Sizes = append(x.Uses, u.route.id), append(x.Counts, u.n), append(x.Sizes, u.bytes)
	}
	return x
}

func anyRoute(id core.RouteSetID) *route { return &route{id: id} }

// The golden files are the formats as they were when they came to be. A Godwit
// that cannot read them cannot read its users' disks.
func TestGoldenFormats(t *testing.T) {
	shared, sharedValue := sampleBlock(0)
	owned, ownedValue := sampleBlock(5)
	page, wide := samplePage()
	for name, now := range map[string][]byte{
		"frame":       sampleFrame(t),
		"block":       sharedValue,
		"block_owned": ownedValue,
		"index":       appendIndex(nil, shared),
		"index_owned": appendIndex(nil, owned),
		"partition":   encodePart(123_456),
		"log":         encodeLog(&log{first: 5, next: 1_000_000, clock: 1_790_000_000_000}, 77),
		"page":        page,
		"wide":        wide,
		"set":         setChunks([]core.CursorID{2, 3, 1_000_000})[0],
	} {
		if golden := readGolden(t, name, now); !bytes.Equal(golden, now) {
			t.Errorf("%s is written differently now:\n got %x\nwant %x", name, now, golden)
		}
	}
	got, err := readAll(readGolden(t, "block", nil))
	if d := cmp.Diff(sampleRecords, got); err != nil || d != "" {
		t.Error("block:", err, d)
	}
	got, err = readAll(readGolden(t, "block_owned", nil))
	want := append([]storedRecord(nil), sampleRecords...)
	for i := range want {
		want[i].Routes = 0 // the key says whose it is
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error("block_owned:", err, d)
	}
	for name, b := range map[string]*block{"index": shared, "index_owned": owned} {
		index, err := decodeIndex(readGolden(t, name, nil), b.id(1, 7), anyRoute)
		if err != nil {
			t.Fatal(name, err)
		}
		if d := cmp.Diff(indexOf(b), indexOf(index)); d != "" {
			t.Error(name, d)
		}
	}
	if id, err := decodePart(readGolden(t, "partition", nil)); id != 123_456 || err != nil {
		t.Error("partition:", id, err)
	}
	if got, err := decodeLog(7, readGolden(t, "log", nil)); err != nil || got.first != 5 || got.next != 1_000_000 || got.clock != 1_790_000_000_000 {
		t.Error("log:", got, err)
	}
	if got, err := decodeMembers(nil, readGolden(t, "set", nil)); err != nil || !cmp.Equal(got, []core.CursorID{2, 3, 1_000_000}) {
		t.Error("set:", got, err)
	}
	goldenCursors(t)
	goldenFrame(t)
}

func goldenCursors(t *testing.T) {
	ranges300 := [][2]core.Offset{{12, 13}, {500, 100_000}}
	read := map[core.CursorID]*cursor{}
	commit, err := decodePage(1, readGolden(t, "page", nil), func(c *cursor) { read[c.id] = c })
	if err != nil || commit != 4711 || len(read) != 2 || read[256].log != 7 || read[256].settled.floor != 10 || !cmp.Equal(read[300].settled.above, ranges300) {
		t.Error("page:", commit, err, read)
	}
	c, commit, err := decodeWide(300, readGolden(t, "wide", nil))
	if err != nil || commit != 4711 || c.log != 7 || c.settled.floor != 10 || !cmp.Equal(c.settled.above, ranges300) {
		t.Error("wide:", c, commit, err)
	}
}

func goldenFrame(t *testing.T) {
	var d decoder
	payload := readGolden(t, "frame", nil)
	n := 0
	err := d.batches(payload, 1000, func(id core.PartitionID, s *source) error {
		want := sampleBatch()
		for i := range want.Appends {
			want.Appends[i].Message = nil
		}
		for i := range want.Acks { // the store counts by itself
			want.Acks[i].N = 0
		}
		want.Now = s.batch.Now
		if d := cmp.Diff(want, s.batch); d != "" || id != 3 {
			t.Errorf("batch %d of partition %d: %s", n, id, d)
		}
		if s.batch.Now != 1_790_000_000_000 && s.batch.Now != 0 {
			t.Error("its time is", s.batch.Now)
		}
		bodies := ""
		for i := range s.runs {
			r := &s.runs[i]
			from := s.at - 1000 + int64(r.at)
			records, err := openRun(payload[from:from+int64(r.len)], r.base, &place{crc: r.crc, n: r.n, time: r.time})
			for err == nil && records.next() {
				m, bad := core.DecodeMessage(records.message)
				if bad != nil {
					t.Fatal(bad)
				}
				bodies += string(m.Body) + " "
				if m.Size() != records.size {
					t.Errorf("size %d, want %d", records.size, m.Size())
				}
			}
			if err != nil || records.err != nil {
				t.Error(err, records.err)
			}
		}
		if bodies != "one two of a stream " {
			t.Errorf("bodies %q", bodies)
		}
		n++
		return nil
	})
	if err != nil || n != 2 {
		t.Errorf("frame: %d batches, %v", n, err)
	}
}

// readGolden reads a file, or writes it: now, in hex.
func readGolden(t *testing.T, name string, now []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", "format2", name+".hex")
	if *updateGolden && now != nil {
		if err := os.WriteFile(path, append([]byte(hex.EncodeToString(now)), '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(path, err)
	}
	return v
}
