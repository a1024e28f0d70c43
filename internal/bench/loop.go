//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// stallAfter is how long nothing may move before a run is given up.
const stallAfter = 10 * time.Second

// A wire speaks one protocol on one connection.
type wire interface {
	// publish appends message seq of the connection's flow.
	publish(out []byte, c *conn, seq uint64) []byte
	// scan takes whole frames off in and returns how many bytes they had. It
	// tells c of answers and deliveries and may append to c.out.
	scan(c *conn, in []byte) (int, error)
}

// A conn is one client: a publisher if it has a flow, a subscriber if it has
// a reader.
type conn struct {
	name string
	wire wire
	flow *flow
	read *reader

	loop    *loop
	index   int // in loop.conns
	fd      int
	file    *os.File // keeps fd open
	in      []byte   // in[:have] is read and not yet scanned
	have    int
	out     []byte
	blocked bool // the socket is full: epoll tells when it is not
	queued  bool // in loop.dirty
}

// take checks a delivery and lets its publisher go on.
func (c *conn) take(body []byte) error {
	if c.read == nil {
		return errors.New("a delivery came to a connection without a subscription")
	}
	f, err := c.read.take(body)
	if err != nil {
		return err
	}
	c.loop.touch(c.loop.publishers[f.number])
	return nil
}

// confirm notes an answer to everything below next.
func (c *conn) confirm(next uint64) error {
	if c.flow == nil {
		return errors.New("an answer came to a connection that publishes nothing")
	}
	c.loop.touch(c)
	return c.flow.confirm(next)
}

// A loop drives the connections of one path. One goroutine uses it. A turn
// goes
//
//	wait for what can be read or written
//	read and scan it                    (flows move, answers gather in out)
//	fill publishers that have room      (unless draining)
//	write each changed connection once
type loop struct {
	epoll      int
	conns      []*conn
	publishers []*conn // by the number of their flow
	dirty      []*conn
	events     [256]syscall.EpollEvent
	draining   bool
}

func newLoop() (*loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	return &loop{epoll: fd}, nil
}

// add takes a connection whose handshake is done; what the socket had read
// too much of is in rest.
func (l *loop) add(nc net.Conn, c *conn, rest []byte) error {
	defer nc.Close() // the file below has the socket now
	file, err := nc.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	c.loop, c.file, c.fd = l, file, int(file.Fd())
	if err := syscall.SetNonblock(c.fd, true); err != nil {
		return err
	}
	c.in = make([]byte, 256<<10)
	c.have = copy(c.in, rest)
	c.index = len(l.conns)
	l.conns = append(l.conns, c)
	if c.flow != nil {
		l.publishers = append(l.publishers, c)
		l.touch(c)
	}
	return l.control(syscall.EPOLL_CTL_ADD, c, syscall.EPOLLIN)
}

func (l *loop) control(op int, c *conn, events uint32) error {
	return syscall.EpollCtl(l.epoll, op, c.fd, &syscall.EpollEvent{Events: events, Fd: int32(c.index)})
}

func (l *loop) close() {
	for _, c := range l.conns {
		_ = c.file.Close()
	}
	_ = syscall.Close(l.epoll)
}

// touch says that c may have something to write after this turn.
func (l *loop) touch(c *conn) {
	if !c.queued {
		c.queued = true
		l.dirty = append(l.dirty, c)
	}
}

// run publishes until the time has come.
func (l *loop) run(until time.Time) error {
	l.draining = false
	for _, p := range l.publishers {
		l.touch(p)
	}
	moved := time.Now()
	for now := moved; now.Before(until); now = time.Now() {
		n, err := l.turn(100 * time.Millisecond)
		if err != nil {
			return err
		}
		if n > 0 {
			moved = now
		} else if now.Sub(moved) > stallAfter {
			return fmt.Errorf("nothing has moved for %v: %s", stallAfter, l.where())
		}
	}
	return nil
}

