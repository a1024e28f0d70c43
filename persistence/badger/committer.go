package badger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/journal"
)

// linger is how long a batch that nobody waits for may stay in memory. With a
// sync it is well below the 200 ms it is allowed.
const linger = 150 * time.Millisecond

// fullLinger is how long batches gather on a full disk.
const fullLinger = 20 * time.Millisecond

// A committer writes what has been staged. One goroutine runs it. A turn goes
//
//	take what has gathered
//	put as many batches as fit into one frame
//	write it and wait for its sync
//	hand it to the applier
//
// and again for the rest of what it took. One frame is in flight at a time:
// recovery rests on that.
type committer struct {
	s       *store
	spare   []*staged
	refused map[partSet]struct{} // route sets whose batch was refused: they are not defined
}

// A partSet is a route set of a partition.
type partSet struct {
	part *part
	id   core.RouteSetID
}

// defines notes which route sets a batch defines that will be written, or does
// not that is refused.
func (c *committer) defines(st *staged) {
	for i := range st.batch.Sets {
		set := partSet{st.handle.part, st.batch.Sets[i].ID}
		if st.err == nil {
			delete(c.refused, set)
		} else {
			if c.refused == nil {
				c.refused = map[partSet]struct{}{}
			}
			c.refused[set] = struct{}{}
		}
	}
}

// undefined refuses a batch that counts on one that was refused: its message
// would be nobody's.
func (c *committer) undefined(st *staged) error {
	if len(c.refused) == 0 {
		return nil
	}
	for i := range st.batch.Appends {
		r := st.batch.Appends[i].Routes
		if _, no := c.refused[partSet{st.handle.part, r}]; no && !definedIn(st.batch, r) {
			return fmt.Errorf("route set %d was in a batch for which there was no space: %w", r, core.ErrReadOnly)
		}
	}
	return nil
}

// A group is batches that share a fate: a frame, or an error. They are told in
// order.
type group struct {
	batches []*staged
	ats     []int64 // where in its segment each of them begins
	frame   journal.Frame
	err     error
}

var groupPool = sync.Pool{New: func() any { return new(group) }}

func (c *committer) run() {
	defer close(c.s.applier.frames)
	for {
		batches, more := c.take()
		for rest := batches; len(rest) > 0; {
			g := c.commit(rest)
			rest = rest[len(g.batches):]
			c.s.applier.take(g, len(rest) == 0)
		}
		clear(batches)
		c.spare = batches[:0]
		if !more {
			return
		}
	}
}

