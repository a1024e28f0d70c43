// Storebench measures the durable store with a large backlog: how fast it
// takes it, how much memory it holds meanwhile, how long a start takes after
// kill -9, how fast the backlog drains, and what is left of the disk after.
// Each phase is a process of its own.
//
//	go run ./internal/storebench -profile edge -backlog 1000000
//	go run ./internal/storebench -profile server -backlog 10000000 -dir /data/try
//	go run ./internal/storebench -sessions 10000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
)

var (
	profile  = flag.String("profile", "server", "edge or server")
	backlog  = flag.Int("backlog", 1_000_000, "messages")
	size     = flag.Int("size", 256, "octets of a body")
	window   = flag.Int("window", 1000, "messages of a batch")
	sessions = flag.Int("sessions", 0, "instead: so many cursors with messages of their own in a full journal, all read at once after a restart")
	dir      = flag.String("dir", "", "where; a directory of its own is made in it (default: the system's for temporary files)")
	heap     = flag.String("heap", "", "write a heap profile of the end of each phase to FILE.phase")
	phase    = flag.String("phase", "", "internal: fill, start, drain")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "storebench:", err)
		os.Exit(1)
	}
}

func run() error {
	switch *phase {
	case "fill":
		return fill()
	case "start":
		return start()
	case "drain":
		return drain()
	}
	where, err := os.MkdirTemp(*dir, "storebench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(where) }()
	for _, p := range []string{"fill", "start", "drain"} {
		if err := child(p, where); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		journal, rest := onDisk(where)
		fmt.Printf("%-6s disk: journal and ballast %d MB, database %.1f MB\n", p, journal>>20, float64(rest)/(1<<20))
	}
	return nil
}

// child runs a phase and kills it with kill -9 when it says that it is done.
func child(phase, where string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, "-phase", phase, "-profile", *profile, "-backlog", fmt.Sprint(*backlog), "-size", fmt.Sprint(*size),
		"-window", fmt.Sprint(*window), "-sessions", fmt.Sprint(*sessions), "-heap", *heap, "-dir", where)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	err = c.Run()
	if st, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signaled() && st.Signal() == syscall.SIGKILL {
		return nil
	}
	return err
}

