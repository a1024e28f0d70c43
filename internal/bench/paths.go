//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// A path is one way of messages through a server.
type path struct {
	name, title string
	unit        unit
	budget      float64 // microseconds of CPU a unit; of a rate, messages a second; 0: none
	rate        bool    // the budget is a rate
	build       func(*field) error
	check       func(*field) error // after the last answer; may be nil
}

// A unit is what CPU is divided by.
type unit uint8

const (
	perDelivery unit = iota
	perAnswer
)

// A field is one path built up on one server.
type field struct {
	*loop
	server *server
	flows  []*flow
}

// The clients of the paths.
const (
	many  = 50   // publishers of fan-in and pairs
	crowd = 100  // subscribers of fan-out
	ahead = 100  // how far fan-out's publisher may be ahead of the slowest
	deep  = 1000 // the durable window
)

// paths are those the budgets are about, in the order of the table.
var paths = []path{
	{name: "fan-in-qos0", title: "MQTT fan-in 50->1, QoS 0, window 20", budget: 0.65, build: fanIn(0, 20)},
	{name: "fan-in-qos1", title: "MQTT fan-in 50->1, QoS 1, window 20", budget: 1.3, build: fanIn(1, 20)},
	{name: "pairs-20", title: "MQTT 50 pairs, QoS 1, window 20", budget: 2.0, build: pairs(20)},
	{name: "pairs-1", title: "MQTT 50 pairs, QoS 1, window 1", budget: 18, build: pairs(1)},
	{name: "fan-out-qos0", title: "MQTT fan-out 1->100, QoS 0, a delivery", budget: 0.6, build: fanOutMQTT(0)},
	{name: "fan-out-qos1", title: "MQTT fan-out 1->100, QoS 1, a delivery", budget: 0.8, build: fanOutMQTT(1)},
	{name: "durable-1", title: "MQTT QoS 1 into a durable queue, window 1", unit: perAnswer, build: durable(1), check: allKept},
	{
		name: "durable-1000", title: "MQTT QoS 1 into a durable queue, window 1,000",
		unit: perAnswer, budget: 200_000, rate: true, build: durable(deep), check: allKept,
	},
	{
		name: "line-durable", title: "line PUB with id into a durable queue, window 1,000",
		unit: perAnswer, budget: 200_000, rate: true, build: lineDurable, check: allKept,
	},
	{name: "line-1-1", title: "line 1->1, live", budget: 1.1, build: lineLive(1)},
	{name: "line-1-20", title: "line 1->20, live, a delivery", budget: 0.6, build: lineLive(20)},
	{name: "stomp-transient", title: "STOMP queue 1->1, persistent:false", budget: 5, build: stompQueue(false)},
	{name: "stomp-persistent", title: "STOMP queue 1->1, receipts, every message acked", budget: 8, build: stompQueue(true)},
	{name: "stomp-1-20", title: "STOMP topic 1->20, a delivery", budget: 0.8, build: stompTopic(20)},
}

// runsOn says whether the server speaks the protocol of the path.
func (p *path) runsOn(s *server) bool {
	switch {
	case strings.HasPrefix(p.name, "line"):
		return s.line != ""
	case strings.HasPrefix(p.name, "stomp"):
		return s.stomp != ""
	}
	return s.mqtt != ""
}

// flow makes the next flow of the field.
func (fd *field) flow(window uint64, acks bool, readers int) *flow {
	f := newFlow(len(fd.flows), window, acks, readers)
	fd.flows = append(fd.flows, f)
	return f
}

func (fd *field) publishMQTT(f *flow, topic string, qos byte) error {
	id := fmt.Sprintf("bench-p%d", f.number)
	nc, rest, err := dialMQTT(fd.server.mqtt, mqttLogin{id: id})
	if err != nil {
		return err
	}
	return fd.add(nc, &conn{name: id, wire: &mqttWire{topic: topic, qos: qos}, flow: f}, rest)
}

