package core_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
)

// What queues, delays and ids keep comes back from the store that people use,
// too.
func TestOnARealDisk(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2030, 1, 1, 13, 0, 0, 0, time.UTC)
	with := func(do func(p *peer, b *core.Broker)) {
		disk, err := badger.Open(dir, badger.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b, err := core.New(core.Options{Store: disk, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, b, core.SessionSpec{Producer: "p"})
		p.each(t, func(e core.Event) bool { return e.Kind != core.Confirmed })
		do(p, b)
		p.Close(core.Closing{})
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := disk.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	await := func(p *peer, n int) (bodies []string) {
		p.each(t, func(e core.Event) bool {
			if e.Kind == core.Delivered {
				bodies = append(bodies, string(e.Message.Body))
				p.Ack(e.Tag)
			}
			n--
			return n > 0
		})
		return bodies
	}
	with(func(p *peer, _ *core.Broker) {
		p.Apply([]core.Change{{Queue: &core.QueueSpec{Name: "q", Priorities: 3}}}, 1<<62)
		for i := range 6 {
			m := message(queueOf("q"), 1, fmt.Sprint(i))
			m.Priority = uint8(i % 3)
			p.Publish(m, uint64(i+1))
		}
		m := message(queueOf("q"), 1, "later")
		m.NotBefore = now.Add(10 * time.Minute)
		p.Publish(m, 7)
		m = message(queueOf("q"), 1, "once")
		m.Dedup = "id"
		p.Submit([]core.Op{{Publish: m}}, 8)
		await(p, 9)
	})
	with(func(p *peer, _ *core.Broker) {
		m := message(queueOf("q"), 1, "twice")
		m.Dedup = "id"
		p.Submit([]core.Op{{Publish: m}}, 9)
		p.Publish(message(queueOf("q"), 1, "5 again"), 6)
		await(p, 2)
		p.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 20}}, 1<<62)
		if got := fmt.Sprint(await(p, 8)); got != "[2 5 once 1 4 0 3]" {
			t.Errorf("after a restart: %s", got)
		}
	})
	now = now.Add(10 * time.Minute)
	with(func(p *peer, b *core.Broker) {
		p.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 20}}, 1<<62)
		b.Tick(now)
		if got := fmt.Sprint(await(p, 2)); got != "[later]" {
			t.Errorf("ten minutes later: %s", got)
		}
	})
	now = now.Add(10 * time.Minute)
	with(func(p *peer, b *core.Broker) {
		b.Tick(now) // the minutes that are over go
		p.Publish(message(queueOf("q"), 1, "end"), 10)
		await(p, 1)
	})
}
