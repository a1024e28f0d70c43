package badger

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/godwitmq/godwit/core"
)

// staged is an accepted batch. The caller of Commit encodes it, so that the
// committer has only to copy it behind the others of its frame.
type staged struct {
	handle  *handle
	batch   *core.Batch
	at      time.Time // of Commit
	encoded []byte    // the batch as the journal has it
	runs    []run     // of its appends, oldest first
	sizes   []int64   // Message.Size, by append
	size    int64     // what it takes of staging
	err     error     // what Done will be told
}

// A run is some appends of one batch to one log, with contiguous offsets, as
// the journal has them. A fetch reads whole runs.
type run struct {
	log   core.LogID
	base  core.Offset
	first int32 // index into Batch.Appends
	n     int32
	time  int64 // of all its records, unix ms
	at    uint32
	len   uint32
	crc   uint32
}

// A run is closed when it has as many octets or records: it is the least a
// fetch reads, for one message too, and its records may have as many different
// routes. A chunk is closed when it has as many octets.
const (
	runBytes   = 4 << 10
	runRecords = 192
	chunkBytes = 16 << 10
)

var stagedPool = sync.Pool{New: func() any { return new(staged) }}

// recycle gives st back for reuse.
func (st *staged) recycle() {
	if cap(st.encoded) > 4<<20 || cap(st.sizes) > 1<<14 {
		return
	}
	*st = staged{encoded: st.encoded[:0], runs: st.runs[:0], sizes: st.sizes[:0]}
	stagedPool.Put(st)
}

// A batch in the journal:
//
//	partition | now | sections, each: tag octet | number of ops | the ops
//
// in the order of core.Batch. Numbers are uvarints, of which `delta` ones are
// zigzag, text is length | octets, and
//
//	cursor   id | log | at | 0, or 1 to drop
//	set      id | members + 1, or 0: retired | delta to the member before, of each
//	run      see appendRuns
//	record   table octet | key | value length + 1, or 0: deleted | value
//	mark     cursor | at | attempts
//	ack      cursor | from | length
//	trim     log | before | older than | keep | compact
const (
	tagCursors = 1
	tagSets    = 2
	tagRun     = 3 // one run, not a number of them
	tagRecords = 4
	tagMarks   = 5
	tagAcks    = 6
	tagTrims   = 7
)

// encode appends b to st.encoded and gives its appends their offsets.
func (st *staged) encode(p *part, b *core.Batch) error {
	e := binary.AppendUvarint(st.encoded, uint64(p.id))
	e = binary.AppendUvarint(e, uint64(max(b.Now, 0)))
	e = appendCursors(e, b.Cursors)
	e = appendSets(e, b.Sets)
	st.encoded = e
	if err := st.appendRuns(p, b); err != nil {
		return err
	}
	e = appendRecords(st.encoded, b.Records)
	e = appendMarks(e, b.Marks)
	e = appendAcks(e, b.Acks)
	st.encoded = appendTrims(e, b.Trims)
	return nil
}

func section(dst []byte, tag byte, n int) []byte {
	return binary.AppendUvarint(append(dst, tag), uint64(n))
}

func appendCursors(dst []byte, ops []core.CursorOp) []byte {
	if len(ops) == 0 {
		return dst
	}
	dst = section(dst, tagCursors, len(ops))
	for i := range ops {
		dst = binary.AppendUvarint(dst, uint64(ops[i].ID))
		dst = binary.AppendUvarint(dst, uint64(ops[i].Log))
		dst = binary.AppendUvarint(dst, uint64(ops[i].At))
		if ops[i].Drop {
			dst = append(dst, 1)
		} else {
			dst = append(dst, 0)
		}
	}
	return dst
}

func appendSets(dst []byte, sets []core.RouteSet) []byte {
	if len(sets) == 0 {
		return dst
	}
	dst = section(dst, tagSets, len(sets))
	for i := range sets {
		dst = binary.AppendUvarint(dst, uint64(sets[i].ID))
		if sets[i].Members == nil {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(sets[i].Members))+1)
		last := core.CursorID(0)
		for _, m := range sets[i].Members {
			dst = appendDelta(dst, uint64(m), uint64(last))
			last = m
		}
	}
	return dst
}

// appendDelta appends the difference between two numbers, which is small for
// ids that were given out together.
func appendDelta(dst []byte, n, last uint64) []byte {
	d := int64(n - last)
	return binary.AppendUvarint(dst, uint64(d<<1)^uint64(d>>63))
}

