package protocoltest

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// toy is a protocol of five verbs without a broker behind it: it tries what
// the runner does for a handler.
type toy struct{}

func (toy) Name() string                 { return "toy" }
func (toy) Sniff([]byte) protocols.Match { return protocols.IsMatch }
func (toy) Open(l protocols.Link, _ *core.Broker) protocols.Handler {
	return &toyHandler{link: l}
}

type toyHandler struct {
	link    protocols.Link
	replies []string
	kept    []byte
	waiting bool
	wanted  int
	ticks   int
}

func (h *toyHandler) say(s string) {
	h.replies = append(h.replies, s)
	h.link.Wake()
}

func (h *toyHandler) Receive(in []byte) (n int, err error) {
	if len(in) < h.wanted {
		panic("bug: Receive came before what was wanted")
	}
	h.wanted = 0
	for {
		end := bytes.IndexByte(in[n:], '\n')
		if end < 0 {
			return n, nil
		}
		line := in[n : n+end]
		n += end + 1
		verb, rest, _ := strings.Cut(string(line), " ")
		switch verb {
		case "ECHO":
			h.say(rest)
		case "KEEP":
			h.kept = line // forbidden: line is lent
		case "KEPT":
			h.say(string(h.kept))
		case "WAIT":
			h.waiting = true
			h.link.TickEvery(500 * time.Millisecond)
			return n, core.ErrWait
		case "WANT":
			h.wanted, _ = strconv.Atoi(rest)
			h.link.Want(h.wanted)
			return n, nil
		case "BYE":
			h.say("bye")
			return n, &protocols.Close{Err: core.ErrClosed}
		case "DIE":
			return n, errors.New("a fault")
		case "PANIC":
			panic("bug: asked for")
		case "HALF":
			h.replies = append(h.replies, "\x00half")
			h.link.Wake()
		}
	}
}

func (h *toyHandler) Ahead(in []byte) { h.say("ahead " + string(bytes.TrimSpace(in))) }

func (h *toyHandler) Deliver(out []byte, _ []core.Event) []byte {
	for _, r := range h.replies {
		if half, ok := strings.CutPrefix(r, "\x00"); ok {
			out = append(out, half...)
			continue
		}
		out = append(append(out, r...), '\n')
	}
	h.replies = nil
	return out
}

func (h *toyHandler) Tick(time.Time) error {
	h.ticks++
	if h.waiting {
		h.waiting = false
		h.say("tick")
		h.link.Resume()
	}
	return nil
}

func (h *toyHandler) Closed(error) {}
