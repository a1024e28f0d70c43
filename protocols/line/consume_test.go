package line

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

func TestGet(t *testing.T) {
	w := newWorld(t, Options{})
	c, p := w.ready(), w.ready()
	c.expect("GET q/a", "END 0 0 why=done")
	c.expect("GET q/a n=2 wait=5s", "")
	p.expect("SAY q/a one", "")
	c.hears("MSG 0 1 q/a ts=_ 3\none")
	c.expect("GET q/a", "ERR 409 no sid=0 a GET with sid 0 is running*")
	c.expect("GET q/b sid=5", "END 5 0 why=done")
	w.pass(6 * time.Second)
	c.hears("END 0 1 why=timeout")
	p.expect("SAY q/a two\nSAY q/a three", "")
	c.expect("GET q/a n=9", "MSG 0 3 q/a ts=_ 3\ntwo\nMSG 0 5 q/a ts=_ 5\nthree\nEND 0 2 why=done")
	c.expect("GET q/b", "ERR 409 no sid=0 sid 0 has unsettled deliveries of q/a*")
	c.expect("ACK 0 1-5", "")
	c.expect("GET q/b", "END 0 0 why=done")
	c.expect("ACK 0 1", "ERR 404 no sid=0 no unsettled delivery 1*")
	c.expect("GET t/a", "ERR 406 no sid=0 GET reads a queue*")
	c.expect("GET s/a", "ERR 406 no sid=0 streams*")
	c.expect("GET q/a ack=none", "ERR 406 no sid=0 a queue has ack=manual*")
	c.expect("SUB 9 q/a", "OK sid=9")
	c.expect("GET q/a sid=9", "ERR 409 no sid=9 sid 9 is a SUB's")
	c.expect("UNSUB 0", "END 0 0 why=unsub")
}

func TestGetAuto(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("SAY q/a one\nGET q/a ack=auto", "MSG 0 1 q/a ts=_ 3\none\nEND 0 1 why=done")
	c.expect("STAT q/a", ": q/a ready=0 unacked=0 *\nOK")
	c.expect("ACK 0 1", "ERR 404 no sid=0 subscription 0 has nothing to settle*")
}

// mission: P7
func TestNackAndLease(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("PUB q/a id=1 1\na\nPUB q/a id=2 1\nb", "CONFIRM 2")
	got := c.send("SUB 1 q/a window=10 lease=1m\n")
	seqs := c.unsettled(1)
	if len(seqs) != 2 || !strings.HasPrefix(got, "OK sid=1\n") {
		t.Fatalf("heard %q, unsettled %v", got, seqs)
	}
	c.expect(fmt.Sprintf("NACK 1 %d", seqs[1]), fmt.Sprintf("MSG 1 %d q/a ts=_ n=2 1\nb", seqs[1]))
	w.pass(50 * time.Second)
	c.expect(fmt.Sprintf("TOUCH 1 %d", seqs[0]), "")
	w.pass(15 * time.Second)
	c.hears(fmt.Sprintf("MSG 1 %d q/a ts=_ n=3 1\nb", seqs[1]))
	c.expect(fmt.Sprintf("NACK 1 %d dead", seqs[1]), "")
	c.expect(fmt.Sprintf("ACK 1 %d id=3", seqs[0]), "CONFIRM 3")
	c.expect("STAT q/a", ": q/a ready=0 unacked=0 *\nOK")
	c.expect("SAY q/a c", "MSG 1 1 q/a ts=_ 1\nc")
	c.expect("NACK 1 1 delay=5s", "")
	w.pass(4900 * time.Millisecond)
	c.hears("")
	w.pass(250 * time.Millisecond)
	c.hears("MSG 1 1 q/a ts=_ n=2 1\nc")
	c.expect("NACK 1 1 delay=5s dead", "ERR 406 no sid=1 dead and delay=*")
	c.expect("NACK 1 7", "ERR 404 no sid=1 no unsettled delivery 7*")
	c.expect("TOUCH 1 7", "ERR 404 no sid=1 *")
	c.expect("NACK 2 7", "ERR 404 no sid=2 no subscription 2")
	c.expect("ACK 2 7 id=9", "ERR 404 no id=9 no subscription 2")
}