func die() error {
	if *heap != "" {
		f, err := os.Create(*heap + "." + *phase)
		if err == nil {
			err = errors.Join(pprof.WriteHeapProfile(f), f.Close())
		}
		if err != nil {
			return err
		}
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

const theLog, first = core.LogID(1), core.CursorID(100)

// A bench is an open store.
type bench struct {
	s    core.Store
	p    core.Partition
	said chan error
	took time.Duration // of the opening
	rss  watch
}

func open() (*bench, error) {
	limit, percent := badger.Profile(*profile).Memory()
	debug.SetMemoryLimit(limit)
	debug.SetGCPercent(percent)
	b := &bench{said: make(chan error, 1)}
	b.rss.start()
	begun := time.Now()
	var err error
	if b.s, err = badger.Open(*dir, badger.Options{Profile: badger.Profile(*profile)}); err != nil {
		return nil, err
	}
	b.p, err = b.s.Open(context.Background(), 1)
	b.took = time.Since(begun)
	return b, err
}

func (b *bench) Committed(_ *core.Batch, err error) { b.said <- err }
func (b *bench) Fetched(_ *core.Fetch, err error)   { b.said <- err }

func (b *bench) commit(batch *core.Batch) error {
	batch.Wait, batch.Done = true, b
	for {
		err := b.p.Commit(batch)
		if err == nil {
			return <-b.said
		}
		if b.s.Health().Err != nil || !strings.Contains(err.Error(), core.ErrOverload.Error()) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func cursors() int { return max(1, *sessions) }

// fill stores the backlog, round robin over the cursors.
func fill() error {
	b, err := open()
	if err != nil {
		return err
	}
	var made core.Batch
	for i := range cursors() {
		made.Cursors = append(made.Cursors, core.CursorOp{ID: first + core.CursorID(i), Log: theLog})
	}
	if err := b.commit(&made); err != nil {
		return err
	}
	m := &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "plant/7/temp"},
		From:    &core.Identity{VHost: "/", User: "press", Client: "press-7", Protocol: "mqtt"},
		QoS:     1, Body: make([]byte, *size), Arrived: time.Now(),
	}
	begun := time.Now()
	for n := 0; n < *backlog; {
		batch := core.Batch{Now: time.Now().UnixMilli()}
		for ; len(batch.Appends) < *window && n < *backlog; n++ {
			batch.Appends = append(batch.Appends, core.Append{Log: theLog, Routes: core.Solo(first + core.CursorID(n%cursors())), Message: m})
		}
		for b.s.Health().Pressure != core.PressureLow {
			time.Sleep(time.Millisecond)
		}
		if err := b.commit(&batch); err != nil {
			return err
		}
	}
	took := time.Since(begun)
	st := b.s.Stats()
	fmt.Printf("fill   %d messages of %d octets: %.0f/s, written %.2f times (journal %d MB, database %d MB), %d checkpoints, anonymous memory %s\n",
		*backlog, *size, float64(*backlog)/took.Seconds(), float64(st.BytesWritten)/float64(*backlog**size),
		st.BytesJournal>>20, st.BytesDatabase>>20, st.Checkpoints, b.rss.text())
	return die()
}

// start opens what fill has left; with sessions it reads the first message of
// each of them.
func start() error {
	b, err := open()
	if err != nil {
		return err
	}
	fmt.Printf("start  after kill -9: %v, %d messages owed, anonymous memory %s\n", b.took.Round(time.Millisecond), depth(b.p), b.rss.text())
	if *sessions == 0 {
		return die()
	}
	if *heap != "" {
		f, err := os.Create(*heap + ".cpu")
		if err != nil {
			return err
		}
		_ = pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	begun := time.Now()
	answers := make(chan error, *sessions)
	for i := range *sessions {
		f := &core.Fetch{Log: theLog, Cursor: first + core.CursorID(i), Records: 64, Bytes: 64 << 10, Done: told(func(f *core.Fetch, err error) {
			if err == nil && len(f.Out) == 0 {
				err = fmt.Errorf("cursor %d has nothing", f.Cursor)
			}
			answers <- err
		})}
		if err := b.p.Fetch(f); err != nil {
			return err
		}
	}
	for range *sessions {
		if err := <-answers; err != nil {
			return err
		}
	}
	fmt.Printf("start  %d sessions at once: the last has its first messages %v after the start was done\n", *sessions, time.Since(begun).Round(time.Millisecond))
	pprof.StopCPUProfile()
	return die()
}

type told func(*core.Fetch, error)

func (t told) Fetched(f *core.Fetch, err error) { t(f, err) }

func depth(p core.Partition) (n int64) {
	for _, c := range p.Cursors() {
		n += c.Depth
	}
	return n
}

// drain reads and settles everything, and looks at the disk ten seconds later.
func drain() error {
	b, err := open()
	if err != nil {
		return err
	}
	begun, n := time.Now(), 0
	for i := range cursors() {
		c := first + core.CursorID(i)
		f := core.Fetch{Log: theLog, Cursor: c, Records: 4096, Bytes: 1 << 20, Done: b}
		for {
			if err := b.p.Fetch(&f); err != nil {
				return err
			}
			if err := <-b.said; err != nil {
				return err
			}
			k := len(f.Out)
			if k == 0 {
				break
			}
			n += k
			ack := core.Ack{Cursor: c, From: f.Out[0].Offset, To: f.Out[k-1].Offset + 1, N: int64(k)}
			if err := b.commit(&core.Batch{Acks: []core.Ack{ack}}); err != nil {
				return err
			}
			f.From = f.Next
		}
	}
	took := time.Since(begun)
	fmt.Printf("drain  %d messages: %.0f/s, anonymous memory %s; ten seconds later:\n", n, float64(n)/took.Seconds(), b.rss.text())
	time.Sleep(10 * time.Second)
	return die()
}

// onDisk is what the directory takes: journal with ballast, and the rest.
func onDisk(dir string) (journal, rest int64) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		info, err2 := d.Info()
		if err != nil || err2 != nil || d.IsDir() {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if strings.Contains(path, "/journal/") || filepath.Base(path) == "ballast" {
			journal += st.Blocks * 512
		} else {
			rest += st.Blocks * 512
		}
		return nil
	})
	return journal, rest
}
