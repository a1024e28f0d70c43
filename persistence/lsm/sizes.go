package lsm

import (
	"fmt"
	"log/slog"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Sizes are the numbers of the database. They decide its memory: a memtable is
// held once as a whole, each compactor holds the tables that it builds, and
// Badger keeps eight of their buffers for a while.
//
// They decide what it writes, too. A compaction of L0 rewrites what lies in the
// level below between its first and its last key. The caller's large values
// come first and in the order of time, so that is only what is small; and then
// a level more is only one writing more, which is why the base level has room
// for everything. A backlog of 1,000,000 messages of 256 octets on an edge
// machine, octets written for each of theirs, journal included, single runs:
//
//	keys of blocks by     base level  L0   tables
//	queue and offset      16 MB       4    2 MB    10.4-11.3
//	                      8 MB        6    2 MB     6.5
//	checkpoint            16 MB       4    2 MB     6.0
//	                      64 MB       4    2 MB     5.3
//	                      512 MB      4    2 MB     4.3
//	                      512 MB      2    4 MB     4.6
//	memtable 3 MB         512 MB      2    2 MB     4.5, and 70 MB of anonymous memory instead of 110
type Sizes struct {
	MemTable       int64 // octets of a memtable; its log may have twice as many
	MemTables      int   // how many full ones may wait to be written
	Compactors     int   // 2 at least, Badger refuses 1
	Goroutines     int
	BaseTable      int64 // octets of a table of each level but the first
	BaseLevel      int64 // octets of the first level below L0; a database that is smaller has no other
	Rewrite        int64 // octets of old keys that a compaction may have to write anew, to know the reserve
	MaxLevels      int   // never lower on an existing directory
	L0, L0Stall    int   // tables of L0 at which compaction begins; at which writing waits
	ValueThreshold int64 // longer values would go to the value log, so none may be longer
	ValueLogFile   int64 // 1 MiB at least; it stays empty and is mapped twice over
	IndexCache     int64 // octets
}

// Edge is for a small box: little memory, a flash card.
var Edge = Sizes{
	MemTable: 3 << 20, MemTables: 1, Compactors: 2, Goroutines: 1,
	BaseTable: 2 << 20, BaseLevel: 512 << 20, Rewrite: 16 << 20, MaxLevels: 4, L0: 2, L0Stall: 4,
	ValueThreshold: 448 << 10, ValueLogFile: 1 << 20, IndexCache: 4 << 20,
}

// Server is for more of both.
var Server = Sizes{
	MemTable: 10 << 20, MemTables: 1, Compactors: 2, Goroutines: 4,
	BaseTable: 4 << 20, BaseLevel: 4 << 30, Rewrite: 64 << 20, MaxLevels: 7, L0: 3, L0Stall: 6,
	ValueThreshold: 1 << 20, ValueLogFile: 8 << 20, IndexCache: 32 << 20,
}

// Tiny is for tests: a few hundred kilobytes fill it.
var Tiny = Sizes{
	MemTable: 256 << 10, MemTables: 1, Compactors: 2, Goroutines: 1,
	BaseTable: 128 << 10, BaseLevel: 512 << 10, Rewrite: 512 << 10, MaxLevels: 4, L0: 2, L0Stall: 4,
	ValueThreshold: 32 << 10, ValueLogFile: 1 << 20, IndexCache: 1 << 20,
}

// validate says what Badger would refuse, panic at, or take too much memory
// for.
func (s *Sizes) validate() error {
	switch {
	case s.Compactors < 2:
		return fmt.Errorf("%d compactors: Badger needs 2 at least", s.Compactors)
	case s.ValueThreshold > s.batchBytes() || s.ValueThreshold > 1<<20:
		return fmt.Errorf("a value threshold of %d: want 1 MiB at most, and 15 %% of the memtable, %d", s.ValueThreshold, s.batchBytes())
	case s.ValueLogFile < 1<<20 || s.ValueLogFile >= 1<<31:
		return fmt.Errorf("a value log file of %d octets: want 1 MiB at least and less than 2 GiB", s.ValueLogFile)
	case s.IndexCache <= 0:
		return fmt.Errorf("an index cache of %d octets: without one Badger keeps all indices on the heap", s.IndexCache)
	case s.L0 >= s.L0Stall:
		return fmt.Errorf("%d tables in L0 and a stall at %d: want fewer", s.L0, s.L0Stall)
	case s.MemTables < 1 || s.Goroutines < 1 || s.MaxLevels < 2 || s.BaseTable < 1 || s.BaseLevel < s.BaseTable || s.Rewrite < 1:
		return fmt.Errorf("sizes %+v: a memtable, a goroutine, two levels and a table at least", *s)
	}
	return nil
}

// batchBytes is Badger's limit of a transaction.
func (s *Sizes) batchBytes() int64 { return 15 * s.MemTable / 100 }

// Reserve is what the database may need of the disk beyond what it has, if
// nothing is added to it: memtables become tables while their logs are still
// there, and a compaction writes L0 and what of the level below lies between its
// keys anew before it removes the old ones.
func (s *Sizes) Reserve() int64 {
	return int64(s.MemTables+1)*2*s.MemTable + int64(s.L0Stall)*s.MemTable + s.Rewrite
}

// options are Badger's. Compression is the caller's: with it Badger needs a
// block cache, and panics without.
func (s *Sizes) options(dir string, log badger.Logger) badger.Options {
	o := badger.DefaultOptions(dir).
		WithLogger(log).
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(s.IndexCache).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithMemTableSize(s.MemTable).
		WithNumMemtables(s.MemTables).
		WithValueThreshold(s.ValueThreshold).
		WithValueLogFileSize(s.ValueLogFile).
		WithBaseTableSize(s.BaseTable).
		WithBaseLevelSize(s.BaseLevel).
		WithMaxLevels(s.MaxLevels).
		WithNumLevelZeroTables(s.L0).
		WithNumLevelZeroTablesStall(s.L0Stall).
		WithNumCompactors(s.Compactors).
		WithNumGoroutines(s.Goroutines)
	// Otherwise the tables of each level are twice as large as those above,
	// and a compaction holds as many as it builds.
	o.TableSizeMultiplier = 1
	return o
}

// badgerLog leads Badger's log into ours, one step lower, and hears what
// Badger tells nobody else.
type badgerLog struct{ db *DB }

func (l badgerLog) Errorf(f string, a ...any) {
	text := fmt.Sprintf(f, a...)
	l.db.overhear(f, text)
	l.db.log.Warn("badger", slog.String("says", text))
}

func (l badgerLog) Warningf(f string, a ...any) {
	text := fmt.Sprintf(f, a...)
	l.db.overhear(f, text)
	l.db.log.Info("badger", slog.String("says", text))
}

func (l badgerLog) Infof(f string, a ...any) {
	l.db.log.Debug("badger", slog.String("says", fmt.Sprintf(f, a...)))
}
func (l badgerLog) Debugf(string, ...any) {}
