package line

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/core"
)

// msgVerb reads MSG with the scanner of requests: append and scan are each
// other's reverse.
var msgVerb = func() *verb {
	v := &verb{
		name: "MSG", args: []argKind{argSid, argNumber, argDest}, need: 3, headers: true, payload: true,
		options: []option{
			{name: "ts", kind: count},
			{name: "pri", kind: count, max: 9},
			{name: "exp", kind: count},
			{name: "key", kind: text},
			{name: "dedup", kind: text},
			{name: "ct", kind: text},
			{name: "cid", kind: octets},
			{name: "reply", kind: text},
			{name: "retain", kind: flag},
			{name: "n", kind: count},
		},
	}
	for i := range v.options {
		v.hashes = append(v.hashes, hashOf(v.options[i].name))
	}
	return v
}()

// read takes a MSG apart.
func read(t *testing.T, wire string) (*request, *core.Message) {
	t.Helper()
	r := new(request)
	n, err := r.scan([]byte(wire), 1<<20)
	if err != nil || n == 0 {
		t.Fatalf("%q: %d, %v", wire, n, err)
	}
	r.verb = msgVerb
	if err := r.cutLength(); err != nil {
		t.Fatalf("%q: %v", wire, err)
	}
	if err := r.parse(); err != nil {
		t.Fatalf("%q: %v", wire, err)
	}
	m, err := r.body([]byte(wire)[n:])
	if err != nil || n+m != len(wire) {
		t.Fatalf("%q: payload of %d in %d, %v", wire, m, len(wire)-n, err)
	}
	return r, messageOf(t, r)
}

func messageOf(t *testing.T, r *request) *core.Message {
	t.Helper()
	where, err := core.ParseAddress("/", string(r.arg(2)))
	if err != nil {
		t.Fatal(err)
	}
	m := &core.Message{Address: where, Priority: core.DefaultPriority, Body: r.payload}
	if r.has(1) {
		m.Priority = uint8(r.num[1])
	}
	m.Key, _ = textOf(r, 3)
	for i, name := range []string{core.HeaderContentType, core.HeaderCorrelationID, core.HeaderReplyTo} {
		if !r.has(5 + i) {
			continue
		}
		value, err := r.octets(5 + i)
		if err != nil {
			t.Fatal(err)
		}
		if raw := string(r.bytes(r.raw[5+i])); name == core.HeaderReplyTo && isAddress(raw) {
			value = raw
		}
		m.Headers = append(m.Headers, core.Header{Name: name, Value: value})
	}
	for _, s := range r.headers {
		name, value, _ := strings.Cut(string(r.bytes(s)), "=")
		n, _ := unescape([]byte(name))
		v, _ := unescape([]byte(value))
		m.Headers = append(m.Headers, core.Header{Name: string(n), Value: string(v)})
	}
	return m
}

func isAddress(s string) bool {
	a, err := core.ParseAddress("/", s)
	return err == nil && a.String() == s
}

func textOf(r *request, option int) (string, error) {
	if !r.has(option) {
		return "", nil
	}
	out, err := unescape(r.bytes(r.raw[option]))
	if err != nil {
		return "", err
	}
	return string(out), nil
}

func lapseOf(n int64) time.Duration { return time.Duration(n) }

func TestAppendMsg(t *testing.T) {
	at := time.UnixMilli(1795400000123)
	where := core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: "site/9/temp"}
	for _, tt := range []struct {
		name  string
		event core.Event
		want  string
	}{
		{
			"plain",
			core.Event{Message: &core.Message{Address: where, Priority: 4, Arrived: at, Body: []byte("21.5")}},
			"MSG 7 1 t/site/9/temp ts=1795400000123 4\n21.5\n",
		},
		{
			"a retained one",
			core.Event{Retained: true, Message: &core.Message{
				Address: where, Priority: 4, Arrived: at, Body: []byte("21.5"), Headers: []core.Header{{Name: core.HeaderContentType, Value: "text/plain"}},
			}},
			"MSG 7 1 t/site/9/temp ts=1795400000123 ct=text/plain retain 4\n21.5\n",
		},
		{
			"the third time",
			core.Event{Tag: core.Tag{Attempt: 3}, Message: &core.Message{Address: where, Priority: 4, Arrived: at, Body: []byte("oops")}},
			"MSG 7 1 t/site/9/temp ts=1795400000123 n=3 4\noops\n",
		},
		{
			"all it can say",
			core.Event{Tag: core.Tag{Attempt: 1}, Message: &core.Message{
				Address: where, Priority: 9, Arrived: at, Expires: at.Add(time.Second), Key: "k y", Body: nil,
				Headers: []core.Header{
					{Name: "a=b", Value: "c=d"},
					{Name: core.HeaderReplyTo, Value: "r/Zx3q"},
					{Name: core.HeaderCorrelationID, Value: "\xff\x00"},
					{Name: core.HeaderContentType, Value: "a"},
					{Name: core.HeaderContentType, Value: "b"},
				},
			}},
			"MSG 7 1 t/site/9/temp ts=1795400000123 pri=9 exp=1795400001123 key=k%20y ct=a cid=%FF%00 reply=r/Zx3q :a%3Db=c=d :content-type=b 0\n\n",
		},
		{
			"a reply address of another world",
			core.Event{Message: &core.Message{
				Address: where, Priority: 4, Headers: []core.Header{{Name: core.HeaderReplyTo, Value: "/temp-queue/x %"}},
			}},
			"MSG 7 1 t/site/9/temp reply=/temp-queue/x%20%25 0\n\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := string(appendMsg(nil, msgHead(7), 1, &tt.event))
			if got != tt.want {
				t.Errorf("\n got %q\nwant %q", got, tt.want)
			}
			read(t, got)
		})
	}
}

