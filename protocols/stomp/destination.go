package stomp

import (
	"strings"

	"github.com/godwitmq/godwit/core"
)

// A style is how a topic's levels are separated in a destination's text.
type style uint8

const (
	slash style = iota
	dot
	numStyles
)

// A Separator says how the topic of a destination is read and written.
type Separator string

// The separators.
const (
	SeparatorAuto  Separator = ""      // with a slash in it: slash; without: dot
	SeparatorSlash Separator = "slash" // dots are text
	SeparatorDot   Separator = "dot"   // dots and slashes separate; dots are written
)

// A placeKind is what sort of thing a destination names.
type placeKind uint8

const (
	topicPlace    placeKind = iota // /topic/T, /exchange/amq.topic/T
	queuePlace                     // /queue/N
	madePlace                      // /amq/queue/N: never created by use
	exchangePlace                  // /exchange/X, /exchange/X/KEY
	streamPlace                    // /stream/N
	replyPlace                     // /reply-queue/ID
	tempPlace                      // /temp-queue/N, /temp-topic/N
)

// A place is what a destination means. For SUBSCRIBE to a topic the address is
// a filter.
type place struct {
	kind  placeKind
	at    core.Address
	style style
}

// names reads and writes destinations for one connection.
type names struct {
	vhost     string
	separator Separator
	bare      string // "topic", "queue" or "": what a destination without a prefix is

	// isTopic says whether an exchange compares keys by levels: there the
	// dots and stars of other brokers' clients mean what they mean in topics.
	// Nil: none does.
	isTopic func(exchange string) bool
}

const hexDigits = "0123456789ABCDEF"

// prefixes of destinations, in the order of how often they are met.
var prefixes = []struct {
	text string
	kind placeKind
}{
	{"/queue/", queuePlace},
	{"/topic/", topicPlace},
	{"/exchange/", exchangePlace},
	{"/amq/queue/", madePlace},
	{"/stream/", streamPlace},
	{"/reply-queue/", replyPlace},
	{"/temp-queue/", tempPlace},
	{"/temp-topic/", tempPlace},
}

// target reads the destination of a SEND.
func (n names) target(text string) (place, error) { return n.read(text, literal) }

// source reads the destination of a SUBSCRIBE.
func (n names) source(text string) (place, error) { return n.read(text, wildcards) }

// A reading says what a topic's text may hold.
type reading uint8

const (
	literal reading = iota
	wildcards
)

func (n names) read(text string, how reading) (place, error) {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(text, p.text); ok {
			return n.readKind(p.kind, text, rest, how)
		}
	}
	switch {
	case strings.HasPrefix(text, "/"):
	case n.bare == "topic":
		return n.readKind(topicPlace, text, text, how)
	case n.bare == "queue":
		return n.readKind(queuePlace, text, text, how)
	}
	return place{}, core.Errorf(core.CodeNotFound, "destination %s is none of /queue/NAME /topic/TOPIC /exchange/NAME/KEY /amq/queue/NAME", quoted(text))
}

func (n names) readKind(kind placeKind, text, rest string, how reading) (place, error) {
	if rest == "" {
		return place{}, core.Errorf(core.CodeSyntax, "destination %s has no name", quoted(text))
	}
	p := place{kind: kind, at: core.Address{VHost: n.vhost}, style: n.opaqueStyle()}
	switch kind {
	case topicPlace:
		return n.readTopic(rest, how)
	case exchangePlace:
		return n.readExchange(text, rest, how)
	case queuePlace, madePlace:
		p.at.Exchange = core.DefaultExchange
	case streamPlace:
		p.at.Exchange = core.StreamExchange
	case replyPlace, tempPlace:
		p.at.Exchange = core.ReplyExchange
	}
	p.at.Topic = decoded(rest)
	return p, core.CheckTopic(p.at.Topic)
}

// opaqueStyle is the style of deliveries from what has no levels.
func (n names) opaqueStyle() style {
	if n.separator == SeparatorDot {
		return dot
	}
	return slash
}

// readExchange reads NAME or NAME/KEY. Without a key a SUBSCRIBE gets all that
// the exchange gets, and a SEND names none; the exchange says whether it wants one.
func (n names) readExchange(text, rest string, how reading) (place, error) {
	name, key, slashed := strings.Cut(rest, "/")
	name = decoded(name)
	switch {
	case slashed && key == "":
		return place{}, core.Errorf(core.CodeSyntax, "destination %s has an empty key: leave the slash out, too", quoted(text))
	case name == core.DefaultExchange && key == "":
		return place{}, core.Errorf(core.CodeSyntax, "destination %s has no key: that exchange has the queues by their names, /queue/NAME", quoted(text))
	case name == core.DefaultExchange:
		return n.readKind(queuePlace, text, key, how)
	case name == core.TopicExchange && key == "" && how == wildcards:
		return n.readTopic("#", how)
	case name == core.TopicExchange && key != "":
		return n.readTopic(key, how)
	case strings.HasPrefix(name, "$"):
		return place{}, core.Errorf(core.CodeDenied, "exchange %s is the broker's own", quoted(name))
	}
	if err := core.CheckName(name); err != nil {
		return place{}, err
	}
	p := place{kind: exchangePlace, style: n.opaqueStyle(), at: core.Address{VHost: n.vhost, Exchange: name, Topic: decoded(key)}}
	switch {
	case key == "":
		return p, nil
	case n.isTopic == nil || !n.isTopic(name):
		return p, core.CheckTopic(p.at.Topic)
	case n.separator == SeparatorDot:
		n.separator = SeparatorAuto // what is told has slashes
	}
	levels, err := n.readTopic(key, how)
	p.at.Topic = levels.at.Topic
	return p, err
}

