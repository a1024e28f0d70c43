package torture

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/godwitmq/godwit/persistence/space"
)

const (
	fillMost    = int64(16) << 30
	appendsWarm = 200 // confirmed before the disk is filled
	acksFull    = 50  // confirmed while it is full, in each life
	appendsBack = 100 // confirmed after there is space again
	soon        = 60 * time.Second
)

// Fill fills the disk below what the store keeps free, with the space of a
// file that has no name: it returns when this process ends, however that is.
// Appends must be refused and acknowledgements go on, also after a kill, and
// appends must go on when there is space again.
func Fill(ctx context.Context, o Options) (Result, error) {
	if o.FillMost == 0 {
		o.FillMost = fillMost
	}
	r, err := newRun(o)
	if err != nil {
		return Result{}, err
	}
	if err := r.make(); err != nil {
		return Result{}, err
	}
	r.told.mine = nil
	r.result.Full = &FullResult{}
	r.measureFlush()
	for n := 1; n <= r.Rounds && ctx.Err() == nil; n++ {
		if err := r.fillRound(ctx, n); err != nil && ctx.Err() == nil {
			return r.finish(), err
		} else if err != nil {
			break
		}
		r.result.Rounds = n
	}
	return r.lastLife(doFill)
}

// fillRound: write, fill, kill, start on the full disk, make room, go on.
func (r *run) fillRound(ctx context.Context, n int) error {
	p, err := start(r.Self, r.job(doFill), r.told)
	if err != nil {
		return err
	}
	defer func() { p.kill() }()
	if !r.waitUntil(ctx, p, r.patience, func(t *told) bool { return t.written && t.appended >= appendsWarm }) {
		return r.fillStuck(ctx, p, "appends are not confirmed")
	}
	filler, err := r.fill()
	if err != nil {
		return err
	}
	defer func() { _ = filler.Close() }() // again, where all went well
	if err := r.isFull(ctx, p); err != nil {
		return err
	}
	if !p.kill() {
		r.endedByItself(p)
		return r.stopped()
	}
	r.result.Full.Kills++
	r.addUp()
	if p, err = start(r.Self, r.job(doFill), r.told); err != nil {
		return err
	}
	if !r.waitUntil(ctx, p, r.patience, func(t *told) bool { return t.written }) {
		return r.fillStuck(ctx, p, "after a kill the store does not open on the full disk")
	}
	if err := r.isFull(ctx, p); err != nil {
		return err
	}
	if err := filler.Close(); err != nil {
		return err
	}
	from := int64(0)
	r.told.look(func(t *told) bool { from = t.appended; return true })
	began := time.Now()
	if !r.waitUntil(ctx, p, soon, func(t *told) bool { return t.appended >= from+appendsBack }) {
		return r.fillStuck(ctx, p, "there is space again, and appends are not confirmed")
	}
	r.result.Full.Resumed++
	r.addUp()
	f := r.result.Full
	r.print("%d/%d  filled %s, left %s: %d appends refused, %d acks confirmed; killed and started full; resumed after %.1f s",
		n, r.Rounds, bytesText(f.Filled), bytesText(f.Free), f.Refused, f.Settled, time.Since(began).Seconds())
	if n%2 == 0 && !p.stop(r.patience) { // every other life ends well
		r.endedByItself(p)
	}
	return r.stopped()
}

// fill takes space until three quarters of the reserve are left.
func (r *run) fill() (*os.File, error) {
	var reserve int64
	r.told.look(func(t *told) bool { reserve = t.reserve; return true })
	if reserve == 0 {
		r.told.fault(full, "the store keeps nothing free: on a full disk it cannot refuse in time")
		return nil, errBroken
	}
	free, err := space.Free(r.Dir)
	if err != nil {
		return nil, err
	}
	take := free - reserve*3/4
	if take > r.FillMost {
		return nil, fmt.Errorf("to fill this disk %s would be taken, and at most %s may be: allow more with --fill-most, or try it on a smaller disk",
			bytesText(take), bytesText(r.FillMost))
	}
	if take <= 0 {
		return nil, fmt.Errorf("this disk has %s free, less than the store keeps free (%s): give it more", bytesText(free), bytesText(reserve))
	}
	filler, err := fill(r.dir, take)
	if err != nil {
		return nil, err
	}
	r.result.Full.Filled, r.result.Full.Free = take, free-take
	return filler, nil
}

// isFull waits until appends are refused and acknowledgements go on.
func (r *run) isFull(ctx context.Context, p *process) error {
	if !r.waitUntil(ctx, p, soon, func(t *told) bool { return t.refused > 0 }) {
		return r.fillStuck(ctx, p, "the disk is full and appends are not refused")
	}
	from := int64(0)
	r.told.look(func(t *told) bool { from = t.settled; return true })
	if !r.waitUntil(ctx, p, soon, func(t *told) bool { return t.settled >= from+acksFull }) {
		return r.fillStuck(ctx, p, "the disk is full and acknowledgements are not confirmed")
	}
	return nil
}

// fillStuck makes a fault of what did not come, unless the child has died or
// the user has had enough.
func (r *run) fillStuck(ctx context.Context, p *process, what string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case <-p.ended:
		r.endedByItself(p)
		return r.stopped()
	default:
	}
	r.told.look(func(t *told) bool {
		t.add(fault{full, fmt.Sprintf("%s (%d appends confirmed, %d refused, %d acks; read-only %t, %s free, reserve %s)",
			what, t.appended, t.refused, t.settled, t.readOnly, bytesText(t.free), bytesText(t.reserve))})
		return true
	})
	return errBroken
}

// addUp adds what a life said to the whole.
func (r *run) addUp() {
	r.told.look(func(t *told) bool {
		r.result.Full.Refused += t.refused
		r.result.Full.Settled += t.settled
		r.result.Full.Held += t.unsettled
		r.result.Full.Says = t.refusal
		return true
	})
}
