package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	flagRounds = flag.Int("rounds", 2, "TestCrash: how often the broker is killed while it serves")
	flagSeed   = flag.Uint64("seed", 0, "TestCrash: decides bodies, pauses and when to kill; 0: the time")
	flagBinary = flag.String("binary", "", "TestCrash: the broker; built from ./cmd/godwit if empty")
	flagKeep   = flag.Bool("keep", false, "TestCrash: keep the data directory")
)

// mission: S8
// mission: S30
// mission: S31
// mission: P1
// mission: P6
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("kills a broker for some seconds")
	}
	dir, err := os.MkdirTemp("", "godwit-crash-*") //nolint:usetesting // a failed run's data is kept
	if err != nil {
		t.Fatal(err)
	}
	o := options{rounds: *flagRounds, seed: *flagSeed, binary: *flagBinary, dir: dir, out: t.Output()}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	defer func() { keepOrRemove(t.Output(), dir, *flagKeep || t.Failed()) }()
	if o.binary == "" {
		o.binary = filepath.Join(dir, "godwit")
		if err := build(o.binary, "../.."); err != nil {
			t.Fatal(err)
		}
	}
	l, err := crash(o)
	if err != nil {
		t.Fatalf("seed %d: %v", o.seed, err)
	}
	if l.faults.any() {
		t.Errorf("go test ./internal/crash -run TestCrash -rounds %d -seed %d: %v", o.rounds, o.seed, l.faults.count)
	}
}

// A story is what happened between a publisher, a broker and a consumer.
type story struct {
	l *ledger
	b *book
	t *target
}

func newStory(p policy) *story {
	l := newLedger(7)
	b := l.newBook("p", p)
	s := &story{l, b, l.newTarget("q", b)}
	b.reopen(0, false)
	return s
}

func (s *story) send(n int) {
	for range n {
		s.b.next(false)
	}
}

func (s *story) come(n, entry uint64, again bool) {
	s.t.deliver(delivery{body: appendBody(nil, s.l.seed, 0, n), entry: entry, again: again})
}

// take is come, the acknowledgement and its answer.
func (s *story) take(n, entry uint64) {
	s.come(n, entry, false)
	s.t.ack(message{0, n}, true)
	s.t.settle(entry)
}

func TestTheLedgerFindsWhatMustNotBe(t *testing.T) {
	tests := []struct {
		say    string
		policy policy
		tell   func(s *story)
		want   map[string]int
	}{
		{"all confirmed messages come and are settled", giveUp, func(s *story) {
			s.send(2)
			s.b.confirmUpTo(2)
			s.take(0, 10)
			s.take(1, 11)
		}, map[string]int{}},
		{"a confirmed message never comes", giveUp, func(s *story) {
			s.send(2)
			s.b.confirmUpTo(2)
			s.take(0, 10)
		}, map[string]int{lost: 1}},
		{"a confirmed message comes, is not acknowledged, and is not there again", giveUp, func(s *story) {
			s.send(1)
			s.b.confirmUpTo(1)
			s.come(0, 10, false)
		}, map[string]int{lost: 1}},
		{"a message nobody confirmed is lost", giveUp, func(s *story) {
			s.send(3)
			s.b.confirmUpTo(1)
			s.take(0, 10)
			s.b.reopen(0, false)
		}, map[string]int{}},
		{"a message nobody confirmed is there", giveUp, func(s *story) {
			s.send(1)
			s.b.reopen(0, false)
			s.take(0, 10)
		}, map[string]int{}},
		{"a delivery comes again and says so", giveUp, func(s *story) {
			s.send(1)
			s.b.confirmUpTo(1)
			s.come(0, 10, false)
			s.come(0, 10, true)
			s.t.ack(message{0, 0}, true)
		}, map[string]int{}},
		{"a delivery comes again and does not say so", giveUp, func(s *story) {
			s.send(1)
			s.come(0, 10, false)
			s.come(0, 10, false)
		}, map[string]int{unmarked: 1}},
		{"a settled message comes back", giveUp, func(s *story) {
			s.send(1)
			s.take(0, 10)
			s.come(0, 10, true)
		}, map[string]int{returned: 1}},
		{"an acknowledgement that was not answered is forgotten", giveUp, func(s *story) {
			s.send(1)
			s.come(0, 10, false)
			s.t.ack(message{0, 0}, true)
			s.come(0, 10, true)
		}, map[string]int{}},
		{"two messages change places", giveUp, func(s *story) {
			s.send(2)
			s.come(1, 10, false)
			s.come(0, 11, false)
		}, map[string]int{disorder: 1}},
		{"a message sent again is there twice", repeat, func(s *story) {
			s.send(1)
			s.b.reopen(0, false)
			s.send(1)
			s.come(0, 10, false)
			s.come(0, 11, false)
		}, map[string]int{}},
		{"a message sent once is there twice", repeat, func(s *story) {
			s.send(1)
			s.come(0, 10, false)
			s.come(0, 11, false)
		}, map[string]int{doubled: 1}},
		{"a message sent again is there twice and must not be", repeated, func(s *story) {
			s.send(1)
			s.b.reopen(0, false)
			s.send(1)
			s.come(0, 10, false)
			s.come(0, 11, false)
		}, map[string]int{doubled: 1}},
		{"MQTT, which numbers nothing, repeats without DUP", repeated, func(s *story) {
			s.send(1)
			s.come(0, 0, false)
			s.come(0, 0, true)
			s.come(0, 0, false)
		}, map[string]int{doubled: 1}},
		{"an entry is another message than before", giveUp, func(s *story) {
			s.send(2)
			s.come(0, 10, false)
			s.come(1, 10, true)
		}, map[string]int{changed: 1}},
		{"a message that was never sent", giveUp, func(s *story) {
			s.send(1)
			s.come(1, 10, false)
		}, map[string]int{changed: 1}},
		{"an answer to what was not sent", giveUp, func(s *story) {
			s.send(1)
			s.b.confirmUpTo(2)
			s.b.confirm(1, done)
		}, map[string]int{refused: 2}},
		{"an answer that comes twice", giveUp, func(s *story) {
			s.send(1)
			s.b.confirm(0, done)
			s.b.confirm(0, done)
			s.take(0, 10)
		}, map[string]int{refused: 1}},
	}
	for _, tt := range tests {
		s := newStory(tt.policy)
		tt.tell(s)
		s.l.close()
		if diff := cmp.Diff(tt.want, maps.Collect(maps.All(s.l.faults.count))); diff != "" {
			t.Errorf("%s: faults (-want +got):\n%s", tt.say, diff)
		}
	}
}

