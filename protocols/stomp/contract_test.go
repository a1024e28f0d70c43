package stomp_test

import (
	"flag"
	"testing"

	"github.com/godwitmq/godwit/core/coretest"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/protocoltest"
	"github.com/godwitmq/godwit/protocols/stomp"
)

var update = flag.Bool("update", false, "rewrite what the transcripts expect")

// What STOMP's clients see, sentence by sentence.
func TestTranscripts(t *testing.T) {
	protocoltest.Run(t, "testdata", protocoltest.Options{
		Protocols: map[string]protocols.Protocol{"stomp": stomp.New(stomp.Options{ServerVersion: "test"})},
		NewDisk:   func() coretest.Disk { return memory.New(memory.Options{}) },
		Split:     true,
		Update:    *update,
	})
}
