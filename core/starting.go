package core

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// New opens the store and brings back what it holds.
func New(o Options) (*Broker, error) {
	b := &Broker{
		options: o, now: o.Now, guard: o.Guard, store: o.Store, caps: o.Store.Caps(),
		fatal: make(chan struct{}), vhosts: make(map[string]*vhost),
	}
	b.setDefaults()
	for vhost, policies := range o.Policies {
		for i := range policies {
			if err := policies[i].Check(); err != nil {
				return nil, fmt.Errorf("policy %q of virtual host %s: %w", policies[i].Match, vhost, err)
			}
		}
	}
	if err := b.load(); err != nil {
		return nil, err
	}
	if !o.Manual {
		for _, s := range b.shards {
			b.running.Go(s.run)
		}
	}
	return b, nil
}

// load opens the partitions, the first one first: it knows how many there are.
func (b *Broker) load() error {
	for i := 0; i < b.options.Shards; i++ {
		s, stored, err := b.openShard(i)
		if err != nil {
			return fmt.Errorf("open partition %d: %w", i, err)
		}
		b.shards = append(b.shards, s)
		if i == 0 {
			b.options.Shards = max(b.options.Shards, stored)
			if stored != b.options.Shards {
				s.turn.batch.Records = append(s.turn.batch.Records, shardsRecord(b.options.Shards))
			}
		}
	}
	b.vhost("/")
	for _, name := range b.options.VHosts {
		b.vhost(name)
	}
	return nil
}

var (
	keyLog    = []byte("log")
	keyShards = []byte("shards")
)

func shardsRecord(n int) Record {
	return Record{Table: tableMeta, Key: keyShards, Value: strconv.AppendInt(nil, int64(n), 10)}
}

// openShard opens a partition and brings back what it holds. stored is how
// many shards the store was used with, as the first partition knows it.
func (b *Broker) openShard(i int) (s *shard, stored int, err error) {
	ctx := context.Background()
	p, err := b.store.Open(ctx, PartitionID(i))
	if err != nil {
		return nil, 0, err
	}
	s = b.newShard(i, p)
	l := &loader{shard: s, cursors: make(map[CursorID]CursorState), ends: make(map[LogID]Offset), now: b.now()}
	l.vhosts = func(name string) *vhost { return b.vhostAt(name, i) }
	for _, c := range p.Cursors() {
		l.cursors[c.ID] = c
	}
	for rec, err := range p.Scan(ctx, tableMeta, nil) {
		if err != nil {
			return nil, 0, err
		}
		switch string(rec.Key) {
		case string(keyLog):
			s.log = LogID(binary.BigEndian.Uint64(rec.Value))
		case string(keyShards):
			stored, _ = strconv.Atoi(string(rec.Value))
		default:
			if err := b.loadVHost(rec); err != nil {
				return nil, 0, err
			}
		}
	}
	if s.log == 0 {
		s.log = LogID(s.newID())
		s.turn.batch.Records = append(s.turn.batch.Records, Record{
			Table: tableMeta, Key: keyLog, Value: binary.BigEndian.AppendUint64(nil, uint64(s.log)),
		})
	}
	for _, log := range p.Logs() {
		if log.Next > 0 {
			l.ends[log.ID] = log.Next - 1
		}
	}
	l.last = l.ends[s.log]
	return s, stored, l.load(ctx, p)
}

// loadVHost brings a virtual host back to the shard it lives in: its name may
// hash to another by now.
func (b *Broker) loadVHost(rec Record) error {
	name, ok := strings.CutPrefix(string(rec.Key), metaVHost)
	if !ok {
		return nil
	}
	home, err := strconv.Atoi(string(rec.Value))
	if err != nil {
		return fmt.Errorf("read virtual host %q: %w", name, err)
	}
	b.vhostAt(name, home)
	return nil
}

// load reads the tables, those first that others refer to.
func (l *loader) load(ctx context.Context, p Partition) error {
	for _, t := range []struct {
		table Table
		name  string
		read  func(Record) error
	}{
		{tableExchanges, "exchange", l.exchange},
		{tableSessions, "session", l.session},
		{tableNotes, "note", l.note},
		{tableQueues, "queue", l.queue},
		{tableBindings, "binding", l.binding},
		{tableRetained, "retained value", l.retained},
		{tableDeliveries, "delivery mark", l.delivery},
		{tableDue, "delayed minute", l.bucket},
		{tableDedup, "minute of dedup ids", l.dedup},
		{tableProducers, "producer", l.producer},
	} {
		for rec, err := range p.Scan(ctx, t.table, nil) {
			if err == nil {
				err = t.read(rec)
			}
			if err != nil {
				return fmt.Errorf("read %s %q: %w", t.name, rec.Key, err)
			}
		}
	}
	return nil
}

func (l *loader) delivery(rec Record) error {
	place, err := strconv.ParseUint(string(rec.Key), 10, 64)
	if err != nil {
		return err
	}
	at, err := strconv.ParseUint(string(rec.Value), 10, 64)
	if err != nil {
		return err
	}
	q := l.shard.places[place]
	if q == nil {
		return nil
	}
	for _, lv := range q.levels {
		if lv.place != place {
			continue
		}
		// All may have been delivered that there was when the broker died.
		lv.watermark = min(Offset(at), l.last)
		lv.delivered, lv.mark, lv.markAsked = lv.watermark, lv.watermark, lv.watermark
		if lv.watermark != Offset(at) {
			l.shard.writeMark(lv, lv.watermark) // or the next crash would mark what is new since
		}
	}
	return nil
}
