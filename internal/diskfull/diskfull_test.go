//go:build linux

package diskfull

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	mounting = flag.Bool("mount", false, "make and mount a small disk; wants root")
	diskMB   = flag.Int64("disk", 1024, "MB of the disk; where it is much smaller than ten reserves, the store has less room for what it must do on a full one")
	program  = flag.String("binary", "", "the broker; built from ./cmd/godwit if empty")
)

// What each protocol says on a full disk.
var refusals = map[string]string{
	"mqtt":  "0x97",      // quota exceeded: MQTT has no word for a full disk
	"stomp": "ERROR 507", // its text says why
	"line":  "507 ",
}

// mission: P11, N16. A full disk refuses publishes on every protocol, with the
// reason; readers and acknowledgements go on; nothing confirmed is lost.
func TestDiskFull(t *testing.T) {
	if !*mounting || os.Getuid() != 0 {
		t.Skip("it mounts a small disk: go test -run TestDiskFull ./internal/diskfull -mount, as root")
	}
	disk := mount(t, *diskMB)
	b := newBroker(t, filepath.Join(disk, "data"), *program)
	b.start()
	b.awaitPorts("at first")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	all := publishers(b)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for _, p := range all {
		running.Go(func() { p.run(ctx) })
	}
	got := reading{}
	confirmedMore(b, all, "on an empty disk", 200)

	t.Log("somebody fills the disk")
	f := fill(t, disk)
	refusedMore(b, all, "full", 5)
	stillWorks(t, b, got, "full")
	b.mustLive("full")

	t.Log("there is space again")
	f.remove()
	confirmedMore(b, all, "space returned", 50)

	t.Log("full, kill -9, and started on the full disk")
	f = fill(t, disk)
	refusedMore(b, all, "full again", 5)
	b.kill()
	b.start()
	b.awaitPorts("started on a full disk")
	refusedMore(b, all, "started on a full disk", 5)
	stillWorks(t, b, got, "started on a full disk")
	lives(b, "started on a full disk", 3*time.Second)
	f.remove()
	confirmedMore(b, all, "space returned to the restarted one", 50)

	stop()
	running.Wait()
	for _, queue := range []string{"full-mqtt", "full-stomp", "full-line"} {
		readLine(t, b, queue, everything, got)
	}
	t.Logf("read: %v", got)
	nothingMissing(t, all, got)
	b.mustLive("at the end")
}

// confirmedMore waits until each publisher has n more confirmed.
func confirmedMore(b *broker, all []*publisher, when string, n int) {
	b.t.Helper()
	for _, p := range all {
		before, _, _, _ := p.state()
		b.await(when+": "+p.name+" is confirmed", func() bool {
			now, _, _, _ := p.state()
			return now >= before+n
		})
	}
}

// refusedMore waits until each is refused n more times, and looks at what they
// are told.
func refusedMore(b *broker, all []*publisher, when string, n int) {
	b.t.Helper()
	for _, p := range all {
		_, before, _, _ := p.state()
		b.await(when+": "+p.name+" is refused", func() bool {
			_, now, _, _ := p.state()
			return now >= before+n
		})
		_, _, refusal, ended := p.state()
		if !strings.Contains(refusal, refusals[p.name]) || !strings.Contains(refusal, "disk is full") {
			b.t.Errorf("%s: %s is told %q (its last connection ended with %q), want %q, and that the disk is full",
				when, p.name, refusal, ended, refusals[p.name])
		}
		b.t.Logf("%s: %s is told %q", when, p.name, refusal)
	}
}

// stillWorks: each queue is read on another protocol than it is written on.
func stillWorks(t *testing.T, b *broker, got reading, when string) {
	t.Helper()
	readSTOMP(t, b, "full-mqtt", 20, got)
	readMQTT(t, b, "full-line", 20, got)
	if n := readLine(t, b, "full-stomp", 20, got); n != 20 {
		t.Errorf("%s: read %d messages, want 20", when, n)
	}
	b.mustLive(when)
	t.Logf("%s: read and acknowledged: %v", when, got)
}

// lives watches for a while that nothing happens.
func lives(b *broker, when string, d time.Duration) {
	b.t.Helper()
	select {
	case <-b.ended:
		b.mustLive(when)
	case <-time.After(d):
	}
}

// nothingMissing compares what was confirmed with what came.
func nothingMissing(t *testing.T, all []*publisher, got reading) {
	t.Helper()
	for _, p := range all {
		missing := 0
		for n := range p.confirmed {
			if got[p.name][n] == 0 {
				missing++
			}
		}
		t.Logf("%s: %d confirmed, %d refused, %d missing", p.name, len(p.confirmed), p.refused, missing)
		if missing > 0 {
			t.Errorf("%s: %d confirmed messages are missing", p.name, missing)
		}
	}
}
