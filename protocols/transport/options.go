package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// Options configure a Server. The zero value works, and the zero value of a
// field is its default.
type Options struct {
	Broker *core.Broker // what protocols are opened on, and whose clock Tick is told; nil: only for protocols that need none
	Log    *slog.Logger // nil: nothing is logged

	Flushers                int           // goroutines that write for all connections; as many as CPUs, at least 2
	MaxConnections          int           // open at a time on all listeners, those above are closed at once; 100,000
	MaxConnectionsPerSecond int           // those above wait in the kernel's queue; 1,000, -1: no limit
	SniffTimeout            time.Duration // until the first bytes have told the protocol; 10 s
	WriteTimeout            time.Duration // a full socket that takes nothing for so long is closed; 30 s
	FrameMax                int           // bytes of one unfinished frame; 256 MiB and 64 KiB
}

// ListenerOptions say what is spoken on a listener. Protocols is required.
type ListenerOptions struct {
	Name           string               // in Peer.Listener and in logs; the address if empty
	VHost          string               // Peer.VHost
	Protocols      []protocols.Protocol // several: the first whose Sniff says yes
	MaxConnections int                  // open at a time on this listener; 0: only the server's limit
	Fallback       bool                 // the first protocol answers what no Sniff knows, in its own words; never TLS or HTTP
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	set(&o.Flushers, max(2, runtime.GOMAXPROCS(0)))
	set(&o.MaxConnections, 100_000)
	set(&o.MaxConnectionsPerSecond, 1_000)
	set(&o.SniffTimeout, 10*time.Second)
	set(&o.WriteTimeout, 30*time.Second)
	set(&o.FrameMax, 256<<20+64<<10)
	return o
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate returns every fault at once.
func (o Options) Validate() error {
	var faults []error
	atLeast := func(name string, have, least int) {
		if have != 0 && have < least {
			faults = append(faults, fmt.Errorf("%s is %d: give at least %d, or 0 for the default", name, have, least))
		}
	}
	lasting := func(name string, have time.Duration) {
		if have != 0 && have < time.Millisecond {
			faults = append(faults, fmt.Errorf("%s is %v: give at least 1ms, or 0 for the default", name, have))
		}
	}
	atLeast("Flushers", o.Flushers, 1)
	atLeast("MaxConnections", o.MaxConnections, 1)
	if o.MaxConnectionsPerSecond != -1 {
		atLeast("MaxConnectionsPerSecond", o.MaxConnectionsPerSecond, 1)
	}
	atLeast("FrameMax", o.FrameMax, 1<<10)
	lasting("SniffTimeout", o.SniffTimeout)
	lasting("WriteTimeout", o.WriteTimeout)
	return errors.Join(faults...)
}

// Validate returns every fault at once.
func (o ListenerOptions) Validate() error {
	var faults []error
	if len(o.Protocols) == 0 {
		faults = append(faults, fmt.Errorf("listener %q speaks no protocol: give it at least one", o.Name))
	}
	if o.MaxConnections < 0 {
		faults = append(faults, fmt.Errorf("listener %q: MaxConnections is %d: give at least 1, or 0 for no limit of its own", o.Name, o.MaxConnections))
	}
	return errors.Join(faults...)
}
