//go:build linux

package diskfull

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godwitmq/godwit/protocols/line/client"
)

// A mouth publishes one message on one connection and waits for the answer.
type mouth interface {
	// say returns the refusal, "" if it was confirmed. An error is the end of
	// the connection, and then the answer is not known.
	say(n int, body string) (refusal string, err error)
	io.Closer
}

// A publisher goes on whatever happens, one message at a time, and notes the
// answers.
type publisher struct {
	name string
	dial func() (mouth, error)

	mu        sync.Mutex
	confirmed map[int]bool
	refused   int
	refusal   string // the last
	ended     string // why the last connection ended
}

// bodyBytes is large, so that a queue fills a small disk.
const bodyBytes = 4000

func (p *publisher) run(ctx context.Context) {
	var m mouth
	for n := 1; ctx.Err() == nil; n++ {
		if m == nil {
			var err error
			if m, err = p.dial(); err != nil {
				p.note(func() { p.ended = err.Error() })
				m = nil
				pause(ctx, 50*time.Millisecond)
				continue
			}
		}
		refusal, err := m.say(n, body(p.name, n))
		p.note(func() {
			switch {
			case err != nil:
				p.ended = err.Error()
			case refusal != "":
				p.refused++
				p.refusal = refusal
			default:
				p.confirmed[n] = true
			}
		})
		if err != nil {
			m.Close()
			m = nil
		}
		if err != nil || refusal != "" {
			pause(ctx, 20*time.Millisecond)
		}
		pause(ctx, time.Millisecond)
	}
	if m != nil {
		m.Close()
	}
}

func (p *publisher) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// state is how many were confirmed and refused.
func (p *publisher) state() (confirmed, refused int, refusal, ended string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.confirmed), p.refused, p.refusal, p.ended
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// body names its message first.
func body(publisher string, n int) string {
	head := publisher + " " + strconv.Itoa(n) + " "
	return head + strings.Repeat("x", bodyBytes-len(head))
}

// publishers are one of each protocol.
func publishers(b *broker) []*publisher {
	return []*publisher{
		{name: "mqtt", confirmed: map[int]bool{}, dial: func() (mouth, error) { return dialMQTT(b.mqtt) }},
		{name: "stomp", confirmed: map[int]bool{}, dial: func() (mouth, error) { return dialSTOMP(b.stomp) }},
		{name: "line", confirmed: map[int]bool{}, dial: func() (mouth, error) { return dialLine(b.line) }},
	}
}

// A wire is a raw connection. Each answer has its deadline.
type wire struct {
	net.Conn
	r *bufio.Reader
}

// answerWithin is how long an answer may take: one must come, on a full disk
// too.
const answerWithin = 20 * time.Second

func dialWire(addr string) (*wire, error) {
	nc, err := net.DialTimeout("tcp", addr, answerWithin)
	if err != nil {
		return nil, err
	}
	return &wire{nc, bufio.NewReader(nc)}, nil
}

func (w *wire) send(b []byte) error {
	if err := w.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// mqttMouth is MQTT 5 with QoS 1.
type mqttMouth struct{ *wire }

func dialMQTT(addr string) (mouth, error) {
	w, err := connectMQTT(addr, "full-publisher")
	if err != nil {
		return nil, err
	}
	return mqttMouth{w}, nil
}

func connectMQTT(addr, id string) (*wire, error) {
	w, err := dialWire(addr)
	if err != nil {
		return nil, err
	}
	connect := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0}, text(id)...)
	err = w.send(packet(0x10, connect))
	var first byte
	var rest []byte
	if err == nil {
		first, rest, err = w.packet()
	}
	if err == nil && (first != 0x20 || len(rest) < 2 || rest[1] != 0) {
		err = fmt.Errorf("CONNECT was answered %#x % x", first, rest)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func packet(first byte, rest []byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(len(rest))), rest...) // MQTT's coding of lengths
}

func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

