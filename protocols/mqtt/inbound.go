package mqtt

import "sync"

// What has happened to a publish that is owed an answer.
type stage byte

const (
	stageNone      stage = iota
	stagePuback          // QoS 1: core has it, PUBACK is owed
	stagePubrec          // QoS 2: core has it, PUBREC is owed
	stageReceived        // PUBREC is sent, PUBREL is awaited
	stageReleasing       // PUBREL is here; the id is on its way off the disk
)

// inbound are the packet ids of the publishes that a client has sent and not
// yet been answered to the end. Receive adds, Deliver answers: a lock is held
// for one slot.
//
// The table is open addressing, four bytes a slot and at most half full; an
// idle connection has none.
type inbound struct {
	mu    sync.Mutex
	slots []uint32 // stage<<16 | id; 0: empty
	used  int
}

func (in *inbound) find(id uint16) (at int, found bool) {
	mask := len(in.slots) - 1
	for at = int(id*0x9e37) & mask; in.slots[at] != 0; at = (at + 1) & mask {
		if uint16(in.slots[at]) == id {
			return at, true
		}
	}
	return at, false
}

// stage says what happened to an id.
func (in *inbound) stage(id uint16) stage {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.used == 0 {
		return stageNone
	}
	if at, found := in.find(id); found {
		return stage(in.slots[at] >> 16)
	}
	return stageNone
}

// set moves an id on, or begins it.
func (in *inbound) set(id uint16, s stage) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if 2*(in.used+1) > len(in.slots) {
		in.grow()
	}
	at, found := in.find(id)
	if !found {
		in.used++
	}
	in.slots[at] = uint32(s)<<16 | uint32(id)
}

func (in *inbound) grow() {
	old := in.slots
	in.slots = make([]uint32, max(16, 2*len(old)))
	for _, s := range old {
		if s != 0 {
			at, _ := in.find(uint16(s))
			in.slots[at] = s
		}
	}
}

// remove ends an id. What stands behind it moves up, so that find may stop at
// the first empty slot.
func (in *inbound) remove(id uint16) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.used == 0 {
		return
	}
	at, found := in.find(id)
	if !found {
		return
	}
	in.used--
	mask := len(in.slots) - 1
	for next := (at + 1) & mask; in.slots[next] != 0; next = (next + 1) & mask {
		home := int(uint16(in.slots[next])*0x9e37) & mask
		if (next-home)&mask >= (next-at)&mask {
			in.slots[at] = in.slots[next]
			at = next
		}
	}
	in.slots[at] = 0
}

// owed is how many ids count against Receive Maximum.
func (in *inbound) owed() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.used
}
