//go:build unix

package transport

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// A rawWire waits for its socket to be readable before it takes a buffer, and
// writes only what the socket takes at once. The two functions are made once,
// so that a call allocates nothing; what they work on is in the fields.
type rawWire struct {
	raw syscall.RawConn

	readable func(fd uintptr) bool
	in       *input
	reader   idler
	got      int
	readErr  error

	writable func(fd uintptr) bool
	out      []byte
	wrote    int
	writeErr error
}

func newWire(c net.Conn) wire {
	s, ok := c.(syscall.Conn)
	if !ok {
		return plainWire{c}
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return plainWire{c}
	}
	w := &rawWire{raw: raw}
	w.readable, w.writable = w.readNow, w.writeNow
	return w
}

func (w *rawWire) read(in *input, r idler) (int, error) {
	w.in, w.reader, w.got, w.readErr = in, r, 0, nil
	if err := w.raw.Read(w.readable); err != nil {
		return 0, err
	}
	return w.got, w.readErr
}

// readNow says whether there is something to tell; if not, the goroutine
// parks until the socket is readable.
func (w *rawWire) readNow(fd uintptr) bool {
	room := w.in.room()
	for {
		n, err := syscall.Read(int(fd), room)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			w.reader.idle()
			return false
		case err != nil:
			w.readErr = err
		case n <= 0:
			w.readErr = io.EOF
		default:
			w.got = n
			w.in.filled(n)
		}
		return true
	}
}

func (w *rawWire) try(b []byte) (int, error) {
	w.out, w.wrote, w.writeErr = b, 0, nil
	err := w.raw.Write(w.writable)
	w.out = nil
	if err != nil {
		return w.wrote, err
	}
	return w.wrote, w.writeErr
}

// writeNow always says that it is done: waiting is the drain's.
func (w *rawWire) writeNow(fd uintptr) bool {
	for w.wrote < len(w.out) {
		n, err := syscall.Write(int(fd), w.out[w.wrote:])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err != nil:
			w.writeErr = err
			return true
		}
		w.wrote += n
	}
	return true
}
