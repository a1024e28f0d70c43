package badger

import (
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/core"
)

// counters are core.StoreStats in the making.
type counters struct {
	commits, ops, appends, user, fetches, frames atomic.Int64
	spilled, checkpoints, rewrites               atomic.Int64
	full                                         atomic.Int64 // frames there was no space for
	commitTimes, syncTimes                       times

	began        time.Time
	bytesAtStart int64 // written by the process before
}

// times counts durations by class.
type times struct {
	classes [len(core.StoreTimes) + 1]atomic.Int64
	sum     atomic.Int64
}

func (t *times) add(d time.Duration) {
	i := 0
	for i < len(core.StoreTimes) && d > time.Duration(core.StoreTimes[i])*time.Microsecond {
		i++
	}
	t.classes[i].Add(1)
	t.sum.Add(int64(d))
}

func (t *times) read() (classes [len(core.StoreTimes) + 1]int64, sum int64) {
	for i := range classes {
		classes[i] = t.classes[i].Load()
	}
	return classes, t.sum.Load()
}

func (c *counters) start() {
	c.began = time.Now()
	c.bytesAtStart = processWrites()
}

// Stats are the counters since Open. What the database writes is known from
// what the process does, less the journal's: it is mapped, and its writes are
// not calls.
func (s *store) Stats() core.StoreStats {
	j, d, c := s.journal.State(), s.db.Stats(), &s.counts
	st := core.StoreStats{
		Commits:      c.commits.Load(),
		Ops:          c.ops.Load(),
		Appends:      c.appends.Load(),
		Syncs:        j.Syncs,
		BytesUser:    c.user.Load(),
		Fetches:      c.fetches.Load(),
		Frames:       c.frames.Load(),
		Checkpoints:  c.checkpoints.Load(),
		Spilled:      c.spilled.Load(),
		Rewrites:     c.rewrites.Load(),
		Reclaims:     d.Reclaims,
		Dead:         s.dead(),
		Staged:       s.pending.Load(),
		JournalUsed:  float64(s.behindN.Load()) / float64(s.profile.segments),
		BytesJournal: j.BytesWritten,
		Since:        c.began.UnixMilli(),
		FlashBytes:   s.profile.flash.Capacity * s.profile.flash.Cycles,
	}
	if now := processWrites(); now > 0 {
		st.BytesDatabase = max(0, now-c.bytesAtStart-st.BytesJournal)
	} else {
		st.BytesDatabase = d.Bytes
	}
	st.BytesWritten = st.BytesJournal + st.BytesDatabase
	st.CommitTimes, st.CommitTime = c.commitTimes.read()
	st.SyncTimes, st.SyncTime = c.syncTimes.read()
	return st
}

// dead is what the database holds for nobody.
func (s *store) dead() (n int64) {
	for _, p := range s.allParts() {
		p.mu.RLock()
		n += p.deadBytes
		p.mu.RUnlock()
	}
	return n
}
