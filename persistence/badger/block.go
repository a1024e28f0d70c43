package badger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/godwitmq/godwit/core"
)

// A block at rest, version 1. Its records have contiguous offsets.
//
//	crc32c u32 little-endian, of all that follows
//	version byte | flags byte | n | base offset | time of the first, unix ms
//	per record: offset delta | time delta | routes | length | message
//
// Numbers are uvarints. Routes is a route set's id doubled, or a cursor's
// doubled and one more. The message is as core.AppendMessage writes it.
const (
	blockVersion = 1
	pieceBytes   = 256 << 10 // a longer block is stored in pieces
	maxUses      = 256       // different route sets in one block
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A block is what is known in memory of a block at rest. The committer alone
// changes it, with its partition's mutex held.
type block struct {
	base    core.Offset
	n       int // records: offsets base to base+n-1
	pieces  uint16
	bytes   int64 // Message.Size of all
	minTime int64
	maxTime int64
	uses    []use
	which   []uint8 // by record, the index into uses; nil: all 0
	owed    int64   // (record, cursor) pairs that are not settled
	kept    int     // records that stay until a trim: those without routes
	gone    bool    // it is not in its log any more
}

// A use is how often one route set is used in a block.
type use struct {
	route *route
	n     int
	bytes int64
}

func (b *block) end() core.Offset { return b.base + core.Offset(b.n) }

// live says whether somebody still wants something of b.
func (b *block) live() bool { return b.owed > 0 || b.kept > 0 }

// route is the route of the record at an offset.
func (b *block) route(o core.Offset) *route {
	if b.which == nil {
		return b.uses[0].route
	}
	return b.uses[b.which[o-b.base]].route
}

// note takes the next record into account.
func (b *block) note(r *route, size, time int64) {
	i := b.use(r)
	if i > 0 && b.which == nil {
		b.which = make([]uint8, b.n, max(64, 2*b.n))
	}
	if b.which != nil {
		b.which = append(b.which, uint8(i))
	}
	b.uses[i].n++
	b.uses[i].bytes += size
	if b.n == 0 {
		b.minTime = time
	}
	b.maxTime = time
	b.bytes += size
	b.n++
}

// use finds the index of r in uses, or makes one.
func (b *block) use(r *route) int {
	if r.last != b {
		r.last, r.lastUse = b, len(b.uses)
		r.used = append(r.used, place{b, uint8(r.lastUse)})
		b.uses = append(b.uses, use{route: r})
	}
	return r.lastUse
}

// count is how many records in [from, to) are of the i-th use.
func (b *block) count(i uint8, from, to core.Offset) int {
	from, to = max(from, b.base), min(to, b.end())
	switch {
	case from >= to:
		return 0
	case b.which == nil:
		return int(to - from)
	case from == b.base && to == b.end():
		return b.uses[i].n
	}
	return bytes.Count(b.which[from-b.base:to-b.base], []byte{i})
}

// first is the first offset from from on that is of the i-th use.
func (b *block) first(i uint8, from core.Offset) (o core.Offset, ok bool) {
	from = max(from, b.base)
	if from >= b.end() {
		return 0, false
	}
	if b.which == nil {
		return from, true
	}
	n := bytes.IndexByte(b.which[from-b.base:], i)
	return from + core.Offset(n), n >= 0
}

// appendRecord appends one record of a block; time and lastTime are unix ms.
func appendRecord(dst []byte, first bool, time, lastTime int64, r core.RouteSetID, message []byte) []byte {
	if first {
		dst = append(dst, 0, 0)
	} else {
		dst = append(dst, 1)
		dst = binary.AppendUvarint(dst, uint64(time-lastTime))
	}
	dst = binary.AppendUvarint(dst, packRoutes(r))
	dst = binary.AppendUvarint(dst, uint64(len(message)))
	return append(dst, message...)
}

func packRoutes(r core.RouteSetID) uint64 {
	if c, solo := r.Member(); solo {
		return uint64(c)<<1 | 1
	}
	return uint64(r) << 1
}

func unpackRoutes(v uint64) core.RouteSetID {
	if v&1 == 1 {
		return core.Solo(core.CursorID(v >> 1))
	}
	return core.RouteSetID(v >> 1)
}

// sealBlock puts the head of a block before its records.
func sealBlock(dst []byte, b *block, records []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, blockVersion, 0)
	dst = binary.AppendUvarint(dst, uint64(b.n))
	dst = binary.AppendUvarint(dst, uint64(b.base))
	dst = binary.AppendUvarint(dst, uint64(b.minTime))
	dst = append(dst, records...)
	fixSum(dst[at:])
	return dst
}

