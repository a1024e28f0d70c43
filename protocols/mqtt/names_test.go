package mqtt

import (
	"testing"

	"github.com/godwitmq/godwit/core"
)

func TestTargets(t *testing.T) {
	for _, row := range []struct {
		name string
		want string // text form of the address, or the code of the refusal
	}{
		{"a/b", "t/a/b"},
		{"/", "t//"},
		{"$x/y", "t/$x/y"},
		{"$queue", "t/$queue"},
		{"$queue/orders/eu", "q/orders/eu"},
		{"$exchange/logs/a/b", "x/logs/a/b"},
		{"$exchange/amq.topic/a", "t/a"},
		{"$reply/Zx", "r/Zx"},
		{"$queue/", "syntax"},
		{"$queue/$mqtt/x", "denied"},
		{"$exchange/logs", "x/logs"},
		{"$exchange//a", "syntax"},
		{"$SYS/broker", "denied"},
		{"$share/g/a", "syntax"},
		{"$stream/s", "bad_value"},
		{"$delayed/5/a", "t/a"},
		{"$delayed/5/$queue/a", "q/a"},
		{"$delayed/5", "syntax"},
		{"$delayed/soon/a", "syntax"},
		{"$delayed/-1/a", "syntax"},
		{"$delayed/5/$delayed/5/a", "syntax"},
		{"$delayed/5/$SYS/a", "denied"},
		{"$replay/first/a", "syntax"},
	} {
		got := targetOf("/", row.name)
		text := got.address.String()
		if got.refused != nil {
			text = got.refused.Code.Name()
		}
		if text != row.want {
			t.Errorf("%q stands for %s, want %s", row.name, text, row.want)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"a/b", "$queue/x", "$exchange/x/y/z", "$reply/r", "a b%/é", "$stream/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if core.CheckTopic(name) != nil || hasWildcardByte([]byte(name)) {
			return
		}
		if got, ok := responseTopic(replyHeader("/", name)); ok && got != name {
			if to := targetOf("/", name); to.address.Exchange == core.TopicExchange && name[0] == '$' {
				return // $exchange/amq.topic/a is a
			}
			t.Errorf("%q comes back as %q", name, got)
		}
		if to := targetOf("/", name); to.refused == nil {
			if to.address.Exchange == "" || to.address.Topic == "" {
				t.Errorf("%q stands for %+v", name, to.address)
			}
		}
		_, _ = sourceOf("/", name)
	})
}
