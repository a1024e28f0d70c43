package protocoltest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/godwitmq/godwit/core"
)

// stompNames are the options of the line protocol in STOMP's headers.
var stompNames = map[string]string{
	"ct": "content-type", "cid": "correlation-id", "reply": "reply-to", "pri": "priority",
	"exp": "expires", "ttl": "expiration", "delay": "delay", "at": "deliver-at", "key": "group-key",
	"dedup": "dedup", "qos": "qos", "retain": "retain",
	"window": "prefetch-count", "group": "group", "durable": "durable", "sel": "selector",
	"lease": "lease", "peek": "browser",
}

func (w *stompWire) ask(q *sentence) (text, wait string, err error) {
	p := &packet{}
	add := func(name, value string) { p.rest = append(p.rest, field{name, value}) }
	switch q.verb {
	case "PUB":
		p.word, p.body, p.hasBody = "SEND", q.body, true
		err = w.askSend(q, add)
		add("content-length", strconv.Itoa(len(q.body)))
	case "SUB":
		p.word, wait = "SUBSCRIBE", "RECEIPT receipt-id:sub-"+q.sid+" *"
		err = w.askSubscribe(q, add)
	case "UNSUB":
		p.word, wait = "UNSUBSCRIBE", "RECEIPT receipt-id:unsub-"+q.sid+" *"
		add("id", q.sid)
		add("receipt", "unsub-"+q.sid)
	case "ACK", "NACK":
		p.word = q.verb
		err = w.askSettle(q, add)
	default:
		err = fmt.Errorf("STOMP has no word for %s", q.verb)
	}
	return p.text(":"), wait, err
}

func (w *stompWire) askSend(q *sentence, add func(name, value string)) error {
	name, err := stompDestination(q.dest)
	if err != nil {
		return err
	}
	add("destination", name)
	if q.id != "" {
		add("receipt", q.id)
	} else if _, has := q.option("qos"); !has {
		add("persistent", "false") // as the line protocol, which stores what has an id
	}
	if err := stompOptions(q, add); err != nil {
		return err
	}
	for _, h := range q.headers {
		add(h.name, h.value)
	}
	return nil
}

func (w *stompWire) askSubscribe(q *sentence, add func(name, value string)) error {
	name, err := stompDestination(q.dest)
	if err != nil {
		return err
	}
	add("id", q.sid)
	add("destination", name)
	add("receipt", "sub-"+q.sid)
	mode, _ := q.option("ack")
	if mode == "" && strings.HasPrefix(q.dest, "q/") {
		mode = "manual"
	}
	if mode == "manual" {
		add("ack", "client-individual")
	}
	if v, has := q.option("retained"); has {
		add("retain-handling", map[string]string{"all": "0", "new": "1", "none": "2"}[v])
	}
	return stompOptions(q, add)
}

func (w *stompWire) askSettle(q *sentence, add func(name, value string)) error {
	switch w.version {
	case "1.2":
		add("id", q.seq)
	case "1.1":
		add("subscription", q.sid)
		add("message-id", q.seq)
	default:
		add("message-id", q.seq)
	}
	if _, dead := q.option("dead"); dead {
		add("requeue", "false")
	}
	return stompOptions(q, add)
}

// stompOptions writes the options that are a header each.
func stompOptions(q *sentence, add func(name, value string)) error {
	for _, o := range q.options {
		name, ok := stompNames[o.name]
		switch {
		case o.name == "id" || o.name == "ack" || o.name == "retained" || o.name == "dead":
			continue
		case !ok:
			return fmt.Errorf("STOMP has no word for the option %s", o.name)
		}
		value := o.value
		switch o.name {
		case "retain", "peek":
			value = "true"
		case "ttl", "delay", "lease":
			n, err := millis(value)
			if err != nil {
				return err
			}
			value = strconv.FormatInt(n, 10)
		case "reply":
			var err error
			if value, err = stompDestination(value); err != nil {
				return err
			}
		}
		add(name, value)
	}
	return nil
}

func (w *stompWire) frame(in []byte) (skip, n int, err error) { return w.first(in) }

func (w *stompWire) hear(answer []byte) (h *sentence, reply, wait string, err error) {
	p, err := w.decode(answer)
	if err != nil {
		return nil, "", "", err
	}
	switch p.word {
	case "MESSAGE":
		h, err = w.message(p)
		return h, "", "", err
	case "RECEIPT":
		return &sentence{verb: "CONFIRM", id: value(p.rest, "receipt-id")}, "", "", nil
	case "ERROR":
		return &sentence{verb: "ERR", code: value(p.rest, "code"), id: value(p.rest, "receipt-id")}, "", "", nil
	}
	return nil, "", "", fmt.Errorf("no neutral step expects %s", p.word)
}

