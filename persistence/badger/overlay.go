package badger

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// An overlay is small values that are in the journal and not yet in the
// database, the newest of each key: a thousand updates of one retained topic
// are one write there.
type overlay struct {
	values map[string][]byte // nil: deleted
	bytes  int64
}

// overlayEntry is what an entry takes in memory beside its octets, more or less.
const overlayEntry = 80

func newOverlay() overlay { return overlay{values: map[string][]byte{}} }

// put copies value; nil deletes.
func (o *overlay) put(key, value []byte) {
	old, known := o.values[string(key)]
	if !known {
		o.bytes += overlayEntry + int64(len(key))
	}
	o.bytes += int64(len(value) - len(old))
	if value != nil {
		value = append(make([]byte, 0, len(value)), value...)
	}
	o.values[string(key)] = value
}

func (o *overlay) del(key []byte) { o.put(key, nil) }

func (o *overlay) get(key []byte) (value []byte, known bool) {
	value, known = o.values[string(key)]
	return value, known
}

// below adds the entries with a prefix to all.
func (o *overlay) below(prefix string, all map[string][]byte) {
	for k, v := range o.values {
		if strings.HasPrefix(k, prefix) {
			all[k] = v
		}
	}
}

// sorted goes through the entries in key order.
func (o *overlay) sorted() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(o.values)) {
			if !yield(k, o.values[k]) {
				return
			}
		}
	}
}
