package protocoltest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/godwitmq/godwit/core"
)

// mqttSub is a subscription of a neutral step: only MQTT 5 says which of them
// a message is for.
type mqttSub struct{ sid, filter string }

// mqttSubID is the packet id of the SUBSCRIBE of subscription 0: out of the
// way of a transcript's own.
const mqttSubID = 60_000

// mqttProperties are the options of the line protocol in MQTT 5's properties;
// what begins with a colon is a user property.
var mqttProperties = map[string]string{
	"ct": "content_type", "cid": "correlation_data", "reply": "response_topic", "ttl": "message_expiry",
	"pri": ":priority", "delay": ":delay", "at": ":deliver-at", "key": ":group-key", "dedup": ":dedup",
}

func (w *mqttWire) ask(q *sentence) (text, wait string, err error) {
	switch q.verb {
	case "PUB":
		text, err = w.askPublish(q)
		return text, "", err
	case "SUB":
		return w.askSubscribe(q)
	case "UNSUB":
		for i, s := range w.subs {
			if s.sid == q.sid {
				w.subs = slices.Delete(slices.Clone(w.subs), i, i+1)
				id := mqttSubPacket(q.sid)
				return fmt.Sprintf("UNSUBSCRIBE id=%d filter=%q", id, s.filter), fmt.Sprintf("UNSUBACK id=%d codes=$_", id), nil
			}
		}
		return "", "", fmt.Errorf("no subscription %s", q.sid)
	case "ACK":
		return "PUBACK id=" + q.seq, "", nil
	case "NACK":
		if _, dead := q.option("dead"); dead && w.level == 5 {
			return "PUBACK code=0x80 id=" + q.seq, "", nil
		}
		return "", "", errors.New("MQTT has no word for NACK but MQTT 5 for NACK dead")
	}
	return "", "", fmt.Errorf("MQTT has no word for %s", q.verb)
}

func mqttSubPacket(sid string) int {
	n, _ := strconv.Atoi(sid)
	return mqttSubID + n
}

func (w *mqttWire) askPublish(q *sentence) (string, error) {
	a, err := address(q.dest)
	if err != nil {
		return "", err
	}
	p := &packet{word: "PUBLISH", body: q.body, hasBody: true}
	p.fixed = append(p.fixed, field{"topic", mqttName(a)})
	qos := "0"
	if q.id != "" {
		qos = "1"
		p.fixed = append(p.fixed, field{"id", q.id})
	}
	for _, o := range q.options {
		switch o.name {
		case "id":
		case "qos":
			qos = o.value
		case "retain":
			p.fixed = append(p.fixed, field{"retain", "1"})
		default:
			f, err := mqttProperty(o)
			if err != nil {
				return "", err
			}
			p.rest = append(p.rest, f)
		}
	}
	p.fixed = append(p.fixed, field{"qos", qos})
	for _, h := range q.headers {
		p.rest = append(p.rest, field{":" + h.name, h.value})
	}
	if w.level < 5 {
		p.rest = nil // it has no room for them
	}
	return p.text("="), nil
}

func mqttProperty(o field) (field, error) {
	name, ok := mqttProperties[o.name]
	if !ok {
		return field{}, fmt.Errorf("MQTT has no word for the option %s", o.name)
	}
	value := o.value
	switch o.name {
	case "ttl", "delay":
		n, err := millis(value)
		if err != nil {
			return field{}, err
		}
		if o.name == "ttl" {
			n /= 1000
		}
		value = strconv.FormatInt(n, 10)
	case "reply":
		a, err := address(value)
		if err != nil {
			return field{}, err
		}
		value = mqttName(a)
	}
	return field{name, value}, nil
}

func (w *mqttWire) askSubscribe(q *sentence) (text, wait string, err error) {
	a, err := address(q.dest)
	if err != nil {
		return "", "", err
	}
	filter, qos, rh := mqttName(a), 0, "0"
	mode, _ := q.option("ack")
	if mode == "manual" || (mode == "" && strings.HasPrefix(q.dest, "q/")) {
		qos = 1
	}
	for _, o := range q.options {
		switch o.name {
		case "ack":
		case "group":
			filter = "$share/" + o.value + "/" + filter
		case "retained":
			rh = map[string]string{"all": "0", "new": "1", "none": "2"}[o.value]
		default:
			return "", "", fmt.Errorf("MQTT has no word for the option %s of SUB", o.name)
		}
	}
	w.subs = append(w.subs, mqttSub{q.sid, filter})
	id := mqttSubPacket(q.sid)
	text = fmt.Sprintf("SUBSCRIBE id=%d filter=%q qos=%d", id, filter, qos)
	if w.level == 5 {
		text += " rh=" + rh + " subscription_id=" + q.sid
	}
	return text, fmt.Sprintf("SUBACK id=%d codes=%d *", id, qos), nil
}

func (w *mqttWire) frame(in []byte) (skip, n int, err error) { return w.first(in) }

