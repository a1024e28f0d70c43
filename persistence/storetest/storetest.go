// Package storetest says what a store must do, in tests that every driver
// runs: the promises of core.Store, its errors and limits, and a comparison
// with persistence/memory over random histories.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Harness { ... })
//	}
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/godwitmq/godwit/core"
)

// A Harness is one store, empty, and what can be done to it. What a driver
// cannot do is nil, and the tests of it are skipped.
type Harness struct {
	Store core.Store
	// Reopen closes the store and opens what it left.
	Reopen func() core.Store
	// Crash opens what a store leaves that has no time to close. The old one
	// is not used any more.
	Crash func() core.Store
	// Full fills the disk, or makes room again.
	Full func(full bool)
	// Fail breaks the disk: nothing can be written any more.
	Fail func()
	// Hold keeps what is committed from becoming durable. held waits until
	// that has happened to a commit; release ends it,
	// and may be called again.
	Hold func() (held, release func())
}

// Run runs all tests. open is called for each of them.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	Promises(t, open)
	Model(t, open)
}

// A section is the tests of one thing.
type section struct {
	name  string
	tests []test
}

// Promises runs the tests of each promise, error and limit.
func Promises(t *testing.T, open func(t *testing.T) Harness) {
	run(t, open, []section{
		{"commit", commitTests},
		{"order", orderTests},
		{"fetch", fetchTests},
		{"cursor", cursorTests},
		{"trim", trimTests},
		{"record", recordTests},
		{"owner", ownerTests},
		{"limit", limitTests},
		{"error", errorTests},
		{"crash", crashTests},
	})
}

// Model runs random histories, -rapid.checks of them, and compares with
// memory after each step.
func Model(t *testing.T, open func(t *testing.T) Harness) {
	run(t, open, []section{{"model", modelTests}})
}

func run(t *testing.T, open func(t *testing.T) Harness, sections []section) {
	for _, section := range sections {
		t.Run(section.name, func(t *testing.T) {
			for _, test := range section.tests {
				t.Run(test.sentence, func(t *testing.T) {
					h := open(t)
					if test.needs != nil && !test.needs(&h) {
						t.Skip("this driver cannot do that in a test")
					}
					test.run(&box{T: t, h: h, store: h.Store, p: openPart(t, h.Store, 1)})
				})
			}
		})
	}
}