// A delivery whose lease is over is not the client's any more.
func TestLeaseIsOver(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("SAY q/a one\nGET q/a lease=5s", "MSG 0 1 q/a ts=_ 3\none\nEND 0 1 why=done")
	w.pass(10 * time.Second)
	c.expect("ACK 0 1", "ERR 404 no sid=0 no unsettled*")
	if p := c.handler.subs.promised; p != 0 {
		t.Errorf("%d deliveries are promised", p)
	}
	c.expect("GET q/a", "MSG 0 1 q/a ts=_ n=2 3\none\nEND 0 1 why=done")
}

func TestUnsettledReturn(t *testing.T) {
	w := newWorld(t, Options{})
	c, d := w.ready(), w.ready()
	c.expect("PUB q/a id=1 1\na", "CONFIRM 1")
	c.expect("GET q/a lease=0s", "MSG 0 _ q/a ts=_ 1\na\nEND 0 1 why=done")
	d.expect("GET q/a lease=0s", "END 0 0 why=done")
	c.bye(nil)
	w.settle()
	d.expect("GET q/a lease=0s", "MSG 0 _ q/a ts=_ n=2 1\na\nEND 0 1 why=done")
	d.in = append(d.in, "QUIT\n"...)
	for d.receive() || d.deliver() {
	}
	if got := d.take(); got != "OK\n" {
		t.Errorf("QUIT: heard %q", got)
	}
	d.closed = true // transport has not come to Closed yet: what was unsettled is back all the same
	w.ready().expect("GET q/a", "MSG 0 _ q/a ts=_ n=3 1\na\nEND 0 1 why=done")
}

func TestAckSpans(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	for range 20 {
		c.expect("SAY q/a x", "")
	}
	c.send("SUB 1 q/a credit=20\n")
	for _, tt := range []struct{ say, want string }{
		{"ACK 1 1", ""},
		{"ACK 1 1", "ERR 404 no sid=1 no unsettled delivery 1*"},
		{"ACK 1 1-5", ""},                   // what is unknown in a span is skipped
		{"ACK 1 7-9,9-11,11", ""},           // they may overlap
		{"ACK 1 1-3,5-7 id=1", "CONFIRM 1"}, // nothing left in it
		{"ACK 1 13,1", "ERR 404 no sid=1 *"},
		{"ACK 1 13", ""},
		{"ACK 1 9-7", "ERR 400 no sid=1 *"},
		{"ACK 1 1,", "ERR 400 no sid=1 *"},
		{"ACK 1 ,1", "ERR 400 no sid=1 *"},
		{"ACK 1 1--2", "ERR 400 no sid=1 *"},
		{"ACK 1 x", "ERR 400 no sid=1 *"},
		{"ACK x 1", "ERR 400 no *"},
		{"ACK 1 " + strings.Repeat("1-2,", 256) + "1-2", "ERR 431 no sid=1 256 spans are the limit"},
		{"ACK 1 " + strings.Repeat("1-2,", 255) + "1-2", ""},
		{"ACK 1 0-9223372036854775807", ""},
	} {
		c.expect(tt.say, tt.want)
	}
	if p := c.handler.subs.promised; p != 0 {
		t.Errorf("%d deliveries are promised", p)
	}
	c.expect("STAT q/a", ": q/a ready=0 unacked=0 *\nOK")
}

// mission: S10
func TestCredit(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	for i := range 6 {
		c.expect(fmt.Sprintf("SAY q/a %d", i), "")
	}
	c.expect("SUB 8 q/a credit=2", "OK sid=8\nMSG 8 1 q/a ts=_ 1\n0\nMSG 8 3 q/a ts=_ 1\n1")
	c.expect("ACK 8 1-3", "")
	c.expect("CREDIT 8 1", "MSG 8 5 q/a ts=_ 1\n2")
	c.expect("SUB 9 q/a window=1", "OK sid=9\nMSG 9 7 q/a ts=_ 1\n3")
	c.expect("ACK 9 7", "MSG 9 9 q/a ts=_ 1\n4")
	c.expect("CREDIT 9 1", "ERR 409 no sid=9 *")
	c.expect("CREDIT 8 1 100", "ERR 409 no sid=8 *")
	c.expect("CREDIT 8 1000001", "ERR 406 no sid=8 *")
	c.expect("CREDIT 8 x", "ERR 406 no sid=8 credit is a number*")
	c.expect("CREDIT 7 1", "ERR 404 no sid=7 *")
	c.expect("SUB 7 q/a window=5 credit=5", "ERR 406 no sid=7 *")
	c.expect("SUB 7 q/a credit=70000", "ERR 429 retry sid=7 *")
	c.expect("SUB 7 q/a ack=auto credit=70000 bytes=1000", "OK sid=7\nMSG 7 11 q/a ts=_ 1\n5")
	c.expect("CREDIT 7 5 100", "")
	c.expect("SUB 7 q/a", "ERR 409 no sid=7 sid 7 is in use*")
	c.expect("UNSUB 8", "END 8 3 why=unsub")
	c.expect("SUB 8 q/a", "ERR 409 no sid=8 sid 8 has unsettled deliveries*")
	c.expect("UNSUB 8", "ERR 404 no sid=8 *")
	c.expect("ACK 8 5", "")
	c.expect("SUB 8 q/a", "OK sid=8")
	if p := c.handler.subs.promised; p != 1000+1 {
		t.Errorf("%d deliveries are promised, want 1001", p)
	}
}

