package core

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A message with a delay goes into the log of its minute, and is confirmed
// when it is there. When it is due it is routed as a publish is, and leaves its
// minute in the same batch. The bucket of this minute and of the next are in
// memory, at most maxHeld of each; the others are numbers.

// Limits of what is delayed.
const (
	maxBuckets = 50_000 // different minutes, a shard
	maxFire    = 8192   // messages a round
	maxUnfired = 4      // batches under way while more are fired
)

type bucketRecord struct{ Log, Cursor uint64 }

func bucketKey(minute int64) []byte { return fmt.Appendf(nil, "%020d", minute) }

// putLater puts a message into its minute, with this turn.
func (s *shard) putLater(m *Message) *Error {
	b, err := s.bucketOf(m.NotBefore)
	if err != nil {
		return err
	}
	b.count++
	s.due.pending.Add(1)
	s.turn.delayed = append(s.turn.delayed, delayedAdd{b, len(s.turn.batch.Appends)})
	s.turn.batch.Appends = append(s.turn.batch.Appends, Append{Log: b.log, Message: m, Routes: Solo(b.cursor)})
	s.turn.bytes += int(m.Size())
	return nil
}

// stepDelay takes a publish that is not due yet.
func (s *shard) stepDelay(p *Publication) {
	if err := s.putLater(p.message); err != nil {
		s.refuse(p, err)
		return
	}
	if p.message.QoS == 0 {
		p.settle(nil)
		return
	}
	s.turn.pubs = append(s.turn.pubs, p)
	s.turn.batch.Wait = true
}

// bucketOf finds or makes the bucket of a time.
func (s *shard) bucketOf(at time.Time) (*bucket, *Error) {
	minute := at.Unix() / 60
	i, found := s.due.find(minute)
	if found {
		return s.due.buckets[i], nil
	}
	if len(s.due.buckets) >= maxBuckets {
		return nil, &Error{Code: CodeQuota, Reason: ReasonQueueFull, Text: "messages are delayed into too many different minutes: " + strconv.Itoa(maxBuckets)}
	}
	b := &bucket{minute: minute, log: LogID(s.newID()), cursor: CursorID(s.newID())}
	if minute <= s.minute()+1 { // nothing of it is on the disk
		b.loaded, b.bound = true, whole
	}
	s.due.buckets = slices.Insert(s.due.buckets, i, b)
	s.turn.batch.Cursors = append(s.turn.batch.Cursors, CursorOp{ID: b.cursor, Log: b.log})
	s.turn.batch.Records = append(s.turn.batch.Records, Record{
		Table: tableDue, Key: bucketKey(minute), Value: encodeRecord(bucketRecord{uint64(b.log), uint64(b.cursor)}),
	})
	return b, nil
}

func (s *shard) minute() int64 { return s.env.now.Unix() / 60 }

// clockIsSet says whether the time can be right. A machine without a battery
// wakes up in 1970: until its clock is set nothing is due.
func (s *shard) clockIsSet() bool { return s.env.now.Year() >= 2020 }

// fireDue routes what is due, as much as a round takes.
func (s *shard) fireDue() {
	if s.due.stuck || !s.clockIsSet() {
		return
	}
	now, fired := s.env.now.UnixMilli(), 0
	for _, b := range s.due.buckets {
		if b.minute > s.minute() {
			return
		}
		for len(b.held) > 0 && b.held[0].at <= now {
			if fired >= maxFire || len(s.sealed)+len(s.inFlight) >= maxUnfired || s.due.lateBytes > maxHeld {
				return
			}
			if s.health().ReadOnly {
				s.due.stuck = true
				return
			}
			s.fire(b, b.first())
			fired++
			s.sealIfFull()
		}
	}
}

// fire routes one message. One that a queue does not take now is late: it is
// tried again with each tick.
func (s *shard) fire(b *bucket, it dueItem) {
	m := it.message
	ways, err := s.dueWay(m)
	if err != nil {
		s.fates.record(Fate{At: s.env.now, Reason: err.Reason, Address: m.Address, Place: "delayed", Text: err.Text})
		s.fired(b, it)
		return
	}
	size := m.Size()
	for _, route := range ways.shards {
		if m.QoS > 0 && s.refusal(m, size, "", route) != nil {
			s.due.late = append(s.due.late, firing{b, it})
			s.due.lateBytes += it.size
			return
		}
	}
	s.live(ways, m, nil)
	for _, route := range ways.shards {
		s.place(m, "", route, size)
	}
	s.keepValue(m)
	s.fired(b, it)
}

