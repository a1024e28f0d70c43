package core

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stepOnce takes a publish that can be recognised when it comes again.
func (s *shard) stepOnce(p *Publication, key string, asked bool) {
	o, err := s.recognise(p)
	switch {
	case err != nil:
		s.refuse(p, err)
		return
	case o == nil:
		return // it was there before
	}
	window, err := s.admit(p, key, asked)
	if err != nil {
		if o.producer != nil {
			o.producer.refuse(o.number)
		}
		s.refuse(p, err)
		return
	}
	if p.number > 0 || p.message.Dedup != "" {
		s.remember(o, window)
	}
	if p.message.QoS == 0 {
		p.settle(nil)
		return
	}
	s.turn.pubs = append(s.turn.pubs, p)
	s.turn.batch.Wait = true
}

// recognise says what is new of a publish. A repeat is settled, now or with
// the first: then there is nothing.
func (s *shard) recognise(p *Publication) (*once, *Error) {
	if p.number == 0 && p.message.Dedup == "" {
		return new(once), nil // its submission is recognised as a whole
	}
	if p.number > 0 {
		pr := s.producerOf(p.out)
		if pr == nil {
			return nil, ErrTakenOver
		}
		f, repeat := pr.repeats(p.number)
		if repeat {
			s.repeated(p, p.message, f)
			return nil, nil //nolint:nilnil // there is nothing to do and nothing wrong
		}
		return &once{producer: pr, number: p.number}, nil
	}
	k := keyOf(p.message)
	if _, repeat := s.dedup.minutes[k]; repeat {
		p.targets = 1
		s.repeated(p, p.message, s.dedup.first[k])
		return nil, nil //nolint:nilnil // as above
	}
	return &once{key: k}, nil
}

func (s *shard) repeated(w settler, m *Message, f *firstTime) {
	where := Address{}
	if m != nil {
		where = m.Address
	}
	s.fates.record(Fate{At: s.env.now, Reason: ReasonDuplicate, Address: where})
	if f != nil {
		f.waiting = append(f.waiting, w)
		return
	}
	w.settle(nil)
}

// producerOf is the producer whose connection that is, or nil if another has
// taken it over.
func (s *shard) producerOf(out *Outbox) *producer {
	if st := s.attached[out]; st != nil && st.producer != nil && st.producer.out == out {
		return st.producer
	}
	return nil
}

// admit routes a publish as a session would, and says for how long its id is
// to be remembered.
func (s *shard) admit(p *Publication, key string, asked bool) (time.Duration, *Error) {
	m := p.message
	p.targets = 1
	if m.NotBefore.After(s.env.now) {
		return dedupWindow, s.putLater(m)
	}
	v := s.vhost(m.Address.VHost)
	way, err := v.route(&m.Address, m, nil)
	if err == nil && way.missing && !m.Must {
		if e := s.mayDeclareOnUse(m.Address.Topic); e != nil {
			return 0, e
		}
		s.declareQueue(v, QueueSpec{Name: m.Address.Topic}, nil)
		way, err = v.route(&m.Address, m, nil)
	}
	if err != nil {
		return 0, AsError(err)
	}
	if e := wayRefusal(way, m); e != nil {
		return 0, e
	}
	size, window := m.Size(), dedupWindow
	for _, route := range way.shards {
		if m.QoS > 0 && !asked {
			if e := s.refusal(m, size, key, route); e != nil {
				return 0, e
			}
		}
		for i := range route.targets {
			window = max(window, route.targets[i].ref.queue.spec.DedupWindow)
		}
	}
	if m.Retain && m.Address.Exchange == TopicExchange && !asked {
		if e := s.mayRetain(m); e != nil {
			return 0, e
		}
	}
	p.targets = uint64(way.targets())
	s.live(way, m, p.out)
	for _, route := range way.shards {
		s.place(m, key, route, size)
	}
	s.keepValue(m)
	return window, nil
}

// mayAdmit asks what admit would refuse, of a publish in a submission.
func (s *shard) mayAdmit(p *submitted) *Error {
	m := p.pub.message
	if _, repeat := s.dedup.minutes[keyOf(m)]; repeat && m.Dedup != "" {
		return nil
	}
	if m.NotBefore.After(s.env.now) {
		_, err := s.bucketOf(m.NotBefore)
		return err
	}
	v := s.vhost(m.Address.VHost)
	way, err := v.route(&m.Address, m, nil)
	switch {
	case err != nil:
		return AsError(err)
	case way.missing && !m.Must:
		return s.mayDeclareOnUse(m.Address.Topic)
	}
	if e := wayRefusal(way, m); e != nil {
		return e
	}
	for _, route := range way.shards {
		if e := s.refusal(m, m.Size(), p.key, route); m.QoS > 0 && e != nil {
			return e
		}
	}
	if m.Retain && m.Address.Exchange == TopicExchange {
		return s.mayRetain(m)
	}
	return nil
}

// remember notes a publish in the batch that holds it.
func (s *shard) remember(o *once, window time.Duration) {
	if o.producer != nil {
		o.first = o.producer.accept(o.number)
		s.producerRecord(o.producer)
		s.turn.once = append(s.turn.once, *o)
		return
	}
	b := s.dedupBucket(s.env.now.Add(window))
	o.first = new(firstTime)
	s.dedup.remember(b, o.key)
	s.dedup.first[o.key] = o.first
	s.turn.batch.Appends = append(s.turn.batch.Appends, Append{Log: b.log, Message: &Message{Dedup: string(o.key[:])}})
	s.turn.once = append(s.turn.once, *o)
}

