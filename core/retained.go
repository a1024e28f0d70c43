package core

import (
	"slices"
	"strings"

	"github.com/godwitmq/godwit/core/topic"
)

// retained holds the last value of each topic of a virtual host, in topic
// order. Its shard owns it.
type retained struct {
	values map[string]*Message
	topics []string // sorted
	bytes  int64
}

// Limits of retained values, a virtual host.
const (
	maxRetained      = 100_000
	maxRetainedBytes = 256 << 20
)

// refuses says why m cannot be kept, or nil.
func (r *retained) refuses(m *Message) *Error {
	if len(m.Body) == 0 {
		return nil
	}
	old := r.values[m.Address.Topic]
	if (old == nil && len(r.values) >= maxRetained) || r.bytes+r.grows(m) > maxRetainedBytes {
		return &Error{Code: CodeQuota, Reason: ReasonQueueFull, Text: "too many retained values"}
	}
	return nil
}

// grows is how many bytes more m would take than what it replaces.
func (r *retained) grows(m *Message) int64 {
	grow := m.Size()
	if old := r.values[m.Address.Topic]; old != nil {
		grow -= old.Size()
	}
	return grow
}

// set keeps m, or clears its topic if the body is empty, and says whether
// there is something to store.
func (r *retained) set(m *Message) (changed bool) {
	name := m.Address.Topic
	old := r.values[name]
	if len(m.Body) == 0 {
		if old == nil {
			return false
		}
		r.drop(name, old)
		return true
	}
	grow := r.grows(m)
	if r.values == nil {
		r.values = make(map[string]*Message)
	}
	if old == nil {
		at, _ := slices.BinarySearch(r.topics, name)
		r.topics = slices.Insert(r.topics, at, name)
	}
	r.values[name] = m
	r.bytes += grow
	return true
}

func (r *retained) drop(name string, old *Message) {
	delete(r.values, name)
	r.bytes -= old.Size()
	if at, ok := slices.BinarySearch(r.topics, name); ok {
		r.topics = slices.Delete(r.topics, at, at+1)
	}
}

// match lists the values that the filter matches, in topic order. The messages
// are shared: a list of 100,000 is 800 kB.
func (r *retained) match(filter string) (out []*Message) {
	if !topic.HasWildcard(filter) {
		if m := r.values[filter]; m != nil {
			out = append(out, m)
		}
		return out
	}
	prefix, _, _ := strings.Cut(filter, "+")
	prefix, _, _ = strings.Cut(prefix, "#")
	prefix = strings.TrimSuffix(prefix, "/") // "a/#" matches "a" too
	at, _ := slices.BinarySearch(r.topics, prefix)
	for _, name := range r.topics[at:] {
		if !strings.HasPrefix(name, prefix) {
			break
		}
		if topic.Match(filter, name) {
			out = append(out, r.values[name])
		}
	}
	return out
}

// A recall is a list of retained values on its way to a reader, as far as its
// outbox has room.
type recall struct {
	out   *Outbox
	sub   uint32
	only  Only
	list  []*Message
	again func(*recall) // puts it before its shard once more
}

// send delivers until the list or the room ends, and says whether it is done.
func (r *recall) send() bool {
	for i, m := range r.list {
		if !r.only.Takes(m.QoS) {
			continue
		}
		if !r.out.offer(Event{Kind: Delivered, Retained: true, Sub: r.sub, Message: m}, m.Size()) {
			r.list = r.list[i:]
			return false
		}
	}
	r.list = nil
	return true
}

// room is told by the outbox.
func (r *recall) room() { r.again(r) }
