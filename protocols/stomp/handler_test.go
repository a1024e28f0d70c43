package stomp

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/coretest"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// A peer is the other end of a handler in a box, and what a link is to it.
type peer struct {
	t       testing.TB
	box     *coretest.Box
	handler protocols.Handler
	outbox  *core.Outbox
	in      []byte
	out     []byte
	held    bool
	resumed bool
	woken   bool
	closed  bool
	borders []border
	about   protocols.Peer
}

type border struct {
	end  int
	text bool
}

func (p *peer) Wake()                     { p.woken = true }
func (p *peer) Attach(o *core.Outbox)     { p.outbox = o; p.woken = true }
func (p *peer) Resume()                   { p.resumed = true }
func (p *peer) Want(int)                  {}
func (p *peer) Border(end int, text bool) { p.borders = append(p.borders, border{end, text}) }
func (p *peer) TickEvery(time.Duration)   {}
func (p *peer) Close(error)               { p.closed = true }
func (p *peer) Peer() protocols.Peer      { return p.about }

func newBox(t testing.TB) *coretest.Box {
	t.Helper()
	box, err := coretest.New(coretest.Options{Disk: memory.New(memory.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// dial connects to a box, and logs in with the given version.
func dial(t testing.TB, box *coretest.Box, o Options, version string) *peer {
	t.Helper()
	p := &peer{t: t, box: box, about: protocols.Peer{Remote: "pipe"}}
	p.handler = New(o).Open(p, box.Broker)
	p.send("CONNECT\naccept-version:" + version + "\n\n\x00")
	if got := p.read(); !strings.HasPrefix(got, "CONNECTED\nversion:"+version) {
		t.Fatalf("login: %q", got)
	}
	return p
}

func (p *peer) send(text string) { p.in = append(p.in, text...); p.receive() }

func (p *peer) receive() {
	if p.held {
		return
	}
	n, err := p.handler.Receive(p.in)
	p.in = p.in[n:]
	if p.held = errors.Is(err, core.ErrWait); err != nil && !p.held {
		p.closed = true
	}
}

// work lets the box and the handler come to rest.
func (p *peer) work() {
	p.t.Helper()
	for busy := true; busy; {
		busy = p.box.Turn()
		if p.resumed && p.held {
			p.resumed, p.held, busy = false, false, true
			p.receive()
		}
		if p.woken {
			p.woken, busy = false, true
			p.deliver()
		}
	}
	p.deliver()
}

func (p *peer) deliver() {
	var ev []core.Event
	if p.outbox != nil {
		ev, _ = p.outbox.Take(nil)
	}
	p.out = p.handler.Deliver(p.out, ev)
}

// read is what was written since the last read.
func (p *peer) read() string {
	p.t.Helper()
	p.work()
	out := string(p.out)
	p.out, p.borders = nil, nil
	return out
}

func TestSniff(t *testing.T) {
	p := New(Options{})
	for in, want := range map[string]protocols.Match{
		"":                                  protocols.NeedMore,
		"\r\n\n":                            protocols.NeedMore,
		"C":                                 protocols.NeedMore,
		"CONNECT":                           protocols.NeedMore,
		"STOMP":                             protocols.NeedMore,
		"CONNECT\n":                         protocols.IsMatch,
		"\nSTOMP\r\n":                       protocols.IsMatch,
		"\n\n\n\n\n\nCON":                   protocols.NeedMore,
		"CONNECT ":                          protocols.NoMatch,
		"CONNECTED\n":                       protocols.NoMatch,
		"connect\n":                         protocols.NoMatch,
		"GET /":                             protocols.NoMatch,
		"\x10\x10":                          protocols.NoMatch,
		"\n\n\n\n\n\n\n\n\n\n\n\nCONNECT\n": protocols.NoMatch, // never after 12 octets
		"\n\n\n\n\n\nCONNECT\n":             protocols.NoMatch,
	} {
		if got := p.Sniff([]byte(in)); got != want {
			t.Errorf("Sniff(%q) = %v, want %v", in, got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := (Options{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	err := Options{Separator: "colon", Bare: "x", Limits: Limits{Body: 1 << 40, Login: -1}}.Validate()
	for _, word := range []string{"separator", "bare", "limits.body", "limits.login"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("Validate says %v, and nothing of %s", err, word)
		}
	}
}

// Too many receipts owed: the client waits, and goes on when half of them are gone.
func TestReceiptsOwedAreBounded(t *testing.T) {
	box := newBox(t)
	p := dial(t, box, Options{Limits: Limits{Receipts: 4}}, "1.2")
	box.Disk.Hold()
	for i := range 10 {
		p.send(fmt.Sprintf("SEND\ndestination:/queue/q\nreceipt:%d\n\nx\x00", i))
	}
	if got := p.read(); got != "" || !p.held || len(p.in) == 0 {
		t.Fatalf("with 4 receipts owed: %q, held %v, %d octets not taken", got, p.held, len(p.in))
	}
	box.Disk.Resume()
	got := p.read()
	for i := range 10 {
		if want := fmt.Sprintf("RECEIPT\nreceipt-id:%d\n\n\x00", i); !strings.HasPrefix(got, want) {
			t.Fatalf("receipts: %q, want %q next", got, want)
		} else {
			got = got[len(want):]
		}
	}
	if len(p.in) != 0 || p.held {
		t.Errorf("%d octets not taken, held %v", len(p.in), p.held)
	}
}

// What needs no core is bounded too, when nobody reads our answers.
func TestReceiptsSaidAreBounded(t *testing.T) {
	p := dial(t, newBox(t), Options{Limits: Limits{Receipts: 100}}, "1.2")
	for range 1000 {
		p.send("BEGIN\ntransaction:t\nreceipt:1\n\n\x00ABORT\ntransaction:t\nreceipt:2\n\n\x00")
	}
	if !p.held {
		t.Error("1,000 receipts were queued and nobody was held back")
	}
	if n := strings.Count(p.read(), "RECEIPT"); n != 2000 {
		t.Errorf("%d receipts, want 2,000", n)
	}
}

// A publisher that outruns the broker waits, and loses nothing.
func TestPublisherWaits(t *testing.T) {
	box := newBox(t)
	p := dial(t, box, Options{}, "1.2")
	box.Disk.Hold()
	const n = 3000
	for i := range n {
		p.send(fmt.Sprintf("SEND\ndestination:/queue/q\n\n%d\x00", i))
	}
	if p.work(); !p.held {
		t.Fatal("3,000 unanswered publishes and nobody was held back")
	}
	p.handler.(*handler).beat.from = time.Second // its silence is ours now
	for range 100 {
		box.Clock.Advance(time.Second)
		if err := p.handler.Tick(box.Clock.Now()); err != nil {
			t.Fatalf("a client we hold back was closed: %v", err)
		}
	}
	box.Disk.Resume()
	p.work()
	page, err := box.Broker.Inspect(core.Query{About: core.Queues, Name: "q"})
	if err != nil || len(page.Rows) != 1 || page.Rows[0].Fields[0].Value != fmt.Sprint(n) {
		t.Errorf("the queue has %v, %v; want %d ready", page.Rows, err, n)
	}
}

// The deliveries that are out are bounded over all subscriptions, and each gets one at least.
func TestUnackedAreBounded(t *testing.T) {
	p := dial(t, newBox(t), Options{Limits: Limits{Unacked: 1200}}, "1.2")
	for i := range 300 {
		p.send(fmt.Sprintf("SUBSCRIBE\nid:%d\ndestination:/queue/q%d\nack:client\nprefetch-count:100\n\n\x00", i, i))
	}
	if got := p.read(); got != "" {
		t.Fatalf("%q", got)
	}
	h := p.handler.(*handler)
	if h.unacked > 1200 {
		t.Errorf("%d deliveries may be out, want at most 1,200", h.unacked)
	}
	for i := range 300 {
		p.send(fmt.Sprintf("UNSUBSCRIBE\nid:%d\n\n\x00", i))
	}
	p.read()
	if h.unacked != 0 || len(h.standing) != 0 || len(h.subscribed) != 0 || h.owed() != 0 {
		t.Errorf("when all is over: %d may be out, %d and %d subscriptions, %d owed", h.unacked, len(h.standing), len(h.subscribed), h.owed())
	}
}

// What was on its way to a subscription that is cancelled goes back to its queue, in its place.
func TestCancelledGivesBack(t *testing.T) {
	box := newBox(t)
	p := dial(t, box, Options{}, "1.2")
	p.send("SEND\ndestination:/queue/q\n\n1\x00SEND\ndestination:/queue/q\n\n2\x00SUBSCRIBE\nid:0\ndestination:/queue/q\n\n\x00")
	if err := box.Settle(); err != nil { // the deliveries are in the outbox now
		t.Fatal(err)
	}
	p.send("UNSUBSCRIBE\nid:0\nreceipt:u\n\n\x00")
	if got := p.read(); got != "RECEIPT\nreceipt-id:u\n\n\x00" {
		t.Errorf("after UNSUBSCRIBE: %q, want its receipt alone", got)
	}
	p.send("SUBSCRIBE\nid:0\ndestination:/queue/q\n\n\x00")
	if got := p.read(); strings.Count(got, "MESSAGE") != 2 || strings.Index(got, "\n\n1\x00") > strings.Index(got, "\n\n2\x00") {
		t.Errorf("the next reader gets %q, want 1 and 2", got)
	}
}

// A client may change its mind before its private queue is there.
func TestCancelledWhileDeclaring(t *testing.T) {
	box := newBox(t)
	p := dial(t, box, Options{}, "1.2")
	p.send("SUBSCRIBE\nid:0\ndestination:/topic/a\nack:client\nreceipt:s\n\n\x00UNSUBSCRIBE\nid:0\nreceipt:u\n\n\x00")
	if got, want := p.read(), "RECEIPT\nreceipt-id:s\n\n\x00RECEIPT\nreceipt-id:u\n\n\x00"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	page, err := box.Broker.Inspect(core.Query{About: core.Queues, Hidden: true})
	if h := p.handler.(*handler); err != nil || len(page.Rows) != 0 || len(h.standing) != 0 || h.unacked != 0 || h.owed() != 0 {
		t.Errorf("left are %v, %d subscriptions, %d unacked, %d owed", page.Rows, len(h.standing), h.unacked, h.owed())
	}
}

// What was written of a topic makes room for more.
func TestLiveRoom(t *testing.T) {
	box, err := coretest.New(coretest.Options{Disk: memory.New(memory.Options{}), Limits: core.Limits{LiveMessages: 10}})
	if err != nil {
		t.Fatal(err)
	}
	p := dial(t, box, Options{}, "1.2")
	p.send("SUBSCRIBE\nid:0\ndestination:/topic/a\n\n\x00")
	for i := range 100 {
		p.send("SEND\ndestination:/topic/a\n\nx\x00")
		if got := p.read(); !strings.Contains(got, fmt.Sprintf("\nmessage-id:0-%d\n", i+1)) {
			t.Fatalf("message %d: %q", i+1, got)
		}
	}
	for range 100 { // nobody reads: what finds no room is dropped
		p.send("SEND\ndestination:/topic/a\n\nx\x00")
	}
	if n := strings.Count(p.read(), "MESSAGE"); n != 10 {
		t.Errorf("%d messages in the outbox, want 10", n)
	}
}

func TestLimits(t *testing.T) {
	small := Limits{Subscriptions: 2, Transactions: 2, Ops: 2, OpsBytes: 1000, Body: 100, Headers: 5}
	for _, c := range []struct{ sentence, in, want string }{
		{"subscriptions", "SUBSCRIBE\nid:1\ndestination:/queue/a\n\n\x00SUBSCRIBE\nid:2\ndestination:/queue/a\n\n\x00SUBSCRIBE\nid:3\ndestination:/queue/a\n\n\x00", "429"},
		{"open transactions", "BEGIN\ntransaction:1\n\n\x00BEGIN\ntransaction:2\n\n\x00BEGIN\ntransaction:3\n\n\x00", "429"},
		{"frames of a transaction", "BEGIN\ntransaction:1\n\n\x00" + strings.Repeat("SEND\ntransaction:1\ndestination:/queue/a\n\n\x00", 3), "413"},
		{"a body", "SEND\ndestination:/queue/a\n\n" + strings.Repeat("x", 101), "413"},
		{"a body that is announced", "SEND\ndestination:/queue/a\ncontent-length:101\n", "413"},
		{"headers", "SEND\n" + strings.Repeat("a:b\n", 6), "431"},
	} {
		p := dial(t, newBox(t), Options{Limits: small}, "1.2")
		p.send(c.in)
		if got := p.read(); !strings.HasPrefix(got, "ERROR\n") || !strings.Contains(got, "\ncode:"+c.want+"\n") || !p.closed {
			t.Errorf("too many %s: %q, closed %v; want ERROR %s", c.sentence, got, p.closed, c.want)
		}
		p.send("SEND\ndestination:/queue/a\nreceipt:r\n\n\x00")
		if got := p.read(); got != "" {
			t.Errorf("after ERROR: %q", got)
		}
	}
}

// Before a login nobody gets far.
func TestBeforeLogin(t *testing.T) {
	for what, in := range map[string]string{
		"line ends without end":   strings.Repeat("\n", 70_000),
		"a body":                  "SEND\ncontent-length:2147483647\n\n",
		"64 MiB without a NUL":    "CONNECT\na:" + strings.Repeat("x", 64<<20),
		"200,000 headers":         "CONNECT\n" + strings.Repeat("a:b\n", 200_000),
		"line ends after headers": "CONNECT\n\n" + strings.Repeat("\n", 70_000),
	} {
		box := newBox(t)
		p := &peer{t: t, box: box, about: protocols.Peer{Remote: "pipe"}}
		p.handler = New(Options{}).Open(p, box.Broker)
		p.in = []byte(in)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p.receive()
		runtime.ReadMemStats(&after)
		if got := p.read(); !strings.HasPrefix(got, "ERROR\n") || !p.closed {
			t.Errorf("%s: %.80q, closed %v; want ERROR", what, got, p.closed)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
			t.Errorf("%s: %d octets allocated", what, n)
		}
	}
}

// Where what was done is unknown, no receipt is claimed and none denied.
func TestStoreLost(t *testing.T) {
	box := newBox(t)
	p := dial(t, box, Options{}, "1.2")
	box.Disk.Hold()
	p.send("SEND\ndestination:/queue/q\nreceipt:r\n\nx\x00")
	lost := []core.Event{{Kind: core.Confirmed, Token: 1, Err: errors.New("/dev/sda1 is on fire")}}
	got := string(p.handler.Deliver(nil, lost))
	if !strings.Contains(got, "\ncode:500\n") || strings.Contains(got, "receipt-id") || strings.Contains(got, "sda1") || !p.closed {
		t.Errorf("%q, closed %v; want ERROR 500 without receipt-id and internals", got, p.closed)
	}
}

// A refused login waits before it hears so, and nothing it sends meanwhile counts.
func TestRefusedLogin(t *testing.T) {
	box := newBox(t)
	p := &peer{t: t, box: box, about: protocols.Peer{Remote: "192.0.2.1:99"}}
	p.handler = New(Options{}).Open(p, box.Broker)
	p.send("CONNECT\naccept-version:1.2\npasscode:secret\n\n\x00SEND\ndestination:/queue/q\n\n\x00")
	if got := p.read(); got != "" {
		t.Errorf("at once: %q", got)
	}
	box.Clock.Advance(400 * time.Millisecond)
	if err := p.handler.Tick(box.Clock.Now()); err != nil {
		t.Errorf("after 400 ms: %v", err)
	}
	box.Clock.Advance(700 * time.Millisecond)
	var end *protocols.Close
	if err := p.handler.Tick(box.Clock.Now()); !errors.As(err, &end) {
		t.Errorf("after 1.1 s: %v, want a *Close", err)
	}
	if got := p.read(); !strings.Contains(got, "\ncode:401\n") || strings.Contains(got, "secret") {
		t.Errorf("then: %q, want ERROR 401", got)
	}
}

// On WebSocket each frame has its border, and says whether it is text.
func TestBorders(t *testing.T) {
	p := dial(t, newBox(t), Options{}, "1.2")
	p.send("SUBSCRIBE\nid:0\ndestination:/queue/q\n\n\x00SEND\ndestination:/queue/q\nreceipt:r\n\n\u00e4\x00SEND\ndestination:/queue/q\ncontent-length:1\n\n\xff\x00")
	p.work()
	var texts []bool
	last := 0
	for _, b := range p.borders {
		if b.end <= last || p.out[b.end-1] != 0 {
			t.Errorf("a border at %d, behind %q", b.end, p.out[last:min(b.end, len(p.out))])
		}
		last = b.end
		frame := string(p.out[:b.end])
		texts = append(texts, b.text)
		_ = frame
	}
	slices.SortFunc(texts, func(a, b bool) int { return map[bool]int{true: 1, false: -1}[a] })
	if last != len(p.out) || len(texts) != 3 || slices.Contains(texts[1:], false) || texts[0] {
		t.Errorf("borders %v of %q: want one a frame, two of them text", p.borders, p.out)
	}
}

// Headers that another protocol's message may have are shown, and forge nothing.
func TestForeignHeaders(t *testing.T) {
	p := New(Options{})
	m := &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "a/b"}, QoS: 1, Priority: 4, UTF8: true,
		Arrived: time.UnixMilli(1), Expires: time.UnixMilli(2), Body: []byte("x"),
		Headers: []core.Header{
			{Name: "subscription", Value: "7"},
			{Name: "a:b", Value: "c\r\nd\\"},
			{Name: "evil", Value: "x\x00SEND"},
			{Name: core.HeaderCorrelationID, Value: "\xff\xfe"},
			{Name: core.HeaderReplyTo, Value: "t/answers/1"},
			{Name: "priority", Value: "9"},
		},
	}
	const head = "content-type:text/plain;charset=utf-8\ncontent-length:1\ncorrelation-id://4=\ncorrelation-id-encoding:base64\n"
	for version, want := range map[wire.Version]string{
		wire.V12: "destination:/topic/a.b\n" + strings.ReplaceAll(head, "//4=", "//4=") + "reply-to:/topic/answers.1\nexpires:2\npersistent:true\ntimestamp:1\n" +
			"foreign-subscription:7\na\\cb:c\\r\\nd\\\\\npriority:9\n\nx\x00",
		wire.V11: "destination:/topic/a.b\n" + head + "reply-to:/topic/answers.1\nexpires:2\npersistent:true\ntimestamp:1\n" +
			"foreign-subscription:7\na\\cb:c \\nd\\\\\npriority:9\n\nx\x00",
		wire.V10: "destination:/topic/a.b\n" + head + "reply-to:/topic/answers.1\nexpires:2\npersistent:true\ntimestamp:1\n" +
			"foreign-subscription:7\npriority:9\n\nx\x00",
	} {
		got := string(p.build[version][dot](m)[1:])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", version, diff)
		}
	}
	if n := p.counts.headersDropped.Load(); n != 4 {
		t.Errorf("%d headers dropped, want 4: one with a NUL in each version, one with a colon in 1.0", n)
	}
}

// The ring is what a list with marks is.
func TestRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r ring
		var model []slot
		most := 0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				n := r.add(core.Tag{Place: 1, Seq: r.next + 1})
				model = append(model, slot{n: n, tag: core.Tag{Place: 1, Seq: n}})
			case 2:
				r.next++ // a retained value
			case 3:
				if len(model) == 0 {
					continue
				}
				n := rapid.Uint64Range(1, r.next).Draw(t, "n")
				all := rapid.Bool().Draw(t, "all")
				at, ok := r.find(n)
				if i := slices.IndexFunc(model, func(s slot) bool { return s.n == n && s.state != slotDone }); i >= 0 && !ok {
					t.Fatalf("delivery %d is out and not found", n)
				}
				if !ok {
					continue
				}
				state := rapid.SampledFrom([]slotState{slotDone, slotHeld}).Draw(t, "state")
				tags, _ := r.take(at, all, state, nil)
				var want []core.Tag
				for i := range model {
					if s := &model[i]; s.state == slotOpen && (s.n == n || (all && s.n < n)) {
						s.state = state
						want = append(want, s.tag)
					}
				}
				if diff := cmp.Diff(want, tags); diff != "" {
					t.Fatalf("take %d, all %v: %s", n, all, diff)
				}
			case 4:
				var held []uint64
				to := rapid.SampledFrom([]slotState{slotDone, slotOpen}).Draw(t, "to")
				for i := range model {
					if model[i].state == slotHeld && rapid.Bool().Draw(t, "this") {
						held = append(held, model[i].n)
						model[i].state = to
					}
				}
				r.set(held, to)
			}
			alive := 0
			for _, s := range model {
				if s.state != slotDone {
					alive++
				}
			}
			if alive != r.alive {
				t.Fatalf("alive = %d, want %d", r.alive, alive)
			}
			if most = max(most, alive); len(r.slots) > 4*most+16 {
				t.Fatalf("%d places, and never more than %d deliveries out", len(r.slots), most)
			}
		}
	})
}

