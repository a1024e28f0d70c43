package line_test

import (
	"testing"

	"github.com/godwitmq/godwit/core/coretest"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/line"
	"github.com/godwitmq/godwit/protocols/protocoltest"
)

// mission: S8 S37
func TestTranscripts(t *testing.T) {
	protocoltest.Run(t, "testdata", protocoltest.Options{
		Protocols: map[string]protocols.Protocol{"line": line.New(line.Options{})},
		NewDisk:   func() coretest.Disk { return memory.New(memory.Options{}) },
		Split:     true,
	})
}
