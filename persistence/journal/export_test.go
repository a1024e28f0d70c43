package journal

import "bytes"

// What tests in package journal_test forge and look into.

const PrefixSize, HeadEnd = prefixSize, prefixSize + headSize

// Seal makes a frame of kind k and that payload, with the checksum it has in a
// segment with that salt.
func Seal(k byte, segment uint32, commit, salt uint64, payload []byte) []byte {
	b := append(make([]byte, prefixSize), payload...)
	seal(b, kind(k), segment, commit, saltSum(salt))
	return b
}

// SetVersion changes the version of a frame and makes its checksum right.
func SetVersion(b []byte, v byte, salt uint64) {
	b[headerSize+1] = v
	le.PutUint32(b[20:], checksum(b, saltSum(salt)))
}

// SaltOf reads the salt in the head of a segment.
func SaltOf(segment []byte) uint64 { return parseHead(segment[prefixSize:]).salt }

// Head is a head's frame, not padded.
func Head(number uint32, instance [16]byte, first uint64, align uint32, salt, size uint64) []byte {
	return sealedHead(&head{instance, first, align, salt, size}, number)
}

// Combine is the checksum of a and then b, from theirs and b's length.
func Combine(a, b uint32, n int64) uint32 { return shift(a, n) ^ b }

// A Scanned is what a scan of a whole segment says.
type Scanned struct {
	Frames, Bytes int64
	Window        int // bytes it has in memory at the end
	Survivors     bool
	Naive         bool // the same, found out one by one
	Err           error
}

// Scan reads a segment as Open does.
func Scan(number uint32, data []byte) (r Scanned) {
	s := &scan{file: bytes.NewReader(data), number: number, size: int64(len(data))}
	ok := true
	for r.Err = s.readHead(); ok && r.Err == nil; {
		_, ok, r.Err = s.next()
	}
	if r.Err == nil {
		s.torn()
		r.Survivors, r.Err = s.survivors()
	}
	r.Frames, r.Bytes, r.Window = s.frames, s.bytes, cap(s.window)
	if r.Err == nil {
		naive := *s
		for ; naive.at < naive.size; naive.at += int64(naive.head.align) {
			if b, _, _ := naive.frame(); b != nil {
				r.Naive = true
			}
		}
	}
	return r
}
