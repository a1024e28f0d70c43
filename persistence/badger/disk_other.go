//go:build !linux

package badger

// machineMemory is unknown.
func machineMemory() int64 { return 0 }

// walAdvice is Linux's affair.
type walAdvice struct{ dir string }

func (w *walAdvice) renew() int { return 0 }
