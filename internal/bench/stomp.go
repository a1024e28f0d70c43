//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// A stompWire speaks STOMP 1.2.
type stompWire struct {
	dest       string
	persistent bool
	receipts   bool
	acks       bool // the subscription's mode is client-individual
}

// dialSTOMP connects, and subscribes if destination is not empty.
func dialSTOMP(addr, destination, mode string) (net.Conn, []byte, error) {
	nc, err := net.DialTimeout("tcp", addr, handshake)
	if err != nil {
		return nil, nil, err
	}
	rest, err := loginSTOMP(nc, destination, mode)
	if err != nil {
		nc.Close()
		return nil, nil, fmt.Errorf("STOMP: %w", err)
	}
	return nc, rest, nc.SetDeadline(time.Time{})
}

func loginSTOMP(nc net.Conn, destination, mode string) (rest []byte, err error) {
	if err := nc.SetDeadline(time.Now().Add(handshake)); err != nil {
		return nil, err
	}
	r := bufio.NewReader(nc)
	frames := []struct{ text, want string }{{"CONNECT\naccept-version:1.2\nhost:/\n\n\x00", "CONNECTED\n"}}
	if destination != "" {
		frames = append(frames, struct{ text, want string }{
			"SUBSCRIBE\nid:1\ndestination:" + destination + "\nack:" + mode + "\nreceipt:s\n\n\x00", "RECEIPT\n",
		})
	}
	for _, f := range frames {
		if _, err := io.WriteString(nc, f.text); err != nil {
			return nil, err
		}
		answer, err := r.ReadString(0)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(strings.TrimLeft(answer, "\r\n"), f.want) {
			return nil, fmt.Errorf("answered %q, want %s", answer, f.want)
		}
	}
	rest = make([]byte, r.Buffered())
	_, err = io.ReadFull(r, rest)
	return rest, err
}

func (w *stompWire) publish(out []byte, c *conn, seq uint64) []byte {
	out = append(append(out, "SEND\ndestination:"...), w.dest...)
	if !w.persistent {
		out = append(out, "\npersistent:false"...)
	}
	if w.receipts {
		out = strconv.AppendUint(append(out, "\nreceipt:"...), seq, 10)
	}
	out = strconv.AppendUint(append(out, "\ncontent-length:"...), bodySize, 10)
	return append(c.flow.appendBody(append(out, "\n\n"...), seq), 0)
}

func (w *stompWire) scan(c *conn, in []byte) (used int, err error) {
	for {
		for used < len(in) && (in[used] == '\n' || in[used] == '\r') {
			used++
		}
		end := bytes.Index(in[used:], []byte("\n\n"))
		if end < 0 {
			return used, nil
		}
		head := in[used : used+end+1]
		body := used + end + 2
		n, whole := stompBody(head, in[body:])
		if !whole {
			return used, nil
		}
		if err := w.frame(c, head, in[body:body+n]); err != nil {
			return used, err
		}
		used = body + n + 1
	}
}

// stompBody returns the length of the body that in begins with, and whether
// it is there with its NUL.
func stompBody(head, in []byte) (n int, whole bool) {
	text, ok := stompHeader(head, "\ncontent-length:")
	if !ok {
		n = bytes.IndexByte(in, 0)
		return n, n >= 0
	}
	n, err := strconv.Atoi(string(text))
	return n, err == nil && n >= 0 && len(in) > n
}

// stompHeader returns a header's value; key is between its line ends.
func stompHeader(head []byte, key string) ([]byte, bool) {
	at := bytes.Index(head, []byte(key))
	if at < 0 {
		return nil, false
	}
	value := head[at+len(key):]
	return value[:bytes.IndexByte(value, '\n')], true
}

func (w *stompWire) frame(c *conn, head, body []byte) error {
	switch {
	case bytes.HasPrefix(head, []byte("MESSAGE\n")):
		if w.acks {
			id, ok := stompHeader(head, "\nack:")
			if !ok {
				return errors.New("a MESSAGE without ack")
			}
			c.out = append(append(append(c.out, "ACK\nid:"...), id...), "\n\n\x00"...)
		}
		return c.take(body)
	case bytes.HasPrefix(head, []byte("RECEIPT\n")):
		id, _ := stompHeader(head, "\nreceipt-id:")
		n, err := strconv.ParseUint(string(id), 10, 64)
		if err != nil || c.flow == nil || n != c.flow.acked {
			return fmt.Errorf("RECEIPT %q came out of order", id)
		}
		return c.confirm(n + 1)
	}
	return fmt.Errorf("the server says %q %q", head, body)
}
