package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Deadlines of a run.
const (
	letGo       = 20 * time.Second // for clients, after the broker is gone
	standsStill = 10 * time.Second // without an answer or a delivery: drained, or hung
)

// longestRound is the latest instant of the kill; the instant is the one thing
// a run waits for without an event.
const longestRound = 1500 * time.Millisecond

// options of a run.
type options struct {
	rounds int
	seed   uint64
	binary string
	dir    string
	out    io.Writer
}

// A run is the whole: a broker, its clients, and what is known about both.
type run struct {
	options
	broker  *broker
	ledger  *ledger
	clients []client
	random  *rand.Rand

	recovery time.Duration // what the last start took
}

// random is for what need not be repeatable.
func random(n int) int { return rand.IntN(n) }

// crash does the rounds, drains and counts. An error means that the run could
// not be done; what was found is in the ledger.
func crash(o options) (*ledger, error) {
	b, err := newBroker(o.binary, o.dir)
	if err != nil {
		return nil, err
	}
	defer b.close()
	r := &run{options: o, broker: b, ledger: newLedger(o.seed), random: rand.New(rand.NewPCG(o.seed, 1))}
	r.cast()
	if err := r.setUp(); err != nil {
		return r.ledger, err
	}
	for n := range o.rounds {
		if err := r.round(n + 1); err != nil {
			return r.ledger, fmt.Errorf("round %d: %w", n+1, err)
		}
	}
	if err := r.finish(); err != nil {
		return r.ledger, err
	}
	r.ledger.close()
	r.summary()
	return r.ledger, nil
}

// The queues, and what is bound to them.
var queues = []struct{ name, filter string }{
	{"crash-mqtt", "t/crash/mqtt/#"},
	{"crash-topic", "t/crash/stomp/#"},
	{"crash-pid", "t/crash/line/#"},
	{"crash-stomp", "x/crash-out"},
	{"crash-line", ""}, // published to by name
}

// What a message to crash-stomp goes through: should any of it be missing after
// a kill, then what is confirmed is missing too.
var exchanges = []string{
	"MK x/crash-in kind=direct", "MK x/crash-mid kind=headers", "MK x/crash-out kind=fanout",
	"BIND x/crash-mid x/crash-in/k", "BIND x/crash-out x/crash-mid",
}

// cast makes publishers and consumers: each queue is read on another protocol
// than it is written on.
func (r *run) cast() {
	l := r.ledger
	mqtt := func(name string, qos byte, p policy) *book {
		b := l.newBook(name, p)
		r.clients = append(r.clients, &publisher{b, &mqttPublisher{
			mqttClient: mqttClient{id: name, session: true},
			topic:      "crash/mqtt/" + name, qos: qos, number: b.number, seed: l.seed,
		}})
		return b
	}
	stomp := func(name, dest string, p policy) *book {
		b := l.newBook(name, p)
		r.clients = append(r.clients, &publisher{b, &stompPublisher{dest: dest, number: b.number, seed: l.seed}})
		return b
	}
	line := func(name, dest, producer string, p policy) *book {
		b := l.newBook(name, p)
		r.clients = append(r.clients, &publisher{b, &linePublisher{dest: dest, producer: producer, number: b.number, seed: l.seed}})
		return b
	}
	qos1 := mqtt("mqtt-qos1", 1, repeat)
	qos2 := mqtt("mqtt-qos2", 2, repeated)
	queue := stomp("stomp-queue", "/exchange/crash-in/k", repeat)
	topic := stomp("stomp-topic", "/topic/crash/stomp/1", giveUp)
	plain := line("line", "q/crash-line", "", giveUp)
	pid := line("line-pid", "t/crash/line/1", "crash-producer", repeated)

	read := func(name string, e ear, from ...*book) {
		r.clients = append(r.clients, &consumer{name, l.newTarget(name, from...), e})
	}
	read("q/crash-mqtt by STOMP", &stompConsumer{dest: "/queue/crash-mqtt"}, qos1, qos2)
	read("q/crash-line by STOMP", &stompConsumer{dest: "/queue/crash-line"}, plain)
	read("q/crash-stomp by line", &lineConsumer{dest: "q/crash-stomp"}, queue)
	read("q/crash-topic by line", &lineConsumer{dest: "q/crash-topic"}, topic)
	read("q/crash-pid by MQTT", &mqttConsumer{mqttClient: mqttClient{id: "crash-reader"}, filter: "$queue/crash-pid"}, pid)
	read(sessionTarget, &mqttConsumer{mqttClient: mqttClient{id: "crash-session", session: true}, filter: "crash/#"}, qos1, qos2, topic, pid)
}

