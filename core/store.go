package core

import (
	"context"
	"io"
	"iter"
)

// What the store counts in. Ids share one space per partition; core gives
// them out from Partition.NextID up, never twice, below 2^63.
type (
	// PartitionID is the number of a partition: its shard's.
	PartitionID uint16
	// LogID is the number of a log.
	LogID uint64
	// CursorID is the number of a cursor.
	CursorID uint64
	// RouteSetID is the number of a set of cursors.
	RouteSetID uint64
	// Table is a kind of record: core's own numbering.
	Table uint8
)

// Solo is the route set with one member; it needs no definition.
func Solo(c CursorID) RouteSetID { return RouteSetID(c) | 1<<63 }

// Member gives the cursor of a Solo set back.
func (r RouteSetID) Member() (CursorID, bool) { return CursorID(r &^ (1 << 63)), r>>63 == 1 }

// A Store keeps what must outlive the process. It knows three nouns: logs
// (appended to), cursors (places of readers in a log) and records (small
// values under keys). Names are core's; the store sees numbers.
//
// Every driver passes persistence/storetest, which checks these promises:
//
//  1. Committed(b, nil) comes only when the batch survives what Caps.Survives
//     names. With Wait false it may come up to 200 ms later, never earlier.
//  2. A batch is atomic in its partition, in a crash too, and applied once.
//  3. Done calls of one partition come in Commit order. Offsets of one log
//     increase in that order.
//  4. Fetch and Get see a batch when it is durable (at the latest inside its
//     Done), never earlier, and never a failed one.
//  5. A refused or failed batch leaves nothing behind (offsets may be
//     skipped). After ErrPoisoned or ErrFenced its fate is unknown until the
//     next Open.
//  6. A second owner makes the first one's commits fail with ErrFenced, those
//     in flight included, unless they were durable before.
//  7. An ack whose Done never came may be forgotten: redelivery, never loss.
//     Acks of unknown, settled or trimmed offsets are ignored.
//  8. A record of a log is kept until every cursor in its route set has
//     settled it or is dropped, or a Trim passes it. Nothing else removes it.
type Store interface {
	Caps() Caps
	// Open takes ownership of a partition, which its first Open creates.
	Open(ctx context.Context, p PartitionID) (Partition, error)
	Health() Health // one atomic load
	Stats() StoreStats
	// Backup writes everything, consistent, while running.
	Backup(ctx context.Context, w io.Writer) error
	// Close settles what was accepted, then closes.
	Close(ctx context.Context) error
}

// A Partition is one shard's data: the unit of order, atomicity and
// ownership. Commit and Fetch are called by one goroutine; the rest by any.
type Partition interface {
	NextID() uint64         // greater than any id ever used here
	Logs() []LogState       // snapshot
	Cursors() []CursorState // at Open
	// Commit makes every op of the batch durable, or none, and then calls
	// b.Done, from any goroutine. On nil the batch and what it points to
	// belong to the store until Done; on an error nothing happened and Done
	// is not called.
	Commit(b *Batch) error
	// Fetch reads, and then calls f.Done. The same rule holds.
	Fetch(f *Fetch) error
	Get(ctx context.Context, t Table, key []byte) ([]byte, error)
	// Scan goes through the records below prefix in key order, newest
	// committed values.
	Scan(ctx context.Context, t Table, prefix []byte) iter.Seq2[Record, error]
	Close(ctx context.Context) error // gives ownership back
}

// A Batch is all or nothing inside its partition. Media that are not atomic
// must apply the fields in this order.
type Batch struct {
	Now     int64 // unix ms, core's clock; the store never asks for the time
	Wait    bool  // somebody waits for the disk; false: may ride with the next sync
	Cursors []CursorOp
	Sets    []RouteSet
	Appends []Append
	Records []Record // Value nil = delete; last one wins
	Marks   []Mark
	Acks    []Ack
	Trims   []Trim
	Done    BatchDone
}

// BatchDone is told once about each accepted batch, in commit order, from any
// goroutine. It must not block.
type BatchDone interface {
	Committed(b *Batch, err error)
}

// A CursorOp creates, seeks or drops a cursor. A log's first mention creates it.
type CursorOp struct {
	ID   CursorID
	Log  LogID
	At   Offset
	Drop bool
}

