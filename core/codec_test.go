package core

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var updateGolden = flag.Bool("update-codec", false, "write the golden file of the message codec anew")

// sameMessage compares what a message keeps at rest. An empty body or list of
// headers is none.
var sameMessage = cmp.Options{
	cmpopts.IgnoreUnexported(Message{}),
	cmpopts.IgnoreFields(Message{}, "Expect", "Must"),
	cmp.Transformer("kept", func(id Identity) [4]string {
		return [4]string{id.VHost, id.User, id.Client, id.Protocol}
	}),
	cmpopts.EquateEmpty(),
}

func fullMessage() *Message {
	return &Message{
		Address:  Address{VHost: "/", Exchange: TopicExchange, Topic: "plant/7/temp"},
		From:     &Identity{VHost: "/", User: "press", Client: "press-7", Protocol: "mqtt"},
		QoS:      2,
		Priority: 9,
		Retain:   true,
		UTF8:     true,
		Key:      "press-7",
		Dedup:    "a1b2",
		Headers: []Header{
			{HeaderContentType, "application/json"},
			{"unit", "°C"},
			{"unit", ""},
			{HeaderCorrelationID, "\x00\xff"},
			{strings.Repeat("n", 40), strings.Repeat("v", 200)},
		},
		Body:      []byte(`{"t":21.5}`),
		Arrived:   time.UnixMilli(1_790_000_000_123),
		NotBefore: time.UnixMilli(1_790_000_060_000),
		Expires:   time.UnixMilli(1_790_000_120_000),
	}
}

func TestMessageAtRest(t *testing.T) {
	bare := func() *Message {
		return &Message{Address: Address{VHost: "v", Exchange: "x", Topic: "t"}}
	}
	for name, change := range map[string]func(*Message){
		"a bare message":                       func(*Message) {},
		"an empty address is kept as it is":    func(m *Message) { m.Address = Address{} },
		"a publisher without names is not nil": func(m *Message) { m.From = &Identity{} },
		"everything at once":                   func(m *Message) { *m = *fullMessage() },
		"every word as a topic and a header": func(m *Message) {
			for _, w := range codecWords {
				m.Headers = append(m.Headers, Header{w, w})
			}
		},
		"a large body": func(m *Message) { m.Body = bytes.Repeat([]byte("ab"), 1<<12) },
	} {
		t.Run(name, func(t *testing.T) {
			m := bare()
			change(m)
			got, err := DecodeMessage(AppendMessage(nil, m))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(m, got, sameMessage); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestMessageAtRestForgets(t *testing.T) {
	m := fullMessage()
	m.Expect, m.Must = 7, true
	m.Arrived = m.Arrived.Add(999 * time.Microsecond)
	m.From.Remote, m.From.Rights = "10.0.0.1:5", 3
	got, err := DecodeMessage(AppendMessage(nil, m))
	if err != nil {
		t.Fatal(err)
	}
	if got.Expect != 0 || got.Must || got.From.Remote != "" || got.From.Rights != nil {
		t.Errorf("kept what belongs to the publish alone: %+v, %+v", got, got.From)
	}
	if !got.Arrived.Equal(m.Arrived.Truncate(time.Millisecond)) {
		t.Errorf("arrived %v, want the millisecond of %v", got.Arrived, m.Arrived)
	}
}

func TestMessageAtRestKeepsAnOldExpiry(t *testing.T) {
	m := fullMessage()
	m.Expires = time.Unix(-5, 0)
	got, err := DecodeMessage(AppendMessage(nil, m))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Expired(time.UnixMilli(1000)) {
		t.Errorf("an expiry before 1970 became %v", got.Expires)
	}
}

func TestDecodeMessageSharesNothing(t *testing.T) {
	b := AppendMessage(nil, fullMessage())
	got, err := DecodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] = 'Z'
	}
	if d := cmp.Diff(fullMessage(), got, sameMessage); d != "" {
		t.Error(d)
	}
}

func TestDecodeMessageRefuses(t *testing.T) {
	whole := AppendMessage(nil, fullMessage())
	for name, row := range map[string]struct {
		b    []byte
		want string
	}{
		"nothing":                             {nil, "ends too early"},
		"a version it does not know":          {[]byte{7, 0, 0, 0}, "version 7, this Godwit reads version 1"},
		"a priority that does not exist":      {[]byte{1, 0, 10, 0, 0, 0, 0, 0, 0, 0}, "priority 10"},
		"a quality of service of 3":           {[]byte{1, 3, 4, 0, 0, 0, 0, 0, 0, 0}, "QoS 3"},
		"a word it does not know":             {[]byte{1, 0, 0, 0, 0x81, 0x7f, 0, 0, 0, 0, 0}, "word 8128"},
		"more headers than octets":            {[]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f}, "ends too early"},
		"a body longer than the rest":         {[]byte{1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f}, "ends too early"},
		"a number of more than 64 bits":       {[]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "ends too early"},
		"a time beyond all times":             {append([]byte{1, codecArrived, 0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "no time"},
		"octets behind the end":               {append(bytes.Clone(whole), 0), "1 octets follow"},
		"the same without its last octet":     {whole[:len(whole)-1], "ends too early"},
		"the same without all but the header": {whole[:3], "ends too early"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := DecodeMessage(row.b)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, %v; want an error with %q", m, err, row.want)
			}
		})
	}
	for n := range whole {
		if _, err := DecodeMessage(whole[:n]); err == nil {
			t.Fatalf("the first %d of %d octets were taken for a message", n, len(whole))
		}
	}
}

// The golden file is version 1 as it was when it came to be. A Godwit that
// cannot read it cannot read its users' disks.
func TestMessageGolden(t *testing.T) {
	path := filepath.Join("testdata", "message_v1.hex")
	if *updateGolden {
		text := hex.EncodeToString(AppendMessage(nil, fullMessage())) + "\n"
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(fullMessage(), got, sameMessage); d != "" {
		t.Error("reading the golden file:", d)
	}
	if now := AppendMessage(nil, fullMessage()); !bytes.Equal(now, b) {
		t.Errorf("version 1 is written differently now:\n got %x\nwant %x", now, b)
	}
}

func TestCodecWordsNeverMove(t *testing.T) {
	for n, want := range map[int]string{0: "/", 1: "amq.topic", 8: "mqtt", 12: "content-type", 22: "traceparent", 37: "false"} {
		if codecWords[n] != want {
			t.Errorf("word %d is %q, was %q: stored messages now read as something else", n, codecWords[n], want)
		}
	}
	if len(codecWords) > 64 {
		t.Error("a word beyond the 64th takes two bytes; appendText writes one")
	}
}

func drawMessage(t *rapid.T) *Message {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom(codecWords[:]))
	when := rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "none") {
			return time.Time{}
		}
		return time.UnixMilli(rapid.Int64Range(1, 1<<45).Draw(t, "ms"))
	})
	m := &Message{
		Address:  Address{text.Draw(t, "vhost"), text.Draw(t, "exchange"), text.Draw(t, "topic")},
		QoS:      rapid.Uint8Range(0, 2).Draw(t, "qos"),
		Priority: rapid.Uint8Range(0, 9).Draw(t, "priority"),
		Retain:   rapid.Bool().Draw(t, "retain"),
		UTF8:     rapid.Bool().Draw(t, "utf8"),
		Key:      text.Draw(t, "key"),
		Dedup:    text.Draw(t, "dedup"),
		Body:     rapid.SliceOf(rapid.Byte()).Draw(t, "body"),
		Arrived:  when.Draw(t, "arrived"), NotBefore: when.Draw(t, "notbefore"), Expires: when.Draw(t, "expires"),
	}
	if rapid.Bool().Draw(t, "from") {
		m.From = &Identity{VHost: text.Draw(t, "fvhost"), User: text.Draw(t, "user"), Client: text.Draw(t, "client"), Protocol: text.Draw(t, "protocol")}
	}
	for range rapid.IntRange(0, 5).Draw(t, "headers") {
		m.Headers = append(m.Headers, Header{text.Draw(t, "name"), text.Draw(t, "value")})
	}
	return m
}

func TestMessageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		got, err := DecodeMessage(AppendMessage([]byte("before"), m)[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, got, sameMessage); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(AppendMessage(nil, fullMessage()))
	f.Add(AppendMessage(nil, &Message{}))
	f.Add([]byte{1, 0xfc, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{1, codecArrived, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			return
		}
		again, err := DecodeMessage(AppendMessage(nil, m))
		if err != nil {
			t.Fatalf("what was read cannot be written and read again: %v", err)
		}
		if d := cmp.Diff(m, again, sameMessage); d != "" {
			t.Fatal(d)
		}
	})
}

func TestDecodeMessageMemoryIsBounded(t *testing.T) {
	hostile := append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0}, 0x80, 0x80, 0x04) // 65,536 headers
	hostile = append(hostile, make([]byte, 2*65536)...)
	grown := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			_, _ = DecodeMessage(hostile)
		}
	}).AllocedBytesPerOp()
	if limit := int64(20 * len(hostile)); grown > limit {
		t.Errorf("%d octets made the decoder take %d bytes, the limit is %d", len(hostile), grown, limit)
	}
}

func TestMessageAtRestAllocations(t *testing.T) {
	m, buf := fullMessage(), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = AppendMessage(buf[:0], m) }); n != 0 {
		t.Errorf("AppendMessage allocates %v times", n)
	}
	b := AppendMessage(nil, m)
	if n := testing.AllocsPerRun(100, func() { m, _ = DecodeMessage(b) }); n > 4 {
		t.Errorf("DecodeMessage allocates %v times, want the message, its texts, its headers and its body", n)
	}
	runtime.KeepAlive(m)
}

func BenchmarkMessageCodec(b *testing.B) {
	m := &Message{
		Address: Address{"/", TopicExchange, "plant/7/temp"}, QoS: 1, Priority: DefaultPriority,
		From: &Identity{VHost: "/", User: "press", Client: "press-7", Protocol: "mqtt"},
		Body: make([]byte, 256), Arrived: time.UnixMilli(1_790_000_000_123),
	}
	buf := AppendMessage(nil, m)
	b.Run("append", func(b *testing.B) {
		for range b.N {
			buf = AppendMessage(buf[:0], m)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			_, _ = DecodeMessage(buf)
		}
	})
}
