package line

import (
	"slices"
	"strings"
	"time"

	"github.com/godwitmq/godwit/core"
)

// A posted is a message and room for its first headers: one allocation.
type posted struct {
	core.Message
	few [4]core.Header
}

// pub publishes. With an id it is answered by CONFIRM or ERR.
func (h *handler) pub(r *request) error {
	m, err := h.message(r)
	if err != nil {
		return err
	}
	if h.inBatch() {
		return h.enlist(r, core.Op{Publish: m}, m.Size())
	}
	id, err := h.rising(r, pubID)
	if err != nil {
		return err
	}
	return h.publish(m, id)
}

// say publishes the rest of the line.
func (h *handler) say(r *request) error {
	where, err := h.target(r)
	if err != nil {
		return err
	}
	m := &core.Message{Address: where, Priority: core.DefaultPriority, Body: append([]byte(nil), r.arg(1)...)}
	if h.inBatch() {
		m.QoS = 1
		return h.enlist(r, core.Op{Publish: m}, m.Size())
	}
	return h.publish(m, 0)
}

// rising is the request's id, if it has one. They must rise.
func (h *handler) rising(r *request, option int) (int64, error) {
	if !r.has(option) {
		return 0, nil
	}
	id := r.num[option]
	if id <= h.lastID {
		return 0, core.Errorf(core.CodeConflict, "ids rise: %d came before, or a higher one", id)
	}
	return id, nil
}

func (h *handler) publish(m *core.Message, id int64) error {
	if id == 0 {
		return h.session.Publish(m, 0)
	}
	size := int64(len(m.Body))
	if !h.owe(uint64(id), size) {
		return core.ErrWait
	}
	if err := h.session.Publish(m, uint64(id)); err != nil {
		h.unowe(uint64(id))
		return err
	}
	h.lastID = id
	return nil
}

// message makes what a PUB publishes. It outlives Receive: all is copied.
func (h *handler) message(r *request) (*core.Message, error) {
	where, err := h.target(r)
	if err != nil {
		return nil, err
	}
	m, few := newMessage(r)
	m.Address, m.Priority = where, core.DefaultPriority
	m.Body = append([]byte(nil), r.payload...)
	if r.seen == 0 && few == nil {
		if h.inBatch() {
			m.QoS = 1
		}
		return m, nil
	}
	if err := h.attributes(m, r); err != nil {
		return nil, err
	}
	if err := h.times(m, r); err != nil {
		return nil, err
	}
	m.Headers = few
	if err := headers(m, r); err != nil {
		return nil, err
	}
	return m, nil
}

// newMessage makes an empty message and room for its headers, nil if it has
// none.
func newMessage(r *request) (*core.Message, []core.Header) {
	if len(r.headers) == 0 && !r.has(pubCT) && !r.has(pubCID) && !r.has(pubReply) {
		return new(core.Message), nil
	}
	p := new(posted)
	return &p.Message, p.few[:0]
}

// target is where a message goes: an address with a topic.
func (h *handler) target(r *request) (core.Address, error) {
	text := r.arg(0)
	if string(text) == h.last.text {
		return h.last.address, nil
	}
	where, err := h.address(r, 0)
	if err != nil {
		return where, err
	}
	switch {
	case where.Exchange == core.StreamExchange:
		return where, core.NotYet("streams (s/...)")
	case where.Exchange == core.TopicExchange && strings.ContainsAny(where.Topic, "+#"):
		return where, core.Errorf(core.CodeBadValue, "%s: a topic that is published to has no + or #", clip(text))
	}
	h.last = destination{string(text), where}
	return where, nil
}

// address reads an argument that is a destination.
func (h *handler) address(r *request, arg int) (core.Address, error) {
	a, err := core.ParseAddress(h.identity.VHost, string(r.arg(arg)))
	if err != nil {
		return a, core.AsError(err)
	}
	return a, nil
}

func (h *handler) attributes(m *core.Message, r *request) error {
	if r.has(pubQoS) {
		m.QoS = uint8(r.num[pubQoS])
	} else if r.has(pubID) || h.inBatch() {
		m.QoS = 1
	}
	if r.has(pubPri) {
		m.Priority = uint8(r.num[pubPri])
	}
	if m.Retain = r.has(pubRetain); m.Retain && m.Address.Exchange != core.TopicExchange {
		return core.Errorf(core.CodeBadValue, "retain is for t/ alone: queues and exchanges keep no last value")
	}
	m.Must = r.has(pubMust)
	if r.has(pubExpect) {
		m.Expect = core.Offset(r.num[pubExpect])
	}
	if r.has(pubDedup) && h.pid != "" {
		return core.Errorf(core.CodeBadValue, "a producer's ids are its dedup: leave dedup= out, or pid= of HELLO")
	}
	for _, w := range [...]struct {
		option int
		to     *string
	}{{pubKey, &m.Key}, {pubDedup, &m.Dedup}} {
		if !r.has(w.option) {
			continue
		}
		text, err := r.value(w.option)
		if err != nil {
			return err
		}
		*w.to = text
	}
	return nil
}