// drain publishes nothing more and waits until all is answered and read.
func (l *loop) drain() error {
	l.draining = true
	moved := time.Now()
	for !l.settled() {
		n, err := l.turn(100 * time.Millisecond)
		if err != nil {
			return err
		}
		if n > 0 {
			moved = time.Now()
		} else if time.Since(moved) > stallAfter {
			return fmt.Errorf("the last messages are lost: %s", l.where())
		}
	}
	// What comes after the last one is a double.
	_, err := l.turn(100 * time.Millisecond)
	return err
}

func (l *loop) settled() bool {
	for _, p := range l.publishers {
		if !p.flow.settled() {
			return false
		}
	}
	return true
}

// where says how far the flows are.
func (l *loop) where() string {
	var sent, acked, seen uint64
	for _, p := range l.publishers {
		sent, acked, seen = sent+p.flow.sent, acked+p.flow.acked, seen+p.flow.seen
	}
	return fmt.Sprintf("%d sent, %d answered, %d with all readers, %d deliveries", sent, acked, seen, l.deliveries())
}

func (l *loop) deliveries() (n uint64) {
	for _, c := range l.conns {
		if c.read != nil {
			n += c.read.count
		}
	}
	return n
}

func (l *loop) answers() (n uint64) {
	for _, p := range l.publishers {
		n += p.flow.acked
	}
	return n
}

// turn does one round and says how many connections had something.
func (l *loop) turn(wait time.Duration) (int, error) {
	if err := l.write(); err != nil { // the first turn's, and what a drain left
		return 0, err
	}
	n, err := syscall.EpollWait(l.epoll, l.events[:], int(wait.Milliseconds()))
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return 0, fmt.Errorf("wait for the sockets: %w", err)
	}
	for i := range max(n, 0) {
		e := &l.events[i]
		c := l.conns[e.Fd]
		if e.Events&syscall.EPOLLOUT != 0 {
			c.blocked = false
			if err := l.control(syscall.EPOLL_CTL_MOD, c, syscall.EPOLLIN); err != nil {
				return n, err
			}
			l.touch(c)
		}
		if e.Events&^syscall.EPOLLOUT != 0 {
			if err := c.receive(); err != nil {
				return n, fmt.Errorf("%s: %w (%s)", c.name, err, l.where())
			}
		}
	}
	return n, l.write()
}

// receive reads once, as much as there is, and scans it.
func (c *conn) receive() error {
	if c.have == len(c.in) {
		return fmt.Errorf("a frame of over %d octets", len(c.in))
	}
	n, err := syscall.Read(c.fd, c.in[c.have:])
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case n == 0:
		return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return c.scan(n)
}

// scan takes what n more bytes have completed.
func (c *conn) scan(n int) error {
	c.have += n
	used, err := c.wire.scan(c, c.in[:c.have])
	if err != nil {
		return err
	}
	c.have = copy(c.in, c.in[used:c.have])
	if len(c.out) > 0 {
		c.loop.touch(c)
	}
	return nil
}

// write fills and writes each connection that changed.
func (l *loop) write() error {
	for i := 0; i < len(l.dirty); i++ {
		c := l.dirty[i]
		c.queued = false
		if c.flow != nil && !l.draining {
			c.fill()
		}
		if err := c.flush(); err != nil {
			return fmt.Errorf("%s: write: %w", c.name, err)
		}
	}
	l.dirty = l.dirty[:0]
	return nil
}

// fillTo is where a write buffer is full enough: a window of 1,000 leaves in a
// few writes, and no buffer grows without end.
const fillTo = 128 << 10

func (c *conn) fill() {
	f := c.flow
	for n := f.room(); n > 0 && len(c.out) < fillTo; n-- {
		c.out = c.wire.publish(c.out, c, f.sent)
		f.sent++
	}
}

func (c *conn) flush() error {
	if c.blocked || len(c.out) == 0 {
		return nil
	}
	n, err := syscall.Write(c.fd, c.out)
	if err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR) {
		return err
	}
	c.out = c.out[:copy(c.out, c.out[max(n, 0):])]
	if len(c.out) == 0 && (c.flow == nil || c.flow.room() == 0 || c.loop.draining) {
		return nil
	}
	// Either the socket or the buffer was full: go on when there is room.
	c.blocked = true
	return c.loop.control(syscall.EPOLL_CTL_MOD, c, syscall.EPOLLIN|syscall.EPOLLOUT)
}
