package badger

import (
	"encoding/binary"

	"github.com/godwitmq/godwit/core"
)

// The kinds of keys: the first octet. Numbers in keys are big-endian, so that
// the database's order is theirs.
//
// Blocks come first, and among them the older before the newer. So what a
// checkpoint adds lies behind all blocks there are, and when the database
// merges a new table into a level it rewrites none of them: with the partition
// first and the checkpoint nowhere, each octet was written twice as often.
// Everything small lies behind the blocks, persistence/lsm's own keys (F0, F1)
// included.
const (
	kindBlock     = 0x10 // checkpoint u64, p u16, owner u64, log u64, base u64
	kindPiece     = 0x11 // the same, n u16
	kindIndex     = 0x20 // the same as of the block
	kindPartition = 0x30 // p u16
	kindLog       = 0x31 // p, log u64
	kindPage      = 0x32 // p, page u64
	kindWide      = 0x33 // p, cursor u64: one with too many ranges for its page
	kindMark      = 0x34 // p, cursor u64, offset u64
	kindSet       = 0x35 // p, set u64, chunk u16; chunk 2^16-1: core has retired it
	kindRecord    = 0x40 // p, table u8, key
	kindMeta      = 0xf0 // 'M' name; the rest of it is persistence/lsm's
)

const setRetired = 1<<16 - 1

// pageOf is the page that a cursor is on: 256 of them are one value.
func pageOf(c core.CursorID) uint64 { return uint64(c) >> pageBits }

const pageBits = 8

// partKey begins all keys of one kind in a partition. Room says how many
// octets will follow.
func partKey(kind byte, p core.PartitionID, room int) []byte {
	k := make([]byte, 0, 3+room)
	k = append(k, kind)
	return binary.BigEndian.AppendUint16(k, uint16(p))
}

func metaKey(name string) []byte { return append([]byte{kindMeta, 'M'}, name...) }

// A blockID is where a block at rest is found.
type blockID struct {
	checkpoint uint64
	part       core.PartitionID
	owner      core.CursorID // 0: shared, or a stream's
	log        core.LogID
	base       core.Offset
}

func (b *block) id(p core.PartitionID, l core.LogID) blockID {
	return blockID{b.checkpoint, p, b.owner, l, b.base}
}

// key is the key of a block, or of its index entry.
func (id blockID) key(kind byte) []byte {
	k := append(make([]byte, 0, 37), kind)
	k = binary.BigEndian.AppendUint64(k, id.checkpoint)
	k = binary.BigEndian.AppendUint16(k, uint16(id.part))
	k = binary.BigEndian.AppendUint64(k, uint64(id.owner))
	k = binary.BigEndian.AppendUint64(k, uint64(id.log))
	return binary.BigEndian.AppendUint64(k, uint64(id.base))
}

// piece is the key of a block's n-th value behind the first.
func (id blockID) piece(n uint16) []byte {
	return binary.BigEndian.AppendUint16(id.key(kindPiece), n)
}

// parseBlockID reads the key of a block, of its index entry, or of a piece.
func parseBlockID(key []byte) blockID {
	n := func(at int) uint64 { return binary.BigEndian.Uint64(key[at:]) }
	return blockID{n(1), core.PartitionID(binary.BigEndian.Uint16(key[9:])), core.CursorID(n(11)), core.LogID(n(19)), core.Offset(n(27))}
}

// numberKey is a key that ends with one number: a log, a page.
func numberKey(kind byte, p core.PartitionID, n uint64) []byte {
	return binary.BigEndian.AppendUint64(partKey(kind, p, 18), n)
}

func markKey(p core.PartitionID, c core.CursorID, at core.Offset) []byte {
	return binary.BigEndian.AppendUint64(numberKey(kindMark, p, uint64(c)), uint64(at))
}

// chunkKey is a key of something that may be larger than one value.
func chunkKey(kind byte, p core.PartitionID, n uint64, chunk uint16) []byte {
	return binary.BigEndian.AppendUint16(numberKey(kind, p, n), chunk)
}

func recordKey(p core.PartitionID, t core.Table, key []byte) []byte {
	k := append(partKey(kindRecord, p, 1+len(key)), byte(t))
	return append(k, key...)
}

// number reads the i-th u64 behind the partition of a key.
func number(key []byte, i int) uint64 { return binary.BigEndian.Uint64(key[3+8*i:]) }
