package interop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-stomp/stomp/v3"
)

// Bad input closes its own connection, with the protocol's error where the
// protocol has one, costs no memory to speak of and disturbs nobody else.
//
// mission: S11
func TestHostileInput(t *testing.T) {
	b := start(t)
	stop := make(chan struct{})
	var good sync.WaitGroup
	good.Go(func() { neighbour(t, b, stop) })
	before := b.rss()
	for _, tt := range []struct {
		name string
		addr string
		in   string
		want string // in what comes back; "" for a close without a word
	}{
		{"mqtt: a SUBSCRIBE of 7 bytes without an option", b.mqtt, connectMQTT5 + "\x82\x05\x00\x01\x00\x00\x00", "\xe0"},
		{"mqtt: 256 MiB announced before CONNECT", b.mqtt, "\x10\xff\xff\xff\x7f\x00\x04MQTT\x05", "\x95"},
		{"mqtt: 256 MiB announced after it", b.mqtt, connectMQTT5 + "\x32\xff\xff\xff\x7f\x00\x01a", "\xe0"},
		{"mqtt: a length of five bytes", b.mqtt, connectMQTT5 + "\x30\xff\xff\xff\xff\x01", "\xe0"},
		{"mqtt: a truncated PUBLISH, then the end", b.mqtt, connectMQTT5 + "\x32\x0a\x00\x03", "\x20"},
		{"stomp: content-length of 2 GiB", b.stomp, connectSTOMP + "SEND\ndestination:/queue/x\ncontent-length:2147483647\n\nx", "ERROR"},
		{"stomp: a header line without an end", b.stomp, connectSTOMP + "SEND\na:" + strings.Repeat("b", 2<<20), "ERROR"},
		{"stomp: 200,000 headers", b.stomp, connectSTOMP + "SEND\n" + strings.Repeat("a:b\n", 200_000), "ERROR"},
		{"stomp: 64 MiB without NUL", b.stomp, connectSTOMP + "SEND\ndestination:/queue/x\n\n" + strings.Repeat("x", 64<<20), "ERROR"},
		{"stomp: a bad escape", b.stomp, connectSTOMP + "SEND\ndestination:/queue/x\na:\\t\n\n\x00", "ERROR"},
		{"stomp: before CONNECT", b.stomp, "SEND\ndestination:/queue/x\n\nx\x00", "ERROR"},
		{"line: a length of ten digits", b.line, "PING\nPUB q/x 9999999999\n", "ERR 4"},
		{"line: a payload without its end", b.line, "PING\nPUB q/x 2\nabc\n", "ERR 400 fatal"},
		{"line: a line of 1 MiB", b.line, "PING\n" + strings.Repeat("a", 1<<20) + "\n", "ERR 413 fatal"},
		{"line: a browser", b.line, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		{"line: an unknown verb first", b.line, "FROBNICATE x\n", "ERR 405 fatal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := throw(t, tt.addr, []byte(tt.in))
			if tt.want == "" && len(got) > 0 {
				t.Errorf("got %.200q, want a close without a word", got)
			}
			if !bytes.Contains(got, []byte(tt.want)) {
				t.Errorf("got %.200q, want %q in it", got, tt.want)
			}
		})
	}
	t.Run("random bytes on every port", func(t *testing.T) { throwRandom(t, b) })
	t.Run("silence is closed", func(t *testing.T) { silence(t, b) })
	close(stop)
	good.Wait()
	if grown := b.rss() - before; grown > 200<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
}

const (
	connectMQTT5 = "\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc"
	connectSTOMP = "CONNECT\naccept-version:1.2\nhost:/\n\n\x00"
)

// throw sends everything and returns what came back until the close.
func throw(t *testing.T, addr string, in []byte) []byte {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	go func() {
		c.Write(in)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection was not closed; it said %.200q", got)
	}
	return got
}

func throwRandom(t *testing.T, b *broker) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, addr := range []string{b.mqtt, b.stomp, b.line} {
		for range 60 {
			in := make([]byte, 1+rng.IntN(4096))
			for i := range in {
				in[i] = byte(rng.Uint32())
			}
			throw(t, addr, in)
		}
	}
}

// silence: nothing, and one byte, are closed after about 10 s.
func silence(t *testing.T, b *broker) {
	var all sync.WaitGroup
	for _, addr := range []string{b.mqtt, b.stomp, b.line} {
		for _, first := range []string{"", "\x10", "C", "P"} {
			all.Go(func() {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				io.WriteString(c, first)
				c.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") {
					t.Errorf("%s after %q: still open", addr, first)
				}
			})
		}
	}
	all.Wait()
}

// neighbour is a well-behaved client that must not notice anything.
func neighbour(t *testing.T, b *broker, stop chan struct{}) {
	c, err := stomp.Dial("tcp", b.stomp)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Disconnect()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		began := time.Now()
		if err := c.Send("/queue/neighbour", "text/plain", fmt.Append(nil, i), stomp.SendOpt.Receipt); err != nil {
			t.Errorf("the neighbour was disturbed: %v", err)
			return
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the neighbour waited %v", took)
		}
	}
}
