package mqtt

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/godwitmq/godwit/core"
)

// A publishing is a PUBLISH where it lies in the frame.
type publishing struct {
	topic  []byte
	id     uint16
	body   []byte
	props  []byte // as they are on the wire
	alias  uint16 // 0: none
	expiry uint32
	flags  publishFlags
	header headerCount
}

type publishFlags byte

const (
	hasExpiry publishFlags = 1 << iota
	isText
)

// headerCount is what the headers of a message need.
type headerCount struct{ n, bytes int }

// readPublish walks through a PUBLISH in place. Nothing is copied, and nothing
// of it may be kept.
func readPublish(f *frame, version byte, limits *Options) (p publishing, bad *fault) {
	c := cursor{b: f.body}
	p.topic = c.bytes()
	if f.qos() > 0 {
		p.id = c.uint16()
		if p.id == 0 && !c.bad {
			return p, violation("packet id 0") // [MQTT-2.2.1-3]
		}
	}
	if c.bad {
		return p, malformed("the PUBLISH ends too early")
	}
	if version == 5 {
		if len(c.b) > 0 && c.b[0] == 0 {
			c.b = c.b[1:] // no properties: the usual case
		} else if bad := p.readProperties(&c, limits); bad != nil {
			return p, bad
		}
	}
	p.body = c.b
	if len(p.topic) == 0 && p.alias == 0 {
		return p, violation("neither a topic nor an alias")
	}
	return p, nil
}

func (p *publishing) readProperties(c *cursor, limits *Options) *fault {
	w, bad := walk(c, inPublish, limits)
	if bad != nil {
		return bad
	}
	p.props = w.cursor.b
	for w.more() {
		v, bad := w.next()
		if bad != nil {
			return bad
		}
		switch v.id {
		case packets.PropTopicAlias:
			if v.num == 0 || int(v.num) > limits.TopicAliasMaximum {
				return &fault{codeTopicAlias, "the topic alias is 0 or above the maximum"} // [MQTT-3.3.2-8] [MQTT-3.3.2-9]
			}
			p.alias = uint16(v.num)
		case packets.PropMessageExpiryInterval:
			p.expiry, p.flags = v.num, p.flags|hasExpiry
		case packets.PropPayloadFormat:
			if v.num == 1 {
				p.flags |= isText
			}
		case packets.PropResponseTopic:
			if bad := checkResponseTopic(v.bytes); bad != nil {
				return bad
			}
			p.header.n++
			p.header.bytes += len(v.bytes)
		default:
			p.header.n++
			p.header.bytes += len(v.name) + len(v.bytes)
		}
	}
	return nil
}

func checkResponseTopic(b []byte) *fault {
	if hasWildcardByte(b) {
		return violation("the response topic has wildcards") // [MQTT-3.3.2-14]
	}
	if core.CheckTopic(string(b)) != nil {
		return violation("the response topic is not a topic name") // [MQTT-3.3.2-13]
	}
	return nil
}

func hasWildcardByte(b []byte) bool {
	for _, c := range b {
		if c == '#' || c == '+' {
			return true
		}
	}
	return false
}

// message makes the message of a PUBLISH whose topic is resolved.
func (p *publishing) message(f *frame, t *target, now func() time.Time) *core.Message {
	m := newMessage(p.body)
	m.Address, m.QoS, m.Priority = t.address, f.qos(), core.DefaultPriority
	m.Retain, m.UTF8, m.Arrived = f.retain() && t.keeps, p.flags&isText != 0, now()
	if p.flags&hasExpiry != 0 {
		m.Expires = now().Add(seconds(p.expiry))
	}
	if p.header.n > 0 {
		p.headers(m)
		p.words(m, now)
	}
	if t.delay > 0 {
		m.NotBefore = now().Add(t.delay)
	}
	return m
}

