package torture

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
	"github.com/godwitmq/godwit/persistence/memory"
)

var rounds = flag.Int("rounds", 6, "how often TestKill kills the store")

// The child's environment: its job, and how its store lies.
const envJob, envLie = "GODWIT_TEST_TORTURE_JOB", "GODWIT_TEST_TORTURE_LIE"

func TestMain(m *testing.M) {
	if text := os.Getenv(envJob); text != "" {
		if err := RunChild(text, openTried(os.Getenv(envLie)), os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// openTried opens the durable store, or one that lies.
func openTried(lie string) OpenFunc {
	return func(dir, profile string) (core.Store, error) {
		s, err := badger.Open(dir, badger.Options{Profile: badger.Profile(profile)})
		switch {
		case err != nil:
			return nil, err
		case lie == "lie":
			return liar{s}, nil
		case lie != "":
			return newCareful(s, dir, lie)
		}
		return s, nil
	}
}

func options(t *testing.T, lie string) (Options, *bytes.Buffer) {
	t.Helper()
	out := new(bytes.Buffer)
	return Options{
		Dir: t.TempDir(), Rounds: *rounds, Seed: 7, Profile: "edge", Out: out, longest: 300 * time.Millisecond,
		Self: func(job string) *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), envJob+"="+job, envLie+"="+lie)
			return cmd
		},
	}, out
}