// A RouteSet is an immutable set of cursors; Members nil means that core will
// not use this id again.
type RouteSet struct {
	ID      RouteSetID
	Members []CursorID
}

// An Append adds a message to a log. Routes 0: no cursor owes an ack.
type Append struct {
	Log     LogID
	Message *Message // borrowed until Done
	Routes  RouteSetID
	Offset  Offset // set by the store before Done
}

// A Record is one small value under a key.
type Record struct {
	Table      Table
	Key, Value []byte
}

// A Mark is a delivery count above zero.
type Mark struct {
	Cursor   CursorID
	At       Offset
	Attempts uint16
}

// An Ack settles the cursor's N records in [From, To).
type Ack struct {
	Cursor   CursorID
	From, To Offset
	N, Bytes int64
}

// A Trim shortens a log from its head, whole blocks at a time. Before
// MaxOffset drops the log.
type Trim struct {
	Log             LogID
	Before          Offset
	OlderThan, Keep int64 // unix ms; bytes
	Compact         bool  // before Before, keep only the newest record of each Message.Key
}

// A Fetch reads records. Core fills the first part, the store Out and Next.
type Fetch struct {
	Log            LogID
	Cursor         CursorID // 0: all records; else those routed to it and not acked
	From           Offset
	Since          int64 // with From 0: first record at or after this time
	Records, Bytes int   // stop at either; at least one record if there is one
	Out            []Stored
	Next           Offset // go on from here
	Done           FetchDone
}

// FetchDone is told about each accepted fetch, from any goroutine.
type FetchDone interface {
	Fetched(f *Fetch, err error)
}

// Stored is one record read. Message is the reader's to keep.
type Stored struct {
	Offset   Offset
	Time     int64
	Attempts uint16
	Message  *Message
}

// LogState is a log at a moment.
type LogState struct {
	ID             LogID
	First, Next    Offset
	Records, Bytes int64
}

// CursorState is a cursor at Open: all below Floor and in Settled is settled.
type CursorState struct {
	ID           CursorID
	Log          LogID
	Floor        Offset
	Settled      [][2]Offset
	Depth, Bytes int64
}

// Survival is what a driver's confirmed batches survive.
type Survival uint8

// What confirmed batches survive.
const (
	SurvivesNothing Survival = iota
	SurvivesCrash
	SurvivesPowerCut
	SurvivesNodeLoss
)

// Caps is what a driver can do.
type Caps struct {
	Name                        string
	MaxRecord, MaxBatch, MaxOps int // bytes, bytes, ops in one batch
	MaxValue                    int // bytes of one record's value; 0: MaxRecord
	Survives                    Survival
}

// Pressure says how far the store is behind.
type Pressure uint8

// How far the store is behind.
const (
	PressureLow Pressure = iota
	PressureHigh
	PressureFull
)

// Health is the store's state in one load.
type Health struct {
	Pressure      Pressure
	ReadOnly      bool
	Free, Reserve int64
	Err           error
}

// StoreStats are counters since the start, unless they say otherwise. What a
// driver does not have is 0.
type StoreStats struct {
	Commits, Ops, Appends, Syncs, BytesUser, BytesWritten, Fetches int64

	Frames      int64   // groups of batches that were written together
	Checkpoints int64   // how often data moved from the journal to the database
	Spilled     int64   // bytes of messages that did
	Rewrites    int64   // blocks of the database that were brought into another shape
	Reclaims    int64   // how often the database gave space back
	Dead        int64   // bytes in the database that nobody wants, now
	Staged      int64   // bytes accepted and not settled, now
	JournalUsed float64 // of the segments it likes to have, now

	BytesJournal  int64 // written to the journal, padding included
	BytesDatabase int64 // written by the process, less the journal's: the database's, as the disk sees them
	Since         int64 // unix ms: when the counters began

	CommitTimes [len(StoreTimes) + 1]int64 // commits by how long they took, from Commit to Done
	SyncTimes   [len(StoreTimes) + 1]int64 // frames by how long their write and sync took
	CommitTime  int64                      // ns, of all commits
	SyncTime    int64                      // ns, of all frames

	// What the disk has been said to stand, to tell how long it will.
	FlashBytes int64 // 0: unknown
}

// StoreTimes are the upper bounds of the classes of StoreStats' times, in
// microseconds.
var StoreTimes = [...]int64{100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 1000000}
