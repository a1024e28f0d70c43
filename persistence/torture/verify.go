package torture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/godwitmq/godwit/core"
)

// A fault is one thing that is not as it must be.
type fault struct{ kind, text string }

// The kinds of faults; doc.go says what they mean.
const (
	lost     = "lost"
	changed  = "changed"
	order    = "order"
	torn     = "torn"
	returned = "returned"
	stale    = "stale"
	counts   = "counts"
	damaged  = "damaged"
	died     = "died"
	hung     = "hung"
	full     = "full"
)

// A check compares one partition with its history.
type check struct {
	history
	p         core.Partition
	confirmed uint64 // batches up to it were confirmed
	report    func(fault)

	last     uint64 // the newest batch that is there
	places   places
	messages int64 // compared
}

func (c *check) fault(kind, format string, args ...any) {
	c.report(fault{kind, fmt.Sprintf("partition %d: ", c.part) + fmt.Sprintf(format, args...)})
}

// run returns an error only if the store cannot be read; damage it reports is
// a fault.
func (c *check) run(ctx context.Context) error {
	c.places = places{}
	last, err := c.number(ctx, lastKey)
	if err != nil {
		return err
	}
	if c.last = last; c.last < c.confirmed {
		c.fault(lost, "batches %d to %d were confirmed, with %d messages, and the newest there is %d",
			c.last+1, c.confirmed, c.count(c.last, c.confirmed), c.last)
	}
	if c.last == 0 {
		return nil
	}
	if seed, err := c.number(ctx, seedKey); err != nil || seed != c.seed {
		return errors.Join(err, fmt.Errorf("the data is of a run with seed %d, not %d", seed, c.seed))
	}
	for _, r := range readers {
		if err := c.reader(r.cursor, r.name); err != nil {
			return err
		}
	}
	if err := c.open(); err != nil {
		return err
	}
	return c.values(ctx)
}

// number reads a record that holds one; 0: there is none.
func (c *check) number(ctx context.Context, key []byte) (uint64, error) {
	v, err := c.p.Get(ctx, table, key)
	if errors.Is(err, core.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the record %s: %w", key, err)
	}
	n, err := strconv.ParseUint(string(v), 10, 64)
	if err != nil {
		c.fault(changed, "the record %s is %q", key, v)
	}
	return n, nil
}

// oldest is the oldest batch of which anybody may owe something.
func (c *check) oldest() uint64 {
	if c.last < longestOwed {
		return 1
	}
	return c.last - longestOwed + 1
}

// reader compares what a cursor owes.
func (c *check) reader(cursor core.CursorID, who string) error {
	next := name{c.oldest(), 0} // the first that was not looked at
	owed := int64(0)
	err := c.fetch(sharedLog, cursor, func(s *core.Stored) {
		owed++
		n, ok := c.known(s.Message, who)
		if !ok {
			return
		}
		c.places.put(c.history, n, s.Offset)
		if n.before(next) {
			if c.settledBy(cursor, n) <= c.confirmed && n.batch < c.oldest() {
				c.fault(returned, "%s owes %v again", who, n)
			} else {
				c.fault(order, "%s has %v after a later one, or twice", who, n)
			}
			return
		}
		c.missing(cursor, who, next, n)
		next = name{n.batch, n.index + 1}
		c.one(cursor, who, n, s)
	})
	if err != nil {
		return c.readError(who, err)
	}
	c.missing(cursor, who, next, name{c.last + 1, 0})
	for _, state := range c.p.Cursors() {
		if state.ID == cursor && state.Depth != owed {
			c.fault(counts, "the store counts %d messages for %s and gives %d", state.Depth, who, owed)
		}
	}
	return nil
}

// known names a message and compares it with what was written.
func (c *check) known(m *core.Message, who string) (name, bool) {
	n, ok := c.nameOf(m)
	c.messages++
	switch {
	case !ok:
		c.fault(changed, "%s has a message that nobody wrote", who)
	case n.batch > c.last || n.batch == 0:
		c.fault(torn, "%s has %v, and the newest batch is %d", who, n, c.last)
	case n.index != openIndex && n.index >= c.history.messages(n.batch):
		c.fault(changed, "%s has %v, which nobody wrote", who, n)
	case !c.isWritten(m, n):
		c.fault(changed, "%s has %v with another content", who, n)
	default:
		return n, true
	}
	return n, false
}

