package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// stompPublisher sends SEND with a receipt. It sends again what was not
// answered only if its book says so: nothing keeps that apart.
type stompPublisher struct {
	dest   string
	number int
	seed   uint64
	body   []byte
}

// stompHello connects.
func (l *life) stompHello() (*wire, func(), error) {
	w, end, err := l.dial(l.broker.stomp)
	if err != nil {
		return nil, nil, err
	}
	if err := w.converse("CONNECT\naccept-version:1.2\nhost:/\n\n\x00", "CONNECTED"); err != nil {
		end()
		return nil, nil, err
	}
	return w, end, nil
}

// converse says one frame and waits for an answer without a body.
func (w *wire) converse(frame, want string) error {
	if err := w.say([]byte(frame)); err != nil {
		return err
	}
	f, _, err := w.frame(nil)
	if err != nil {
		return err
	}
	if f.command != want {
		return fmt.Errorf("answered %s %q, want %s", f.command, f.head, want)
	}
	return nil
}

// A stompFrame is a frame's command and headers. What is escaped in them is
// none of ours: we send only names of our own.
type stompFrame struct {
	command string
	head    []string
}

func (f *stompFrame) header(name string) (string, bool) {
	for _, h := range f.head {
		if key, value, ok := strings.Cut(h, ":"); ok && key == name {
			return value, true
		}
	}
	return "", false
}

// frame reads one frame; its body is in spare.
func (w *wire) frame(spare []byte) (f stompFrame, body []byte, err error) {
	if f.command, err = w.line(); err != nil {
		return f, nil, err
	}
	for {
		h, err := w.r.ReadString('\n')
		if err != nil {
			return f, nil, err
		}
		if h = strings.TrimRight(h, "\r\n"); h == "" {
			break
		}
		f.head = append(f.head, h)
	}
	if text, ok := f.header("content-length"); ok {
		n, err := strconv.Atoi(text)
		if err != nil {
			return f, nil, fmt.Errorf("content-length %q", text)
		}
		body, err = w.body(spare, n, 0)
		return f, body, err
	}
	body, err = w.r.ReadBytes(0)
	return f, bytes.TrimSuffix(body, []byte{0}), err
}

func (p *stompPublisher) hello(l *life) (*wire, func(), uint64, error) {
	w, end, err := l.stompHello()
	return w, end, 0, err
}

func (p *stompPublisher) publish(out []byte, s step) []byte {
	p.body = appendBody(p.body[:0], p.seed, p.number, s.number)
	out = append(append(out, "SEND\ndestination:"...), p.dest...)
	out = strconv.AppendUint(append(out, "\nreceipt:"...), s.number, 10)
	out = strconv.AppendInt(append(out, "\ncontent-length:"...), int64(len(p.body)), 10)
	return append(append(append(out, "\n\n"...), p.body...), 0)
}

func (p *stompPublisher) answer(w *wire, b *book) error {
	f, body, err := w.frame(nil)
	if err != nil {
		return err
	}
	id, _ := f.header("receipt-id")
	n, err := strconv.ParseUint(id, 10, 64)
	if f.command != "RECEIPT" || err != nil {
		return fmt.Errorf("the broker says %s %q %q", f.command, f.head, body)
	}
	b.confirm(n, done)
	return nil
}

// stompConsumer reads a queue; each message is acknowledged for itself.
type stompConsumer struct {
	dest  string
	spare []byte
}

func (c *stompConsumer) answers() bool { return true }

func (c *stompConsumer) hello(l *life) (*wire, func(), error) {
	w, end, err := l.stompHello()
	if err != nil {
		return nil, nil, err
	}
	subscribe := "SUBSCRIBE\nid:1\nack:client-individual\ndestination:" + c.dest + "\n\n\x00"
	if err := w.say([]byte(subscribe)); err != nil {
		end()
		return nil, nil, err
	}
	return w, end, nil
}

func (c *stompConsumer) hear(w *wire, t *target) (d delivery, handle string, err error) {
	f, body, err := w.frame(c.spare)
	if err != nil {
		return d, "", err
	}
	c.spare = body[:0]
	switch f.command {
	case "MESSAGE":
		handle, _ = f.header("ack")
		id, _ := f.header("message-id") // place-entry, the same on redelivery
		_, entry, _ := strings.Cut(id, "-")
		d.body = body
		_, d.again = f.header("redelivered")
		d.entry, err = strconv.ParseUint(entry, 10, 64)
		if err != nil || handle == "" {
			return d, "", fmt.Errorf("a MESSAGE without ack or with a strange message-id: %q", f.head)
		}
		return d, handle, nil
	case "RECEIPT":
		id, _ := f.header("receipt-id")
		entry, err := strconv.ParseUint(id, 10, 64)
		if err == nil {
			t.settle(entry)
		}
		return d, "", err
	}
	return d, "", fmt.Errorf("the broker says %s %q %q", f.command, f.head, body)
}

// ack asks for a receipt that names the entry, if told.
func (c *stompConsumer) ack(out []byte, some []held, told bool) []byte {
	for _, h := range some {
		out = append(append(out, "ACK\nid:"...), h.handle...)
		if told {
			out = strconv.AppendUint(append(out, "\nreceipt:"...), h.entry, 10)
		}
		out = append(out, "\n\n\x00"...)
	}
	return out
}
