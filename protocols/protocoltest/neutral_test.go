package protocoltest

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// One sentence, in the words of each protocol.
func TestNeutralRequests(t *testing.T) {
	for _, c := range []struct{ sentence, line, stomp, mqtt string }{
		{
			`PUB t/plant/7/temp id=1 ct=text/plain :unit=C | 21.5`,
			"PUB t/plant/7/temp id=1 ct=text/plain :unit=C 4\n21.5",
			`SEND destination:/topic/plant/7/temp receipt:1 content-type:text/plain unit:C content-length:4 | 21.5`,
			`PUBLISH topic=plant/7/temp id=1 qos=1 content_type=text/plain :unit=C | 21.5`,
		},
		{
			`PUB q/a retain ttl=2m key=k reply=r/7 :"a b"=50% | x`,
			"PUB q/a retain ttl=2m key=k reply=r/7 :a%20b=50%25 1\nx",
			`SEND destination:/queue/a persistent:false retain:true expiration:120000 group-key:k reply-to:/reply-queue/7 "a b":50% content-length:1 | x`,
			`PUBLISH topic=$queue/a retain=1 qos=0 message_expiry=120 :group-key=k response_topic=$reply/7 ":a b"=50% | x`,
		},
		{
			`PUB t/sensor.v1 id=2 qos=2 |`,
			"PUB t/sensor.v1 id=2 qos=2 0\n",
			`SEND destination:/topic/sensor%2Ev1 receipt:2 qos:2 content-length:0 | `,
			`PUBLISH topic=sensor.v1 id=2 qos=2 | `,
		},
		{
			`PUB x/logs/err id=3 | x`,
			"PUB x/logs/err id=3 1\nx",
			`SEND destination:/exchange/logs/err receipt:3 content-length:1 | x`,
			`PUBLISH topic=$exchange/logs/err id=3 qos=1 | x`,
		},
		{
			`SUB 1 t/a/+/#`,
			`SUB 1 t/a/+/#`,
			`SUBSCRIBE id:1 destination:/topic/a/+/# receipt:sub-1`,
			`SUBSCRIBE id=60001 filter="a/+/#" qos=0 rh=0 subscription_id=1`,
		},
		{
			`SUB 2 t/jobs/# group=pool ack=manual retained=none`,
			`SUB 2 t/jobs/# group=pool ack=manual retained=none`,
			`SUBSCRIBE id:2 destination:/topic/jobs/# receipt:sub-2 ack:client-individual retain-handling:2 group:pool`,
			`SUBSCRIBE id=60002 filter="$share/pool/jobs/#" qos=1 rh=2 subscription_id=2`,
		},
		{`SUB 3 q/a`, `SUB 3 q/a`, `SUBSCRIBE id:3 destination:/queue/a receipt:sub-3 ack:client-individual`, `SUBSCRIBE id=60003 filter="$queue/a" qos=1 rh=0 subscription_id=3`},
		{`ACK 1 7`, `ACK 1 7`, `ACK id:7`, `PUBACK id=7`},
		{`NACK 1 7 dead`, `NACK 1 7 dead`, `NACK id:7 requeue:false`, `PUBACK code=0x80 id=7`},
		{`NACK 1 7 delay=10s`, `NACK 1 7 delay=10s`, `NACK id:7 delay:10000`, "MQTT has no word for NACK but MQTT 5 for NACK dead"},
		{`GET q/a n=2`, `GET q/a n=2`, "STOMP has no word for GET", "MQTT has no word for GET"},
	} {
		for proto, want := range map[string]string{"line": c.line, "stomp": c.stomp, "mqtt": c.mqtt} {
			q, err := parseSentence(c.sentence)
			if err != nil {
				t.Fatalf("%s: %v", c.sentence, err)
			}
			side, _ := newWire(proto)
			got, _, err := side.ask(q)
			if err != nil {
				got = err.Error()
			} else if _, err := side.encode(got); err != nil {
				t.Errorf("%s: %s cannot be encoded: %v", c.sentence, got, err)
			}
			if got != want {
				t.Errorf("%s is, on %s,\n%s\nwant\n%s", c.sentence, proto, got, want)
			}
		}
	}
}

