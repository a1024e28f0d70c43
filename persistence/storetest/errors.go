package storetest

import (
	"bytes"
	"context"
	"fmt"

	"github.com/godwitmq/godwit/core"
)

var ownerTests = []test{
	{"a second owner fences the first", nil, func(x *box) {
		x.setUp()
		x.must(&core.Batch{Appends: adds(theLog, core.Solo(theCursor), "a")})
		first := x.p
		x.p = openPart(x, x.store, 1)
		x.wantErr("commit of the first", commit(x, first, &core.Batch{Appends: adds(theLog, core.Solo(theCursor), "b")}), core.ErrFenced)
		x.want("owed", x.owed(theLog, theCursor), []string{"a"})
		x.wantErr("close of the first", first.Close(context.Background()), nil)
		x.must(&core.Batch{Appends: adds(theLog, core.Solo(theCursor), "c")})
		x.want("owed", x.owed(theLog, theCursor), []string{"a", "c"})
	}},
	{"what is in flight when a second owner comes is durable or fenced", nil, func(x *box) {
		const n = 200
		type result struct {
			i   int
			err error
		}
		results := make(chan result, n)
		accepted := 0
		for i := range n {
			b := &core.Batch{Wait: true, Appends: adds(theLog, 0, fmt.Sprint(i))}
			b.Done = doneFunc(func(_ *core.Batch, err error) { results <- result{i, err} })
			if x.p.Commit(b) == nil {
				accepted++
			}
		}
		x.p = openPart(x, x.store, 1)
		f := &core.Fetch{Log: theLog}
		if err := fetch(x, x.p, f); err != nil {
			x.wantErr("fetch", err, core.ErrNotFound) // none was durable
		}
		durable := 0
		for range accepted {
			r := <-results
			switch {
			case r.err == nil && r.i == durable:
				durable++
			case r.err == nil:
				x.Errorf("batch %d is durable, %d before it is not", r.i, durable)
			default:
				x.wantErr("in flight", r.err, core.ErrFenced)
			}
		}
		x.want("what the second owner finds", bodies(f.Out), numbered("", durable))
	}},
	{"a closed partition takes nothing, and can be opened again", nil, func(x *box) {
		x.setUp()
		said := make(chan error, 1)
		b := &core.Batch{Appends: adds(theLog, core.Solo(theCursor), "a"), Done: doneFunc(func(_ *core.Batch, err error) { said <- err })}
		x.wantErr("commit", x.p.Commit(b), nil)
		x.wantErr("close", x.p.Close(context.Background()), nil)
		x.wantErr("what was accepted", wait(x, said, "Committed"), nil)
		x.wantErr("commit", x.commit(&core.Batch{}), core.ErrClosed)
		x.wantErr("fetch", fetch(x, x.p, &core.Fetch{Log: theLog}), core.ErrClosed)
		_, err := x.p.Get(context.Background(), 1, nil)
		x.wantErr("get", err, core.ErrClosed)
		x.wantErr("close again", x.p.Close(context.Background()), nil)
		x.p = openPart(x, x.store, 1)
		x.want("owed", x.owed(theLog, theCursor), []string{"a"})
	}},
	{"Close settles what was accepted", nil, func(x *box) {
		const n = 100
		told := make(chan error, n)
		for i := range n {
			b := &core.Batch{Appends: adds(theLog, 0, fmt.Sprint(i)), Done: doneFunc(func(_ *core.Batch, err error) { told <- err })}
			x.wantErr("commit", x.p.Commit(b), nil)
		}
		x.reopen()
		if len(told) != n {
			x.Errorf("%d of %d Done calls came before Close returned", len(told), n)
		}
		x.want("bodies", x.read(&core.Fetch{Log: theLog}), numbered("", n))
	}},
}

