package storetest

import (
	"fmt"
	"strings"

	"github.com/godwitmq/godwit/core"
)

// settle acks the records at the given offsets, one range each.
func settle(c core.CursorID, at ...core.Offset) []core.Ack {
	var acks []core.Ack
	for _, o := range at {
		acks = append(acks, core.Ack{Cursor: c, From: o, To: o + 1, N: 1})
	}
	return acks
}

var cursorTests = []test{
	{"acks out of order leave what was not acked", nil, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: adds(theLog, core.Solo(theCursor), numbered("", 10)...)}
		x.must(b)
		at := func(i int) core.Offset { return b.Appends[i].Offset }
		x.must(&core.Batch{Acks: settle(theCursor, at(7), at(3), at(0), at(4))})
		want := []string{"1", "2", "5", "6", "8", "9"}
		x.want("owed", x.owed(theLog, theCursor), want)
		x.reopen()
		x.want("owed after reopening", x.owed(theLog, theCursor), want)
		c := x.cursor(theCursor)
		x.want("depth", c.Depth, int64(6))
		x.want("bytes", c.Bytes, 6*message("0").Size())
		if c.Floor != at(1) {
			x.Errorf("floor %d, want %d, the first that is owed", c.Floor, at(1))
		}
		x.want("settled above the floor", c.Settled, [][2]core.Offset{{at(3), at(5)}, {at(7), at(8)}})
		x.must(&core.Batch{Acks: []core.Ack{{Cursor: theCursor, From: at(0), To: at(9) + 1, N: 6}}})
		x.want("owed at last", x.owed(theLog, theCursor), []string(nil))
		x.reopen()
		x.want("depth at last", x.cursor(theCursor).Depth, int64(0))
	}},
	{"acks of what is settled, unknown or yet to come are ignored", nil, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: adds(theLog, core.Solo(theCursor), "a", "b")}
		x.must(b)
		x.must(&core.Batch{Acks: settle(theCursor, b.Appends[0].Offset)})
		x.must(&core.Batch{Acks: append(settle(theCursor, b.Appends[0].Offset, 0),
			core.Ack{Cursor: 77, From: 1, To: 100},
			core.Ack{Cursor: theCursor, From: b.Appends[1].Offset + 1, To: core.MaxOffset, N: 3},
			core.Ack{Cursor: theCursor, From: 50, To: 40},
		)})
		x.must(&core.Batch{Appends: adds(theLog, core.Solo(theCursor), "c")})
		x.want("owed", x.owed(theLog, theCursor), []string{"b", "c"})
		x.reopen()
		x.want("owed after reopening", x.owed(theLog, theCursor), []string{"b", "c"})
	}},
	{"a record is kept until every cursor of its set has settled it", nil, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: adds(theLog, both, "a", "b", "c")}
		x.must(b)
		all := core.Ack{From: 1, To: b.Appends[2].Offset + 1, N: 3}
		all.Cursor = theCursor
		x.must(&core.Batch{Acks: []core.Ack{all}})
		x.reopen()
		x.want("the other's", x.owed(theLog, other), []string{"a", "b", "c"})
		all.Cursor = other
		x.must(&core.Batch{Acks: []core.Ack{all}})
		x.want("the other's", x.owed(theLog, other), []string(nil))
	}},
	{"a dropped cursor owes nothing", nil, func(x *box) {
		x.setUp()
		x.must(&core.Batch{Appends: adds(theLog, both, "a", "b")})
		x.must(&core.Batch{Cursors: []core.CursorOp{{ID: theCursor, Drop: true}}})
		x.want("the other's", x.owed(theLog, other), []string{"a", "b"})
		x.reopen()
		x.want("the other's after reopening", x.owed(theLog, other), []string{"a", "b"})
		x.want("cursors", len(x.p.Cursors()), 1)
		x.must(&core.Batch{Appends: []core.Append{add(theLog, both, "c"), add(theLog, core.Solo(theCursor), "lost")}})
		x.want("the other's at last", x.owed(theLog, other), []string{"a", "b", "c"})
	}},
	{"a cursor can seek forward", nil, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: adds(theLog, both, numbered("", 6)...)}
		x.must(b)
		x.must(&core.Batch{Cursors: []core.CursorOp{{ID: theCursor, Log: theLog, At: b.Appends[4].Offset}}})
		x.want("owed", x.owed(theLog, theCursor), []string{"4", "5"})
		x.want("the other's", x.owed(theLog, other), numbered("", 6))
		x.reopen()
		x.want("owed after reopening", x.owed(theLog, theCursor), []string{"4", "5"})
		x.want("depth", x.cursor(theCursor).Depth, int64(2))
	}},
	{"a cursor can seek back to what is still there", nil, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: adds(theLog, both, numbered("", 6)...)}
		x.must(b)
		x.must(&core.Batch{Acks: []core.Ack{{Cursor: theCursor, From: 1, To: b.Appends[5].Offset + 1, N: 6}}})
		x.must(&core.Batch{Cursors: []core.CursorOp{{ID: theCursor, Log: theLog, At: b.Appends[2].Offset}}})
		x.want("owed", x.owed(theLog, theCursor), []string{"2", "3", "4", "5"})
		x.must(&core.Batch{Acks: []core.Ack{{Cursor: other, From: 1, To: b.Appends[5].Offset + 1, N: 6}}})
		x.want("owed though the other is done", x.owed(theLog, theCursor), []string{"2", "3", "4", "5"})
		x.reopen()
		x.want("owed after reopening", x.owed(theLog, theCursor), []string{"2", "3", "4", "5"})
	}},
	{"delivery counts are kept until the record is settled", nil, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: adds(theLog, both, "a", "b")}
		x.must(b)
		at := b.Appends[1].Offset
		x.must(&core.Batch{Marks: []core.Mark{{Cursor: theCursor, At: at, Attempts: 2}, {Cursor: 77, At: at, Attempts: 9}, {Cursor: theCursor, At: 999, Attempts: 9}}})
		attempts := func(c core.CursorID) (n []uint16) {
			f := &core.Fetch{Log: theLog, Cursor: c}
			x.read(f)
			for _, s := range f.Out {
				n = append(n, s.Attempts)
			}
			return n
		}
		x.want("attempts", attempts(theCursor), []uint16{0, 2})
		x.want("the other's", attempts(other), []uint16{0, 0})
		x.reopen()
		x.want("attempts after reopening", attempts(theCursor), []uint16{0, 2})
		x.must(&core.Batch{Acks: settle(theCursor, at)})
		x.must(&core.Batch{Cursors: []core.CursorOp{{ID: theCursor, Log: theLog, At: 1}}})
		x.want("attempts of one that was settled and is owed again", attempts(theCursor), []uint16{0, 0})
	}},
	{"a retired set still routes what was stored with it", nil, func(x *box) {
		x.setUp()
		x.must(&core.Batch{Appends: adds(theLog, both, "a")})
		x.must(&core.Batch{Sets: []core.RouteSet{{ID: both}}})
		x.reopen()
		x.want("owed", x.owed(theLog, theCursor), []string{"a"})
		x.want("the other's", x.owed(theLog, other), []string{"a"})
	}},
	{"an append with a set nobody has defined is refused", nil, func(x *box) {
		x.setUp()
		if err := x.commit(&core.Batch{Appends: adds(theLog, 99, "a")}); err == nil {
			x.Error("accepted: the message would be lost without a word")
		}
	}},
	{"thousands of single acks in any order", nil, func(x *box) {
		x.setUp()
		const n = 2000
		b := &core.Batch{Appends: adds(theLog, both, numbered("", n)...)}
		x.must(b)
		for i := 1; i < n; i += 2 {
			a := b.Appends[(i*7919)%n].Offset
			if (i*7919)%n%2 == 0 {
				a++
			}
			bb := &core.Batch{Acks: settle(theCursor, a), Done: doneFunc(func(*core.Batch, error) {})}
			x.wantErr("commit", x.p.Commit(bb), nil)
		}
		x.must(&core.Batch{})
		f := &core.Fetch{Log: theLog, Cursor: theCursor}
		x.read(f)
		x.reopen()
		x.want("owed after reopening", x.owed(theLog, theCursor), bodies(f.Out))
		x.want("depth", x.cursor(theCursor).Depth, int64(len(f.Out)))
		if len(f.Out) > n*2/3 {
			x.Errorf("%d of %d are owed though half were acked", len(f.Out), n)
		}
	}},
	{"a hundred cursors on one record", nil, func(x *box) {
		var b core.Batch
		var members []core.CursorID
		for i := range 100 {
			members = append(members, core.CursorID(1000-i)) // in no order
			b.Cursors = append(b.Cursors, core.CursorOp{ID: members[i], Log: theLog})
		}
		b.Sets = []core.RouteSet{{ID: 5000, Members: members}}
		b.Appends = adds(theLog, 5000, "a", "b")
		x.must(&b)
		for i, m := range members {
			if i%2 == 0 {
				x.must(&core.Batch{Acks: settle(m, b.Appends[0].Offset)})
			}
		}
		x.reopen()
		for i, m := range members {
			want := []string{"a", "b"}[1-i%2:]
			x.want(fmt.Sprintf("cursor %d", m), x.owed(theLog, m), want)
		}
	}},
}

