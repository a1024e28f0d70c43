package protocoltest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// mqttWire is an MQTT client of protocol level 3 (3.1), 4 (3.1.1) or 5.
type mqttWire struct {
	level byte
	subs  []mqttSub // of neutral steps
}

// mqttTypes are the packet types by number. MQTT 5, section 2.1.2.
var mqttTypes = [16]string{
	1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP",
	8: "SUBSCRIBE", 9: "SUBACK", 10: "UNSUBSCRIBE", 11: "UNSUBACK", 12: "PINGREQ", 13: "PINGRESP",
	14: "DISCONNECT", 15: "AUTH",
}

// A propKind is how a property is written.
type propKind byte

const (
	propByte propKind = iota
	prop16
	prop32
	propVar
	propText
	propPair
)

// mqttProps are the properties. MQTT 5, section 2.2.2.2.
var mqttProps = map[byte]struct {
	name string
	kind propKind
}{
	0x01: {"payload_format", propByte},
	0x02: {"message_expiry", prop32},
	0x03: {"content_type", propText},
	0x08: {"response_topic", propText},
	0x09: {"correlation_data", propText},
	0x0B: {"subscription_id", propVar},
	0x11: {"session_expiry", prop32},
	0x12: {"assigned_client", propText},
	0x13: {"server_keep_alive", prop16},
	0x15: {"auth_method", propText},
	0x16: {"auth_data", propText},
	0x17: {"request_problem", propByte},
	0x18: {"will_delay", prop32},
	0x19: {"request_response", propByte},
	0x1A: {"response_info", propText},
	0x1C: {"server_reference", propText},
	0x1F: {"reason", propText},
	0x21: {"receive_max", prop16},
	0x22: {"topic_alias_max", prop16},
	0x23: {"topic_alias", prop16},
	0x24: {"max_qos", propByte},
	0x25: {"retain_available", propByte},
	0x26: {"", propPair}, // a user property is written :name=value
	0x27: {"max_packet", prop32},
	0x28: {"wildcard_available", propByte},
	0x29: {"subscription_id_available", propByte},
	0x2A: {"shared_available", propByte},
}

// mqttFixed are the fields that are no properties.
var mqttFixed = map[string]bool{
	"topic": true, "qos": true, "id": true, "retain": true, "dup": true, "code": true, "codes": true,
	"session": true, "client": true, "clean": true, "keepalive": true, "user": true, "pass": true,
	"filter": true, "nl": true, "rap": true, "rh": true, "name": true, "level": true,
	"will_topic": true, "will": true, "will_qos": true, "will_retain": true,
}

func propByName(name string) (byte, propKind, bool) {
	for id, p := range mqttProps {
		if p.name == name && p.kind != propPair {
			return id, p.kind, true
		}
	}
	return 0, 0, false
}

func (w *mqttWire) goodbye() string { return "DISCONNECT" }

// login turns expiry=DUR into a session that is resumed; other options are
// CONNECT's own.
func (w *mqttWire) login(name string, options []field) (say, welcome string, err error) {
	client, clean, more := name, "1", ""
	for _, o := range options {
		switch o.name {
		case "client":
			client = o.value
		case "clean":
			clean = o.value
		case "expiry":
			d, err := time.ParseDuration(o.value)
			if err != nil {
				return "", "", err
			}
			clean = "0"
			if w.level == 5 {
				more += fmt.Sprintf(" session_expiry=%d", int(d.Seconds()))
			}
		default:
			more += " " + o.name + "=" + strconv.Quote(o.value)
		}
	}
	return fmt.Sprintf("CONNECT client=%q clean=%s%s", client, clean, more), "CONNACK session=$_ *", nil
}