// A test is a sentence and the code that proves it.
type test struct {
	sentence string
	needs    func(*Harness) bool
	run      func(*box)
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// A box is what a test works with: a store and its partition 1.
type box struct {
	*testing.T
	h     Harness
	store core.Store
	p     core.Partition
}

func openPart(t fataler, s core.Store, id core.PartitionID) core.Partition {
	t.Helper()
	p, err := s.Open(context.Background(), id)
	if err != nil {
		t.Fatalf("open partition %d: %v", id, err)
	}
	return p
}

// A fataler is a testing.T or a rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// reopen closes the store and goes on with what it left.
func (x *box) reopen() {
	x.Helper()
	x.store = x.h.Reopen()
	x.p = openPart(x, x.store, 1)
}

// crash goes on with what is left without a close.
func (x *box) crash() {
	x.Helper()
	x.store = x.h.Crash()
	x.p = openPart(x, x.store, 1)
}

// commit commits b with Wait and returns what Done said.
func (x *box) commit(b *core.Batch) error {
	x.Helper()
	return commit(x, x.p, b)
}

// must commits b, which must succeed.
func (x *box) must(b *core.Batch) {
	x.Helper()
	if err := x.commit(b); err != nil {
		x.Fatalf("commit: %v", err)
	}
}

// A doneFunc is a BatchDone.
type doneFunc func(*core.Batch, error)

func (f doneFunc) Committed(b *core.Batch, err error) { f(b, err) }

// A fetchedFunc is a FetchDone.
type fetchedFunc func(*core.Fetch, error)

func (f fetchedFunc) Fetched(r *core.Fetch, err error) { f(r, err) }

func commit(t fataler, p core.Partition, b *core.Batch) error {
	t.Helper()
	said := make(chan error, 1)
	b.Wait = true
	b.Done = doneFunc(func(_ *core.Batch, err error) { said <- err })
	if err := p.Commit(b); err != nil {
		return err
	}
	return wait(t, said, "Committed")
}

func wait(t fataler, said <-chan error, what string) error {
	t.Helper()
	select {
	case err := <-said:
		return err
	case <-time.After(patience):
		t.Fatalf("%s did not come within %v", what, patience)
		return nil
	}
}

// fetch fetches and returns f, or what went wrong.
func fetch(t fataler, p core.Partition, f *core.Fetch) error {
	t.Helper()
	said := make(chan error, 1)
	f.Done = fetchedFunc(func(_ *core.Fetch, err error) { said <- err })
	if err := p.Fetch(f); err != nil {
		return err
	}
	return wait(t, said, "Fetched")
}

// read fetches what f asks for and returns its bodies.
func (x *box) read(f *core.Fetch) []string {
	x.Helper()
	if err := fetch(x, x.p, f); err != nil {
		x.Fatalf("fetch %+v: %v", f, err)
	}
	return bodies(f.Out)
}

func bodies(out []core.Stored) []string {
	var b []string
	for i := range out {
		b = append(b, string(out[i].Message.Body))
	}
	return b
}

// owed is what a cursor still has to settle.
func (x *box) owed(l core.LogID, c core.CursorID) []string {
	x.Helper()
	return x.read(&core.Fetch{Log: l, Cursor: c})
}

// want compares.
func (x *box) want(what string, got, want any) {
	x.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		x.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// wantErr checks with errors.Is.
func (x *box) wantErr(what string, got, want error) {
	x.Helper()
	if !errors.Is(got, want) {
		x.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// cursor finds the state of a cursor.
func (x *box) cursor(id core.CursorID) core.CursorState {
	x.Helper()
	for _, c := range x.p.Cursors() {
		if c.ID == id {
			return c
		}
	}
	x.Fatalf("cursor %d is not there", id)
	return core.CursorState{}
}

// log finds the state of a log.
func (x *box) log(id core.LogID) core.LogState {
	x.Helper()
	for _, l := range x.p.Logs() {
		if l.ID == id {
			return l
		}
	}
	x.Fatalf("log %d is not there", id)
	return core.LogState{}
}

// message makes a small message.
func message(body string) *core.Message {
	return &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "plant/7/temp"},
		From:    &core.Identity{VHost: "/", User: "press", Client: "press-7", Protocol: "mqtt"},
		QoS:     1, Priority: core.DefaultPriority, Body: []byte(body),
		Arrived: time.UnixMilli(1_790_000_000_000),
	}
}

// append makes an append of a small message.
func add(l core.LogID, r core.RouteSetID, body string) core.Append {
	return core.Append{Log: l, Routes: r, Message: message(body)}
}

// numbered is bodies "0" to "n-1", each with the prefix.
func numbered(prefix string, n int) []string {
	var b []string
	for i := range n {
		b = append(b, fmt.Sprintf("%s%d", prefix, i))
	}
	return b
}

// adds appends one message for each body.
func adds(l core.LogID, r core.RouteSetID, bodies ...string) []core.Append {
	var a []core.Append
	for _, b := range bodies {
		a = append(a, add(l, r, b))
	}
	return a
}

// The log and cursors that most tests use.
const (
	theLog    core.LogID    = 1
	theCursor core.CursorID = 2
	other     core.CursorID = 3
)

var both core.RouteSetID = 4

// setUp makes theLog with theCursor, other and the set of both.
func (x *box) setUp() {
	x.Helper()
	x.must(&core.Batch{
		Now: 1000,
		Cursors: []core.CursorOp{
			{ID: theCursor, Log: theLog},
			{ID: other, Log: theLog},
		},
		Sets: []core.RouteSet{{ID: both, Members: []core.CursorID{theCursor, other}}},
	})
}
