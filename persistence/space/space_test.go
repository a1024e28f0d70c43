package space

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const mb = 1 << 20

// A fakeDisk is a file system of any size; what the ballast takes of it is
// real.
type fakeDisk struct {
	total   int64
	others  atomic.Int64 // what other programs hold
	noFiles atomic.Bool
	broken  atomic.Bool
	dir     string
}

func (d *fakeDisk) stat(string) (Size, error) {
	if d.broken.Load() {
		return Size{}, errors.New("input/output error")
	}
	held := newBallast(d.dir).size()
	return Size{Free: max(0, d.total-d.others.Load()-held), Total: d.total, NoFiles: d.noFiles.Load()}, nil
}

func (d *fakeDisk) watch(t *testing.T, o Options) (*Watch, *bytes.Buffer) {
	t.Helper()
	if !canHoldSpace {
		t.Skip("no ballast on this system")
	}
	if d.dir == "" {
		d.dir = t.TempDir()
	}
	var log bytes.Buffer
	o.Dir, o.Stat, o.Log = d.dir, d.stat, slog.New(slog.NewTextHandler(&log, nil))
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w, &log
}

func TestLevels(t *testing.T) {
	type step struct {
		sentence string
		free     int64 // MB besides the ballast, if that were whole
		level    Level
		ballast  int64
	}
	d := &fakeDisk{total: 1000 * mb}
	w, _ := d.watch(t, Options{Reserve: 16 * mb, Ballast: true})
	for _, s := range []step{
		{"much is free", 900, Normal, 16},
		{"twice the reserve is enough", 32, Normal, 16},
		{"less is a warning", 31, Low, 16},
		{"a little more does not make it flap", 33, Low, 16},
		{"an eighth of the reserve more does", 34, Normal, 16},
		{"the level falls as far as it must at once", 15, ReadOnly, 16},
		{"the reserve alone does not let it rise", 17, ReadOnly, 16},
		{"it rises by one where that is all there is", 18, Low, 16},
		{"and falls again", 15, ReadOnly, 16},
		{"nothing at all", 0, ReadOnly, 16},
		{"it rises to the top where there is enough", 100, Normal, 16},
	} {
		d.others.Store(d.total - 16*mb - s.free*mb)
		got := w.Look()
		if got.Level != s.level || got.Ballast != s.ballast*mb || got.Free != s.free*mb || got != w.State() {
			t.Errorf("%s: %+v, want %v with a ballast of %d MB", s.sentence, got, s.level, s.ballast)
		}
	}
}

// The ballast must not be built of what Release just gave away.
func TestReleaseAndRebuild(t *testing.T) {
	d := &fakeDisk{total: 1000 * mb}
	w, log := d.watch(t, Options{Reserve: 16 * mb, Ballast: true})
	d.others.Store(d.total - 16*mb - 3*mb)
	w.Look()
	if err := w.Release(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		sentence string
		free     int64
		level    Level
		ballast  int64
	}{
		{"what was released stays free", 19, ReadOnly, 0},
		{"the store writes there", 4, ReadOnly, 0},
		{"space returns, and less than ballast and reserve", 33, ReadOnly, 0},
		{"enough for both: the ballast is first", 34, Low, 16},
	} {
		d.others.Store(d.total - newBallast(d.dir).size() - s.free*mb)
		got := w.Look()
		if got.Level != s.level || got.Ballast != s.ballast*mb {
			t.Errorf("%s: %+v, want %v with a ballast of %d MB", s.sentence, got, s.level, s.ballast)
		}
	}
	if got := w.State().Free; got != 18*mb {
		t.Errorf("free %d MB after the ballast was built of 34, want 18", got/mb)
	}
	for _, want := range []string{"the disk is full", "the ballast is released", "the ballast holds its space", "the disk has space again"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
}

func TestStart(t *testing.T) {
	for _, tt := range []struct {
		sentence      string
		total, others int64
		level         Level
		reserve       int64
		ballast       int64
		says          string
	}{
		{"an empty disk", 1000, 0, Normal, 16, 16, "holds its space"},
		{"a small one: a tenth of it", 100, 0, Normal, 10, 10, "a tenth of it"},
		{"twice the reserve and the ballast, to the byte", 1000, 952, Normal, 16, 16, "holds its space"},
		{"room for the ballast and little more", 1000, 968, Low, 16, 16, "nearly full"},
		{"full: no ballast is built of the last space", 1000, 969, ReadOnly, 16, 0, "the disk is full"},
		{"to the last byte", 1000, 1000, ReadOnly, 16, 0, "the disk is full"},
		{"a file system that does not say", 0, 0, Normal, 16, 16, "holds its space"},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			d := &fakeDisk{total: tt.total * mb}
			d.others.Store(tt.others * mb)
			w, log := d.watch(t, Options{Reserve: 16 * mb, Ballast: true})
			got := w.State()
			if got.Level != tt.level || got.Reserve != tt.reserve*mb || got.Ballast != tt.ballast*mb {
				t.Errorf("%+v, want %v, reserve %d MB, ballast %d MB", got, tt.level, tt.reserve, tt.ballast)
			}
			if !strings.Contains(log.String(), tt.says) {
				t.Errorf("the log does not say %q:\n%s", tt.says, log)
			}
		})
	}
}

