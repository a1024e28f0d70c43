package line

import (
	"slices"
	"time"

	"github.com/godwitmq/godwit/core"
)

// wireSeq is the number of a queue's delivery as a line shows it: small, the
// same on each redelivery, and never given twice. Core counts what is in
// memory alone above MaxOffset; here it gets the odd numbers.
func wireSeq(seq uint64) uint64 {
	if seq > uint64(core.MaxOffset) {
		return 2*(seq-uint64(core.MaxOffset)-1) - 1
	}
	return 2 * seq
}

// coreSeq is wireSeq's reverse.
func coreSeq(seq uint64) uint64 {
	if seq%2 == 1 {
		return (seq+1)/2 + uint64(core.MaxOffset) + 1
	}
	return seq / 2
}

// A ledger holds the deliveries a client has not settled, by rising number.
// Most are appended at its end and leave at its head.
type ledger struct {
	list     []due
	live     int
	earliest time.Time // no lease is over before
}

type due struct {
	seq      uint64
	deadline time.Time // of its lease; zero: none that we know
	attempt  uint16
	settled  bool
}

func (l *ledger) search(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(l.list, seq, func(d due, seq uint64) int {
		switch {
		case d.seq < seq:
			return -1
		case d.seq > seq:
			return 1
		}
		return 0
	})
}

// add notes a delivery, and says whether it is one more.
func (l *ledger) add(d due) bool {
	seq := d.seq
	if n := len(l.list); n == 0 || l.list[n-1].seq < seq {
		l.list = append(l.list, d)
		l.live++
		return true
	}
	at, ok := l.search(seq)
	if !ok {
		l.list = slices.Insert(l.list, at, d)
		l.live++
		return true
	}
	again := !l.list[at].settled
	l.list[at] = d
	if again {
		return false // its lease was over, and it came again
	}
	l.live++
	return true
}

// settle takes one out, and says whether it was there.
func (l *ledger) settle(seq uint64) bool {
	at, ok := l.search(seq)
	if !ok || l.list[at].settled {
		return false
	}
	l.list[at].settled = true
	l.live--
	l.tidy()
	return true
}

// between appends the unsettled numbers of a span.
func (l *ledger) between(seqs []uint64, from, to uint64) []uint64 {
	at, _ := l.search(from)
	for ; at < len(l.list) && l.list[at].seq <= to; at++ {
		if !l.list[at].settled {
			seqs = append(seqs, l.list[at].seq)
		}
	}
	return seqs
}

// expire takes out what went back because its lease is over, and says how many.
func (l *ledger) expire(now time.Time) (n int) {
	if l.live == 0 || now.Before(l.earliest) {
		return 0
	}
	l.earliest = time.Time{}
	for i := range l.list {
		switch d := &l.list[i]; {
		case d.settled || d.deadline.IsZero():
		case now.After(d.deadline):
			d.settled = true
			l.live--
			n++
		case l.earliest.IsZero() || d.deadline.Before(l.earliest):
			l.earliest = d.deadline
		}
	}
	l.tidy()
	return n
}

// renew moves the end of a lease.
func (l *ledger) renew(seq uint64, deadline time.Time) {
	if at, ok := l.search(seq); ok {
		l.list[at].deadline = deadline
	}
}

// tidy forgets what is settled: all, the head, or everywhere when it is most.
func (l *ledger) tidy() {
	switch {
	case l.live == 0:
		l.list = l.list[:0]
	case l.list[0].settled:
		n := 0
		for l.list[n].settled {
			n++
		}
		l.list = l.list[n:]
	case len(l.list) > 64 && l.live < len(l.list)/2:
		l.list = slices.DeleteFunc(l.list, func(d due) bool { return d.settled })
	}
}