// one looks at one message that the cursor owes.
func (c *check) one(cursor core.CursorID, who string, n name, s *core.Stored) {
	if !c.owes(cursor, n) {
		c.fault(changed, "%s owes %v, which was not for it", who, n)
		return
	}
	// What the newest batches settled may be forgotten while nobody was told.
	if by := c.settledBy(cursor, n); by <= c.confirmed && by <= c.last {
		c.fault(returned, "%s owes %v again, settled and confirmed by batch %d", who, n, by)
	}
	if cursor != steady {
		return
	}
	if tried := s.Attempts == 2; !tried && n.batch+markAfter <= c.confirmed {
		c.fault(stale, "%s has %v with %d attempts, want 2", who, n, s.Attempts)
	} else if tried && n.batch+markAfter > c.last {
		c.fault(torn, "%s has %v with 2 attempts, which no batch says", who, n)
	}
}

// missing reports what the cursor must owe in [from, to).
func (c *check) missing(cursor core.CursorID, who string, from, to name) {
	for n := from; n.before(to) && n.batch <= c.last; {
		if n.index >= c.history.messages(n.batch) {
			n = name{n.batch + 1, 0}
			continue
		}
		if c.owes(cursor, n) && c.settledBy(cursor, n) > c.last {
			c.fault(c.gone(n), "%s does not owe %v any more, and has not settled it", who, n)
		}
		n.index++
	}
}

// gone is what a message that is not there is: lost, or of a batch that nobody
// was told of and that is there in part.
func (c *check) gone(n name) string {
	if n.batch <= c.confirmed {
		return lost
	}
	return torn
}

// open compares the log that nobody owes: all from the last trim on must be
// there, what is before may be.
func (c *check) open() error {
	const who = "the open log"
	next, began := uint64(1), false
	if t := c.last / trimEach * trimEach; t > trimKeeps {
		next = t - trimKeeps
	}
	must := next
	err := c.fetch(openLog, 0, func(s *core.Stored) {
		n, ok := c.known(s.Message, who)
		if !ok {
			return
		}
		if !began && n.batch < must {
			next = n.batch
		}
		began = true
		c.places.put(c.history, n, s.Offset)
		if n.batch < next {
			c.fault(order, "%s has %v after a later one", who, n)
			return
		}
		for ; next < n.batch; next++ {
			c.fault(c.gone(name{next, 0}), "%s does not have its message of batch %d", who, next)
		}
		next++
	})
	if err != nil {
		return c.readError(who, err)
	}
	for ; next <= c.last; next++ {
		c.fault(c.gone(name{next, 0}), "%s does not have its message of batch %d", who, next)
	}
	return nil
}

// values compares the records.
func (c *check) values(ctx context.Context) error {
	want := c.history.values(c.last)
	for r, err := range c.p.Scan(ctx, table, []byte("value/")) {
		if err != nil {
			return c.readError("the records", err)
		}
		if w, ok := want[string(r.Key)]; !ok || !bytes.Equal(w, r.Value) {
			c.fault(stale, "the record %s has another value than batch %d leaves", r.Key, c.last)
		}
		delete(want, string(r.Key))
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		c.fault(lost, "the record %s is missing", key)
	}
	return nil
}

// readError makes a fault of damage that the store reports: it may be this
// disk's, or this kill's.
func (c *check) readError(who string, err error) error {
	if _, ok := errors.AsType[*core.CorruptError](err); ok {
		c.fault(damaged, "reading %s: %v", who, err)
		return nil
	}
	return fmt.Errorf("read %s: %w", who, err)
}

// fetch reads all that a cursor owes, or a whole log, in order.
func (c *check) fetch(log core.LogID, cursor core.CursorID, each func(*core.Stored)) error {
	return fetchAll(c.p, log, cursor, each)
}

// fetched is a FetchDone that sends.
type fetched chan error

func (f fetched) Fetched(_ *core.Fetch, err error) { f <- err }

func fetchAll(p core.Partition, log core.LogID, cursor core.CursorID, each func(*core.Stored)) error {
	done := make(fetched, 1)
	last := core.Offset(0)
	for from := core.Offset(1); ; {
		f := &core.Fetch{Log: log, Cursor: cursor, From: from, Records: 1000, Bytes: 1 << 20, Done: done}
		if err := p.Fetch(f); err != nil {
			return err
		}
		if err := <-done; err != nil {
			return err
		}
		if len(f.Out) == 0 {
			return nil
		}
		for i := range f.Out {
			if f.Out[i].Offset <= last {
				return &core.CorruptError{Log: log, From: last, To: f.Out[i].Offset, Text: "offsets do not increase"}
			}
			last = f.Out[i].Offset
			each(&f.Out[i])
		}
		from = f.Next
	}
}
