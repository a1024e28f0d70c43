package mqtt

import (
	"syscall"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

func benchMessage(b testing.TB, version byte) (frame, *Options, *topics) {
	w := encode(b, version, publish("plant/7/line/3/temp", 0, 0, "0123456789abcdef0123456789abcdef"))
	f, _ := cut(w, largestPacket)
	limits := Options{}.withDefaults()
	return f, &limits, &topics{vhost: "/"}
}

// cpu reports the time on the processor, the collector's included, which is
// what counts on a machine that is shared. The result is to be called at the end.
func cpu(b *testing.B) func() {
	used := func() int64 {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return u.Utime.Nano() + u.Stime.Nano()
	}
	begin := used()
	b.ReportAllocs()
	return func() { b.ReportMetric(float64(used()-begin)/float64(b.N), "cpu-ns/op") }
}

var sink *core.Message

// From bytes to a message: what Receive does before core has it.
func BenchmarkPublishInPlace(b *testing.B) {
	for _, version := range []byte{4, 5} {
		b.Run(map[byte]string{4: "v4", 5: "v5"}[version], func(b *testing.B) {
			f, limits, names := benchMessage(b, version)
			defer cpu(b)()
			for b.Loop() {
				p, _ := readPublish(&f, version, limits)
				to, _ := names.resolve(&p)
				sink = p.message(&f, to, time.Now)
			}
		})
	}
}

// The same without the message itself.
func BenchmarkPublishScan(b *testing.B) {
	f, limits, names := benchMessage(b, 5)
	defer cpu(b)()
	for b.Loop() {
		p, _ := readPublish(&f, 5, limits)
		_, _ = names.resolve(&p)
	}
}

func BenchmarkDeliver(b *testing.B) {
	m := &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "plant/7/line/3/temp"},
		Body:    make([]byte, 32), Priority: core.DefaultPriority,
	}
	with := &core.Message{Address: m.Address, Body: m.Body, Headers: []core.Header{
		{Name: core.HeaderContentType, Value: "text/plain"}, {Name: "unit", Value: "C"}, {Name: core.HeaderReplyTo, Value: "t/re/ply"},
	}}
	for _, row := range []struct {
		name    string
		version byte
		m       *core.Message
	}{{"v4", 4, m}, {"v5", 5, m}, {"v5-properties", 5, with}} {
		b.Run(row.name, func(b *testing.B) {
			d := delivery{qos: 1, ids: nil}
			out := make([]byte, 0, 64<<10)
			defer cpu(b)()
			for b.Loop() {
				if d.id++; len(out) > 32<<10 {
					out = out[:0]
				}
				out = appendPublish(out, row.version, row.m, &d, time.Time{})
			}
		})
	}
}

// The other way: a whole frame, made once, copied and patched.
func BenchmarkDeliverPatched(b *testing.B) {
	m := &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "plant/7/line/3/temp"},
		Body:    make([]byte, 32), Priority: core.DefaultPriority,
	}
	build := func(m *core.Message) []byte { return appendPublish(nil, 4, m, &delivery{qos: 1}, time.Time{}) }
	out := make([]byte, 0, 64<<10)
	id := uint16(0)
	defer cpu(b)()
	for b.Loop() {
		if id++; len(out) > 32<<10 {
			out = out[:0]
		}
		n := len(out)
		out = append(out, m.Form('M'<<24|9, build)...)
		at := n + 4 + len(m.Address.Topic)
		out[at], out[at+1] = byte(id>>8), byte(id)
	}
}

// PUBACK in and the next delivery out.
func BenchmarkAck(b *testing.B) {
	o := outbound{window: 1000}
	limits := Options{}.withDefaults()
	out := make([]byte, 0, 64)
	defer cpu(b)()
	for b.Loop() {
		id := o.add(core.Tag{Place: 1, Seq: 1}, sentQoS1)
		out = appendAck(out[:0], typePuback, 5, id, 0, "", largestPacket)
		got, _, _ := readAck(out[2:], 5, &limits)
		o.settle(got, sentQoS1)
	}
}

func TestHotPathAllocations(t *testing.T) {
	f, limits, names := benchMessage(t, 5)
	if n := testing.AllocsPerRun(100, func() {
		p, _ := readPublish(&f, 5, limits)
		to, _ := names.resolve(&p)
		sink = p.message(&f, to, time.Now)
	}); n > 1 {
		t.Errorf("a PUBLISH takes %v allocations, want 1: the message with its body", n)
	}
	o := outbound{window: 1000}
	out := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		id := o.add(core.Tag{Place: 1, Seq: 1}, sentQoS1)
		out = appendAck(out[:0], typePuback, 5, id, 0, "", largestPacket)
		got, _, _ := readAck(out[2:], 5, limits)
		o.settle(got, sentQoS1)
	}); n > 0 {
		t.Errorf("a PUBACK takes %v allocations, want 0", n)
	}
}
