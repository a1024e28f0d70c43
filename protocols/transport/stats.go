package transport

import "sync/atomic"

// Stats are a server's counters at a moment. All but Open only grow.
type Stats struct {
	Open          int64  // connections now
	Accepted      uint64 // connections taken from listeners, ServeConn and Pipe
	Refused       uint64 // closed at once: a limit, or the server was shutting down
	BytesIn       uint64
	BytesOut      uint64
	Reads         uint64 // that brought bytes
	Writes        uint64 // that took bytes: BytesOut/Writes shows how well answers gather
	Drains        uint64 // writes that a goroutine of their own had to finish: the socket was full
	SlowWriters   uint64 // closed: the client took nothing for WriteTimeout
	SniffFailures uint64 // closed: the first bytes were of no protocol, or did not come in time
	Panics        uint64 // of handlers; each closed its connection
}

type counters struct {
	open                                     atomic.Int64
	accepted, refused                        atomic.Uint64
	bytesIn, bytesOut, reads, writes, drains atomic.Uint64
	slowWriters, sniffFailures, panics       atomic.Uint64
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	c := &s.count
	return Stats{
		Open: c.open.Load(), Accepted: c.accepted.Load(), Refused: c.refused.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		Reads: c.reads.Load(), Writes: c.writes.Load(), Drains: c.drains.Load(),
		SlowWriters: c.slowWriters.Load(), SniffFailures: c.sniffFailures.Load(), Panics: c.panics.Load(),
	}
}

func (c *counters) read(n int) {
	c.reads.Add(1)
	c.bytesIn.Add(uint64(n))
}

func (c *counters) wrote(n int) {
	c.writes.Add(1)
	c.bytesOut.Add(uint64(n))
}