// stompOwn are the headers of a MESSAGE that say nothing neutral.
var stompOwn = []string{
	"subscription", "message-id", "ack", "destination", "content-length", "timestamp",
	"persistent", "x-stream-offset",
}

func (w *stompWire) message(p *packet) (*sentence, error) {
	h := &sentence{verb: "MSG", sid: value(p.rest, "subscription"), body: p.body}
	if h.seq = value(p.rest, "ack"); h.seq == "" {
		h.seq = value(p.rest, "message-id")
	}
	a, err := stompAddress(value(p.rest, "destination"))
	if err != nil {
		return nil, err
	}
	h.dest = a.String()
	seen := map[string]bool{}
	for _, f := range p.rest {
		repeat := seen[f.name] // the first counts, the others are the user's
		seen[f.name] = true
		switch {
		case repeat:
			h.headers = append(h.headers, f)
		case slices.Contains(stompOwn, f.name):
		case !h.take(f):
			h.headers = append(h.headers, f)
		}
	}
	return h, nil
}

// take says whether a header of a MESSAGE is an option in neutral words.
func (q *sentence) take(f field) bool {
	add := func(name, value string) { q.options = append(q.options, field{name, value}) }
	switch f.name {
	case "content-type":
		add("ct", f.value)
	case "correlation-id":
		add("cid", f.value)
	case "reply-to":
		add("reply", f.value)
		if a, err := stompAddress(f.value); err == nil {
			q.options[len(q.options)-1].value = a.String()
		}
	case "priority":
		add("pri", f.value)
	case "expires":
		add("exp", f.value)
	case "JMSXGroupID":
		add("key", f.value)
	case "dedup":
		add("dedup", f.value)
	case "redelivered":
		if _, has := q.option("n"); !has {
			add("n", "again")
		}
	case "x-delivery-count":
		q.options = slices.DeleteFunc(q.options, func(o field) bool { return o.name == "n" })
		add("n", f.value)
	case "retain":
		add("retain", "")
	default:
		return false
	}
	return true
}

var stompKinds = map[string]string{
	"/topic/": core.TopicExchange, "/queue/": core.DefaultExchange,
	"/stream/": core.StreamExchange, "/reply-queue/": core.ReplyExchange,
}

// stompDestination writes a destination in slash style.
func stompDestination(dest string) (string, error) {
	a, err := address(dest)
	if err != nil {
		return "", err
	}
	if a.Exchange == core.TopicExchange && !strings.Contains(a.Topic, "/") {
		return "/topic/" + strings.ReplaceAll(stompEscape(a.Topic, a.Exchange), ".", "%2E"), nil
	}
	for prefix, exchange := range stompKinds {
		if a.Exchange == exchange {
			return prefix + stompEscape(a.Topic, a.Exchange), nil
		}
	}
	return "/exchange/" + strings.ReplaceAll(stompEscape(a.Exchange, ""), "/", "%2F") + "/" + a.Topic, nil
}

// stompEscape leaves whole levels that are wildcards as they are.
func stompEscape(topic, exchange string) string {
	levels := strings.Split(topic, "/")
	for i, l := range levels {
		switch {
		case exchange == core.TopicExchange && (l == "+" || l == "#"):
		case exchange == core.TopicExchange:
			levels[i] = strings.NewReplacer("%", "%25", "*", "%2A", "+", "%2B", "#", "%23", ">", "%3E").Replace(l)
		default:
			levels[i] = strings.ReplaceAll(l, "%", "%25")
		}
	}
	return strings.Join(levels, "/")
}

// stompAddress reads a destination of a MESSAGE.
func stompAddress(text string) (core.Address, error) {
	if rest, ok := strings.CutPrefix(text, "/exchange/"); ok {
		name, key, _ := strings.Cut(rest, "/")
		return core.Address{VHost: "/", Exchange: lineUnescape(name), Topic: lineUnescape(key)}, nil
	}
	for prefix, exchange := range stompKinds {
		rest, ok := strings.CutPrefix(text, prefix)
		if !ok {
			continue
		}
		if exchange == core.TopicExchange && !strings.Contains(rest, "/") {
			rest = strings.ReplaceAll(rest, ".", "/")
		}
		return core.Address{VHost: "/", Exchange: exchange, Topic: lineUnescape(rest)}, nil
	}
	return core.Address{}, errors.New("the destination " + strconv.Quote(text) + " is of no kind")
}
