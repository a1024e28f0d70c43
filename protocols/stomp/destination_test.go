package stomp

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/godwitmq/godwit/core"
)

func TestDestinations(t *testing.T) {
	for _, c := range []struct {
		text, want string // "4xx" is refused
		back       string // how it is told; "": as it was read
		style      style
	}{
		{"/queue/orders", "q/orders", "", slash},
		{"/queue/a/b.c", "q/a/b.c", "", slash},
		{"/queue/50%25", "q/50%25", "", slash},
		{"/queue/a%2Fb", "q/a/b", "/queue/a/b", slash},
		{"/queue/%zz", "q/%25zz", "/queue/%25zz", slash},
		{"/amq/queue/orders", "q/orders", "/queue/orders", slash},
		{"/exchange/amq.default/orders", "q/orders", "/queue/orders", slash},
		{"/topic/a/b/c", "t/a/b/c", "", slash},
		{"/topic/a.b.c", "t/a/b/c", "", dot},
		{"/topic/a/b.c", "t/a/b.c", "", slash},
		{"/topic/a.b%2Ec", "t/a/b.c", "", dot},
		{"/topic/sensor%2Ev1", "t/sensor.v1", "", slash},
		{"/topic//a", "t//a", "", slash},
		{"/topic/.a", "t//a", "", dot},
		{"/topic/load/50%25", "t/load/50%25", "", slash},
		{"/topic/a%2Bb%23", "t/a+b#", "", slash},
		{"/topic/a*>", "t/a*>", "/topic/a%2A%3E", slash},
		{"/exchange/amq.topic/a.b", "t/a/b", "/topic/a.b", dot},
		{"/exchange/logs/a.b", "x/logs/a.b", "", slash},
		{"/exchange/a%2Fb/c/d", "x/a%2Fb/c/d", "", slash},
		{"/stream/audit", "s/audit", "", slash},
		{"/reply-queue/Zx3q", "r/Zx3q", "", slash},
		{"/topic/a+", "400", "", slash},
		{"/topic/#", "400", "", slash},
		{"/topic/a%2Fb", "400", "", slash},
		{"/topic/a%00b", "400", "", slash},
		{"/topic/", "400", "", slash},
		{"/queue/", "400", "", slash},
		{"/queue/a%0Ab", "400", "", slash},
		{"/exchange/logs", "x/logs", "", slash},
		{"/exchange/logs/", "400", "", slash},
		{"/exchange/amq.default", "400", "", slash},
		{"/exchange/$stream/a", "403", "", slash},
		{"/nowhere/a", "404", "", slash},
		{"orders", "404", "", slash},
		{"", "404", "", slash},
	} {
		p, err := names{vhost: "/"}.target(c.text)
		got := p.at.String()
		if err != nil {
			got = core.AsError(err).Code.Name()
			c.want = map[string]string{"400": "syntax", "403": "denied", "404": "not_found"}[c.want]
		}
		if got != c.want || (err == nil && p.style != c.style) {
			t.Errorf("%q = %s, style %d, %v; want %s, style %d", c.text, got, p.style, err, c.want, c.style)
			continue
		}
		if c.back == "" {
			c.back = c.text
		}
		if back := string(appendDestination(nil, p.at, p.style)); err == nil && back != c.back {
			t.Errorf("%q is told as %q, want %q", c.text, back, c.back)
		}
	}
}

func TestWildcards(t *testing.T) {
	for text, want := range map[string]string{
		"/topic/a/*/c": "a/+/c", "/topic/a/+/c": "a/+/c", "/topic/a.*.c": "a/+/c",
		"/topic/a/>": "a/#", "/topic/a/**": "a/#", "/topic/a.#": "a/#", "/topic/#": "#", "/topic/*": "+",
		"/topic/#/b": "#/b", "/topic/a.#.b": "a/#/b",
		"/topic/a/>/b": "a/>/b", "/topic/a/b*": "a/b*", "/topic/a/b>": "a/b>", // text
		"/topic/a+/b": "", "/topic/a#": "", "/topic/%2B/b": "", "/topic/a/%23": "",
	} {
		p, err := names{vhost: "/"}.source(text)
		if (err != nil) != (want == "") || p.at.Topic != want {
			t.Errorf("%q subscribes to %q, %v; want %q", text, p.at.Topic, err, want)
		}
	}
}

func TestSeparators(t *testing.T) {
	for _, c := range []struct {
		separator  Separator
		bare       string
		text, want string
		style      style
	}{
		{SeparatorSlash, "", "/topic/a.b", "t/a.b", slash},
		{SeparatorDot, "", "/topic/a.b/c", "t/a/b/c", dot},
		{SeparatorDot, "", "/queue/a.b", "q/a.b", dot},
		{SeparatorAuto, "topic", "a.b", "t/a/b", dot},
		{SeparatorAuto, "queue", "a.b", "q/a.b", slash},
	} {
		p, err := names{vhost: "/", separator: c.separator, bare: c.bare}.target(c.text)
		if err != nil || p.at.String() != c.want || p.style != c.style {
			t.Errorf("%q with separator %q, bare %q = %s, style %d, %v; want %s, style %d", c.text, c.separator, c.bare, p.at, p.style, err, c.want, c.style)
		}
	}
}

// roundTrip checks that what is told can always be sent to again.
func roundTrip(t interface {
	Helper()
	Errorf(string, ...any)
}, a core.Address,
) {
	t.Helper()
	for _, s := range []style{slash, dot} {
		for _, n := range []names{{vhost: "/"}, {vhost: "/", separator: SeparatorDot}, {vhost: "/", separator: SeparatorSlash}} {
			if (n.separator == SeparatorDot && s != dot) || (n.separator == SeparatorSlash && s != slash) {
				continue // such a listener tells nothing in the other style
			}
			text := string(appendDestination(nil, a, s))
			p, err := n.target(text)
			if err != nil || p.at != a {
				t.Errorf("%#v in style %d is %q, which is %#v, %v", a, s, text, p.at, err)
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topic := rapid.StringOfN(rapid.RuneFrom([]rune("a/.%*>+#$2F é:")), 1, 12, -1).Draw(t, "topic")
		exchange := rapid.SampledFrom([]string{core.TopicExchange, core.DefaultExchange, "logs", "a/b%"}).Draw(t, "exchange")
		roundTrip(t, core.Address{VHost: "/", Exchange: exchange, Topic: topic})
	})
}

func FuzzDestination(f *testing.F) {
	for _, seed := range []string{"a/b.c", "/topic/a.%2Ec", "%%41", "*/>/+/#", "é/\u00ff", "/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if core.CheckTopic(text) == nil && strings.Count(strings.ReplaceAll(text, ".", "/"), "/") < core.MaxTopicLevels {
			roundTrip(t, core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: text})
			roundTrip(t, core.Address{VHost: "/", Exchange: core.DefaultExchange, Topic: text})
		}
		for _, prefix := range []string{"", "/topic/", "/queue/", "/exchange/"} {
			n := names{vhost: "/"}
			p, err := n.target(prefix + text)
			if err != nil || p.kind == tempPlace {
				continue
			}
			told := string(appendDestination(nil, p.at, p.style))
			if again, err := n.target(told); err != nil || again.at != p.at {
				t.Fatalf("%q is %v, told as %q, which is %v, %v", prefix+text, p.at, told, again.at, err)
			}
		}
		_, _ = names{vhost: "/"}.source("/topic/" + text) // does not panic
	})
}