var trimTests = []test{
	{"what lies before a trim leaves, what lies behind stays", nil, func(x *box) {
		var appends []core.Append
		for i := range 5 {
			b := &core.Batch{Appends: adds(theLog, 0, numbered(fmt.Sprintf("%d-", i), 4)...)}
			x.must(b)
			appends = append(appends, b.Appends...)
		}
		x.must(&core.Batch{Trims: []core.Trim{{Log: theLog, Before: appends[10].Offset}}})
		x.wantTail(appends, 10)
		x.reopen()
		x.wantTail(appends, 10)
		x.must(&core.Batch{Appends: adds(theLog, 0, "new")})
		got := x.read(&core.Fetch{Log: theLog})
		x.want("the newest", got[len(got)-1], "new")
	}},
	{"a trim passes what cursors owe", nil, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: adds(theLog, both, "a", "b", "c")}
		x.must(b)
		x.must(&core.Batch{Trims: []core.Trim{{Log: theLog, Before: b.Appends[2].Offset + 1}}})
		x.must(&core.Batch{Appends: adds(theLog, both, "d")})
		x.want("owed", x.owed(theLog, theCursor), []string{"d"})
		x.reopen()
		x.want("owed after reopening", x.owed(theLog, theCursor), []string{"d"})
		x.want("depth", x.cursor(theCursor).Depth, int64(1))
	}},
	{"a trim by time leaves all that is younger", nil, func(x *box) {
		var appends []core.Append
		for i := range 10 {
			b := &core.Batch{Now: int64(1000 * (i + 1)), Appends: adds(theLog, 0, fmt.Sprint(i))}
			x.must(b)
			appends = append(appends, b.Appends...)
		}
		x.must(&core.Batch{Trims: []core.Trim{{Log: theLog, OlderThan: 5000}}})
		x.wantTail(appends, 4)
		x.reopen()
		x.wantTail(appends, 4)
	}},
	{"a trim by size leaves that much at least", nil, func(x *box) {
		var appends []core.Append
		for i := range 10 {
			b := &core.Batch{Appends: adds(theLog, 0, large(i))}
			x.must(b)
			appends = append(appends, b.Appends...)
		}
		x.must(&core.Batch{Trims: []core.Trim{{Log: theLog, Keep: 3 * message(large(0)).Size()}}})
		x.wantTail(appends, 7)
		if got := x.read(&core.Fetch{Log: theLog}); len(got) == 10 {
			x.Error("nothing left though each record is as large as a block of the smallest driver")
		}
		x.reopen()
		x.wantTail(appends, 7)
	}},
	{"a dropped log is gone, and the others are not", nil, func(x *box) {
		x.setUp()
		x.must(&core.Batch{Appends: adds(8, 0, "a", "b")})
		x.must(&core.Batch{Appends: adds(theLog, both, "mine")})
		x.must(&core.Batch{Trims: []core.Trim{{Log: 8, Before: core.MaxOffset}}})
		for range 2 {
			x.wantErr("fetch", fetch(x, x.p, &core.Fetch{Log: 8}), core.ErrNotFound)
			x.want("logs", len(x.p.Logs()), 1)
			x.want("owed", x.owed(theLog, theCursor), []string{"mine"})
			x.reopen()
		}
	}},
	{"a log remembers where it was when it is empty", nil, func(x *box) {
		b := &core.Batch{Now: 7000, Appends: adds(theLog, 0, "a", "b")}
		x.must(b)
		next := x.log(theLog).Next
		x.must(&core.Batch{Trims: []core.Trim{{Log: theLog, Before: next}}})
		x.reopen()
		st := x.log(theLog)
		if st.Next < next || st.Records != 0 {
			x.Errorf("%+v, want next %d and no records", st, next)
		}
		x.want("bodies", x.read(&core.Fetch{Log: theLog}), []string(nil))
	}},
	{"compacting keeps the newest of each key, or says it cannot", nil, func(x *box) {
		var b core.Batch
		for i, k := range []string{"x", "y", "", "x", "z", "y", ""} {
			a := add(theLog, 0, fmt.Sprint(i))
			a.Message.Key = k
			b.Appends = append(b.Appends, a)
		}
		x.must(&b)
		err := x.commit(&core.Batch{Trims: []core.Trim{{Log: theLog, Before: b.Appends[5].Offset, Compact: true}}})
		if err != nil {
			x.wantErr("compact", err, core.ErrBadValue)
			x.want("all is there", x.read(&core.Fetch{Log: theLog}), numbered("", 7))
			return
		}
		x.want("bodies", x.read(&core.Fetch{Log: theLog}), []string{"1", "2", "3", "4", "5", "6"})
	}},
}

// wantTail checks that theLog has the last of appends from an index on, and
// maybe some right before it: a driver may trim in larger steps.
func (x *box) wantTail(appends []core.Append, from int) {
	x.Helper()
	got := x.read(&core.Fetch{Log: theLog})
	var all []string
	for i := range appends {
		all = append(all, string(appends[i].Message.Body))
	}
	if len(got) < len(all)-from || len(got) > len(all) {
		x.Fatalf("%d of %d records are there, want the last %d at least: %q", len(got), len(all), len(all)-from, got)
	}
	x.want("the tail", got, all[len(all)-len(got):])
	if first := x.log(theLog).First; first > appends[from].Offset {
		x.Errorf("the log begins at %d, want %d or less", first, appends[from].Offset)
	}
}

// large is a body that no driver puts into one block with another.
func large(i int) string { return strings.Repeat(fmt.Sprint(i%10), 70_000) }
