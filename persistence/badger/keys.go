package badger

import (
	"encoding/binary"

	"github.com/godwitmq/godwit/core"
)

// The kinds of keys: the first octet. Numbers in keys are big-endian, so that
// Badger's order is theirs.
const (
	kindMeta      = 0x00 // 'M' name
	kindRedo      = 0x01 // chunk u32; chunk 2^32-1 is the seal
	kindPartition = 0x02 // p u16
	kindBlock     = 0x10 // p, owner u64, log u64, base u64
	kindIndex     = 0x11 // the same
	kindPart      = 0x12 // p, log u64, base u64, n u16
	kindLog       = 0x13 // p, log u64
	kindCursor    = 0x20 // p, cursor u64
	kindMark      = 0x21 // p, cursor u64, offset u64
	kindSet       = 0x22 // p, set u64, chunk u16; chunk 2^16-1: core has retired it
	kindAcks      = 0x23 // p, seq u64, chunk u16
	kindRecord    = 0x30 // p, table u8, key
)

const (
	redoSeal   = 1<<32 - 1
	setRetired = 1<<16 - 1
)

// partKey begins all keys of one kind in a partition. Room says how many
// octets will follow.
func partKey(kind byte, p core.PartitionID, room int) []byte {
	k := make([]byte, 0, 3+room)
	k = append(k, kind)
	return binary.BigEndian.AppendUint16(k, uint16(p))
}

func metaKey(name string) []byte { return append([]byte{kindMeta, 'M'}, name...) }

func redoKey(chunk uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindRedo}, chunk)
}

// blockKey is the key of a block or of its index entry. No block has an owner
// yet: all are shared.
func blockKey(kind byte, p core.PartitionID, l core.LogID, base core.Offset) []byte {
	k := partKey(kind, p, 24)
	k = binary.BigEndian.AppendUint64(k, 0)
	k = binary.BigEndian.AppendUint64(k, uint64(l))
	return binary.BigEndian.AppendUint64(k, uint64(base))
}

func piecePrefix(p core.PartitionID, l core.LogID, base core.Offset) []byte {
	k := partKey(kindPart, p, 18)
	k = binary.BigEndian.AppendUint64(k, uint64(l))
	return binary.BigEndian.AppendUint64(k, uint64(base))
}

func pieceKey(p core.PartitionID, l core.LogID, base core.Offset, n uint16) []byte {
	return binary.BigEndian.AppendUint16(piecePrefix(p, l, base), n)
}

// numberKey is a key that ends with one number: a log, a cursor.
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