// mission: N4. The durable store, killed: nothing is lost, and the certificate
// says so.
func TestKill(t *testing.T) {
	o, out := options(t, "")
	r, err := Kill(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r.Verdict != Kept || r.Rounds != *rounds || r.Messages == 0 || r.Verified == 0 || len(r.Findings) > 0 {
		t.Errorf("%+v, want all kept\n%s", r, out)
	}
	if _, err := os.Stat(r.Dir); err == nil {
		t.Errorf("%s is left of a run without faults", r.Dir)
	}
	var text bytes.Buffer
	r.Print(&text)
	if !strings.Contains(text.String(), "KEPT") || !strings.Contains(out.String(), "confirmed, 0 lost") {
		t.Errorf("%s\n%s", out, &text)
	}
	t.Logf("%s%s", out, &text)
}

// A liar confirms before the disk has anything.
type liar struct{ core.Store }

func (l liar) Open(ctx context.Context, id core.PartitionID) (core.Partition, error) {
	p, err := l.Store.Open(ctx, id)
	lie := lying{p, make(chan late, 1<<20)}
	go lie.run()
	return lie, err
}

// lying says yes at once and commits 50 ms later, in order: by one goroutine,
// as a partition wants it.
type lying struct {
	core.Partition
	batches chan late
}

type late struct {
	batch core.Batch
	due   time.Time
}

func (l lying) run() {
	for b := range l.batches {
		time.Sleep(time.Until(b.due))
		_ = l.Partition.Commit(&b.batch)
	}
}

func (l lying) Commit(b *core.Batch) error {
	said := b.Done
	b.Done = sayNothing{}
	said.Committed(b, nil)
	l.batches <- late{*b, time.Now().Add(50 * time.Millisecond)}
	return nil
}

type sayNothing struct{}

func (sayNothing) Committed(*core.Batch, error) {}

// A torture that finds nothing in a store that lies would be worth nothing.
func TestALiarIsFound(t *testing.T) {
	o, out := options(t, "lie")
	r, err := Kill(t.Context(), o)
	if err != nil && !errors.Is(err, errBroken) {
		t.Fatalf("%v\n%s", err, out)
	}
	if r.Verdict != Broken || r.Faults[lost] == 0 {
		t.Errorf("%+v, want that messages were lost\n%s", r, out)
	}
	if _, err := os.Stat(r.Dir); err != nil {
		t.Errorf("the evidence is gone: %v", err)
	}
	var text bytes.Buffer
	r.Print(&text)
	if !strings.Contains(text.String(), "BROKEN") || !strings.Contains(text.String(), "lost: partition") {
		t.Errorf("the verdict reads\n%s", &text)
	}
	if _, err := Kill(t.Context(), o); err == nil || !strings.Contains(err.Error(), "earlier run") {
		t.Errorf("a second run said %v, want that the evidence is in the way", err)
	}
}

// A saboteur changes batches on their way.
type saboteur struct {
	core.Partition
	n      uint64
	change func(n uint64, b *core.Batch)
}

func (s *saboteur) Commit(b *core.Batch) error {
	s.n++
	c := *b
	c.Appends, c.Acks, c.Records = slices.Clone(b.Appends), slices.Clone(b.Acks), slices.Clone(b.Records)
	c.Done = passing{b, &c}
	s.change(s.n, &c)
	return s.Partition.Commit(&c)
}

// passing gives the offsets back to the batch that was meant.
type passing struct{ meant, done *core.Batch }

func (p passing) Committed(_ *core.Batch, err error) {
	for i := range p.done.Appends {
		p.meant.Appends[i].Offset = p.done.Appends[i].Offset
	}
	p.meant.Done.Committed(p.meant, err)
}

// Each kind of fault is found in a store that has just that one.
func TestCheckFinds(t *testing.T) {
	const batches, sabotaged = 1400, 1390
	unsettled := func(b *core.Batch) int { // an append that is owed by the sleeper
		return slices.IndexFunc(b.Appends, func(a core.Append) bool { return a.Routes == core.Solo(sleeper) })
	}
	for _, tt := range []struct {
		sentence  string
		kind      string
		confirmed uint64
		change    func(n uint64, b *core.Batch)
	}{
		{"nothing is wrong", "", batches, func(uint64, *core.Batch) {}},
		{"the newest batch is missing", lost, batches, func(n uint64, b *core.Batch) {
			if n == batches {
				*b = core.Batch{Done: b.Done}
			}
		}},
		{"so it is if nobody was told", "", batches - 1, func(n uint64, b *core.Batch) {
			if n == batches {
				*b = core.Batch{Done: b.Done}
			}
		}},
		{"a message is routed to nobody", lost, batches, func(n uint64, b *core.Batch) {
			if i := unsettled(b); n >= sabotaged && i >= 0 {
				b.Appends[i].Routes = 0
			}
		}},
		{"it is, in a batch that nobody was told of", torn, sabotaged - 1, func(n uint64, b *core.Batch) {
			if i := unsettled(b); n >= sabotaged && i >= 0 {
				b.Appends[i].Routes = 0
			}
		}},
		{"a body is another", changed, batches, func(n uint64, b *core.Batch) {
			if i := unsettled(b); n == sabotaged && i >= 0 {
				m := history{1, 0}.message(name{n, i})
				m.Body[len(m.Body)-1]++
				b.Appends[i].Message = m
			}
		}},
		{"a header is missing", changed, batches, func(n uint64, b *core.Batch) {
			if i := unsettled(b); n == sabotaged && i >= 0 {
				m := history{1, 0}.message(name{n, i})
				m.Headers = m.Headers[1:]
				b.Appends[i].Message = m
			}
		}},
		{"two messages change places", order, batches, func(n uint64, b *core.Batch) {
			if n%10 == 0 {
				for i := range len(b.Appends) - 2 {
					if b.Appends[i].Routes == core.Solo(sleeper) && b.Appends[i+1].Routes == core.Solo(sleeper) {
						b.Appends[i].Message, b.Appends[i+1].Message = b.Appends[i+1].Message, b.Appends[i].Message
					}
				}
			}
		}},
		{"an ack is forgotten", returned, batches, func(n uint64, b *core.Batch) {
			if n >= sabotaged-100 && n < sabotaged {
				b.Acks = nil
			}
		}},
		{"it may be if nobody was told", "", sabotaged - 101, func(n uint64, b *core.Batch) {
			if n >= sabotaged-100 && n < sabotaged {
				b.Acks = nil
			}
		}},
		{"an ack settles more than it says", lost, batches, func(n uint64, b *core.Batch) {
			for i := range b.Acks {
				if n == sabotaged && b.Acks[i].Cursor == swift {
					b.Acks[i].To += 40
				}
			}
		}},
		{"a delivery count is forgotten", stale, batches, func(n uint64, b *core.Batch) {
			if n == sabotaged {
				b.Marks = nil
			}
		}},
		{"a value is not set", stale, batches, func(n uint64, b *core.Batch) {
			if n >= sabotaged {
				b.Records = b.Records[:1]
			}
		}},
		{"too much is trimmed", lost, batches, func(n uint64, b *core.Batch) {
			if n == batches {
				b.Trims = []core.Trim{{Log: openLog, Before: 1300}}
			}
		}},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			var faults []fault
			last := tryHistory(t, batches, tt.change)
			c := check{history: history{1, 0}, p: last, confirmed: tt.confirmed, report: func(f fault) { faults = append(faults, f) }}
			if err := c.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if tt.kind == "" && len(faults) > 0 {
				t.Errorf("%d faults, the first is %v", len(faults), faults[0])
			}
			if tt.kind != "" && !slices.ContainsFunc(faults, func(f fault) bool { return f.kind == tt.kind }) {
				t.Errorf("faults %v, want %s", faults, tt.kind)
			}
			if tt.kind == "" && c.messages < 1000 {
				t.Errorf("compared %d messages", c.messages)
			}
		})
	}
}

