//go:build !linux

package badger

// machineMemory is unknown.
func machineMemory() int64 { return 0 }

// processWrites is unknown.
func processWrites() int64 { return 0 }
