package protocoltest_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/coretest"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/line"
	"github.com/godwitmq/godwit/protocols/mqtt"
	"github.com/godwitmq/godwit/protocols/protocoltest"
	"github.com/godwitmq/godwit/protocols/stomp"
	"github.com/godwitmq/godwit/protocols/transport"
)

var (
	update = flag.Bool("update", false, "rewrite what the transcripts expect")
	wire   = flag.Bool("wire", false, "play the transcripts over TCP")
)

func options() protocoltest.Options {
	return protocoltest.Options{
		Protocols: map[string]protocols.Protocol{
			"line":  line.New(line.Options{}),
			"mqtt":  mqtt.New(mqtt.Options{}),
			"stomp": stomp.New(stomp.Options{}),
		},
		NewDisk: func() coretest.Disk { return memory.New(memory.Options{}) },
		Split:   true,
		Update:  *update,
	}
}

// The contract, on three protocols: what a confirm, an ack, a refusal and a
// silence mean, and that any publisher reaches any reader. Each transcript
// says in its first line what it shows.
func TestContract(t *testing.T) {
	o := options()
	if *wire {
		o.Wire, o.Split = &protocoltest.Wire{Serve: serve}, false
	}
	protocoltest.Run(t, "testdata", o)
}

// serve puts transport and loopback sockets in front of a broker, a port for
// each protocol.
func serve(b *core.Broker) (func(string) (net.Conn, error), func(context.Context) error, error) {
	server := transport.New(transport.Options{Broker: b})
	ports := map[string]string{}
	for name, p := range options().Protocols {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		ports[name] = l.Addr().String()
		if err := server.Serve(l, transport.ListenerOptions{Name: name, Protocols: []protocols.Protocol{p}}); err != nil {
			return nil, nil, err
		}
	}
	dial := func(protocol string) (net.Conn, error) { return net.Dial("tcp", ports[protocol]) }
	return dial, server.Shutdown, nil
}

// Transcripts of what is promised and not kept yet.
func TestPending(t *testing.T) {
	protocoltest.Pending(t, "testdata/pending", options())
}

// A guard that keeps everybody away from secrets.
type guard struct{ core.LoopbackGuard }

func (guard) Allow(_ *core.Identity, a core.Access, _ func(core.Permit)) core.Permit {
	if strings.HasPrefix(a.Where.Topic, "secret") {
		return core.No
	}
	return core.Yes
}

// Who may not is told so in the words of its protocol, and nothing is done.
//
// mission: S9
// mission: P2
func TestDenied(t *testing.T) {
	o := options()
	o.Guard = guard{}
	protocoltest.Run(t, "testdata/guarded", o)
}

// A live reader that stops reading misses messages, and nobody else notices:
// the publisher is confirmed at once, its neighbour gets all, and when it goes
// on it gets what had room, in order.
//
// mission: S40
// mission: P4
func TestSlowReader(t *testing.T) {
	const messages, size = 150, 64 << 10 // 9 MiB, where 8 MiB may wait
	for _, proto := range []string{"line", "stomp", "mqtt"} {
		t.Run(proto, func(t *testing.T) {
			var s strings.Builder
			s.WriteString(proto + " slow= SUB 1 t/x\n" + proto + " quick= SUB 1 t/x\nstop slow\n")
			body := strings.Repeat("x", size)
			for i := 1; i <= messages; i++ {
				fmt.Fprintf(&s, "line p= PUB t/x id=%d | %d %s\nline p= CONFIRM %d\n", i, i, body, i)
				fmt.Fprintf(&s, "%s quick= MSG 1 t/x | %d $_\n", proto, i)
			}
			s.WriteString("go slow\n")
			for i := 1; i <= 100; i++ { // at least these had room
				fmt.Fprintf(&s, "%s slow= MSG 1 t/x | %d $_\n", proto, i)
			}
			s.WriteString("quick<-\np<-\n")
			o := options()
			o.Split = false // 9 MiB byte by byte prove nothing more
			if err := protocoltest.Play("slow reader", []byte(s.String()), o); err != nil {
				t.Error(err)
			}
		})
	}
}
