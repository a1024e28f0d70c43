package coretest_test

import (
	"testing"
	"time"

	"github.com/godwitmq/godwit/core/coretest"
)

// Whatever time is to pass, the steps make it up, and are not too many.
func TestStepsAddUp(t *testing.T) {
	for _, d := range []time.Duration{0, time.Millisecond, coretest.Tick, time.Second + 1, time.Hour, 366 * 24 * time.Hour} {
		sum, n := time.Duration(0), 0
		for s := range coretest.Steps(d) {
			sum, n = sum+s, n+1
		}
		if sum != d || n > 1001 {
			t.Errorf("%v passes as %v in %d steps", d, sum, n)
		}
	}
}

func TestClockMovesBothWays(t *testing.T) {
	c := coretest.NewClock(coretest.Start)
	if got := c.Advance(-time.Hour); !got.Equal(coretest.Start.Add(-time.Hour)) || !got.Equal(c.Now()) {
		t.Errorf("an hour back the clock stands at %v", got)
	}
}
