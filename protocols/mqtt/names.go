package mqtt

import (
	"strconv"
	"strings"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/topic"
)

// Names that begin with one of these stand for something else than a topic of
// the virtual host's tree. Any other $name is an ordinary topic.
const (
	queuePrefix    = "$queue/"    // a queue by its name, which may hold "/"
	exchangePrefix = "$exchange/" // $exchange/X/key: through exchange X
	replyPrefix    = "$reply/"
	sharePrefix    = "$share/"
	streamPrefix   = "$stream/"
	replayPrefix   = "$replay/"
	delayedPrefix  = "$delayed/"
	sysPrefix      = "$SYS/"

	sessionPrefix = "$mqtt/" // the queue of a session; only core and we name it
)

// Refusals that are told with a code of their own.
var (
	errNoWildcard = &core.Error{
		Code: core.CodeBadValue, Reason: core.ReasonUnsupported,
		Text: "a queue is named without wildcards",
	}
	errDirectWildcard = &core.Error{
		Code: core.CodeBadValue, Reason: core.ReasonUnsupported,
		Text: "a direct exchange compares whole keys: subscribe to $exchange/X/KEY without wildcards",
	}
	errShareQueue = &core.Error{
		Code: core.CodeSyntax,
		Text: "consumers of a queue share it already: subscribe to $queue/NAME without $share",
	}
	errReservedQueue = &core.Error{
		Code: core.CodeDenied, Reason: core.ReasonDenied,
		Text: "queues whose names begin with $ are the server's",
	}
	errPayloadFormat = &core.Error{
		Code: core.CodeBadValue, Reason: core.ReasonRejected,
		Text: "the payload is not the UTF-8 its format indicator promises",
	}
)

func isShared(filter string) bool { return strings.HasPrefix(filter, sharePrefix) }

// A target is what a topic name to publish to stands for.
type target struct {
	address core.Address
	keeps   bool          // RETAIN means something there
	delay   time.Duration // of $delayed/
	refused *core.Error   // instead of all that
}

// targetOf translates a topic name, which is free of wildcards.
func targetOf(vhost, name string) target {
	if name[0] != '$' {
		return target{address: core.Address{VHost: vhost, Exchange: core.TopicExchange, Topic: name}, keeps: true}
	}
	switch {
	case strings.HasPrefix(name, queuePrefix+"$"):
		return target{refused: errReservedQueue}
	case strings.HasPrefix(name, queuePrefix):
		return named(vhost, core.DefaultExchange, name[len(queuePrefix):], "$queue/NAME")
	case strings.HasPrefix(name, replyPrefix):
		return named(vhost, core.ReplyExchange, name[len(replyPrefix):], "$reply/ID")
	case strings.HasPrefix(name, exchangePrefix):
		exchange, key, _ := strings.Cut(name[len(exchangePrefix):], "/")
		if core.CheckName(exchange) != nil {
			return target{refused: core.Errorf(core.CodeSyntax, "want $exchange/X/key")}
		}
		// Whether it wants a key is the exchange's affair.
		return target{address: core.Address{VHost: vhost, Exchange: exchange, Topic: key}}
	case strings.HasPrefix(name, sysPrefix):
		return target{refused: &core.Error{Code: core.CodeDenied, Reason: core.ReasonDenied, Text: "$SYS is the server's: nobody publishes there"}}
	case strings.HasPrefix(name, sharePrefix), strings.HasPrefix(name, replayPrefix):
		return target{refused: core.Errorf(core.CodeSyntax, "%q is for subscriptions: nobody publishes there", name)}
	case strings.HasPrefix(name, streamPrefix):
		return target{refused: core.NotYet("publishing to $stream/")}
	case strings.HasPrefix(name, delayedPrefix):
		return delayedTarget(vhost, name[len(delayedPrefix):])
	}
	return target{address: core.Address{VHost: vhost, Exchange: core.TopicExchange, Topic: name}, keeps: true}
}

// delayedTarget translates SECONDS/TOPIC, where TOPIC is any name that can be
// published to.
func delayedTarget(vhost, rest string) target {
	number, name, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(number, 10, 32)
	switch {
	case err != nil || name == "":
		return target{refused: core.Errorf(core.CodeSyntax, "want $delayed/SECONDS/topic")}
	case strings.HasPrefix(name, delayedPrefix):
		return target{refused: core.Errorf(core.CodeSyntax, "one $delayed/ is enough")}
	}
	t := targetOf(vhost, name)
	t.delay = time.Duration(n) * time.Second
	return t
}

func named(vhost, exchange, name, want string) target {
	if name == "" {
		return target{refused: core.Errorf(core.CodeSyntax, "want %s", want)}
	}
	return target{address: core.Address{VHost: vhost, Exchange: exchange, Topic: name}}
}

// A source is what a topic filter stands for.
type source struct {
	address core.Address // exchange and filter, or a queue
	queue   bool
	share   string // the group it is shared by: address is what the group's queue is bound to
	prefix  string // what delivered topics begin with, so that they match the filter [MQTT-3.3.2-3]
}

