package line

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

var payload256 = strings.Repeat("x", 256)

var pubs = []struct{ name, text string }{
	{"plain", "PUB q/bench.orders 256\r\n" + payload256 + "\r\n"},
	{"options", "PUB q/bench.orders id=4711 ttl=60s pri=5 ct=application/json 256\r\n" + payload256 + "\r\n"},
}

func scanOne(r *request, in []byte) int {
	n, err := r.scan(in, 4096)
	if err != nil || n == 0 {
		panic("bug: " + string(in))
	}
	m, err := r.body(in[n:])
	if err != nil || m == 0 {
		panic("bug: " + string(in))
	}
	return n + m
}

// Goals: 30 ns plain; with 4 options 30 ns unparsed and 80 ns parsed.
func BenchmarkScan(b *testing.B) {
	for _, p := range pubs {
		src := []byte(strings.Repeat(p.text, 64))
		b.Run(p.name, func(b *testing.B) {
			r, at := new(request), 0
			b.ReportAllocs()
			for b.Loop() {
				if at += scanOne(r, src[at:]); at == len(src) {
					at = 0
				}
			}
		})
		b.Run(p.name+"/parsed", func(b *testing.B) {
			r, at := new(request), 0
			b.ReportAllocs()
			for b.Loop() {
				n := scanOne(r, src[at:])
				if err := r.parse(); err != nil {
					b.Fatal(err)
				}
				if at += n; at == len(src) {
					at = 0
				}
			}
		})
	}
}

// Goal: 200 ns, 3 allocations.
func BenchmarkMessage(b *testing.B) {
	h := &handler{identity: &core.Identity{VHost: "/"}, broker: newWorld(b, Options{}).box.Broker}
	for _, p := range pubs {
		b.Run(p.name, func(b *testing.B) {
			r := new(request)
			scanOne(r, []byte(p.text))
			b.ReportAllocs()
			for b.Loop() {
				if err := r.parse(); err != nil {
					b.Fatal(err)
				}
				if _, err := h.message(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func delivery() *core.Event {
	return &core.Event{Kind: core.Delivered, Sub: 1, Message: &core.Message{
		Address:  core.Address{VHost: "/", Exchange: core.DefaultExchange, Topic: "bench.orders"},
		Priority: 4, Arrived: time.UnixMilli(1795400000000), Body: []byte(payload256),
		Headers: []core.Header{{Name: core.HeaderContentType, Value: "application/json"}},
	}}
}

// Goal: 30 ns, 0 allocations.
func BenchmarkAppendMsg(b *testing.B) {
	e, out, head, n := delivery(), make([]byte, 0, 4096), msgHead(1), uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		out = appendMsg(out[:0], head, n, e)
	}
}

func BenchmarkPublishConfirmed(b *testing.B) {
	w := newWorld(b, Options{})
	c := w.ready()
	var in []byte
	id := 0
	b.ReportAllocs()
	for b.Loop() {
		in = in[:0]
		for range 100 {
			id++
			in = append(in, "PUB q/bench.orders id="...)
			in = strconv.AppendInt(in, int64(id), 10)
			in = append(in, " 256\n"...)
			in = append(append(in, payload256...), '\n')
		}
		c.in = append(c.in, in...)
		w.settle()
		if !strings.HasPrefix(c.take(), "CONFIRM ") {
			b.Fatal("no CONFIRM")
		}
		if id%10_000 == 0 {
			c.send("PURGE q/bench.orders\n")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100), "ns/msg")
}

// The live path, one reader: what a message costs without sockets.
func BenchmarkLive(b *testing.B) {
	w := newWorld(b, Options{})
	sub, pub := w.ready(), w.ready()
	sub.expect("SUB 1 t/bench/#", "OK sid=1")
	in := []byte(strings.Repeat("PUB t/bench/orders 256\n"+payload256+"\n", 100))
	b.ReportAllocs()
	for b.Loop() {
		pub.in = append(pub.in, in...)
		w.settle()
		sub.out = sub.out[:0]
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100), "ns/msg")
}

func TestHotPathAllocations(t *testing.T) {
	r := new(request)
	for _, p := range pubs {
		in := []byte(p.text)
		if n := testing.AllocsPerRun(100, func() {
			scanOne(r, in)
			if err := r.parse(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("scan and parse %s: %v allocations, want 0", p.name, n)
		}
	}
	e, out, head := delivery(), make([]byte, 0, 4096), msgHead(1)
	if n := testing.AllocsPerRun(100, func() { out = appendMsg(out[:0], head, 7, e) }); n != 0 {
		t.Errorf("appendMsg: %v allocations, want 0", n)
	}
	h := &handler{identity: &core.Identity{VHost: "/"}, broker: newWorld(t, Options{}).box.Broker}
	for i, most := range []float64{2, 3} {
		scanOne(r, []byte(pubs[i].text))
		if n := testing.AllocsPerRun(100, func() {
			if err := r.parse(); err != nil {
				t.Fatal(err)
			}
			if _, err := h.message(r); err != nil {
				t.Fatal(err)
			}
		}); n > most {
			t.Errorf("message of %s: %v allocations, want %v at most", pubs[i].name, n, most)
		}
	}
}