// One message, as each protocol tells it.
func TestNeutralAnswers(t *testing.T) {
	stomp := func(text string) string {
		raw, err := (&stompWire{version: "1.2"}).encode(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	mqtt := func(text string) string {
		raw, err := (&mqttWire{level: 5}).encode(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	bytes := func(text string) string {
		raw, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	const message = `MSG 1 $m t/plant/7/temp ct=text/plain n=2 :unit=C :unit=F | 21.5`
	for _, c := range []struct{ sentence, proto, raw, diff string }{
		{message, "line", "MSG 1 9 t/plant/7/temp ts=1 n=2 ct=text/plain :unit=C :unit=F 4\n21.5\n", ""},
		{message, "line", "MSG 1 9 t/plant/7/temp ts=1 n=3 ct=text/plain :unit=C :unit=F 4\n21.5\n", `n is "3", want "2"`},
		{message, "line", "MSG 1 9 t/plant/7/temp ts=1 n=2 :unit=C :unit=F 4\n21.5\n", "no ct"},
		{message, "line", "MSG 1 9 t/plant/7/temp ts=1 n=2 ct=text/plain :unit=F :unit=C 4\n21.5\n", "the user's headers are [{unit F} {unit C}], want [{unit C} {unit F}] in this order"},
		{message, "line", "MSG 1 9 t/plant/7/temp ts=1 n=2 ct=text/plain retain :unit=C :unit=F 4\n21.5\n", "retain= was not expected: name it, or write *"},
		{message, "stomp", stomp(`MESSAGE subscription:1 message-id:1-9 ack:1.1 redelivered:true x-delivery-count:2 destination:/topic/plant.7.temp content-type:text/plain content-length:4 persistent:true timestamp:1 unit:C unit:F | 21.5`), ""},
		{message, "stomp", stomp(`MESSAGE subscription:2 destination:/topic/plant/7/temp | 21.5`), `the subscription is "2", want "1"`},
		{message, "stomp", stomp(`MESSAGE subscription:1 ack:1 redelivered:true x-delivery-count:2 destination:/topic/plant/7/temp content-type:text/plain unit:C unit:F extra:x | 21.5`), "the user's headers are [{unit C} {unit F} {extra x}], want [{unit C} {unit F}]"},
		{message, "mqtt", mqtt(`PUBLISH topic=plant/7/temp dup qos=1 id=9 subscription_id=1 content_type=text/plain :unit=C :unit=F | 21.5`), ""},
		{message, "mqtt", mqtt(`PUBLISH topic=$queue/readings dup qos=1 id=9 subscription_id=1 content_type=text/plain :unit=C :unit=F :origin-topic=plant/7/temp | 21.5`), ""},
		{message, "mqtt", mqtt(`PUBLISH topic=plant/7/temp qos=1 id=9 subscription_id=1 content_type=text/plain :unit=C :unit=F | 21.5`), "no n"},
		{message, "mqtt", mqtt(`PUBLISH topic=plant/7/temp dup qos=1 id=9 subscription_id=1 content_type=text/plain :unit=C :unit=F | 21`), `the body is "21", want "21.5"`},
		{`CONFIRM 7`, "line", "CONFIRM 7\n", ""},
		{`CONFIRM 7`, "stomp", stomp(`RECEIPT receipt-id:7`), ""},
		{`CONFIRM 7`, "stomp", stomp(`RECEIPT receipt-id:8`), `the id is "8", want "7"`},
		{`CONFIRM 7`, "mqtt", bytes("40 03 0007 10"), ""},
		{`CONFIRM 7`, "mqtt", bytes("40 03 0007 97"), "want CONFIRM, this is ERR"},
		{`ERR 429 id=7`, "mqtt", bytes("40 03 0007 97"), ""},
		{`ERR 507 id=7`, "line", "ERR 507 retry id=7 the disk is full\n", ""},
		{`ERR 507 id=7`, "stomp", stomp(`ERROR code:507 receipt-id:7 message:full | full`), ""},
		{`ERR 403`, "stomp", stomp(`ERROR code:404`), "the code means 404, want 403"},
		{`ERR 403`, "mqtt", bytes("90 04 ea61 00 87"), ""},
		{`END 1 3 why=done`, "line", "END 1 3 why=done\n", ""},
		{`END 1 3 why=done`, "line", "END 1 3 why=timeout\n", `why is "timeout", want "done"`},
	} {
		side, _ := newWire(c.proto)
		skip, n, err := side.frame([]byte(c.raw + "more"))
		if err != nil || skip+n != len(c.raw) {
			t.Errorf("%s, %q: %d bytes are cut off (%v)", c.proto, c.raw, n, err)
			continue
		}
		want, err := parseSentence(c.sentence)
		if err != nil {
			t.Fatal(err)
		}
		got, _, _, err := side.hear([]byte(c.raw))
		if err != nil {
			t.Errorf("%s, %q: %v", c.proto, c.raw, err)
			continue
		}
		v := vars{}
		if diff := cmp.Diff(c.diff, want.match(got, v)); diff != "" {
			t.Errorf("%s, %q:\n%s", c.proto, c.raw, diff)
		}
		if c.sentence == message && c.diff == "" && v["m"] == "" {
			t.Errorf("%s, %q: no sequence was captured", c.proto, c.raw)
		}
	}
}
