// Package space watches the free space of the file system that a store writes
// to, and keeps a ballast there: a file that holds space for the store even
// when others fill the disk.
//
//	Run, Look -> statfs -> ballast built or not -> level -> State (one atomic load)
//
// What counts is what would be free if the ballast were whole:
//
//	spare = free - (ballast wanted - ballast there)
//	spare >= 2 x reserve   Normal
//	spare <  2 x reserve   Low: a warning
//	spare <      reserve   ReadOnly
//
// So a ballast that was released is built again before the level rises, from
// space that really came back and never from what Release gave to the store.
// The level falls at once. It rises when an eighth of the reserve more is free
// than the table asks for, so that it does not flap.
//
// A reserve that is more than a tenth of the file system is cut to a tenth of
// it, and so is the ballast: a store on a small disk works, and the log says
// that it has less room for what it has to do on a full one.
package space

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what is watched. Dir is needed.
type Options struct {
	// Dir is a directory that exists; the ballast is the file "ballast" in it.
	Dir string
	// Reserve is how many bytes the store needs free to go on without
	// publishes. More than a tenth of the file system is cut to a tenth.
	Reserve int64
	// Ballast: a file of the size of the reserve is kept. Without it, one that
	// is there is removed.
	Ballast bool
	// Every is how often Run looks; 0: a second.
	Every time.Duration
	// Log hears of each change of the level; nil: nobody.
	Log *slog.Logger
	// Stat asks for the size of dir's file system; nil: the system does. Tests
	// put theirs here.
	Stat func(dir string) (Size, error)
}

// A Size is what a file system says about itself.
type Size struct {
	Free, Total int64 // bytes; Free for a process without privileges. Total 0: it does not say
	NoFiles     bool  // no more files can be made, whatever Free says
}

// A Level says how full a file system is.
type Level uint8

// The levels.
const (
	Normal   Level = iota
	Low            // less than twice the reserve
	ReadOnly       // less than the reserve: publishes are refused
)

// String is the level's name in logs.
func (l Level) String() string {
	switch l {
	case Normal:
		return "normal"
	case Low:
		return "low"
	case ReadOnly:
		return "read-only"
	}
	return "unknown"
}

// A State is what a look found. All sizes are bytes.
type State struct {
	Free    int64 // as the file system says; the ballast is not in it
	Spare   int64 // Free less what the ballast lacks: what the level is about
	Reserve int64 // what is kept to, after the cut on a small disk
	Ballast int64 // what the ballast holds
	Level   Level
}

const (
	everyDefault = time.Second
	smallest     = 10 // a reserve is at most this part of the file system
	hysteresis   = 8  // the level rises at the reserve and this part of it
	ballastName  = "ballast"
)

// A Watch watches one directory. Its methods may be called by any goroutine.
type Watch struct {
	options Options
	state   atomic.Pointer[State]

	mu      sync.Mutex // held while looking
	file    ballast
	wanted  int64 // of the ballast; 0: none
	failing bool  // the last look failed
	refused bool  // the last building failed
	closed  bool
	stop    chan struct{}
	running sync.WaitGroup
}

