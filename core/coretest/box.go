package coretest

import (
	"errors"
	"fmt"
	"time"

	"github.com/godwitmq/godwit/core"
)

// A Disk is a store that can misbehave when told to. A commit that is not held
// is durable, and told so, before Commit returns: a box has no goroutines to
// wait for.
type Disk interface {
	core.Store
	Hold()        // accept commits from now on, and make none of them durable
	Resume()      // make durable what is held, in order, and hold no more
	Sync() int    // make durable what is held, and go on holding; says how many
	SetFull(bool) // full: publishes are refused, acks go on
	Fail()        // the next sync fails: the store is poisoned
	Cut()         // the power goes: what is held vanishes, open partitions die
}

// Options say what is in a box. Disk is required.
type Options struct {
	Disk         Disk
	Guard        core.Guard  // nil: core's own
	Start        time.Time   // zero: Start
	Shards       int         // 0: 1
	Limits       core.Limits // of a session
	VHosts       []string    // beside "/"; nil: east and west
	NoAutoCreate bool
	Running      bool // the shards run by themselves: Settle and Turn do nothing
}

// Start is when a box's clock starts if nothing else is said.
var Start = time.Date(2030, 1, 1, 13, 0, 0, 0, time.UTC)

// Tick is the time between two ticks of a broker in a box.
const Tick = 250 * time.Millisecond

// maxTurns is how many turns without rest are taken for a loop.
const maxTurns = 100_000

// ErrNoRest says that the shards always find something to do.
var ErrNoRest = errors.New("the broker does not come to rest")

// A Box is a broker whose world stands still. One goroutine uses it.
type Box struct {
	Clock  *Clock
	Disk   Disk
	Broker *core.Broker // nil while the power is off

	options core.Options
}

// New puts a broker into a box.
func New(o Options) (*Box, error) {
	if o.Start.IsZero() {
		o.Start = Start
	}
	if o.VHosts == nil {
		o.VHosts = []string{"east", "west"}
	}
	clock := NewClock(o.Start)
	b := &Box{
		Clock: clock,
		Disk:  o.Disk,
		options: core.Options{
			Store: o.Disk, Guard: o.Guard, Now: clock.Now, Shards: max(o.Shards, 1),
			Limits: o.Limits, VHosts: o.VHosts, NoAutoCreate: o.NoAutoCreate, Manual: !o.Running,
		},
	}
	return b, b.PowerOn()
}

// Turn runs each shard once and says whether any had work.
func (b *Box) Turn() bool {
	return b.Broker != nil && b.options.Manual && b.Broker.Step()
}

// Settle runs the shards until none has work. The error is ErrNoRest.
func (b *Box) Settle() error {
	for range maxTurns {
		if !b.Turn() {
			return nil
		}
	}
	return ErrNoRest
}

// Advance lets time pass, a tick at a time, and settles after each. A long
// time passes in at most 1,000 ticks, so that a day costs no more than minutes.
func (b *Box) Advance(d time.Duration) error {
	for step := range Steps(d) {
		b.Pass(step)
		if err := b.Settle(); err != nil {
			return err
		}
	}
	return nil
}

// Pass moves the clock and tells the broker, and settles nothing.
func (b *Box) Pass(d time.Duration) {
	now := b.Clock.Advance(d)
	if b.Broker != nil {
		b.Broker.Tick(now)
	}
}

// Steps cuts a time to pass into ticks, as Advance does.
func Steps(d time.Duration) func(yield func(time.Duration) bool) {
	step := max(Tick, d/1000)
	return func(yield func(time.Duration) bool) {
		for ; d > 0; d -= step {
			if !yield(min(step, d)) {
				return
			}
		}
	}
}

// PowerOff cuts the power: what was not durable is gone, and the broker with
// all its sessions. Nobody is told.
func (b *Box) PowerOff() {
	if b.Broker == nil {
		return
	}
	b.Disk.Cut()
	b.Broker = nil // it has no goroutines: nothing is left of it
}

// PowerOn starts a new broker on what the disk still has.
func (b *Box) PowerOn() error {
	if b.Broker != nil {
		return errors.New("the power is on")
	}
	broker, err := core.New(b.options)
	if err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	b.Broker = broker
	return b.Settle()
}
