//go:build linux

package diskfull

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/protocols/line/client"
)

// A reading is what readers got, by publisher and number.
type reading map[string]map[int]int

func (r reading) note(t *testing.T, body string) {
	t.Helper()
	words := strings.Fields(body)
	if len(words) < 2 {
		t.Fatalf("a message reads %.40q", body)
	}
	n, err := strconv.Atoi(words[1])
	if err != nil {
		t.Fatalf("a message reads %.40q", body)
	}
	if r[words[0]] == nil {
		r[words[0]] = map[int]int{}
	}
	r[words[0]][n]++
}

// readSTOMP takes n messages, and returns when each ack is answered.
func readSTOMP(t *testing.T, b *broker, queue string, n int, got reading) {
	t.Helper()
	w, err := connectSTOMP(b.stomp)
	if err != nil {
		t.Fatalf("a STOMP reader: %v", err)
	}
	defer w.Close()
	if err := w.send([]byte("SUBSCRIBE\nid:1\nack:client-individual\nprefetch-count:1\ndestination:/queue/" + queue + "\n\n\x00")); err != nil {
		t.Fatal(err)
	}
	for acked := 0; acked < n; {
		f, err := w.frame()
		if err != nil {
			t.Fatalf("a STOMP reader of %s, after %d of %d: %v", queue, acked, n, err)
		}
		switch f.command {
		case "MESSAGE":
			got.note(t, f.body)
			if err := w.send([]byte("ACK\nid:" + f.headers["ack"] + "\nreceipt:r\n\n\x00")); err != nil {
				t.Fatal(err)
			}
		case "RECEIPT":
			acked++
		default:
			t.Fatalf("a STOMP reader of %s gets %+v", queue, f)
		}
	}
}

// readMQTT takes n messages and acknowledges them. Nobody answers that; what
// comes next shows that it was taken, for one at a time is let out.
func readMQTT(t *testing.T, b *broker, queue string, n int, got reading) {
	t.Helper()
	w, err := connectMQTT(b.mqtt, "full-reader")
	if err != nil {
		t.Fatalf("an MQTT reader: %v", err)
	}
	defer w.Close()
	if err := w.send(packet(0x82, append(append([]byte{0, 1, 0}, text("$queue/"+queue)...), 1))); err != nil {
		t.Fatal(err)
	}
	for taken := 0; taken < n; {
		first, rest, err := w.packet()
		if err != nil {
			t.Fatalf("an MQTT reader of %s, after %d of %d: %v", queue, taken, n, err)
		}
		if first == 0x90 {
			continue
		}
		if first&0xf6 != 0x32 {
			t.Fatalf("an MQTT reader of %s gets %#x % x", queue, first, rest[:min(len(rest), 40)])
		}
		at := 2 + int(binary.BigEndian.Uint16(rest)) // the packet id
		got.note(t, string(rest[at+3+int(rest[at+2]):]))
		if err := w.send([]byte{0x40, 2, rest[at], rest[at+1]}); err != nil {
			t.Fatal(err)
		}
		taken++
	}
}

// readLine takes n messages, or all there are, and acknowledges each with its
// answer.
func readLine(t *testing.T, b *broker, queue string, n int, got reading) (read int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	c, err := client.Dial(ctx, b.line, client.Options{})
	if err != nil {
		t.Fatalf("a line reader: %v", err)
	}
	defer c.Close()
	for read < n {
		some, err := c.Get(ctx, "q/"+queue, client.GetOptions{N: min(100, n-read), Wait: 2 * time.Second})
		if err != nil {
			t.Fatalf("a line reader of %s, after %d: %v", queue, read, err)
		}
		if len(some) == 0 {
			return read
		}
		for _, d := range some {
			got.note(t, string(d.Body))
		}
		ackAll(ctx, t, some)
		read += len(some)
	}
	return read
}

// ackAll acknowledges and waits for the answers.
func ackAll(ctx context.Context, t *testing.T, some []*client.Delivery) {
	t.Helper()
	errs := make(chan error, len(some))
	for _, d := range some {
		go func() { errs <- d.AckWait(ctx) }()
	}
	for range some {
		if err := <-errs; err != nil {
			t.Fatalf("an ack is not answered well: %v", err)
		}
	}
}

// everything is more than any queue has.
const everything = 1 << 30

func (r reading) String() string {
	var parts []string
	for name, numbers := range r {
		parts = append(parts, fmt.Sprintf("%s %d", name, len(numbers)))
	}
	return strings.Join(parts, ", ")
}
