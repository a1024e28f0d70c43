package storetest

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/godwitmq/godwit/core"
)

var commitTests = []test{
	{"what was committed can be read after Done", nil, func(x *box) {
		x.setUp()
		b := &core.Batch{Now: 5000, Appends: adds(theLog, core.Solo(theCursor), "a", "b")}
		x.must(b)
		if b.Appends[0].Offset == 0 || b.Appends[1].Offset <= b.Appends[0].Offset {
			x.Errorf("offsets %d, %d: want them above 0 and increasing", b.Appends[0].Offset, b.Appends[1].Offset)
		}
		f := &core.Fetch{Log: theLog, Cursor: theCursor}
		x.want("bodies", x.read(f), []string{"a", "b"})
		x.want("offset of the first", f.Out[0].Offset, b.Appends[0].Offset)
		x.want("time of the first", f.Out[0].Time, int64(5000))
	}},
	{"a batch's parts all come to be", nil, func(x *box) {
		x.must(&core.Batch{
			Now:     1000,
			Cursors: []core.CursorOp{{ID: theCursor, Log: theLog}, {ID: other, Log: theLog}},
			Sets:    []core.RouteSet{{ID: both, Members: []core.CursorID{theCursor, other}}},
			Appends: []core.Append{add(theLog, both, "for both"), add(theLog, core.Solo(other), "for one")},
			Records: []core.Record{{Table: 7, Key: []byte("k"), Value: []byte("v")}},
		})
		x.want("the first cursor's", x.owed(theLog, theCursor), []string{"for both"})
		x.want("the other's", x.owed(theLog, other), []string{"for both", "for one"})
		v, err := x.p.Get(context.Background(), 7, []byte("k"))
		x.want("record", string(v), "v")
		x.wantErr("get", err, nil)
	}},
	{"every field of a message comes back", nil, func(x *box) {
		m := message("body")
		m.QoS, m.Priority, m.Retain, m.UTF8 = 2, 7, true, true
		m.Key, m.Dedup = "key", "dedup"
		m.Headers = []core.Header{{Name: core.HeaderContentType, Value: "text/plain"}, {Name: "n", Value: ""}, {Name: "n", Value: "twice"}}
		m.NotBefore, m.Expires = m.Arrived.Add(time.Second), m.Arrived.Add(time.Hour)
		x.must(&core.Batch{Appends: []core.Append{{Log: theLog, Message: m}}})
		x.reopen()
		f := &core.Fetch{Log: theLog}
		x.read(f)
		if len(f.Out) != 1 {
			x.Fatalf("%d messages, want 1", len(f.Out))
		}
		if d := cmp.Diff(m, f.Out[0].Message, cmpopts.IgnoreUnexported(core.Message{})); d != "" {
			x.Error(d)
		}
	}},
	{"after Done the message is the publisher's again", nil, func(x *box) {
		m := message("before")
		x.must(&core.Batch{Appends: []core.Append{{Log: theLog, Message: m}}})
		copy(m.Body, "AFTER!")
		x.want("body", x.read(&core.Fetch{Log: theLog}), []string{"before"})
	}},
	{"a reader's message is its own", nil, func(x *box) {
		x.must(&core.Batch{Appends: adds(theLog, 0, "before")})
		f := &core.Fetch{Log: theLog}
		x.read(f)
		copy(f.Out[0].Message.Body, "AFTER!")
		x.want("body", x.read(&core.Fetch{Log: theLog}), []string{"before"})
	}},
	{"an empty batch has a Done too", nil, func(x *box) { x.must(&core.Batch{}) }},
	{"without Wait, Done comes all the same", nil, func(x *box) {
		said := make(chan error, 1)
		b := &core.Batch{Appends: adds(theLog, 0, "a"), Done: doneFunc(func(_ *core.Batch, err error) { said <- err })}
		x.wantErr("commit", x.p.Commit(b), nil)
		x.wantErr("done", wait(x, said, "Committed"), nil)
		x.want("bodies", x.read(&core.Fetch{Log: theLog}), []string{"a"})
	}},
	{"nothing is seen before it is durable", func(h *Harness) bool { return h.Hold != nil }, func(x *box) {
		x.setUp()
		held, release := x.h.Hold()
		defer release()
		said := make(chan error, 1)
		b := &core.Batch{
			Wait:    true,
			Appends: adds(theLog, core.Solo(theCursor), "a"),
			Records: []core.Record{{Table: 1, Key: []byte("k"), Value: []byte("v")}},
			Done:    doneFunc(func(_ *core.Batch, err error) { said <- err }),
		}
		x.wantErr("commit", x.p.Commit(b), nil)
		held()
		x.want("owed", x.owed(theLog, theCursor), []string(nil))
		x.want("all", x.read(&core.Fetch{Log: theLog}), []string(nil))
		_, err := x.p.Get(context.Background(), 1, []byte("k"))
		x.wantErr("get", err, core.ErrNotFound)
		select {
		case err := <-said:
			x.Errorf("Done came before the disk had it: %v", err)
		default:
		}
		release()
		x.wantErr("done", wait(x, said, "Committed"), nil)
		x.want("owed", x.owed(theLog, theCursor), []string{"a"})
	}},
	{"a large record comes back, and leaves when it is settled", nil, func(x *box) {
		x.setUp()
		m := message("")
		m.Body = bytes.Repeat([]byte("0123456789abcdef"), (x.store.Caps().MaxRecord-4096)/16)
		b := &core.Batch{Appends: []core.Append{{Log: theLog, Routes: core.Solo(theCursor), Message: m}, add(theLog, core.Solo(theCursor), "small")}}
		x.must(b)
		for _, again := range []bool{false, true} {
			if again {
				x.reopen()
			}
			f := &core.Fetch{Log: theLog, Cursor: theCursor}
			x.read(f)
			if len(f.Out) != 2 || !bytes.Equal(f.Out[0].Message.Body, m.Body) || string(f.Out[1].Message.Body) != "small" {
				x.Fatalf("reopened %v: the large record did not come back", again)
			}
		}
		x.must(&core.Batch{Acks: []core.Ack{{Cursor: theCursor, From: b.Appends[0].Offset, To: b.Appends[0].Offset + 1, N: 1, Bytes: m.Size()}}})
		x.want("owed", x.owed(theLog, theCursor), []string{"small"})
		x.reopen()
		x.want("owed after reopening", x.owed(theLog, theCursor), []string{"small"})
	}},
	{"a batch near the limit is one batch", nil, func(x *box) {
		caps := x.store.Caps()
		var b core.Batch
		each := min(caps.MaxRecord, 60_000) - 1000
		for i := range caps.MaxBatch * 9 / 10 / (each + 500) {
			a := add(theLog, 0, "")
			a.Message.Body = bytes.Repeat([]byte{byte(i)}, each)
			b.Appends = append(b.Appends, a)
		}
		x.must(&b)
		x.reopen()
		f := &core.Fetch{Log: theLog}
		x.read(f)
		if len(f.Out) != len(b.Appends) {
			x.Fatalf("%d of %d records came back", len(f.Out), len(b.Appends))
		}
		for i := range f.Out {
			if f.Out[i].Message.Body[0] != byte(i) || len(f.Out[i].Message.Body) != each {
				x.Fatalf("record %d is another one", i)
			}
		}
	}},
	{"partitions know nothing of each other", nil, func(x *box) {
		q := openPart(x, x.store, 2)
		x.setUp()
		x.must(&core.Batch{Appends: adds(theLog, core.Solo(theCursor), "one's"), Records: []core.Record{{Table: 1, Key: []byte("k"), Value: []byte("one's")}}})
		x.wantErr("commit", commit(x, q, &core.Batch{Appends: adds(theLog, 0, "two's")}), nil)
		f := &core.Fetch{Log: theLog}
		x.wantErr("fetch", fetch(x, q, f), nil)
		x.want("the second's", bodies(f.Out), []string{"two's"})
		_, err := q.Get(context.Background(), 1, []byte("k"))
		x.wantErr("get", err, core.ErrNotFound)
		x.want("cursors of the second", q.Cursors(), []core.CursorState(nil))
	}},
	{"partitions commit at the same time", nil, func(x *box) {
		var all sync.WaitGroup
		for id := core.PartitionID(10); id < 14; id++ {
			p := openPart(x, x.store, id)
			all.Go(func() {
				for _, n := range numbered("", 50) {
					if err := commit(x, p, &core.Batch{Appends: adds(theLog, 0, n)}); err != nil {
						x.Errorf("partition %d: %v", id, err)
					}
				}
				f := &core.Fetch{Log: theLog}
				if err := fetch(x, p, f); err != nil {
					x.Errorf("partition %d: %v", id, err)
				}
				x.want("bodies", bodies(f.Out), numbered("", 50))
			})
		}
		all.Wait()
	}},
	{"ids given out are above all that were used", nil, func(x *box) {
		x.must(&core.Batch{Cursors: []core.CursorOp{{ID: 900, Log: 7}}})
		x.must(&core.Batch{Sets: []core.RouteSet{{ID: 1000, Members: []core.CursorID{900}}}})
		x.must(&core.Batch{Appends: adds(1100, core.Solo(900), "a")})
		if n := x.p.NextID(); n <= 1100 {
			x.Errorf("NextID %d after 1100 was used", n)
		}
		x.must(&core.Batch{Trims: []core.Trim{{Log: 1100, Before: core.MaxOffset}}})
		x.reopen()
		if n := x.p.NextID(); n <= 1100 || n >= 1<<62 {
			x.Errorf("NextID %d after 1100 was used, then dropped", n)
		}
	}},
}
