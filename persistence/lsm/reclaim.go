package lsm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Reclaim gives space back that deleted keys and old values hold, and returns
// when it is given back. It rewrites what is live, so it is for when much is
// dead: a few thousand deletions never fill a memtable, and what they cover
// would stay on the disk. Writes wait meanwhile, reads do not.
func (db *DB) Reclaim() error {
	start := time.Now()
	db.writing.Lock()
	defer db.writing.Unlock()
	// DropPrefix does nothing without a live key.
	if err := db.commitLocked(kindHouse, 0, []Entry{{reclaimKey, []byte{}}}); err != nil {
		return err
	}
	// It writes the memtables to tables and compacts the upper level ...
	if err := db.dropLocked(reclaimKey); err != nil {
		return err
	}
	// ... and this moves all tables to the lowest, where deletions end.
	if err := db.flattenLocked(); err != nil {
		return fmt.Errorf("give space back: %w", err)
	}
	if err := db.accountAll(); err != nil {
		return err
	}
	db.counts.reclaims.Add(1)
	db.counts.reclaiming.Add(int64(time.Since(start)))
	return nil
}

func (db *DB) flattenLocked() error {
	if err := db.reading.enter(); err != nil {
		return err
	}
	defer db.reading.leave()
	return db.b.Flatten(1)
}

// DropPrefix removes the keys with these prefixes, not by deletions but out of
// the tables. It is for much data: it writes out all memtables. It is no part
// of a checkpoint: a crash may leave some of the keys. Writes wait meanwhile.
func (db *DB) DropPrefix(prefixes ...[]byte) error {
	for _, p := range prefixes {
		if len(p) == 0 || reserved(p) || hasAny(markerPrefix, [][]byte{p}) || hasAny(markPrefix, [][]byte{p}) {
			return fmt.Errorf("lsm: dropping %x would take keys of the database's own", p)
		}
	}
	db.writing.Lock()
	defer db.writing.Unlock()
	db.counts.drops.Add(1)
	return db.dropLocked(prefixes...)
}

// dropLocked is called with writing held, so Badger has no writes to refuse.
// If it fails, the memtables are in an unknown state.
func (db *DB) dropLocked(prefixes ...[]byte) error {
	if err := db.reading.enter(); err != nil {
		return err
	}
	defer db.reading.leave()
	if err := db.failing(); err != nil {
		return err
	}
	if err := db.enoughFiles(); err != nil {
		return err
	}
	if err := db.b.DropPrefix(prefixes...); err != nil {
		return db.fail(fmt.Errorf("drop %x: %w", prefixes, err))
	}
	db.wal.renew()
	return nil
}

// Size is how many octets of the disk the database holds: what is allocated,
// its spare log included, and not what its files seem to be long.
func (db *DB) Size() int64 {
	return SizeOf(db.dir)
}

// SizeOf is the same of a database that is not open.
func SizeOf(dir string) (n int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		n += allocated(filepath.Join(dir, e.Name()))
	}
	return n
}

// Reserve is what the database may need of the disk beyond Size.
func (db *DB) Reserve() int64 { return db.sizes.Reserve() }

func hasAny(key []byte, prefixes [][]byte) bool {
	for _, p := range prefixes {
		if bytes.HasPrefix(key, p) {
			return true
		}
	}
	return false
}
