package stomp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	stompclient "github.com/go-stomp/stomp/v3"
	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/stomp"
	"github.com/godwitmq/godwit/protocols/transport"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// serve runs a broker on a port of this machine.
func serve(t testing.TB) (address string) {
	t.Helper()
	broker, err := core.New(core.Options{Store: memory.New(memory.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	server := transport.New(transport.Options{Broker: broker})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(l, transport.ListenerOptions{Protocols: []protocols.Protocol{stomp.New(stomp.Options{})}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := broker.Close(ctx); err != nil {
			t.Errorf("close the broker: %v", err)
		}
	})
	return l.Addr().String()
}

func connect(t testing.TB, address string, o ...func(*stompclient.Conn) error) *stompclient.Conn {
	t.Helper()
	c, err := stompclient.Dial("tcp", address, o...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.MustDisconnect() })
	return c
}

func next(t testing.TB, s *stompclient.Subscription) *stompclient.Message {
	t.Helper()
	select {
	case m, ok := <-s.C:
		if !ok || m.Err != nil {
			t.Fatalf("the subscription ended: %v", m)
		}
		return m
	case <-time.After(patience):
		t.Fatal("no message came")
		return nil
	}
}

// go-stomp's client works with us, unchanged, in each version.
// mission: S59
func TestGoStomp(t *testing.T) {
	for _, version := range []stompclient.Version{stompclient.V10, stompclient.V11, stompclient.V12} {
		t.Run(string(version), func(t *testing.T) {
			address := serve(t)
			c := connect(t, address, stompclient.ConnOpt.AcceptVersion(version),
				stompclient.ConnOpt.UnsubscribeReceiptTimeout(5*time.Second), stompclient.ConnOpt.HeartBeat(time.Second, time.Second))
			if c.Version() != version {
				t.Fatalf("version %s, want %s", c.Version(), version)
			}
			queue := "/queue/orders"
			sub, err := c.Subscribe(queue, stompclient.AckClientIndividual)
			if err != nil {
				t.Fatal(err)
			}
			body := []byte("a\x00b\n")
			if err := c.Send(queue, "application/octet-stream", body, stompclient.SendOpt.Receipt, stompclient.SendOpt.Header("x", "1")); err != nil {
				t.Fatal(err)
			}
			m := next(t, sub)
			if !bytes.Equal(m.Body, body) || m.Destination != queue || m.ContentType != "application/octet-stream" || m.Header.Get("x") != "1" {
				t.Errorf("came %q with %v", m.Body, m.Header)
			}
			if version.SupportsNack() {
				if err := c.Nack(m); err != nil {
					t.Fatal(err)
				}
				if m = next(t, sub); m.Header.Get("redelivered") != "true" {
					t.Errorf("after NACK: %v, want redelivered:true", m.Header)
				}
			}
			if err := c.Ack(m); err != nil {
				t.Fatal(err)
			}
			goStompTransaction(t, c, sub, queue)
			unsubscribe(t, sub)
			if err := c.Disconnect(); err != nil {
				t.Errorf("disconnect: %v", err)
			}
		})
	}
}

// unsubscribe expects the receipt. The client looks for it and then begins to
// wait, and misses one that comes in between: about once in a hundred runs it
// reports a timeout although it has taken the receipt and closed the channel.
func unsubscribe(t *testing.T, sub *stompclient.Subscription) {
	t.Helper()
	err := sub.Unsubscribe()
	if err == nil {
		return
	}
	if m, open := <-sub.C; open {
		t.Fatalf("unsubscribe: %v, and the channel holds %v", err, m.Err)
	}
}

func goStompTransaction(t *testing.T, c *stompclient.Conn, sub *stompclient.Subscription, queue string) {
	t.Helper()
	tx := c.Begin()
	for i := range 3 {
		if err := tx.Send(queue, "text/plain", []byte(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		m := next(t, sub)
		if string(m.Body) != strconv.Itoa(i) {
			t.Errorf("%d of the transaction is %q", i, m.Body)
		}
		if err := c.Ack(m); err != nil {
			t.Fatal(err)
		}
	}
}

// An ERROR reaches its client before the connection is closed.
func TestErrorIsHeard(t *testing.T) {
	c := connect(t, serve(t))
	err := c.Send("/nowhere", "", nil, stompclient.SendOpt.Receipt)
	var e stompclient.Error
	if !errors.As(err, &e) || e.Frame == nil || e.Frame.Header.Get("code") != "404" {
		t.Errorf("Send to nowhere = %#v, want ERROR 404", err)
	}
}

// Order is kept under load, by a queue and by a topic that is acknowledged.
func TestLoad(t *testing.T) {
	address := serve(t)
	const n = 5000
	read := func(destination string, mode stompclient.AckMode) func() error {
		c := connect(t, address) // each its own: the client reads one at a time
		sub, err := c.Subscribe(destination, mode)
		if err == nil { // behind the SUBSCRIBE
			err = c.Send("/queue/ready", "", nil, stompclient.SendOpt.Receipt)
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() error { return readInOrder(c, sub, n) }
	}
	readers := []func() error{read("/topic/load/#", stompclient.AckClient), read("/queue/load", stompclient.AckAuto)}
	writer := connect(t, address)
	failed := make(chan error)
	for _, r := range readers {
		go func() { failed <- r() }()
	}
	for i := range n {
		for _, to := range []string{"/topic/load/" + strconv.Itoa(i%7), "/queue/load"} {
			if err := writer.Send(to, "", []byte(strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range readers {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

func readInOrder(c *stompclient.Conn, sub *stompclient.Subscription, n int) error {
	for i := range n {
		select {
		case m := <-sub.C:
			if m == nil || m.Err != nil || string(m.Body) != strconv.Itoa(i) {
				return fmt.Errorf("%s: %v, want %d", sub.Destination(), m, i)
			}
			if sub.AckMode() == stompclient.AckClient && i%100 == 99 {
				if err := c.Ack(m); err != nil {
					return err
				}
			}
		case <-time.After(patience):
			return fmt.Errorf("%s: %d did not come", sub.Destination(), i)
		}
	}
	return nil
}

// A large body crosses byte by byte what it was.
func TestLargeBody(t *testing.T) {
	c := connect(t, serve(t))
	sub, err := c.Subscribe("/queue/large", stompclient.AckAuto)
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("0123456789abcde\x00"), 1<<18)
	if err := c.Send("/queue/large", "", body, stompclient.SendOpt.Receipt); err != nil {
		t.Fatal(err)
	}
	if m := next(t, sub); !bytes.Equal(m.Body, body) {
		t.Errorf("%d octets came, want %d", len(m.Body), len(body))
	}
}

// What a raw client sees on the wire: the frame reader of go-stomp reads us.
func TestHeartBeatOnTheWire(t *testing.T) {
	nc, err := net.Dial("tcp", serve(t))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(nc, "CONNECT\naccept-version:1.2\nheart-beat:0,500\n\n\x00")
	r := frame.NewReader(nc)
	f, err := r.Read()
	if err != nil || f.Command != frame.CONNECTED || f.Header.Get(frame.HeartBeat) != "500,0" {
		t.Fatalf("CONNECT: %v, %v", f, err)
	}
	if f, err = r.Read(); err != nil || f != nil {
		t.Fatalf("then %v, %v: want a heart-beat", f, err)
	}
	fmt.Fprint(nc, "DISCONNECT\nreceipt:bye\n\n\x00")
	for f == nil && err == nil {
		f, err = r.Read()
	}
	if err != nil || f.Command != frame.RECEIPT {
		t.Fatalf("DISCONNECT: %v, %v", f, err)
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last receipt: %v, want the end", err)
	}
}

const pythonScript = `
import queue, sys, stomp
port, version = int(sys.argv[1]), sys.argv[2]
Connection = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}[version]

class Listener(stomp.ConnectionListener):
    def __init__(self): self.frames = queue.Queue()
    def on_message(self, f): self.frames.put(("MESSAGE", f))
    def on_receipt(self, f): self.frames.put(("RECEIPT", f))
    def on_error(self, f): self.frames.put(("ERROR", f))

def connect():
    kw = {} if version == "1.0" else {"heartbeats": (2000, 2000)}
    c = Connection([("127.0.0.1", port)], **kw)
    l = Listener()
    c.set_listener("", l)
    c.connect("user", "pass", wait=True)
    return c, l

def want(l, kind, **headers):
    got, f = l.frames.get(timeout=20)
    assert got == kind, (kind, got, f.headers, f.body)
    for name, value in headers.items():
        name = name.replace("_", "-")
        assert f.headers.get(name) == value, (name, value, f.headers)
    return f

c, l = connect()
c.send("/queue/py", "hello \u00e4", receipt="r1", headers={"custom": "a b"})
want(l, "RECEIPT", receipt_id="r1")
c.subscribe("/queue/py", id="7", ack="client-individual")
f = want(l, "MESSAGE", custom="a b", destination="/queue/py")
assert f.body == "hello \u00e4", f.body
if version == "1.0":
    c.ack(f.headers["message-id"])
elif version == "1.1":
    c.nack(f.headers["message-id"], "7")
    f = want(l, "MESSAGE", redelivered="true")
    c.ack(f.headers["message-id"], "7")
else:
    c.nack(f.headers["ack"])
    f = want(l, "MESSAGE", redelivered="true")
    c.ack(f.headers["ack"])
tx = c.begin()
c.send("/queue/py", "in", transaction=tx)
c.abort(tx)
tx = c.begin()
c.send("/queue/py", "one", transaction=tx)
c.send("/queue/py", "two", transaction=tx)
c.commit(tx)
assert want(l, "MESSAGE").body == "one"
assert want(l, "MESSAGE").body == "two"
d, m = connect()
d.subscribe("/topic/a.*", id="1", ack="auto", headers={"receipt": "s"})
want(m, "RECEIPT", receipt_id="s")
c.send("/topic/a.b", "topic")
assert want(m, "MESSAGE", destination="/topic/a.b").body == "topic"
d.unsubscribe(id="1")
d.disconnect()
c.disconnect(receipt="bye")
want(l, "RECEIPT", receipt_id="bye")
print("done")
`

// stomp.py works with us, unchanged, in each version.
// mission: S59
func TestStompPy(t *testing.T) {
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import stomp").CombinedOutput(); err != nil {
		t.Skipf("needs Debian's python3-stomp: %v: %s", err, out)
	}
	for _, version := range []string{"1.0", "1.1", "1.2"} {
		t.Run(version, func(t *testing.T) {
			_, port, _ := net.SplitHostPort(serve(t))
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			out, err := exec.CommandContext(ctx, python, "-c", pythonScript, port, version).CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "done\n") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
