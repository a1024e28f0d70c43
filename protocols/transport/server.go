package transport

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// A Server has connections, from any number of listeners. New starts its
// flushers and its wheel, Shutdown ends all.
type Server struct {
	options Options
	flush   flushList
	wheel   wheel
	rate    rate
	count   counters

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	shutting  bool
	shut      chan struct{} // closed when shutting begins

	accepting sync.WaitGroup // one a listener
	running   sync.WaitGroup // readers and drains
	workers   sync.WaitGroup // flushers and the wheel
	idle      chan struct{}  // closed when the last connection has ended after shutting began
}

// New makes a Server. o should have passed Validate.
func New(o Options) *Server {
	s := &Server{
		options:   o.withDefaults(),
		listeners: map[net.Listener]struct{}{},
		conns:     map[*conn]struct{}{},
		shut:      make(chan struct{}),
		idle:      make(chan struct{}),
	}
	s.rate.perSecond = s.options.MaxConnectionsPerSecond
	s.flush.work.L = &s.flush.mu
	for range s.options.Flushers {
		s.workers.Go(s.flush.run)
	}
	s.workers.Go(func() { s.wheel.run(s.idle) })
	return s
}

// now is the broker's clock, which is what handlers compare with.
func (s *Server) now() time.Time {
	if s.options.Broker != nil {
		return s.options.Broker.Now()
	}
	return time.Now()
}

// ServeConn serves one connection that was made elsewhere. It returns at once,
// and closes nc if it returns an error; else nc is the server's.
func (s *Server) ServeConn(nc net.Conn, o ListenerOptions) error {
	if err := o.Validate(); err != nil {
		nc.Close()
		return err
	}
	if err := s.admit(nc, newDoor(nil, o)); err != nil {
		nc.Close()
		return err
	}
	return nil
}

// Pipe makes a connection inside the process and returns the client's end,
// which is closed already if the server refused it.
func (s *Server) Pipe(o ListenerOptions) (net.Conn, error) {
	client, server := net.Pipe()
	if err := s.ServeConn(server, o); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// admit begins a connection, or says why not.
func (s *Server) admit(nc net.Conn, d *door) error {
	c := &conn{
		server: s, door: d, conn: nc, wire: newWire(nc), peer: peerOf(nc, &d.options),
		kicked: make(chan struct{}, 1),
	}
	c.state.Store(owned)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.full(d); err != nil {
		s.count.refused.Add(1)
		return err
	}
	d.open++
	s.conns[c] = struct{}{}
	s.count.open.Add(1)
	s.count.accepted.Add(1)
	s.running.Go(c.run)
	return nil
}

// full says why there is no room for another connection. s.mu is held.
func (s *Server) full(d *door) error {
	switch {
	case s.shutting:
		return errShut
	case len(s.conns) >= s.options.MaxConnections:
		return core.Errorf(core.CodeQuota, "%d connections are open, MaxConnections allows no more", len(s.conns))
	case d.options.MaxConnections > 0 && d.open >= d.options.MaxConnections:
		return core.Errorf(core.CodeQuota, "%d connections are open on listener %q, its MaxConnections allows no more", d.open, d.options.Name)
	}
	return nil
}

// forget takes c off the list: it has ended.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	c.door.open--
	s.count.open.Add(-1)
}

// Shutdown ends the server in order: listeners are closed, every handler is
// told (an Evicted in its last Deliver, then Closed, both with 503), goodbyes
// are flushed, and connections ended. When ctx is over, what is still open is
// cut. The error then says how many connections were still busy; they end by
// themselves as soon as their handlers return.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closeListeners()
	s.accepting.Wait()
	s.each((*conn).dismiss)
	s.mu.Lock()
	n := len(s.conns)
	s.mu.Unlock()
	if n > 0 {
		s.options.Log.Info("waiting for connections to end", slog.Int("connections", n))
	}
	select {
	case <-s.idle:
	case <-ctx.Done():
		s.each((*conn).cut)
		if err := s.settle(); err != nil {
			return err
		}
	}
	s.workers.Wait()
	return nil
}

// settle gives connections that were cut a moment to end.
func (s *Server) settle() error {
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-s.idle:
		return nil
	case <-late.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Errorf("shut down transport: %d connections were cut and have not ended yet", len(s.conns))
	}
}

// closeListeners begins the shutdown, the first time it is called.
func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shutting {
		return
	}
	s.shutting = true
	close(s.shut)
	for l := range s.listeners {
		l.Close()
	}
	s.workers.Go(func() { // ends with the last connection
		s.running.Wait()
		close(s.idle)
		s.flush.close()
	})
}

// each calls do for all connections there are.
func (s *Server) each(do func(*conn)) {
	s.mu.Lock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		do(c)
	}
}

// dismiss tells a connection that the server ends.
func (c *conn) dismiss() {
	c.stop(&ending{err: core.Errorf(core.CodeUnavailable, "shutting down"), polite: true, tell: true})
}

// cut ends a connection now.
func (c *conn) cut() {
	c.stop(&ending{err: core.Errorf(core.CodeUnavailable, "shutting down")})
	c.conn.Close()
}

// peerOf says who is at the other end.
func peerOf(nc net.Conn, o *ListenerOptions) protocols.Peer {
	p := protocols.Peer{Listener: o.Name, VHost: o.VHost, Remote: "pipe", Secure: true}
	switch a := nc.RemoteAddr().(type) {
	case *net.TCPAddr:
		p.Remote, p.Secure = a.String(), a.IP.IsLoopback()
	case *net.UnixAddr:
		p.Remote = a.String()
		if p.Remote == "" {
			p.Remote = "@"
		}
	}
	return p
}