// A client that settles everything but the first does not make us remember all.
func TestRingForgets(t *testing.T) {
	var r ring
	r.add(core.Tag{Place: 1, Seq: 1})
	for range 100_000 {
		n := r.add(core.Tag{Place: 1, Seq: r.next + 1})
		at, _ := r.find(n)
		r.take(at, false, slotDone, nil)
	}
	if cap(r.slots) > 64 || r.alive != 1 {
		t.Errorf("%d places for %d delivery", cap(r.slots), r.alive)
	}
}

// A SEND costs three allocations: its text, its body and the message with its
// headers. (The core's own are not counted: nothing is published here.)
func TestSendAllocates(t *testing.T) {
	p := dial(t, newBox(t), Options{}, "1.2")
	h := p.handler.(*handler)
	in := []byte("SEND\ndestination:/queue/bench.orders\ncontent-type:application/json\ncontent-length:5\npersistent:true\ncorrelation-id:abc-123456\n\nhello\x00")
	if n := testing.AllocsPerRun(100, func() {
		if _, err := wire.Scan(in, &h.view); err != nil {
			t.Fatal(err)
		}
		h.draft.reset()
		if err := h.read(&h.draft); err != nil {
			t.Fatal(err)
		}
		to, err := h.target(h.draft.destination)
		if err != nil {
			t.Fatal(err)
		}
		h.compose(&h.draft, to.at)
	}); n > 3 {
		t.Errorf("a SEND allocates %v times, want at most 3", n)
	}
}