func TestLive(t *testing.T) {
	w := newWorld(t, Options{})
	c, p := w.ready(), w.ready()
	p.expect("PUB t/site/9/temp retain ct=text/plain 4\n21.5", "")
	c.expect("SUB 7 t/site/+/temp", "OK sid=7\nMSG 7 1 t/site/9/temp ts=_ ct=text/plain retain 4\n21.5")
	p.expect("PUB t/site/8/temp :unit=C key=k 4\n20.5\nPUB t/other 1\nx", "")
	c.hears("MSG 7 2 t/site/8/temp ts=_ key=k :unit=C 4\n20.5")
	c.expect("SUB 8 t/site/# retained=none", "OK sid=8")
	c.expect("SUB 6 t/site/9/temp retained=new", "OK sid=6\nMSG 6 1 t/site/9/temp ts=_ ct=text/plain retain 4\n21.5")
	c.expect("UNSUB 7", "END 7 2 why=unsub")
	c.expect("UNSUB 6", "END 6 1 why=unsub")
	p.expect("PUB t/site/9/temp 1\nx", "")
	c.hears("MSG 8 1 t/site/9/temp ts=_ 1\nx")
	c.expect("ACK 8 1", "ERR 404 no sid=8 subscription 8 has nothing to settle*")
	c.expect("MK x/logs\nSUB 5 x/logs/err/#", "OK\nOK sid=5")
	p.expect("PUB x/logs/err/1 id=1 1\nx", "CONFIRM 1")
	c.hears("MSG 5 1 x/logs/err/1 ts=_ 1\nx")
	for _, tt := range []struct{ say, want string }{
		{"SUB 1 t/a window=5", "ERR 406 no sid=1 a live subscription has no window*"},
		{"SUB 1 t/a lease=5s", "ERR 406 no sid=1 lease= needs*"},
		{"SUB 1 t/a peek", "ERR 406 no sid=1 peek, rank=*"},
		{"SUB 1 t/a exclusive", "ERR 406 no sid=1 peek, rank=*"},
		{"SUB 1 q/a peek lease=5s", "ERR 406 no sid=1 peek takes nothing*"},
		{"SUB 1 q/a retained=all", "ERR 406 no sid=1 retained= is for t/ alone"},
		{"SUB 1 q/a ack=none", "ERR 406 no sid=1 a queue has*"},
		{"SUB 1 q/none peek", "ERR 404 no sid=1 no queue*"},
		{"SUB 1 q/a group=g", "ERR 406 no sid=1 a queue is shared*"},
		{"SUB 1 t/a durable=d", "ERR 406 no sid=1 durable= needs a client*"},
		{"SUB 1 t/a sel=x", "ERR 406 no sid=1 sel= *"},
	} {
		c.expect(tt.say, tt.want)
	}
	c.expect("UNSUB 8 forget", "ERR 406 no sid=8 forget is for*")
	c = w.ready() // so many errors end a connection
	for _, tt := range []struct{ say, want string }{
		{"SUB 1 s/a from=first", "ERR 406 no sid=1 from= *"},
		{"SUB 1 s/a", "ERR 406 no sid=1 streams*"},
		{"SUB 1 x/amq.direct", "ERR 400 no sid=1 exchange \"amq.direct\" is direct: it wants a key*"},
		{"SUB 1 x/amq.default", "ERR 406 no sid=1 amq.default has the queues*"},
		{"SUB 1 q/a :x=1", "ERR 406 no sid=1 match= and :name=value are for*"},
		{"SUB 1 x/none/k", "ERR 404 no sid=1 *"},
		{"SUB 1 r/abc", "ERR 406 no sid=1 a reply address is made by*"},
	} {
		c.expect(tt.say, tt.want)
	}
}

