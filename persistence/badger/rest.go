package badger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/godwitmq/godwit/core"
)

// What is at rest in the database. The small values begin with their version.
const (
	partVersion  = 1
	logVersion   = 1
	pageVersion  = 1
	indexVersion = 1
	blockVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// version checks the first octet of a value and gives a reader of the rest.
func version(b []byte, what string, want byte) reader {
	if len(b) == 0 {
		return reader{err: fmt.Errorf("%s: %w", what, errShort)}
	}
	if b[0] != want {
		return reader{err: fmt.Errorf("%s of version %d, this Godwit reads version %d: start the one that wrote it", what, b[0], want)}
	}
	return reader{b: b[1:]}
}

// end says what went wrong, an octet too many included.
func (r *reader) end(what string) error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d octets follow its end", len(r.b))
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w", what, r.err)
	}
	return nil
}

// A partition: version | highest id used.
func encodePart(lastID uint64) []byte {
	return binary.AppendUvarint([]byte{partVersion}, lastID)
}

func decodePart(b []byte) (lastID uint64, err error) {
	r := version(b, "partition", partVersion)
	lastID = r.number()
	return lastID, r.end("partition")
}

// A log: version | first | next | clock | the commit it is true for.
func encodeLog(l *log, commit uint64) []byte {
	b := binary.AppendUvarint([]byte{logVersion}, uint64(l.first))
	b = binary.AppendUvarint(b, uint64(l.next))
	b = binary.AppendUvarint(b, uint64(l.clock))
	return binary.AppendUvarint(b, commit)
}

func decodeLog(id core.LogID, b []byte) (*log, error) {
	r := version(b, "log", logVersion)
	l := newLog(id)
	l.first, l.next = core.Offset(r.number()), core.Offset(r.number())
	l.clock = r.time()
	l.rest = r.number()
	return l, r.end("log")
}

// A page of cursors: version | the commit it is true for, then of each: number
// on the page octet | log | floor | ranges, then of each: distance from the end
// of the one before, or the floor | length.
//
// A cursor whose ranges take more than wideBytes, or for which the page has no
// room, has a value of its own: version
// | the commit it is true for | the same from log on.
func (p *part) encodePage(page uint64) (b []byte, wide []*cursor, n int) {
	b = append(make([]byte, 0, 256), pageVersion)
	b = binary.AppendUvarint(b, p.commit)
	for i := range 1 << pageBits {
		c := p.cursors[core.CursorID(page<<pageBits|uint64(i))]
		if c == nil {
			continue
		}
		before := len(b)
		if 4*len(c.settled.above) <= wideBytes {
			b = appendCursor(append(b, byte(i)), c)
		}
		if len(c.settled.above) > 0 && (len(b) == before || len(b) > pageBytes) {
			b, wide = b[:before], append(wide, c)
			continue
		}
		n++
	}
	return b, wide, n
}

const wideBytes = 4 << 10

// pageBytes is what a page of cursors may have, but for cursors without ranges:
// those that do not fit have values of their own. A page is one value.
const pageBytes = 16 << 10

// encodeWide is a cursor with a value of its own, of most octets.
func (p *part) encodeWide(c *cursor, most int) (b []byte, whole bool) {
	b = binary.AppendUvarint([]byte{pageVersion}, p.commit)
	head := len(b)
	b = appendCursor(b, c)
	if len(b) <= most {
		return b, true
	}
	few := *c
	few.settled.above = few.settled.above[:most/(2*binary.MaxVarintLen64)-1]
	return appendCursor(b[:head], &few), false
}

func decodeWide(id core.CursorID, b []byte) (c *cursor, commit uint64, err error) {
	r := version(b, "cursor", pageVersion)
	commit = r.number()
	c = &cursor{id: id, log: core.LogID(r.number()), wide: true}
	r.cursor(c)
	return c, commit, r.end("cursor")
}

func appendCursor(b []byte, c *cursor) []byte {
	b = binary.AppendUvarint(b, uint64(c.log))
	b = binary.AppendUvarint(b, uint64(c.settled.floor))
	b = binary.AppendUvarint(b, uint64(len(c.settled.above)))
	at := c.settled.floor
	for _, r := range c.settled.above {
		b = binary.AppendUvarint(b, uint64(r[0]-at))
		b = binary.AppendUvarint(b, uint64(r[1]-r[0]))
		at = r[1]
	}
	return b
}