func benchMessage(h *handler) (*subscription, *core.Event) {
	s := h.newSubscription("sub-0", true, &wanted{})
	s.form, s.build = formKey(wire.V12, slash), h.protocol.build[wire.V12][slash]
	h.standing = map[uint32]*subscription{s.number: s}
	m := &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.DefaultExchange, Topic: "bench.orders"}, QoS: 1, Priority: 4, Arrived: time.UnixMilli(1),
		Headers: []core.Header{{Name: core.HeaderContentType, Value: "application/json"}, {Name: core.HeaderCorrelationID, Value: "abc-123456"}},
		Body:    bytes.Repeat([]byte("x"), 256),
	}
	return s, &core.Event{Kind: core.Delivered, Sub: s.number, Message: m, Tag: core.Tag{Place: 7, Seq: 4711, Attempt: 1}}
}

func TestMessageAllocates(t *testing.T) {
	h := dial(t, newBox(t), Options{}, "1.2").handler.(*handler)
	s, e := benchMessage(h)
	for _, mode := range []ackMode{ackAuto, ackIndividual} {
		s.mode, s.acks = mode, mode != ackAuto
		out := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(100, func() {
			out = h.message(out[:0], e)
			h.settled = h.settled[:0]
			if s.acks {
				at, _ := s.ring.find(s.ring.next)
				s.ring.take(at, false, slotDone, h.tags[:0])
			}
		}); n > 1 || (n > 0 && mode == ackAuto) {
			t.Errorf("a MESSAGE in mode %d allocates %v times", mode, n)
		}
	}
}

