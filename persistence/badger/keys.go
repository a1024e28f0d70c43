package badger

import (
	"encoding/binary"

	"github.com/godwitmq/godwit/core"
)

// The kinds of keys: the first octet. Numbers in keys are big-endian, so that
// the database's order is theirs. Kinds 0 and 1 with other seconds octets
// are persistence/lsm's own.
const (
	kindMeta      = 0x00 // 'M' name
	kindPartition = 0x02 // p u16
	kindBlock     = 0x10 // p, owner u64, log u64, base u64
	kindIndex     = 0x11 // the same
	kindPiece     = 0x12 // the same, n u16
	kindLog       = 0x13 // p, log u64
	kindPage      = 0x20 // p, page u64
	kindMark      = 0x21 // p, cursor u64, offset u64
	kindSet       = 0x22 // p, set u64, chunk u16; chunk 2^16-1: core has retired it
	kindWide      = 0x23 // p, cursor u64: one with too many ranges for its page
	kindRecord    = 0x30 // p, table u8, key
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

// blockKey is the key of a block at rest, or of its index entry.
func blockKey(kind byte, p core.PartitionID, owner core.CursorID, l core.LogID, base core.Offset) []byte {
	k := partKey(kind, p, 26)
	k = binary.BigEndian.AppendUint64(k, uint64(owner))
	k = binary.BigEndian.AppendUint64(k, uint64(l))
	return binary.BigEndian.AppendUint64(k, uint64(base))
}

func pieceKey(p core.PartitionID, owner core.CursorID, l core.LogID, base core.Offset, n uint16) []byte {
	return binary.BigEndian.AppendUint16(blockKey(kindPiece, p, owner, l, base), n)
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
