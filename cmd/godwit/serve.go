package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/godwitmq/godwit/config"
	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/line"
	"github.com/godwitmq/godwit/protocols/mqtt"
	"github.com/godwitmq/godwit/protocols/stomp"
	"github.com/godwitmq/godwit/protocols/transport"
)

const (
	tickEvery  = 250 * time.Millisecond // how often the broker is told the time
	closeUntil = 10 * time.Second       // how long a clean end may take
)

// serve wires the house and runs it until ctx ends or the store is lost. What
// is built last is closed first.
func serve(ctx context.Context, c *config.Config, out io.Writer, log *slog.Logger) (err error) {
	var built closers
	defer func() { err = errors.Join(err, closeAll(built, log)) }()
	webLost := make(chan error, 1)

	state := new(readiness)
	web, err := openHTTP(c.HTTP.Address, state, &built, webLost)
	if err != nil {
		return err
	}
	limitMemory(c.Store, log)
	store, err := openStoreWhenRoom(ctx, c.Store, state, log)
	if err != nil {
		return err
	}
	built.add("store", store.Close)
	state.store.Store(&store)
	broker, err := core.New(core.Options{Store: store, Limits: c.Limits, Topology: c.Topology, Shards: c.Store.Shards, VHosts: vhostNames(c), Policies: policies(c)})
	if err != nil {
		return fmt.Errorf("open the broker: %w", err)
	}
	built.add("broker", broker.Close)
	built.add("clock", startClock(broker))
	if err := declare(ctx, broker, c); err != nil {
		return err
	}
	ports, err := openPorts(c, broker, log, &built)
	if err != nil {
		return err
	}
	state.set(ready)
	greet(out, c, ports, web)
	log.Info("serving", slog.String("version", versionText()), slog.String("store", store.Caps().Name))

	err = wait(ctx, broker.Fatal(), webLost, store.Health)
	state.set("stopping")
	return err
}

// wait returns when the program is to end, and why: nil if it was asked to.
func wait(ctx context.Context, fatal <-chan struct{}, webLost <-chan error, health func() core.Health) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-webLost:
		return fmt.Errorf("the http port ended: %w", err)
	case <-fatal:
		err := health().Err
		if err == nil {
			err = core.ErrPoisoned
		}
		return &exitError{exitStoreLost, fmt.Errorf("the store is lost; start again to go on with what the disk has: %w", err)}
	}
}

// closeAll is construction reversed, bounded by closeUntil.
func closeAll(built closers, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeUntil)
	defer cancel()
	log.Info("stopping", slog.String("within", closeUntil.String()))
	began := time.Now()
	err := built.close(ctx)
	log.Info("stopped", slog.String("after", time.Since(began).Round(time.Millisecond).String()))
	return err
}

// fullAgain is when a store is opened again that could not be on a full disk.
const fullAgain = 5 * time.Second

// openStoreWhenRoom stays up, not ready, while the disk is too full to open the
// store: whoever looks after the machine sees why, and need not start it again.
func openStoreWhenRoom(ctx context.Context, c config.Store, state *readiness, log *slog.Logger) (core.Store, error) {
	for {
		store, err := openStore(c, log)
		if !errors.Is(err, core.ErrReadOnly) {
			return store, err
		}
		log.Error("the disk is full; trying again until there is space", slog.Any("err", err), slog.Duration("every", fullAgain))
		state.set(err.Error())
		select {
		case <-time.After(fullAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func openStore(c config.Store, log *slog.Logger) (core.Store, error) {
	if c.Driver == "memory" {
		return memory.New(memory.Options{}), nil
	}
	o := c.Badger
	o.Log = log
	store, err := badger.Open(c.Dir, o)
	if err != nil {
		return nil, fmt.Errorf("open the data: %w", err)
	}
	return store, nil
}

// startClock tells the broker the time until it is closed.
func startClock(b *core.Broker) (closeClock func(context.Context) error) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticks := time.NewTicker(tickEvery)
		defer ticks.Stop()
		for {
			select {
			case now := <-ticks.C:
				b.Tick(now)
			case <-stop:
				return
			}
		}
	})
	return func(context.Context) error {
		close(stop)
		running.Wait()
		return nil
	}
}

// A port is an address that listens.
type port struct {
	name string
	addr net.Addr
}

// openHTTP serves /healthz and /readyz, unless it is off.
func openHTTP(address string, state *readiness, built *closers, lost chan<- error) (port, error) {
	if address == config.Off {
		return port{}, nil
	}
	l, err := listen("http", address)
	if err != nil {
		return port{}, err
	}
	built.add("http", serveHTTP(l, newHTTP(state), func(err error) { lost <- err }))
	return port{"http", l.Addr()}, nil
}

// openPorts serves the protocols on every port. All of them can be served by
// one port, which tells them apart by their first bytes.
func openPorts(c *config.Config, b *core.Broker, log *slog.Logger, built *closers) ([]port, error) {
	speaks := map[string]protocols.Protocol{
		"mqtt":  mqtt.New(c.MQTT),
		"stomp": stomp.New(c.STOMP),
		"line":  line.New(c.Line),
	}
	o := c.Connections
	o.Broker, o.Log = b, log
	t := transport.New(o)
	built.add("connections", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, closeUntil/2) // the rest is the store's
		defer cancel()
		return t.Shutdown(ctx)
	})
	var ports []port
	for _, name := range c.Ports() {
		lo := transport.ListenerOptions{Name: name, VHost: c.Listeners[name].VHost, MaxConnections: c.Listeners[name].MaxConnections, Fallback: true}
		for _, p := range c.Serves(name) {
			lo.Protocols = append(lo.Protocols, speaks[p])
		}
		l, err := listen(name, c.Listeners[name].Address)
		if err != nil {
			return nil, err
		}
		if err := t.Serve(l, lo); err != nil {
			return nil, fmt.Errorf("serve %s: %w", name, err)
		}
		ports = append(ports, port{name, l.Addr()})
	}
	return ports, nil
}

func listen(name, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w; choose another address, or off", name, address, err)
	}
	return l, nil
}
