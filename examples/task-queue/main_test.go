package main

import (
	"strings"
	"testing"

	"github.com/godwitmq/godwit/examples/internal/house"
)

// The example is true, with the real program and stock clients: every task is
// done once, the dead worker's is marked, and the poison one dies with its
// reason and comes back.
//
// mission: S45
func TestTaskQueue(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out, house.Addresses{}, 20); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"mqtt  died with task-of-the-dead", "did task-of-the-dead (again)", "cannot do poison",
		"poison is dead: max_attempts after 3 attempts", "did poison",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
}
