//go:build unix

package transport

import (
	"flag"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"
)

var idle = flag.Int("idle", 1000, "connections of TestIdleConnectionsAreCheap")

// mission: N4
func TestIdleConnectionsAreCheap(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := min(*idle, int(limit.Cur)/2-100)
	e := newEcho(t)
	h := start(t, "tcp", Options{MaxConnectionsPerSecond: -1}, e)
	clients := make([]net.Conn, n)
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	before := used()
	for i := range clients {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		clients[i] = c
	}
	dialled := used() // about half of this is the clients'
	for _, c := range clients {
		peer := &client{c, t}
		peer.send("x")
		peer.want("x")
	}
	for range n {
		h.handler()
	}
	eventually(t, "they are idle", func() bool { return h.Stats().Reads >= uint64(n) })
	time.Sleep(10 * time.Millisecond)
	after := used()
	t.Logf("%d connections: %d bytes each, handler and client's end included (%d before a byte was sent)",
		n, (after-before)/uint64(n), (dialled-before)/uint64(n))
	if each := (after - before) / uint64(n); each > 7<<10 {
		t.Errorf("an idle connection costs %d bytes, want at most 7 kB", each)
	}
}

// used is what the heap and the stacks use.
func used() uint64 {
	runtime.GC()
	runtime.GC()
	runtime.GC() // pools are emptied in two, stacks shrink in each
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
