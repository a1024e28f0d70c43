package badger

import (
	"context"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

func newBench(t testing.TB, p profile) *bench {
	t.Helper()
	b := &bench{t: t, profile: p, dir: t.TempDir()}
	b.open()
	b.openPart()
	t.Cleanup(func() { _ = b.s.Close(context.Background()) })
	return b
}

func (b *bench) openPart() {
	b.t.Helper()
	p, err := b.s.Open(context.Background(), 1)
	if err != nil {
		b.t.Fatal(err)
	}
	b.p = p
}

// reopen closes the store and opens it and partition 1 again.
func (b *bench) reopen() {
	b.t.Helper()
	b.reopenStore()
	b.openPart()
}

func (b *bench) commit(batch *core.Batch) {
	b.t.Helper()
	said := make(chan error, 1)
	batch.Wait, batch.Done = true, doneFunc(func(_ *core.Batch, err error) { said <- err })
	if err := b.p.Commit(batch); err != nil {
		b.t.Fatal(err)
	}
	b.waitFor(said)
}

func (b *bench) waitFor(said <-chan error) {
	b.t.Helper()
	select {
	case err := <-said:
		if err != nil {
			b.t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		b.t.Fatal("no answer within 20 s")
	}
}

func (b *bench) fetch(f *core.Fetch) error {
	b.t.Helper()
	said := make(chan error, 1)
	f.Done = fetchedFunc(func(_ *core.Fetch, err error) { said <- err })
	if err := b.p.Fetch(f); err != nil {
		return err
	}
	return <-said
}

func small(body string) *core.Message {
	return &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "t"},
		QoS:     1, Body: []byte(body), Arrived: time.UnixMilli(1_790_000_000_000),
	}
}
