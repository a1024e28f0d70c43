package protocoltest

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/go-stomp/stomp/v3/frame"
)

// What the STOMP client writes is read by go-stomp's reader as it was meant,
// and what its writer writes is read by ours.
func TestStompAgreesWithGoStomp(t *testing.T) {
	w := &stompWire{version: "1.2"}
	for _, text := range []string{
		`SEND destination:/queue/a receipt:1 | hello`,
		`SEND destination:/queue/a name:"a:b\\c\nd" | "\x00\xff"`,
		`SUBSCRIBE id:0 destination:/topic/a.> ack:client-individual`,
	} {
		raw, err := w.encode(text)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := frame.NewReader(bytes.NewReader(raw)).Read()
		if err != nil {
			t.Fatalf("%s: go-stomp says %v", text, err)
		}
		want, _ := w.parse(text)
		if theirs.Command != want.word || string(theirs.Body) != want.body {
			t.Errorf("%s: go-stomp reads %s %q", text, theirs.Command, theirs.Body)
		}
		for _, h := range want.rest {
			if got := theirs.Header.Get(h.name); got != h.value {
				t.Errorf("%s: go-stomp reads %s as %q", text, h.name, got)
			}
		}
		var back bytes.Buffer
		if err := frame.NewWriter(&back).Write(theirs); err != nil {
			t.Fatal(err)
		}
		skip, n, err := w.first(back.Bytes())
		if err != nil || skip+n != back.Len() {
			t.Fatalf("%s: of %q we cut off %d and %d (%v)", text, back.Bytes(), skip, n, err)
		}
		if diff, err := w.match(text+"\n", nil, vars{}); err == nil && diff == "" {
			t.Error("nothing matches a frame")
		}
		if diff, err := w.match(strings.Replace(text, "SUBSCRIBE", "SUBSCRIBE *", 1), back.Bytes()[skip:], vars{}); err != nil || diff != "" {
			t.Errorf("%s: %s (%v)", text, diff, err)
		}
	}
}

// The packets of the specifications' own figures and of a few edges, by hand.
func TestMQTTBytes(t *testing.T) {
	for _, c := range []struct {
		level      byte
		text, want string
	}{
		{4, `CONNECT client=a`, "100d 0004 4d515454 04 02 0000 0001 61"},
		{3, `CONNECT client=a clean=0 keepalive=10`, "100f 0006 4d5149736470 03 00 000a 0001 61"},
		{5, `CONNECT client=a session_expiry=5 receive_max=2`, "1016 0004 4d515454 05 02 0000 08 11 00000005 21 0002 0001 61"},
		{
			5, `CONNECT client=a user=u pass=p will_topic=t will=x will_qos=1 will_retain will_delay=1 will_content_type=c`,
			"1024 0004 4d515454 05 ee 0000 00 0001 61 09 18 00000001 03 0001 63 0001 74 0001 78 0001 75 0001 70",
		},
		{4, `PUBLISH topic=a/b qos=1 id=10 | x`, "32 08 0003 612f62 000a 78"},
		{5, `PUBLISH topic=a retain dup qos=2 id=1 :k=v | x`, "3d 0e 0001 61 0001 07 26 0001 6b 0001 76 78"},
		{5, `PUBACK id=1`, "40 02 0001"},
		{5, `PUBACK id=1 code=0x80`, "40 03 0001 80"},
		{5, `PUBREL id=1 code=0x92 reason=no`, "62 09 0001 92 05 1f 0002 6e6f"},
		{4, `SUBSCRIBE id=10 filter=a/b qos=1 filter=c/d qos=2`, "82 0e 000a 0003 612f62 01 0003 632f64 02"},
		{5, `SUBSCRIBE id=10 filter=a qos=1 nl rap rh=2 subscription_id=200`, "82 0a 000a 03 0b c801 0001 61 2d"},
		{4, `UNSUBSCRIBE id=10 filter=a filter=b`, "a2 08 000a 0001 61 0001 62"},
		{4, `PINGREQ`, "c0 00"},
		{5, `DISCONNECT`, "e0 00"},
		{5, `DISCONNECT code=4`, "e0 01 04"},
		{5, `AUTH code=0x18 auth_method=M auth_data="\x01"`, "f0 0a 18 08 15 0001 4d 16 0001 01"},
	} {
		got, err := (&mqttWire{level: c.level}).encode(c.text)
		want, bad := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
		if err != nil || bad != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is %x (%v), want %x (%v)", c.text, got, err, want, bad)
		}
	}
}

