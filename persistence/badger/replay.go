package badger

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/godwitmq/godwit/core"
)

// A decoder reads the batches of a frame again. It reuses its memory.
type decoder struct {
	batch core.Batch
	src   source
	part  core.PartitionID
}

// A frame is a version octet and batches, each with its length before it.
const frameVersion = 1

// appendFrame appends a batch to a frame. at is where in dst it begins.
func appendFrame(dst []byte, st *staged) (out []byte, at int) {
	dst = binary.AppendUvarint(dst, uint64(len(st.encoded)))
	return append(dst, st.encoded...), len(dst)
}

// batches reads a frame. each gets what is valid until it returns.
func (d *decoder) batches(payload []byte, at int64, each func(core.PartitionID, *source) error) error {
	whole := len(payload)
	if whole == 0 || payload[0] != frameVersion {
		return fmt.Errorf("a frame of version %v, this Godwit reads %d: start the one that wrote it", payload[:min(1, whole)], frameVersion)
	}
	payload = payload[1:]
	for len(payload) > 0 {
		r := reader{b: payload}
		b := r.bytes()
		if r.err != nil {
			return r.err
		}
		payload = r.b
		d.src.at = at + int64(whole-len(payload)-len(b))
		if err := d.decode(b); err != nil {
			return err
		}
		if err := each(d.part, &d.src); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) decode(b []byte) error {
	r := reader{b: b}
	o := &d.batch
	*o = core.Batch{
		Cursors: o.Cursors[:0], Sets: o.Sets[:0], Appends: o.Appends[:0], Records: o.Records[:0],
		Marks: o.Marks[:0], Acks: o.Acks[:0], Trims: o.Trims[:0],
	}
	d.src.batch, d.src.runs, d.src.sizes = o, d.src.runs[:0], d.src.sizes[:0]
	d.part = core.PartitionID(r.number())
	o.Now = r.time()
	for len(r.b) > 0 {
		tag := r.octet()
		if tag == tagRun {
			d.run(&r, len(b))
			continue
		}
		n := r.number()
		if n > uint64(len(r.b)) {
			r.fail(errShort)
		}
		for ; n > 0 && r.err == nil; n-- {
			d.op(&r, tag)
		}
	}
	return r.err
}

// op reads one op of a section.
func (d *decoder) op(r *reader, tag byte) {
	o := &d.batch
	switch tag {
	case tagCursors:
		op := core.CursorOp{ID: core.CursorID(r.number()), Log: core.LogID(r.number()), At: core.Offset(r.number())}
		op.Drop = r.octet() == 1
		o.Cursors = append(o.Cursors, op)
	case tagSets:
		o.Sets = append(o.Sets, r.set())
	case tagRecords:
		rec := core.Record{Table: core.Table(r.octet()), Key: r.bytes()}
		if n := r.number(); n > uint64(len(r.b))+1 {
			r.fail(errShort)
		} else if n > 0 {
			rec.Value, r.b = r.b[:n-1:n-1], r.b[n-1:]
		}
		o.Records = append(o.Records, rec)
	case tagMarks:
		m := core.Mark{Cursor: core.CursorID(r.number()), At: core.Offset(r.number())}
		m.Attempts = uint16(min(r.number(), math.MaxUint16))
		o.Marks = append(o.Marks, m)
	case tagAcks:
		a := core.Ack{Cursor: core.CursorID(r.number()), From: core.Offset(r.number())}
		a.To = a.From + core.Offset(r.number())
		o.Acks = append(o.Acks, a)
	case tagTrims:
		t := core.Trim{Log: core.LogID(r.number()), Before: core.Offset(r.number()), OlderThan: r.time(), Keep: r.time()}
		t.Compact = r.octet() == 1
		o.Trims = append(o.Trims, t)
	default:
		r.fail(fmt.Errorf("a section of kind %d: start the Godwit that wrote it", tag))
	}
}

func (r *reader) set() core.RouteSet {
	s := core.RouteSet{ID: core.RouteSetID(r.number())}
	n := r.number()
	if n == 0 {
		return s
	}
	if n-1 > uint64(len(r.b)) {
		r.fail(errShort)
		return s
	}
	s.Members = make([]core.CursorID, n-1)
	last := uint64(0)
	for i := range s.Members {
		last = r.delta(last)
		s.Members[i] = core.CursorID(last)
	}
	return s
}

// run reads a run's routes and sizes, and steps over its messages. whole is
// the octets of the batch.
func (d *decoder) run(r *reader, whole int) {
	run := run{log: core.LogID(r.number()), base: core.Offset(r.number()), time: r.time(), first: int32(len(d.batch.Appends))}
	n := r.number()
	if n == 0 || n > runRecords || len(r.b) < 4 {
		r.fail(errShort)
		return
	}
	run.n, run.len = int32(n), binary.LittleEndian.Uint32(r.b)
	r.b = r.b[4:]
	if uint64(run.len) > uint64(len(r.b)) {
		r.fail(errShort)
		return
	}
	run.at = uint32(whole - len(r.b))
	body := r.b[:run.len]
	r.b = r.b[run.len:]
	run.crc = sum(body)
	records := recordReader{rest: reader{b: body}, left: n, offset: run.base, run: true}
	for records.next() {
		d.batch.Appends = append(d.batch.Appends, core.Append{Log: run.log, Routes: unpackRoutes(records.routes)})
		d.src.sizes = append(d.src.sizes, records.size)
	}
	if records.err != nil {
		r.fail(records.err)
	}
	d.src.runs = append(d.src.runs, run)
}
