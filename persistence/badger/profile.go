package badger

import (
	"fmt"
	"log/slog"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// A Profile is the size of the machine.
type Profile string

// The profiles.
const (
	Auto   Profile = ""       // Edge below 2 GiB of memory, else Server
	Edge   Profile = "edge"   // a small box: little memory, a flash card
	Server Profile = "server" // more of both
)

// A profile is the numbers behind a Profile.
type profile struct {
	maxRecord, maxBatch, maxOps int
	maxKey, maxValue            int
	staging                     int64 // bytes accepted: above it the pressure is high, above twice it Commit refuses
	blockBytes                  int   // a block is closed when it has as many
	blockUses                   int   // or when its records have as many different route sets; 256 at most
	readers                     int

	txnEntries                           int // entries of the largest transaction in one piece; 0: what Badger takes
	memTable, valueThreshold, vlogFile   int64
	baseTable, baseLevel                 int64
	memTables, maxLevels                 int
	l0, l0Stall, compactors, goroutines  int
	indexCache                           int64
	foldDeltas, foldBytes, foldEachBytes int // a fold begins at as many deltas or bytes; and goes on by as many a transaction
}

var edgeProfile = profile{
	maxRecord: 4 << 20, maxBatch: 8 << 20, maxOps: 65536,
	maxKey: 8 << 10, maxValue: 256 << 10,
	staging: 1 << 20, blockBytes: 64 << 10, blockUses: 256, readers: 2,
	memTable: 4 << 20, valueThreshold: 512 << 10, vlogFile: 1 << 20,
	baseTable: 4 << 20, baseLevel: 64 << 20,
	memTables: 1, maxLevels: 4, l0: 2, l0Stall: 4, compactors: 2, goroutines: 1,
	indexCache: 4 << 20,
	foldDeltas: 1000, foldBytes: 512 << 10, foldEachBytes: 32 << 10,
}

var serverProfile = profile{
	maxRecord: 16 << 20, maxBatch: 32 << 20, maxOps: 65536,
	maxKey: 8 << 10, maxValue: 1<<20 - 1,
	staging: 16 << 20, blockBytes: 256 << 10, blockUses: 256, readers: 4,
	memTable: 32 << 20, valueThreshold: 1 << 20, vlogFile: 8 << 20,
	baseTable: 8 << 20, baseLevel: 256 << 20,
	memTables: 2, maxLevels: 7, l0: 4, l0Stall: 10, compactors: 2, goroutines: 4,
	indexCache: 32 << 20,
	foldDeltas: 4000, foldBytes: 4 << 20, foldEachBytes: 128 << 10,
}

func (p Profile) resolve() (profile, error) {
	switch p {
	case Edge:
		return edgeProfile, nil
	case Server:
		return serverProfile, nil
	case Auto:
		if m := machineMemory(); m > 0 && m < 2<<30 {
			return edgeProfile, nil
		}
		return serverProfile, nil
	}
	return profile{}, fmt.Errorf("store profile %q: want %q or %q", p, Edge, Server)
}

// options are Badger's. Values never reach its value log, whose files are
// mapped twice over all the same; an index cache of 0 would keep all indices
// on the heap; a single compactor is refused.
func (p *profile) options(path string, log *slog.Logger) badger.Options {
	o := badger.DefaultOptions(path).
		WithLogger(badgerLog{log}).
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(p.indexCache).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithMemTableSize(p.memTable).
		WithNumMemtables(p.memTables).
		WithValueThreshold(p.valueThreshold).
		WithValueLogFileSize(p.vlogFile).
		WithBaseTableSize(p.baseTable).
		WithBaseLevelSize(p.baseLevel).
		WithMaxLevels(p.maxLevels).
		WithNumLevelZeroTables(p.l0).
		WithNumLevelZeroTablesStall(p.l0Stall).
		WithNumCompactors(p.compactors).
		WithNumGoroutines(p.goroutines)
	o.TableSizeMultiplier = 1
	return o
}

// badgerLog leads Badger's log into ours, a step lower: what Badger calls
// information is about its tables.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any) {
	l.log.Error("badger", slog.String("says", fmt.Sprintf(f, a...)))
}

func (l badgerLog) Warningf(f string, a ...any) {
	l.log.Warn("badger", slog.String("says", fmt.Sprintf(f, a...)))
}

func (l badgerLog) Infof(f string, a ...any) {
	l.log.Debug("badger", slog.String("says", fmt.Sprintf(f, a...)))
}
func (l badgerLog) Debugf(string, ...any) {}
