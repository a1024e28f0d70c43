//go:build !linux && !darwin && !windows

package space

// size is not known: a full disk says so itself.
func size(string) (Size, error) { return Size{}, nil }
