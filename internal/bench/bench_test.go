//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// pair is a publisher and its reader that no socket connects.
func pair(t *testing.T, w wire, f *flow) (publisher, subscriber *conn) {
	t.Helper()
	l := &loop{}
	publisher = &conn{name: "p", wire: w, flow: f, loop: l}
	subscriber = &conn{name: "s", wire: w, read: newReader(1, f), loop: l}
	l.conns = []*conn{publisher, subscriber}
	l.publishers = l.conns[:1]
	return publisher, subscriber
}

func TestAReaderSeesEachMessageOnceAndInOrder(t *testing.T) {
	tests := []struct {
		say  string
		seqs []uint64
		want string // in the error; empty: none
	}{
		{"all in order", []uint64{0, 1, 2, 3}, ""},
		{"one lost", []uint64{0, 1, 3}, "lost or out of order"},
		{"one doubled", []uint64{0, 1, 1}, "twice or late"},
		{"two changed places", []uint64{0, 2, 1}, "lost or out of order"},
		{"the first lost", []uint64{1}, "lost or out of order"},
	}
	for _, tt := range tests {
		f := newFlow(0, 10, false, 1)
		f.sent = 10
		r := newReader(1, f)
		var err error
		for _, seq := range tt.seqs {
			if _, err = r.take(f.appendBody(nil, seq)); err != nil {
				break
			}
		}
		if got := errText(err); tt.want == "" && err != nil || !strings.Contains(got, tt.want) {
			t.Errorf("%s: error %q, want %q", tt.say, got, tt.want)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestAReaderRefusesWhatItDidNotAskFor(t *testing.T) {
	mine, other := newFlow(0, 10, false, 1), newFlow(1, 10, false, 1)
	r := newReader(2, mine)
	for say, body := range map[string][]byte{
		"another's message": other.appendBody(nil, 0),
		"a cut body":        mine.appendBody(nil, 0)[:bodySize-1],
		"an unknown number": bytes.Repeat([]byte{0xff}, bodySize),
	} {
		if _, err := r.take(body); err == nil {
			t.Errorf("%s was taken", say)
		}
	}
}

func TestAFlowIsAClosedLoop(t *testing.T) {
	t.Run("answers and the slowest reader hold it back", func(t *testing.T) {
		f := newFlow(0, 4, true, 2)
		f.sent = 4
		if got := f.room(); got != 0 {
			t.Errorf("room with a full window = %d, want 0", got)
		}
		if err := f.confirm(4); err != nil {
			t.Fatal(err)
		}
		if got := f.room(); got != 0 {
			t.Errorf("room with all answered and none read = %d, want 0", got)
		}
		for _, seq := range []uint64{0, 0, 1} {
			f.read(seq)
		}
		if f.seen != 1 || f.room() != 1 {
			t.Errorf("after one message reached both readers: seen %d, room %d, want 1, 1", f.seen, f.room())
		}
		if f.settled() {
			t.Error("settled with three messages not read")
		}
	})
	t.Run("an answer that was given is not given again", func(t *testing.T) {
		f := newFlow(0, 4, true, 0)
		f.sent = 3
		if err := f.confirm(2); err != nil {
			t.Fatal(err)
		}
		for _, next := range []uint64{2, 1, 4} {
			if f.confirm(next) == nil {
				t.Errorf("confirm(%d) after confirm(2) of 3 sent was taken", next)
			}
		}
	})
}

// toReader turns what a publisher writes into what a server would deliver.
type toReader func(published []byte) []byte

func TestWiresReadInPiecesWhatTheyRead(t *testing.T) {
	tests := []struct {
		say     string
		wire    wire
		deliver toReader
		answers string // to the publisher
		replies string // of the reader
	}{
		{
			"MQTT QoS 1", &mqttWire{topic: "bench/1", qos: 1},
			func(b []byte) []byte { return b }, "\x40\x02\x00\x01\x40\x03\x00\x02\x10",
			"\x40\x02\x00\x01\x40\x02\x00\x02",
		},
		{
			"line", &lineWire{dest: "t/bench", acks: true},
			func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte("PUB t/bench id="), []byte("\nMSG 1 "))
			}, "CONFIRM 1\n\nCONFIRM 2 off=7\n", "",
		},
		{
			"STOMP", &stompWire{dest: "/queue/b", receipts: true, acks: true, persistent: true},
			func(b []byte) []byte {
				b = bytes.ReplaceAll(b, []byte("SEND\n"), []byte("\nMESSAGE\nsubscription:1\n"))
				return bytes.ReplaceAll(b, []byte("receipt:"), []byte("ack:1."))
			}, "RECEIPT\nreceipt-id:0\n\n\x00\nRECEIPT\nreceipt-id:1\n\n\x00",
			"ACK\nid:1.0\n\n\x00ACK\nid:1.1\n\n\x00",
		},
	}
	for _, tt := range tests {
		t.Run(tt.say, func(t *testing.T) {
			f := newFlow(0, 10, true, 1)
			p, s := pair(t, tt.wire, f)
			var out []byte
			for range 2 {
				out = tt.wire.publish(out, p, f.sent)
				f.sent++
			}
			if tt.say == "line" { // a MSG names its destination behind its number
				out = bytes.ReplaceAll(tt.deliver(out), []byte(" 256\n"), []byte(" t/bench 256\n"))
			} else {
				out = tt.deliver(out)
			}
			feed(t, s, out)
			feed(t, p, []byte(tt.answers))
			if !f.settled() || f.seen != 2 {
				t.Errorf("%d answered and %d read, want 2 and 2", f.acked, f.seen)
			}
			if string(s.out) != tt.replies {
				t.Errorf("the reader answers %q, want %q", s.out, tt.replies)
			}
		})
	}
}

// feed gives c the bytes one at a time.
func feed(t *testing.T, c *conn, bytes []byte) {
	t.Helper()
	c.in = make([]byte, 4096)
	for _, b := range bytes {
		c.in[c.have] = b
		if err := c.scan(1); err != nil {
			t.Fatal(err)
		}
	}
	if c.have != 0 {
		t.Errorf("%d bytes were not taken: %q", c.have, c.in[:c.have])
	}
}

func TestNoIsNotTakenForYes(t *testing.T) {
	tests := []struct {
		say  string
		wire wire
		in   string
	}{
		{"a PUBACK that refuses", &mqttWire{qos: 1}, "\x40\x03\x00\x01\x97"},
		{"a PUBACK before its turn", &mqttWire{qos: 1}, "\x40\x02\x00\x02"},
		{"a PUBACK for nothing", &mqttWire{qos: 1}, "\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\x00\x03"},
		{"a DISCONNECT", &mqttWire{}, "\xe0\x01\x8b"},
		{"an ERR", &lineWire{acks: true}, "ERR 507 retry id=1 the disk is full\n"},
		{"a CONFIRM above what was sent", &lineWire{acks: true}, "CONFIRM 3\n"},
		{"an ERROR", &stompWire{receipts: true}, "ERROR\nmessage:no\n\n\x00"},
		{"a RECEIPT before its turn", &stompWire{receipts: true}, "RECEIPT\nreceipt-id:1\n\n\x00"},
	}
	for _, tt := range tests {
		f := newFlow(0, 10, true, 1)
		p, _ := pair(t, tt.wire, f)
		f.sent = 2
		p.in = make([]byte, 4096)
		if err := p.scan(copy(p.in, tt.in)); err == nil {
			t.Errorf("%s was taken for an answer", tt.say)
		}
	}
}

func TestParseStat(t *testing.T) {
	const line = "812 (a ) (b) S 1 812 812 0 -1 4194560 5012 0 3 0 123 45 0 0 20 0 9 0 3301 1 2 3"
	got, err := parseStat([]byte(line))
	if err != nil || got != 1680*time.Millisecond {
		t.Errorf("parseStat = %v, %v, want 1.68s", got, err)
	}
	if _, err := parseStat([]byte("812 (x) S 1")); err == nil {
		t.Error("a short line was taken")
	}
}

func TestTheTableSaysWhatIsWithinTheBudget(t *testing.T) {
	cost := path{name: "a", title: "A", budget: 1}
	rate := path{name: "b", title: "B", budget: 1000, rate: true}
	at := func(micros int, perSecond uint64) *result {
		return &result{Samples: []sample{{Units: perSecond, Elapsed: time.Second, CPU: time.Duration(micros*int(perSecond)) * time.Microsecond}}}
	}
	tests := []struct {
		say  string
		path path
		r    *result
		want string
	}{
		{"as cheap as planned", cost, at(1, 100), "met"},
		{"twice as dear", cost, at(2, 100), "yes"},
		{"dearer", cost, at(3, 100), "NO"},
		{"as fast as planned", rate, at(9, 1000), "met"},
		{"half as fast", rate, at(9, 500), "yes"},
		{"slower", rate, at(9, 499), "NO"},
		{"not measured", rate, nil, "-"},
	}
	for _, tt := range tests {
		if got := tt.path.within(tt.r); got != tt.want {
			t.Errorf("%s: within = %q, want %q", tt.say, got, tt.want)
		}
	}
}

// mission: P1, group commit
func TestAWindowOf1000IsTenTimesFaster(t *testing.T) {
	for _, tt := range []struct {
		fast uint64
		ok   bool
	}{{50_000, true}, {49_999, false}} {
		r := newReport(paths, []string{ours})
		for name, units := range map[string]uint64{"durable-1": 5000, "durable-1000": tt.fast} {
			r.add(&path{name: name}, ours, sample{Units: units, Elapsed: time.Second}, nil)
		}
		if text, ok := r.gain(); ok != tt.ok {
			t.Errorf("%d/s against 5,000/s: ok = %v, want %v (%s)", tt.fast, ok, tt.ok, text)
		}
	}
}

// TestAgainstMosquitto drives the whole harness at a server we did not write.
func TestAgainstMosquitto(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	if _, err := lookMosquitto(); err != nil {
		t.Skip("mosquitto is not installed")
	}
	var out, progress bytes.Buffer
	o := options{time: 200 * time.Millisecond, runs: 1, only: "qos0,pairs,durable-1000", binary: "none", json: true, dir: t.TempDir()}
	if ok, err := o.run(&out, &progress); err != nil || !ok {
		t.Fatalf("run = %v, %v\n%s", ok, err, progress.String())
	}
	var results []result
	if err := json.Unmarshal(out.Bytes(), &results); err != nil {
		t.Fatal(err)
	}
	if len(results) != 5 {
		t.Errorf("%d results, want 5:\n%s", len(results), progress.String())
	}
	for _, r := range results {
		if len(r.Samples) != 1 || r.Samples[0].Units == 0 || r.Samples[0].CPU == 0 {
			t.Errorf("%s: %+v, want one sample with messages and CPU", r.Path, r)
		}
	}
}