// A guard that lets few live deliveries wait.
type narrow struct{ core.LoopbackGuard }

func (g narrow) Enter(ctx context.Context, l core.Login) (core.Identity, error) {
	id, err := g.LoopbackGuard.Enter(ctx, l)
	id.Limits.LiveMessages = 4
	return id, err
}

// What was written no longer counts as waiting.
func TestLiveIsReleased(t *testing.T) {
	w := guarded(t, Options{}, narrow{})
	c, p := w.ready(), w.ready()
	c.expect("SUB 7 t/#", "OK sid=7")
	for i := range 20 {
		p.expect("SAY t/a x", "")
		c.hears(fmt.Sprintf("MSG 7 %d t/a ts=_ 1\nx", i+1))
	}
	p.expect(strings.Repeat("SAY t/a x\n", 9)+"PING", "PONG") // all at once: live is live
	if n := strings.Count(c.take(), "MSG "); n != 4 {
		t.Errorf("%d of 9 came, want 4", n)
	}
}

// No MSG comes before the OK of its SUB.
func TestEarlyDeliveries(t *testing.T) {
	w := newWorld(t, Options{})
	c, p := w.ready(), w.ready()
	w.disk.Hold()
	c.expect("SUB 1 q/new", "")
	p.expect("SAY q/new x", "")
	c.hears("")
	w.disk.Resume()
	c.hears("OK sid=1\nMSG 1 1 q/new ts=_ 1\nx")
}

// ack=manual makes a queue of the connection's own.
func TestAckedLive(t *testing.T) {
	w := newWorld(t, Options{})
	c, p := w.ready(), w.ready()
	p.expect("PUB t/a retain 1\nr", "")
	c.expect("SUB 7 t/a ack=manual window=2", "OK sid=7\nMSG 7 0 t/a ts=_ retain 1\nr")
	p.expect("PUB t/a id=1 1\na\nPUB t/a id=2 1\nb\nPUB t/a id=3 1\nc", "CONFIRM 3")
	c.hears("MSG 7 1 t/a ts=_ 1\na\nMSG 7 3 t/a ts=_ 1\nb")
	c.expect("ACK 7 0", "")
	c.expect("ACK 7 1", "MSG 7 5 t/a ts=_ 1\nc")
	c.expect("NACK 7 3", "MSG 7 3 t/a ts=_ n=2 1\nb")
	c.expect("LS q/$live/*", ": q/$live/*\nOK")
	c.expect("UNSUB 7", "END 7 5 why=unsub")
	c.expect("LS q/$live/*", "OK")
	c.expect("SUB 8 t/a ack=auto retained=none", "OK sid=8")
	p.expect("PUB t/a id=4 1\nd", "CONFIRM 4")
	c.hears("MSG 8 1 t/a ts=_ 1\nd")
	p.expect("LS q/$live/*", ": q/$live/*\nOK")
	c.bye(nil)
	w.settle()
	p.expect("LS q/$live/*", "OK")
	p.expect("SUB 1 x/none/k ack=manual", "ERR 404 no sid=1 *")
	p.expect("SUB 1 t/a+ ack=manual", "ERR 400 no sid=1 *")
	if n := p.handler.subs.promised; n != 0 {
		t.Errorf("%d deliveries are promised", n)
	}
}

// mission: S13
func TestReply(t *testing.T) {
	w := newWorld(t, Options{})
	c, p := w.ready(), w.ready()
	got := c.send("SUB 9 r/new\n")
	address, ok := strings.CutPrefix(strings.TrimSpace(got), "OK sid=9 as=")
	if !ok || !strings.HasPrefix(address, "r/") {
		t.Fatalf("heard %q", got)
	}
	c.expect("PUB q/jobs cid=77 reply="+address+" 4\nwork", "")
	p.expect("GET q/jobs", "MSG 0 1 q/jobs ts=_ cid=77 reply="+address+" 4\nwork\nEND 0 1 why=done")
	p.expect("PUB "+address+" cid=77 4\ndone", "")
	c.hears("MSG 9 1 " + address + " ts=_ cid=77 4\ndone")
	c.bye(nil)
	w.settle()
	p.expect("PUB "+address+" id=1 4\ndone", "ERR 410 no id=1 *")
	p.expect("SUB 9 r/new ack=manual", "ERR 406 no sid=9 a reply address has no options*")
}

