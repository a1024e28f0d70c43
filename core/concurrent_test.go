package core_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
	"github.com/godwitmq/godwit/persistence/memory"
)

// A peer is a client on goroutines of its own: woken, it takes what came.
type peer struct {
	*core.Session
	woken chan struct{}
}

func (p *peer) Wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

func newPeer(t testing.TB, b *core.Broker, spec core.SessionSpec) *peer {
	id, err := b.Enter(t.Context(), core.Login{})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{woken: make(chan struct{}, 1)}
	p.Session = b.Open(id, spec, 1, p)
	return p
}

// each calls do with every event until it says stop.
func (p *peer) each(t testing.TB, do func(core.Event) (more bool)) {
	var events []core.Event
	for {
		select {
		case <-p.woken:
		case <-time.After(20 * time.Second):
			t.Error("nothing came for 20 s")
			return
		}
		events, _ = p.Events().Take(events)
		for _, e := range events {
			if !do(e) {
				return
			}
		}
	}
}

func newBroker(t testing.TB) *core.Broker {
	b, err := core.New(core.Options{Store: memory.New(memory.Options{}), Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return b
}

// Many publishers, many readers, sessions that come and go: each message of
// the queue is settled once, and nothing hangs. Run it with -race.
//
// mission: S9 S10
func TestManyAtOnce(t *testing.T) {
	b := newBroker(t)
	const publishers, each = 6, 3000
	var settled atomic.Int64
	done := make(chan struct{})
	var all sync.WaitGroup
	for range 3 {
		p := newPeer(t, b, core.SessionSpec{})
		p.Consume(core.Sub{ID: 1, Where: queueOf("work"), Credit: core.Credit{Messages: 50, Auto: true}}, 2)
		all.Go(func() { work(t, p, &settled, publishers*each, done) })
	}
	for i := range publishers {
		p := newPeer(t, b, core.SessionSpec{Unanswered: 100})
		all.Go(func() { pour(t, p, i, each) })
	}
	all.Go(func() { churn(t, b, done) })
	all.Wait()
	if n := settled.Load(); n != publishers*each {
		t.Errorf("%d settled, want %d", n, publishers*each)
	}
}

// work acks until total are settled.
func work(t *testing.T, p *peer, settled *atomic.Int64, total int64, done chan struct{}) {
	for {
		select {
		case <-p.woken:
		case <-done:
			p.Close(core.Closing{})
			return
		}
		events, _ := p.Events().Take(nil)
		for _, e := range events {
			if e.Kind != core.Delivered {
				continue
			}
			p.Ack(e.Tag)
			if settled.Add(1) == total {
				close(done)
			}
		}
	}
}

// pour publishes n messages and waits for each answer.
func pour(t *testing.T, p *peer, who, n int) {
	next, answered := 1, 0
	send := func() {
		for next <= n {
			m := message(queueOf("work"), 1, fmt.Sprint(who, next))
			if p.Publish(m, uint64(next)) != nil {
				return
			}
			next++
		}
	}
	send()
	p.each(t, func(e core.Event) bool {
		switch e.Kind {
		case core.Confirmed:
			if e.Token > 1 || answered > 0 {
				answered++
			} else {
				answered = 0
			}
		case core.Again:
			send()
		case core.Delivered, core.Cancelled, core.Drained, core.Evicted:
		}
		return answered < n-1
	})
	p.Close(core.Closing{})
}

// churn opens, resumes and closes sessions with live and durable wishes.
func churn(t *testing.T, b *core.Broker, done chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
		}
		p := newPeer(t, b, core.SessionSpec{Key: fmt.Sprint("dev", i%3), Expiry: time.Minute, Clean: i%5 == 0})
		p.each(t, func(e core.Event) bool { return e.Kind != core.Confirmed })
		p.Listen(core.Sub{ID: 1, Where: topicOf("t/#"), Merge: true}, 2)
		p.Apply([]core.Change{
			{Queue: &core.QueueSpec{Name: fmt.Sprint("$mqtt/dev", i%3), Owned: true}},
			{Binding: &core.BindingSpec{Queue: fmt.Sprint("$mqtt/dev", i%3), Source: topicOf("t/#"), Only: core.Durable, Owned: true}},
		}, 3)
		p.Consume(core.Sub{ID: 2, Where: queueOf(fmt.Sprint("$mqtt/dev", i%3)), Owned: true, Credit: core.Credit{Messages: 5}}, 4)
		p.Publish(message(topicOf("t/x"), 1, "x"), 9)
		p.each(t, func(e core.Event) bool { return e.Kind != core.Confirmed || e.Token != 4 })
		p.Close(core.Closing{Residue: []byte{1}})
	}
}