// parse reads "PACKET name=value... | payload".
func (w *mqttWire) parse(text string) (*packet, error) {
	return readPacket(text, func(p *packet, word string) error {
		if rest, user := strings.CutPrefix(word, ":"); user {
			name, value, _ := strings.Cut(rest, "=")
			p.rest = append(p.rest, field{":" + name, value})
			return nil
		}
		name, value, has := strings.Cut(word, "=")
		if !has {
			value = "1" // a flag
		}
		if name == "codes" {
			value = mqttCodes(value)
		} else if n, err := strconv.ParseUint(value, 0, 32); err == nil && has && strings.HasPrefix(value, "0x") {
			value = strconv.FormatUint(n, 10)
		}
		if mqttFixed[name] {
			p.fixed = append(p.fixed, field{name, value})
			return nil
		}
		if _, _, ok := propByName(strings.TrimPrefix(name, "will_")); !ok && name != "will_delay" {
			return fmt.Errorf("%q is no field and no property of MQTT", name)
		}
		p.rest = append(p.rest, field{name, value})
		return nil
	})
}

// mqttCodes writes a list of codes in decimal.
func mqttCodes(list string) string {
	codes := strings.Split(list, ",")
	for i, c := range codes {
		if n, err := strconv.ParseUint(c, 0, 8); err == nil {
			codes[i] = strconv.FormatUint(n, 10)
		}
	}
	return strings.Join(codes, ",")
}

func (w *mqttWire) encode(text string) ([]byte, error) {
	p, err := w.parse(text)
	if err != nil {
		return nil, err
	}
	kind := byte(0)
	for i, name := range mqttTypes {
		if name == p.word && name != "" {
			kind = byte(i)
		}
	}
	if kind == 0 {
		return nil, fmt.Errorf("%q is no packet of MQTT", p.word)
	}
	flags, body, err := w.encodeBody(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.word, err)
	}
	return append(appendVar([]byte{kind<<4 | flags}, len(body)), body...), nil
}

func (w *mqttWire) encodeBody(p *packet) (flags byte, b []byte, err error) {
	n := numbers{fields: p.fixed}
	switch p.word {
	case "CONNECT":
		b, err = w.encodeConnect(p)
		return 0, b, err
	case "PUBLISH":
		qos := n.get("qos", 0)
		flags = byte(n.get("dup", 0)<<3 | qos<<1 | n.get("retain", 0))
		b = appendText(b, value(p.fixed, "topic"))
		if qos > 0 {
			b = binary.BigEndian.AppendUint16(b, uint16(n.get("id", 0)))
		}
		if b, err = w.appendProps(b, p.rest); err != nil {
			return 0, nil, err
		}
		b = append(b, p.body...)
	case "PUBACK", "PUBREC", "PUBREL", "PUBCOMP":
		if p.word == "PUBREL" {
			flags = 2 // [MQTT-3.6.1-1]
		}
		b = binary.BigEndian.AppendUint16(b, uint16(n.get("id", 0)))
		b, err = w.appendReason(b, n.get("code", 0), p.rest)
	case "SUBSCRIBE", "UNSUBSCRIBE":
		flags = 2 // [MQTT-3.8.1-1], [MQTT-3.10.1-1]
		b = binary.BigEndian.AppendUint16(b, uint16(n.get("id", 0)))
		if b, err = w.appendProps(b, p.rest); err != nil {
			return 0, nil, err
		}
		b, err = appendFilters(b, p)
	case "DISCONNECT", "AUTH":
		b, err = w.appendReason(nil, n.get("code", 0), p.rest)
	case "PINGREQ":
	default:
		err = errors.New("a client does not send it: write exact bytes")
	}
	if err == nil {
		err = n.err
	}
	return flags, b, err
}

// numbers reads fields that are numbers, and keeps the first fault.
type numbers struct {
	fields []field
	err    error
}

func (n *numbers) get(name string, def int) int {
	text := value(n.fields, name)
	if text == "" {
		return def
	}
	i, err := strconv.Atoi(text)
	if err != nil && n.err == nil {
		n.err = fmt.Errorf("%s=%s is no number", name, text)
	}
	return i
}

