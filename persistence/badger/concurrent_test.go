package badger

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

var busy = flag.Duration("busy", 3*time.Second, "how long TestReadersMissNothing works")

// While one goroutine appends and settles, and the checkpointer moves chunks to
// blocks and blocks to other blocks, readers see what a cursor owes: each
// record once, with its own content, none twice and none left out.
func TestReadersMissNothing(t *testing.T) {
	p := modelProfile()
	p.blockBytes = 2000
	b := newBench(t, p)
	// Blocks are shared by three cursors. When 3 and 4 have settled theirs, a
	// few records are left that 2 owes, and are rewritten. 8 has messages of its
	// own alone, in small blocks.
	b.commit(&core.Batch{
		Cursors: []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}, {ID: 4, Log: 1}, {ID: 8, Log: 1}},
		Sets:    []core.RouteSet{{ID: 100, Members: []core.CursorID{3, 4}}, {ID: 101, Members: []core.CursorID{2, 3}}},
	})

	var mu sync.Mutex
	var own []core.Offset    // what cursor 8 owes
	var shared []core.Offset // what cursor 2 owes; it never settles
	content := map[core.Offset]string{}
	var stop atomic.Bool
	var all sync.WaitGroup
	read := func(c core.CursorID, want *[]core.Offset, floor *int) {
		for !stop.Load() && !t.Failed() {
			mu.Lock()
			from := *floor
			promised := append([]core.Offset(nil), (*want)[from:]...)
			mu.Unlock()
			f := &core.Fetch{Log: 1, Cursor: c}
			said := make(chan error, 1)
			f.Done = fetchedFunc(func(_ *core.Fetch, err error) { said <- err })
			if err := b.p.Fetch(f); err != nil {
				t.Error(err)
				return
			}
			if err := <-said; err != nil {
				t.Errorf("cursor %d: %v", c, err)
				return
			}
			mu.Lock()
			gone := *floor - from // settled meanwhile
			known := maps.Clone(content)
			mu.Unlock()
			i, last := 0, core.Offset(0)
			for k := range f.Out {
				o := f.Out[k].Offset
				if o <= last {
					t.Errorf("cursor %d: %d after %d", c, o, last)
					return
				}
				last = o
				if body := string(f.Out[k].Message.Body); known[o] != "" && body != known[o] {
					t.Errorf("cursor %d at %d: %q", c, o, body)
					return
				}
				for i < len(promised) && promised[i] < o {
					if i >= gone {
						t.Errorf("cursor %d: %d is missing", c, promised[i])
						return
					}
					i++
				}
				if i < len(promised) && promised[i] == o {
					i++
				}
			}
			if i < len(promised) && i >= gone {
				t.Errorf("cursor %d: %d is missing at the end", c, promised[i])
				return
			}
		}
	}
	never, settled := 0, 0
	all.Go(func() { read(2, &shared, &never) })
	all.Go(func() { read(8, &own, &settled) })
	all.Go(func() {
		for !stop.Load() && !t.Failed() {
			b.checkpoint()
		}
	})
	end, bodies := core.Offset(1), 0
	for until := time.Now().Add(*busy); time.Now().Before(until) && !t.Failed(); {
		batch := &core.Batch{}
		for i, routes := range []core.RouteSetID{100, 100, 100, 101, 100, 100, 100, 100, 100, core.Solo(8)} {
			batch.Appends = append(batch.Appends, core.Append{Log: 1, Routes: routes, Message: small(fmt.Sprint(bodies + i))})
		}
		bodies += len(batch.Appends)
		for _, c := range []core.CursorID{3, 4} { // they lag
			batch.Acks = append(batch.Acks, core.Ack{Cursor: c, From: 1, To: max(1, end-300), N: 10})
		}
		mu.Lock()
		if len(own)-settled > 300 {
			batch.Acks = append(batch.Acks, core.Ack{Cursor: 8, From: 1, To: own[settled+100], N: 100})
			settled += 100
		}
		mu.Unlock()
		said := make(chan error, 1)
		batch.Wait, batch.Done = true, doneFunc(func(_ *core.Batch, err error) { said <- err })
		err := b.p.Commit(batch)
		for ; errors.Is(err, core.ErrOverload); err = b.p.Commit(batch) {
			b.checkpoint()
		}
		if err != nil {
			t.Fatal(err)
		}
		b.waitFor(said)
		end = batch.Appends[9].Offset + 1
		mu.Lock()
		for i := range batch.Appends {
			content[batch.Appends[i].Offset] = string(batch.Appends[i].Message.Body)
			switch batch.Appends[i].Routes {
			case 101:
				shared = append(shared, batch.Appends[i].Offset)
			case core.Solo(8):
				own = append(own, batch.Appends[i].Offset)
			}
		}
		mu.Unlock()
		if len(shared) > 1500 { // else each round takes longer
			break
		}
	}
	stop.Store(true)
	all.Wait()
	st := b.s.Stats()
	t.Logf("%d records, %d checkpoints, %d rewrites, %d fetches", bodies, st.Checkpoints, st.Rewrites, st.Fetches)
}