// What one publish to one live reader costs in core.
func BenchmarkPublishLive(b *testing.B) {
	for _, readers := range []int{1, 100} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			br := newBroker(b)
			var peers []*peer
			for range readers {
				r := newPeer(b, br, core.SessionSpec{})
				r.Listen(core.Sub{ID: 1, Where: topicOf("a/b"), Merge: true}, 2)
				peers = append(peers, r)
			}
			p := newPeer(b, br, core.SessionSpec{})
			body := make([]byte, 256)
			var spare []core.Event
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				m := &core.Message{Address: topicOf("a/b"), Body: body}
				if err := p.Publish(m, 0); err != nil {
					b.Fatal(err)
				}
				if i++; i%64 == 0 {
					for _, r := range peers {
						spare, _ = r.Events().Take(spare)
						r.Events().Release(len(spare), int64(len(spare))*m.Size())
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(readers), "ns/delivery")
		})
	}
}

// What a durable publish, its delivery and its ack cost in core, on a store
// that costs nothing.
func BenchmarkQueue(b *testing.B) {
	br := newBroker(b)
	p := newPeer(b, br, core.SessionSpec{Unanswered: 1000})
	p.each(b, func(e core.Event) bool { return e.Kind != core.Confirmed })
	p.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 2000, Auto: true}}, 2)
	body := make([]byte, 256)
	b.ReportAllocs()
	sent, acked := 0, 0
	var spare []core.Event
	b.ResetTimer()
	for acked < b.N {
		for sent < b.N {
			if p.Publish(&core.Message{Address: queueOf("q"), QoS: 1, Body: body}, uint64(sent+10)) != nil {
				break
			}
			sent++
		}
		<-p.woken
		spare, _ = p.Events().Take(spare)
		for _, e := range spare {
			if e.Kind == core.Delivered {
				p.Ack(e.Tag)
				acked++
			}
		}
	}
}

