package torture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godwitmq/godwit/core"
)

// A writer writes one partition's history, with up to window batches on their
// way to the disk.
type writer struct {
	history
	child  *child
	p      core.Partition
	next   uint64 // the number of the next batch
	places places
	done   chan finished
}

// finished is a batch that the store has answered.
type finished struct {
	number uint64
	batch  *core.Batch
	err    error
}

func newWriter(c *child, h history, p core.Partition) *writer {
	return &writer{history: h, child: c, p: p, done: make(chan finished, window)}
}

// answer tells the parent and the writer of one batch.
type answer struct {
	w      *writer
	number uint64
}

// Committed says "c partition number" before anything else happens.
func (a answer) Committed(b *core.Batch, err error) {
	if err == nil {
		a.w.child.say("c %d %d", a.w.part, a.number)
	}
	a.w.done <- finished{a.number, b, err}
}

// run writes until ctx ends; then it waits for what is under way.
func (w *writer) run(ctx context.Context) error {
	inFlight := 0
	for ctx.Err() == nil {
		for inFlight == window {
			if err := w.take(&inFlight); err != nil {
				return err
			}
		}
		for more := true; more && inFlight > 0; { // without waiting
			select {
			case f := <-w.done:
				inFlight--
				if err := w.learn(f); err != nil {
					return err
				}
			default:
				more = false
			}
		}
		b := w.history.batch(w.next, w.places)
		b.Done = answer{w, w.next}
		if err := w.commit(ctx, b, &inFlight); err != nil {
			return err
		}
	}
	for inFlight > 0 {
		if err := w.take(&inFlight); err != nil {
			return err
		}
	}
	return nil
}

// commit gives the batch to the store, again while that is overloaded.
func (w *writer) commit(ctx context.Context, b *core.Batch, inFlight *int) error {
	for {
		err := w.p.Commit(b)
		switch {
		case err == nil:
			w.next++
			*inFlight++
			return nil
		case !errors.Is(err, core.ErrOverload):
			return w.failed(w.next, err)
		case *inFlight > 0:
			if err := w.take(inFlight); err != nil {
				return err
			}
		default: // the other partition's batches
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func (w *writer) take(inFlight *int) error {
	f := <-w.done
	*inFlight--
	return w.learn(f)
}

// learn notes where the batch's messages are.
func (w *writer) learn(f finished) error {
	if f.err != nil {
		return w.failed(f.number, f.err)
	}
	for i := range f.batch.Appends {
		index := i
		if i == len(f.batch.Appends)-1 {
			index = openIndex
		}
		w.places.put(w.history, name{f.number, index}, f.batch.Appends[i].Offset)
	}
	return nil
}

func (w *writer) failed(n uint64, err error) error {
	if errors.Is(err, core.ErrReadOnly) {
		return fmt.Errorf("the disk is full: give the torture more space, or let it fill the disk itself with --disk-full: %w", err)
	}
	return fmt.Errorf("batch %d of partition %d: %w", n, w.part, err)
}