func (w *mqttWire) encodeConnect(p *packet) ([]byte, error) {
	n := numbers{fields: p.fixed}
	name := "MQTT"
	if w.level == 3 {
		name = "MQIsdp"
	}
	if v := value(p.fixed, "name"); v != "" {
		name = v
	}
	b := append(appendText(nil, name), byte(n.get("level", int(w.level))))
	has := func(name string) int {
		for _, f := range p.fixed {
			if f.name == name {
				return 1
			}
		}
		return 0
	}
	b = append(b, byte(has("user")<<7|has("pass")<<6|n.get("will_retain", 0)<<5|n.get("will_qos", 0)<<3|
		has("will_topic")<<2|n.get("clean", 1)<<1))
	b = binary.BigEndian.AppendUint16(b, uint16(n.get("keepalive", 0)))
	var own, will []field
	for _, f := range p.rest {
		switch short, isWill := strings.CutPrefix(f.name, "will_"); {
		case f.name == "will_delay":
			will = append(will, f)
		case isWill:
			will = append(will, field{short, f.value})
		default:
			own = append(own, f)
		}
	}
	b, err := w.appendProps(b, own)
	if err != nil {
		return nil, err
	}
	b = appendText(b, value(p.fixed, "client"))
	if has("will_topic") == 1 {
		if b, err = w.appendProps(b, will); err != nil {
			return nil, err
		}
		b = appendText(appendText(b, value(p.fixed, "will_topic")), value(p.fixed, "will"))
	}
	for _, f := range []string{"user", "pass"} {
		if has(f) == 1 {
			b = appendText(b, value(p.fixed, f))
		}
	}
	return b, n.err
}

// appendFilters writes what follows each filter= up to the next.
func appendFilters(b []byte, p *packet) ([]byte, error) {
	for i, f := range p.fixed {
		if f.name != "filter" {
			continue
		}
		b = appendText(b, f.value)
		if p.word == "UNSUBSCRIBE" {
			continue
		}
		end := i + 1
		for end < len(p.fixed) && p.fixed[end].name != "filter" {
			end++
		}
		n := numbers{fields: p.fixed[i:end]}
		b = append(b, byte(n.get("qos", 0)|n.get("nl", 0)<<2|n.get("rap", 0)<<3|n.get("rh", 0)<<4))
		if n.err != nil {
			return nil, n.err
		}
	}
	return b, nil
}

// appendReason leaves a zero code without properties away, as MQTT 5 allows.
func (w *mqttWire) appendReason(b []byte, code int, props []field) ([]byte, error) {
	if w.level < 5 || (code == 0 && len(props) == 0) {
		return b, nil
	}
	b = append(b, byte(code))
	if len(props) == 0 {
		return b, nil
	}
	return w.appendProps(b, props)
}

func (w *mqttWire) appendProps(b []byte, props []field) ([]byte, error) {
	if w.level < 5 {
		if len(props) > 0 {
			return nil, fmt.Errorf("%s: only MQTT 5 has properties", props[0].name)
		}
		return b, nil
	}
	var all []byte
	for _, f := range props {
		if name, user := strings.CutPrefix(f.name, ":"); user {
			all = appendText(appendText(append(all, 0x26), name), f.value)
			continue
		}
		id, kind, ok := propByName(f.name)
		if !ok {
			return nil, fmt.Errorf("%q is no property", f.name)
		}
		all = append(all, id)
		if kind == propText {
			all = appendText(all, f.value)
			continue
		}
		n, err := strconv.ParseUint(f.value, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s=%s is no number", f.name, f.value)
		}
		switch kind {
		case propByte:
			all = append(all, byte(n))
		case prop16:
			all = binary.BigEndian.AppendUint16(all, uint16(n))
		case prop32:
			all = binary.BigEndian.AppendUint32(all, uint32(n))
		case propVar:
			all = appendVar(all, int(n))
		case propText, propPair:
		}
	}
	return append(appendVar(b, len(all)), all...), nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendVar(b []byte, n int) []byte {
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// first reads the fixed header of a packet.
func (w *mqttWire) first(in []byte) (skip, n int, err error) {
	length, shift := 0, 0
	for i := 1; i < len(in); i++ {
		if i > 4 {
			return 0, 0, errors.New("the broker's packet has a length of five bytes")
		}
		length |= int(in[i]&0x7f) << shift
		shift += 7
		if in[i]&0x80 != 0 {
			continue
		}
		if len(in) < i+1+length {
			return 0, 0, nil
		}
		return 0, i + 1 + length, nil
	}
	return 0, 0, nil
}

// A reader takes a packet apart and keeps the first fault.
type reader struct {
	in  []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.in) < n {
		if r.err == nil {
			r.err = errors.New("the packet is cut short")
		}
		return make([]byte, n)
	}
	b := r.in[:n]
	r.in = r.in[n:]
	return b
}

func (r *reader) byte() byte   { return r.take(1)[0] }
func (r *reader) u16() int     { return int(binary.BigEndian.Uint16(r.take(2))) }
func (r *reader) u32() int     { return int(binary.BigEndian.Uint32(r.take(4))) }
func (r *reader) text() string { return string(r.take(r.u16())) }

func (r *reader) varint() int {
	n := 0
	for shift := 0; shift < 28; shift += 7 {
		b := r.byte()
		n |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			return n
		}
	}
	r.err = errors.New("a length of five bytes")
	return 0
}