func (w *mqttWire) hear(answer []byte) (h *sentence, reply, wait string, err error) {
	p, err := w.decode(answer)
	if err != nil {
		return nil, "", "", err
	}
	id, code := value(p.fixed, "id"), value(p.fixed, "code")
	switch p.word {
	case "PUBLISH":
		h, err = w.message(p)
		return h, "", "", err
	case "PUBACK", "PUBREC":
		if n, _ := strconv.Atoi(code); n >= 0x80 {
			return &sentence{verb: "ERR", id: id, code: mqttMeans[n]}, "", "", nil
		}
		h = &sentence{verb: "CONFIRM", id: id} // 0x10, nobody wants it, is a yes
		if p.word == "PUBREC" {
			return h, "PUBREL id=" + id, "PUBCOMP id=" + id, nil
		}
		return h, "", "", nil
	case "SUBACK":
		n, _ := strconv.Atoi(value(p.fixed, "codes"))
		return &sentence{verb: "ERR", code: mqttMeans[n]}, "", "", nil
	case "DISCONNECT", "CONNACK":
		n, _ := strconv.Atoi(code)
		return &sentence{verb: "ERR", code: mqttMeans[n]}, "", "", nil
	}
	return nil, "", "", fmt.Errorf("no neutral step expects %s", p.word)
}

// mqttMeans are the codes of the project that a reason code stands for.
var mqttMeans = map[int]string{
	0x80: "500,400,403,404,406", 0x81: "400", 0x82: "405,406,400", 0x83: "406,409,412,422,503",
	0x86: "401", 0x87: "401,403", 0x88: "503", 0x89: "503", 0x8B: "503", 0x8D: "408", 0x8E: "423",
	0x8F: "404,400", 0x90: "404,410,400", 0x91: "409", 0x93: "429", 0x95: "413,431", 0x96: "429",
	0x97: "429,507", 0x99: "422,406", 0x9F: "429",
}

func (w *mqttWire) message(p *packet) (*sentence, error) {
	h := &sentence{verb: "MSG", body: p.body, sid: w.whose(p), seq: value(p.fixed, "id")}
	topic := value(p.fixed, "topic")
	if origin := value(p.rest, ":origin-topic"); origin != "" {
		topic = origin
	}
	h.dest = mqttAddress(topic).String()
	if w.level < 5 && strings.HasPrefix(topic, "$queue/") {
		h.mute = append(h.mute, "dest") // it cannot say where that was published
	}
	add := func(name, value string) { h.options = append(h.options, field{name, value}) }
	if value(p.fixed, "retain") == "1" {
		add("retain", "")
	}
	if value(p.fixed, "dup") == "1" {
		add("n", "again")
	} else if w.shared(h.sid) {
		h.mute = append(h.mute, "n") // to another member it is new. MQTT 5, section 4.8.2
	}
	add("qos", max(value(p.fixed, "qos"), "0"))
	if w.level < 5 {
		h.mute = append(h.mute, "ct", "cid", "reply", "pri", "exp", "key", ":")
	}
	for _, f := range p.rest {
		h.takeProperty(f)
	}
	return h, nil
}

// takeProperty sorts a property into options and headers of the user.
func (q *sentence) takeProperty(f field) {
	add := func(name, value string) { q.options = append(q.options, field{name, value}) }
	switch f.name {
	case "content_type":
		add("ct", f.value)
	case "correlation_data":
		add("cid", f.value)
	case "response_topic":
		add("reply", mqttAddress(f.value).String())
	case ":priority":
		add("pri", f.value)
	case ":group-key":
		add("key", f.value)
	case ":dedup":
		add("dedup", f.value)
	case ":x-delivery-count":
		q.mute = slices.DeleteFunc(q.mute, func(s string) bool { return s == "n" })
		add("n", f.value)
	case ":origin-topic", ":offset":
	default:
		if name, user := strings.CutPrefix(f.name, ":"); user {
			q.headers = append(q.headers, field{name, f.value})
		}
	}
}

// whose is the number of the subscription a message is for.
func (w *mqttWire) whose(p *packet) string {
	if id := value(p.rest, "subscription_id"); id != "" {
		return id
	}
	topic := value(p.fixed, "topic")
	for _, s := range w.subs {
		if mqttMatches(s.filter, topic) {
			return s.sid
		}
	}
	return ""
}

func (w *mqttWire) shared(sid string) bool {
	for _, s := range w.subs {
		if s.sid == sid {
			return strings.HasPrefix(s.filter, "$share/")
		}
	}
	return false
}

// mqttMatches is the plainest way to say whether a filter wants a topic.
func mqttMatches(filter, topic string) bool {
	if rest, shared := strings.CutPrefix(filter, "$share/"); shared {
		_, filter, _ = strings.Cut(rest, "/")
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i := range f {
		if f[i] == "#" {
			return true
		}
		if i >= len(t) || (f[i] != "+" && f[i] != t[i]) {
			return false
		}
	}
	return len(f) == len(t)
}

// mqttName writes an address as a topic name.
func mqttName(a core.Address) string {
	switch a.Exchange {
	case core.TopicExchange:
		return a.Topic
	case core.DefaultExchange:
		return "$queue/" + a.Topic
	case core.StreamExchange:
		return "$stream/" + a.Topic
	case core.ReplyExchange:
		return "$reply/" + a.Topic
	}
	return "$exchange/" + a.Exchange + "/" + a.Topic
}

func mqttAddress(topic string) core.Address {
	a := core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: topic}
	for prefix, exchange := range map[string]string{
		"$queue/": core.DefaultExchange, "$stream/": core.StreamExchange, "$reply/": core.ReplyExchange,
	} {
		if rest, ok := strings.CutPrefix(topic, prefix); ok {
			a.Exchange, a.Topic = exchange, rest
		}
	}
	if rest, ok := strings.CutPrefix(topic, "$exchange/"); ok {
		a.Exchange, a.Topic, _ = strings.Cut(rest, "/")
	}
	return a
}
