package transport

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A door is a listener and how many came through it.
type door struct {
	listener net.Listener // nil: ServeConn's
	options  ListenerOptions
	open     int // guarded by Server.mu
}

func newDoor(l net.Listener, o ListenerOptions) *door {
	if o.Name == "" && l != nil {
		o.Name = l.Addr().String()
	}
	return &door{listener: l, options: o}
}

// Serve accepts connections from l until Shutdown, which closes l. It returns
// at once; an error means that l was closed and nothing was accepted.
func (s *Server) Serve(l net.Listener, o ListenerOptions) error {
	if err := o.Validate(); err != nil {
		l.Close()
		return err
	}
	d := newDoor(l, o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shutting {
		l.Close()
		return errShut
	}
	s.listeners[l] = struct{}{}
	s.accepting.Go(func() { s.accept(d) })
	return nil
}

// accept runs a listener. An error of Accept, as when there are no file
// descriptors left, is waited out: spinning would only make it worse.
func (s *Server) accept(d *door) {
	var pause time.Duration
	var full noise
	log := s.options.Log.With(slog.String("listener", d.options.Name))
	for s.wait(s.rate.take(time.Now())) {
		nc, err := d.listener.Accept()
		switch {
		case err == nil:
			pause = 0
		case errors.Is(err, net.ErrClosed):
			s.closedUnder(log)
			return
		default:
			pause = min(max(5*time.Millisecond, 2*pause), time.Second)
			log.Warn("cannot accept connections, trying again", slog.Any("err", err), slog.Duration("pause", pause))
			if !s.wait(pause) {
				return
			}
			continue
		}
		keepAlive(nc)
		if err := s.admit(nc, d); err != nil {
			nc.Close()
			if full.now(time.Now()) {
				log.Warn("connections are refused", slog.Any("err", err), slog.Uint64("refused", s.count.refused.Load()))
			}
		}
	}
}

// closedUnder says so if somebody else has closed our listener.
func (s *Server) closedUnder(log *slog.Logger) {
	select {
	case <-s.shut:
	default:
		log.Warn("the listener was closed, no more connections are accepted on it")
	}
}

// wait says false if the server shuts down before d is over.
func (s *Server) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.shut:
		return false
	case <-timer.C:
		return true
	}
}

// keepAlive finds peers that vanished within 60 s + 3 x 15 s. Without it a
// half-open connection whose protocol has no heart-beat would stay for ever.
func keepAlive(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		// An error leaves the system's own setting, which is slower.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 3})
	}
}

// A rate lets so many connections through a second, and as many at once after
// a quiet second.
type rate struct {
	perSecond int // -1: all

	mu    sync.Mutex
	ahead time.Time // when all that came through are paid for
}

// take says how long the next one must wait.
func (r *rate) take(now time.Time) time.Duration {
	if r.perSecond < 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ahead.Before(now) {
		r.ahead = now
	}
	r.ahead = r.ahead.Add(time.Second / time.Duration(r.perSecond))
	return r.ahead.Sub(now) - time.Second
}

// A noise is something said at most every ten seconds.
type noise struct{ last time.Time }

func (n *noise) now(at time.Time) bool {
	if !n.last.IsZero() && at.Sub(n.last) < 10*time.Second {
		return false
	}
	n.last = at
	return true
}