// newMessage copies body. A small one is allocated together with its message,
// which it lives exactly as long as.
func newMessage(body []byte) *core.Message {
	switch n := len(body); {
	case n == 0:
		return new(core.Message)
	case n <= 48:
		both := new(struct {
			m    core.Message
			body [48]byte
		})
		both.m.Body = both.body[:copy(both.body[:], body):n]
		return &both.m
	case n <= 144:
		both := new(struct {
			m    core.Message
			body [144]byte
		})
		both.m.Body = both.body[:copy(both.body[:], body):n]
		return &both.m
	default:
		return &core.Message{Body: append(make([]byte, 0, n), body...)}
	}
}

// words reads the user properties that have a meaning for the broker. They are
// forwarded like all others; one whose value is not what it should be has none.
func (p *publishing) words(m *core.Message, now func() time.Time) {
	for i := range m.Headers {
		h := &m.Headers[i]
		switch h.Name {
		case "priority":
			if len(h.Value) == 1 && h.Value[0] >= '0' && h.Value[0] <= '9' {
				m.Priority = h.Value[0] - '0'
			}
		case "group-key":
			m.Key = h.Value
		case "dedup":
			m.Dedup = h.Value
		case "delay":
			if d, ok := lapse(h.Value); ok {
				m.NotBefore = now().Add(d)
			}
		case "deliver-at":
			if ms, err := strconv.ParseInt(h.Value, 10, 64); err == nil && ms > 0 {
				m.NotBefore = time.UnixMilli(ms)
			}
		}
	}
}

// lapse reads a number and one of ms, s, m, h, d, or milliseconds as STOMP's
// header of that name; at most 366 days.
func lapse(s string) (time.Duration, bool) {
	unit := strings.TrimLeft(s, "0123456789")
	n, err := strconv.ParseInt(s[:len(s)-len(unit)], 10, 64)
	scale, known := map[string]time.Duration{
		"": time.Millisecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}[unit]
	const most = 366 * 24 * time.Hour
	if err != nil || !known || n > int64(most/scale) {
		return 0, false
	}
	return time.Duration(n) * scale, true
}

// headers copies the properties into headers, in order. One string holds them
// all: it is allocated once.
func (p *publishing) headers(m *core.Message) {
	text := make([]byte, 0, p.header.bytes)
	m.Headers = make([]core.Header, 0, p.header.n)
	spans := walker{cursor: cursor{b: p.props}, in: inPublish, limits: &noLimits}
	for spans.more() {
		v, bad := spans.next()
		if bad != nil {
			panic("bug: properties that were walked once before: " + bad.text)
		}
		if isHeader(v.id) {
			text = append(append(text, v.name...), v.bytes...)
		}
	}
	rest := string(text)
	cut := func(n int) (s string) { s, rest = rest[:n], rest[n:]; return s }
	again := walker{cursor: cursor{b: p.props}, in: inPublish, limits: &noLimits}
	for again.more() {
		v, _ := again.next()
		switch v.id {
		case packets.PropContentType:
			m.Headers = append(m.Headers, core.Header{Name: core.HeaderContentType, Value: cut(len(v.bytes))})
		case packets.PropCorrelationData:
			m.Headers = append(m.Headers, core.Header{Name: core.HeaderCorrelationID, Value: cut(len(v.bytes))})
		case packets.PropResponseTopic:
			m.Headers = append(m.Headers, core.Header{Name: core.HeaderReplyTo, Value: replyHeader(m.Address.VHost, cut(len(v.bytes)))})
		case packets.PropUser:
			name := cut(len(v.name))
			m.Headers = append(m.Headers, core.Header{Name: name, Value: cut(len(v.bytes))})
		}
	}
}

func isHeader(property byte) bool {
	switch property {
	case packets.PropContentType, packets.PropCorrelationData, packets.PropResponseTopic, packets.PropUser:
		return true
	}
	return false
}

// noLimits is for what was walked under limits before.
var noLimits = Options{UserPropertiesMax: 1 << 30, PropertiesMax: 1 << 30}

// topics remembers what topic names stand for, so that a name which comes
// again is neither copied nor checked again.
type topics struct {
	vhost   string
	last    *known
	byName  map[string]*known
	aliases []*known // by alias-1
}

// A known is a topic name this connection has published to.
type known struct {
	name   string
	target target
}