func (fd *field) subscribeMQTT(number int, filter string, qos byte, flows ...*flow) error {
	id := fmt.Sprintf("bench-s%d", number)
	nc, rest, err := dialMQTT(fd.server.mqtt, mqttLogin{id: id, filter: filter, qos: qos})
	if err != nil {
		return err
	}
	return fd.add(nc, &conn{name: id, wire: &mqttWire{}, read: newReader(len(fd.flows), flows...)}, rest)
}

// fanIn is what a plant does: many devices, one application.
func fanIn(qos byte, window uint64) func(*field) error {
	return func(fd *field) error {
		for range many {
			fd.flow(window, qos > 0, 1)
		}
		if err := fd.subscribeMQTT(0, "bench/+", qos, fd.flows...); err != nil {
			return err
		}
		for i, f := range fd.flows {
			if err := fd.publishMQTT(f, fmt.Sprintf("bench/%d", i), qos); err != nil {
				return err
			}
		}
		return nil
	}
}

// pairs is what nothing can be batched across: each has a partner of its own.
func pairs(window uint64) func(*field) error {
	return func(fd *field) error {
		for range many {
			fd.flow(window, true, 1)
		}
		for i, f := range fd.flows {
			topic := fmt.Sprintf("bench/%d", i)
			if err := fd.subscribeMQTT(i, topic, 1, f); err != nil {
				return err
			}
			if err := fd.publishMQTT(f, topic, 1); err != nil {
				return err
			}
		}
		return nil
	}
}

// fanOutMQTT is what a dashboard room does; the slowest subscriber paces it.
func fanOutMQTT(qos byte) func(*field) error {
	return func(fd *field) error {
		f := fd.flow(ahead, qos > 0, crowd)
		for i := range crowd {
			if err := fd.subscribeMQTT(i, "bench/all", qos, f); err != nil {
				return err
			}
		}
		return fd.publishMQTT(f, "bench/all", qos)
	}
}

// The durable queue of a server of ours, and its binding.
const (
	makeQueue = "MK q/bench"
	bindQueue = "BIND q/bench t/bench/#"
	away      = "bench-away" // its stand-in elsewhere
)

// durable is one client that wants to be sure. The target is a durable queue,
// or, on a server without our line protocol, the session of a subscriber that
// is away.
func durable(window uint64) func(*field) error {
	return func(fd *field) error {
		if err := fd.target(); err != nil {
			return err
		}
		return fd.publishMQTT(fd.flow(window, true, 0), "bench/durable", 1)
	}
}

func (fd *field) target() error {
	if fd.server.line == "" {
		nc, _, err := dialMQTT(fd.server.mqtt, mqttLogin{id: away, expiry: 3600, filter: "bench/durable", qos: 1})
		if err != nil {
			return err
		}
		return nc.Close()
	}
	nc, _, err := dialLine(fd.server.line, makeQueue, bindQueue)
	if err != nil {
		return err
	}
	return nc.Close()
}

// forget ends the session of the subscriber that is away: a server that is
// not ours goes on living, and would collect for it on every later path.
func (fd *field) forget() error {
	nc, _, err := dialMQTT(fd.server.mqtt, mqttLogin{id: away})
	if err != nil {
		return err
	}
	return nc.Close()
}

func lineDurable(fd *field) error {
	if err := fd.target(); err != nil {
		return err
	}
	return fd.publishLine(fd.flow(deep, true, 0), "t/bench/durable")
}

// allKept compares what the queue says it holds with what was answered.
func allKept(fd *field) error {
	if fd.server.line == "" {
		return fd.forget()
	}
	nc, err := net.DialTimeout("tcp", fd.server.line, handshake)
	if err != nil {
		return err
	}
	defer nc.Close()
	rows, err := ask(nc, bufio.NewReader(nc), "STAT q/bench")
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(strings.Join(rows, " ")) {
		if text, ok := strings.CutPrefix(field, "ready="); ok {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil || n != fd.flows[0].acked {
				return fmt.Errorf("the queue holds %s messages, %d were answered", text, fd.flows[0].acked)
			}
			return nil
		}
	}
	return fmt.Errorf("STAT q/bench does not say what is ready: %q", rows)
}