var limitTests = []test{
	{"what is too large is refused whole, at once, and leaves nothing", nil, func(x *box) {
		x.setUp()
		caps := x.store.Caps()
		big := message("")
		big.Body = bytes.Repeat([]byte("x"), caps.MaxRecord+1)
		many := make([]core.Record, caps.MaxOps+1)
		for i := range many {
			many[i] = core.Record{Table: 1, Key: fmt.Appendf(nil, "%d", i), Value: []byte("v")}
		}
		var full []core.Append
		half := message("")
		half.Body = bytes.Repeat([]byte("x"), caps.MaxRecord/2)
		for range caps.MaxBatch/(caps.MaxRecord/2) + 1 {
			full = append(full, core.Append{Log: theLog, Routes: both, Message: half})
		}
		for _, row := range []struct {
			sentence string
			b        core.Batch
		}{
			{"a record", core.Batch{Appends: []core.Append{add(theLog, both, "first"), {Log: theLog, Routes: both, Message: big}}}},
			{"a batch", core.Batch{Appends: full}},
			{"the number of ops", core.Batch{Appends: adds(theLog, both, "first"), Records: many}},
			{"a key", core.Batch{Appends: adds(theLog, both, "first"), Records: []core.Record{{Key: make([]byte, 8<<10+1), Value: []byte{1}}}}},
			{"a value", core.Batch{Appends: adds(theLog, both, "first"), Records: []core.Record{{Key: []byte("k"), Value: make([]byte, 1<<20+1)}}}},
		} {
			row.b.Done = doneFunc(func(*core.Batch, error) { x.Errorf("%s: Done was called for what was refused", row.sentence) })
			x.wantErr(row.sentence, x.p.Commit(&row.b), core.ErrTooLarge)
		}
		x.must(&core.Batch{Appends: adds(theLog, both, "goes on")})
		x.want("owed", x.owed(theLog, theCursor), []string{"goes on"})
		x.want("records", x.scan(1, ""), []string(nil))
	}},
	{"as many ops as are allowed are one batch", nil, func(x *box) {
		n := x.store.Caps().MaxOps
		b := core.Batch{Cursors: make([]core.CursorOp, n/4), Records: make([]core.Record, n/4)}
		for i := range b.Cursors {
			b.Cursors[i] = core.CursorOp{ID: core.CursorID(1000 + i), Log: theLog}
			b.Records[i] = core.Record{Table: 1, Key: fmt.Appendf(nil, "%08d", i), Value: []byte("v")}
		}
		b.Appends = make([]core.Append, n/4)
		for i := range b.Appends {
			b.Appends[i] = add(theLog, core.Solo(core.CursorID(1000+i)), "m")
		}
		x.must(&b)
		acks := make([]core.Ack, n/4)
		for i := range acks {
			acks[i] = core.Ack{Cursor: core.CursorID(1000 + i), From: b.Appends[i].Offset, To: b.Appends[i].Offset + 1, N: 1}
		}
		x.must(&core.Batch{Acks: acks[:n/8]})
		x.reopen()
		x.want("cursors", len(x.p.Cursors()), n/4)
		x.want("records", len(x.scan(1, "")), n/4)
		owed := int64(0)
		for _, c := range x.p.Cursors() {
			owed += c.Depth
		}
		x.want("owed", owed, int64(n/4-n/8))
	}},
	{"the caps are sensible", nil, func(x *box) {
		c := x.store.Caps()
		if c.Name == "" || c.MaxRecord <= 0 || c.MaxBatch < c.MaxRecord || c.MaxOps <= 0 {
			x.Errorf("%+v", c)
		}
		x.wantErr("health", x.store.Health().Err, nil)
	}},
}

var errorTests = []test{
	{"on a full disk appends are refused and acks go on", func(h *Harness) bool { return h.Full != nil }, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: adds(theLog, core.Solo(theCursor), "a", "b")}
		x.must(b)
		x.h.Full(true)
		x.wantErr("append", x.commit(&core.Batch{Appends: adds(theLog, core.Solo(theCursor), "c")}), core.ErrReadOnly)
		x.must(&core.Batch{Acks: settle(theCursor, b.Appends[0].Offset)})
		x.want("read-only", x.store.Health().ReadOnly, true)
		x.h.Full(false)
		x.want("read-only", x.store.Health().ReadOnly, false)
		x.must(&core.Batch{Appends: adds(theLog, core.Solo(theCursor), "d")})
		x.want("owed", x.owed(theLog, theCursor), []string{"b", "d"})
	}},
	{"after the disk failed nothing is confirmed any more", func(h *Harness) bool { return h.Fail != nil }, func(x *box) {
		x.must(&core.Batch{Appends: adds(theLog, 0, "a")})
		x.h.Fail()
		x.wantErr("commit", x.commit(&core.Batch{Appends: adds(theLog, 0, "b")}), core.ErrPoisoned)
		x.wantErr("commit again", x.commit(&core.Batch{}), core.ErrPoisoned)
		if x.store.Health().Err == nil {
			x.Error("Health says that all is well")
		}
		_, err := x.store.Open(context.Background(), 2)
		x.wantErr("open", err, core.ErrPoisoned)
	}},
	{"Stats counts", nil, func(x *box) {
		x.must(&core.Batch{Appends: adds(theLog, 0, "a", "b")})
		x.read(&core.Fetch{Log: theLog})
		s := x.store.Stats()
		if s.Commits == 0 || s.Appends != 2 || s.Ops < 2 || s.Syncs == 0 || s.BytesUser < 2 || s.Fetches != 1 {
			x.Errorf("%+v", s)
		}
	}},
}
