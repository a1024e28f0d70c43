package lsm

import (
	"encoding/binary"
	"fmt"
	"log/slog"
)

// Each transaction puts a marker with its number, and deletes the one
// markerWindow below. Badger has several logs, one for each memtable that is
// not in a table yet; if one is damaged, what follows in it is dropped, and
// what is in the next one is not. So what can be missing is
//
//	an end: the newest log lost its tail. What is left is the database as it
//	was at an earlier moment, whole; its newest mark is simply an older one.
//	The caller compares it with its journal.
//
//	a hole: an older log lost its tail. Then what follows the hole may build on
//	what is missing. If a mark lies before the hole, and all that follows the
//	hole is of checkpoints after that mark, these are unfinished checkpoints
//	like any other: their leavings carry a number above the mark's, and they
//	are done again. A rewrite moves data for good, and the checkpoint that it
//	names is finished; one behind a hole may have moved what is missing.
//
// A hole is filled with markers that say so, once the mark is set back.

// markerWindow is how many markers are kept. It is more than the logs that can
// be damaged hold transactions.
const markerWindow = 16384

// Kinds of transactions.
const (
	kindCheckpoint = 1 // of a checkpoint, its number beside it
	kindRewrite    = 2 // moves data of finished checkpoints
	kindMark       = 3 // finishes a checkpoint
	kindHouse      = 4 // ours: changes nothing of the caller's
	kindLost       = 5 // was missing at an Open, and what followed was done again
)

// Keys that are ours:
//
//	f0 'T' txn u64   marker: kind octet, checkpoint uvarint
//	f0 'M' "mark0"   the marks take turns
//	f0 'M' "mark1"
//	f1 'R'           put and dropped by Reclaim
//
// They lie behind everything of the caller's, whose large values do well to come
// first and in the order of time: each transaction has some of ours, and a
// compaction rewrites what lies between the first and the last key of a table.
var (
	markerPrefix = []byte{0xf0, 'T'}
	markPrefix   = []byte("\xf0Mmark")
	reclaimKey   = []byte{0xf1, 'R'}
)

func markerKey(txn uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 10), markerPrefix...), txn)
}

func markerValue(kind byte, checkpoint uint64) []byte {
	return binary.AppendUvarint([]byte{kind}, checkpoint)
}

func markKey(slot byte) []byte {
	return append(append(make([]byte, 0, len(markPrefix)+1), markPrefix...), '0'+slot)
}

// Reserved says whether a key is this package's own: View shows these too.
func Reserved(key []byte) bool { return reserved(key) }

// reserved says whether a key is ours.
func reserved(key []byte) bool {
	return hasAny(key, [][]byte{markerPrefix, markPrefix, reclaimKey})
}

// A marker is what is left of a transaction for Open.
type marker struct {
	txn        uint64
	kind       byte
	checkpoint uint64
}

// A span is the transactions from, and not to.
type span struct{ from, to uint64 }

// A verdict is what follows from the markers and marks that are there.
type verdict struct {
	last  uint64 // the last transaction
	holes []span // transactions that are missing, in order
	back  bool   // the newest mark is beyond a hole: the previous one counts
}

// judge looks whether all transactions are there, and if not which mark still
// counts. Markers are in order.
func judge(markers []marker, marks markSet, window uint64) (v verdict, why error) {
	if len(markers) > 0 {
		v.last = markers[len(markers)-1].txn
	}
	if marks.newest.Txn > v.last {
		return v, fmt.Errorf("the newest mark is of transaction %d, but the last that is there is %d", marks.newest.Txn, v.last)
	}
	v.holes = holes(markers, v.last, window)
	if len(v.holes) == 0 {
		return v, nil
	}
	first := v.holes[0].from
	for _, m := range markers {
		if m.txn > first && m.kind == kindRewrite {
			return v, fmt.Errorf("transaction %d is missing, and %d moved data after it", first, m.txn)
		}
	}
	switch {
	case marks.newest.Txn < first:
		return v, nil
	case marks.previous.Txn < first && marks.previous.Txn == marks.newest.before:
		v.back = true
		return v, nil
	}
	return v, fmt.Errorf("transaction %d is missing, which two checkpoints rest on, %d and %d",
		first, marks.previous.Checkpoint, marks.newest.Checkpoint)
}

