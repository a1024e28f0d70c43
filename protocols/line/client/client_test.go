package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/line"
	"github.com/godwitmq/godwit/protocols/line/client"
	"github.com/godwitmq/godwit/protocols/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a broker on loopback and says where.
func serve(t testing.TB, o line.Options) (addr string, disk *memory.Store) {
	t.Helper()
	disk = memory.New(memory.Options{})
	broker, err := core.New(core.Options{Store: disk})
	if err != nil {
		t.Fatal(err)
	}
	server := transport.New(transport.Options{Broker: broker})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		_ = server.Serve(l, transport.ListenerOptions{Name: "line", Protocols: []protocols.Protocol{line.New(o)}})
	})
	ticks, stop := time.NewTicker(50*time.Millisecond), make(chan struct{})
	running.Go(func() {
		for {
			select {
			case now := <-ticks.C:
				broker.Tick(now)
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		close(stop)
		ticks.Stop()
		running.Wait()
		if err := broker.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l.Addr().String(), disk
}

func dial(t testing.TB, addr string, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(deadline(t), addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// settles asks until a queue has these figures: they follow what was confirmed
// by a moment.
func settles(t *testing.T, c *client.Client, dest, ready, unacked string) {
	t.Helper()
	ctx := deadline(t)
	for {
		row, err := c.Stat(ctx, dest)
		if err != nil {
			t.Fatalf("%s has %+v, %v; want ready=%s unacked=%s", dest, row, err, ready, unacked)
		}
		if row.Field("ready") == ready && row.Field("unacked") == unacked {
			return
		}
	}
}

// mission: S1
func TestPublishAndGet(t *testing.T) {
	addr, _ := serve(t, line.Options{})
	c, ctx := dial(t, addr, client.Options{Client: "t 1"}), deadline(t)
	if got := c.Welcome("user"); got != "anonymous" {
		t.Errorf("welcome user=%q", got)
	}
	body := "any\r\noctets\x00\xff\n"
	must(t, c.Publish(ctx, client.Message{
		Dest: "q/" + client.Escape("a queue/100%"), Body: []byte(body), ContentType: "text/plain", CorrelationID: "\xff 1",
		Reply: "q/b%20c", Key: "k", TTL: time.Hour, Priority: 9, Headers: []client.Header{{Name: "a=b", Value: "c d"}, {Name: "ü", Value: ""}},
	}))
	got, err := c.Get(ctx, "q/a%20queue/100%25", client.GetOptions{N: 5})
	must(t, err)
	if len(got) != 1 {
		t.Fatalf("got %d messages", len(got))
	}
	d := got[0]
	if string(d.Body) != body || d.ContentType != "text/plain" || d.CorrelationID != "\xff 1" || d.Reply != "q/b%20c" || d.Key != "k" ||
		d.Priority != 9 || d.Attempt != 1 || d.Retained || time.Since(d.Time) > time.Minute || time.Until(d.Expires) < 59*time.Minute {
		t.Errorf("got %+v", d)
	}
	if !slices.Equal(d.Headers, []client.Header{{Name: "a=b", Value: "c d"}, {Name: "ü", Value: ""}}) {
		t.Errorf("headers %q", d.Headers)
	}
	must(t, d.AckWait(ctx))
	if err := d.AckWait(ctx); client.Code(err) != 404 {
		t.Errorf("the second ack: %v", err)
	}
	settles(t, c, "q/a%20queue/100%25", "0", "0")
}

func TestGetWaits(t *testing.T) {
	addr, _ := serve(t, line.Options{})
	c, p, ctx := dial(t, addr, client.Options{}), dial(t, addr, client.Options{}), deadline(t)
	none, err := c.Get(ctx, "q/a", client.GetOptions{Wait: 100 * time.Millisecond})
	if len(none) != 0 || err != nil {
		t.Errorf("got %v, %v", none, err)
	}
	got := make(chan int)
	go func() {
		ds, _ := c.Get(ctx, "q/a", client.GetOptions{N: 2, Wait: 5 * time.Second, Ack: client.AckAuto})
		got <- len(ds)
	}()
	for range 2 {
		must(t, p.Publish(ctx, client.Message{Dest: "q/a"}))
	}
	if n := <-got; n != 2 {
		t.Errorf("got %d", n)
	}
	if _, err := c.Get(ctx, "t/a", client.GetOptions{}); client.Code(err) != 406 {
		t.Errorf("GET of a topic: %v", err)
	}
}

// A message is confirmed when the disk has it.
// mission: P1
func TestPipelined(t *testing.T) {
	addr, disk := serve(t, line.Options{})
	c, ctx := dial(t, addr, client.Options{Window: 64}), deadline(t)
	must(t, c.Make(ctx, "q/a"))
	disk.Hold()
	var all []*client.Pending
	for i := range 64 {
		p, err := c.Send(ctx, client.Message{Dest: "q/a", Body: fmt.Append(nil, i)})
		must(t, err)
		all = append(all, p)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Send(short, client.Message{Dest: "q/a"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the window is full: %v", err)
	}
	select {
	case <-all[0].Done():
		t.Error("confirmed before the disk had it")
	default:
	}
	disk.Resume()
	bad, err := c.Send(ctx, client.Message{Dest: "x/none/k"})
	must(t, err)
	must(t, c.Flush(ctx))
	for _, p := range all {
		must(t, p.Wait(ctx))
	}
	if err := bad.Wait(ctx); client.Code(err) != 404 {
		t.Errorf("no such exchange: %v", err)
	}
	settles(t, c, "q/a", "64", "0")
}

func TestSubscribe(t *testing.T) {
	addr, _ := serve(t, line.Options{})
	c, p, ctx := dial(t, addr, client.Options{}), dial(t, addr, client.Options{}), deadline(t)
	must(t, p.Publish(ctx, client.Message{Dest: "t/plant/1/temp", Body: []byte("20"), Retain: true}))
	live, err := c.Subscribe(ctx, "t/plant/+/temp", client.SubOptions{})
	must(t, err)
	d, err := live.Next(ctx)
	if err != nil || !d.Retained || string(d.Body) != "20" {
		t.Errorf("%+v, %v", d, err)
	}
	must(t, d.Ack()) // nothing to do
	must(t, p.Publish(ctx, client.Message{Dest: "t/plant/2/temp", Body: []byte("21")}))
	d, err = live.Next(ctx)
	if err != nil || d.Dest != "t/plant/2/temp" || d.Retained {
		t.Errorf("%+v, %v", d, err)
	}
	must(t, live.Unsubscribe(ctx))
	if _, err := live.Next(ctx); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after Unsubscribe: %v", err)
	}
	if _, err := c.Subscribe(ctx, "t/a+", client.SubOptions{}); client.Code(err) != 400 {
		t.Errorf("a bad filter: %v", err)
	}
}

// Members of a group share, a durable subscription keeps, an id is kept once, and
// what is given back for later comes later.
func TestQueuesBehindSubscriptions(t *testing.T) {
	addr, _ := serve(t, line.Options{})
	p, ctx := dial(t, addr, client.Options{}), deadline(t)
	a, b := dial(t, addr, client.Options{}), dial(t, addr, client.Options{Client: "keeper"})
	shared, err := a.Subscribe(ctx, "t/jobs/#", client.SubOptions{Group: "pool", Window: 1})
	must(t, err)
	_, err = b.Subscribe(ctx, "t/jobs/#", client.SubOptions{Durable: "log"})
	must(t, err)
	must(t, b.Close())
	for range 2 {
		must(t, p.Publish(ctx, client.Message{Dest: "t/jobs/1", Body: []byte("one"), Dedup: "1"}))
	}
	d, err := shared.Next(ctx)
	must(t, err)
	began := time.Now()
	must(t, d.Later(200*time.Millisecond))
	if d, err = shared.Next(ctx); err != nil || string(d.Body) != "one" || d.Attempt != 2 || time.Since(began) < 200*time.Millisecond {
		t.Errorf("again, after %v: %+v, %v", time.Since(began), d, err)
	}
	must(t, d.AckWait(ctx))
	b = dial(t, addr, client.Options{Client: "keeper"})
	kept, err := b.Subscribe(ctx, "t/jobs/#", client.SubOptions{Durable: "log"})
	must(t, err)
	if d, err = kept.Next(ctx); err != nil || string(d.Body) != "one" {
		t.Errorf("kept: %+v, %v", d, err)
	}
	must(t, d.Dead())
	must(t, p.Make(ctx, "q/a"))
	must(t, p.Make(ctx, "q/b"))
	must(t, p.Publish(ctx, client.Message{Dest: "q/a", Body: []byte("x")}))
	if n, err := p.Move(ctx, "q/a", "q/b", 5); n != 1 || err != nil {
		t.Errorf("moved %d, %v", n, err)
	}
	if n, err := p.Redrive(ctx, "q/b", 0); n != 0 || client.Code(err) != 404 {
		t.Errorf("redriven %d, %v", n, err)
	}
}

func TestHandle(t *testing.T) {
	addr, _ := serve(t, line.Options{})
	var lost []error
	c := dial(t, addr, client.Options{OnError: func(err error) { lost = append(lost, err) }})
	p, ctx := dial(t, addr, client.Options{}), deadline(t)
	work, err := c.Subscribe(ctx, "q/jobs", client.SubOptions{Window: 2})
	must(t, err)
	for i := range 10 {
		must(t, p.Publish(ctx, client.Message{Dest: "q/jobs", Body: fmt.Append(nil, i)}))
	}
	var seen []string
	handling, stop := context.WithCancel(ctx)
	err = work.Handle(handling, func(d *client.Delivery) error {
		seen = append(seen, string(d.Body))
		if d.Attempt == 1 && string(d.Body) == "3" {
			return errors.New("try again")
		}
		if len(seen) == 11 {
			stop()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || len(seen) != 11 {
		t.Errorf("%v after %v", err, seen)
	}
	must(t, c.Flush(ctx))
	settles(t, p, "q/jobs", "0", "0")
	if len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
}

// mission: S13
func TestRequestAndReply(t *testing.T) {
	addr, _ := serve(t, line.Options{})
	c, worker, ctx := dial(t, addr, client.Options{}), dial(t, addr, client.Options{}), deadline(t)
	replies, err := c.Replies(ctx)
	must(t, err)
	must(t, c.Publish(ctx, client.Message{Dest: "q/ask", Body: []byte("2+2"), Reply: replies.Address(), CorrelationID: "7"}))
	got, err := worker.Get(ctx, "q/ask", client.GetOptions{Wait: 5 * time.Second})
	must(t, err)
	must(t, worker.Publish(ctx, client.Message{Dest: got[0].Reply, Body: []byte("4"), CorrelationID: got[0].CorrelationID}))
	d, err := replies.Next(ctx)
	if err != nil || string(d.Body) != "4" || d.CorrelationID != "7" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestManage(t *testing.T) {
	addr, _ := serve(t, line.Options{})
	c, ctx := dial(t, addr, client.Options{}), deadline(t)
	must(t, c.Ping(ctx))
	must(t, c.Make(ctx, "q/r", "class=async"))
	must(t, c.Make(ctx, "x/logs"))
	must(t, c.Bind(ctx, "q/r", "x/logs/#"))
	must(t, c.Publish(ctx, client.Message{Dest: "x/logs/err", Must: true}))
	n, err := c.Purge(ctx, "q/r")
	if err != nil || n != 1 {
		t.Errorf("purged %d, %v", n, err)
	}
	must(t, c.Unbind(ctx, "q/r", "x/logs/#"))
	if err := c.Publish(ctx, client.Message{Dest: "x/logs/err", Must: true}); client.Code(err) != 404 {
		t.Errorf("nobody takes it: %v", err)
	}
	rows, err := c.List(ctx, "q/*")
	if err != nil || len(rows) != 1 || rows[0].Name != "q/r" {
		t.Errorf("%v, %v", rows, err)
	}
	must(t, c.Remove(ctx, "q/r"))
	if err := c.Remove(ctx, "q/r"); client.Code(err) != 404 || !strings.Contains(err.Error(), "no queue") {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := c.Do(ctx, "STAT q/a\nPURGE", "q/a"); err == nil {
		t.Error("a word may hold a request")
	}
}

func TestTheEnd(t *testing.T) {
	addr, disk := serve(t, line.Options{MaxPayload: 10})
	c, ctx := dial(t, addr, client.Options{}), deadline(t)
	must(t, c.Make(ctx, "q/a"))
	sub, err := c.Subscribe(ctx, "q/b", client.SubOptions{})
	must(t, err)
	disk.Hold()
	p, err := c.Send(ctx, client.Message{Dest: "q/a"})
	must(t, err)
	if err := c.Publish(ctx, client.Message{Dest: "q/a", Body: make([]byte, 1000)}); err == nil || c.Err() == nil {
		t.Errorf("a payload over 16 times the limit: %v", err)
	}
	<-c.Done()
	if err := p.Wait(ctx); client.Code(err) != 413 {
		t.Errorf("what was not confirmed: %v", err)
	}
	if _, err := sub.Next(ctx); client.Code(err) != 413 {
		t.Errorf("the subscription: %v", err)
	}
	if err := c.Ping(ctx); client.Code(err) != 413 {
		t.Errorf("afterwards: %v", err)
	}
	disk.Resume()
	if _, err := client.Dial(ctx, addr, client.Options{VHost: "a\nb"}); client.Code(err) != 400 {
		t.Errorf("a bad virtual host: %v", err)
	}
	if _, err := client.Dial(ctx, "127.0.0.1:1", client.Options{}); err == nil {
		t.Error("nobody listens there")
	}
}

// Close sends all that was published, and waits for it.
func TestCloseConfirms(t *testing.T) {
	addr, _ := serve(t, line.Options{})
	ctx := deadline(t)
	c, err := client.Dial(ctx, addr, client.Options{})
	must(t, err)
	var last *client.Pending
	for range 500 {
		last, err = c.Send(ctx, client.Message{Dest: "q/a", Body: make([]byte, 100)})
		must(t, err)
	}
	must(t, c.Close())
	if err := last.Wait(ctx); err != nil {
		t.Errorf("the last one: %v", err)
	}
}

func TestManyGoroutines(t *testing.T) {
	addr, _ := serve(t, line.Options{})
	c, ctx := dial(t, addr, client.Options{Window: 50, Heartbeat: time.Second}), deadline(t)
	sub, err := c.Subscribe(ctx, "q/a", client.SubOptions{Window: 100})
	must(t, err)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				if err := c.Publish(ctx, client.Message{Dest: "q/a", Body: []byte("x")}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range 1600 {
		d, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("after %d: %v", n, err)
		}
		must(t, d.Ack())
	}
	all.Wait()
	must(t, c.Flush(ctx))
}

// A person with nc.
// mission: S37
func TestNetcat(t *testing.T) {
	nc, err := exec.LookPath("nc")
	if err != nil {
		t.Skip("nc is not here")
	}
	addr, _ := serve(t, line.Options{})
	host, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(deadline(t), nc, "-q", "1", host, port)
	cmd.Stdin = strings.NewReader("SAY q/orders hello world\nGET q/orders n=1 wait=5s\nACK 0 1\nPUB q/orders id=1 2\nhi\nSTAT q/none\nQUIT\n")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"MSG 0 1 q/orders ts=", " 11\nhello world\nEND 0 1 why=done\n", "CONFIRM 1\n", "ERR 404 no no such thing: q/none\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if !strings.HasSuffix(string(out), "OK\n") {
		t.Errorf("it ends\n%s", out)
	}
}

func BenchmarkSend(b *testing.B) {
	addr, _ := serve(b, line.Options{})
	c := dial(b, addr, client.Options{})
	body := make([]byte, 256)
	ctx := context.Background()
	for b.Loop() {
		if _, err := c.Send(ctx, client.Message{Dest: "q/a", Body: body}); err != nil {
			b.Fatal(err)
		}
	}
	must(b, c.Flush(ctx))
}
