package storetest

import (
	"fmt"

	"github.com/godwitmq/godwit/core"
)

var orderTests = []test{
	{"Done calls come in the order of the commits", nil, func(x *box) {
		const n = 500
		told := make(chan int, n)
		var batches []*core.Batch
		for i := range n {
			b := &core.Batch{Wait: i%3 == 0 || i == n-1, Appends: adds(theLog, 0, fmt.Sprint(i))}
			b.Done = doneFunc(func(_ *core.Batch, err error) {
				if err != nil {
					i = -1
				}
				told <- i
			})
			batches = append(batches, b)
			if err := x.p.Commit(b); err != nil {
				x.Fatalf("commit %d: %v", i, err)
			}
		}
		said := make(chan error)
		for i := range n {
			go func() {
				if got := <-told; got != i {
					said <- fmt.Errorf("done %d came when %d was due", got, i)
					return
				}
				said <- nil
			}()
			x.wantErr("order", wait(x, said, "Committed"), nil)
		}
		for i := 1; i < n; i++ {
			if batches[i].Appends[0].Offset <= batches[i-1].Appends[0].Offset {
				x.Fatalf("offset %d of batch %d after %d", batches[i].Appends[0].Offset, i, batches[i-1].Appends[0].Offset)
			}
		}
		x.want("what is read", x.read(&core.Fetch{Log: theLog}), numbered("", n))
	}},
	{"offsets are never given twice", nil, func(x *box) {
		x.setUp()
		var last core.Offset
		for i := range 12 {
			b := &core.Batch{Appends: adds(theLog, core.Solo(theCursor), "a", "b")}
			x.must(b)
			if b.Appends[0].Offset <= last {
				x.Fatalf("round %d: offset %d again", i, b.Appends[0].Offset)
			}
			last = b.Appends[1].Offset
			x.must(&core.Batch{Acks: []core.Ack{{Cursor: theCursor, From: 1, To: last + 1, N: 2}}})
			if i%3 == 2 {
				x.reopen()
			}
		}
	}},
	{"the time of a log never goes back", nil, func(x *box) {
		x.must(&core.Batch{Now: 5000, Appends: adds(theLog, 0, "a")})
		x.must(&core.Batch{Now: 1000, Appends: adds(theLog, 0, "b")})
		x.reopen()
		x.must(&core.Batch{Now: 2000, Appends: adds(theLog, 0, "c")})
		x.must(&core.Batch{Now: 6000, Appends: adds(theLog, 0, "d")})
		f := &core.Fetch{Log: theLog}
		x.read(f)
		var times []int64
		for _, s := range f.Out {
			times = append(times, s.Time)
		}
		x.want("times", times, []int64{5000, 5000, 5000, 6000})
	}},
	{"an op sees what stands above it in the batch", nil, func(x *box) {
		// A cursor, a message for it, and its end by a trim: all in one.
		b := &core.Batch{
			Cursors: []core.CursorOp{{ID: theCursor, Log: theLog}},
			Sets:    []core.RouteSet{{ID: both, Members: []core.CursorID{theCursor}}},
			Appends: adds(theLog, both, "a", "b"),
			Records: []core.Record{{Table: 1, Key: []byte("k"), Value: []byte("1")}, {Table: 1, Key: []byte("k"), Value: []byte("2")}},
		}
		x.must(b)
		x.want("owed", x.owed(theLog, theCursor), []string{"a", "b"})
		x.must(&core.Batch{Appends: adds(9, 0, "x"), Trims: []core.Trim{{Log: 9, Before: core.MaxOffset}}})
		for _, l := range x.p.Logs() {
			if l.ID == 9 {
				x.Error("log 9 is there, though the batch that made it dropped it")
			}
		}
	}},
}
