//go:build !unix

package lsm

// A dirSyncer does nothing where a directory cannot be synced.
type dirSyncer struct{ path string }

func (d *dirSyncer) sync() (bool, error) { return false, nil }
