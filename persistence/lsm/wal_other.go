//go:build !linux

package lsm

import (
	"errors"
	"os"
)

// Elsewhere nothing is advised and nothing allocated: these are platforms to
// develop on.

func advise(string) int { return 0 }

func allocate(*os.File, int64) error { return errors.ErrUnsupported }

func freeSpace(string) (octets int64, ok bool) { return 0, false }

func (db *DB) warnOfLimits() {}