// holes are the numbers that are missing among the last window ones.
func holes(markers []marker, last, window uint64) (missing []span) {
	next := windowStart(last, window)
	for _, m := range markers {
		if m.txn < next {
			continue // it should have been deleted by one that is missing
		}
		if m.txn > next {
			missing = append(missing, span{next, m.txn})
		}
		next = m.txn + 1
	}
	return missing
}

// windowStart is the first number whose marker should be there.
func windowStart(last, window uint64) uint64 {
	if last <= window {
		return 1
	}
	return last - window + 1
}

// readMarkers reads what markers there are.
func (db *DB) readMarkers() (markers []marker, err error) {
	err = db.Scan(markerPrefix, nil, true, func(key, value []byte) error {
		if len(key) != 10 || len(value) < 2 {
			return corrupt("the transaction marker %x is damaged; %s", key, advice(db.dir))
		}
		checkpoint, n := binary.Uvarint(value[1:])
		if n <= 0 {
			return corrupt("the transaction marker %x is damaged; %s", key, advice(db.dir))
		}
		markers = append(markers, marker{binary.BigEndian.Uint64(key[2:]), value[0], checkpoint})
		return nil
	})
	return markers, err
}

// recover looks what is there and makes it good.
func (db *DB) recover() error {
	marks, err := db.readMarks()
	if err != nil {
		return err
	}
	markers, err := db.readMarkers()
	if err != nil {
		return err
	}
	v, err := judge(markers, marks, db.window)
	if err != nil {
		return corrupt("%v; a log of the database was damaged; %s", err, advice(db.dir))
	}
	db.marks, db.txn = marks, v.last
	r := &db.recovered
	r.Txns, r.Checkpoint = v.last, max(marks.newest.Checkpoint, marks.previous.Checkpoint)
	for _, m := range markers {
		r.Checkpoint = max(r.Checkpoint, m.checkpoint)
	}
	for _, h := range v.holes {
		r.Lost += h.to - h.from
	}
	if err := db.heal(v); err != nil {
		return fmt.Errorf("set the database back to checkpoint %d: %w", db.marks.newest.Checkpoint, err)
	}
	return db.sweepMarkers(markers)
}

// heal sets the mark back, if need be, and then fills the holes. A crash in
// between leaves holes behind the newest mark, which the next Open fills.
func (db *DB) heal(v verdict) error {
	if len(v.holes) == 0 {
		return nil
	}
	db.recovered.SetBack = true
	db.log.Warn("a damaged log had lost transactions; what followed is done again from the journal",
		slog.String("dir", db.dir), slog.Uint64("lost", db.recovered.Lost),
		slog.Uint64("first", v.holes[0].from), slog.Bool("checkpoint_lost", v.back))
	if v.back {
		lost := db.marks
		if err := db.commit(kindHouse, 0, []Entry{{Key: markKey(lost.slot)}}); err != nil {
			return err
		}
		db.marks = markSet{newest: lost.previous, slot: 1 - lost.slot}
	}
	var entries []Entry
	for _, h := range v.holes {
		for n := h.from; n < h.to; n++ {
			entries = append(entries, Entry{markerKey(n), markerValue(kindLost, 0)})
		}
	}
	return db.house(entries)
}

// sweepMarkers deletes markers whose deletion is missing.
func (db *DB) sweepMarkers(markers []marker) error {
	start := windowStart(db.txn, db.window)
	var entries []Entry
	for _, m := range markers {
		if m.txn < start {
			entries = append(entries, Entry{Key: markerKey(m.txn)})
		}
	}
	return db.house(entries)
}

// house writes entries of ours, in as many transactions as it takes.
func (db *DB) house(entries []Entry) error {
	most, count := db.limits()
	n := int(min(count, most/(10+12+entryCost)))
	for len(entries) > 0 {
		n := min(n, len(entries))
		if err := db.commit(kindHouse, 0, entries[:n]); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}