func decodePage(page uint64, b []byte, each func(*cursor)) (commit uint64, err error) {
	r := version(b, "page of cursors", pageVersion)
	commit = r.number()
	last := -1
	for len(r.b) > 0 {
		i := int(r.b[0])
		r.b = r.b[1:]
		if i <= last {
			r.fail(fmt.Errorf("cursor %d after %d", i, last))
			break
		}
		last = i
		c := &cursor{id: core.CursorID(page<<pageBits | uint64(i)), log: core.LogID(r.number())}
		r.cursor(c)
		if r.err != nil {
			break
		}
		each(c)
	}
	return commit, r.end("page of cursors")
}

func (r *reader) cursor(c *cursor) {
	c.settled.floor = core.Offset(r.number())
	n := r.number()
	if n > uint64(len(r.b))/2 {
		r.fail(errShort)
		return
	}
	at := c.settled.floor
	for range n {
		from := at + core.Offset(r.number())
		to := from + core.Offset(r.number())
		if r.err == nil && (from <= at || to <= from || to > core.MaxOffset) {
			r.fail(fmt.Errorf("settled from %d to %d after %d", from, to, at))
		}
		if r.err != nil {
			return
		}
		c.settled.above = append(c.settled.above, [2]core.Offset{from, to})
		at = to
	}
}

// decodeMark reads a delivery count.
func decodeMark(b []byte) (uint16, error) {
	r := reader{b: b}
	n := r.number()
	if n == 0 || n > math.MaxUint16 {
		r.fail(fmt.Errorf("%d attempts", n))
	}
	return uint16(n), r.end("delivery count")
}

// decodeMembers reads a chunk of a route set, after the member that was last.
func decodeMembers(members []core.CursorID, b []byte) ([]core.CursorID, error) {
	r := reader{b: b}
	last := core.CursorID(0)
	if len(members) > 0 {
		last = members[len(members)-1]
	}
	for len(r.b) > 0 {
		d := core.CursorID(r.number())
		if r.err == nil && len(members) > 0 && d == 0 {
			r.fail(fmt.Errorf("member %d twice", last))
		}
		if r.err != nil {
			break
		}
		last += d
		members = append(members, last)
	}
	return members, r.end("route set")
}

// A block at rest:
//
//	crc32c u32 little-endian, of all that follows
//	version octet | flags octet | n | base offset | time of the first, unix ms
//	per record: offset delta | time delta | [routes, delta] | length | message
//
// Flag 1: it is one cursor's, and routes are left out.
const blockOwned = 1

// A blockWriter fills a block at rest.
type blockWriter struct {
	block  *block
	uses   map[*route]int // of a shared one
	buf    []byte         // records
	routes uint64         // of the record before
	times  int64
}

func newBlockWriter(owner core.CursorID, checkpoint uint64) *blockWriter {
	w := &blockWriter{block: &block{owner: owner, checkpoint: checkpoint}}
	if owner == 0 {
		w.uses = map[*route]int{}
	}
	return w
}

// takes says whether a record of a route has room in a block of most octets.
func (w *blockWriter) takes(r *route, octets, most int) bool {
	if w.block.n == 0 {
		return true
	}
	if _, known := w.uses[r]; !known && len(w.block.uses) == maxUses {
		return false
	}
	return len(w.buf)+octets <= most
}

// use finds the index of r in uses, or makes one.
func (w *blockWriter) use(r *route) int {
	if w.block.owner != 0 && len(w.block.uses) > 0 {
		return 0
	}
	i, known := w.uses[r]
	if !known {
		i = len(w.block.uses)
		w.block.uses = append(w.block.uses, use{route: r})
		if w.uses != nil {
			w.uses[r] = i
		}
	}
	return i
}

func (w *blockWriter) add(o core.Offset, r *route, size, time int64, message []byte) {
	b := w.block
	if b.n == 0 {
		b.base, w.times = o, time
		w.buf = append(w.buf, 0, 0)
	} else {
		w.buf = binary.AppendUvarint(w.buf, uint64(o-b.last))
		w.buf = binary.AppendUvarint(w.buf, uint64(time-w.times))
		w.times = time
	}
	if b.owner == 0 {
		packed := packRoutes(r.id)
		w.buf = appendDelta(w.buf, packed, w.routes)
		w.routes = packed
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(len(message)))
	w.buf = append(w.buf, message...)
	b.note(o, w.use(r), size, time)
}