func TestMQTTAnswers(t *testing.T) {
	for _, c := range []struct {
		level     byte
		raw, want string
	}{
		{4, "20 02 01 00", `CONNACK session=1`},
		{5, "20 06 00 87 03 21 0014", `CONNACK code=0x87 receive_max=20`},
		{4, "32 08 0003 612f62 000a 78", `PUBLISH topic=a/b qos=1 id=10 | x`},
		{5, "39 0f 0001 61 09 26 0001 6b 0003 762076 2431", `PUBLISH topic=a retain=1 dup=1 :k="v v" | $$1`},
		{5, "40 02 0001", `PUBACK id=1`},
		{5, "40 04 0001 10 00", `PUBACK id=1 code=0x10`},
		{4, "90 04 000a 01 80", `SUBACK id=10 codes=1,128`},
		{5, "e0 01 8e", `DISCONNECT code=0x8e`},
		{4, "d0 00", `PINGRESP`},
	} {
		w := &mqttWire{level: c.level}
		raw, _ := hex.DecodeString(strings.ReplaceAll(c.raw, " ", ""))
		skip, n, err := w.first(append(raw, 1, 2, 3))
		if skip != 0 || n != len(raw) || err != nil {
			t.Errorf("%s: %d bytes of %d are cut off (%v)", c.want, n, len(raw), err)
			continue
		}
		if got := w.show(raw); got != c.want {
			t.Errorf("%s is shown as %s, want %s", c.raw, got, c.want)
		}
		if diff, err := w.match(c.want, raw, vars{}); diff != "" || err != nil {
			t.Errorf("%s does not match itself: %s (%v)", c.want, diff, err)
		}
	}
}

// What is expected must be there, and what is there must be expected.
func TestPacketsMatchExactly(t *testing.T) {
	mqtt := &mqttWire{level: 5}
	publish, _ := mqtt.encode(`PUBLISH topic=a qos=1 id=7 content_type=text/plain :k=1 :k=2 | body`)
	stomp := &stompWire{version: "1.2"}
	message, _ := stomp.encode(`MESSAGE subscription:1 message-id:1-2 destination:/queue/a content-length:4 | body`)
	for _, c := range []struct {
		side wire
		raw  []byte
		text string
		diff string
	}{
		{mqtt, publish, `PUBLISH topic=a qos=1 id=$i content_type=text/plain :k=1 :k=2 | body`, ""},
		{mqtt, publish, `PUBLISH topic=a qos=1 id=$i * | $_`, ""},
		{mqtt, publish, `PUBLISH topic=a id=$i * | body`, "qos=1 was not expected"},
		{mqtt, publish, `PUBLISH topic=a qos=1 id=7 retain * | body`, "retain is 0, want 1"},
		{mqtt, publish, `PUBLISH topic=a qos=1 id=7 :k=1 :k=2 | body`, `content_type ("text/plain") was not expected: name it, or write *`},
		{mqtt, publish, `PUBLISH topic=a qos=1 id=7 :k=2 :k=1 * | body`, `:k is "1", want "2"`},
		{mqtt, publish, `PUBLISH topic=a qos=1 id=7 :l=2 * | body`, "no :l"},
		{mqtt, publish, `PUBLISH topic=a qos=1 id=7 *`, "a body was not expected"},
		{mqtt, publish, `PUBACK id=7`, "want PUBACK"},
		{stomp, message, `MESSAGE message-id:$m * | body`, ""},
		{stomp, message, `MESSAGE subscription:1 message-id:$m destination:/queue/a | body`, ""},
		{stomp, message, `MESSAGE content-length:5 * | body`, `content-length is "4", want "5"`},
		{stomp, message, `MESSAGE * | bod`, "the body differs"},
	} {
		diff, err := c.side.match(c.text, c.raw, vars{})
		if err != nil || diff != c.diff {
			t.Errorf("%s: %q (%v), want %q", c.text, diff, err, c.diff)
		}
	}
}
