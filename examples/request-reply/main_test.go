package main

import (
	"strings"
	"testing"

	"github.com/godwitmq/godwit/examples/internal/house"
)

// The example is true, with the real program and stock clients: every question
// of every protocol is answered, whichever protocol the service speaks.
//
// mission: S13
func TestRequestReply(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out, house.Addresses{}, 10); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"mqtt  asked 10", "stomp asked 10", "line  asked 10", "who has gone is told so: 410"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
}
