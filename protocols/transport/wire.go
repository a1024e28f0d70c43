package transport

import "net"

// A wire moves bytes without holding a buffer while it waits, as far as its
// socket can do that.
type wire interface {
	// read puts what has come into in, at least a byte of it or an error.
	// Before it waits it calls idle, maybe several times. Only the reader
	// calls it.
	read(in *input, r idler) (int, error)
	// try writes what finds room now and never waits. Only the owner of the
	// turn calls it.
	try(b []byte) (int, error)
}

// An idler is told that its reader is about to wait.
type idler interface{ idle() }

// A plainWire serves any net.Conn: pipes, TLS. It holds a buffer while it
// waits to read, and it cannot write without waiting, so each write is a drain's.
type plainWire struct{ conn net.Conn }

func (w plainWire) read(in *input, r idler) (int, error) {
	r.idle()
	n, err := w.conn.Read(in.room())
	in.filled(n)
	if n > 0 {
		return n, nil // an error will come again
	}
	return 0, err
}

func (w plainWire) try([]byte) (int, error) { return 0, nil }
