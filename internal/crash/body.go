package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A body names its publisher and its number, and the rest of it follows from
// these and the seed: any octets, so that no protocol is spared.
const (
	bodyHead = 10
	bodyMost = bodyHead + 8<<10
)

// appendBody appends the body of message n of publisher p.
func appendBody(out []byte, seed uint64, p int, n uint64) []byte {
	state := mix(seed ^ mix(uint64(p)+1) ^ n)
	size := int(state % 256)
	if state>>32%128 == 0 { // now and then a large one
		size = int(state>>40) % (bodyMost - bodyHead)
	}
	out = binary.BigEndian.AppendUint16(out, uint16(p))
	out = binary.BigEndian.AppendUint64(out, n)
	for ; size >= 8; size -= 8 {
		state = mix(state)
		out = binary.BigEndian.AppendUint64(out, state)
	}
	for ; size > 0; size-- {
		state = mix(state)
		out = append(out, byte(state))
	}
	return out
}

// mix is splitmix64: each bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// readBody says which message a body is of, and that nothing of it changed.
func readBody(body, spare []byte, seed uint64) (p int, n uint64, err error) {
	if len(body) < bodyHead {
		return 0, 0, fmt.Errorf("a body of %d octets, %q", len(body), body)
	}
	p, n = int(binary.BigEndian.Uint16(body)), binary.BigEndian.Uint64(body[2:])
	if want := appendBody(spare[:0], seed, p, n); !bytes.Equal(body, want) {
		return p, n, fmt.Errorf("publisher %d, message %d: %d octets came that are not the %d sent", p, n, len(body), len(want))
	}
	return p, n, nil
}