// dueWay is where a message goes whose time has come, or why it ends.
func (s *shard) dueWay(m *Message) (*routes, *Error) {
	if m.Expired(s.env.now) {
		return nil, &Error{Reason: ReasonExpired, Text: "it expired before it was due"}
	}
	v := s.vhost(m.Address.VHost)
	way, err := v.route(&m.Address, m, nil)
	if err == nil && way.missing {
		if e := s.mayDeclareOnUse(m.Address.Topic); e != nil {
			return nil, &Error{Reason: ReasonNoTarget, Text: e.Text}
		}
		s.declareQueue(v, QueueSpec{Name: m.Address.Topic}, nil)
		way, err = v.route(&m.Address, m, nil)
	}
	switch {
	case err != nil:
		return nil, &Error{Reason: ReasonNoTarget, Text: err.Error()}
	case way.targets() == 0 && !m.Retain:
		return nil, &Error{Reason: ReasonNoTarget, Text: "nobody wanted it when it was due"}
	}
	return way, nil
}

// fired settles a message in its minute, with this turn.
func (s *shard) fired(b *bucket, it dueItem) {
	acks := s.turn.batch.Acks
	if n := len(acks) - 1; n >= 0 && acks[n].Cursor == b.cursor && acks[n].To == it.offset {
		acks[n].To, acks[n].N, acks[n].Bytes = it.offset+1, acks[n].N+1, acks[n].Bytes+it.size
	} else {
		s.turn.batch.Acks = append(acks, Ack{Cursor: b.cursor, From: it.offset, To: it.offset + 1, N: 1, Bytes: it.size})
	}
	s.turn.fired = append(s.turn.fired, firing{b, it})
}

// tickDue tries again what was late, reads what is due soon and lets go of
// minutes that are over.
func (s *shard) tickDue() {
	d := &s.due
	d.stuck = false
	for _, f := range d.late {
		f.bucket.hold(f.item)
	}
	d.late, d.lateBytes = nil, 0
	minute := s.minute()
	d.buckets = slices.DeleteFunc(d.buckets, func(b *bucket) bool {
		if b.count > 0 || b.minute >= minute || b.scanning {
			return false
		}
		s.dropBucket(b)
		return true
	})
	s.loadDue()
}

func (s *shard) dropBucket(b *bucket) {
	batch := &s.turn.batch
	batch.Cursors = append(batch.Cursors, CursorOp{ID: b.cursor, Log: b.log, Drop: true})
	batch.Trims = append(batch.Trims, Trim{Log: b.log, Before: MaxOffset})
	batch.Records = append(batch.Records, Record{Table: tableDue, Key: bucketKey(b.minute)})
}

// loadDue reads the next slice of what is due within two minutes: one bucket
// at a time, the oldest first, and no more than there is room for.
func (s *shard) loadDue() {
	held := int64(0)
	for _, b := range s.due.buckets {
		if b.minute > s.minute()+1 || b.scanning {
			return
		}
		if held += b.heldBytes; held > 2*maxHeld {
			return
		}
		if b.wantsScan(maxHeld) {
			b.startScan()
			s.scanBucket(b)
			return
		}
	}
}

func (s *shard) scanBucket(b *bucket) {
	f := &fetched{bucket: b, shard: s}
	f.fetch = &Fetch{Log: b.log, Cursor: b.cursor, From: b.scanFrom, Records: 4 * fetchRecords, Bytes: 4 * fetchBytes, Done: f}
	if s.store.Fetch(f.fetch) != nil {
		b.abortScan() // the next tick tries again
	}
}

// stepScanned takes what was read of a bucket.
func (s *shard) stepScanned(f *fetched) {
	b := f.bucket
	if f.err != nil {
		b.abortScan()
		s.fates.record(Fate{At: s.env.now, Reason: ReasonUnavailable, Place: "delayed", Text: "a minute of delayed messages cannot be read; it is tried again", By: f.err.Error()})
		return
	}
	if !b.scanned(f.fetch.Out, f.fetch.Next, maxHeld) {
		s.scanBucket(b)
		return
	}
	s.loadDue()
}

// bucket brings a minute back.
func (l *loader) bucket(rec Record) error {
	minute, err := strconv.ParseInt(strings.TrimLeft(string(rec.Key), "0"), 10, 64)
	if err != nil {
		return err
	}
	var r bucketRecord
	if err := json.Unmarshal(rec.Value, &r); err != nil {
		return err
	}
	s := l.shard
	b := &bucket{minute: minute, log: LogID(r.Log), cursor: CursorID(r.Cursor), last: l.ends[LogID(r.Log)]}
	b.count = l.cursors[b.cursor].Depth
	i, _ := s.due.find(minute)
	s.due.buckets = slices.Insert(s.due.buckets, i, b)
	s.due.pending.Add(b.count)
	return nil
}
