package torture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/godwitmq/godwit/core"
)

// A history is what the batches of a run hold. It is a function of the seed,
// the partition and the batch's number, which counts from 1.
//
// Each batch appends some messages to one log for one, two or three cursors,
// and one to a log that nobody owes; sets or deletes one of 64 values; and
// settles older messages, as three kinds of readers do:
//
//	swift    acknowledges a batch 100 batches later, but one message in eight
//	         only 1,000 later: what it has settled has holes
//	steady   acknowledges 50 batches at once, with one range
//	sleeper  comes back each 6,000 batches: what it owes leaves the journal
type history struct {
	seed uint64
	part core.PartitionID
}

// The names of a history in a partition.
const (
	sharedLog core.LogID = 1
	openLog   core.LogID = 2 // the one nobody owes

	swift   core.CursorID = 10
	steady  core.CursorID = 11
	sleeper core.CursorID = 12

	pair core.RouteSetID = 20 // swift and steady
	all  core.RouteSetID = 21

	table core.Table = 1
)

var readers = []struct {
	cursor core.CursorID
	name   string
}{{swift, "the swift reader"}, {steady, "the steady reader"}, {sleeper, "the sleeper"}}

// How long readers take, in batches.
const (
	swiftAfter   = 100
	heldAfter    = 1000
	steadyEach   = 50
	sleeperEach  = 6000
	markAfter    = 70 // the steady reader's second attempt
	trimEach     = 500
	trimKeeps    = 1000
	longestOwed  = 2*sleeperEach + 1
	valueKeys    = 64
	mostMessages = 12
	openIndex    = 99 // the index of the batch's message in the open log
)

// A name says which message of a history one is.
type name struct {
	batch uint64
	index int
}

func (n name) before(o name) bool {
	return n.batch < o.batch || (n.batch == o.batch && n.index < o.index)
}

func (n name) String() string { return fmt.Sprintf("message %d of batch %d", n.index, n.batch) }

// mix is a good hash of few numbers (splitmix64).
func mix(numbers ...uint64) uint64 {
	x := uint64(0)
	for _, n := range numbers {
		x += n + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}

func (h history) dice(n name) uint64 {
	return mix(h.seed, uint64(h.part), n.batch, uint64(n.index))
}

// messages is how many messages batch n appends to the shared log.
func (h history) messages(n uint64) int {
	return 1 + int(mix(h.seed, uint64(h.part), n)%mostMessages)
}

// routes says who owes a message of the shared log.
func (h history) routes(n name) core.RouteSetID {
	switch h.dice(n) % 8 {
	case 0, 1:
		return core.Solo(swift)
	case 2, 3:
		return core.Solo(steady)
	case 4, 5:
		return core.Solo(sleeper)
	case 6:
		return pair
	}
	return all
}

// owes says whether the cursor owes the message until it settles it.
func (h history) owes(c core.CursorID, n name) bool {
	switch r := h.routes(n); r {
	case all:
		return true
	case pair:
		return c != sleeper
	default:
		return r == core.Solo(c)
	}
}

// held says that the swift reader takes its time with the message.
func (h history) held(n name) bool { return h.dice(n)>>3%8 == 0 }

// settledBy is the batch in which the cursor settles the message.
func (h history) settledBy(c core.CursorID, n name) uint64 {
	switch {
	case c == steady:
		return n.batch/steadyEach*steadyEach + 3*steadyEach
	case c == sleeper:
		return n.batch/sleeperEach*sleeperEach + 2*sleeperEach
	case h.held(n):
		return n.batch + heldAfter
	}
	return n.batch + swiftAfter
}

// size is how long a body is: most are small, few are large.
func (h history) size(n name) int {
	switch d := h.dice(n) >> 8; {
	case d%1000 < 900:
		return 16 + int(d>>10%1000)
	case d%1000 < 998:
		return 16 + int(d>>10%8000)
	default:
		return 16 + int(d>>10%300_000)
	}
}

// message makes a message, the same each time.
func (h history) message(n name) *core.Message {
	body := fmt.Appendf(nil, "%d %d %d\n", h.part, n.batch, n.index)
	return &core.Message{
		Address: core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "torture/" + strconv.Itoa(n.index)},
		QoS:     1,
		Key:     "key-" + strconv.FormatUint(n.batch%16, 10),
		Headers: []core.Header{{Name: "publisher", Value: strconv.Itoa(int(h.part))}, {Name: "number", Value: strconv.FormatUint(n.batch, 10)}},
		Body:    noise(body, h.dice(n), h.size(n)),
	}
}

// noise appends n octets that follow from the seed.
func noise(out []byte, seed uint64, n int) []byte {
	for end := len(out) + n; len(out) < end; seed++ {
		out = binary.LittleEndian.AppendUint64(out, mix(seed))
		out = out[:min(len(out), end)]
	}
	return out
}

// nameOf reads what message wrote.
func (h history) nameOf(m *core.Message) (n name, ok bool) {
	head, _, _ := bytes.Cut(m.Body, []byte{'\n'})
	var part core.PartitionID
	got, err := fmt.Sscanf(string(head[:min(len(head), 64)]), "%d %d %d", &part, &n.batch, &n.index)
	return n, err == nil && got == 3 && part == h.part
}

// isWritten says whether m is what message made of n.
func (h history) isWritten(m *core.Message, n name) bool {
	return sameMessage(m, h.message(n))
}

func sameMessage(a, b *core.Message) bool {
	return bytes.Equal(core.AppendMessage(nil, a), core.AppendMessage(nil, b))
}

// value is what batch n sets; nil: it deletes.
func (h history) value(n uint64) core.Record {
	r := core.Record{Table: table, Key: valueKey(n)}
	if n%7 != 3 {
		d := mix(h.seed, uint64(h.part), n, 1000)
		r.Value = noise(strconv.AppendUint(nil, n, 10), d, int(d%400))
	}
	return r
}

func valueKey(n uint64) []byte { return fmt.Appendf(nil, "value/%02d", n%valueKeys) }

// values are what the keys must hold after batch last.
func (h history) values(last uint64) map[string][]byte {
	want := map[string][]byte{}
	for n := last; n > 0 && n+valueKeys > last; n-- {
		if r := h.value(n); r.Value != nil {
			want[string(r.Key)] = r.Value
		}
	}
	return want
}

// Records that say where the history is.
var (
	lastKey = []byte("last")
	seedKey = []byte("seed")
)

// count is how many messages the batches from+1 to last append, the open log's
// included.
func (h history) count(from, last uint64) (n int64) {
	for b := from + 1; b <= last; b++ {
		n += int64(h.messages(b)) + 1
	}
	return n
}