const sessionTarget = "the MQTT session"

// setUp declares the queues, and lets the MQTT session begin before anybody
// publishes.
func (r *run) setUp() error {
	if err := r.start(); err != nil {
		return err
	}
	l := r.newLife(context.Background(), false)
	w, end, err := l.dial(r.broker.line)
	if err != nil {
		return err
	}
	defer end()
	for _, say := range exchanges {
		if _, err := w.ask(say); err != nil {
			return err
		}
	}
	for _, q := range queues {
		if _, err := w.ask("MK q/" + q.name); err != nil {
			return err
		}
		if q.filter == "" {
			continue
		}
		if _, err := w.ask("BIND q/" + q.name + " " + q.filter); err != nil {
			return err
		}
	}
	for _, c := range r.clients {
		if err := r.prepare(c, l); err != nil {
			return err
		}
	}
	return r.broker.kill()
}

// prepare lets the MQTT session subscribe, and asks whether there are producer
// ids.
func (r *run) prepare(c client, l *life) error {
	switch c := c.(type) {
	case *consumer:
		if c.name != sessionTarget {
			return nil
		}
		w, end, err := c.ear.hello(l)
		if err != nil {
			return err
		}
		defer end()
		if _, handle, err := c.ear.hear(w, c.target); err != nil || handle != "" {
			return fmt.Errorf("%s: not subscribed: %w", c.name, err)
		}
	case *publisher:
		p, ok := c.tongue.(*linePublisher)
		if !ok || p.producer == "" {
			return nil
		}
		_, end, _, err := p.hello(l)
		if err != nil && strings.Contains(err.Error(), "not supported yet") {
			fmt.Fprintf(r.out, "%s: %v; it does without, and may store twice what is sent twice\n", c.label(), err)
			p.producer, c.book.policy = "", repeat
			return nil
		}
		if err != nil {
			return err
		}
		end()
	}
	return nil
}

func (r *run) newLife(ctx context.Context, last bool) *life {
	return &life{ctx: ctx, broker: r.broker, last: last, random: rand.New(rand.NewPCG(r.random.Uint64(), 0))}
}

// start starts the broker and measures until it listens.
func (r *run) start() error {
	began := time.Now()
	if err := r.broker.start(); err != nil {
		return err
	}
	err := r.broker.await()
	r.recovery = time.Since(began)
	return err
}

// killStarting starts the broker and kills it before it is through, one time
// in three, and perhaps again.
func (r *run) killStarting() (times int, err error) {
	for r.random.IntN(3) == 0 && times < 5 {
		if err := r.broker.start(); err != nil {
			return times, err
		}
		time.Sleep(time.Duration(r.random.Int64N(int64(r.recovery) + 1))) // the random instant
		if err := r.broker.kill(); err != nil {
			return times, err
		}
		times++
	}
	r.broker.early += times
	return times, nil
}

// company is the clients of one life.
type company struct {
	cancel context.CancelFunc
	gone   chan struct{} // all have let go
	killed atomic.Bool   // from now on a connection may break
}

// gather brings all clients to life.
func (r *run) gather(last bool) *company {
	ctx, cancel := context.WithCancel(context.Background())
	c := &company{cancel: cancel, gone: make(chan struct{})}
	var all sync.WaitGroup
	for _, cl := range r.clients {
		l := r.newLife(ctx, last)
		all.Go(func() {
			if err := cl.live(l); !c.killed.Load() && !errors.Is(err, context.Canceled) {
				r.ledger.fault(refused, "%s: %v, while nobody killed the broker", cl.label(), err)
			}
		})
	}
	go func() { all.Wait(); close(c.gone) }() // dismiss waits for it
	return c
}

// dismiss waits until all clients have noticed that the broker is gone.
func (c *company) dismiss() error {
	defer c.cancel()
	select {
	case <-c.gone:
		return nil
	case <-time.After(letGo):
		return fmt.Errorf("the broker is dead, and after %v a client still holds on", letGo)
	}
}

// round is one life of the broker, cut short.
func (r *run) round(n int) error {
	early, err := r.killStarting()
	if err != nil {
		return err
	}
	if err := r.start(); err != nil {
		return err
	}
	before, began := r.ledger.count(), time.Now()
	c := r.gather(false)
	if r.random.IntN(4) > 0 { // else perhaps while they connect
		r.awaitTraffic(before)
	}
	time.Sleep(time.Duration(r.random.Int64N(int64(longestRound)))) // the random instant
	c.killed.Store(true)
	if err := r.broker.kill(); err != nil {
		return errors.Join(err, c.dismiss())
	}
	up := time.Since(began)
	r.broker.kills++
	if err := c.dismiss(); err != nil {
		return err
	}
	now := r.ledger.count()
	fmt.Fprintf(r.out, "round %d: started in %v (killed %d times starting), killed after %v: %d confirmed, %d delivered, %d of them again, %d acks answered\n",
		n, r.recovery.Round(time.Millisecond), early, up.Round(time.Millisecond), now.confirmed-before.confirmed,
		now.delivered-before.delivered, now.again-before.again, now.settled-before.settled)
	return nil
}