// tryHistory writes batches into a forgetful store and opens it again.
func tryHistory(t *testing.T, batches uint64, change func(uint64, *core.Batch)) core.Partition {
	t.Helper()
	s := memory.New(memory.Options{})
	p, err := s.Open(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(&child{voice: voice{out: new(bytes.Buffer)}}, history{1, 0}, &saboteur{Partition: p, change: change})
	w.next, w.places = 1, places{}
	ctx, stop := context.WithCancel(t.Context())
	w.p = stopping{w.p, batches, w, stop}
	if err := w.run(ctx); err != nil {
		t.Fatal(err)
	}
	if p, err = s.Open(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// stopping ends the writing after so many batches.
type stopping struct {
	core.Partition
	after uint64
	w     *writer
	stop  func()
}

func (s stopping) Commit(b *core.Batch) error {
	if s.w.next == s.after {
		s.stop()
	}
	return s.Partition.Commit(b)
}

func TestABrokersDirectoryIsRefused(t *testing.T) {
	o, _ := options(t, "")
	s, err := badger.Open(o.Dir, badger.Options{Profile: badger.Edge})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Kill(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d has", os.Getpid())) {
		t.Errorf("Kill said %v, want which process has the directory", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := refuseBroker(o.Dir); err != nil {
		t.Errorf("the broker has ended, and %v", err)
	}
}

// A power cut is a kill here; the record is kept by another machine, which is
// this one.
func TestPowerCutForm(t *testing.T) {
	o, out := options(t, "")
	file := filepath.Join(t.TempDir(), "record")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, stop := context.WithCancel(t.Context())
	listened := make(chan error, 1)
	go func() { listened <- Listen(ctx, addr, file, new(bytes.Buffer)) }()

	var p *exec.Cmd
	self := o.Self
	o.Self = func(job string) *exec.Cmd { p = self(job); return p }
	o.Seed = 0
	writing, cut := context.WithCancel(t.Context())
	go func() {
		waitFor(t, func() bool { r, ok, _ := loadRecord(file); return ok && r.confirmed[0] > 200 && r.confirmed[1] > 200 })
		_ = p.Process.Kill()
		cut()
	}()
	waitFor(t, func() bool { c, err := net.Dial("tcp", addr); return err == nil && c.Close() == nil })
	if _, err := Write(writing, o, PowerCut{Addr: addr}); err != nil && !errors.Is(err, errBroken) {
		t.Fatalf("%v\n%s", err, out)
	}
	stop()
	if err := <-listened; err != nil {
		t.Fatal(err)
	}
	o.Self = self
	r, err := Verify(o, file)
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != Kept || r.Messages == 0 || r.Verified == 0 || r.Seed != 1 {
		t.Errorf("%+v, want all kept", r)
	}
	// And without the data all of it is lost.
	if err := os.RemoveAll(r.Dir); err != nil {
		t.Fatal(err)
	}
	if r, err = Verify(o, file); err != nil || r.Verdict != Broken {
		t.Errorf("%+v, %v; want that all is lost", r, err)
	}
}

func waitFor(t *testing.T, what func() bool) {
	deadline := time.Now().Add(20 * time.Second)
	for !what() {
		if time.Now().After(deadline) {
			t.Error("it does not come")
			return
		}
		time.Sleep(5 * time.Millisecond) // a file of another goroutine
	}
}

func TestARecordOnTheSameDiskIsRefused(t *testing.T) {
	o, _ := options(t, "")
	_, err := Write(t.Context(), o, PowerCut{File: filepath.Join(o.Dir, "record")})
	if err == nil || !strings.Contains(err.Error(), "on the disk that is tried") {
		t.Errorf("Write said %v", err)
	}
}

func TestRecords(t *testing.T) {
	for _, tt := range []struct {
		sentence, text string
		want           []uint64
		err            string
	}{
		{"a record", "godwit torture 1 seed 5 profile edge\nc 0 17\nc 1 3\nc 0 20\n", []uint64{20, 3}, ""},
		{"its last line is torn", "godwit torture 1 seed 5 profile edge\nc 0 17\nc 0 2", []uint64{17, 0}, ""},
		{"nothing was confirmed", "godwit torture 1 seed 5 profile edge\n", []uint64{0, 0}, ""},
		{"another file", "hello\n", nil, "begins \"hello\\n\""},
		{"an empty file is none", "", nil, ""},
		{"a torn head", "godwit tor", nil, "first line is missing"},
		{"a strange line", "godwit torture 1 seed 5 profile edge\nc 9 17\n", nil, `has the line "c 9 17\n"`},
		{"a line without end", "godwit torture 1 seed 5 profile edge\n" + strings.Repeat("x", 500), nil, "buffer full"},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "record")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			r, ok, err := loadRecord(path)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("said %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || ok != (tt.want != nil) || (ok && !slices.Equal(r.confirmed, tt.want)) {
				t.Fatalf("%+v, %v, %v; want %v", r, ok, err, tt.want)
			}
			if !ok {
				return
			}
			w, err := appendRecord(path, r)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.write([]byte("c 1 99\n")), w.close()); err != nil {
				t.Fatal(err)
			}
			if r, _, err = loadRecord(path); err != nil || r.confirmed[0] != tt.want[0] || r.confirmed[1] != 99 {
				t.Errorf("gone on with: %+v, %v", r, err)
			}
		})
	}
}

func TestDoubt(t *testing.T) {
	for _, tt := range []struct {
		sentence string
		m        medium
		median   time.Duration
		want     string
	}{
		{"a usual flash drive", medium{}, 500 * time.Microsecond, ""},
		{"too fast for anything", medium{}, 12 * time.Microsecond, "hardly a drive"},
		{"a disk of platters", medium{turning: true}, 8 * time.Millisecond, ""},
		{"platters that fly", medium{turning: true}, 200 * time.Microsecond, "platters"},
		{"in memory", medium{memory: true}, 8 * time.Millisecond, "in memory"},
		{"without barriers", medium{noBarrier: true}, 8 * time.Millisecond, "nobarrier"},
	} {
		if got := doubt(tt.m, tt.median); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.sentence, got, tt.want)
		}
	}
	if f := MeasureFlush(t.TempDir()); f.err != nil || f.Count != flushes || f.Median <= 0 || f.Fastest > f.Median || f.Median > f.Slowest {
		t.Errorf("measured %+v", f)
	}
}
