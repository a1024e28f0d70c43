package core_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

var (
	seeds   = flag.Int("seeds", 300, "how many histories TestSimulate runs")
	oneSeed = flag.Int64("seed", -1, "the one history to run")
)

// TestSimulate runs a broker without goroutines through random histories, on a
// disk that syncs late, fills and loses power. Whatever was confirmed and not
// settled comes to a reader; nothing is delivered before it is safe; first
// deliveries keep their publisher's order; what comes again says so.
//
// mission: S8 S28 S33 S41, P1 P6 P7 P8 P11
func TestSimulate(t *testing.T) {
	if *oneSeed >= 0 {
		newHistory(t, uint64(*oneSeed)).run()
		return
	}
	for seed := range uint64(*seeds) {
		newHistory(t, seed).run()
		if t.Failed() {
			return
		}
	}
}

// A history is one seed's broker, clients and what the test knows of them.
type history struct {
	*box
	seed    uint64
	rng     *rand.Rand
	pub     *client
	readers []*reader
	sent    uint64
	state   map[string]map[uint64]*sent // queue => number => what is known
	full    bool
}

// sent is what is known of one message in one queue.
type sent struct {
	confirmed bool
	refused   bool
	delivered bool // at least once, ever
	acked     bool // an ack was given; it may be forgotten in a crash
	settled   bool // an ack was answered: it may not come again
}

type reader struct {
	*client
	queue  string
	held   []core.Event
	acks   map[uint64][]uint64 // token => numbers
	token  uint64
	newest uint64 // highest number first delivered
}

var simQueues = []string{"a", "b", "all"}

func newHistory(t *testing.T, seed uint64) *history {
	rng := rand.New(rand.NewPCG(seed, 7))
	window := int64(0)
	if rng.IntN(3) == 0 {
		window = 1 // always on the edge of paging
	}
	h := &history{
		box: newBox(t, core.Options{Window: window, Shards: 1 + rng.IntN(2)}), seed: seed, rng: rng,
		state: make(map[string]map[uint64]*sent),
	}
	for _, q := range simQueues {
		h.state[q] = make(map[uint64]*sent)
	}
	h.connectAll()
	h.pub.mustApply(queueNamed("a"), queueNamed("b"), queueNamed("all"),
		bound("a", "t/a"), bound("b", "t/b"), bound("all", "t/#"))
	return h
}

func (h *history) fatal(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("%s\nrepeat: go test ./core -run TestSimulate -seed %d", fmt.Sprintf(format, args...), h.seed)
}

func (h *history) connectAll() {
	h.pub, _ = h.connect(core.SessionSpec{Unanswered: 64})
	h.readers = nil
	for range 1 + h.rng.IntN(3) {
		h.addReader()
	}
}

func (h *history) addReader() {
	r := &reader{queue: simQueues[h.rng.IntN(len(simQueues))], acks: make(map[uint64][]uint64), token: 100}
	r.client, _ = h.connect(core.SessionSpec{})
	r.Consume(core.Sub{ID: 1, Where: queueOf(r.queue), Credit: core.Credit{Messages: int64(1 + h.rng.IntN(20)), Auto: true}}, 1)
	h.readers = append(h.readers, r)
}

func (h *history) run() {
	h.disk.Hold()
	for range 30 + h.rng.IntN(150) {
		h.act()
		for range h.rng.IntN(3) {
			h.b.Step()
		}
		h.look()
	}
	if h.rng.IntN(2) == 0 {
		h.power()
	}
	h.heal()
}

func (h *history) act() {
	switch n := h.rng.IntN(100); {
	case n < 40:
		h.publish()
	case n < 60:
		h.disk.Sync()
	case n < 80:
		h.settleOne()
	case n < 84:
		h.readers[h.rng.IntN(len(h.readers))].Close(core.Closing{})
		h.dropClosed()
	case n < 88:
		if len(h.readers) < 4 {
			h.disk.Sync()
			h.disk.Resume()
			h.addReader()
			h.disk.Hold()
		}
	case n < 92:
		h.full = !h.full
		h.disk.SetFull(h.full)
	case n < 94:
		h.power()
		h.disk.Hold()
	default:
		h.now = h.now.Add(time.Second)
		h.b.Tick(h.now)
	}
}

// dropClosed replaces readers whose session is over by new ones.
func (h *history) dropClosed() {
	var live []*reader
	for _, r := range h.readers {
		if err := r.Publish(message(topicOf("none"), 1, ""), 0); err == nil {
			live = append(live, r)
		}
	}
	h.readers = live
	h.disk.Resume()
	for len(h.readers) == 0 {
		h.addReader()
	}
	h.disk.Hold()
}

