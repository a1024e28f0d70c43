package badger

import (
	"testing"

	"github.com/godwitmq/godwit/core"
)

// What a trim or an ack reached was known when it came. Replay meets it again
// with what a checkpoint has said of the log since, which is longer.
// mission: S8
func TestReplayDoesNotReachFurtherThanAnOpDid(t *testing.T) {
	for name, op := range map[string]core.Batch{
		"a trim beyond the end of its log":    {Trims: []core.Trim{{Log: 1, Before: 50}}},
		"an ack of all there is":              {Acks: []core.Ack{{Cursor: 2, From: 1, To: core.MaxOffset}}},
		"an ack of all, where nothing is":     {Acks: []core.Ack{{Cursor: 3, From: 1, To: core.MaxOffset}}},
		"a delivery count of what is to come": {Marks: []core.Mark{{Cursor: 2, At: 2, Attempts: 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, tinyProfile())
			b.commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}}})
			b.s.(*store).points.now()
			if op.Acks == nil || op.Acks[0].Cursor != 3 {
				b.commit(&core.Batch{Appends: []core.Append{{Log: 1, Routes: core.Solo(2), Message: small("before")}}})
			}
			b.commit(&op)
			// One that nobody owes: the checkpoint has news of the log, and none of its cursors.
			b.commit(&core.Batch{Appends: []core.Append{{Log: 1, Routes: core.Solo(99), Message: small("nobody's")}}})
			set := core.RouteSet{ID: 9, Members: []core.CursorID{2, 3}}
			b.commit(&core.Batch{Sets: []core.RouteSet{set}, Appends: []core.Append{{Log: 1, Routes: 9, Message: small("after")}}})
			b.s.(*store).points.now()
			b.crash()
			b.openPart()
			for _, c := range []core.CursorID{2, 3} {
				f := core.Fetch{Log: 1, Cursor: c}
				if err := b.fetch(&f); err != nil {
					t.Fatal(err)
				}
				n := len(f.Out)
				if n == 0 || string(f.Out[n-1].Message.Body) != "after" || f.Out[n-1].Attempts != 0 {
					t.Errorf("cursor %d is owed %+v, want what came after, never tried", c, f.Out)
				}
			}
		})
	}
}
