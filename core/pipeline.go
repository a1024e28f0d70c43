package core

import (
	"sync"
	"sync/atomic"
)

// A Stage stands in the way of publications, as http middleware does in the
// way of requests: it calls next, now or later and from any goroutine, or
// settles the publication with Refuse.
type Stage func(next Next) Next

// A pipeline is the stages as one, ending in the broker's routing.
type pipeline struct {
	enter Next
	admit func(*Publication) bool // whether the stages have room; nil: always
}

// A gate lets publishers through, or has them wait for Again.
type gate struct {
	shut atomic.Bool

	mu      sync.Mutex
	waiting []*Outbox
}

// passes says whether o may go on; if not, it will get an Again.
func (g *gate) passes(o *Outbox) bool {
	if !g.shut.Load() {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut.Load() {
		g.waiting = append(g.waiting, o)
		return false
	}
	return true
}

// set shuts or opens the gate; opened, all who wait are told.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	var told []*Outbox
	g.shut.Store(shut)
	if !shut {
		told, g.waiting = g.waiting, nil
	}
	g.mu.Unlock()
	for _, o := range told {
		o.Again()
	}
}
