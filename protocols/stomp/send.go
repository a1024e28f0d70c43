package stomp

import (
	"bytes"
	"encoding/base64"
	"strings"
	"time"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
)

// A target is a destination that was sent to before.
type target struct {
	place
	declared bool // a SEND has declared the queue or exchange
}

// maxKnown is how many destinations a connection remembers.
const maxKnown = 64

// A draft is a SEND on its way to a message. Its text lies in the read buffer.
type draft struct {
	seen        uint32 // fields, by bit
	destination []byte
	transaction []byte
	receipt     receipt
	base64      bool
	queue       bool // it has arguments for a queue
	exchange    bool // it describes an exchange
	hasQoS      bool
	qos         uint8
	priority    uint8
	retain      bool
	transient   bool
	expires     time.Time
	lives       time.Duration
	deliverAt   time.Time
	delay       time.Duration
	key         entry
	dedup       entry
	text        []byte  // scratch: the text that the message keeps
	entries     []entry // headers it keeps
}

// An entry is one text that a message keeps: text[from:mid] is a header's
// name, if it is none of the known ones, and text[mid:to] its value.
type entry struct {
	known         string
	from, mid, to int
}

func (d *draft) reset() {
	*d = draft{priority: core.DefaultPriority, text: d.text[:0], entries: d.entries[:0]}
	if cap(d.text) > 8<<10 {
		d.text = nil
	}
	if cap(d.entries) > 64 {
		d.entries = nil
	}
}

func (d *draft) keep(known string, name, value []byte) entry {
	e := entry{known: known, from: len(d.text)}
	d.text = append(d.text, name...)
	e.mid = len(d.text)
	d.text = append(d.text, value...)
	e.to = len(d.text)
	return e
}

// send publishes a message.
func (h *handler) send() error {
	d := &h.draft
	d.reset()
	if err := h.read(d); err != nil {
		return err
	}
	if d.destination == nil {
		return missing(frame.Destination)
	}
	t, err := h.target(d.destination)
	if err != nil {
		return err
	}
	if d.retain && t.kind != topicPlace {
		return core.Errorf(core.CodeBadValue, "header retain: only a topic retains")
	}
	if d.queue && t.kind == queuePlace && !t.declared {
		return h.declareFirst(t)
	}
	if d.exchange && !t.declared {
		return h.declareExchange(t)
	}
	m := h.compose(d, t.at)
	if d.transaction != nil {
		return h.sendLater(string(d.transaction), m, d.receipt)
	}
	token := uint64(0)
	if d.receipt.asked {
		token = h.owe(answer{step: stepReceipt, command: frame.SEND, receipt: d.receipt, wanted: h.wanted(m)})
	}
	err = h.session.Publish(m, token)
	if err != nil && token != 0 {
		h.redeem(token)
	}
	return err
}

// wanted says whether somebody should take m: a value that is retained is kept
// for whoever comes, and one that is past its time is for nobody.
func (h *handler) wanted(m *core.Message) bool {
	return !m.Retain && (m.Expires.IsZero() || !m.Expired(h.broker.Now()))
}

// read sorts the headers of a SEND.
func (h *handler) read(d *draft) error {
	for i := range h.view.Headers {
		hd := &h.view.Headers[i]
		f := fieldOf(hd.Name)
		if f == userField {
			d.entries = append(d.entries, d.keep("", hd.Name, hd.Value))
			continue
		}
		// STOMP 1.2, "Repeated Header Entries": the first one counts.
		if d.seen&(1<<f) != 0 && f < queueField {
			continue
		}
		d.seen |= 1 << f
		if err := h.readField(d, f, hd.Name, hd.Value); err != nil {
			return err
		}
	}
	return nil
}