// awaitTraffic returns when messages are confirmed and delivered again.
func (r *run) awaitTraffic(before counts) {
	deadline := time.Now().Add(letGo)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for time.Now().Before(deadline) {
		if now := r.ledger.count(); now.confirmed > before.confirmed && now.delivered > before.delivered {
			return
		}
		<-look.C
	}
	r.ledger.fault(refused, "no message went through within %v of the start", letGo)
}

// finish lets the publishers come to an end and the consumers drain, kills
// once more, and looks whether what was settled stays away.
func (r *run) finish() error {
	if err := r.start(); err != nil {
		return err
	}
	c := r.gather(true)
	if err := r.drained(); err != nil {
		r.ledger.fault(lost, "drain: %v", err)
	}
	c.killed.Store(true)
	if err := r.broker.kill(); err != nil {
		return errors.Join(err, c.dismiss())
	}
	r.broker.kills++
	if err := c.dismiss(); err != nil {
		return err
	}
	return r.stayedAway()
}

// drained returns when everything confirmed was acknowledged, everything
// acknowledged answered, and the queues are empty.
func (r *run) drained() error {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	moves, since := r.ledger.count().moves, time.Now()
	for range look.C {
		if now := r.ledger.count().moves; now != moves {
			moves, since = now, time.Now()
			continue
		}
		full, err := r.full()
		if err != nil {
			return err
		}
		if len(full) == 0 && r.idle() && r.ledger.whole() {
			return nil
		}
		if time.Since(since) > standsStill {
			return fmt.Errorf("nothing has moved for %v; not empty: %s", standsStill, strings.Join(full, ", "))
		}
	}
	return nil
}

func (r *run) idle() bool {
	for _, b := range r.ledger.books {
		if !b.idle() {
			return false
		}
	}
	for _, t := range r.ledger.targets {
		if !t.idle() {
			return false
		}
	}
	return true
}

// full lists the queues that hold something, in the broker's words.
func (r *run) full() (some []string, err error) {
	w, end, err := r.newLife(context.Background(), true).dial(r.broker.line)
	if err != nil {
		return nil, err
	}
	defer end()
	for _, q := range queues {
		rows, err := w.ask("STAT q/" + q.name)
		if err != nil {
			return nil, err
		}
		text := strings.Join(rows, " ")
		ready, ok := option(text, "ready")
		unacked, _ := option(text, "unacked")
		if !ok {
			return nil, fmt.Errorf("STAT q/%s: %q", q.name, text)
		}
		if ready != "0" || unacked != "0" {
			some = append(some, text)
		}
	}
	return some, nil
}

// stayedAway starts the broker a last time and looks into the queues whose
// acknowledgements are answered: they were all empty.
func (r *run) stayedAway() error {
	if err := r.start(); err != nil {
		return err
	}
	full, err := r.full()
	if err != nil {
		r.ledger.fault(lost, "look into the queues again: %v", err)
	}
	for _, text := range full {
		if !strings.Contains(text, "q/crash-pid") { // MQTT does not answer acknowledgements
			r.ledger.fault(returned, "after the last acknowledgement was answered: %s", text)
		}
	}
	return nil
}

func (r *run) summary() {
	c, f := r.ledger.count(), &r.ledger.faults
	fmt.Fprintf(r.out, "%d rounds, killed %d times serving and %d times starting; %d sent, %d confirmed, %d unknown; %d delivered, %d of them again; %d acks answered\n",
		r.rounds, r.broker.kills, r.broker.early, c.sent, c.confirmed, c.unknown, c.delivered, c.again, c.settled)
	for _, text := range f.first {
		fmt.Fprintln(r.out, "FAULT", text)
	}
	parts := make([]string, len(faultKinds))
	for i, k := range faultKinds {
		parts[i] = fmt.Sprintf("%s: %d", k, f.count[k])
	}
	fmt.Fprintf(r.out, "%s (seed %d)\n", strings.Join(parts, ", "), r.seed)
}

// keepOrRemove removes the directory, or says where it is.
func keepOrRemove(out io.Writer, dir string, keep bool) {
	if keep {
		fmt.Fprintln(out, "data directory and the broker's log:", dir)
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(out, err)
	}
}
