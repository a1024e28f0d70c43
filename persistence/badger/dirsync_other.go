//go:build !unix

package badger

// A dirSyncer does nothing where a directory cannot be synced.
type dirSyncer struct{ path string }

func (d *dirSyncer) sync() error { return nil }