func TestQueueIsRemoved(t *testing.T) {
	w := newWorld(t, Options{})
	c, p := w.ready(), w.ready()
	c.expect("SUB 1 q/a\nGET q/a wait=5s", "OK sid=1")
	p.expect("RM q/a", "OK")
	c.hears("END 1 0 why=not_found code=404\nEND 0 0 why=not_found code=404")
	c.expect("GET q/a", "END 0 0 why=done")
	c.expect("SUB 1 q/a", "OK sid=1")
}

func TestSubscriptionLimit(t *testing.T) {
	c := newWorld(t, Options{Subscriptions: 2}).ready()
	c.expect("SUB 1 t/a\nSUB 2 t/b\nSUB 3 t/c", "OK sid=1\nOK sid=2\nERR 429 retry sid=3 2 subscriptions are the limit")
	c.expect("GET q/a", "ERR 429 retry sid=0 2 subscriptions are the limit")
	c.expect("UNSUB 1", "END 1 0 why=unsub")
	c.expect("GET q/a", "END 0 0 why=done")
}

func TestLedger(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var l ledger
	model := map[uint64]bool{}
	for step := range 20_000 {
		seq := uint64(r.IntN(400)) + uint64(step/40)
		switch {
		case r.IntN(2) == 0:
			if got := l.add(due{seq: seq, attempt: 1}); got == model[seq] {
				t.Fatalf("add(%d) = %v", seq, got)
			}
			model[seq] = true
		default:
			if got := l.settle(seq); got != model[seq] {
				t.Fatalf("settle(%d) = %v", seq, got)
			}
			delete(model, seq)
		}
		if l.live != len(model) || len(l.list) > 2*len(model)+65 {
			t.Fatalf("%d live of %d, want %d", l.live, len(l.list), len(model))
		}
	}
	got := l.between(nil, 0, 1<<63)
	if len(got) != len(model) || !slices.IsSorted(got) {
		t.Errorf("%d unsettled, want %d", len(got), len(model))
	}
}

// mission: P9
func TestBatch(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("PUB q/in id=1 2\nin", "CONFIRM 1")
	c.expect("GET q/in", "MSG 0 _ q/in ts=_ 2\nin\nEND 0 1 why=done")
	in := c.unsettled(0)[0]
	c.expect("BEGIN", "")
	c.expect(fmt.Sprintf("ACK 0 %d\nPUB q/out 3\nabc\nSAY q/out def\nPING", in), "PONG")
	c.expect("STAT q/out", "ERR 409 no STAT cannot stand in a batch*")
	c.expect("COMMIT id=2", "ERR 412 no id=2 nothing of the batch is done*")
	c.expect("STAT q/in", ": q/in ready=0 unacked=1 *\nOK")
	w.disk.Hold()
	c.expect(fmt.Sprintf("BEGIN\nACK 0 %d\nPUB q/out 3\nabc\nSAY q/out def\nCOMMIT id=3", in), "")
	w.disk.Resume()
	c.hears("CONFIRM 3")
	c.expect("STAT q/in\nSTAT q/out", ": q/in ready=0 unacked=0 *\nOK\n: q/out ready=2 *\nOK")
	if n := len(c.unsettled(0)); n != 0 {
		t.Errorf("%d are unsettled", n)
	}
}

func TestBatchRefused(t *testing.T) {
	for _, tt := range []struct{ say, want string }{
		{"COMMIT", "ERR 409 no no batch is open*"},
		{"ABORT", "ERR 409 no no batch is open*"},
		{"BEGIN\nBEGIN", "ERR 409 no a batch is open*"},
		{"BEGIN\nCOMMIT", ""},
		{"BEGIN\nCOMMIT id=1", "CONFIRM 1"},
		{"BEGIN\nPUB q/a 1\na\nABORT\nCOMMIT", "ERR 409 no no batch is open*"},
		{"BEGIN\nPUB q/a 1\na\nPUB q/a foo=1 1\nb\nPUB q/a 1\nc\nCOMMIT", "ERR 406 no unknown*\nERR 412 no nothing*"},
		{"BEGIN\nPUB q/a id=4 1\na\nCOMMIT id=5", "ERR 406 no id=4 in a batch COMMIT alone has an id\nERR 412 no id=5 nothing*"},
		{"BEGIN\nACK 3 1\nCOMMIT", "ERR 404 no sid=3 *\nERR 412 no nothing*"},
		{"BEGIN\nPUB x/none/k 1\na\nCOMMIT id=1", "ERR 404 no id=1 *"},
		{"BEGIN\nPUB x/none/k 1\na\nPUB q/a 1\na\nCOMMIT", "ERR 404 no *"},
	} {
		t.Run(tt.say, func(t *testing.T) {
			w := newWorld(t, Options{})
			c := w.ready()
			c.expect(tt.say, tt.want)
			c.send("ABORT\n")
			c.expect("STAT q/a", "ERR 404 no *")
		})
	}
}

