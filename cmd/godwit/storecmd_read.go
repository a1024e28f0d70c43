package main

import (
	"context"
	"fmt"

	"github.com/godwitmq/godwit/core"
)

// A storeSum is what a store holds.
type storeSum struct {
	Logs       int            `json:"logs"`
	Messages   int64          `json:"messages"`
	Bytes      int64          `json:"bytes"` // of messages
	Cursors    int            `json:"cursors"`
	Records    int64          `json:"records"`
	Partitions []partitionSum `json:"partitions"`
}

// A partitionSum is what one shard's partition holds.
type partitionSum struct {
	Partition    int              `json:"partition"`
	Logs         int              `json:"logs"`
	Messages     int64            `json:"messages"`
	Bytes        int64            `json:"bytes"`
	Cursors      int              `json:"cursors"`
	Owed         int64            `json:"owed"`          // messages, by all cursors
	LongestOwed  int64            `json:"longest_owed"`  // by one cursor
	SettledHoles int              `json:"settled_holes"` // ranges settled out of order
	Records      int64            `json:"records"`
	ByTable      map[string]int64 `json:"records_by_table"`
}

// morePartitions bounds the search for partitions.
const morePartitions = 1024

// eachPartition opens the partitions from 0 on, until one that was never used.
func eachPartition(ctx context.Context, s core.Store, do func(i int, p core.Partition) error) error {
	for i := range morePartitions {
		p, err := s.Open(ctx, core.PartitionID(i))
		if err != nil {
			return fmt.Errorf("partition %d: %w", i, err)
		}
		unused := p.NextID() <= 1 && len(p.Logs()) == 0
		if !unused {
			err = do(i, p)
		}
		if closing := p.Close(ctx); err == nil {
			err = closing
		}
		if err != nil {
			return fmt.Errorf("partition %d: %w", i, err)
		}
		if unused {
			return nil
		}
	}
	return nil
}

// readStore reads every message and every record.
func readStore(ctx context.Context, s core.Store) (sum storeSum, err error) {
	err = eachPartition(ctx, s, func(i int, p core.Partition) error {
		one, err := countPartition(ctx, i, p)
		if err != nil {
			return err
		}
		for _, l := range p.Logs() {
			n, bytes, err := readLog(ctx, p, l.ID)
			if err != nil {
				return err
			}
			one.Messages += n
			one.Bytes += bytes
		}
		sum.add(one)
		return nil
	})
	return sum, err
}

// countStore counts without reading the messages.
func countStore(ctx context.Context, s core.Store) (sum storeSum, err error) {
	err = eachPartition(ctx, s, func(i int, p core.Partition) error {
		one, err := countPartition(ctx, i, p)
		if err != nil {
			return err
		}
		for _, l := range p.Logs() {
			one.Messages += l.Records
			one.Bytes += l.Bytes
		}
		sum.add(one)
		return nil
	})
	return sum, err
}

func (s *storeSum) add(p partitionSum) {
	s.Partitions = append(s.Partitions, p)
	s.Logs += p.Logs
	s.Messages += p.Messages
	s.Bytes += p.Bytes
	s.Cursors += p.Cursors
	s.Records += p.Records
}

// countPartition counts all but the messages.
func countPartition(ctx context.Context, i int, p core.Partition) (partitionSum, error) {
	one := partitionSum{Partition: i, Logs: len(p.Logs()), ByTable: map[string]int64{}}
	for _, c := range p.Cursors() {
		one.Cursors++
		one.Owed += c.Depth
		one.LongestOwed = max(one.LongestOwed, c.Depth)
		one.SettledHoles += len(c.Settled)
	}
	for t := range 256 {
		for _, err := range p.Scan(ctx, core.Table(t), nil) {
			if err != nil {
				return one, fmt.Errorf("table %d: %w", t, err)
			}
			one.Records++
			one.ByTable[tableName(core.Table(t))]++
		}
	}
	return one, nil
}

// tableName is what a table is called for people; core numbers them.
func tableName(t core.Table) string {
	names := [...]string{1: "meta", 2: "exchanges", 3: "queues", 4: "bindings", 5: "sessions", 6: "notes", 7: "retained", 8: "deliveries"}
	if int(t) < len(names) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("table %d", t)
}

// fetchDone is a core.FetchDone that sends.
type fetchDone chan error

func (f fetchDone) Fetched(_ *core.Fetch, err error) { f <- err }

// readLog reads a log to its end.
func readLog(ctx context.Context, p core.Partition, id core.LogID) (n, bytes int64, err error) {
	done := make(fetchDone, 1)
	for from := core.Offset(1); ctx.Err() == nil; {
		f := &core.Fetch{Log: id, From: from, Records: 1000, Bytes: 1 << 20, Done: done}
		if err := p.Fetch(f); err != nil {
			return n, bytes, fmt.Errorf("read log %d from %d: %w", id, from, err)
		}
		if err := <-done; err != nil {
			return n, bytes, fmt.Errorf("read log %d from %d: %w", id, from, err)
		}
		if len(f.Out) == 0 {
			return n, bytes, nil
		}
		for i := range f.Out {
			n++
			bytes += f.Out[i].Message.Size()
		}
		from = f.Next
	}
	return n, bytes, ctx.Err()
}
