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

// A lineWire speaks the line protocol.
type lineWire struct {
	dest string
	acks bool // publishes carry an id and are confirmed
}

// dialLine connects and types each of the lines, waiting for its OK.
func dialLine(addr string, lines ...string) (net.Conn, []byte, error) {
	nc, err := net.DialTimeout("tcp", addr, handshake)
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReader(nc)
	for _, text := range lines {
		if _, err := ask(nc, r, text); err != nil {
			nc.Close()
			return nil, nil, fmt.Errorf("line protocol: %w", err)
		}
	}
	rest := make([]byte, r.Buffered())
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, nil, err
	}
	return nc, rest, nc.SetDeadline(time.Time{})
}

// ask types one line and returns the rows before its OK.
func ask(nc net.Conn, r *bufio.Reader, text string) (rows []string, err error) {
	if err := nc.SetDeadline(time.Now().Add(handshake)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(nc, text+"\n"); err != nil {
		return nil, err
	}
	for {
		answer, err := r.ReadString('\n')
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", text, err)
		case strings.HasPrefix(answer, ": "):
			rows = append(rows, strings.TrimSpace(answer[2:]))
		case strings.HasPrefix(answer, "OK"):
			return rows, nil
		default:
			return nil, fmt.Errorf("%s: answered %q", text, answer)
		}
	}
}

func (w *lineWire) publish(out []byte, c *conn, seq uint64) []byte {
	out = append(append(out, "PUB "...), w.dest...)
	if w.acks {
		out = strconv.AppendUint(append(out, " id="...), seq+1, 10)
	}
	out = strconv.AppendUint(append(out, ' '), bodySize, 10)
	return append(c.flow.appendBody(append(out, '\n'), seq), '\n')
}

func (w *lineWire) scan(c *conn, in []byte) (used int, err error) {
	for {
		end := bytes.IndexByte(in[used:], '\n')
		if end < 0 {
			return used, nil
		}
		line := in[used : used+end]
		switch {
		case bytes.HasPrefix(line, []byte("MSG ")):
			n, err := strconv.Atoi(string(line[bytes.LastIndexByte(line, ' ')+1:]))
			if err != nil || n < 0 {
				return used, fmt.Errorf("a delivery without a length: %q", line)
			}
			body := used + end + 1
			if len(in) < body+n+1 {
				return used, nil
			}
			if err := c.take(in[body : body+n]); err != nil {
				return used, err
			}
			used = body + n + 1
			continue
		case bytes.HasPrefix(line, []byte("CONFIRM ")):
			if err := w.confirm(c, line[len("CONFIRM "):]); err != nil {
				return used, err
			}
		case len(line) > 0:
			return used, fmt.Errorf("the server says %q", line)
		}
		used += end + 1
	}
}

// confirm takes a CONFIRM; ids are numbers of messages plus one, so that it
// names the first that is still open.
func (w *lineWire) confirm(c *conn, text []byte) error {
	if !w.acks {
		return errors.New("a CONFIRM came, and nobody asked for one")
	}
	number, _, _ := bytes.Cut(text, []byte(" "))
	n, err := strconv.ParseUint(string(number), 10, 64)
	if err != nil {
		return fmt.Errorf("CONFIRM %q: %w", text, err)
	}
	return c.confirm(n)
}