// fixSum writes the checksum of what follows it.
func fixSum(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// A blockReader goes through a block at rest.
//
//	r, err := openBlock(value)
//	for r.next() { ... r.offset, r.time, r.routes, r.message ... }
//	r.err
type blockReader struct {
	offset  core.Offset
	time    int64
	routes  core.RouteSetID
	message []byte // a part of the block
	err     error

	rest  reader
	left  uint64
	begun bool
}

// openBlock checks a block's checksum and reads its head.
func openBlock(b []byte) (blockReader, error) {
	if len(b) < 6 {
		return blockReader{}, errShort
	}
	if got, want := crc32.Checksum(b[4:], castagnoli), binary.LittleEndian.Uint32(b); got != want {
		return blockReader{}, fmt.Errorf("checksum %08x, want %08x", got, want)
	}
	if b[4] != blockVersion || b[5] != 0 {
		return blockReader{}, fmt.Errorf("block version %d with flags %#x, this Godwit reads version %d without: start the one that wrote it", b[4], b[5], blockVersion)
	}
	r := blockReader{rest: reader{b: b[6:]}}
	r.left = r.rest.number()
	r.offset = core.Offset(r.rest.number())
	r.time = r.rest.time()
	return r, r.rest.err
}

// next reads the next record; false at the end, or with err set.
func (r *blockReader) next() bool {
	if r.left == 0 {
		if r.err == nil && len(r.rest.b) > 0 {
			r.err = fmt.Errorf("%d octets follow the last record", len(r.rest.b))
		}
		return false
	}
	r.left--
	offset, time := r.rest.number(), r.rest.number()
	r.routes = unpackRoutes(r.rest.number())
	r.message = r.rest.bytes()
	if r.begun && offset == 0 || !r.begun && offset != 0 || offset > 1<<32 || time > math.MaxInt64-uint64(r.time) {
		r.rest.fail(fmt.Errorf("offset or time jumps by %d and %d", offset, time))
	}
	r.begun = true
	r.offset += core.Offset(offset)
	r.time += int64(time)
	if r.err = r.rest.err; r.err != nil {
		r.left = 0
		return false
	}
	return true
}

// An index entry at rest, version 1: what openBlock would tell of a block,
// without reading it.
//
//	crc32c | version byte | flags byte | n | pieces | bytes | first time | last time
//	| uses, then of each: routes | n | bytes | the octets of which, if uses > 1
const indexVersion = 1

func appendIndex(dst []byte, b *block) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, indexVersion, 0)
	for _, v := range []uint64{uint64(b.n), uint64(b.pieces), uint64(b.bytes), uint64(b.minTime), uint64(b.maxTime), uint64(len(b.uses))} {
		dst = binary.AppendUvarint(dst, v)
	}
	for i := range b.uses {
		dst = binary.AppendUvarint(dst, packRoutes(b.uses[i].route.id))
		dst = binary.AppendUvarint(dst, uint64(b.uses[i].n))
		dst = binary.AppendUvarint(dst, uint64(b.uses[i].bytes))
	}
	dst = append(dst, b.which...)
	fixSum(dst[at:])
	return dst
}

// decodeIndex reads an index entry. routeOf finds the routes.
func decodeIndex(v []byte, base core.Offset, routeOf func(core.RouteSetID) *route) (*block, error) {
	if len(v) < 6 {
		return nil, errShort
	}
	if got, want := crc32.Checksum(v[4:], castagnoli), binary.LittleEndian.Uint32(v); got != want {
		return nil, fmt.Errorf("checksum %08x, want %08x", got, want)
	}
	if v[4] != indexVersion || v[5] != 0 {
		return nil, fmt.Errorf("index version %d with flags %#x, this Godwit reads version %d without: start the one that wrote it", v[4], v[5], indexVersion)
	}
	r := reader{b: v[6:]}
	b := &block{base: base}
	n, pieces := r.number(), r.number()
	b.bytes = int64(r.number())
	b.minTime, b.maxTime = r.time(), r.time()
	uses := r.number()
	if r.err == nil && (n == 0 || n > 1<<32 || pieces > math.MaxUint16 || uses == 0 || uses > maxUses || uses > uint64(len(r.b))) {
		return nil, fmt.Errorf("%d records in %d pieces with %d route sets", n, pieces, uses)
	}
	if r.err != nil {
		return nil, r.err
	}
	b.n, b.pieces = int(n), uint16(pieces)
	b.uses = make([]use, uses)
	for i := range b.uses {
		id := unpackRoutes(r.number())
		b.uses[i] = use{n: int(r.number()), bytes: int64(r.number())}
		if r.err == nil {
			b.uses[i].route = routeOf(id)
		}
	}
	if r.err == nil && uses > 1 {
		if uint64(len(r.b)) != n {
			return nil, errShort
		}
		b.which = append([]uint8(nil), r.b...)
		for _, i := range b.which {
			if uint64(i) >= uses {
				return nil, fmt.Errorf("a record of route set %d of %d", i, uses)
			}
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return b, nil
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
