package transport

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/godwitmq/godwit/protocols"
)

// prefix is how many bytes tell a protocol.
const prefix = 12

// sniff finds out what the client speaks. It returns nil, and there is nothing
// to say to the client, if that is nothing we know or takes too long.
func (c *conn) sniff() protocols.Protocol {
	if len(c.door.options.Protocols) == 1 {
		return c.door.options.Protocols[0]
	}
	if c.conn.SetReadDeadline(time.Now().Add(c.server.options.SniffTimeout)) != nil {
		return nil // closed
	}
	for c.end.Load() == nil {
		n, err := c.wire.read(&c.in, c)
		if err != nil {
			c.unsniffed(err)
			return nil
		}
		c.server.count.read(n)
		p, more := guess(c.door.options.Protocols, c.in.bytes())
		switch {
		case p != nil:
			if c.conn.SetReadDeadline(time.Time{}) != nil {
				return nil
			}
			return p
		case !more && c.door.options.Fallback && !foreign(c.in.bytes()):
			if c.conn.SetReadDeadline(time.Time{}) != nil {
				return nil
			}
			return c.door.options.Protocols[0]
		case !more:
			c.unsniffed(nil)
			return nil
		}
	}
	return nil
}

// guess says which protocol begins like that, or whether more bytes may tell.
func guess(from []protocols.Protocol, in []byte) (p protocols.Protocol, more bool) {
	in = in[:min(len(in), prefix)]
	for _, p := range from {
		switch p.Sniff(in) {
		case protocols.IsMatch:
			return p, false
		case protocols.NeedMore:
			more = len(in) < prefix
		case protocols.NoMatch:
		}
	}
	return nil, more
}

// foreign says whether the bytes begin TLS or HTTP, which are answered by a
// close without a word: a browser may be used against us.
func foreign(in []byte) bool {
	if len(in) > 0 && in[0] == 0x16 {
		return true
	}
	for _, verb := range [...]string{"GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", "DELETE ", "PATCH "} {
		if bytes.HasPrefix(in, []byte(verb)[:min(len(verb), len(in))]) {
			return true
		}
	}
	return false
}

// unsniffed counts a client who spoke something else or hesitated. One who went
// away by itself, as port scanners and health checks do, is none of those, nor
// is one who is sent away because the server shuts down.
func (c *conn) unsniffed(err error) {
	if c.end.Load() != nil || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	c.server.count.sniffFailures.Add(1)
	c.server.options.Log.Debug("the first bytes are of no protocol spoken here",
		slog.String("listener", c.peer.Listener), slog.String("remote", c.peer.Remote), slog.Int("bytes", c.in.len()))
}