func (h *handler) readField(d *draft, f field, name, value []byte) (err error) {
	switch f {
	case destinationField:
		d.destination = value
	case transactionField:
		d.transaction = value
	case receiptField:
		d.receipt = receipt{string(value), true}
	case contentTypeField:
		d.entries = append(d.entries, d.keep(core.HeaderContentType, nil, value))
	case correlationField:
		d.entries = append(d.entries, d.keep(core.HeaderCorrelationID, nil, value))
	case encodingField:
		if string(value) != "base64" {
			return badValue(headerEncoding, string(value), "base64")
		}
		d.base64 = true
	case replyToField:
		err = h.readReplyTo(d, string(value))
	case keyField:
		d.key = d.keep("", nil, value)
	case timestampField, messageIDField:
		d.entries = append(d.entries, d.keep("x-client-"+string(name), nil, value))
	case queueField:
		d.queue = true
	case exchangeField:
		d.exchange = true
	case dedupField:
		d.dedup = d.keep("", nil, value)
	case neverField:
		return core.Errorf(core.CodeBadValue, "header %s: recurring messages are not supported", name)
	case userField, reservedField:
	case expiresField, expirationField, priorityField, persistentField, qosField, retainField, delayField, deliverAtField:
		err = d.readValue(f, string(value))
	}
	return err
}

// readValue reads the fields that are numbers and switches.
func (d *draft) readValue(f field, value string) (err error) {
	var n int64
	var yes bool
	switch f { //nolint:exhaustive // the others are read elsewhere
	case expiresField:
		if n, err = count("expires", value); n > 0 {
			d.expires = time.UnixMilli(n)
		}
	case expirationField:
		d.lives, err = milliseconds("expiration", value)
	case delayField:
		d.delay, err = milliseconds("delay", value)
	case deliverAtField:
		if n, err = count("deliver-at", value); n > 0 {
			d.deliverAt = time.UnixMilli(n)
		}
	case priorityField:
		n, err = count("priority", value)
		d.priority = uint8(min(n, 9))
	case persistentField:
		yes, err = boolean("persistent", value)
		d.transient = !yes
	case qosField:
		if n, err = count("qos", value); err == nil && n > 2 {
			err = badValue("qos", value, "0, 1 or 2")
		}
		d.hasQoS, d.qos = true, uint8(min(n, 2))
	case retainField:
		d.retain, err = boolean("retain", value)
	}
	return err
}

// readReplyTo keeps the address that a reply-to names, so that every protocol
// finds it; what names none is kept as text.
func (h *handler) readReplyTo(d *draft, text string) error {
	p, err := h.names.target(text)
	if err == nil && p.kind == tempPlace {
		if p.at, err = h.replyAddress(text); err != nil {
			return err
		}
	}
	if err == nil {
		text = p.at.String()
	}
	d.entries = append(d.entries, d.keep(core.HeaderReplyTo, nil, []byte(text)))
	return nil
}

// target reads a destination, or remembers it: publishers repeat themselves.
func (h *handler) target(text []byte) (target, error) {
	if t, ok := h.known[string(text)]; ok {
		return t, nil
	}
	p, err := h.names.target(string(text))
	if err != nil {
		return target{}, err
	}
	switch p.kind {
	case tempPlace:
		at, ok := h.temps[string(text)]
		if !ok {
			return target{}, core.Errorf(core.CodeNotFound, "temporary queue %s is not this session's: name it in reply-to or SUBSCRIBE to it first", quoted(string(text)))
		}
		p.at = at
	case streamPlace:
		return target{}, core.NotYet("streams")
	case madePlace:
		if err := h.mustExist(p.at.Topic); err != nil {
			return target{}, err
		}
	case topicPlace, queuePlace, exchangePlace, replyPlace:
	}
	if len(h.known) >= maxKnown {
		clear(h.known)
	}
	h.known[string(text)] = target{place: p}
	return target{place: p}, nil
}

// mustExist says whether a queue is there.
func (h *handler) mustExist(queue string) error {
	page, err := h.broker.Inspect(core.Query{About: core.Queues, VHost: h.names.vhost, Name: queue, Hidden: true, Limit: 1})
	if err == nil && len(page.Rows) == 0 {
		err = core.Errorf(core.CodeNotFound, "queue %s does not exist", quoted(queue))
	}
	return err
}

