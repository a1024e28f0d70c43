package journal

import (
	"cmp"
	"hash/crc32"
	"slices"
)

// survivors says whether a frame with a good checksum lies at s.at or after
// it. Only one frame is ever under way, so where the log seems to end none can
// be: if there is one, what lies before it has been damaged (J2).
//
// A client may have sent what looks like a thousand headers, of frames that
// overlap. So checksums are not computed one by one: the checksum of any range
// follows from those of the two ranges that begin where the segment does, and
// one pass gives these.
func (s *scan) survivors() (bool, error) {
	found, err := s.candidates()
	if err != nil || len(found) == 0 {
		return false, err
	}
	var marks []mark
	for i := range found {
		marks = append(marks, mark{found[i].body, i}, mark{found[i].body + found[i].length, i})
	}
	slices.SortFunc(marks, func(a, b mark) int { return cmp.Compare(a.at, b.at) })
	var sum uint32 // of everything from s.at to at
	at := s.at
	for _, m := range marks {
		if sum, err = s.sumTo(sum, at, m.at); err != nil {
			return false, err
		}
		at = m.at
		c := &found[m.candidate]
		if m.at == c.body {
			c.before = sum
		} else if c.sum == sum^shift(c.before^c.header, c.length) {
			return true, nil
		}
	}
	return false, nil
}

// A candidate is something with the header of a frame.
type candidate struct {
	body, length int64
	sum          uint32 // what it should be
	header       uint32 // of salt and header
	before       uint32 // of what lies between the beginning and the body
}

// A mark is a place where a candidate's body begins or ends.
type mark struct {
	at        int64
	candidate int
}

// candidates finds every header of this segment from s.at on.
func (s *scan) candidates() ([]candidate, error) {
	var found []candidate
	for at := s.at; at <= s.size-prefixSize; at += int64(s.head.align) {
		b, err := s.peek(at, headerSize)
		if err != nil {
			return nil, err
		}
		h, ok := parseHeader(b)
		if !ok || h.segment != s.number || h.length > s.size-at-headerSize {
			continue
		}
		found = append(found, candidate{
			body: at + headerSize, length: h.length,
			sum: h.sum, header: headerSum(b, s.salted),
		})
	}
	return found, nil
}

// sumTo continues a checksum over the bytes from at to end.
func (s *scan) sumTo(sum uint32, at, end int64) (uint32, error) {
	for at < end {
		n := min(end-at, readAhead/4)
		b, err := s.peek(at, n)
		if err != nil {
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, b)
		at += n
	}
	return sum, nil
}

// shift is what n bytes that follow do to a checksum c, but for their own: of
// A and then B, checksum(AB) = shift(checksum(A), len(B)) ^ checksum(B). It is
// a product of polynomials over GF(2), modulo Castagnoli's: c * x^(8n).
func shift(c uint32, n int64) uint32 {
	for k := 3; n > 0; n, k = n>>1, k+1 {
		if n&1 != 0 {
			c = multiply(powers[k], c)
		}
	}
	return c
}

// powers[k] is x^(2^k): enough for lengths of 32 bits, in bytes.
var powers = func() (p [3 + 32]uint32) {
	p[0] = 1 << 30 // x; the highest bit is x^0
	for k := 1; k < len(p); k++ {
		p[k] = multiply(p[k-1], p[k-1])
	}
	return p
}()

// multiply is a * b, modulo Castagnoli's polynomial.
func multiply(a, b uint32) (product uint32) {
	for bit := uint32(1 << 31); bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return product
}
