package badger

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/godwitmq/godwit/core"
)

// BenchmarkCommit is one shard that publishes messages of 256 octets, window
// of them at a time in flight, each batch waiting for the one before, and
// settles each one with the batch after. One op is one message.
func BenchmarkCommit(b *testing.B) {
	for _, profile := range []Profile{Edge, Server} {
		for _, window := range []int{1, 256, 1000, 4096} {
			for _, acks := range []bool{false, true} {
				name := fmt.Sprintf("%s/window=%d/acks=%v", profile, window, acks)
				b.Run(name, func(b *testing.B) { benchmarkCommit(b, profile, window, acks) })
			}
		}
	}
}

func benchmarkCommit(b *testing.B, profile Profile, window int, acks bool) {
	s, err := Open(b.TempDir(), Options{Profile: profile})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	p, err := s.Open(context.Background(), 1)
	if err != nil {
		b.Fatal(err)
	}
	m := &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "plant/7/temp"},
		From:    &core.Identity{VHost: "/", User: "press", Client: "press-7", Protocol: "mqtt"},
		QoS:     1, Body: make([]byte, 256), Arrived: time.UnixMilli(1_790_000_000_000),
	}
	said := make(chan error, 1)
	commit := func(batch *core.Batch) {
		batch.Wait = true
		batch.Done = doneFunc(func(_ *core.Batch, err error) { said <- err })
		if err := p.Commit(batch); err != nil {
			b.Fatal(err)
		}
		if err := <-said; err != nil {
			b.Fatal(err)
		}
	}
	commit(&core.Batch{Cursors: []core.CursorOp{{ID: 2, Log: 1}}})
	b.ReportAllocs()
	b.ResetTimer()
	batch := &core.Batch{}
	var took []time.Duration
	start, cpu, before := time.Now(), cpuTime(), s.Stats()
	for left := b.N; left > 0; left -= window {
		n := min(left, window)
		begun := time.Now()
		batch.Acks = batch.Acks[:0]
		if k := len(batch.Appends); acks && k > 0 {
			batch.Acks = append(batch.Acks, core.Ack{Cursor: 2, From: batch.Appends[0].Offset, To: batch.Appends[k-1].Offset + 1, N: int64(k)})
		}
		batch.Appends = batch.Appends[:0]
		for range n {
			batch.Appends = append(batch.Appends, core.Append{Log: 1, Routes: core.Solo(2), Message: m})
		}
		commit(batch)
		took = append(took, time.Since(begun))
	}
	b.StopTimer()
	after := s.Stats()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "msg/s")
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/msg")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(after.BytesWritten-before.BytesWritten)/float64(256*b.N), "WA")
}

// cpuTime is what this process has used of the CPUs, by itself and in the kernel.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFetch reads a backlog, 1,024 messages at a time. One op is one
// message.
func BenchmarkFetch(b *testing.B) {
	s, err := Open(b.TempDir(), Options{Profile: Server})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	p, err := s.Open(context.Background(), 1)
	if err != nil {
		b.Fatal(err)
	}
	said := make(chan error, 1)
	m := &core.Message{Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "plant/7/temp"}, Body: make([]byte, 256)}
	for range 100 {
		batch := &core.Batch{Wait: true, Cursors: []core.CursorOp{{ID: 2, Log: 1}}, Done: doneFunc(func(_ *core.Batch, err error) { said <- err })}
		for range 1000 {
			batch.Appends = append(batch.Appends, core.Append{Log: 1, Routes: core.Solo(2), Message: m})
		}
		if err := p.Commit(batch); err != nil {
			b.Fatal(err)
		}
		<-said
	}
	b.ReportAllocs()
	b.ResetTimer()
	f := &core.Fetch{Log: 1, Cursor: 2, Records: 1024, Bytes: 1 << 20, Done: fetchedFunc(func(_ *core.Fetch, err error) { said <- err })}
	for left := b.N; left > 0; left -= len(f.Out) {
		if f.From = f.Next; f.From > 100_000 {
			f.From = 1
		}
		if err := p.Fetch(f); err != nil {
			b.Fatal(err)
		}
		if err := <-said; err != nil || len(f.Out) == 0 {
			b.Fatal(len(f.Out), err)
		}
	}
}

// A doneFunc is a BatchDone.
type doneFunc func(*core.Batch, error)

