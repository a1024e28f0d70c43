package main

import (
	"strings"
	"testing"

	"github.com/godwitmq/godwit/examples/internal/house"
)

// The example is true: with the real program and stock clients, each reading
// is worked on exactly once, and both workers get some.
func TestDeviceToQueue(t *testing.T) {
	b, err := house.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Stop()
	const n = 40
	done, err := work(t.Context(), b.Addresses, n)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := report(&out, done, n); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	by := map[string]int{}
	for _, w := range done {
		by[w.by]++
	}
	for _, worker := range []string{"stomp", "line"} {
		if by[worker] == 0 {
			t.Errorf("the %s worker got nothing of %d readings: %v", worker, n, by)
		}
	}
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		sentence string
		done     []worked
		wrong    bool
	}{
		{"each once is right", []worked{{"line", "plant/0/temp", reading(0)}, {"stomp", "plant/1/temp", reading(1)}}, false},
		{"a missing one is seen", []worked{{"line", "plant/0/temp", reading(0)}}, true},
		{"a doubled one is seen", []worked{{"line", "plant/0/temp", reading(0)}, {"stomp", "plant/0/temp", reading(0)}, {"line", "plant/1/temp", reading(1)}}, true},
	} {
		if err := report(new(strings.Builder), tt.done, 2); (err != nil) != tt.wrong {
			t.Errorf("%s: report = %v", tt.sentence, err)
		}
	}
}
