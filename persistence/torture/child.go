package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/godwitmq/godwit/core"
)

// OpenFunc opens the store that is tried: in dir, with that profile.
type OpenFunc func(dir, profile string) (core.Store, error)

// partitions is how many a run uses: what is one frame for the disk holds
// batches of several.
const partitions = 2

// window is how many batches of a partition wait for the disk; below
// swiftAfter and markAfter, for what those settle must be there.
const window = 64

// What a child does.
const (
	doWrite  = "write"  // verify, then write until killed or told to stop
	doVerify = "verify" // verify, and end
	doFill   = "fill"   // verify, then write carefully on a disk that fills
)

// A job is what a child is told.
type job struct {
	Do        string
	Dir       string
	Profile   string
	Seed      uint64
	Confirmed []uint64 // the highest confirmed number, by partition; of doFill: batches, acks
}

func (j job) String() string {
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(b)
}

// RunChild does one job, which a parent passed on its command line, and writes
// lines for the parent. It ends when the parent ends, which closes in.
func RunChild(text string, open OpenFunc, in io.Reader, out io.Writer) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return fmt.Errorf("this command is torture's own: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { // ends with the parent, or with this process
		_, _ = io.Copy(io.Discard, in)
		stop()
	}()
	return (&child{job: j, open: open, voice: voice{out: out}}).run(ctx)
}

// A voice writes lines, each with one write, from any goroutine.
type voice struct {
	mu  sync.Mutex
	out io.Writer
}

func (v *voice) say(format string, args ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ") + "\n"
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, err := io.WriteString(v.out, line); err != nil {
		os.Exit(1) // nobody hears us
	}
}

// A child is the process that has the store.
type child struct {
	job
	voice
	open  OpenFunc
	store core.Store
}

// run says "failed" and why before it returns an error of the store.
func (c *child) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			c.say("failed %v", err)
		}
	}()
	began := time.Now()
	if c.store, err = c.open(c.Dir, c.Profile); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if c.Do == doFill {
		return c.runFill(ctx, began)
	}
	writers, err := c.verify(ctx, began)
	if err != nil || c.Do == doVerify {
		return err
	}
	return c.write(ctx, writers)
}

func (c *child) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return c.store.Close(ctx)
}

// verify opens the partitions and compares them. A partition that the store
// calls damaged is a fault, and nothing is written after it.
func (c *child) verify(ctx context.Context, began time.Time) ([]*writer, error) {
	var writers []*writer
	for i := range partitions {
		p, err := c.openPartition(ctx, core.PartitionID(i))
		if err != nil {
			return nil, err
		}
		h := history{c.Seed, core.PartitionID(i)}
		writers = append(writers, newWriter(c, h, p))
	}
	c.say("open %d", time.Since(began).Milliseconds())
	messages := int64(0)
	for i, w := range writers {
		check := check{history: w.history, p: w.p, confirmed: c.confirmed(i), report: c.report}
		if err := check.run(ctx); err != nil {
			return nil, err
		}
		messages += check.messages
		w.next, w.places = check.last+1, check.places
	}
	c.say("verified %d", messages)
	return writers, nil
}

func (c *child) openPartition(ctx context.Context, id core.PartitionID) (core.Partition, error) {
	p, err := c.store.Open(ctx, id)
	if _, ok := errors.AsType[*core.CorruptError](err); ok {
		c.report(fault{damaged, fmt.Sprintf("open partition %d: %v", id, err)})
	}
	return p, err
}

func (c *child) report(f fault) { c.say("fault %s %s", f.kind, f.text) }

func (c *child) confirmed(i int) uint64 {
	if i < len(c.Confirmed) {
		return c.Confirmed[i]
	}
	return 0
}

// write writes until ctx ends or the store fails.
func (c *child) write(ctx context.Context, writers []*writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	for _, w := range writers {
		running.Go(func() {
			if err := w.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	defer cancel(nil)
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
