package badger

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/godwitmq/godwit/core"
)

// The small values at rest begin with their version.
const (
	partVersion   = 1
	logVersion    = 1
	cursorVersion = 1
)

// version checks the first octet of a value and gives a reader of the rest.
func version(b []byte, what string, want byte) reader {
	if len(b) == 0 {
		return reader{err: fmt.Errorf("%s: %w", what, errShort)}
	}
	if b[0] != want {
		return reader{err: fmt.Errorf("%s of version %d, this Godwit reads version %d: start the one that wrote it", what, b[0], want)}
	}
	return reader{b: b[1:]}
}

// end says what went wrong, an octet too many included.
func (r *reader) end(what string) error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d octets follow its end", len(r.b))
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w", what, r.err)
	}
	return nil
}

// A partition: version | highest id used.
func encodePart(lastID uint64) []byte {
	return binary.AppendUvarint([]byte{partVersion}, lastID)
}

func decodePart(b []byte) (lastID uint64, err error) {
	r := version(b, "partition", partVersion)
	lastID = r.number()
	return lastID, r.end("partition")
}

// A log: version | first | next | clock. The blocks know more: next and clock
// are at least what the last block says.
func encodeLog(l *log) []byte {
	b := binary.AppendUvarint([]byte{logVersion}, uint64(l.first))
	b = binary.AppendUvarint(b, uint64(l.next))
	return binary.AppendUvarint(b, uint64(l.clock))
}

func decodeLog(id core.LogID, b []byte) (*log, error) {
	r := version(b, "log", logVersion)
	l := newLog(id)
	l.first, l.next = core.Offset(r.number()), core.Offset(r.number())
	l.clock = r.time()
	return l, r.end("log")
}

// A cursor: version | seq | log | floor | ranges, then of each: distance from
// the end of the one before, or the floor | length.
func encodeCursor(c *cursor) []byte {
	b := make([]byte, 0, 32+4*len(c.settled.above))
	b = append(b, cursorVersion)
	b = binary.AppendUvarint(b, c.seq)
	b = binary.AppendUvarint(b, uint64(c.log))
	b = binary.AppendUvarint(b, uint64(c.settled.floor))
	b = binary.AppendUvarint(b, uint64(len(c.settled.above)))
	at := c.settled.floor
	for _, r := range c.settled.above {
		b = binary.AppendUvarint(b, uint64(r[0]-at))
		b = binary.AppendUvarint(b, uint64(r[1]-r[0]))
		at = r[1]
	}
	return b
}

func decodeCursor(id core.CursorID, b []byte) (*cursor, error) {
	r := version(b, "cursor", cursorVersion)
	c := &cursor{id: id, seq: r.number(), log: core.LogID(r.number())}
	c.settled.floor = core.Offset(r.number())
	n := r.number()
	if n > uint64(len(r.b))/2 {
		r.fail(errShort)
		n = 0
	}
	at := c.settled.floor
	for range n {
		from := at + core.Offset(r.number())
		to := from + core.Offset(r.number())
		if r.err == nil && (from <= at || to <= from || to > core.MaxOffset) {
			r.fail(fmt.Errorf("settled from %d to %d after %d", from, to, at))
		}
		if r.err != nil {
			break
		}
		c.settled.above = append(c.settled.above, [2]core.Offset{from, to})
		at = to
	}
	return c, r.end("cursor")
}

// decodeMark reads a delivery count.
func decodeMark(b []byte) (uint16, error) {
	r := reader{b: b}
	n := r.number()
	if n == 0 || n > math.MaxUint16 {
		r.fail(fmt.Errorf("%d attempts", n))
	}
	return uint16(n), r.end("delivery count")
}

// decodeMembers reads a chunk of a route set, after the member that was last.
func decodeMembers(members []core.CursorID, b []byte) ([]core.CursorID, error) {
	r := reader{b: b}
	last := core.CursorID(0)
	if len(members) > 0 {
		last = members[len(members)-1]
	}
	for len(r.b) > 0 {
		d := core.CursorID(r.number())
		if r.err == nil && len(members) > 0 && d == 0 {
			r.fail(fmt.Errorf("member %d twice", last))
		}
		if r.err != nil {
			break
		}
		last += d
		members = append(members, last)
	}
	return members, r.end("route set")
}
