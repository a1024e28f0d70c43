package mqtt

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/godwitmq/godwit/core"
)

func TestInboundAgainstAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in inbound
		model := map[uint16]stage{}
		id := rapid.Custom(func(t *rapid.T) uint16 {
			return uint16(rapid.IntRange(1, 40).Draw(t, "n")) * uint16(rapid.SampledFrom([]int{1, 16, 256, 1601}).Draw(t, "stride"))
		})
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			n := id.Draw(t, "id")
			if rapid.Bool().Draw(t, "remove") {
				in.remove(n)
				delete(model, n)
			} else {
				s := stage(rapid.IntRange(1, 4).Draw(t, "stage"))
				in.set(n, s)
				model[n] = s
			}
			if in.owed() != len(model) {
				t.Fatalf("owed %d, want %d", in.owed(), len(model))
			}
			for n, s := range model {
				if got := in.stage(n); got != s {
					t.Fatalf("id %d is at %d, want %d", n, got, s)
				}
			}
		}
	})
}

// A ring never gives out an id that is in use, never has more in flight than
// the window, and finds each id again.
func TestOutboundRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := outbound{window: rapid.IntRange(1, 20).Draw(t, "window")}
		o.head = uint64(rapid.IntRange(packetIDs-30, packetIDs+5).Draw(t, "start"))
		o.tail = o.head
		used := map[uint16]core.Tag{}
		ids := []uint16{}
		for step := range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "send") {
				if !o.room() {
					continue
				}
				tag := core.Tag{Place: 1, Seq: uint64(step) + 1, Attempt: 1}
				id := o.add(tag, sentQoS1)
				if _, taken := used[id]; taken || id == 0 {
					t.Fatalf("id %d is given out twice", id)
				}
				used[id] = tag
				ids = append(ids, id)
			} else if len(ids) > 0 {
				at := rapid.IntRange(0, len(ids)-1).Draw(t, "which")
				id := ids[at]
				ids = append(ids[:at], ids[at+1:]...)
				tag, was := o.settle(id, sentQoS1)
				if was != sentQoS1 || tag != used[id] {
					t.Fatalf("id %d gives %v at %d, want %v", id, tag, was, used[id])
				}
				delete(used, id)
			}
			if o.inFlight != len(used) || o.inFlight > o.window {
				t.Fatalf("%d in flight, want %d", o.inFlight, len(used))
			}
		}
		if _, was := o.settle(0, sentQoS1); was != sentDone {
			t.Fatal("id 0 was settled")
		}
	})
}

func TestResidue(t *testing.T) {
	o := outbound{window: 10, head: packetIDs - 2, tail: packetIDs - 2}
	tag := func(n uint64) core.Tag { return core.Tag{Place: 7, Seq: n, Attempt: 1} }
	first := o.add(tag(1), sentQoS1)
	done := o.add(tag(2), sentQoS1)
	second := o.add(tag(3), sentQoS2)
	o.add(core.Tag{}, sentQoS1) // live: ends with the connection
	third := o.add(tag(5), sentQoS2)
	o.settle(done, sentQoS1)
	o.received(third)

	p := outbound{window: 10}
	p.restore(o.residue())
	if ids := p.releases(); len(ids) != 1 || ids[0] != third {
		t.Errorf("PUBREL for %v, want %d", ids, third)
	}
	for _, row := range []struct {
		seq  uint64
		id   uint16
		now  sent
		find bool
	}{{1, first, sentQoS1, true}, {3, second, sentQoS2, true}, {5, third, sentPubrel, true}, {2, 0, 0, false}, {1, 0, 0, false}} {
		again := tag(row.seq)
		again.Attempt = 2
		if id, now, found := p.resend(again); id != row.id || now != row.now || found != row.find {
			t.Errorf("resend of %d = %d, %d, %v, want %d, %d, %v", row.seq, id, now, found, row.id, row.now, row.find)
		}
	}
	if id := p.add(tag(9), sentQoS1); id == first || id == second || id == third {
		t.Errorf("a new delivery got %d, which is in use", id)
	}
	if got, was := p.settle(second, sentQoS2); was != sentQoS2 || got.Seq != 3 || got.Attempt != 2 {
		t.Errorf("settle = %v, %d", got, was)
	}
	for _, junk := range [][]byte{nil, {1}, {9, 0, 0}, append([]byte{1, 0xff, 0xff}, make([]byte, 2*residueSlot)...), {1, 0, 0, 1}} {
		q := outbound{window: 10}
		q.restore(junk)
		_ = q.releases()
	}
}
