package core

import (
	"crypto/sha256"
	"slices"
	"time"
)

// What was published twice is kept once. Two ways to know it: an id of the
// publisher's own, remembered for a while (Message.Dedup), and numbers that
// rise with each publish of a producer (SessionSpec.Producer).

// Limits of what is remembered.
const (
	dedupWindow  = 10 * time.Minute // of a message that goes to no queue with a longer dedup_window
	maxDedup     = 1_000_000        // ids, a shard: beyond, the oldest minute is forgotten early
	maxProducers = 100_000          // a shard
	maxHoles     = 1000             // refused numbers that a producer may send again
	producerIdle = 7 * 24 * time.Hour
)

// firstUnnumbered is the first token of a producer's session that is no number.
const firstUnnumbered = 1 << 62

// A settler waits for the end of somebody else's publish: the same one.
type settler interface{ settle(err error) }

// A firstTime is a publish under way. Who sends it again meanwhile waits for
// how it ends.
type firstTime struct{ waiting []settler }

func (f *firstTime) settle(err error) {
	for _, w := range f.waiting {
		w.settle(err)
	}
}

// A dedupKey is an id and whose: virtual host, user, address.
type dedupKey [16]byte

// keyOf names a message. It is a hash: a million of them take 64 MB.
func keyOf(m *Message) (k dedupKey) {
	b := make([]byte, 0, 256)
	for _, s := range [...]string{m.Address.VHost, m.From.User, m.Address.Exchange, m.Address.Topic, m.Dedup} {
		b = append(append(b, s...), 0)
	}
	sum := sha256.Sum256(b)
	copy(k[:], sum[:])
	return k
}

// A dedupBook is the ids that a shard remembers, by the minute in which each
// is forgotten.
type dedupBook struct {
	minutes map[dedupKey]int64
	first   map[dedupKey]*firstTime
	buckets []*dedupBucket // by minute
}

// A dedupBucket is the ids that are forgotten in one minute: a log without
// cursors, which goes as a whole.
type dedupBucket struct {
	minute int64
	log    LogID
	keys   []dedupKey
}

func (d *dedupBook) remember(b *dedupBucket, k dedupKey) {
	if d.minutes == nil {
		d.minutes = make(map[dedupKey]int64)
		d.first = make(map[dedupKey]*firstTime)
	}
	d.minutes[k] = b.minute
	b.keys = append(b.keys, k)
}

// forget takes one id back.
func (d *dedupBook) forget(k dedupKey) { delete(d.minutes, k) }

// drop forgets a bucket's ids. One that was taken back and came again belongs
// to another minute.
func (d *dedupBook) drop(b *dedupBucket) {
	for _, k := range b.keys {
		if d.minutes[k] == b.minute && d.first[k] == nil {
			delete(d.minutes, k)
		}
	}
	d.buckets = slices.DeleteFunc(d.buckets, func(o *dedupBucket) bool { return o == b })
}

// A producer is who publishes with rising numbers, over connections and
// restarts.
type producer struct {
	vhost, user, pid string
	out              *Outbox // its connection, or nil
	used             time.Time
	last             uint64   // the highest that was taken
	safe             uint64   // the highest that is durable, and all that were taken below
	holes            []uint64 // refused: they may come again. They rise
	first            map[uint64]*firstTime
	listed           bool // its record goes with the turn that is being filled
}

// known is up to which number all is stored, or was refused and told.
func (p *producer) known() uint64 {
	if len(p.holes) > 0 {
		return min(p.safe, p.holes[0]-1)
	}
	return p.safe
}

// repeats says whether a number was taken before; f is not nil if it is not
// durable yet.
func (p *producer) repeats(n uint64) (f *firstTime, repeat bool) {
	if f := p.first[n]; f != nil {
		return f, true
	}
	if n > p.last {
		return nil, false
	}
	_, hole := slices.BinarySearch(p.holes, n)
	return nil, !hole
}

// accept takes a number.
func (p *producer) accept(n uint64) *firstTime {
	f := new(firstTime)
	if p.first == nil {
		p.first = make(map[uint64]*firstTime)
	}
	p.first[n] = f
	p.last = max(p.last, n)
	if i, hole := slices.BinarySearch(p.holes, n); hole {
		p.holes = slices.Delete(p.holes, i, i+1)
	}
	return f
}

// refuse notes that a number was refused: the same again is new.
func (p *producer) refuse(n uint64) {
	p.last = max(p.last, n)
	if i, hole := slices.BinarySearch(p.holes, n); !hole {
		p.holes = slices.Insert(p.holes, i, n)
	}
	if len(p.holes) > maxHoles {
		p.holes = slices.Delete(p.holes, 0, 1)
	}
}

// A once is a publish, or a submission, that is remembered with its batch.
type once struct {
	first    *firstTime
	producer *producer // number of it, or
	number   uint64
	key      dedupKey
}

type producerRecord struct {
	Last  uint64
	Used  int64    // unix ms
	Holes []uint64 `json:",omitempty"`
}

func (p *producer) key() []byte { return joinKey(p.vhost, p.user, p.pid) }
