package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/godwitmq/godwit/config"
	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
)

// declare makes what the configuration says exists in each virtual host: all
// of one, or nothing.
func declare(ctx context.Context, b *core.Broker, c *config.Config) error {
	return eachVHost(ctx, b, c, func(d *declarer, changes []core.Change) error {
		return d.apply(ctx, changes...)
	})
}

// rehearse declares the same on a broker that forgets it, entry by entry, and
// says everything that the real one would refuse.
func rehearse(ctx context.Context, c *config.Config) error {
	b, err := core.New(core.Options{Store: memory.New(memory.Options{}), Limits: c.Limits, Topology: c.Topology, VHosts: vhostNames(c), Policies: policies(c)})
	if err != nil {
		return err
	}
	refusals := eachVHost(ctx, b, c, func(d *declarer, changes []core.Change) error {
		var errs []error
		for i := range changes {
			if err := d.apply(ctx, changes[i]); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", entry(&changes[i]), err))
			}
		}
		return errors.Join(errs...)
	})
	return errors.Join(refusals, b.Close(ctx))
}

func vhostNames(c *config.Config) []string { return slices.Sorted(maps.Keys(c.VHosts)) }

func policies(c *config.Config) map[string][]core.Policy {
	out := make(map[string][]core.Policy)
	for name, v := range c.VHosts {
		out[name] = v.Policies
	}
	return out
}

func eachVHost(ctx context.Context, b *core.Broker, c *config.Config, do func(*declarer, []core.Change) error) error {
	var errs []error
	for _, name := range vhostNames(c) {
		changes, err := c.VHosts[name].Changes(name)
		if err == nil && len(changes) > 0 {
			d := newDeclarer(b, name)
			err = do(d, changes)
			d.session.Close(core.Closing{})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("declare what virtual host %s holds: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// entry names a change as the file does.
func entry(c *core.Change) string {
	switch {
	case c.Exchange != nil:
		return "exchange " + c.Exchange.Name
	case c.Queue != nil:
		return "queue " + c.Queue.Name
	case c.Binding != nil:
		return "binding of " + c.Binding.Target() + " to " + c.Binding.Source.String()
	}
	return "entry"
}

// A declarer is the configuration's own session: no protocol, no socket.
type declarer struct {
	session *core.Session
	woken   wake
	token   uint64
	spare   []core.Event
}

// wake is a Waker that a goroutine can wait for.
type wake chan struct{}

func (w wake) Wake() {
	select {
	case w <- struct{}{}:
	default:
	}
}

func newDeclarer(b *core.Broker, vhost string) *declarer {
	d := &declarer{woken: make(wake, 1), token: 1}
	id := core.Identity{VHost: vhost, User: "config", Client: "config", Protocol: "config"}
	d.session = b.Open(id, core.SessionSpec{}, d.token, d.woken)
	return d
}

// declareWithin bounds the wait for a store that does not answer.
const declareWithin = 30 * time.Second

// apply applies the changes and waits until they are durable, or refused.
func (d *declarer) apply(ctx context.Context, changes ...core.Change) error {
	ctx, cancel := context.WithTimeoutCause(ctx, declareWithin, errors.New("the store does not answer"))
	defer cancel()
	d.token++
	d.session.Apply(changes, d.token)
	for {
		events, open := d.session.Events().Take(d.spare)
		for _, e := range events {
			if e.Kind == core.Confirmed && e.Token == d.token {
				return e.Err
			}
		}
		d.spare = events
		if !open {
			return core.ErrClosed
		}
		select {
		case <-d.woken:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