// New looks for the first time and builds the ballast, if the space is there.
// It fails if the file system cannot be asked.
func New(o Options) (*Watch, error) {
	if o.Every <= 0 {
		o.Every = everyDefault
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Stat == nil {
		o.Stat = size
	}
	w := &Watch{options: o, file: newBallast(o.Dir), stop: make(chan struct{})}
	found, err := o.Stat(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("ask for the free space of %s: %w", o.Dir, err)
	}
	reserve := w.cut(found.Total)
	if err := w.plan(reserve); err != nil {
		return nil, err
	}
	// From Normal the first look goes down as far as it must.
	w.state.Store(&State{Reserve: reserve, Level: Normal})
	w.look(true)
	return w, nil
}

// cut is the reserve on a file system of that many bytes.
func (w *Watch) cut(total int64) int64 {
	asked := max(0, w.options.Reserve)
	if total <= 0 || asked <= total/smallest {
		return asked
	}
	reserve := total / smallest
	w.options.Log.Warn("the disk is small: the reserve, and the ballast, are a tenth of it",
		slog.String("dir", w.options.Dir), slog.Int64("disk", total), slog.Int64("wanted", asked), slog.Int64("reserve", reserve))
	return reserve
}

// plan decides on the ballast. One that is too large is cut, one that nobody
// wants is removed.
func (w *Watch) plan(reserve int64) error {
	if w.options.Ballast {
		w.wanted = reserve
	}
	if w.wanted > 0 && !canHoldSpace {
		w.wanted = 0
		w.options.Log.Warn("no ballast: this system cannot hold space in a file; another program can fill the disk to the last byte",
			slog.String("dir", w.options.Dir))
	}
	if err := w.file.shrink(w.wanted); err != nil {
		return fmt.Errorf("the ballast in %s: %w", w.options.Dir, err)
	}
	return nil
}

// State is what the last look found.
func (w *Watch) State() State { return *w.state.Load() }

// Look asks the file system now: before a new segment, for instance.
func (w *Watch) Look() State { return w.look(false) }

func (w *Watch) look(first bool) State {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.State()
	found, err := w.options.Stat(w.options.Dir)
	if err != nil {
		w.complain(err)
		return before
	}
	w.failing = false
	now := State{Reserve: before.Reserve, Ballast: w.file.size(), Free: found.Free}
	if found.Total <= 0 {
		now.Free = math.MaxInt64 // it does not say: what is full will say so
	}
	now.Spare = max(0, now.Free-max(0, w.wanted-now.Ballast))
	now.Level = level(before.Level, now, first)
	if now.Level < ReadOnly && now.Ballast < w.wanted && !found.NoFiles {
		now = w.build(now, before.Level)
	}
	if found.NoFiles {
		now.Level = ReadOnly
	}
	w.tell(before, now, found)
	w.state.Store(&now)
	return now
}

// level is the level of what was found, after the level it was on. At first
// there is nothing it could flap from.
func level(from Level, s State, first bool) Level {
	margin := s.Reserve / hysteresis
	at := func(l Level, reserves int64) bool { // it is on l, or must go there
		limit := reserves * s.Reserve
		if from >= l && !first {
			limit += margin
		}
		return s.Spare < limit
	}
	switch {
	case at(ReadOnly, 1):
		return ReadOnly
	case at(Low, 2):
		return Low
	}
	return Normal
}

// build makes the ballast whole. Where that fails for want of space the level
// stays; where it cannot be there is none from now on.
func (w *Watch) build(s State, from Level) State {
	err := w.file.grow(w.wanted)
	if built := w.file.size(); built != s.Ballast {
		s.Free = max(0, s.Free-(built-s.Ballast))
		s.Ballast = built
	}
	switch {
	case err == nil:
		w.refused = false
		w.options.Log.Info("the ballast holds its space", slog.String("dir", w.options.Dir), slog.Int64("bytes", s.Ballast))
	case errors.Is(err, errNoBallast):
		w.wanted = 0
		w.options.Log.Warn("no ballast: this file system cannot hold space in a file; another program can fill it to the last byte",
			slog.String("dir", w.options.Dir), slog.Any("err", err))
	default:
		if !w.refused {
			w.options.Log.Warn("the ballast could not be built; trying again", slog.String("dir", w.options.Dir), slog.Any("err", err))
		}
		w.refused = true
		s.Level = max(s.Level, from)
	}
	return s
}

// tell logs a change.
func (w *Watch) tell(before, now State, found Size) {
	if before.Level == now.Level {
		return
	}
	attrs := []any{
		slog.String("dir", w.options.Dir), slog.String("level", now.Level.String()), slog.String("before", before.Level.String()),
		slog.Int64("free", now.Free), slog.Int64("spare", now.Spare), slog.Int64("reserve", now.Reserve), slog.Int64("ballast", now.Ballast),
	}
	switch {
	case found.NoFiles:
		w.options.Log.Error("the file system has no room for another file: publishes are refused until files are removed", attrs...)
	case now.Level == ReadOnly:
		w.options.Log.Error("the disk is full: publishes are refused until there is space, consumers and acks go on", attrs...)
	case now.Level == Low && before.Level == Normal:
		w.options.Log.Warn("the disk is nearly full: below the reserve publishes will be refused", attrs...)
	default:
		w.options.Log.Info("the disk has space again", attrs...)
	}
}

// complain says once that the file system does not answer. The state stays.
func (w *Watch) complain(err error) {
	if !w.failing {
		w.options.Log.Error("the free space is not known; going on with what it was", slog.String("dir", w.options.Dir), slog.Any("err", err))
	}
	w.failing = true
}

// Release gives the ballast back to the file system: the store must write to
// finish what it has to, and the disk is full. The level is ReadOnly until the
// ballast is built again.
func (w *Watch) Release() error {
	w.mu.Lock()
	held := w.file.size()
	err := w.file.shrink(0)
	w.mu.Unlock()
	if err != nil {
		return fmt.Errorf("release the ballast in %s: %w", w.options.Dir, err)
	}
	if held > 0 {
		w.options.Log.Warn("the ballast is released: the store needs its space", slog.String("dir", w.options.Dir), slog.Int64("bytes", held))
	}
	w.Look()
	return nil
}

// Run looks each Options.Every until ctx or the Watch ends.
func (w *Watch) Run(ctx context.Context) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.running.Add(1)
	w.mu.Unlock()
	defer w.running.Done()
	ticks := time.NewTicker(w.options.Every)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			w.Look()
		case <-w.stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Close ends Run and waits for it. The ballast stays: it holds its space while
// the store is down, too.
func (w *Watch) Close() {
	w.mu.Lock()
	again := w.closed
	w.closed = true
	w.mu.Unlock()
	if !again {
		close(w.stop)
	}
	w.running.Wait()
}

// Release gives the ballast of dir back before there is a Watch: a store that
// must write to open, and has no space to. It says how many bytes that were; 0
// is that there was none. The next Watch builds it again from space that came
// back.
func Release(dir string) (freed int64, err error) {
	b := newBallast(dir)
	freed = b.size()
	if err := b.shrink(0); err != nil {
		return 0, fmt.Errorf("release the ballast in %s: %w", dir, err)
	}
	return freed, nil
}

// Free is how many bytes of the file system of dir a process without
// privileges may still take.
func Free(dir string) (int64, error) {
	s, err := size(dir)
	if err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return s.Free, nil
}
