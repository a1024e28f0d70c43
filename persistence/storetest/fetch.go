package storetest

import (
	"fmt"
	"slices"

	"github.com/godwitmq/godwit/core"
)

var fetchTests = []test{
	{"limits of records and bytes stop a fetch, after one record at least", nil, func(x *box) {
		x.must(&core.Batch{Appends: adds(theLog, 0, numbered("", 10)...)})
		size := int(message("0").Size())
		for _, row := range []struct {
			sentence string
			f        core.Fetch
			want     int
		}{
			{"no limits", core.Fetch{}, 10},
			{"three records", core.Fetch{Records: 3}, 3},
			{"bytes for three", core.Fetch{Bytes: 3 * size}, 3},
			{"bytes for nearly four", core.Fetch{Bytes: 4*size - 1}, 3},
			{"the tighter of both", core.Fetch{Records: 5, Bytes: 2 * size}, 2},
			{"one byte is one record", core.Fetch{Bytes: 1}, 1},
		} {
			row.f.Log = theLog
			x.want(row.sentence, x.read(&row.f), numbered("", row.want))
		}
	}},
	{"Next leads through the whole log, each record once", nil, func(x *box) {
		var want []string
		for i := range 60 {
			n := numbered(fmt.Sprintf("%d-", i), i%7)
			want = append(want, n...)
			x.must(&core.Batch{Appends: adds(theLog, 0, n...)})
		}
		for _, records := range []int{1, 3, 1000} {
			var got []string
			for from := core.Offset(0); ; {
				f := &core.Fetch{Log: theLog, From: from, Records: records}
				b := x.read(f)
				if len(b) == 0 {
					x.want("Next at the end", f.Next, x.log(theLog).Next)
					break
				}
				got, from = append(got, b...), f.Next
			}
			x.want(fmt.Sprintf("%d at a time", records), got, want)
		}
	}},
	{"at the end there is nothing, and Next waits there", nil, func(x *box) {
		x.must(&core.Batch{Appends: adds(theLog, 0, "a")})
		f := &core.Fetch{Log: theLog, From: x.log(theLog).Next}
		x.want("bodies", x.read(f), []string(nil))
		x.must(&core.Batch{Appends: adds(theLog, 0, "b")})
		x.want("from Next", x.read(&core.Fetch{Log: theLog, From: f.Next}), []string{"b"})
	}},
	{"Out is used again and holds only what was read now", nil, func(x *box) {
		x.must(&core.Batch{Appends: adds(theLog, 0, "a", "b")})
		f := &core.Fetch{Log: theLog}
		x.read(f)
		x.want("again", x.read(f), []string{"a", "b"})
	}},
	{"Since finds the first record at or after a time", nil, func(x *box) {
		for i := range 20 {
			x.must(&core.Batch{Now: int64(1000 + i*10), Appends: adds(theLog, 0, fmt.Sprintf("%d-0", i), fmt.Sprintf("%d-1", i))})
		}
		for since, want := range map[int64]string{1: "0-0", 1000: "0-0", 1001: "1-0", 1100: "10-0", 1190: "19-0"} {
			x.want(fmt.Sprintf("since %d", since), x.read(&core.Fetch{Log: theLog, Since: since, Records: 1}), []string{want})
		}
		x.want("since after all", x.read(&core.Fetch{Log: theLog, Since: 1191}), []string(nil))
	}},
	{"a cursor gets what is routed to it and not settled", nil, func(x *box) {
		x.setUp()
		b := &core.Batch{Appends: []core.Append{
			add(theLog, core.Solo(theCursor), "mine 1"), add(theLog, core.Solo(other), "its 1"),
			add(theLog, both, "ours 1"), add(theLog, 0, "nobody's"), add(theLog, both, "ours 2"), add(theLog, core.Solo(theCursor), "mine 2"),
		}}
		x.must(b)
		x.want("mine", x.owed(theLog, theCursor), []string{"mine 1", "ours 1", "ours 2", "mine 2"})
		x.want("its", x.owed(theLog, other), []string{"its 1", "ours 1", "ours 2"})
		at := b.Appends[2].Offset
		x.must(&core.Batch{Acks: []core.Ack{{Cursor: theCursor, From: at, To: at + 1, N: 1}}})
		x.want("mine, one settled", x.owed(theLog, theCursor), []string{"mine 1", "ours 2", "mine 2"})
		x.want("its, as before", x.owed(theLog, other), []string{"its 1", "ours 1", "ours 2"})
		x.want("mine from the last", x.read(&core.Fetch{Log: theLog, Cursor: theCursor, From: b.Appends[4].Offset, Records: 1}), []string{"ours 2"})
	}},
	{"few of many: a sparse cursor gets all that is its own", nil, func(x *box) {
		x.setUp()
		var want []string
		for i := range 30 {
			b := &core.Batch{Appends: adds(theLog, core.Solo(other), numbered("", 40)...)}
			if i%10 == 5 {
				b.Appends[17].Routes = core.Solo(theCursor)
				b.Appends[17].Message = message(fmt.Sprintf("mine %d", i))
				want = append(want, fmt.Sprintf("mine %d", i))
			}
			x.must(b)
		}
		x.want("mine", x.owed(theLog, theCursor), want)
		x.reopen()
		x.want("mine after reopening", x.owed(theLog, theCursor), want)
		f := &core.Fetch{Log: theLog, Cursor: theCursor, Records: 2}
		x.read(f)
		x.want("the rest", x.read(&core.Fetch{Log: theLog, Cursor: theCursor, From: f.Next}), want[2:])
	}},
	{"many fetches at once are each answered", nil, func(x *box) {
		x.must(&core.Batch{Appends: adds(theLog, 0, numbered("", 100)...)})
		const n = 200
		said := make(chan error, n)
		fetches := make([]core.Fetch, n)
		for i := range fetches {
			fetches[i] = core.Fetch{Log: theLog, From: core.Offset(1 + i%100), Records: 1, Done: fetchedFunc(func(_ *core.Fetch, err error) { said <- err })}
			x.wantErr("fetch", x.p.Fetch(&fetches[i]), nil)
		}
		for range fetches {
			x.wantErr("fetched", wait(x, said, "Fetched"), nil)
		}
		all := x.read(&core.Fetch{Log: theLog})
		for i := range fetches {
			if got := bodies(fetches[i].Out); len(got) != 1 || !slices.Contains(all, got[0]) {
				x.Fatalf("fetch %d: %q", i, got)
			}
		}
	}},
	{"a log or cursor that is not there is not found", nil, func(x *box) {
		x.setUp()
		x.wantErr("log", fetch(x, x.p, &core.Fetch{Log: 77}), core.ErrNotFound)
		x.wantErr("cursor", fetch(x, x.p, &core.Fetch{Log: theLog, Cursor: 77}), core.ErrNotFound)
	}},
}
