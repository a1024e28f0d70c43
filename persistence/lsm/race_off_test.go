//go:build !race

package lsm

const raced = false
