package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// watch looks at the anonymous memory of the process, ten times a second.
type watch struct{ peak atomic.Int64 }

func (w *watch) start() {
	go func() {
		for {
			w.peak.Store(max(w.peak.Load(), anonymous()))
			time.Sleep(100 * time.Millisecond)
		}
	}()
}

// text is the peak, and what is left when garbage is collected.
func (w *watch) text() string {
	w.peak.Store(max(w.peak.Load(), anonymous()))
	debug.FreeOSMemory()
	return fmt.Sprintf("%d MB at most, %d MB after a collection", w.peak.Load()>>10, anonymous()>>10)
}

// anonymous is RssAnon in kB; 0: unknown.
func anonymous() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			return n
		}
	}
	return 0
}