func TestABookGoesOnAsItsPolicySays(t *testing.T) {
	tests := []struct {
		say    string
		policy policy
		want   []step
	}{
		{"gives up and goes on with the next", giveUp, []step{{number: 4}}},
		{"sends again what is open, ends what is confirmed, then the next", repeat, []step{
			{number: 1, again: true, release: true}, {number: 2, again: true}, {number: 3, again: true}, {number: 4},
		}},
	}
	for _, tt := range tests {
		s := newStory(tt.policy)
		s.send(4)
		s.b.confirm(0, done)
		s.b.confirm(1, confirmed)
		s.b.stop()
		s.b.reopen(0, false)
		var got []step
		for range tt.want {
			next, ok := s.b.next(false)
			if !ok {
				t.Errorf("%s: nothing to send after %v", tt.say, got)
			}
			got = append(got, next)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(step{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.say, diff)
		}
	}
}

func TestABookKeepsItsWindow(t *testing.T) {
	s := newStory(repeat)
	s.send(window)
	if _, ok := s.b.next(false); ok {
		t.Errorf("message %d was sent with %d unanswered", window, window)
	}
	s.b.confirm(3, done) // answers may come in any order
	if next, ok := s.b.next(false); !ok || next.number != window {
		t.Errorf("after one answer next = %v, %v, want %d", next, ok, window)
	}
}

func TestPacketIDsNameTheirMessage(t *testing.T) {
	s := newStory(repeat)
	for _, low := range []int{0, 1, 65534, 65535, 65536, 200_000} {
		s.b.low = low
		for _, n := range []int{low, low + 1, low + window} {
			if got := s.b.numberOf(packetID(uint64(n))); got != uint64(n) {
				t.Errorf("numberOf(packetID(%d)) above %d = %d", n, low, got)
			}
		}
	}
}

func TestABodySaysWhatItIs(t *testing.T) {
	spare := make([]byte, 0, bodyMost)
	for n := range uint64(1000) {
		body := appendBody(nil, 5, 3, n)
		if len(body) < bodyHead || len(body) > bodyMost {
			t.Errorf("message %d has %d octets", n, len(body))
		}
		p, got, err := readBody(body, spare, 5)
		if err != nil || p != 3 || got != n {
			t.Errorf("readBody(message %d of 3) = %d of %d, %v", n, got, p, err)
		}
		body[len(body)-1]++
		if _, _, err := readBody(body, spare, 5); err == nil {
			t.Errorf("message %d with a changed octet was taken", n)
		}
	}
}

// wireOf reads what text says.
func wireOf(text string) *wire {
	return &wire{nc: &net.TCPConn{}, r: bufio.NewReader(strings.NewReader(text))}
}

func TestEarsHearWhatIsMarked(t *testing.T) {
	tests := []struct {
		say    string
		ear    ear
		text   string
		want   delivery
		handle string
		ack    string
	}{
		{
			"line, first", &lineConsumer{}, "\nMSG 1 17 t/a ts=5 n=1 :n=3 2\nok\n",
			delivery{body: []byte("ok"), entry: 17},
			"17", "ACK 1 17 id=1\n",
		},
		{
			"line, again", &lineConsumer{}, "MSG 1 17 t/a ts=5 n=2 2\n\x00\n\n",
			delivery{body: []byte("\x00\n"), entry: 17, again: true},
			"17", "ACK 1 17 id=1\n",
		},
		{
			"STOMP, first", &stompConsumer{}, "\nMESSAGE\nsubscription:1\nmessage-id:4-17\nack:1.5\ncontent-length:2\n\n\x00\n\x00",
			delivery{body: []byte("\x00\n"), entry: 17},
			"1.5", "ACK\nid:1.5\nreceipt:17\n\n\x00",
		},
		{
			"STOMP, again", &stompConsumer{}, "MESSAGE\nmessage-id:4-17\nack:1.5\nredelivered:true\nx-delivery-count:2\n\nok\x00",
			delivery{body: []byte("ok"), entry: 17, again: true},
			"1.5", "ACK\nid:1.5\nreceipt:17\n\n\x00",
		},
		{
			"MQTT, first", &mqttConsumer{}, "\x32\x08\x00\x01a\x00\x09\x00ok",
			delivery{body: []byte("ok")},
			"\x00\x09", "\x40\x02\x00\x09",
		},
		{
			"MQTT, again, with properties", &mqttConsumer{}, "\x3a\x0a\x00\x01a\x00\x09\x02\x01\x01ok",
			delivery{body: []byte("ok"), again: true},
			"\x00\x09", "\x40\x02\x00\x09",
		},
	}
	for _, tt := range tests {
		d, handle, err := tt.ear.hear(wireOf(tt.text), nil)
		if err != nil {
			t.Errorf("%s: %v", tt.say, err)
		}
		if diff := cmp.Diff(tt.want, d, cmp.AllowUnexported(delivery{})); diff != "" || handle != tt.handle {
			t.Errorf("%s: handle %q, want %q (-want +got):\n%s", tt.say, handle, tt.handle, diff)
		}
		ack := tt.ear.ack(nil, []held{{entry: d.entry, handle: handle}}, true)
		if !bytes.Equal(ack, []byte(tt.ack)) {
			t.Errorf("%s: ack %q, want %q", tt.say, ack, tt.ack)
		}
	}
}

func TestAcknowledgementsNobodyAnswers(t *testing.T) {
	some := []held{{entry: 5, handle: "5"}, {entry: 9, handle: "9"}}
	for _, tt := range []struct {
		ear  ear
		want string
	}{
		{&lineConsumer{}, "ACK 1 5,9\n"},
		{&stompConsumer{}, "ACK\nid:5\n\n\x00ACK\nid:9\n\n\x00"},
	} {
		if got := tt.ear.ack(nil, some, false); string(got) != tt.want {
			t.Errorf("%T writes %q, want %q", tt.ear, got, tt.want)
		}
	}
}

func TestWhatIsNoAnswerIsAnError(t *testing.T) {
	tests := []struct {
		say    string
		tongue tongue
		text   string
	}{
		{"line ERR", &linePublisher{}, "ERR 507 retry id=1 the disk is full\n"},
		{"STOMP ERROR", &stompPublisher{}, "ERROR\nreceipt-id:0\nmessage:no\n\n\x00"},
		{"MQTT PUBACK that refuses", &mqttPublisher{qos: 1}, "\x40\x03\x00\x01\x97"},
		{"MQTT PUBREC that refuses", &mqttPublisher{qos: 2}, "\x50\x03\x00\x01\x97"},
		{"MQTT DISCONNECT", &mqttPublisher{qos: 1}, "\xe0\x01\x8b"},
	}
	for _, tt := range tests {
		s := newStory(repeat)
		s.send(1)
		if err := tt.tongue.answer(wireOf(tt.text), s.b); err == nil || s.b.confirmed != 0 {
			t.Errorf("%s: error %v and %d confirmed, want an error and none", tt.say, err, s.b.confirmed)
		}
	}
}

func TestSummaryNamesEveryKindOfFault(t *testing.T) {
	var out bytes.Buffer
	r := &run{options: options{out: &out, seed: 9}, broker: &broker{}, ledger: newLedger(9)}
	r.ledger.fault(lost, "message %d", 5)
	r.summary()
	for _, want := range append([]string{"confirmed and missing: 1", "message 5", "seed 9"}, faultKinds...) {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the summary does not say %q:\n%s", want, fmt.Sprint(out.String()))
		}
	}
}