// readTopic reads a topic or a filter. With the separator auto a slash
// anywhere makes dots text, else they separate.
func (n names) readTopic(text string, how reading) (place, error) {
	separators := "/"
	p := place{kind: topicPlace, at: core.Address{VHost: n.vhost, Exchange: core.TopicExchange}}
	switch {
	case n.separator == SeparatorDot:
		separators, p.style = "/.", dot
	case n.separator == SeparatorAuto && strings.IndexByte(text, '/') < 0:
		separators = "."
		if strings.IndexByte(text, '.') >= 0 {
			p.style = dot
		}
	}
	var b strings.Builder
	for rest, more := text, true; more; {
		var level string
		i := strings.IndexAny(rest, separators)
		if more = i >= 0; more {
			level, rest = rest[:i], rest[i+1:]
		} else {
			level = rest
		}
		level, err := readLevel(level, how, more)
		if err != nil {
			return place{}, err
		}
		b.WriteString(level)
		if more {
			b.WriteByte('/')
		}
	}
	p.at.Topic = b.String()
	return p, core.CheckTopic(p.at.Topic)
}

// readLevel turns one level of a destination into one of a topic or filter.
func readLevel(level string, how reading, more bool) (string, error) {
	if how == wildcards {
		switch {
		case level == "*" || level == "+":
			return "+", nil
		case level == "#" || (!more && (level == ">" || level == "**")):
			return "#", nil
		}
	}
	if strings.ContainsAny(level, "+#") {
		return "", core.Errorf(core.CodeSyntax, "+ and # must be whole levels of what is subscribed to, and %%2B and %%23 elsewhere; level %s", quoted(level))
	}
	text := decoded(level)
	if strings.ContainsAny(text, "/\x00") {
		return "", core.Errorf(core.CodeSyntax, "a level of a topic cannot hold %%2F or %%00; level %s", quoted(level))
	}
	if how == wildcards && strings.ContainsAny(text, "+#") {
		return "", core.Errorf(core.CodeSyntax, "a filter cannot hold + or # as text; level %s", quoted(level))
	}
	return text, nil
}

// decoded replaces %XX; a % that is not followed by two hexadecimal digits is
// text, as it is in what other brokers' clients write.
func decoded(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) < 16 && unhex(s[i+2]) < 16 {
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// appendDestination writes an address as a destination that reads back as the
// same address, in either style.
func appendDestination(dst []byte, a core.Address, s style) []byte {
	switch a.Exchange {
	case core.TopicExchange:
		return appendTopic(append(dst, "/topic/"...), a.Topic, s)
	case core.DefaultExchange:
		return appendPercent(append(dst, "/queue/"...), a.Topic, "%")
	case core.StreamExchange:
		return appendPercent(append(dst, "/stream/"...), a.Topic, "%")
	case core.ReplyExchange:
		return appendPercent(append(dst, "/reply-queue/"...), a.Topic, "%")
	}
	dst = appendPercent(append(dst, "/exchange/"...), a.Exchange, "%/")
	if a.Topic == "" {
		return dst
	}
	return appendPercent(append(dst, '/'), a.Topic, "%")
}

// appendTopic encodes what would be read as something else. In slash style a
// topic of one level has no slash to tell its style by, so its dots are encoded.
func appendTopic(dst []byte, topic string, s style) []byte {
	if s == slash {
		if strings.IndexByte(topic, '/') < 0 {
			return appendPercent(dst, topic, "%*+#>.")
		}
		return appendPercent(dst, topic, "%*+#>")
	}
	start := len(dst)
	dst = appendPercent(dst, topic, "%*+#>.")
	for i := start; i < len(dst); i++ {
		if dst[i] == '/' {
			dst[i] = '.'
		}
	}
	return dst
}

func appendPercent(dst []byte, s, set string) []byte {
	for i := range len(s) {
		c := s[i]
		if c < 0x40 && strings.IndexByte(set, c) >= 0 { // all of the sets are below
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
			continue
		}
		dst = append(dst, c)
	}
	return dst
}