// sourceOf translates a topic filter.
func sourceOf(vhost, filter string) (source, *core.Error) {
	if err := core.CheckTopic(filter); err != nil {
		return source{}, core.AsError(err)
	}
	if fault := topic.Fault(filter, false); fault != "" { // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]
		return source{}, core.Errorf(core.CodeSyntax, "filter %q: %s", filter, fault)
	}
	s := source{address: core.Address{VHost: vhost, Exchange: core.TopicExchange, Topic: filter}}
	if filter[0] != '$' {
		return s, nil
	}
	switch {
	case strings.HasPrefix(filter, queuePrefix):
		return queueSource(s, filter)
	case strings.HasPrefix(filter, exchangePrefix):
		return exchangeSource(s, filter)
	case strings.HasPrefix(filter, sharePrefix+"$queue/"), isShared(filter) && strings.Contains(filter, "/"+queuePrefix):
		return s, errShareQueue
	case isShared(filter):
		return sharedSource(vhost, filter[len(sharePrefix):])
	case strings.HasPrefix(filter, delayedPrefix):
		return s, core.Errorf(core.CodeSyntax, "$delayed/ is for publishing")
	case strings.HasPrefix(filter, streamPrefix):
		return s, core.NotYet("subscribing to $stream/")
	case strings.HasPrefix(filter, replayPrefix):
		return s, core.NotYet("subscribing to $replay/")
	case strings.HasPrefix(filter, replyPrefix):
		return s, core.NotYet("subscribing to $reply/")
	case strings.HasPrefix(filter, sysPrefix):
		return s, core.NotYet("subscribing to $SYS/")
	}
	return s, nil
}

// sharedSource reads GROUP/FILTER [MQTT-4.8.2-1] [MQTT-4.8.2-2].
func sharedSource(vhost, rest string) (source, *core.Error) {
	group, filter, _ := strings.Cut(rest, "/")
	switch {
	case group == "" || filter == "" || topic.HasWildcard(group):
		return source{}, core.Errorf(core.CodeSyntax, "want $share/GROUP/FILTER")
	case isShared(filter):
		return source{}, core.Errorf(core.CodeSyntax, "one $share is enough")
	}
	if err := core.CheckName(group); err != nil {
		return source{}, core.AsError(err)
	}
	s, err := sourceOf(vhost, filter)
	s.share, s.queue = group, true
	return s, err
}

func queueSource(s source, filter string) (source, *core.Error) {
	name := filter[len(queuePrefix):]
	switch {
	case name == "":
		return s, core.Errorf(core.CodeSyntax, "want $queue/NAME")
	case topic.HasWildcard(name):
		return s, errNoWildcard
	case core.ReservedName(name):
		return s, errReservedQueue
	}
	s.queue, s.prefix = true, filter
	s.address.Exchange, s.address.Topic = core.DefaultExchange, name
	return s, nil
}

func exchangeSource(s source, filter string) (source, *core.Error) {
	exchange, key, _ := strings.Cut(filter[len(exchangePrefix):], "/")
	switch {
	case core.CheckName(exchange) != nil || key == "" || topic.HasWildcard(exchange):
		return s, core.Errorf(core.CodeSyntax, "want $exchange/X/filter")
	case exchange == core.TopicExchange:
		return s, core.Errorf(core.CodeSyntax, "the topics of %s have no prefix: subscribe to %q", exchange, key)
	}
	s.prefix = filter[:len(filter)-len(key)]
	s.address.Exchange, s.address.Topic = exchange, key
	return s, nil
}

// suits says why an exchange of that spec cannot have the filter, or nil. What
// is delivered must match the filter [MQTT-3.3.2-3], and an exchange that takes
// any key delivers any.
func (s *source) suits(spec *core.ExchangeSpec) *core.Error {
	filter := s.address.Topic
	switch spec.Kind {
	case core.FanoutKind, core.HeadersKind:
		if filter != "#" {
			return core.Errorf(core.CodeSyntax, "a %s exchange takes any key: subscribe to %s%s/#", spec.Kind, exchangePrefix, spec.Name)
		}
	case core.DirectKind:
		if topic.HasWildcard(filter) {
			return errDirectWildcard
		}
	case core.TopicKind:
	}
	return nil
}

// isExchange says whether the filter names an exchange, shared or not.
func (s *source) isExchange() bool { return (!s.queue || s.share != "") && s.prefix != "" }

// nameOf is the topic name that a client uses for an address; ok is false if
// MQTT has none for it.
func nameOf(a core.Address) (name string, ok bool) {
	switch a.Exchange {
	case core.TopicExchange:
		name = a.Topic
	case core.DefaultExchange:
		name = queuePrefix + a.Topic
	case core.ReplyExchange:
		name = replyPrefix + a.Topic
	case core.StreamExchange:
		name = streamPrefix + a.Topic
	default:
		name = exchangePrefix + a.Exchange + "/" + a.Topic
	}
	return name, name != "" && len(name) <= 0xffff && !strings.ContainsAny(name, "+#")
}

// replyHeader turns a Response Topic into the text form of its address, which
// all protocols understand, and responseTopic turns it back.
func replyHeader(vhost, name string) string {
	if t := targetOf(vhost, name); t.refused == nil {
		return t.address.String()
	}
	if rest, ok := strings.CutPrefix(name, streamPrefix); ok && rest != "" {
		return core.Address{Exchange: core.StreamExchange, Topic: rest}.String()
	}
	return core.Address{Exchange: core.TopicExchange, Topic: name}.String()
}

func responseTopic(header string) (name string, ok bool) {
	a, err := core.ParseAddress("", header)
	if err != nil {
		return "", false
	}
	return nameOf(a)
}
