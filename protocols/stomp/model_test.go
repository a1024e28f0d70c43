package stomp

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// A modelled client works on one queue through a handler, and keeps in plain
// lists what must be true: what is receipted is there, what is settled is gone,
// what a transaction does is done whole, and all of it in order.
type modelled struct {
	*peer
	t      *rapid.T
	mode   string
	next   int            // body of the next SEND
	queued []int          // in the queue or out, oldest first
	out    map[string]int // ack header to body, of what is out
	order  []string       // of the ack headers

	open   bool // a transaction is, with
	sends  []int
	settle []string // ack headers it acknowledges
}

// frames reads what came, and notes deliveries.
func (m *modelled) frames() (receipts int) {
	in := []byte(m.read())
	v := wire.View{Version: wire.V12, Limits: wire.Limits{Line: 1 << 16, Headers: 100, Section: 1 << 16, Body: 1 << 16}}
	for len(in) > 0 {
		n, err := wire.Scan(in, &v)
		if err != nil || n == 0 {
			m.t.Fatalf("%q: %v", in, err)
		}
		in = in[n:]
		switch v.Command {
		case "RECEIPT":
			receipts++
		case "MESSAGE":
			id, _ := v.Get("ack")
			var body int
			_, _ = fmt.Sscan(string(v.Body), &body)
			m.out[string(id)] = body
			m.order = append(m.order, string(id))
		case "":
		default:
			m.t.Fatalf("came %s %q", v.Command, v.Body)
		}
	}
	return receipts
}

// do sends a frame with a receipt, and wants it or not.
func (m *modelled) do(want int, frame string, a ...any) {
	m.t.Helper()
	m.send(fmt.Sprintf(frame, a...))
	if got := m.frames(); got != want {
		m.t.Fatalf("%q has %d receipts, want %d", fmt.Sprintf(frame, a...), got, want)
	}
}

// reach is what an ACK of one delivery settles: in ack:client all before it too.
func (m *modelled) reach(id string) (ids []string) {
	if m.mode != "client" {
		return []string{id}
	}
	for _, o := range m.order {
		if _, ok := m.out[o]; ok && !slices.Contains(m.settle, o) {
			ids = append(ids, o)
		}
		if o == id {
			break
		}
	}
	return ids
}

func (m *modelled) settled(ids []string) {
	for _, id := range ids {
		body := m.out[id]
		delete(m.out, id)
		m.queued = slices.DeleteFunc(m.queued, func(b int) bool { return b == body })
	}
}

// pick is a delivery that is out and in no transaction.
func (m *modelled) pick() (id string, ok bool) {
	var ids []string
	for _, o := range m.order {
		if _, out := m.out[o]; out && !slices.Contains(m.settle, o) {
			ids = append(ids, o)
		}
	}
	if len(ids) == 0 {
		return "", false
	}
	return rapid.SampledFrom(ids).Draw(m.t, "delivery"), true
}

func (m *modelled) reconnect() {
	m.peer = dial(m.peer.t, m.box, Options{}, "1.2")
	m.out, m.order, m.open, m.sends, m.settle = map[string]int{}, nil, false, nil, nil
	m.mode = rapid.SampledFrom([]string{"client", "client-individual"}).Draw(m.t, "mode")
	m.send("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:" + m.mode + "\nprefetch-count:5\n\n\x00")
	m.frames()
}

func (m *modelled) step() {
	switch rapid.IntRange(0, 8).Draw(m.t, "step") {
	case 0, 1:
		m.do(1, "SEND\ndestination:/queue/q\nreceipt:r\n\n%d\x00", m.next)
		m.queued = append(m.queued, m.next)
		m.next++
	case 2:
		if id, ok := m.pick(); ok {
			ids := m.reach(id)
			m.do(1, "ACK\nid:%s\nreceipt:r\n\n\x00", id)
			m.settled(ids)
		}
	case 3:
		if id, ok := m.pick(); ok {
			for _, o := range m.reach(id) {
				delete(m.out, o)
			}
			m.do(1, "NACK\nid:%s\nreceipt:r\n\n\x00", id)
		}
	case 4:
		m.inTransaction()
	case 5:
		if m.open {
			m.do(1, "COMMIT\ntransaction:t\nreceipt:r\n\n\x00")
			m.queued = append(m.queued, m.sends...)
			m.settled(m.settle)
			m.open, m.sends, m.settle = false, nil, nil
		}
	case 6:
		if m.open {
			m.do(1, "ABORT\ntransaction:t\nreceipt:r\n\n\x00")
			m.open, m.sends, m.settle = false, nil, nil
		}
	case 7:
		m.handler.Closed(errors.New("cut"))
		m.reconnect()
	case 8:
		m.powerCut()
	}
}

func (m *modelled) inTransaction() {
	if !m.open {
		m.do(1, "BEGIN\ntransaction:t\nreceipt:r\n\n\x00")
		m.open = true
	}
	if id, ok := m.pick(); ok && rapid.Bool().Draw(m.t, "ack") {
		ids := m.reach(id)
		m.do(1, "ACK\nid:%s\ntransaction:t\nreceipt:r\n\n\x00", id)
		m.settle = append(m.settle, ids...)
		return
	}
	m.do(1, "SEND\ndestination:/queue/q\ntransaction:t\nreceipt:r\n\n%d\x00", m.next)
	m.sends = append(m.sends, m.next)
	m.next++
}

// powerCut takes what has no receipt, and nothing else.
func (m *modelled) powerCut() {
	m.box.Disk.Hold()
	m.do(0, "SEND\ndestination:/queue/q\nreceipt:r\n\n%d\x00", m.next)
	m.next++
	if id, ok := m.pick(); ok {
		m.do(0, "ACK\nid:%s\nreceipt:r\n\n\x00", id)
	}
	if m.open {
		m.do(0, "COMMIT\ntransaction:t\nreceipt:r\n\n\x00")
	}
	m.box.PowerOff()
	if err := m.box.PowerOn(); err != nil {
		m.t.Fatal(err)
	}
	m.box.Disk.Resume()
	m.reconnect()
}

// mission: S27
// mission: S31
// mission: P1
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &modelled{t: rt, peer: &peer{t: t, box: newBox(t)}}
		m.reconnect()
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			m.step()
			for _, body := range slices.Collect(maps.Values(m.out)) {
				if !slices.Contains(m.queued, body) {
					rt.Fatalf("%d came, and is not in the queue %v", body, m.queued)
				}
			}
			if out := len(m.out); out != min(5, len(m.queued)) {
				rt.Fatalf("%d are out of %v with a credit of 5", out, m.queued)
			}
		}
		m.handler.Closed(nil)
		last := dial(t, m.box, Options{}, "1.2")
		last.send("SUBSCRIBE\nid:0\ndestination:/queue/q\n\n\x00")
		var left []int
		for f := range strings.SplitSeq(last.read(), "\x00") {
			var body int
			if _, text, ok := strings.Cut(f, "\n\n"); ok && strings.HasPrefix(f, "MESSAGE") {
				_, _ = fmt.Sscan(text, &body)
				left = append(left, body)
			}
		}
		if diff := cmp.Diff(m.queued, left, cmp.Transformer("empty", func(s []int) []int { return append([]int{}, s...) })); diff != "" {
			rt.Fatalf("left in the queue (-want +got)\n%s", diff)
		}
	})
}
