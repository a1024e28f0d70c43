package badger

import (
	"sync"
	"time"

	"github.com/godwitmq/godwit/core"
)

// staged is an accepted batch. Its messages are encoded on their way in, by
// the caller and while the committer waits for the disk.
type staged struct {
	handle  *handle
	batch   *core.Batch
	at      time.Time // of Commit
	encoded []byte    // the messages, one behind the other
	ends    []int     // where in encoded each of them ends
	size    int64     // what it takes in a transaction, at most, more or less
	entries int64
	err     error // what Done will be told
}

var stagedPool = sync.Pool{New: func() any { return new(staged) }}

// recycle gives st back for reuse.
func (st *staged) recycle() {
	if cap(st.encoded) > 1<<20 || cap(st.ends) > 1<<12 {
		return
	}
	*st = staged{encoded: st.encoded[:0], ends: st.ends[:0]}
	stagedPool.Put(st)
}

// linger is how long a batch that nobody waits for may stay in memory. With a
// sync it is well below the 200 ms it is allowed.
const linger = 150 * time.Millisecond

// A committer writes what has been staged. One goroutine runs it. A turn goes
//
//	take what has gathered
//	apply as many batches as fit into one transaction: offsets, blocks, acks
//	write it and wait for its sync
//	let readers see it, and call Done of each batch
//
// and again for the rest of what it took.
type committer struct {
	s       *store
	t       txn
	touched []*part // that have something in t
	spare   []*staged
}

func newCommitter(s *store) committer {
	return committer{s: s, t: txn{
		maxEntries: s.db.MaxBatchCount() * 8 / 10,
		maxBytes:   s.db.MaxBatchSize() * 8 / 10,
	}}
}

func (c *committer) run() {
	defer close(c.s.ended)
	for {
		group, more := c.take()
		for rest := group; len(rest) > 0; {
			rest = rest[c.commit(rest):]
		}
		clear(group)
		c.spare = group[:0]
		if !more {
			return
		}
		c.tidy()
	}
}

// take waits for batches that are due and takes all there are. more is false
// once the store is closed and none are left.
func (c *committer) take() (group []*staged, more bool) {
	s := c.s
	for {
		s.mu.Lock()
		wait := s.dueIn()
		if wait == 0 || (s.closed && len(s.staged) == 0) {
			group = s.staged
			s.staged, s.waiting = c.spare[:0], 0
			more = len(group) > 0 || !s.closed
			s.mu.Unlock()
			return group, more
		}
		s.mu.Unlock()
		if wait < 0 {
			<-s.kick
			continue
		}
		select {
		case <-s.kick:
		case <-time.After(wait):
		}
	}
}

// dueIn is how long the staged batches may still gather; below 0 there are
// none. s.mu is held.
func (s *store) dueIn() time.Duration {
	switch {
	case len(s.staged) == 0:
		return -1
	case s.waiting > 0 || s.hurry > 0 || s.closed || s.pending.Load() > s.profile.staging/2:
		return 0
	}
	return max(0, linger-time.Since(s.staged[0].at))
}

// commit writes the first batches of group in one transaction, tells them, and
// says how many they were.
func (c *committer) commit(group []*staged) int {
	c.s.turn.Lock()
	n := c.apply(group)
	err := c.s.poisoned()
	if err == nil {
		c.finish()
		if e := c.s.write(&c.t); e != nil {
			err = c.s.fail(e)
		}
	}
	c.publish(err == nil)
	c.s.turn.Unlock()
	for _, st := range group[:n] {
		if st.err == nil {
			st.err = err
		}
		c.done(st)
	}
	return n
}

// apply applies batches until the transaction is full; one at least.
func (c *committer) apply(group []*staged) int {
	c.t.reset()
	var size, entries int64
	for i, st := range group {
		if i > 0 && (size+st.size > c.t.maxBytes || entries+st.entries > c.t.maxEntries) {
			return i
		}
		if st.err = c.s.lost(st.handle); st.err != nil {
			continue
		}
		size, entries = size+st.size, entries+st.entries
		c.touch(st.handle.part)
		st.handle.part.apply(st, &c.s.profile)
	}
	return len(group)
}

// touch locks a partition for the time of applying.
func (c *committer) touch(p *part) {
	if p.out == nil {
		p.mu.Lock()
		p.out = &c.t
		c.touched = append(c.touched, p)
	}
}

// finish puts what the partitions have still to write into the transaction,
// and lets readers go on while it is written.
func (c *committer) finish() {
	for _, p := range c.touched {
		p.finish(&c.s.profile)
	}
	c.unlock()
}

func (c *committer) unlock() {
	for _, p := range c.touched {
		if p.out != nil {
			p.out = nil
			p.mu.Unlock()
		}
	}
}

// publish lets readers see what was appended, if it was written.
func (c *committer) publish(written bool) {
	c.unlock()
	for _, p := range c.touched {
		p.mu.Lock()
		for _, l := range p.changedLogs {
			l.touched = false
			if written {
				l.visible = l.next
			}
		}
		p.changedLogs = p.changedLogs[:0]
		p.mu.Unlock()
	}
	clear(c.touched)
	c.touched = c.touched[:0]
}

// tidy deletes freed blocks for which there was no room, while there is
// nothing else to do.
func (c *committer) tidy() {
	for c.s.poisoned() == nil && c.s.idle() {
		c.s.turn.Lock()
		c.t.reset()
		for _, p := range c.s.untidy() {
			c.touch(p)
		}
		work := len(c.touched) > 0
		c.finish()
		if err := c.s.write(&c.t); err != nil {
			_ = c.s.fail(err)
		}
		c.publish(true)
		c.s.turn.Unlock()
		if !work {
			return
		}
	}
}

// idle says whether nothing is staged.
func (s *store) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.staged) == 0
}

// untidy is the partitions with freed blocks. The turn is held.
func (s *store) untidy() []*part {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []*part
	for _, p := range s.parts {
		if len(p.freed) > 0 {
			parts = append(parts, p)
		}
	}
	return parts
}

// done tells a batch, and whoever waits for its handle to settle.
func (c *committer) done(st *staged) {
	s, b, h := c.s, st.batch, st.handle
	if st.err == nil {
		s.count(b)
	}
	s.pending.Add(-st.size)
	if b.Done != nil {
		b.Done.Committed(b, st.err)
	}
	s.mu.Lock()
	h.inFlight--
	if h.inFlight == 0 {
		s.settled.Broadcast()
	}
	s.mu.Unlock()
	st.recycle()
}

func (s *store) count(b *core.Batch) {
	s.counts.commits.Add(1)
	s.counts.ops.Add(int64(ops(b)))
	s.counts.appends.Add(int64(len(b.Appends)))
	var n int64
	for i := range b.Appends {
		n += b.Appends[i].Message.Size()
	}
	s.counts.user.Add(n)
}