func TestBatchLimits(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("BEGIN\nPUB q/a 1\na", "")
	w.pass(31 * time.Second)
	if c.handler.batch.ops != nil {
		t.Error("the batch is still held")
	}
	c.hears("")
	c.expect("PUB q/a 1\na", "ERR 408 no the batch was open for over 30s, and is dropped")
	c.expect("PUB q/a 1\na\nCOMMIT", "ERR 412 no nothing of the batch is done: the batch was open*")
	c.expect("BEGIN\n"+strings.Repeat("SAY q/a x\n", 10_001)+"COMMIT", "ERR 413 no a batch has 10000 operations*\nERR 412 no *")
	big := "PUB q/a 1000000\n" + strings.Repeat("x", 1_000_000) + "\n"
	c.expect("BEGIN\n"+strings.Repeat(big, 17)+"COMMIT", "ERR 413 no a batch has 16777216 octets*\nERR 412 no *")
	c.expect("STAT q/a", "ERR 404 no *")
}

// What a refused COMMIT would have settled is still the client's.
func TestRefusedCommitKeepsDeliveries(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("SAY q/a one\nGET q/a", "MSG 0 1 q/a ts=_ 3\none\nEND 0 1 why=done")
	c.expect("BEGIN\nACK 0 1\nPUB x/none/k 1\na\nCOMMIT id=1", "ERR 404 no id=1 *")
	c.expect("BEGIN\nNACK 0 1 dead\nABORT", "")
	c.expect("ACK 0 1 id=2", "CONFIRM 2")
	c.expect("SAY q/a two\nGET q/a n=1", "MSG 0 3 q/a ts=_ 3\ntwo\nEND 0 1 why=done")
	c.expect("SAY q/b three\nGET q/b n=1 sid=1", "MSG 1 1 q/b ts=_ 5\nthree\nEND 1 1 why=done")
	c.expect("BEGIN\nNACK 0 3 dead\nNACK 1 1\nCOMMIT id=3", "CONFIRM 3") // each its own way
	c.expect("STAT q/a\nSTAT q/b", ": q/a ready=0 unacked=0 *\nOK\n: q/b ready=1 unacked=0 *\nOK")
}

// A publisher that is too quick waits; nothing is lost, and answers keep their
// order.
// mission: P3
func TestPublisherWaits(t *testing.T) {
	w := newWorld(t, Options{Unconfirmed: 16})
	c := w.ready()
	c.expect("MK q/a", "OK")
	w.disk.Hold()
	var in strings.Builder
	for id := 1; id <= 100; id++ {
		fmt.Fprintf(&in, "PUB q/a id=%d 1\nx\n", id)
	}
	if got := c.send(in.String()); got != "" {
		t.Errorf("heard %q before the disk had it", got)
	}
	if n := len(c.handler.owed.list); n > 16 {
		t.Errorf("%d publishes are under way, want 16 at most", n)
	}
	w.disk.Resume()
	w.settle()
	if got := c.take(); !strings.HasSuffix(got, "CONFIRM 100\n") {
		t.Errorf("heard %q", got)
	}
	c.expect("STAT q/a", ": q/a ready=100 *\nOK")
}

func TestPublisherWaitsForBytes(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("MK q/a", "OK")
	w.disk.Hold()
	for id := 1; id <= 20; id++ {
		c.in = append(c.in, fmt.Sprintf("PUB q/a id=%d 1000000\n%s\n", id, strings.Repeat("x", 1_000_000))...)
	}
	c.expect("PING", "")
	if got := c.handler.owed.bytes; got > maxOwedBytes {
		t.Errorf("%d octets are under way", got)
	}
	w.disk.Resume()
	w.settle()
	if got := c.take(); !strings.Contains(got, "CONFIRM 20\n") || !strings.Contains(got, "PONG\n") {
		t.Errorf("heard %q", got)
	}
}