// producerRecord sees to it that a producer's record is in this turn.
func (s *shard) producerRecord(p *producer) {
	p.used = s.env.now
	if !p.listed {
		p.listed = true
		s.turn.producers = append(s.turn.producers, p)
	}
}

// dedupBucket finds or makes the bucket of the ids that are forgotten after a
// time.
func (s *shard) dedupBucket(until time.Time) *dedupBucket {
	d := &s.dedup
	for len(d.minutes) >= maxDedup && len(d.buckets) > 1 { // early: counted, and said
		s.fates.record(Fate{At: s.env.now, Reason: ReasonOverflow, Place: "dedup", Text: fmt.Sprintf("%d ids are forgotten before their time", len(d.buckets[0].keys))})
		s.dropDedup(d.buckets[0])
	}
	minute := until.Unix()/60 + 1
	i, found := slices.BinarySearchFunc(d.buckets, minute, func(b *dedupBucket, m int64) int { return int(b.minute - m) })
	if found {
		return d.buckets[i]
	}
	b := &dedupBucket{minute: minute, log: LogID(s.newID())}
	d.buckets = slices.Insert(d.buckets, i, b)
	s.turn.batch.Records = append(s.turn.batch.Records, Record{
		Table: tableDedup, Key: bucketKey(minute), Value: binary.BigEndian.AppendUint64(nil, uint64(b.log)),
	})
	return b
}

func (s *shard) dropDedup(b *dedupBucket) {
	s.dedup.drop(b)
	s.turn.batch.Trims = append(s.turn.batch.Trims, Trim{Log: b.log, Before: MaxOffset})
	s.turn.batch.Records = append(s.turn.batch.Records, Record{Table: tableDedup, Key: bucketKey(b.minute)})
}

// tickOnce forgets ids and producers whose time is over.
func (s *shard) tickOnce() {
	for len(s.dedup.buckets) > 0 && s.dedup.buckets[0].minute <= s.minute() && s.clockIsSet() {
		s.dropDedup(s.dedup.buckets[0])
	}
	if s.env.now.Before(s.sweep) {
		return
	}
	s.sweep = s.env.now.Add(time.Minute)
	for name, p := range s.producers {
		if p.out == nil && len(p.first) == 0 && s.env.now.Sub(p.used) > producerIdle {
			delete(s.producers, name)
			s.turn.batch.Records = append(s.turn.batch.Records, Record{Table: tableProducers, Key: p.key()})
		}
	}
}

// stepRefused notes a number that was refused before it came here.
func (s *shard) stepRefused(c *command) {
	if p := s.producerOf(c.out); p != nil {
		if _, repeat := p.repeats(c.tag.Seq); !repeat {
			p.refuse(c.tag.Seq)
		}
	}
}

// stepRepeat takes a submission with a number: it says false if it is new, and
// settles it if it is not.
func (s *shard) stepRepeat(sub *submission) (o *once, done bool) {
	if sub.number == 0 {
		return nil, false
	}
	pr := s.producerOf(sub.out)
	if pr == nil {
		s.abandon(sub, ErrTakenOver)
		return nil, true
	}
	f, repeat := pr.repeats(sub.number)
	if repeat {
		s.repeated(sub, nil, f)
		return nil, true
	}
	return &once{producer: pr, number: sub.number}, false
}

// settle is the end of a submission that was done before: each part settles.
func (sub *submission) settle(err error) {
	for _, p := range sub.pubs {
		p.pub.settle(err)
	}
	if sub.settles() {
		sub.group.settle(err)
	}
}

// producer brings a producer back.
func (l *loader) producer(rec Record) error {
	parts := strings.SplitN(string(rec.Key), "\x00", 3)
	var r producerRecord
	if err := json.Unmarshal(rec.Value, &r); err != nil {
		return err
	}
	p := &producer{vhost: parts[0], user: parts[1], pid: parts[2], last: r.Last, safe: r.Last, holes: r.Holes, used: time.UnixMilli(r.Used)}
	l.shard.producers[string(rec.Key)] = p
	return nil
}

// dedup brings the ids of a minute back.
func (l *loader) dedup(rec Record) error {
	minute, err := strconv.ParseInt(strings.TrimLeft(string(rec.Key), "0"), 10, 64)
	if err != nil {
		return err
	}
	if len(rec.Value) != 8 {
		return fmt.Errorf("%d octets, want 8", len(rec.Value))
	}
	b := &dedupBucket{minute: minute, log: LogID(binary.BigEndian.Uint64(rec.Value))}
	d := &l.shard.dedup
	d.buckets = append(d.buckets, b) // they come in order
	if minute <= l.now.Unix()/60 {
		return nil // the first tick drops it
	}
	for from := Offset(0); ; {
		f := &Fetch{Log: b.log, From: from, Records: 8192, Bytes: 1 << 20}
		if err := fetchNow(l.shard.store, f); err != nil {
			return err
		}
		for i := range f.Out {
			var k dedupKey
			copy(k[:], f.Out[i].Message.Dedup)
			d.remember(b, k)
		}
		if len(f.Out) == 0 {
			return nil
		}
		from = f.Next
	}
}

// fetchNow waits for what the store has. Only who starts may wait.
func fetchNow(p Partition, f *Fetch) error {
	done := make(waited, 1)
	f.Done = done
	if err := p.Fetch(f); err != nil {
		return err
	}
	return <-done
}

type waited chan error

// Fetched is the store's answer.
func (w waited) Fetched(_ *Fetch, err error) { w <- err }