func (r *reader) props() []field {
	p := reader{in: r.take(r.varint()), err: r.err}
	var out []field
	for len(p.in) > 0 && p.err == nil {
		id := p.byte()
		kind, ok := mqttProps[id]
		if !ok {
			p.err = fmt.Errorf("property 0x%02x does not exist", id)
			break
		}
		f := field{name: kind.name}
		switch kind.kind {
		case propByte:
			f.value = strconv.Itoa(int(p.byte()))
		case prop16:
			f.value = strconv.Itoa(p.u16())
		case prop32:
			f.value = strconv.Itoa(p.u32())
		case propVar:
			f.value = strconv.Itoa(p.varint())
		case propText:
			f.value = p.text()
		case propPair:
			f.name = ":" + p.text()
			f.value = p.text()
		}
		out = append(out, f)
	}
	r.err = p.err
	return out
}

func (w *mqttWire) decode(answer []byte) (*packet, error) {
	p := &packet{word: mqttTypes[answer[0]>>4]}
	r := &reader{in: answer[1:]}
	r.varint()
	number := func(name string, n int) {
		if n != 0 {
			p.fixed = append(p.fixed, field{name, strconv.Itoa(n)})
		}
	}
	reason := func() {
		if w.level == 5 && len(r.in) > 0 {
			number("code", int(r.byte()))
		}
		if w.level == 5 && len(r.in) > 0 {
			p.rest = r.props()
		}
	}
	switch p.word {
	case "CONNACK":
		number("session", int(r.byte()))
		number("code", int(r.byte()))
		if w.level == 5 {
			p.rest = r.props()
		}
	case "PUBLISH":
		flags := int(answer[0] & 15)
		p.fixed = append(p.fixed, field{"topic", r.text()})
		number("qos", flags>>1&3)
		if flags&6 != 0 {
			number("id", r.u16())
		}
		number("retain", flags&1)
		number("dup", flags>>3)
		if w.level == 5 {
			p.rest = r.props()
		}
		p.body = string(r.in)
		r.in = nil
	case "PUBACK", "PUBREC", "PUBREL", "PUBCOMP":
		number("id", r.u16())
		reason()
	case "SUBACK", "UNSUBACK":
		number("id", r.u16())
		if w.level == 5 {
			p.rest = r.props()
		}
		var codes []string
		for _, c := range r.in {
			codes = append(codes, strconv.Itoa(int(c)))
		}
		r.in = nil
		p.fixed = append(p.fixed, field{"codes", strings.Join(codes, ",")})
	case "DISCONNECT", "AUTH":
		reason()
	case "PINGRESP":
	default:
		return nil, fmt.Errorf("a broker does not send %s", p.word)
	}
	if r.err == nil && len(r.in) > 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.in))
	}
	return p, r.err
}

func (w *mqttWire) show(answer []byte) string {
	p, err := w.decode(answer)
	if err != nil {
		return fmt.Sprintf("%x (%v)", answer, err)
	}
	for i, f := range p.fixed {
		if n, _ := strconv.Atoi(f.value); f.name == "code" && n >= 0x10 {
			p.fixed[i].value = fmt.Sprintf("0x%02x", n)
		}
	}
	return p.show("=")
}

func (w *mqttWire) match(text string, answer []byte, v vars) (string, error) {
	want, err := w.parse(text)
	if err != nil {
		return "", err
	}
	got, err := w.decode(answer)
	if err != nil {
		return err.Error(), nil
	}
	return want.match(got, v), nil
}