func (f doneFunc) Committed(b *core.Batch, err error) { f(b, err) }

// A fetchedFunc is a FetchDone.
type fetchedFunc func(*core.Fetch, error)

func (f fetchedFunc) Fetched(r *core.Fetch, err error) { f(r, err) }

// BenchmarkShared stores messages that each are owed by as many sessions, 100
// of them a commit. One op is one message: what it costs must not depend on the
// sessions.
func BenchmarkShared(b *testing.B) {
	for _, sessions := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			x := newBench(b, serverProfile)
			set := core.RouteSet{ID: 1_000_000}
			batch := &core.Batch{}
			for i := range sessions {
				set.Members = append(set.Members, core.CursorID(2+i))
				batch.Cursors = append(batch.Cursors, core.CursorOp{ID: core.CursorID(2 + i), Log: 1})
			}
			batch.Sets = []core.RouteSet{set}
			x.commit(batch)
			m := small("x")
			m.Body = make([]byte, 256)
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; left -= 100 {
				batch := &core.Batch{}
				for range min(100, left) {
					batch.Appends = append(batch.Appends, core.Append{Log: 1, Routes: set.ID, Message: m})
				}
				x.commit(batch)
			}
		})
	}
}

// BenchmarkInFlight keeps window messages of 256 octets in flight, in batches
// of 256: when one is durable it is delivered, and settled by the batch that
// takes its place. One op is one message, published, stored, delivered and
// settled.
func BenchmarkInFlight(b *testing.B) {
	for _, profile := range []Profile{Edge, Server} {
		for _, window := range []int{256, 1024, 4096} {
			b.Run(fmt.Sprintf("%s/window=%d", profile, window), func(b *testing.B) { benchmarkInFlight(b, profile, window) })
		}
	}
}

// A flight is one batch, used again and again.
type flight struct {
	batch core.Batch
	sent  time.Time
	said  chan<- *flight
	err   error
}

func (f *flight) Committed(_ *core.Batch, err error) {
	f.err = err
	f.said <- f
}

// turn settles what the batch before has stored and publishes as many again.
func (f *flight) turn(m *core.Message, n int) {
	b := &f.batch
	b.Acks = b.Acks[:0]
	if k := len(b.Appends); k > 0 {
		b.Acks = append(b.Acks, core.Ack{Cursor: 2, From: b.Appends[0].Offset, To: b.Appends[k-1].Offset + 1, N: int64(k)})
	}
	b.Appends = b.Appends[:0]
	for range n {
		b.Appends = append(b.Appends, core.Append{Log: 1, Routes: core.Solo(2), Message: m})
	}
	b.Wait, b.Done, f.sent = true, f, time.Now()
}

func benchmarkInFlight(b *testing.B, profile Profile, window int) {
	s, err := Open(b.TempDir(), Options{Profile: profile, NoBallast: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	p, err := s.Open(context.Background(), 1)
	if err != nil {
		b.Fatal(err)
	}
	m := &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "plant/7/temp"},
		From:    &core.Identity{VHost: "/", User: "press", Client: "press-7", Protocol: "mqtt"},
		QoS:     1, Body: make([]byte, 256), Arrived: time.UnixMilli(1_790_000_000_000),
	}
	said := make(chan *flight, window/256+1)
	first := &flight{said: said}
	first.batch = core.Batch{Wait: true, Done: first, Cursors: []core.CursorOp{{ID: 2, Log: 1}}}
	if err := p.Commit(&first.batch); err != nil {
		b.Fatal(err)
	}
	<-said
	var took []time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	start, cpu, before := time.Now(), cpuTime(), s.Stats()
	left, open := b.N, 0
	send := func(f *flight) {
		n := min(256, left)
		left -= n
		f.turn(m, n)
		if err := p.Commit(&f.batch); err != nil {
			b.Fatal(err)
		}
		open++
	}
	for range window / 256 {
		if left > 0 {
			send(&flight{said: said})
		}
	}
	for open > 0 {
		f := <-said
		open--
		took = append(took, time.Since(f.sent))
		if f.err != nil {
			b.Fatal(f.err)
		}
		if left > 0 {
			send(f)
		}
	}
	b.StopTimer()
	after := s.Stats()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "msg/s")
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/msg")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(after.BytesWritten-before.BytesWritten)/float64(256*b.N), "WA")
}