// take waits for batches that are due and takes all there are. more is false
// once the store is closed and none are left.
func (c *committer) take() (batches []*staged, more bool) {
	s := c.s
	for {
		s.mu.Lock()
		wait := s.dueIn()
		if wait == 0 || (s.closed && len(s.staged) == 0) {
			batches = s.staged
			s.staged, s.waiting = c.spare[:0], 0
			more = len(batches) > 0 || !s.closed
			s.mu.Unlock()
			return batches, more
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
	case s.readOnly() && s.hurry == 0 && !s.closed: // what is left of the journal must last
		return max(0, fullLinger-time.Since(s.staged[0].at))
	case s.waiting > 0 || s.hurry > 0 || s.closed || s.pending.Load() > s.profile.staging/2:
		return 0
	}
	return max(0, linger-time.Since(s.staged[0].at))
}

// commit writes the first batches of all in one frame.
func (c *committer) commit(all []*staged) *group {
	s := c.s
	s.turn.Lock()
	defer s.turn.Unlock()
	g := groupPool.Get().(*group)
	buf := append(s.journal.Buffer(), frameVersion)
	head, most := len(buf)-1, s.journal.MaxPayload()
	for _, st := range all {
		if len(buf)-head+len(st.encoded)+binary.MaxVarintLen64 > most && len(g.batches) > 0 {
			break
		}
		if st.err = s.lost(st.handle); st.err == nil {
			st.err = c.undefined(st)
		}
		c.defines(st)
		buf = g.add(buf, head, st)
	}
	if len(buf) > head+1 {
		g.frame, g.err = c.write(buf)
	}
	if errors.Is(g.err, core.ErrReadOnly) {
		c.withoutMessages(g)
	}
	return g
}

// add puts a batch into the frame, whose payload begins at head, if it has no
// error yet.
func (g *group) add(buf []byte, head int, st *staged) []byte {
	at := 0
	if st.err == nil {
		buf, at = appendFrame(buf, st)
	}
	g.batches, g.ats = append(g.batches, st), append(g.ats, int64(at-head))
	return buf
}

// withoutMessages writes of a frame for which there was no space the batches
// that have no messages, and refuses the others: to settle what is stored
// gives space, and is never refused. If there is no space for that either it
// waits, and so do they: what is settled must not be told in another order.
func (c *committer) withoutMessages(g *group) {
	refused := g.err
	batches := g.batches
	for {
		g.batches, g.ats, g.err = nil, g.ats[:0], nil
		buf := append(c.s.journal.Buffer(), frameVersion)
		head := len(buf) - 1
		for _, st := range batches {
			if st.err == nil && len(st.batch.Appends) > 0 {
				st.err = refused
			}
			c.defines(st)
			buf = g.add(buf, head, st)
		}
		if len(buf) > head+1 {
			g.frame, g.err = c.write(buf)
		}
		if !errors.Is(g.err, core.ErrReadOnly) || c.s.isClosed() {
			return
		}
		time.Sleep(fullAgain)
	}
}

// fullAgain is when a frame is tried again for which there was no space.
const fullAgain = 100 * time.Millisecond

func (s *store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// write writes a frame and waits for its sync.
func (c *committer) write(buf []byte) (journal.Frame, error) {
	s := c.s
	if err := s.poisoned(); err != nil {
		return journal.Frame{}, err
	}
	if s.beforeWrite != nil {
		if err := s.beforeWrite(); err != nil {
			return journal.Frame{}, s.fail(err)
		}
	}
	begun := time.Now()
	f, err := s.journal.Write(buf)
	switch {
	case err == nil:
		s.counts.frames.Add(1)
		s.counts.syncTimes.add(time.Since(begun))
		return f, nil
	case errors.Is(err, journal.ErrFull):
		s.counts.full.Add(1)
		return f, fmt.Errorf("%w: %w", err, core.ErrReadOnly)
	}
	return f, s.fail(err)
}

// An applier takes frames that are on the disk into memory, and tells their
// batches, while the committer waits for the next sync.
type applier struct {
	s      *store
	frames chan *group
	queued atomic.Int64 // groups in frames or under way
	locked []*part
	src    source
}

func (a *applier) run() {
	defer close(a.s.ended)
	for g := range a.frames {
		a.tell(g)
		a.queued.Add(-1)
	}
}

// take takes a group over from the committer: to the applier's goroutine, or, if
// that has nothing to do and the committer has nothing to write, at once. To
// wake a goroutine costs as much as to apply a hundred messages.
func (a *applier) take(g *group, last bool) {
	if last && a.queued.Load() == 0 && a.s.idle() {
		a.tell(g)
		return
	}
	a.queued.Add(1)
	a.frames <- g
}

// idle says whether nothing is staged.
func (s *store) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.staged) == 0
}

// tell applies a group and answers its batches.
func (a *applier) tell(g *group) {
	if g.err == nil {
		a.apply(g)
	}
	for _, st := range g.batches {
		if st.err == nil {
			st.err = g.err
		}
		a.s.done(st)
	}
	clear(g.batches)
	*g = group{batches: g.batches[:0], ats: g.ats[:0]}
	groupPool.Put(g)
}

// apply applies a frame. Readers see all of it or nothing.
func (a *applier) apply(g *group) {
	for i, st := range g.batches {
		if st.err != nil {
			continue
		}
		p := st.handle.part
		if !p.applying {
			p.mu.Lock()
			p.applying = true
			a.locked = append(a.locked, p)
		}
		a.src = source{
			batch: st.batch, runs: st.runs, sizes: st.sizes,
			commit: g.frame.Commit, segment: g.frame.Segment, at: g.frame.At + g.ats[i],
		}
		if err := p.apply(&a.src); err != nil && g.err == nil {
			g.err = a.s.fail(err)
		}
	}
	for _, p := range a.locked {
		p.applying = false
		p.mu.Unlock()
	}
	for i := range a.locked {
		a.locked[i].forgetEnds()
		a.locked[i] = nil
	}
	a.locked = a.locked[:0]
	if g.frame.Segment > 0 { // else nothing was written: its batches have lost their owner, or were refused
		a.s.points.applied(g.frame.Segment, g.frame.Commit)
	}
}

// done tells a batch, and whoever waits for its handle to settle.
func (s *store) done(st *staged) {
	b, h := st.batch, st.handle
	if st.err == nil {
		s.count(st)
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

func (s *store) count(st *staged) {
	s.counts.commits.Add(1)
	s.counts.ops.Add(int64(ops(st.batch)))
	s.counts.appends.Add(int64(len(st.batch.Appends)))
	var n int64
	for _, size := range st.sizes {
		n += size
	}
	s.counts.user.Add(n)
	s.counts.commitTimes.add(time.Since(st.at))
}