func (h *handler) times(m *core.Message, r *request) (err error) {
	if m.Expires, err = h.moment(r, pubTTL, pubExp); err != nil {
		return err
	}
	m.NotBefore, err = h.moment(r, pubDelay, pubAt)
	return err
}

// moment is a time that is said as a duration or in unix ms, not both.
func (h *handler) moment(r *request, lapse, millis int) (time.Time, error) {
	switch {
	case r.has(lapse) && r.has(millis):
		return time.Time{}, core.Errorf(core.CodeBadValue, "%s= and %s= say the same: use one", pubOptions[lapse].name, pubOptions[millis].name)
	case r.has(lapse):
		return h.broker.Now().Add(time.Duration(r.num[lapse])), nil
	case r.has(millis):
		return time.UnixMilli(r.num[millis]), nil
	}
	return time.Time{}, nil
}

// headers appends those that have a word, then the user's in their order.
func headers(m *core.Message, r *request) error {
	if r.has(pubCT) {
		text, err := r.value(pubCT)
		if err != nil {
			return err
		}
		m.Headers = append(m.Headers, core.Header{Name: core.HeaderContentType, Value: text})
	}
	if r.has(pubCID) {
		text, err := r.octets(pubCID)
		if err != nil {
			return err
		}
		m.Headers = append(m.Headers, core.Header{Name: core.HeaderCorrelationID, Value: text})
	}
	if r.has(pubReply) {
		a, err := core.ParseAddress("/", string(r.bytes(r.raw[pubReply])))
		if err != nil {
			return core.Errorf(core.CodeBadValue, "reply= %s", err)
		}
		m.Headers = append(m.Headers, core.Header{Name: core.HeaderReplyTo, Value: a.String()})
	}
	for _, s := range r.headers {
		header, err := header(r, s)
		if err != nil {
			return err
		}
		m.Headers = append(m.Headers, header)
	}
	if len(m.Headers) == 0 {
		m.Headers = nil
	}
	return nil
}

// header reads name=value. Percent signs are decoded after the split.
func header(r *request, s span) (core.Header, error) {
	equals := s
	for r.line[equals.from] != '=' {
		equals.from++
	}
	name, err := r.decoded(span{s.from, equals.from})
	if err != nil {
		return core.Header{}, err
	}
	value, err := r.decoded(span{equals.from + 1, s.to})
	if err != nil {
		return core.Header{}, err
	}
	return core.Header{Name: name, Value: value}, nil
}

// owed are the ids that wait for their answer, oldest first.
type owed struct {
	list  []debt
	bytes int64
}

type debt struct {
	id   uint64
	size int64
	done bool
	good bool
}

// settle notes an answer. It says up to which id all are answered now, 0 if
// that has not moved, and whether one of them was done.
func (o *owed) settle(id uint64, good bool) (done uint64, some bool) {
	at, ok := slices.BinarySearchFunc(o.list, id, func(d debt, id uint64) int {
		switch {
		case d.id < id:
			return -1
		case d.id > id:
			return 1
		}
		return 0
	})
	if !ok {
		return 0, false
	}
	o.list[at].done, o.list[at].good = true, good
	n := 0
	for n < len(o.list) && o.list[n].done {
		done, some = o.list[n].id, some || o.list[n].good
		o.bytes -= o.list[n].size
		n++
	}
	if n == len(o.list) {
		o.list = o.list[:0]
	} else {
		o.list = o.list[n:]
	}
	return done, some
}

// owe notes that an id waits for its answer, or says that there are too many.
func (h *handler) owe(id uint64, size int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if size > 0 && h.owed.bytes > 0 && h.owed.bytes+size > maxOwedBytes {
		h.crowded = true // an answer makes room
		return false
	}
	h.owed.list = append(h.owed.list, debt{id: id, size: size})
	h.owed.bytes += size
	return true
}

// unowe takes back the newest.
func (h *handler) unowe(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.owed.list) - 1; n >= 0 && h.owed.list[n].id == id {
		h.owed.bytes -= h.owed.list[n].size
		h.owed.list = h.owed.list[:n]
	}
}
