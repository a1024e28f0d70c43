//go:build !linux

package space

import "errors"

// canHoldSpace: these are systems to develop on. There is no ballast.
const canHoldSpace = false

var errNoBallast = errors.New("this system does not allocate in advance")

type ballast struct{}

func newBallast(string) ballast      { return ballast{} }
func (ballast) size() int64          { return 0 }
func (ballast) grow(int64) error     { return errNoBallast }
func (ballast) shrink(n int64) error { return nil }