// maxTopics bounds the names remembered; beyond it the memory starts anew.
const maxTopics = 256

// resolve finds the target of a PUBLISH, its alias first: guard, stages and
// routing see the topic alone [MQTT-3.3.2-12].
func (t *topics) resolve(p *publishing) (*target, *fault) {
	k := t.last
	if len(p.topic) == 0 {
		if int(p.alias) > len(t.aliases) || t.aliases[p.alias-1] == nil {
			return nil, violation("a topic alias that was not set")
		}
		return &t.aliases[p.alias-1].target, nil
	}
	if k == nil || k.name != string(p.topic) {
		var bad *fault
		if k, bad = t.know(p.topic); bad != nil {
			return nil, bad
		}
		t.last = k
	}
	if p.alias > 0 {
		for len(t.aliases) < int(p.alias) {
			t.aliases = append(t.aliases, nil)
		}
		t.aliases[p.alias-1] = k
	}
	return &k.target, nil
}

func (t *topics) know(name []byte) (*known, *fault) {
	if k := t.byName[string(name)]; k != nil {
		return k, nil
	}
	if hasWildcardByte(name) {
		return nil, violation("a topic name with wildcards") // [MQTT-3.3.2-2]
	}
	if !validText(name) {
		return nil, malformed("the topic is not UTF-8") // [MQTT-3.3.2-1]
	}
	k := &known{name: string(name)}
	if err := core.CheckTopic(k.name); err != nil {
		k.target.refused = core.AsError(err)
	} else {
		k.target = targetOf(t.vhost, k.name)
	}
	if t.byName == nil || len(t.byName) >= maxTopics {
		t.byName = make(map[string]*known)
	}
	t.byName[k.name] = k
	return k, nil
}

// publish handles a PUBLISH.
func (c *conn) publish(f *frame) error {
	p, bad := readPublish(f, c.version, c.options)
	if bad != nil {
		return bad
	}
	if f.qos() == 0 {
		return c.publishQoS0(f, &p)
	}
	fresh, bad := c.admit(f, p.id)
	if bad != nil {
		return bad
	}
	to, bad := c.topics.resolve(&p)
	if bad != nil {
		return bad
	}
	if !fresh {
		return nil
	}
	waiting := stagePuback
	if f.qos() == 2 {
		waiting = stagePubrec
	}
	c.inbound.set(p.id, waiting)
	err := c.forward(f, &p, to)
	if err != nil {
		c.inbound.remove(p.id) // it is read once more after Again
	}
	return err
}

func (c *conn) publishQoS0(f *frame, p *publishing) error {
	to, bad := c.topics.resolve(p)
	if bad != nil {
		return bad
	}
	if to.refused != nil || p.badText() {
		c.counts.refusedQoS0.Add(1)
		return nil
	}
	c.noteRetain(f, to)
	return c.session.Publish(p.message(f, to, c.now), 0)
}

func (p *publishing) badText() bool { return p.flags&isText != 0 && !utf8.Valid(p.body) }

func (c *conn) noteRetain(f *frame, to *target) {
	if f.retain() && !to.keeps {
		c.counts.ignoredRetain.Add(1)
	}
}

// admit says whether the PUBLISH of that id is new. One that is not joins the
// first, or is answered again; the topic's alias still counts.
func (c *conn) admit(f *frame, id uint16) (fresh bool, bad *fault) {
	switch c.inbound.stage(id) {
	case stageReceived:
		if f.qos() == 2 { // [MQTT-4.3.3-10]: the same message until PUBREL
			c.replyAck(typePubrec, id, 0)
			return false, nil
		}
		return false, violation("a packet id that is in use")
	case stagePuback, stagePubrec, stageReleasing:
		if f.dup() {
			return false, nil // one answer for both
		}
		return false, violation("a packet id that is in use") // [MQTT-2.2.1-3]
	case stageNone:
	}
	if c.version == 5 && c.inbound.owed() >= c.options.ReceiveMaximum { // [MQTT-3.3.4-9]
		return false, &fault{codeReceiveMaximum, "more publishes under way than the Receive Maximum"}
	}
	return true, nil
}