func TestOwed(t *testing.T) {
	var o owed
	for id := uint64(1); id <= 5; id++ {
		o.list = append(o.list, debt{id: id, size: 10})
		o.bytes += 10
	}
	for _, tt := range []struct {
		id    uint64
		good  bool
		done  uint64
		some  bool
		bytes int64
	}{
		{2, true, 0, false, 50}, // an ack may be answered early: it confirms nothing before it
		{1, false, 2, true, 30},
		{3, false, 3, false, 20},
		{9, true, 0, false, 20},
		{5, true, 0, false, 20},
		{4, true, 5, true, 0},
	} {
		done, some := o.settle(tt.id, tt.good)
		if done != tt.done || some != tt.some || o.bytes != tt.bytes {
			t.Errorf("settle(%d) = %d, %v, %d octets left, want %d, %v, %d", tt.id, done, some, o.bytes, tt.done, tt.some, tt.bytes)
		}
	}
}

// Ids, CONFIRM and ERR under refusals and power cuts: what was confirmed is
// there, each id is told once, and an ERR before the CONFIRM that covers it.
// mission: S8
func TestModel(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t, Options{Unconfirmed: 32})
		c := w.ready()
		c.expect("MK q/a", "OK")
		told := map[int]string{} // id: ok or err
		sent := map[int]bool{}   // id: it should go well
		last, confirmed := 0, 0
		hear := func() {
			w.settle()
			for line := range strings.Lines(c.take()) {
				var id int
				switch {
				case scanf(line, "CONFIRM %d", &id):
					for i := confirmed + 1; i <= id; i++ {
						if _, ok := sent[i]; ok && told[i] == "" {
							told[i] = "ok"
						}
					}
					confirmed = id
				case strings.HasPrefix(line, "ERR "):
					at := strings.Index(line, "id=")
					if at < 0 || !scanf(line[at:], "id=%d", &id) || told[id] != "" || id <= confirmed {
						t.Fatalf("seed %d: %q, told %q, confirmed %d", seed, line, told[id], confirmed)
					}
					told[id] = "err"
				}
			}
		}
		for range 60 {
			switch r.IntN(6) {
			case 0:
				w.disk.Hold()
			case 1:
				w.disk.Resume()
			case 2:
				hear()
			default:
				last += 1 + r.IntN(3)
				w.box.Clock.Advance(time.Second) // for errors there is a limit in time
				switch bad := r.IntN(4); bad {
				case 0:
					c.in = append(c.in, fmt.Sprintf("PUB q/a id=%d foo 1\nx\n", last)...)
				case 1:
					c.in = append(c.in, fmt.Sprintf("PUB x/none/k id=%d 1\nx\n", last)...)
				default:
					c.in = append(c.in, fmt.Sprintf("PUB q/a id=%d %d\n%d\n", last, len(fmt.Sprint(last)), last)...)
					sent[last] = true
				}
				if _, ok := sent[last]; !ok {
					sent[last] = false
				}
			}
		}
		cut := r.IntN(2) == 0
		if !cut {
			w.disk.Resume()
		}
		hear()
		if cut {
			w.box.PowerOff()
			w.conns = nil
			if err := w.box.PowerOn(); err != nil {
				t.Fatal(err)
			}
			w.disk.Resume()
		}
		stored := w.bodies("q/a")
		for id, good := range sent {
			body := fmt.Sprint(id)
			switch {
			case told[id] == "ok" && (!good || stored[body] != 1):
				t.Fatalf("seed %d: %d was confirmed, and is there %d times", seed, id, stored[body])
			case told[id] == "err" && (good || stored[body] != 0):
				t.Fatalf("seed %d: %d was refused, and is there %d times", seed, id, stored[body])
			case !cut && told[id] == "":
				t.Fatalf("seed %d: %d was never answered", seed, id)
			}
		}
	}
}

func scanf(line, format string, to *int) bool {
	n, err := fmt.Sscanf(line, format, to)
	return n == 1 && err == nil
}

// bodies are what a queue holds.
func (w *world) bodies(dest string) map[string]int {
	c := w.ready()
	lines := strings.Split(c.send("GET "+dest+" n=10000\n"), "\n")
	out := map[string]int{}
	for i, line := range lines {
		if strings.HasPrefix(line, "MSG ") {
			out[lines[i+1]]++
		}
	}
	return out
}
