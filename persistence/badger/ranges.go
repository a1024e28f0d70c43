package badger

import (
	"iter"
	"slices"
	"sort"

	"github.com/godwitmq/godwit/core"
)

// ranges is what a cursor has settled: all below the floor, and [from, to)
// ranges above it that are sorted and do not touch each other or the floor.
type ranges struct {
	floor core.Offset
	above [][2]core.Offset
}

// has says whether o is settled.
func (r *ranges) has(o core.Offset) bool {
	if o < r.floor {
		return true
	}
	i := r.endsAfter(o)
	return i < len(r.above) && r.above[i][0] <= o
}

// endsAfter is the index of the first range that ends above o.
func (r *ranges) endsAfter(o core.Offset) int {
	return sort.Search(len(r.above), func(i int) bool { return o < r.above[i][1] })
}

// add settles [from, to).
func (r *ranges) add(from, to core.Offset) {
	if from >= to || to <= r.floor {
		return
	}
	if from <= r.floor {
		r.raise(to)
		return
	}
	// above[i:j] touch or overlap the new one and become one with it.
	i := sort.Search(len(r.above), func(i int) bool { return r.above[i][1] >= from })
	j := i
	for j < len(r.above) && r.above[j][0] <= to {
		from, to = min(from, r.above[j][0]), max(to, r.above[j][1])
		j++
	}
	if j == i+1 {
		r.above[i] = [2]core.Offset{from, to}
		return
	}
	r.above = slices.Replace(r.above, i, j, [2]core.Offset{from, to})
}

// raise lifts the floor, and on to the end of a range it reaches.
func (r *ranges) raise(floor core.Offset) {
	n := 0
	for n < len(r.above) && r.above[n][0] <= floor {
		floor = max(floor, r.above[n][1])
		n++
	}
	r.above = slices.Delete(r.above, 0, n)
	r.floor = max(r.floor, floor)
}

// gaps goes through the parts of [from, to) that are not settled.
func (r *ranges) gaps(from, to core.Offset) iter.Seq2[core.Offset, core.Offset] {
	return func(yield func(core.Offset, core.Offset) bool) {
		from = max(from, r.floor)
		for i := r.endsAfter(from); from < to; i++ {
			if i == len(r.above) || r.above[i][0] >= to {
				yield(from, to)
				return
			}
			if from < r.above[i][0] && !yield(from, r.above[i][0]) {
				return
			}
			from = r.above[i][1]
		}
	}
}
