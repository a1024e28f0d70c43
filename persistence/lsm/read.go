package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/dgraph-io/badger/v4"
)

// readers counts who reads: Badger unmaps its files when it is closed, and a
// reader would die of it. After a failed write nobody reads: Badger may have no
// memtable then, which it looks into all the same, and it may show what is not
// on the disk.
type readers struct {
	mu    sync.Mutex
	none  *sync.Cond
	n     int
	ended error // why nobody may read any more
}

func (r *readers) init() { r.none = sync.NewCond(&r.mu) }

// enter may be called again by who is inside: it never waits.
func (r *readers) enter() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		return r.ended
	}
	r.n++
	return nil
}

func (r *readers) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 {
		r.none.Broadcast()
	}
}

// end is why a reader inside should stop, or nil.
func (r *readers) end() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// stop lets nobody in any more.
func (r *readers) stop(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended == nil {
		r.ended = why
	}
}

// wait waits for those inside.
func (r *readers) wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.n > 0 {
		r.none.Wait()
	}
}

// A Snapshot is the database as it was at one moment. It is used by one
// goroutine, within the call that it was lent for.
type Snapshot struct {
	db *DB
	tx *badger.Txn
}

// View lends a snapshot. While it is open no space is given back that its
// moment needs, so a long one should end after ten minutes at most.
func (db *DB) View(each func(*Snapshot) error) error {
	if err := db.reading.enter(); err != nil {
		return err
	}
	defer db.reading.leave()
	tx := db.b.NewTransaction(false)
	defer tx.Discard()
	return each(&Snapshot{db: db, tx: tx})
}

// Get is the value of a key, the caller's to keep, or ErrNotFound. A value of
// no octets is not nil.
func (db *DB) Get(key []byte) (value []byte, err error) {
	err = db.View(func(s *Snapshot) error {
		value, err = s.Get(key)
		return err
	})
	return value, err
}

// Scan goes through the keys with a prefix in order, from the first or from
// from if that is greater. Key and value are lent for the call; without values
// value is nil. An error of each ends it and is returned.
func (db *DB) Scan(prefix, from []byte, values bool, each func(key, value []byte) error) error {
	return db.View(func(s *Snapshot) error { return s.Scan(prefix, from, values, each) })
}

// Get is like DB.Get, at the snapshot's moment.
func (s *Snapshot) Get(key []byte) ([]byte, error) {
	if err := s.db.reading.end(); err != nil {
		return nil, err
	}
	item, err := s.tx.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the key %x: %w", key, err)
	}
	value, err := item.ValueCopy([]byte{})
	if err != nil {
		return nil, fmt.Errorf("read the value of the key %x: %w", key, err)
	}
	return value, nil
}

// Scan is like DB.Scan, at the snapshot's moment.
func (s *Snapshot) Scan(prefix, from []byte, values bool, each func(key, value []byte) error) error {
	o := badger.DefaultIteratorOptions
	o.Prefix, o.PrefetchValues = prefix, false
	it := s.tx.NewIterator(o)
	defer it.Close()
	if bytes.Compare(from, prefix) < 0 {
		from = prefix
	}
	for it.Seek(from); it.ValidForPrefix(prefix); it.Next() {
		if err := s.db.reading.end(); err != nil {
			return err
		}
		if err := lend(it.Item(), values, each); err != nil {
			return err
		}
	}
	return nil
}

func lend(item *badger.Item, values bool, each func(key, value []byte) error) error {
	if !values {
		return each(item.Key(), nil)
	}
	return item.Value(func(v []byte) error { return each(item.Key(), v) })
}