// forward hands a publish of QoS 1 or 2 to core. What we refuse ourselves takes
// its place among the answers.
func (c *conn) forward(f *frame, p *publishing, to *target) error {
	token := c.publishToken(p.id)
	switch {
	case to.refused != nil:
		return c.refuse(token, to.refused)
	case p.badText():
		return c.refuse(token, errPayloadFormat)
	}
	c.noteRetain(f, to)
	m := p.message(f, to, c.now)
	if f.qos() == 2 && c.durable {
		// The id is on the disk with the message, or before PUBREC at the latest.
		note := &core.Note{Key: qos2Key(p.id), Value: qos2Value}
		return c.session.Submit([]core.Op{{Publish: m}, {Note: note}}, token)
	}
	return c.session.Publish(m, token)
}

func (c *conn) refuse(token uint64, e *core.Error) error {
	c.session.Answer(token, e)
	return nil
}

// qos2Value is the note of a QoS 2 id whose PUBREL is awaited.
var qos2Value = []byte{1}

func qos2Key(id uint16) []byte { return []byte{'2', byte(id >> 8), byte(id)} }

// confirmPublish answers a PUBLISH that core has settled.
func (c *conn) confirmPublish(out []byte, e *core.Event) []byte {
	id := uint16(e.Token)
	kind := typePuback
	if c.inbound.stage(id) == stagePubrec {
		kind = typePubrec
	}
	code, text := byte(0), ""
	switch refused := core.AsError(e.Err); {
	case refused == nil && e.N == 0:
		code = codeNoSubscribers
	case refused == nil:
	case c.version < 5:
		if !c.refusedV3(refused) {
			return out
		}
	case refused.Code == core.CodeInternal:
		c.bye(&fault{codeUnspecified, refused.Text}) // nothing can be confirmed any more
		return out
	default:
		code, text = ackCode(refused), refused.Text
	}
	if kind == typePubrec && code < 0x80 {
		c.inbound.set(id, stageReceived)
	} else {
		c.inbound.remove(id)
	}
	return appendAck(out, kind, c.version, id, code, c.problem(text), c.clientMax)
}

// refusedV3 decides what 3.1 and 3.1.1 do, which cannot say no: they
// acknowledge what is refused for good, and hold back what there is no room
// for, so that the client sends it again.
func (c *conn) refusedV3(e *core.Error) (acknowledge bool) {
	switch verdictV3(e) {
	case ackAndDrop:
		c.counts.refusedV3.Add(1)
		return true
	case holdBack:
		c.holdBack()
	case hangUp:
		c.bye(&fault{codeUnspecified, e.Text})
	}
	return false
}

// release handles a PUBREL: the id leaves the disk before PUBCOMP, or its
// reuse after a crash would be taken for a repeat [MQTT-4.3.3-11].
func (c *conn) release(f *frame) error {
	id, _, bad := readAck(f.body, c.version, c.options)
	if bad != nil {
		return bad
	}
	switch c.inbound.stage(id) {
	case stageReceived:
		if !c.durable {
			c.inbound.remove(id)
			c.replyAck(typePubcomp, id, 0)
			return nil
		}
		c.inbound.set(id, stageReleasing)
		return c.session.Submit([]core.Op{{Note: &core.Note{Key: qos2Key(id)}}}, tokenRelease|uint64(id))
	case stageReleasing: // one answer for both
	case stageNone:
		c.replyAck(typePubcomp, id, codeIDUnknown)
	case stagePuback, stagePubrec:
		return violation("a PUBREL before its PUBREC")
	}
	return nil
}

// confirmRelease answers a PUBREL whose id is off the disk.
func (c *conn) confirmRelease(out []byte, e *core.Event) []byte {
	id := uint16(e.Token)
	if e.Err != nil {
		c.bye(&fault{codeUnspecified, core.AsError(e.Err).Text})
		return out
	}
	c.inbound.remove(id)
	return appendAck(out, typePubcomp, c.version, id, 0, "", c.clientMax)
}
