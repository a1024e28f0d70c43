package protocoltest

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/godwitmq/godwit/core"
)

// A Wire puts sockets between clients and handlers. Serve is called once a
// run: dial opens a connection to the port of a protocol, stop ends it all.
// Nobody can see from outside when a broker has come to rest, so a run over
// sockets waits: for an answer as long as it takes, and for nothing a moment.
type Wire struct {
	Serve func(b *core.Broker) (dial func(protocol string) (net.Conn, error), stop func(context.Context) error, err error)
}

const (
	answerTime = 10 * time.Second      // an answer that has not come by then does not come
	quietTime  = 20 * time.Millisecond // who says nothing so long is at rest
)

// deaf are the steps that need a hand on the clock, the power or the buffers.
var deaf = map[string]bool{"tick": true, "power": true, "stop": true, "go": true}

// wirable says whether a script can be played over sockets.
func (s *script) wirable() bool {
	for _, st := range s.steps {
		if st.kind == 'w' && deaf[st.words[0]] {
			return false
		}
	}
	return true
}

// A socket is the client's end. Its reader gathers what comes until the end.
type socket struct {
	nc net.Conn

	mu      sync.Mutex
	in      []byte
	end     error
	changed chan struct{}
	done    chan struct{} // the reader has ended
}

func newSocket(nc net.Conn) *socket {
	s := &socket{nc: nc, changed: make(chan struct{}, 1), done: make(chan struct{})}
	go s.read() // until the connection ends; close waits for it
	return s
}

func (s *socket) read() {
	defer close(s.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := s.nc.Read(buf)
		s.mu.Lock()
		s.in = append(s.in, buf[:n]...)
		s.end = err
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// take gives what has come, and why no more will.
func (s *socket) take() (in []byte, end error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, s.in = s.in, nil
	return in, s.end
}

func (s *socket) close() {
	s.nc.Close()
	<-s.done
}

// pull moves what has come to where the transcript looks, and says whether
// there was anything.
func (c *conn) pull() bool {
	if c.socket == nil {
		return false
	}
	in, end := c.socket.take()
	c.out = append(c.out, in...)
	if end != nil && !c.gone {
		c.gone, c.why = true, end
		return true
	}
	return len(in) > 0
}

// await waits until the transcript can see more, or the time is over.
func (c *conn) await(d time.Duration) bool {
	if c.socket == nil {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !c.pull() {
		if c.gone {
			return false
		}
		select {
		case <-c.socket.changed:
		case <-timer.C:
			return false
		}
	}
	return true
}

// quiet waits until no connection has said anything for a moment.
func (w *world) quiet() error {
	for deadline := time.Now().Add(answerTime); time.Now().Before(deadline); {
		heard := false
		time.Sleep(quietTime)
		for _, c := range w.order {
			heard = c.pull() || heard
		}
		if !heard {
			return nil
		}
	}
	return errors.New("the broker does not stop talking")
}