// declareFirst makes the queue that a SEND describes, if it is not there. The
// frame comes again when that is done.
func (h *handler) declareFirst(t target) error {
	spec := &core.QueueSpec{Name: t.at.Topic}
	for i := range h.view.Headers {
		if name := string(h.view.Headers[i].Name); isQueueArgument(name) {
			if err := setArgument(spec, name, string(h.view.Headers[i].Value)); err != nil {
				return err
			}
		}
	}
	t.declared = true
	h.known[string(h.draft.destination)] = t
	token := h.owe(answer{step: stepResume, command: frame.SEND, receipt: h.draft.receipt})
	h.session.Apply([]core.Change{{Do: core.Declare, Queue: spec}}, token)
	return core.ErrWait
}

// declareExchange declares the exchange that a SEND describes. The frame comes
// again when that is done; its key is read as that kind of exchange reads it.
func (h *handler) declareExchange(t target) error {
	if t.kind != exchangePlace && t.at.Exchange != core.TopicExchange {
		return core.Errorf(core.CodeBadValue, "header %s: only /exchange/NAME is an exchange", exchangeType)
	}
	var args []argument
	for i := range h.view.Headers {
		if name := string(h.view.Headers[i].Name); isExchangeArgument(name) {
			args = append(args, argument{name, string(h.view.Headers[i].Value)})
		}
	}
	spec, err := h.exchangeSpec(t.at.Exchange, args)
	if err != nil {
		return err
	}
	n := h.names
	n.isTopic = func(string) bool { return spec.Kind == core.TopicKind }
	text := string(h.draft.destination)
	p, err := n.target(text)
	if err != nil {
		return err
	}
	h.known[text] = target{place: p, declared: true}
	token := h.owe(answer{step: stepExchange, command: frame.SEND, receipt: h.draft.receipt})
	h.session.Apply([]core.Change{{Do: core.Declare, Exchange: spec}}, token)
	return core.ErrWait
}

// A letter is a message with room for the headers it nearly always has: one
// allocation instead of two.
type letter struct {
	message core.Message
	headers [4]core.Header
}

// compose makes the message: the texts that are kept in one string, the body
// in another, and nothing that lies in the read buffer.
func (h *handler) compose(d *draft, to core.Address) *core.Message {
	l := new(letter)
	m := &l.message
	m.Address = to
	m.QoS = d.level()
	m.Priority = d.priority
	m.Retain = d.retain
	m.Body = bytes.Clone(h.view.Body)
	m.Expires = d.expires
	if d.expires.IsZero() && d.lives > 0 {
		m.Expires = h.broker.Now().Add(d.lives)
	}
	if m.NotBefore = d.deliverAt; d.deliverAt.IsZero() && d.delay > 0 {
		m.NotBefore = h.broker.Now().Add(d.delay)
	}
	text := string(d.text)
	m.Key, m.Dedup = text[d.key.mid:d.key.to], text[d.dedup.mid:d.dedup.to]
	m.Headers = l.headers[:0]
	if len(d.entries) > len(l.headers) {
		m.Headers = make([]core.Header, 0, len(d.entries))
	}
	for _, e := range d.entries {
		header := core.Header{Name: e.known, Value: text[e.mid:e.to]}
		if e.known == "" {
			header.Name = text[e.from:e.mid]
		} else if d.base64 && e.known == core.HeaderCorrelationID {
			header.Value = unbase64(header.Value)
		}
		m.Headers = append(m.Headers, header)
	}
	return m
}

// level is the QoS: one's own word, else what persistent says; without either
// a message is kept.
func (d *draft) level() uint8 {
	switch {
	case d.hasQoS:
		return d.qos
	case d.transient:
		return 0
	}
	return 1
}

// unbase64 is the octets that were written so because they are no text.
func unbase64(s string) string {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return s
	}
	return string(b)
}
