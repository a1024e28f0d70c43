package transport

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is read, taken and rested: the bytes stay what they are, and what
// is held is bounded by what is there.
func TestInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in input
		var want []byte
		var next byte
		peak := 0 // unfinished bytes
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"read", "read", "take", "rest"}).Draw(t, "step") {
			case "read":
				room := in.room()
				if len(room) < 1 {
					t.Fatal("there is no room")
				}
				if cap(in.buf) > max(large, 4*peak) {
					t.Fatalf("a buffer of %d for %d bytes", cap(in.buf), peak)
				}
				n := rapid.OneOf(rapid.Just(min(len(room), 100_000)), rapid.IntRange(1, min(len(room), 100_000))).Draw(t, "n")
				for i := range n {
					room[i] = next
					want = append(want, next)
					next++
				}
				in.filled(n)
				peak = max(peak, len(want))
			case "take":
				n := rapid.OneOf(rapid.Just(len(want)), rapid.IntRange(0, len(want))).Draw(t, "n")
				in.took(n)
				want = want[n:]
			case "rest":
				in.rest()
				if have := len(want); cap(in.buf) > max(8*have+8, keep) {
					t.Fatalf("a resting connection holds %d for %d bytes", cap(in.buf), have)
				}
			}
			if !bytes.Equal(in.bytes(), want) {
				t.Fatalf("%d bytes, want %d others", in.len(), len(want))
			}
		}
	})
}