// What the last life left is taken as it is, cut, or removed.
func TestTheBallastThatIsThere(t *testing.T) {
	for _, tt := range []struct {
		sentence  string
		there     int64 // MB allocated
		wanted    bool
		want      int64
		operators func(path string) error
	}{
		{sentence: "the same", there: 16, wanted: true, want: 16},
		{sentence: "a smaller one grows", there: 4, wanted: true, want: 16},
		{sentence: "a larger one is cut", there: 40, wanted: true, want: 16},
		{sentence: "nobody wants one", there: 16, want: 0},
		{sentence: "a copy with holes holds nothing, and is filled", wanted: true, want: 16, operators: func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 16*mb))
		}},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			d := &fakeDisk{total: 1000 * mb, dir: t.TempDir()}
			path := filepath.Join(d.dir, "ballast")
			if tt.there > 0 {
				if err := newBallast(d.dir).grow(tt.there * mb); err != nil {
					t.Fatal(err)
				}
			}
			if tt.operators != nil {
				if err := tt.operators(path); err != nil {
					t.Fatal(err)
				}
			}
			w, _ := d.watch(t, Options{Reserve: 16 * mb, Ballast: tt.wanted})
			if got := w.State().Ballast; got != tt.want*mb || newBallast(d.dir).size() != got {
				t.Errorf("the ballast holds %d MB, want %d", got/mb, tt.want)
			}
			if _, err := os.Stat(path); (err == nil) != (tt.want > 0) {
				t.Errorf("the file: %v", err)
			}
		})
	}
}

func TestReleaseBeforeThereIsAWatch(t *testing.T) {
	d := &fakeDisk{total: 1000 * mb}
	w, _ := d.watch(t, Options{Reserve: 16 * mb, Ballast: true})
	w.Close()
	if freed, err := Release(d.dir); err != nil || freed != 16*mb {
		t.Errorf("released %d, %v; want 16 MB", freed, err)
	}
	if freed, err := Release(d.dir); err != nil || freed != 0 {
		t.Errorf("released %d, %v a second time", freed, err)
	}
}

// An operator may take the ballast for himself; it comes back with the space.
func TestSomebodyRemovesTheBallast(t *testing.T) {
	d := &fakeDisk{total: 1000 * mb}
	w, _ := d.watch(t, Options{Reserve: 16 * mb, Ballast: true})
	if err := os.Remove(filepath.Join(d.dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	if got := w.Look(); got.Ballast != 16*mb || got.Level != Normal {
		t.Errorf("%+v, want a new ballast", got)
	}
}

func TestNoRoomForFiles(t *testing.T) {
	d := &fakeDisk{total: 1000 * mb}
	w, log := d.watch(t, Options{Reserve: 16 * mb})
	d.noFiles.Store(true)
	if got := w.Look(); got.Level != ReadOnly || !strings.Contains(log.String(), "no room for another file") {
		t.Errorf("%+v, want read-only; the log:\n%s", got, log)
	}
	d.noFiles.Store(false)
	if got := w.Look(); got.Level != Normal {
		t.Errorf("%+v, want normal", got)
	}
}

// A file system that does not answer changes nothing, and is complained of once.
func TestStatFails(t *testing.T) {
	d := &fakeDisk{total: 1000 * mb}
	w, log := d.watch(t, Options{Reserve: 16 * mb})
	before := w.State()
	d.broken.Store(true)
	if got := w.Look(); got != before || w.Look() != before {
		t.Errorf("%+v, want what was known before: %+v", got, before)
	}
	if n := strings.Count(log.String(), "the free space is not known"); n != 1 {
		t.Errorf("complained %d times, want once:\n%s", n, log)
	}
	if _, err := New(Options{Dir: d.dir, Stat: d.stat}); err == nil {
		t.Error("New did not fail on a file system that does not answer")
	}
}

func TestRunLooks(t *testing.T) {
	d := &fakeDisk{total: 1000 * mb}
	looked := make(chan struct{}, 100)
	w, _ := d.watch(t, Options{Reserve: 16 * mb, Every: time.Millisecond})
	w.options.Stat = func(dir string) (Size, error) { looked <- struct{}{}; return d.stat(dir) }
	ended := make(chan struct{})
	go func() { w.Run(context.Background()); close(ended) }()
	for range 3 {
		<-looked
	}
	w.Close()
	<-ended
	w.Close()
	w.Run(t.Context()) // after Close it returns at once
}
