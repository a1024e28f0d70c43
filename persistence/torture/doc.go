// Package torture tries a store on a real disk, and says what was lost.
//
// A child process writes through core.Store and says what was confirmed. The
// parent kills it at random instants, fills the disk, or waits for somebody to
// pull the plug, and starts it again: the next child compares what is there
// with what its forerunners were told.
//
//	parent --job--> child: open, verify, write --lines--> parent: told
//	   |                      ^                              |
//	   +--- kill -9, fill ----+<-------- what was told ------+
//
// Nothing but the highest confirmed number needs to be remembered, for the
// history is a function of a seed (history.go): batch n of a partition always
// holds the same messages, acknowledgements and values. From the number of the
// newest batch that is there follows everything that must be there.
//
// What counts as a fault:
//
//	lost      confirmed, and not there and not settled either
//	changed   not what was written
//	order     not in the order it was written
//	torn      a part of a batch without the rest
//	returned  settled and confirmed, and owed again
//	stale     a value older than its batch
//	counts    the store counts otherwise than it reads
//	damaged   the store itself says that it is
//	died      the process ended by itself
//	hung      nothing happened for minutes
//	full      on a full disk something else happened than a refusal of appends
//
// The package knows no driver: Options.Open makes the store.
package torture