func (h *history) publish() {
	topic := []string{"a", "b", "c"}[h.rng.IntN(3)]
	m := message(topicOf("t/"+topic), 1, fmt.Sprint(h.sent+1))
	if h.pub.Publish(m, h.sent+1) != nil {
		return // it has to wait
	}
	h.sent++
	if topic != "c" {
		h.state[topic][h.sent] = new(sent)
	}
	h.state["all"][h.sent] = new(sent)
}

// settleOne acks or nacks something, with or without an answer.
func (h *history) settleOne() {
	r := h.readers[h.rng.IntN(len(h.readers))]
	if len(r.held) == 0 {
		return
	}
	i := h.rng.IntN(len(r.held))
	e := r.held[i]
	r.held = append(r.held[:i], r.held[i+1:]...)
	if h.rng.IntN(5) == 0 {
		r.Nack(core.Back{}, e.Tag)
		return
	}
	st := h.state[r.queue][number(e)]
	st.acked = true
	if h.rng.IntN(2) == 0 {
		r.Ack(e.Tag)
		return
	}
	r.token++
	r.acks[r.token] = []uint64{number(e)}
	if err := r.Submit([]core.Op{{Ack: []core.Tag{e.Tag}}}, r.token); err != nil {
		h.fatal("submit of an ack: %v", err)
	}
}

func number(e core.Event) (n uint64) {
	fmt.Sscan(string(e.Message.Body), &n)
	return n
}

// look takes what the broker said and checks it.
func (h *history) look() {
	events, _ := h.pub.Events().Take(nil)
	last := uint64(0)
	for _, e := range events {
		if e.Kind != core.Confirmed {
			continue
		}
		if e.Token < last {
			h.fatal("confirmed %d after %d", e.Token, last)
		}
		last = e.Token
		for _, q := range simQueues {
			if st := h.state[q][e.Token]; st != nil {
				st.confirmed, st.refused = e.Err == nil, e.Err != nil
			}
		}
	}
	for _, r := range h.readers {
		h.read(r)
	}
}

func (h *history) read(r *reader) {
	events, _ := r.Events().Take(nil)
	for _, e := range events {
		switch e.Kind {
		case core.Confirmed:
			for _, n := range r.acks[e.Token] {
				if e.Err != nil {
					h.fatal("ack of %d: %v", n, e.Err)
				}
				h.state[r.queue][n].settled = true
			}
		case core.Delivered:
			h.delivered(r, e)
		case core.Cancelled, core.Drained, core.Again, core.Evicted:
		}
	}
}

func (h *history) delivered(r *reader, e core.Event) {
	n := number(e)
	st := h.state[r.queue][n]
	switch {
	case st == nil:
		h.fatal("queue %s delivers %d, which was not for it", r.queue, n)
	case st.settled:
		h.fatal("queue %s delivers %d again, which was settled and answered", r.queue, n)
	case st.refused:
		h.fatal("queue %s delivers %d, which was refused", r.queue, n)
	case st.delivered && e.Tag.Attempt < 2:
		h.fatal("queue %s delivers %d again and does not say so", r.queue, n)
	case !st.delivered && e.Tag.Attempt < 2:
		if n < r.newest {
			h.fatal("queue %s delivers %d after %d", r.queue, n, r.newest)
		}
		r.newest = n
	}
	st.delivered = true
	r.held = append(r.held, e)
}

// power goes off and on. What was delivered was safe, so it comes again unless
// it was acked; what was not answered is unknown.
func (h *history) power() {
	h.look()
	h.full = false
	h.disk.SetFull(false)
	h.disk.Cut()
	h.disk.Resume()
	h.start()
	h.connectAll()
}

// heal lets everything work again, and expects all that is owed.
func (h *history) heal() {
	h.disk.SetFull(false)
	h.disk.Resume()
	h.settle()
	h.look()
	for _, r := range h.readers {
		r.Close(core.Closing{})
	}
	h.readers = nil
	for _, q := range simQueues {
		r := &reader{queue: q, acks: make(map[uint64][]uint64)}
		r.client, _ = h.connect(core.SessionSpec{})
		r.Consume(core.Sub{ID: 1, Where: queueOf(q), Credit: core.Credit{Messages: 1 << 40}}, 1)
		h.settle()
		h.read(r)
		got := make(map[uint64]bool)
		last := uint64(0)
		for _, e := range r.held {
			if number(e) < last {
				h.fatal("queue %s holds %d behind %d: what went back lost its place", q, number(e), last)
			}
			last = number(e)
			if got[number(e)] {
				h.fatal("queue %s holds %d twice", q, number(e))
			}
			got[number(e)] = true
		}
		for n, st := range h.state[q] {
			if owed := (st.confirmed || st.delivered) && !st.acked; owed && !got[n] {
				h.fatal("queue %s lost %d: %+v", q, n, *st)
			}
		}
		r.Close(core.Closing{})
	}
}
