package torture

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/godwitmq/godwit/core"
)

// fillPartition is the one that a child writes carefully: one batch at a time,
// each with one message that two readers owe. While appends are refused the
// thrifty reader goes on to settle, one message at a time.
const fillPartition core.PartitionID = partitions

const (
	thrifty core.CursorID = 10 // settles while the disk is full
	prompt  core.CursorID = 11 // settles a message 3,000 messages later

	promptAfter = 3000
	thriftyMost = 20_000 // the thrifty reader owes no more than that
	fillBody    = 1000

	refusedPause = 10 * time.Millisecond // between two tries on a full disk
	healthEach   = 100 * time.Millisecond
)

var (
	appendsKey = []byte("appends") // how many messages were appended
	settledKey = []byte("settled") // how many the thrifty reader has settled
)

// A filling writes while somebody fills the disk.
type filling struct {
	*child
	history
	p        core.Partition
	appended uint64
	settled  uint64
	at       map[uint64]core.Offset
	done     chan error
	told     time.Time
}

// Committed is told of the one batch under way.
func (f *filling) Committed(_ *core.Batch, err error) { f.done <- err }

func (c *child) runFill(ctx context.Context, began time.Time) error {
	p, err := c.openPartition(ctx, fillPartition)
	if err != nil {
		return err
	}
	c.say("open %d", time.Since(began).Milliseconds())
	f := &filling{
		child: c, history: history{c.Seed, fillPartition}, p: p,
		at: map[uint64]core.Offset{}, done: make(chan error, 1),
	}
	if err := f.verify(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := f.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// step appends a message, or settles one if there is no room for it.
func (f *filling) step(ctx context.Context) error {
	f.sayHealth()
	err := f.append()
	if err == nil {
		f.say("c 0 %d", f.appended)
		return nil
	}
	if errors.Is(err, core.ErrOverload) {
		return f.pause(ctx)
	}
	if !errors.Is(err, core.ErrReadOnly) {
		return err
	}
	f.say("refused %v", err)
	if f.settled < f.appended {
		switch err := f.settle(); {
		case err == nil:
			f.say("c 1 %d", f.settled)
		case errors.Is(err, core.ErrReadOnly), errors.Is(err, core.ErrOverload):
			f.say("unsettled %v", err) // legal: the acknowledgement is forgotten, the message comes again
		default:
			return err
		}
	}
	return f.pause(ctx)
}

func (f *filling) pause(ctx context.Context) error {
	select {
	case <-time.After(refusedPause):
	case <-ctx.Done():
	}
	return nil
}

// sayHealth lets the parent know what to leave free.
func (f *filling) sayHealth() {
	if time.Since(f.told) < healthEach {
		return
	}
	f.told = time.Now()
	h := f.store.Health()
	f.say("health %t %d %d", h.ReadOnly, h.Free, h.Reserve)
}

func (f *filling) commit(b *core.Batch) error {
	b.Wait, b.Done = true, f
	if err := f.p.Commit(b); err != nil {
		return err
	}
	return <-f.done
}

// append appends the next message. What is refused leaves nothing behind, so
// the next try has the same number.
func (f *filling) append() error {
	n := f.appended + 1
	b := &core.Batch{
		Now:     int64(n),
		Appends: []core.Append{{Log: sharedLog, Routes: pair, Message: f.message(name{n, 0})}},
		Records: []core.Record{{Table: table, Key: appendsKey, Value: strconv.AppendUint(nil, n, 10)}},
	}
	if n == 1 {
		b.Cursors = []core.CursorOp{{ID: thrifty, Log: sharedLog}, {ID: prompt, Log: sharedLog}}
		b.Sets = []core.RouteSet{{ID: pair, Members: []core.CursorID{thrifty, prompt}}}
	}
	if n > promptAfter {
		b.Acks = append(b.Acks, f.ack(prompt, n-promptAfter))
	}
	settled := f.settled
	if n-settled > thriftyMost {
		settled++
		b.Acks = append(b.Acks, f.ack(thrifty, settled))
		b.Records = append(b.Records, f.settledRecord(settled))
	}
	if err := f.commit(b); err != nil {
		return err
	}
	f.appended, f.settled = n, settled
	f.at[n] = b.Appends[0].Offset
	return nil
}

func (f *filling) ack(c core.CursorID, n uint64) core.Ack {
	at := f.at[n]
	return core.Ack{Cursor: c, From: at, To: at + 1, N: 1, Bytes: f.message(name{n, 0}).Size()}
}

func (f *filling) settledRecord(n uint64) core.Record {
	return core.Record{Table: table, Key: settledKey, Value: strconv.AppendUint(nil, n, 10)}
}

// settle is a batch without appends: a full disk must take it.
func (f *filling) settle() error {
	n := f.settled + 1
	err := f.commit(&core.Batch{Now: int64(f.appended), Acks: []core.Ack{f.ack(thrifty, n)}, Records: []core.Record{f.settledRecord(n)}})
	if err == nil {
		f.settled = n
	}
	return err
}

// message has a body that is large for what surrounds it.
func (f *filling) message(n name) *core.Message {
	m := f.history.message(n)
	m.Body = noise(m.Body, n.batch, fillBody)
	return m
}

// verify compares what the two readers owe with what was confirmed.
func (f *filling) verify(ctx context.Context) error {
	c := &check{history: f.history, p: f.p, report: f.report}
	var err error
	if f.appended, err = c.number(ctx, appendsKey); err != nil {
		return err
	}
	if f.settled, err = c.number(ctx, settledKey); err != nil {
		return err
	}
	if f.appended < f.confirmed(0) {
		c.fault(lost, "messages %d to %d were confirmed, and the newest there is %d", f.appended+1, f.confirmed(0), f.appended)
	}
	if f.settled < f.confirmed(1) {
		c.fault(lost, "that %d messages are settled was confirmed, and the record says %d", f.confirmed(1), f.settled)
	}
	if f.appended == 0 {
		f.say("verified 0")
		return nil
	}
	from := uint64(0)
	if f.appended > promptAfter {
		from = f.appended - promptAfter
	}
	// All of it was confirmed, but for the newest message of each kind.
	if err := f.owes(c, thrifty, f.settled, f.confirmed(1)); err != nil {
		return err
	}
	if err := f.owes(c, prompt, from, max(f.confirmed(0), promptAfter)-promptAfter); err != nil {
		return err
	}
	f.say("verified %d", c.messages)
	return nil
}

// owes: the reader has settled all up to settled, and was told so of all up to
// sure.
func (f *filling) owes(c *check, cursor core.CursorID, settled, sure uint64) error {
	next := settled + 1
	err := fetchAll(f.p, sharedLog, cursor, func(s *core.Stored) {
		c.messages++
		n, ok := f.nameOf(s.Message)
		if !ok || !sameMessage(s.Message, f.message(n)) {
			c.fault(changed, "reader %d has a message that nobody wrote, or with another content (%v)", cursor, n)
			return
		}
		f.at[n.batch] = s.Offset
		switch {
		case n.batch > f.appended:
			c.fault(torn, "reader %d has message %d, and %d were appended", cursor, n.batch, f.appended)
		case n.batch <= sure:
			c.fault(returned, "reader %d owes message %d again", cursor, n.batch)
		case n.batch <= settled: // nobody was told
		case n.batch < next:
			c.fault(order, "reader %d has message %d after a later one", cursor, n.batch)
		default:
			for ; next < n.batch; next++ {
				c.fault(lost, "reader %d does not owe message %d any more, and has not settled it", cursor, next)
			}
			next++
		}
	})
	if err != nil {
		return c.readError("the readers", err)
	}
	for ; next <= f.appended; next++ {
		c.fault(lost, "reader %d does not owe message %d any more, and has not settled it", cursor, next)
	}
	return nil
}