func (w *wire) packet() (first byte, rest []byte, err error) {
	if first, err = w.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(w.r)
	if err != nil || n > 1<<20 {
		return 0, nil, errors.Join(err, fmt.Errorf("a packet of %d octets", n))
	}
	rest = make([]byte, n)
	_, err = io.ReadFull(w.r, rest)
	return first, rest, err
}

// say publishes; a PUBACK of 0x97 is quota exceeded, which is all MQTT has for
// a full disk. Its reason string says more.
func (m mqttMouth) say(n int, body string) (string, error) {
	id := uint16(n%60000) + 1
	rest := binary.BigEndian.AppendUint16(text("full/mqtt"), id)
	rest = append(append(rest, 0), body...)
	if err := m.send(packet(0x32, rest)); err != nil {
		return "", err
	}
	first, rest, err := m.packet()
	switch {
	case err != nil:
		return "", err
	case first != 0x40 || len(rest) < 2 || binary.BigEndian.Uint16(rest) != id:
		return "", fmt.Errorf("PUBLISH was answered %#x % x", first, rest)
	case len(rest) > 2 && rest[2] >= 0x80:
		return fmt.Sprintf("%#x %s", rest[2], rest[3:]), nil
	}
	return "", nil
}

// stompMouth sends with a receipt.
type stompMouth struct{ *wire }

func dialSTOMP(addr string) (mouth, error) {
	w, err := connectSTOMP(addr)
	if err != nil {
		return nil, err
	}
	return stompMouth{w}, nil
}

func connectSTOMP(addr string) (*wire, error) {
	w, err := dialWire(addr)
	if err != nil {
		return nil, err
	}
	if err := w.send([]byte("CONNECT\naccept-version:1.2\nhost:/\n\n\x00")); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	if f, err := w.frame(); err != nil || f.command != "CONNECTED" {
		return nil, errors.Join(fmt.Errorf("CONNECT was answered %+v", f), err, w.Close())
	}
	return w, nil
}

type stompFrame struct {
	command string
	headers map[string]string
	body    string
}

func (w *wire) frame() (f stompFrame, err error) {
	f.headers = map[string]string{}
	for f.command == "" {
		line, err := w.r.ReadString('\n')
		if err != nil {
			return f, err
		}
		f.command = strings.TrimRight(line, "\r\n")
	}
	for {
		line, err := w.r.ReadString('\n')
		if err != nil {
			return f, err
		}
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok {
			break
		}
		f.headers[key] = value
	}
	body, err := w.r.ReadString(0) // ours have no NUL in them
	f.body = strings.TrimSuffix(body, "\x00")
	return f, err
}

// say: a refusal is an ERROR that names the receipt; the connection ends with
// it, and the next message finds that out.
func (m stompMouth) say(n int, body string) (string, error) {
	send := fmt.Sprintf("SEND\ndestination:/queue/full-stomp\nreceipt:%d\ncontent-length:%d\n\n%s\x00", n, len(body), body)
	if err := m.send([]byte(send)); err != nil {
		return "", err
	}
	f, err := m.frame()
	id := f.headers["receipt-id"]
	switch {
	case err != nil:
		return "", err
	case id != strconv.Itoa(n):
		return "", fmt.Errorf("SEND %d was answered %+v", n, f)
	case f.command == "RECEIPT":
		return "", nil
	}
	return fmt.Sprintf("%s %s %s", f.command, f.headers["code"], f.headers["message"]+" "+f.body), nil
}

// lineMouth is the line protocol's own client.
type lineMouth struct{ *client.Client }

func dialLine(addr string) (mouth, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	c, err := client.Dial(ctx, addr, client.Options{})
	if err != nil {
		return nil, err
	}
	return lineMouth{c}, nil
}

func (m lineMouth) say(_ int, body string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	err := m.Publish(ctx, client.Message{Dest: "q/full-line", Body: []byte(body)})
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Error(), nil
	}
	return "", err
}
