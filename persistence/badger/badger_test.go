package badger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/lsm"
	"github.com/godwitmq/godwit/persistence/storetest"
)

func TestStore(t *testing.T) {
	for name, p := range map[string]profile{"edge": edgeProfile, "server": serverProfile, "tiny": tinyProfile()} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name == "server" {
				t.Skip("the others do")
			}
			storetest.Promises(t, func(t *testing.T) storetest.Harness { return harness(t, p) })
		})
	}
}

func TestModel(t *testing.T) {
	storetest.Model(t, func(t *testing.T) storetest.Harness { return harness(t, modelProfile()) })
}

// modelProfile is tiny, with segments of a few frames.
func modelProfile() profile {
	p := tinyProfile()
	p.maxRecord, p.maxBatch = 8<<10, 14<<10
	p.segment = 32 << 10
	return p
}

// tinyProfile has everything small, so that a few messages are many segments
// and blocks, and a checkpoint is always near.
func tinyProfile() profile {
	p := edgeProfile
	p.maxRecord, p.maxBatch, p.maxValue = 512<<10, 2<<20-128<<10, 16<<10
	p.blockBytes, p.spillBytes, p.overlay = 400, 1000, 1000
	p.segment, p.segments = 4<<20, 2
	p.sizes = lsm.Tiny
	return p
}

// A bench is a store in a directory that a test may close, crash and break.
type bench struct {
	t       testing.TB
	profile profile
	dir     string
	s       core.Store
	p       core.Partition
}

func harness(t testing.TB, profile profile) storetest.Harness {
	b := &bench{t: t, profile: profile, dir: t.TempDir()}
	b.open()
	t.Cleanup(func() { _ = b.s.Close(context.Background()) })
	return storetest.Harness{
		Store:  b.s,
		Reopen: b.reopenStore,
		Crash:  b.crash,
		Fail:   func() { _ = b.s.(*store).fail(errors.New("a test broke the disk")) },
		Hold: func() (held, release func()) {
			// Between what is done in memory and what is written.
			gate, reached := make(chan struct{}), make(chan struct{}, 1000)
			s := b.s.(*store)
			s.turn.Lock()
			s.beforeWrite = func() error {
				reached <- struct{}{}
				<-gate
				return nil
			}
			s.turn.Unlock()
			return func() { <-reached }, sync.OnceFunc(func() { close(gate) })
		},
	}
}

func (b *bench) open() core.Store {
	b.t.Helper()
	s, err := open(b.dir, b.profile, testLog(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	b.s = s
	return s
}

func (b *bench) reopenStore() core.Store {
	b.t.Helper()
	if err := b.s.Close(context.Background()); err != nil {
		b.t.Fatal(err)
	}
	return b.open()
}

// crash goes on with a copy of the directory, taken while the store had it
// open: what a killed process leaves.
func (b *bench) crash() core.Store {
	b.t.Helper()
	s := b.s.(*store)
	s.points.turn.Lock()
	s.turn.Lock()
	copied, err := "", errors.New("not tried")
	for try := 0; err != nil; try++ {
		if try > 100 {
			b.t.Fatalf("the directory would not stand still for a copy: %v", err)
		}
		copied = b.t.TempDir()
		before := listing(b.dir)
		err = copyDir(copied, b.dir)
		if err == nil && listing(b.dir) != before {
			err = errors.New("a table came or went meanwhile")
		}
	}
	s.turn.Unlock()
	s.points.turn.Unlock()
	_ = s.Close(context.Background())
	b.dir = copied
	return b.open()
}

// listing is the names of the database's files and the state of its manifest.
func listing(dir string) string {
	var b strings.Builder
	names, _ := filepath.Glob(filepath.Join(dir, "badger", "*"))
	for _, name := range names {
		b.WriteString(name + "\n")
		if st, err := os.Stat(name); err == nil && filepath.Base(name) == "MANIFEST" {
			fmt.Fprintln(&b, st.Size())
		}
	}
	return b.String()
}

// copyDir copies files with their holes: Badger's are mostly those.
func copyDir(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(to, rel))
		if err != nil {
			return err
		}
		end := len(strings.TrimRight(string(data), "\x00"))
		if _, err := f.Write(data[:end]); err != nil {
			return err
		}
		return errors.Join(f.Truncate(int64(len(data))), f.Close())
	})
}

// testLog leads what the store has to say into the test's log.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}