// seal puts the head of a block before its records.
func (w *blockWriter) seal() []byte {
	b := w.block
	value := make([]byte, 0, len(w.buf)+40)
	value = append(value, 0, 0, 0, 0, blockVersion, 0)
	if b.owner != 0 {
		value[5] |= blockOwned
	}
	value = binary.AppendUvarint(value, uint64(b.n))
	value = binary.AppendUvarint(value, uint64(b.base))
	value = binary.AppendUvarint(value, uint64(b.minTime))
	value = append(value, w.buf...)
	return fixSum(value)
}

func sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// fixSum writes the checksum of what follows it.
func fixSum(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func checkSum(b []byte, what string, want byte) (flags byte, r reader, err error) {
	if len(b) < 6 {
		return 0, reader{}, errShort
	}
	if got, want := crc32.Checksum(b[4:], castagnoli), binary.LittleEndian.Uint32(b); got != want {
		return 0, reader{}, fmt.Errorf("checksum %08x, want %08x", got, want)
	}
	if b[4] != want {
		return 0, reader{}, fmt.Errorf("%s version %d, this Godwit reads version %d: start the one that wrote it", what, b[4], want)
	}
	return b[5], reader{b: b[6:]}, nil
}

// A recordReader goes through stored records: of a block at rest, or of a run
// of the journal.
//
//	for r.next() { ... r.offset, r.time, r.message ... }
//	r.err
type recordReader struct {
	offset  core.Offset
	time    int64
	routes  uint64
	message []byte // a part of what is read
	size    int64  // of a run alone: Message.Size
	err     error

	rest  reader
	left  uint64
	begun bool
	owned bool // without routes
	run   bool // contiguous, of one time
}

// openBlock checks a block's checksum and reads its head.
func openBlock(b []byte) (recordReader, error) {
	flags, rest, err := checkSum(b, "block", blockVersion)
	if err == nil && flags&^blockOwned != 0 {
		err = fmt.Errorf("a block with flags %#x: start the Godwit that wrote it", flags)
	}
	if err != nil {
		return recordReader{}, err
	}
	r := recordReader{rest: rest, owned: flags&blockOwned != 0}
	r.left = r.rest.number()
	r.offset = core.Offset(r.rest.number())
	r.time = r.rest.time()
	return r, r.rest.err
}

// openRun checks a run of the journal and reads from base on.
func openRun(b []byte, base core.Offset, p *place) (recordReader, error) {
	if got := crc32.Checksum(b, castagnoli); got != p.crc {
		return recordReader{}, fmt.Errorf("checksum %08x, want %08x", got, p.crc)
	}
	return recordReader{rest: reader{b: b}, left: uint64(p.n), offset: base, time: p.time, run: true}, nil
}

// next reads the next record; false at the end, or with err set.
func (r *recordReader) next() bool {
	if r.left == 0 {
		if r.err == nil && len(r.rest.b) > 0 {
			r.err = fmt.Errorf("%d octets follow the last record", len(r.rest.b))
		}
		return false
	}
	r.left--
	if r.run {
		r.nextOfRun()
	} else {
		r.nextOfBlock()
	}
	r.begun = true
	if r.err = r.rest.err; r.err != nil {
		r.left = 0
		return false
	}
	return true
}

func (r *recordReader) nextOfRun() {
	if r.begun {
		r.offset++
	}
	r.routes = r.rest.delta(r.routes)
	r.message = r.rest.bytes()
	r.size = int64(r.rest.delta(uint64(len(r.message))))
}

func (r *recordReader) nextOfBlock() {
	offset, time := r.rest.number(), r.rest.number()
	if !r.owned {
		r.routes = r.rest.delta(r.routes)
	}
	r.message = r.rest.bytes()
	if r.begun == (offset == 0) || offset > math.MaxInt64 || time > math.MaxInt64-uint64(r.time) {
		r.rest.fail(fmt.Errorf("offset or time jumps by %d and %d", offset, time))
	}
	r.offset += core.Offset(offset)
	r.time += int64(time)
}

// An index entry at rest: what openBlock would tell of a block, without
// reading it.
//
//	crc32c | version octet | flags octet | n | pieces | octets stored | Message.Size of all
//	| first time | last time | last - base | uses, then of each: routes | n | bytes
//	| length of steps | steps | which, n octets, if uses > 1
//
// Flag 1: there are steps.
const indexSteps = 1

func appendIndex(dst []byte, b *block) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, indexVersion, 0)
	if b.steps != nil {
		dst[at+5] |= indexSteps
	}
	for _, v := range []uint64{
		uint64(b.n), uint64(b.pieces), uint64(b.stored), uint64(b.bytes),
		uint64(b.minTime), uint64(b.maxTime), uint64(b.last - b.base), uint64(len(b.uses)),
	} {
		dst = binary.AppendUvarint(dst, v)
	}
	for i := range b.uses {
		dst = binary.AppendUvarint(dst, packRoutes(b.uses[i].route.id))
		dst = binary.AppendUvarint(dst, uint64(b.uses[i].n))
		dst = binary.AppendUvarint(dst, uint64(b.uses[i].bytes))
	}
	if b.steps != nil {
		dst = binary.AppendUvarint(dst, uint64(len(b.steps)))
		dst = append(dst, b.steps...)
	}
	dst = append(dst, b.which...)
	fixSum(dst[at:])
	return dst
}