// appendRuns appends the messages.
//
//	log | base offset | time, unix ms | n | octets that follow, u32 little-endian
//	per record: routes, delta to the record before | length | message | delta of size to length
//
// Routes is a route set's id doubled, or a cursor's doubled and one more. Size
// is Message.Size. The message is as core.AppendMessage writes it.
func (st *staged) appendRuns(p *part, b *core.Batch) error {
	if len(b.Appends) == 0 {
		return nil
	}
	p.assigning.Lock()
	defer p.assigning.Unlock()
	for i := 0; i < len(b.Appends); {
		n, err := st.appendRun(p, b, i)
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// appendRun appends the run that begins with append i, and says how many
// records it has.
func (st *staged) appendRun(p *part, b *core.Batch, i int) (n int, err error) {
	end := p.end(b.Appends[i].Log)
	end.clock = max(end.clock, b.Now)
	r := run{log: b.Appends[i].Log, base: end.next, first: int32(i), time: end.clock}
	e := append(st.encoded, tagRun)
	e = binary.AppendUvarint(e, uint64(r.log))
	e = binary.AppendUvarint(e, uint64(r.base))
	e = binary.AppendUvarint(e, uint64(r.time))
	count := len(e)
	e = append(e, 0, 0) // n, of two octets always, and
	e = append(e, 0, 0, 0, 0)
	start := len(e)
	routes := uint64(0)
	for ; i < len(b.Appends) && n < runRecords; i, n = i+1, n+1 {
		a := &b.Appends[i]
		if a.Log != r.log || n > 0 && len(e)-start >= runBytes {
			break
		}
		packed := packRoutes(a.Routes)
		e = appendDelta(e, packed, routes)
		routes = packed
		size := a.Message.Size()
		st.sizes = append(st.sizes, size)
		if e, err = appendSized(e, a.Message, size, st.handle.s.profile.maxRecord); err != nil {
			return 0, err
		}
		if len(e) > st.handle.s.profile.maxBatch+runBytes {
			return 0, fmt.Errorf("a batch of more than %d octets: %w", st.handle.s.profile.maxBatch, core.ErrTooLarge)
		}
		a.Offset = end.next
		end.next++
	}
	r.n, r.at, r.len = int32(n), uint32(start), uint32(len(e)-start)
	r.crc = crc32.Checksum(e[start:], castagnoli)
	e[count], e[count+1] = byte(n)|0x80, byte(n>>7)
	binary.LittleEndian.PutUint32(e[count+2:], r.len)
	st.encoded = e
	st.runs = append(st.runs, r)
	return n, nil
}

// lengthRoom is the octets of a message's length: it is known behind it.
const lengthRoom = 4

// appendSized appends length, message and size. The length is in front of what
// it measures, so it has a fixed width, as a uvarint that is longer than it
// need be.
func appendSized(dst []byte, m *core.Message, size int64, most int) ([]byte, error) {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = core.AppendMessage(dst, m)
	n := len(dst) - at - lengthRoom
	if n > most { // below 2^28
		return nil, fmt.Errorf("a message of %d octets, the limit is %d: %w", n, most, core.ErrTooLarge)
	}
	dst[at], dst[at+1], dst[at+2], dst[at+3] = byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)|0x80, byte(n>>21)
	return appendDelta(dst, uint64(size), uint64(n)), nil
}

func packRoutes(r core.RouteSetID) uint64 {
	if c, solo := r.Member(); solo {
		return uint64(c)<<1 | 1
	}
	return uint64(r) << 1
}

func unpackRoutes(v uint64) core.RouteSetID {
	if v&1 == 1 {
		return core.Solo(core.CursorID(v >> 1))
	}
	return core.RouteSetID(v >> 1)
}

func appendRecords(dst []byte, records []core.Record) []byte {
	if len(records) == 0 {
		return dst
	}
	dst = section(dst, tagRecords, len(records))
	for i := range records {
		r := &records[i]
		dst = append(dst, byte(r.Table))
		dst = binary.AppendUvarint(dst, uint64(len(r.Key)))
		dst = append(dst, r.Key...)
		if r.Value == nil {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(r.Value))+1)
		dst = append(dst, r.Value...)
	}
	return dst
}

func appendMarks(dst []byte, marks []core.Mark) []byte {
	if len(marks) == 0 {
		return dst
	}
	dst = section(dst, tagMarks, len(marks))
	for i := range marks {
		dst = binary.AppendUvarint(dst, uint64(marks[i].Cursor))
		dst = binary.AppendUvarint(dst, uint64(marks[i].At))
		dst = binary.AppendUvarint(dst, uint64(marks[i].Attempts))
	}
	return dst
}

func appendAcks(dst []byte, acks []core.Ack) []byte {
	if len(acks) == 0 {
		return dst
	}
	dst = section(dst, tagAcks, len(acks))
	for i := range acks {
		dst = binary.AppendUvarint(dst, uint64(acks[i].Cursor))
		dst = binary.AppendUvarint(dst, uint64(acks[i].From))
		dst = binary.AppendUvarint(dst, uint64(max(acks[i].To, acks[i].From)-acks[i].From))
	}
	return dst
}

func appendTrims(dst []byte, trims []core.Trim) []byte {
	if len(trims) == 0 {
		return dst
	}
	dst = section(dst, tagTrims, len(trims))
	for i := range trims {
		t := &trims[i]
		dst = binary.AppendUvarint(dst, uint64(t.Log))
		dst = binary.AppendUvarint(dst, uint64(t.Before))
		dst = binary.AppendUvarint(dst, uint64(max(t.OlderThan, 0)))
		dst = binary.AppendUvarint(dst, uint64(max(t.Keep, 0)))
		dst = append(dst, 0)
	}
	return dst
}
