package main

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/godwitmq/godwit/config"
)

// limitMemory tells the Go runtime how much the store's profile leaves it,
// unless GOMEMLIMIT or GOGC say otherwise.
func limitMemory(c config.Store, log *slog.Logger) {
	if c.Driver != "badger" {
		return
	}
	limit, percent := c.Badger.Profile.Memory()
	if os.Getenv("GOMEMLIMIT") == "" && limit > 0 {
		debug.SetMemoryLimit(limit)
		log.Debug("memory", slog.Int64("limit", limit))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