// decodeIndex reads an index entry. routeOf finds the routes.
func decodeIndex(v []byte, id blockID, routeOf func(core.RouteSetID) *route) (*block, error) {
	flags, r, err := checkSum(v, "index", indexVersion)
	if err == nil && flags&^indexSteps != 0 {
		err = fmt.Errorf("an index with flags %#x: start the Godwit that wrote it", flags)
	}
	if err != nil {
		return nil, err
	}
	b := &block{base: id.base, owner: id.owner, checkpoint: id.checkpoint}
	n, pieces, stored := r.number(), r.number(), r.number()
	b.bytes = int64(r.number())
	b.minTime, b.maxTime = r.time(), r.time()
	b.last = b.base + core.Offset(r.number())
	uses := r.number()
	if r.err == nil && (n == 0 || n > 1<<31 || pieces > math.MaxUint16 || stored > 1<<31 || uses == 0 || uses > maxUses || b.last < b.base) {
		r.fail(fmt.Errorf("%d records of %d octets in %d pieces with %d route sets", n, stored, pieces, uses))
	}
	b.n, b.pieces, b.stored = int(n), uint16(pieces), int(stored)
	left := b.n
	for range uses {
		id := unpackRoutes(r.number())
		u := use{n: int(r.number()), bytes: int64(r.number())}
		if r.err != nil {
			return nil, r.err
		}
		u.route = routeOf(id)
		b.uses = append(b.uses, u)
		if left -= u.n; u.n < 1 || left < 0 {
			return nil, fmt.Errorf("route set %d of %d has %d of %d records", len(b.uses), uses, u.n, b.n)
		}
	}
	if r.err == nil && left != 0 {
		return nil, fmt.Errorf("%d of %d records have no route set", left, b.n)
	}
	if flags&indexSteps != 0 {
		b.steps = append([]byte(nil), r.bytes()...)
	}
	if r.err == nil && uses > 1 {
		b.which = append([]uint8(nil), r.b...)
		r.b = nil
	}
	if err := r.end("index"); err != nil {
		return nil, err
	}
	return b, b.sound()
}

// sound says whether the parts of an index entry fit each other.
func (b *block) sound() error {
	if b.which != nil && len(b.which) != b.n {
		return errShort
	}
	for _, i := range b.which {
		if int(i) >= len(b.uses) {
			return fmt.Errorf("a record of route set %d of %d", i, len(b.uses))
		}
	}
	r, at := reader{b: b.steps}, b.base
	for i := 1; i < b.n && b.steps != nil && r.err == nil; i++ {
		at += core.Offset(r.number())
	}
	if b.steps == nil {
		at += core.Offset(b.n - 1)
	}
	if r.err != nil || len(r.b) > 0 || at != b.last {
		return fmt.Errorf("its records end at %d, not at %d", at, b.last)
	}
	return nil
}

var errShort = errors.New("it ends too early")

// A reader reads numbers and octets. After an error it gives nothing more.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

// delta reads a difference to last.
func (r *reader) delta(last uint64) uint64 {
	v := r.number()
	return last + (v>>1 ^ -(v & 1))
}

func (r *reader) time() int64 {
	v := r.number()
	if v > math.MaxInt64 {
		r.fail(fmt.Errorf("%d is no time", v))
		return 0
	}
	return int64(v)
}

// bytes reads a length and as many octets, which stay a part of b.
func (r *reader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) octet() byte {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}
