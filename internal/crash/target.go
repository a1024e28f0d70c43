package main

// A target is one place that keeps copies of messages: a queue, or the session
// of an MQTT subscriber. One consumer at a time reads it. The ledger's mutex
// guards it.
type target struct {
	name   string
	ledger *ledger
	copies []*copies // by publisher; nil: nothing of it comes here

	entries   map[uint64]message // delivered, the acknowledgement not answered; by the entry's number
	settled   sparse             // entries whose acknowledgement was answered
	waiting   int                // acknowledgements sent on this connection and not answered
	delivered uint64
	again     uint64 // of these marked as redelivered
	answered  uint64
}

// message names one message of one publisher.
type message struct {
	publisher int
	number    uint64
}

// copies is what of one publisher has come to a target.
type copies struct {
	seen  []uint8 // by number: came, acked
	above int     // all first deliveries were below
}

const (
	came  uint8 = 1 << iota
	acked       // an acknowledgement was sent: it may be settled
)

func (l *ledger) newTarget(name string, from ...*book) *target {
	t := &target{name: name, ledger: l, entries: map[uint64]message{}, settled: sparse{}}
	t.copies = make([]*copies, len(l.books))
	for _, b := range from {
		t.copies[b.number] = &copies{}
	}
	l.targets = append(l.targets, t)
	return t
}

func (c *copies) missing(b *book, n int) bool {
	return b.answered(n) && (n >= len(c.seen) || c.seen[n]&acked == 0)
}

// A delivery is one message as a consumer got it.
type delivery struct {
	body  []byte
	entry uint64 // the same on each redelivery; 0 where the protocol has no such number
	again bool   // it says that it may have come before
}

// deliver checks what has come and returns which message it is.
func (t *target) deliver(d delivery) (message, bool) {
	l := t.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moves++
	t.delivered++
	if d.again {
		t.again++
	}
	p, n, err := readBody(d.body, l.spare, l.seed)
	if err != nil {
		l.faults.add(changed, "%s: %v", t.name, err)
		return message{}, false
	}
	if p >= len(t.copies) || t.copies[p] == nil || n >= uint64(len(l.books[p].state)) {
		l.faults.add(changed, "%s: message %d of publisher %d, which nobody sent here", t.name, n, p)
		return message{}, false
	}
	m := message{p, n}
	if t.identify(m, d) {
		t.first(m)
	}
	l.books[p].moved.Signal()
	return m, true
}

// identify compares the delivery with what came before, and says whether it
// is the first of its message.
func (t *target) identify(m message, d delivery) bool {
	b, f := t.ledger.books[m.publisher], &t.ledger.faults
	c := t.copies[m.publisher]
	for len(c.seen) <= int(m.number) {
		c.seen = append(c.seen, 0)
	}
	before := c.seen[m.number]&came != 0
	if d.entry == 0 && d.again {
		return !before
	}
	if d.entry != 0 && t.recognise(m, d) {
		return false
	}
	// A new entry, or one that does not say that it is an old one.
	if before && (b.policy == repeated || b.state[m.number]&sentAgain == 0) {
		f.add(doubled, "%s: message %d of %s, entry %d", t.name, m.number, b.name, d.entry)
	}
	return !before
}

// recognise says whether the entry has come before, and what is wrong with it
// then.
func (t *target) recognise(m message, d delivery) bool {
	b, f := t.ledger.books[m.publisher], &t.ledger.faults
	was, known := t.entries[d.entry]
	t.entries[d.entry] = m
	switch {
	case t.settled.has(d.entry):
		f.add(returned, "%s: entry %d, message %d of %s", t.name, d.entry, m.number, b.name)
	case known && was != m:
		f.add(changed, "%s: entry %d was message %d and is %d of %s", t.name, d.entry, was.number, m.number, b.name)
	case known && !d.again:
		f.add(unmarked, "%s: entry %d, message %d of %s", t.name, d.entry, m.number, b.name)
	case !known:
		return false
	}
	return true
}

// first notes a message's first delivery: these rise.
func (t *target) first(m message) {
	c := t.copies[m.publisher]
	if int(m.number) < c.above {
		t.ledger.faults.add(disorder, "%s: message %d of %s came after %d",
			t.name, m.number, t.ledger.books[m.publisher].name, c.above-1)
	}
	c.above = max(c.above, int(m.number)+1)
	c.seen[m.number] |= came
}

// ack notes that an acknowledgement is about to be sent. expect says whether
// it will be answered.
func (t *target) ack(m message, expect bool) {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	t.copies[m.publisher].seen[m.number] |= acked
	if expect {
		t.waiting++
	}
}

// settle notes the answer to an acknowledgement.
func (t *target) settle(entry uint64) {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	t.ledger.moves++
	t.waiting--
	t.answered++
	delete(t.entries, entry)
	t.settled.add(entry)
}

// reopen begins a new connection: what was not answered on the last will not
// be any more.
func (t *target) reopen() {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	t.waiting = 0
}

func (t *target) idle() bool {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	return t.waiting == 0
}

// sparse is a set of numbers that lie close together, wherever they begin.
type sparse map[uint64]uint64

func (s sparse) add(n uint64)      { s[n/64] |= 1 << (n % 64) }
func (s sparse) has(n uint64) bool { return s[n/64]&(1<<(n%64)) != 0 }