// Bindings come and go while publishers publish. What was published while the
// binding was in force is in the queue, once; what was published while it was
// not is not there. What overlaps a change may be either.
//
// mission: S7
func TestBindAndUnbindUnderLoad(t *testing.T) {
	b := newBroker(t)
	admin, reader := newPeer(t, b, core.SessionSpec{}), newPeer(t, b, core.SessionSpec{})
	apply := func(c core.Change) {
		admin.Apply([]core.Change{c}, 2)
		admin.each(t, func(e core.Event) bool {
			if e.Token == 2 && e.Err != nil {
				t.Error(e.Err)
			}
			return e.Token != 2
		})
	}
	apply(queueNamed("q"))
	apply(exchangeNamed("x", core.FanoutKind))
	// By four: unbound, binding, bound, unbinding.
	var phase, done atomic.Int64
	some := func() { // publishes go on meanwhile
		for until := done.Load() + 10; done.Load() < until; {
			runtime.Gosched()
		}
	}
	stop := make(chan struct{})
	type span struct{ before, after int64 }
	const publishers = 3
	sent := make([]map[string]span, publishers)
	var all sync.WaitGroup
	for i := range publishers {
		sent[i] = make(map[string]span)
		p := newPeer(t, b, core.SessionSpec{Unanswered: 100})
		p.each(t, func(e core.Event) bool { return e.Kind != core.Confirmed })
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				body := fmt.Sprint(i, "/", n)
				before := phase.Load()
				if err := p.Publish(message(exchangeOf("x", "k"), 1, body), uint64(n+10)); err != nil {
					t.Error(err)
					return
				}
				p.each(t, func(e core.Event) bool { return e.Kind != core.Confirmed })
				sent[i][body] = span{before, phase.Load()}
				done.Add(1)
			}
		})
	}
	// Phases by four: unbound, binding, bound, unbinding.
	bind := boundTo("q", exchangeOf("x", ""))
	for range 50 {
		phase.Add(1)
		bind.Do = core.Declare
		apply(bind)
		phase.Add(1)
		some()
		phase.Add(1)
		bind.Do = core.Remove
		apply(bind)
		phase.Add(1)
		some()
	}
	close(stop)
	all.Wait()
	got := make(map[string]int)
	reader.Consume(core.Sub{ID: 1, Where: queueOf("q"), Credit: core.Credit{Messages: 1 << 30}}, 2)
	reader.Pull(1, core.Credit{Messages: 1 << 30}, time.Time{})
	reader.each(t, func(e core.Event) bool {
		if e.Kind == core.Delivered {
			got[string(e.Message.Body)]++
			reader.Ack(e.Tag)
		}
		return e.Kind != core.Drained
	})
	sure := 0
	for i := range sent {
		for body, s := range sent[i] {
			switch {
			case got[body] > 1:
				t.Errorf("%s came %d times", body, got[body])
			case s.before != s.after:
			case s.before%4 == 0 && got[body] != 0:
				t.Errorf("%s came, published while nothing was bound (phase %d)", body, s.before)
			case s.before%4 == 2 && got[body] != 1:
				t.Errorf("%s did not come, published while the queue was bound (phase %d)", body, s.before)
			default:
				sure++
			}
		}
	}
	t.Logf("%d messages in the queue, %d decided", len(got), sure)
}

// What the durable path takes with one virtual host, which is one shard, and
// with four: published with QoS 1, a thousand under way each, on a store that
// syncs before it answers.
func BenchmarkDurable(b *testing.B) {
	for _, vhosts := range [][]string{{"a"}, {"a", "b", "c", "d"}} { // four shards: each has one of its own
		b.Run(fmt.Sprintf("vhosts=%d", len(vhosts)), func(b *testing.B) {
			disk, err := badger.Open(b.TempDir(), badger.Options{})
			if err != nil {
				b.Fatal(err)
			}
			br, err := core.New(core.Options{Store: disk, Shards: 4, VHosts: vhosts})
			if err != nil {
				b.Fatal(err)
			}
			var publishing sync.WaitGroup
			b.ResetTimer()
			for _, vhost := range vhosts {
				publishing.Go(func() { publishDurably(b, br, vhost, b.N/len(vhosts)) })
			}
			publishing.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.StopTimer()
			if err := br.Close(b.Context()); err != nil {
				b.Error(err)
			}
			if err := disk.Close(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
}

// publishDurably publishes n messages and waits for their answers.
func publishDurably(b *testing.B, br *core.Broker, vhost string, n int) {
	p := &peer{woken: make(chan struct{}, 1)}
	p.Session = br.Open(core.Identity{VHost: vhost}, core.SessionSpec{Unanswered: 1000}, 1, p)
	defer p.Close(core.Closing{})
	body := make([]byte, 256)
	var spare []core.Event
	for sent, confirmed := 0, 0; confirmed < n; {
		for sent < n {
			m := &core.Message{Address: core.Address{Exchange: core.DefaultExchange, Topic: "q"}, QoS: 1, Body: body}
			if p.Publish(m, uint64(sent+10)) != nil {
				break
			}
			sent++
		}
		<-p.woken
		spare, _ = p.Events().Take(spare)
		for _, e := range spare {
			if e.Kind == core.Confirmed && e.Token >= 10 {
				confirmed++
			}
		}
	}
}