func TestAppendErr(t *testing.T) {
	for _, tt := range []struct {
		err   *core.Error
		about subject
		want  string
	}{
		{core.Errorf(404, "no queue"), subject{}, "ERR 404 no no queue\n"},
		{core.Errorf(429, "full"), subject{id: 7, sid: 1, hasSid: true}, "ERR 429 retry id=7 full\n"},
		{core.Errorf(404, "none"), subject{hasSid: true}, "ERR 404 no sid=0 none\n"},
		{core.Errorf(400, "two\nlines\x00 and \xff"), subject{}, "ERR 400 no two?lines? and ?\n"},
		{core.Errorf(400, "%s", strings.Repeat("é", 150)), subject{}, "ERR 400 no " + strings.Repeat("é", 100) + "\n"},
		{core.Errorf(400, "x%s", strings.Repeat("é", 150)), subject{}, "ERR 400 no x" + strings.Repeat("é", 99) + "\n"},
	} {
		if got := string(appendErr(nil, tt.err, tt.about)); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func FuzzMsg(f *testing.F) {
	f.Add("site/9/temp", "name", "value", "text/plain", "r/x", []byte("21.5"), uint16(1), false)
	f.Add("a b%c", "=", "\x00\xff", "", "foreign /x", []byte("\r\nPUB q/a 1\n"), uint16(3), true)
	f.Fuzz(func(t *testing.T, topic, name, value, ct, reply string, body []byte, attempt uint16, retained bool) {
		if core.CheckTopic(topic) != nil || name == "" || !utf8.ValidString(ct) {
			t.Skip()
		}
		m := &core.Message{
			Address:  core.Address{VHost: "/", Exchange: core.TopicExchange, Topic: topic},
			Priority: uint8(attempt % 10), Arrived: time.UnixMilli(1795400000000), Key: value, Body: body,
			Headers: []core.Header{
				{Name: core.HeaderContentType, Value: ct},
				{Name: core.HeaderCorrelationID, Value: value},
				{Name: core.HeaderReplyTo, Value: reply},
				{Name: name, Value: value},
				{Name: name, Value: ct},
			},
		}
		e := core.Event{Message: m, Retained: retained, Tag: core.Tag{Attempt: attempt}}
		r, got := read(t, string(appendMsg(nil, msgHead(7), 9, &e)))
		if diff := cmp.Diff(m.Headers, got.Headers); diff != "" {
			t.Errorf("headers (-sent +read):\n%s", diff)
		}
		if got.Address != m.Address || string(got.Body) != string(body) || got.Priority != m.Priority || got.Key != m.Key {
			t.Errorf("sent %v %q, read %v %q", m.Address, body, got.Address, got.Body)
		}
		if r.has(8) != retained || r.has(9) != (attempt > 1) {
			t.Errorf("retain %v, n %v of attempt %d", r.has(8), r.has(9), attempt)
		}
	})
}

func FuzzAddress(f *testing.F) {
	f.Add("amq.topic", "plant/+/temp")
	f.Add("a/b", "key %")
	f.Add("$stream", "s")
	f.Fuzz(func(t *testing.T, exchange, topic string) {
		a := core.Address{VHost: "/", Exchange: exchange, Topic: topic}
		if core.CheckName(exchange) != nil || core.CheckTopic(topic) != nil {
			t.Skip()
		}
		got, err := core.ParseAddress("/", a.String())
		if err != nil || got != a {
			t.Errorf("%+v is %q, which is %+v, %v", a, a.String(), got, err)
		}
		r := new(request)
		if n, err := take(r, "STAT "+a.String()+"\n"); err != nil || n == 0 || r.nargs != 1 {
			t.Errorf("%q is no word: %v", a.String(), err)
		}
	})
}

// A number on the wire and core's are each other's reverse, and small.
func TestWireSeq(t *testing.T) {
	for _, seq := range []uint64{1, 2, 77, 1<<62 - 1, 1<<62 + 1, 1<<62 + 2, 1<<62 + 1000} {
		if got := coreSeq(wireSeq(seq)); got != seq || wireSeq(seq) > 1<<63-1 {
			t.Errorf("%d is %d on the wire, and %d again", seq, wireSeq(seq), got)
		}
	}
	if got := wireSeq(1<<62 + 1); got != 1 {
		t.Errorf("the first one in memory is %d, want 1", got)
	}
}
