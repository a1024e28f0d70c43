package core

import "slices"

// A keyGroup is the messages of one key in a queue that is keyed: while some
// are in flight with a consumer, the others are for it too, and wait here if
// it cannot take them.
type keyGroup struct {
	key     string
	con     *consumer // has them in flight
	flying  int
	waiting []*entry // oldest first; they count as ready
}

// Limits of what waits for the consumer of its key while others go past it:
// with more the queue waits.
const (
	maxAside      = 10_000
	maxAsideBytes = 4 << 20
)

// groups are the keys of a queue that have messages in flight or waiting.
type groups struct {
	byKey   map[string]*keyGroup
	waiters []*keyGroup // have waiting ones
	aside   int
	bytes   int64
}

func (g *groups) full() bool { return g.aside >= maxAside || g.bytes >= maxAsideBytes }

// of is the group of a key; "" has none.
func (g *groups) of(key string) *keyGroup {
	if key == "" {
		return nil
	}
	return g.byKey[key]
}

// fly notes a delivery.
func (g *groups) fly(key string, c *consumer) {
	if key == "" {
		return
	}
	group := g.byKey[key]
	if group == nil {
		if g.byKey == nil {
			g.byKey = make(map[string]*keyGroup)
		}
		group = &keyGroup{key: key}
		g.byKey[key] = group
	}
	group.con = c
	group.flying++
}

// land notes that a delivery is over.
func (g *groups) land(key string) {
	group := g.of(key)
	if group == nil {
		return
	}
	if group.flying--; group.flying == 0 {
		group.con = nil
		g.drop(group)
	}
}

// drop forgets a group that has nothing.
func (g *groups) drop(group *keyGroup) {
	if len(group.waiting) > 0 {
		return
	}
	if i := slices.Index(g.waiters, group); i >= 0 {
		g.waiters = slices.Delete(g.waiters, i, i+1)
	}
	if group.flying == 0 {
		delete(g.byKey, group.key)
	}
}

// wait puts an entry behind the others of its key.
func (g *groups) wait(group *keyGroup, e *entry) {
	if len(group.waiting) == 0 {
		g.waiters = append(g.waiters, group)
	}
	group.waiting = append(group.waiting, e)
	g.aside++
	g.bytes += e.size
}

// take takes the first that waits.
func (g *groups) take(group *keyGroup) *entry {
	e := group.waiting[0]
	group.waiting[0] = nil
	if group.waiting = group.waiting[1:]; len(group.waiting) == 0 {
		group.waiting = nil
	}
	g.aside--
	g.bytes -= e.size
	return e
}