func (fd *field) publishLine(f *flow, dest string) error {
	nc, rest, err := dialLine(fd.server.line)
	if err != nil {
		return err
	}
	return fd.add(nc, &conn{name: "line publisher", wire: &lineWire{dest: dest, acks: f.acks}, flow: f}, rest)
}

func lineLive(readers int) func(*field) error {
	return func(fd *field) error {
		f := fd.flow(ahead, false, readers)
		for i := range readers {
			nc, rest, err := dialLine(fd.server.line, "SUB 1 t/bench/#")
			if err != nil {
				return err
			}
			c := &conn{name: fmt.Sprintf("line subscriber %d", i), wire: &lineWire{}, read: newReader(1, f)}
			if err := fd.add(nc, c, rest); err != nil {
				return err
			}
		}
		return fd.publishLine(f, "t/bench/live")
	}
}

// stompWindow is what the STOMP peers were measured with.
const stompWindow = 256

func (fd *field) stomp(f *flow, readers int, w stompWire, mode string) error {
	for i := range readers {
		nc, rest, err := dialSTOMP(fd.server.stomp, w.dest, mode)
		if err != nil {
			return err
		}
		c := &conn{name: fmt.Sprintf("STOMP subscriber %d", i), wire: &w, read: newReader(1, f)}
		if err := fd.add(nc, c, rest); err != nil {
			return err
		}
	}
	nc, rest, err := dialSTOMP(fd.server.stomp, "", "")
	if err != nil {
		return err
	}
	return fd.add(nc, &conn{name: "STOMP publisher", wire: &w, flow: f}, rest)
}

func stompQueue(persistent bool) func(*field) error {
	return func(fd *field) error {
		w, mode := stompWire{dest: "/queue/bench"}, "auto"
		if persistent {
			w.persistent, w.receipts, w.acks, mode = true, true, true, "client-individual"
		}
		return fd.stomp(fd.flow(stompWindow, w.receipts, 1), 1, w, mode)
	}
}

func stompTopic(readers int) func(*field) error {
	return func(fd *field) error {
		return fd.stomp(fd.flow(ahead, false, readers), readers, stompWire{dest: "/topic/bench/live"}, "auto")
	}
}

// A sample is one path measured on one server once.
type sample struct {
	Units   uint64        `json:"units"` // deliveries or answers in the time measured
	Elapsed time.Duration `json:"elapsed_ns"`
	CPU     time.Duration `json:"cpu_ns"`
	Memory  int64         `json:"resident_bytes"`
}

func (s sample) micros() float64 { return float64(s.CPU.Nanoseconds()) / 1e3 / float64(s.Units) }
func (s sample) perSecond() float64 {
	return float64(s.Units) / s.Elapsed.Seconds()
}

// measure runs p on s: a fifth of the time to warm up, the time itself, and
// then as long as it takes until everything is answered and read.
func (p *path) measure(s *server, d time.Duration) (sample, error) {
	l, err := newLoop()
	if err != nil {
		return sample{}, err
	}
	defer l.close()
	fd := &field{loop: l, server: s}
	if err := p.build(fd); err != nil {
		return sample{}, err
	}
	if err := l.run(time.Now().Add(d / 5)); err != nil {
		return sample{}, err
	}
	got, err := p.watch(fd, d)
	if err != nil {
		return sample{}, err
	}
	if err := l.drain(); err != nil {
		return sample{}, err
	}
	if p.check != nil {
		err = p.check(fd)
	}
	return got, err
}

func (p *path) watch(fd *field, d time.Duration) (sample, error) {
	count := fd.deliveries
	if p.unit == perAnswer {
		count = fd.answers
	}
	began, units := time.Now(), count()
	cpu, err := fd.server.cpu()
	if err != nil {
		return sample{}, err
	}
	if err := fd.run(began.Add(d)); err != nil {
		return sample{}, err
	}
	after, err := fd.server.cpu()
	if err != nil {
		return sample{}, err
	}
	got := sample{Units: count() - units, Elapsed: time.Since(began), CPU: after - cpu, Memory: fd.server.memory()}
	if got.Units == 0 {
		return sample{}, fmt.Errorf("nothing arrived in %v: %s", d, fd.where())
	}
	return got, nil
}
