package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// An Entry is a key and its value; a nil value deletes the key.
type Entry struct{ Key, Value []byte }

// What Badger counts for an entry beside its key and value, and what we add to
// each transaction: two markers.
const (
	entryCost   = 12
	markersCost = 2 * (10 + 12 + entryCost)
	markerCount = 2
	maxKey      = 60000 // Badger's limit is 65,000
)

// counters are Stats in the making.
type counters struct {
	txns, entries, bytes, dirsyncs, advised, reclaims, reclaiming, drops atomic.Int64
}

// Stats count since Open.
type Stats struct {
	Txns      int64 // transactions written
	Entries   int64 // put or deleted in them
	Bytes     int64 // of their keys and values; what reaches the disk is more
	DirSyncs  int64
	Advised   int64 // mappings of logs that were advised on
	Reclaims  int64
	Drops     int64   // calls of DropPrefix
	Reclaimed float64 // seconds that reclaims took
}

// Stats count since Open.
func (db *DB) Stats() Stats {
	c := &db.counts
	return Stats{
		Txns: c.txns.Load(), Entries: c.entries.Load(), Bytes: c.bytes.Load(),
		DirSyncs: c.dirsyncs.Load(), Advised: c.advised.Load(),
		Reclaims: c.reclaims.Load(), Drops: c.drops.Load(),
		Reclaimed: float64(c.reclaiming.Load()) / 1e9,
	}
}

// limits are 80 % of Badger's, less what we add.
func (db *DB) limits() (bytes, count int64) {
	return db.b.MaxBatchSize()*8/10 - markersCost, db.b.MaxBatchCount()*8/10 - markerCount
}

// MaxEntry is the largest sum of a key's and its value's length.
func (db *DB) MaxEntry() int {
	most, _ := db.limits()
	// A value as long as the threshold would go to the value log.
	return int(min(most-entryCost, db.sizes.ValueThreshold-1))
}

// A Writer writes the transactions of one checkpoint. What is put together is
// in one transaction; what is put one after another may be in several. One
// goroutine uses it.
type Writer struct {
	db         *DB
	checkpoint uint64
	entries    []Entry
	bytes      int64
}

// Writer begins a checkpoint, or goes on with one.
func (db *DB) Writer(checkpoint uint64) *Writer {
	return &Writer{db: db, checkpoint: checkpoint}
}

// Put adds entries, which are written together or not at all, at the latest by
// Flush. Until then keys and values belong to the Writer. ErrTooLarge: they
// do not fit into one transaction, and none was added.
func (w *Writer) Put(entries ...Entry) error {
	cost, err := w.db.cost(entries)
	if err != nil {
		return err
	}
	most, count := w.db.limits()
	if w.bytes+cost > most || int64(len(w.entries)+len(entries)) > count {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	w.entries = append(w.entries, entries...)
	w.bytes += cost
	return nil
}

// cost checks entries that have to be in one transaction and adds them up.
func (db *DB) cost(entries []Entry) (cost int64, err error) {
	for i := range entries {
		e := &entries[i]
		if err := checkKey(e.Key); err != nil {
			return 0, err
		}
		if int64(len(e.Value)) >= db.sizes.ValueThreshold {
			return 0, fmt.Errorf("%w: a value of %d octets, %d at most", ErrTooLarge, len(e.Value), db.MaxEntry())
		}
		cost += int64(len(e.Key)+len(e.Value)) + entryCost
	}
	if most, count := db.limits(); cost > most || int64(len(entries)) > count {
		return 0, fmt.Errorf("%w: %d entries of %d octets, %d of %d at most", ErrTooLarge, len(entries), cost, count, most)
	}
	return cost, nil
}

// checkKey refuses what Badger would, and what is ours.
func checkKey(key []byte) error {
	switch {
	case len(key) == 0:
		return errors.New("lsm: a key of no octets")
	case len(key) > maxKey:
		return fmt.Errorf("%w: a key of %d octets, %d at most", ErrTooLarge, len(key), maxKey)
	case bytes.HasPrefix(key, []byte("!badger!")), reserved(key):
		return fmt.Errorf("lsm: the key %q is the database's own", key)
	}
	return nil
}

// Flush writes what is open. After an error what it wrote, if anything, is
// unknown, except after ErrNoSpace: then nothing, and Flush may be called again.
func (w *Writer) Flush() error {
	if len(w.entries) == 0 {
		return w.db.failing()
	}
	if err := w.db.commit(kindCheckpoint, w.checkpoint, w.entries); err != nil {
		return err
	}
	clear(w.entries)
	w.entries, w.bytes = w.entries[:0], 0
	return nil
}

// Rewrite writes entries in one transaction of its own. It is for moving data
// within the database: checkpoint is that of the newest mark, so that what it
// writes stays if the checkpoint under way is not finished. It must not be
// interleaved with the checkpoint that it moves data of.
func (db *DB) Rewrite(checkpoint uint64, entries ...Entry) error {
	if _, err := db.cost(entries); err != nil {
		return err
	}
	return db.commit(kindRewrite, checkpoint, entries)
}

// commit writes one transaction, with its marker, and waits until it is on the
// disk.
func (db *DB) commit(kind byte, checkpoint uint64, entries []Entry) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	return db.commitLocked(kind, checkpoint, entries)
}

// commitLocked is called with writing held.
func (db *DB) commitLocked(kind byte, checkpoint uint64, entries []Entry) error {
	if err := db.reading.enter(); err != nil {
		return err
	}
	defer db.reading.leave()
	if err := db.failing(); err != nil {
		return err
	}
	n := db.txn + 1
	all := append(make([]Entry, 0, len(entries)+markerCount), entries...)
	all = append(all, Entry{markerKey(n), markerValue(kind, checkpoint)})
	if n > db.window {
		all = append(all, Entry{Key: markerKey(n - db.window)})
	}
	if err := db.wal.prepare(all); err != nil {
		return err
	}
	if err := db.write(all); err != nil {
		// Another's DropPrefix is under way, so nothing was written.
		if errors.Is(err, badger.ErrBlockedWrites) {
			return err
		}
		return db.fail(err)
	}
	db.txn = n
	db.wal.written(all)
	db.step("commit")
	return nil
}

// write hands entries to Badger as one transaction. (Its WriteBatch would cut
// them where it likes.)
func (db *DB) write(entries []Entry) error {
	if db.hooks.beforeCommit != nil {
		if err := db.hooks.beforeCommit(); err != nil {
			return err
		}
	}
	tx := db.b.NewTransaction(true)
	defer tx.Discard()
	bytes := 0
	for i := range entries {
		e := &entries[i]
		var err error
		if e.Value == nil {
			err = tx.Delete(e.Key)
		} else {
			err = tx.Set(e.Key, e.Value)
		}
		if err != nil {
			return fmt.Errorf("fill a transaction of %d entries: %w", len(entries), err)
		}
		bytes += len(e.Key) + len(e.Value)
	}
	if err := db.wait(tx); err != nil {
		return err
	}
	db.counts.txns.Add(1)
	db.counts.entries.Add(int64(len(entries)))
	db.counts.bytes.Add(int64(bytes))
	return nil
}

// wait commits. It does not wait for ever if Badger cannot write its memtables
// and tries again and again.
func (db *DB) wait(tx *badger.Txn) error {
	done := make(chan error, 1)
	tx.CommitWith(func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-db.failed:
		return db.failing()
	}
}

func (db *DB) step(name string) {
	if db.hooks.step != nil {
		db.hooks.step(name)
	}
}
