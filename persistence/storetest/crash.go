package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/godwitmq/godwit/core"
)

func canCrash(h *Harness) bool { return h.Crash != nil }

var crashTests = []test{
	{"what was confirmed is there after a crash", canCrash, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: adds(theLog, both, numbered("", 50)...)}
		x.must(b)
		x.must(&core.Batch{Acks: settle(theCursor, b.Appends[0].Offset, b.Appends[7].Offset)})
		x.must(&core.Batch{Acks: []core.Ack{{Cursor: other, From: 1, To: b.Appends[49].Offset + 1, N: 50}}})
		x.must(&core.Batch{Marks: []core.Mark{{Cursor: theCursor, At: b.Appends[1].Offset, Attempts: 3}}, Records: put("k", "v")})
		x.must(&core.Batch{Appends: adds(8, 0, "s"), Cursors: []core.CursorOp{{ID: 55, Log: 8, At: 1}}})
		x.crash()
		f := &core.Fetch{Log: theLog, Cursor: theCursor}
		x.want("how many are owed", len(x.read(f)), 48)
		x.want("attempts", f.Out[0].Attempts, uint16(3))
		x.want("the other's", x.owed(theLog, other), []string(nil))
		x.want("records", x.scan(1, ""), []string{"k=v"})
		x.want("stream", x.read(&core.Fetch{Log: 8}), []string{"s"})
		x.want("cursor", x.cursor(55), core.CursorState{ID: 55, Log: 8, Floor: 1})
		if n := x.p.NextID(); n <= 55 {
			x.Errorf("NextID %d", n)
		}
	}},
	{"a batch is there whole or not at all, and so are all before it", canCrash, func(x *box) {
		x.setUp()
		for round := range 3 {
			x.tornRound(round)
		}
	}},
	{"a crash after a crash changes nothing", canCrash, func(x *box) {
		x.setUp()
		x.must(&core.Batch{Appends: adds(theLog, both, numbered("", 20)...)})
		for range 3 {
			x.crash()
			x.want("owed", x.owed(theLog, theCursor), numbered("", 20))
		}
	}},
}

// tornRound commits without waiting, crashes in between and checks.
func (x *box) tornRound(round int) {
	const n = 300
	before := len(x.owed(theLog, theCursor))
	var confirmed atomic.Int64
	reached := make(chan struct{})
	for i := range n {
		name := strconv.Itoa(before + i)
		b := &core.Batch{
			Wait:    true,
			Appends: []core.Append{add(theLog, core.Solo(theCursor), name), add(theLog, core.Solo(other), name)},
			Records: put("last", name),
		}
		b.Done = doneFunc(func(_ *core.Batch, err error) {
			if err == nil && confirmed.Add(1) == n/2 {
				close(reached)
			}
		})
		if err := x.p.Commit(b); err != nil {
			x.Fatalf("commit: %v", err)
		}
	}
	said := make(chan error, 1)
	go func() { <-reached; said <- nil }()
	_ = wait(x, said, "half of the Done calls")
	sure := int(confirmed.Load())
	x.crash()
	mine, its := x.owed(theLog, theCursor), x.owed(theLog, other)
	x.want(fmt.Sprintf("round %d: the halves of the batches", round), mine, its)
	x.want("all that came first", mine, numbered("", len(mine)))
	if len(mine) < before+sure {
		x.Errorf("round %d: %d were confirmed, %d are there", round, sure, len(mine)-before)
	}
	v, err := x.p.Get(context.Background(), 1, []byte("last"))
	if len(mine) == 0 && errors.Is(err, core.ErrNotFound) {
		return
	}
	x.want("the record of the last batch", string(v), strconv.Itoa(len(mine)-1))
}
