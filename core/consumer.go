package core

import (
	"sync/atomic"
	"time"
)

// A consumer is a reader's place at a queue.
type consumer struct {
	id        uint32
	out       *Outbox
	place     uint64 // of its queue
	credit    int64
	bytes     int64 // credit in bytes, if limited; one delivery may overdraw it
	limited   bool
	auto      bool
	lease     time.Duration
	priority  int
	exclusive bool
	takeOver  bool
	peek      bool // reads without taking
	pulling   bool
	until     time.Time
	pulled    uint64
	delivered uint64
	gone      bool
	over      atomic.Bool // refused or ended by the broker: its number is free again
}

func (c *consumer) ready() bool {
	return c.credit > 0 && (!c.limited || c.bytes > 0)
}

func (c *consumer) grant(by Credit) {
	c.credit += by.Messages
	if by.Bytes > 0 {
		c.limited = true
		c.bytes += by.Bytes
	}
}

func (c *consumer) endPull(err error) {
	c.pulling = false
	c.credit, c.bytes = 0, 0
	c.out.put(Event{Kind: Drained, Sub: c.id, N: c.pulled, Err: err})
	c.pulled = 0
}
