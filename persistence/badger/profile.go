package badger

import (
	"fmt"

	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/lsm"
	"github.com/godwitmq/godwit/persistence/space"
)

// A Profile is the size of the machine.
type Profile string

// The profiles.
const (
	Auto   Profile = ""       // Edge below 2 GiB of memory, else Server
	Edge   Profile = "edge"   // a small box: little memory, a flash card
	Server Profile = "server" // more of both
)

// A profile is the numbers behind a Profile.
type profile struct {
	maxRecord, maxBatch, maxOps int
	maxKey, maxValue            int
	staging                     int64 // bytes accepted: above it the pressure is high, above twice it Commit refuses
	blockBytes                  int   // a block at rest is closed when it has as many
	spillBytes                  int   // as many octets of open blocks a checkpoint keeps in memory
	overlay                     int64 // a checkpoint begins when as many octets of small values wait for one
	readers                     int
	segment                     int64 // octets of a journal segment
	segments                    int   // how many of them the journal likes to have
	sizes                       lsm.Sizes
	ballast                     bool
	flash                       Flash

	statfs func(dir string) (space.Size, error) // tests; nil: the system's
	disk   journal.Disk                         // tests; nil: the directory
}

var edgeProfile = profile{
	maxRecord: 4 << 20, maxBatch: 8<<20 - 64<<10, maxOps: 65536,
	maxKey: 8 << 10, maxValue: 256 << 10,
	staging: 1 << 20, blockBytes: 64 << 10, spillBytes: 4 << 20, overlay: 4 << 20, readers: 2,
	segment: 16 << 20, segments: 4, sizes: lsm.Edge,
}

var serverProfile = profile{
	maxRecord: 16 << 20, maxBatch: 32<<20 - 64<<10, maxOps: 65536,
	maxKey: 8 << 10, maxValue: 1<<20 - 16<<10,
	staging: 16 << 20, blockBytes: 256 << 10, spillBytes: 32 << 20, overlay: 32 << 20, readers: 4,
	segment: 64 << 20, segments: 16, sizes: lsm.Server,
}

// closedSegments is how many full segments a checkpoint waits for: with those
// that are kept one checkpoint longer than needed it is most of the journal.
func (p *profile) closedSegments() int { return max(1, p.segments*3/8) }

// highSegments is how many without a checkpoint are too many for comfort.
func (p *profile) highSegments() int { return max(3, p.segments*3/4) }

func (p Profile) resolve() (profile, error) {
	switch p {
	case Edge:
		return edgeProfile, nil
	case Server:
		return serverProfile, nil
	case Auto:
		if m := machineMemory(); m > 0 && m < 2<<30 {
			return edgeProfile, nil
		}
		return serverProfile, nil
	}
	return profile{}, fmt.Errorf("store profile %q: want %q or %q", p, Edge, Server)
}

// Memory is what the Go runtime should be told, unless the user has told it:
// a soft limit in bytes (0: none is known) and the percentage of GOGC. The rest
// of the machine is the kernel's, which has the journal and the tables cached.
func (p Profile) Memory() (limit int64, percent int) {
	memory := machineMemory()
	if p == Edge || p == Auto && memory > 0 && memory < 2<<30 {
		return 96 << 20, 50
	}
	return memory / 4, 100
}
