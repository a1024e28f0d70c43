package journal

import (
	"encoding/binary"
	"hash/crc32"
)

// A frame, little-endian:
//
//	0  u32 magic "GWJ1"
//	4  u32 number of the segment
//	8  u64 commit
//	16 u32 length of the body
//	20 u32 crc32c(salt u64, bytes 0-19, body)
//	24     body: kind u8, version u8, payload
//
// and zeros up to a multiple of the segment's align.
const (
	magic      = 'G' | 'W'<<8 | 'J'<<16 | '1'<<24
	headerSize = 24
	prefixSize = headerSize + 2 // with kind and version
	version    = 1              // of every kind, so far
)

// A kind says what a frame's body is.
type kind byte

const (
	kindGroup kind = 1 // what the driver gave to Write
	kindHead  kind = 2 // the first frame of every segment
	kindClose kind = 3 // the journal was closed; commit is the last one
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// A header is the part before the body.
type header struct {
	segment uint32
	commit  uint64
	length  int64 // of the body
	sum     uint32
}

// parseHeader reads a header. It is false if this is none.
func parseHeader(b []byte) (header, bool) {
	h := header{segment: le.Uint32(b[4:]), commit: le.Uint64(b[8:]), length: int64(le.Uint32(b[16:])), sum: le.Uint32(b[20:])}
	return h, le.Uint32(b) == magic && h.length >= prefixSize-headerSize
}

// seal fills in the header, kind and version of frame b, which has its
// payload already.
func seal(b []byte, k kind, segment uint32, commit uint64, salted uint32) {
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[4:], segment)
	le.PutUint64(b[8:], commit)
	le.PutUint32(b[16:], uint32(len(b)-headerSize))
	b[headerSize], b[headerSize+1] = byte(k), version
	le.PutUint32(b[20:], checksum(b, salted))
}

// checksum is the sum frame b should have; salted is what saltSum gave.
func checksum(b []byte, salted uint32) uint32 {
	return crc32.Update(headerSum(b, salted), castagnoli, b[headerSize:])
}

func headerSum(b []byte, salted uint32) uint32 {
	return crc32.Update(salted, castagnoli, b[:20])
}

// saltSum begins every checksum of a segment. The salt is drawn when the
// segment is begun, so neither what its file held before nor what a client
// sends as a payload can pass for one of its frames.
func saltSum(salt uint64) uint32 {
	var b [8]byte
	le.PutUint64(b[:], salt)
	return crc32.Checksum(b[:], castagnoli)
}

// roundUp is the next multiple of align, a power of two.
func roundUp(n, align int64) int64 { return (n + align - 1) &^ (align - 1) }

// pad appends zeros up to a multiple of align.
func pad(b []byte, align int64) []byte {
	n := len(b)
	for whole := int(roundUp(int64(n), align)); len(b) < whole; {
		b = append(b, zeros[:min(len(zeros), whole-len(b))]...)
	}
	return b
}

var zeros [4096]byte

// A head is the payload of a segment's first frame. The checksum of that
// frame has the salt 0.
type head struct {
	instance [16]byte
	first    uint64 // the commit of the first group frame here
	align    uint32 // of this segment
	salt     uint64
	size     uint64 // of the file: a file that was cut short shows
}

const headSize = 16 + 8 + 4 + 8 + 8

// appendHead appends the payload.
func (h *head) appendTo(b []byte) []byte {
	b = append(b, h.instance[:]...)
	b = le.AppendUint64(b, h.first)
	b = le.AppendUint32(b, h.align)
	b = le.AppendUint64(b, h.salt)
	return le.AppendUint64(b, h.size)
}

// parseHead reads the payload, of headSize bytes.
func parseHead(p []byte) head {
	h := head{first: le.Uint64(p[16:]), align: le.Uint32(p[24:]), salt: le.Uint64(p[28:]), size: le.Uint64(p[36:])}
	copy(h.instance[:], p)
	return h
}
