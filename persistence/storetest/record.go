package storetest

import (
	"context"
	"fmt"

	"github.com/godwitmq/godwit/core"
)

// put makes records of table 1: key, value, key, value.
func put(kv ...string) []core.Record {
	var r []core.Record
	for i := 0; i < len(kv); i += 2 {
		r = append(r, core.Record{Table: 1, Key: []byte(kv[i]), Value: []byte(kv[i+1])})
	}
	return r
}

// scan gives the records below a prefix as "key=value".
func (x *box) scan(t core.Table, prefix string) []string {
	x.Helper()
	var got []string
	for r, err := range x.p.Scan(context.Background(), t, []byte(prefix)) {
		if err != nil {
			x.Fatalf("scan: %v", err)
		}
		if r.Table != t {
			x.Errorf("a record of table %d, want %d", r.Table, t)
		}
		got = append(got, fmt.Sprintf("%s=%s", r.Key, r.Value))
	}
	return got
}

var recordTests = []test{
	{"the last write wins, in a batch and over batches", nil, func(x *box) {
		x.must(&core.Batch{Records: put("a", "1", "b", "1", "a", "2")})
		x.must(&core.Batch{Records: put("b", "3")})
		x.want("records", x.scan(1, ""), []string{"a=2", "b=3"})
		x.reopen()
		x.want("after reopening", x.scan(1, ""), []string{"a=2", "b=3"})
	}},
	{"a nil value deletes, an empty one does not", nil, func(x *box) {
		x.must(&core.Batch{Records: put("a", "1", "b", "2", "c", "3")})
		x.must(&core.Batch{Records: []core.Record{{Table: 1, Key: []byte("a")}, {Table: 1, Key: []byte("b"), Value: []byte{}}, {Table: 1, Key: []byte("never was")}}})
		x.reopen()
		x.want("records", x.scan(1, ""), []string{"b=", "c=3"})
		_, err := x.p.Get(context.Background(), 1, []byte("a"))
		x.wantErr("get a", err, core.ErrNotFound)
		v, err := x.p.Get(context.Background(), 1, []byte("b"))
		x.wantErr("get b", err, nil)
		if v == nil {
			x.Error("the value of b is nil, want empty")
		}
	}},
	{"a scan goes in key order below its prefix and in its table", nil, func(x *box) {
		x.must(&core.Batch{Records: append(put("b/2", "", "b/10", "", "b", "", "a", "", "b/\xff", "", "b/\x00", "", "c", "", "b0", ""),
			core.Record{Table: 0, Key: []byte("b/0"), Value: []byte{}}, core.Record{Table: 2, Key: []byte("b/0"), Value: []byte{}})})
		x.want("below b/", x.scan(1, "b/"), []string{"b/\x00=", "b/10=", "b/2=", "b/\xff="})
		x.want("all", x.scan(1, ""), []string{"a=", "b=", "b/\x00=", "b/10=", "b/2=", "b/\xff=", "b0=", "c="})
		x.want("below 0xff", x.scan(1, "\xff"), []string(nil))
		x.must(&core.Batch{Records: []core.Record{{Table: 255, Key: []byte("\xff\xff"), Value: []byte("last")}}})
		x.want("the last table", x.scan(255, "\xff"), []string{"\xff\xff=last"})
	}},
	{"a scan can be left, and the store used inside it", nil, func(x *box) {
		x.must(&core.Batch{Records: put("a", "", "b", "", "c", "")})
		n := 0
		for r, err := range x.p.Scan(context.Background(), 1, nil) {
			if err != nil {
				x.Fatalf("scan: %v", err)
			}
			n++
			x.must(&core.Batch{Records: []core.Record{{Table: 1, Key: r.Key}}})
			if n == 2 {
				break
			}
		}
		x.want("left", x.scan(1, ""), []string{"c="})
	}},
	{"keys and values given back are the caller's", nil, func(x *box) {
		x.must(&core.Batch{Records: put("a", "before")})
		v, err := x.p.Get(context.Background(), 1, []byte("a"))
		x.wantErr("get", err, nil)
		copy(v, "AFTER!")
		x.want("records", x.scan(1, ""), []string{"a=before"})
	}},
	{"a scan with a context that is over ends", nil, func(x *box) {
		x.must(&core.Batch{Records: put("a", "1")})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		var last error
		for _, err := range x.p.Scan(ctx, 1, nil) {
			last = err
		}
		x.wantErr("scan", last, context.Canceled)
	}},
}