// Goal: at most 30 ns and no allocation for the copy of a shared part.
func BenchmarkPrefixAndShared(b *testing.B) {
	h := dial(b, newBox(b), Options{}, "1.2").handler.(*handler)
	s, e := benchMessage(h)
	shared := e.Message.Form(s.form, s.build)
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		out = s.appendPrefix(out[:0], e, e.Tag.Seq, 0)
		out = append(out, shared[1:]...)
	}
}

// A whole delivery, with its subscription found and its form asked for.
func BenchmarkMessage(b *testing.B) {
	h := dial(b, newBox(b), Options{}, "1.2").handler.(*handler)
	_, e := benchMessage(h)
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		out = h.message(out[:0], e)
		h.settled = h.settled[:0]
	}
}

func BenchmarkSend(b *testing.B) {
	h := dial(b, newBox(b), Options{}, "1.2").handler.(*handler)
	in := []byte("SEND\ndestination:/queue/bench.orders\ncontent-type:application/json\ncontent-length:256\npersistent:true\ncorrelation-id:abc-123456\n\n" +
		strings.Repeat("x", 256) + "\x00")
	b.ReportAllocs()
	for b.Loop() {
		_, _ = wire.Scan(in, &h.view)
		h.draft.reset()
		_ = h.read(&h.draft)
		to, _ := h.target(h.draft.destination)
		h.compose(&h.draft, to.at)
	}
}
