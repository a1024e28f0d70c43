//go:build race

package lsm

// raced says that the race detector is on, which takes memory itself.
const raced = true
