package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/godwitmq/godwit/core"
)

var versions = []byte{3, 4, 5}

func TestQoS0And1And2BothWays(t *testing.T) {
	for _, v := range versions {
		w := newWorld(t, Options{})
		sub := w.open("reader", v).subscribe(1, filter("plant/+/temp", 2))
		sub.want("SUBACK 1 02")
		pub := w.open("writer", v)

		pub.publish("plant/7/temp", 0, 0, "a").want()
		sub.want(`PUBLISH plant/7/temp "a" q0`)

		pub.publish("plant/7/temp", 1, 9, "b").want("PUBACK 9")
		sub.want(`PUBLISH plant/7/temp "b" q1 id=1`).ack(packets.Puback, 1).want()

		pub.publish("plant/7/temp", 2, 10, "c").want("PUBREC 10").ack(packets.Pubrel, 10).want("PUBCOMP 10")
		sub.want(`PUBLISH plant/7/temp "c" q2 id=2`).ack(packets.Pubrec, 2).want("PUBREL 2").ack(packets.Pubcomp, 2).want()
	}
}

// mission: S28
func TestAckComesAfterTheDisk(t *testing.T) {
	w := newWorld(t, Options{})
	w.open("reader", 5, kept).subscribe(1, filter("a", 1)).want("SUBACK 1 01")
	pub := w.open("writer", 5)
	w.disk.hold()
	pub.publish("a", 1, 1, "x").publish("a", 2, 2, "y").want()
	w.disk.ok()
	w.settle()
	pub.want("PUBACK 1", "PUBREC 2")
}

func TestAnswersLeaveInPublishOrderRefusalsToo(t *testing.T) {
	w := newWorld(t, Options{})
	w.open("reader", 5, kept).subscribe(1, filter("a", 1)).want("SUBACK 1 01")
	pub := w.open("writer", 5)
	w.disk.hold()
	pub.publish("a", 1, 1, "x").
		publish("secret", 1, 2, "denied").
		publish("$stream/s", 1, 3, "not built").
		publish("a", 1, 4, "y").
		publish("nobody", 1, 5, "").want()
	w.disk.ok()
	w.settle()
	pub.want("PUBACK 1", `PUBACK 2 87 "not allowed to publish t/secret"`,
		`PUBACK 3 83 "publishing to $stream/: not supported yet"`, "PUBACK 4", "PUBACK 5 10")
}

// mission: S9
func TestDenied(t *testing.T) {
	w := newWorld(t, Options{})
	five := w.open("five", 5)
	five.publish("secret/x", 0, 0, "").want()
	five.publish("secret/x", 2, 3, "").want(`PUBREC 3 87 "not allowed to publish t/secret/x"`)
	five.subscribe(4, filter("secret/#", 1), filter("ok", 1)).want(`SUBACK 4 87 01 "not allowed to listen t/secret/#"`)
	four := w.open("four", 4)
	four.publish("secret/x", 1, 2, "").want("PUBACK 2") // 3.1.1 has no word for it
	four.publish("secret/x", 2, 3, "").want("PUBREC 3").ack(packets.Pubrel, 3).want("PUBCOMP 3")
	four.subscribe(4, filter("secret/#", 1)).want("SUBACK 4 80")
	if n := w.protocol.Counters()["refused_v3"]; n != 2 {
		t.Errorf("refused_v3 = %d, want 2", n)
	}
}

// mission: S31
func TestQoS2RepeatIsNotRoutedAgain(t *testing.T) {
	for _, session := range []func(*packets.Packet){kept, func(*packets.Packet) {}} {
		w := newWorld(t, Options{})
		sub := w.open("reader", 5).subscribe(1, filter("a", 0)).want("SUBACK 1 00")
		pub := w.open("writer", 5, session)
		pub.publish("a", 2, 7, "x").publish("a", 2, 7, "x", again).want("PUBREC 7", "PUBREC 7")
		sub.want(`PUBLISH a "x" q0`)
		pub.ack(packets.Pubrel, 7).want("PUBCOMP 7")
		pub.ack(packets.Pubrel, 7).want("PUBCOMP 7 92")
		pub.publish("a", 2, 7, "y").want("PUBREC 7")
		sub.want(`PUBLISH a "y" q0`)
	}
}

func TestQoS2IdIsOffTheDiskBeforePubcomp(t *testing.T) {
	w := newWorld(t, Options{})
	pub := w.open("writer", 5, kept)
	pub.publish("a", 2, 7, "x").want("PUBREC 7 10")
	w.disk.hold()
	pub.ack(packets.Pubrel, 7).want()
	w.disk.ok()
	w.settle()
	pub.want("PUBCOMP 7")
}

// mission: S31
func TestQoS2IdSurvivesACrash(t *testing.T) {
	w := newWorld(t, Options{})
	w.open("reader", 5, kept).subscribe(1, filter("a", 2)).want("SUBACK 1 02")
	w.open("writer", 5, kept).publish("a", 2, 7, "x").want("PUBREC 7")
	w.restart()
	pub := w.connect("writer", 5, kept).want("CONNACK 00 present")
	pub.publish("a", 2, 7, "x", again).want("PUBREC 7")
	pub.ack(packets.Pubrel, 7).want("PUBCOMP 7")
	w.connect("reader", 5, kept).want("CONNACK 00 present", `PUBLISH a "x" q2 id=1 dup`)
}

func TestSamePacketIDWhileUnanswered(t *testing.T) {
	w := newWorld(t, Options{})
	w.open("reader", 5, kept).subscribe(1, filter("a", 1)).want("SUBACK 1 01")
	pub := w.open("writer", 5)
	w.disk.hold()
	pub.publish("a", 1, 1, "x").publish("a", 1, 1, "x", again).want()
	pub.publish("a", 1, 1, "other").want(`DISCONNECT 82 "a packet id that is in use"`).wantClosed()
}

func TestSessionResume(t *testing.T) {
	for _, v := range []byte{4, 5} {
		w := newWorld(t, Options{})
		sub := w.open("reader", v, kept)
		sub.subscribe(1, filter("a/#", 2), filter("zero", 0)).want("SUBACK 1 02 00")
		pub := w.open("writer", 5)
		pub.publish("a/1", 1, 1, "one").publish("a/2", 2, 2, "two").publish("a/3", 2, 3, "three").want("PUBACK 1", "PUBREC 2", "PUBREC 3")
		sub.want(`PUBLISH a/1 "one" q1 id=1`, `PUBLISH a/2 "two" q2 id=2`, `PUBLISH a/3 "three" q2 id=3`)
		sub.ack(packets.Pubrec, 3).want("PUBREL 3")
		sub.cut()
		pub.publish("a/4", 1, 4, "four").want("PUBACK 4")
		pub.publish("a/5", 0, 0, "not kept for sleepers")
		sub = w.connect("reader", v, kept)
		sub.want("CONNACK 00 present", "PUBREL 3",
			`PUBLISH a/1 "one" q1 id=1 dup`, `PUBLISH a/2 "two" q2 id=2 dup`, `PUBLISH a/4 "four" q1 id=4`)
		sub.ack(packets.Pubcomp, 3).ack(packets.Puback, 1).ack(packets.Puback, 4)
		sub.ack(packets.Pubrec, 2).ack(packets.Pubcomp, 2).want("PUBREL 2")
		pub.publish("zero", 1, 5, "z").want("PUBACK 5")
		sub.want(`PUBLISH zero "z" q0`)
		sub.cut()
		w.connect("reader", v, kept).want("CONNACK 00 present")
	}
}

func TestPubcompBeforeTheQueueBringsItAgain(t *testing.T) {
	w := newWorld(t, Options{})
	sub := w.open("reader", 5, kept).subscribe(1, filter("a", 2)).want("SUBACK 1 02")
	w.open("writer", 5).publish("a", 2, 1, "x").want("PUBREC 1")
	sub.want(`PUBLISH a "x" q2 id=1`).ack(packets.Pubrec, 1).want("PUBREL 1")
	sub.cut()
	w.disk.hold()
	sub = w.dial("reader", 5)
	sub.queue(connectPacket("reader", 5, kept))
	w.settle()
	w.disk.ok()
	sub.queue(ack(packets.Pubcomp, 1)) // as soon as PUBREL is there
	w.settle()
	sub.want("CONNACK 00 present", "PUBREL 1")
	sub.cut()
	w.connect("reader", 5, kept).want("CONNACK 00 present")
}

func TestCleanStartForgets(t *testing.T) {
	w := newWorld(t, Options{})
	w.open("reader", 5, kept).subscribe(1, filter("a", 1)).want("SUBACK 1 01").cut()
	w.open("writer", 5).publish("a", 1, 1, "x").want("PUBACK 1")
	w.connect("reader", 5).want("CONNACK 00").cut()
	w.connect("reader", 5, kept).want("CONNACK 00")
}

func TestSubscriptionsSurviveACrash(t *testing.T) {
	w := newWorld(t, Options{})
	sub := w.open("reader", 5, kept)
	sub.subscribe(1, filter("a", 1), filter("b", 0), filter("gone", 1), filter("gone0", 0)).want("SUBACK 1 01 00 01 00")
	sub.subscribe(2, filter("a", 0), filter("b", 1)).want("SUBACK 2 00 01") // the other way round
	sub.send(unsubscribe(3, "gone")).want("UNSUBACK 3 00")
	sub.send(unsubscribe(4, "gone0")).want("UNSUBACK 4 00")
	w.restart()
	sub = w.connect("reader", 5, kept).want("CONNACK 00 present")
	pub := w.open("writer", 5)
	pub.publish("gone", 1, 1, "x").publish("gone0", 1, 2, "x").want("PUBACK 1 10", "PUBACK 2 10")
	pub.publish("a", 1, 3, "x").publish("b", 1, 4, "y").want("PUBACK 3", "PUBACK 4")
	sub.want(`PUBLISH a "x" q0`, `PUBLISH b "y" q1 id=1`)
	pub.publish("b", 0, 0, "z")
	sub.want(`PUBLISH b "z" q0`)
}

func TestRetained(t *testing.T) {
	w := newWorld(t, Options{})
	pub := w.open("writer", 5)
	pub.publish("a/1", 1, 1, "one", retained).publish("a/2", 0, 0, "two", retained).want("PUBACK 1 10")
	sub := w.open("reader", 5)
	sub.subscribe(1, filter("a/#", 1)).want("SUBACK 1 01", `PUBLISH a/1 "one" q1 id=1 retain`, `PUBLISH a/2 "two" q0 retain`)
	sub.ack(packets.Puback, 1)

	asIs := filter("a/#", 1)
	asIs.RetainAsPublished, asIs.RetainHandling = true, 1
	sub.subscribe(2, asIs).want("SUBACK 2 01") // not new: none again
	pub.publish("a/1", 0, 0, "three", retained)
	sub.want(`PUBLISH a/1 "three" q0 retain`)

	never := filter("a/#", 1)
	never.RetainHandling = 2
	w.open("other", 5).subscribe(1, never).want("SUBACK 1 01")

	pub.publish("a/1", 1, 2, "", retained).want("PUBACK 2")
	w.open("third", 4).subscribe(1, filter("a/+", 0)).want("SUBACK 1 00", `PUBLISH a/2 "two" q0 retain`)
}

func will(topic, body string, qos byte, delay uint32) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload, pk.Connect.WillQos = true, topic, []byte(body), qos
		pk.Connect.WillProperties.WillDelayInterval = delay
		pk.Connect.WillProperties.User = []packets.UserProperty{{Key: "b", Val: "2"}, {Key: "a", Val: "1"}}
	}
}

func TestWill(t *testing.T) {
	w := newWorld(t, Options{})
	sub := w.open("watcher", 5).subscribe(1, filter("will", 1)).want("SUBACK 1 01")

	w.open("a", 5, will("will", "cut", 0, 0)).cut()
	sub.want(`PUBLISH will "cut" q0 b=2 a=1`)

	w.open("b", 5, will("will", "polite", 0, 0)).raw(0xe0, 0).wantClosed()
	sub.want()

	w.open("c", 5, will("will", "with will", 0, 0)).raw(0xe0, 1, 4).wantClosed()
	sub.want(`PUBLISH will "with will" q0 b=2 a=1`)

	late := w.open("d", 5, kept, will("will", "late", 0, 10))
	late.cut()
	w.tick(9 * time.Second)
	sub.want()
	w.tick(2 * time.Second)
	sub.want(`PUBLISH will "late" q0 b=2 a=1`)

	w.open("e", 5, kept, will("will", "never", 0, 10)).cut()
	w.tick(5 * time.Second)
	w.open("e", 5, kept)
	w.tick(10 * time.Second)
	sub.want()
}

func TestWillIsRefused(t *testing.T) {
	w := newWorld(t, Options{})
	w.connect("a", 5, will("a/#", "", 0, 0)).want(`CONNACK 82`).wantClosed()
	w.connect("a", 5, will("$SYS/x", "", 0, 0)).want(`CONNACK 87`).wantClosed()
	w.connect("a", 5, will("empty/body", "", 0, 0)).want("CONNACK 00")
}

// mission: S11
func TestTakeover(t *testing.T) {
	w := newWorld(t, Options{})
	first := w.open("same", 5, kept).subscribe(1, filter("a", 1)).want("SUBACK 1 01")
	second := w.connect("same", 5, kept)
	first.want(`DISCONNECT 8e "taken over by another connection"`).wantClosed()
	second.want("CONNACK 00 present")
	w.connect("same", 4).want("CONNACK 00")
	second.wantClosed()
}

// mission: S11
func TestKeepAlive(t *testing.T) {
	w := newWorld(t, Options{})
	alive := func(pk *packets.Packet) { pk.Connect.Keepalive = 10 }
	c := w.open("a", 5, alive, will("will", "x", 0, 0))
	w.tick(14 * time.Second)
	c.raw(0xc0, 0).want("PINGRESP")
	w.tick(15 * time.Second)
	c.want()
	w.tick(3 * time.Second)
	c.want(`DISCONNECT 8d "nothing heard for one and a half times the keep-alive"`).wantClosed()
	w.open("b", 4)
	w.tick(time.Hour)
	if w.clients[len(w.clients)-1].closed {
		t.Error("a client without keep-alive was closed")
	}
}

// mission: S11
func TestSilentConnectionEnds(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.dial("silent", 5)
	c.raw(0x10)
	w.tick(9 * time.Second)
	if c.closed {
		t.Fatal("closed too early")
	}
	w.tick(2 * time.Second)
	c.want().wantClosed()
}

func TestOverlappingSubscriptions(t *testing.T) {
	for _, session := range []func(*packets.Packet){kept, func(*packets.Packet) {}} {
		w := newWorld(t, Options{})
		sub := w.open("reader", 5, session)
		for i, f := range []packets.Subscription{filter("a/+", 0), filter("a/#", 2), filter("#", 1)} {
			pk := subscribe(uint16(i+1), f)
			pk.Properties.SubscriptionIdentifier = []int{i + 10}
			for j := range pk.Filters {
				pk.Filters[j].Identifier = i + 10
			}
			sub.send(pk)
		}
		sub.want("SUBACK 1 00", "SUBACK 2 02", "SUBACK 3 01")
		pub := w.open("writer", 5)
		pub.publish("a/1", 2, 1, "x").want("PUBREC 1")
		sub.want(`PUBLISH a/1 "x" q2 id=1 sub=10 sub=11 sub=12`)
		pub.publish("a/1", 0, 0, "y")
		sub.want(`PUBLISH a/1 "y" q0 sub=10 sub=11 sub=12`)
		pub.publish("b", 1, 2, "z").want("PUBACK 2")
		sub.want(`PUBLISH b "z" q1 id=2 sub=12`)
	}
}

func TestReceiveMaximumOfTheClient(t *testing.T) {
	two := func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 2 }
	for _, session := range []func(*packets.Packet){kept, func(*packets.Packet) {}} {
		w := newWorld(t, Options{})
		sub := w.open("reader", 5, session, two).subscribe(1, filter("#", 1)).want("SUBACK 1 01")
		pub := w.open("writer", 5)
		for i := range uint16(10) {
			pub.publish("a", 1, i+1, string('0'+rune(i)))
		}
		sub.want(`PUBLISH a "0" q1 id=1`, `PUBLISH a "1" q1 id=2`)
		pub.publish("a", 0, 0, "passes")
		sub.want(`PUBLISH a "passes" q0`)
		for i := range uint16(8) {
			sub.ack(packets.Puback, i+1).want(`PUBLISH a "` + string('2'+rune(i)) + `" q1 id=` + idText(i+3))
		}
		sub.ack(packets.Puback, 9).ack(packets.Puback, 10).want()
	}
}

func idText(n uint16) string {
	if n == 10 {
		return "10"
	}
	return string('0' + rune(n))
}

func TestReceiveMaximumOfTheServer(t *testing.T) {
	w := newWorld(t, Options{ReceiveMaximum: 2})
	pub := w.open("writer", 5)
	pub.publish("a", 2, 1, "").publish("a", 2, 2, "").want("PUBREC 1 10", "PUBREC 2 10")
	pub.publish("a", 2, 3, "").want(`DISCONNECT 93 "more publishes under way than the Receive Maximum"`).wantClosed()

	w.open("reader", 5, kept).subscribe(1, filter("a", 1)).want("SUBACK 1 01")
	w.disk.hold()
	old := w.dial("old", 4)
	old.queue(connectPacket("old", 4))
	w.settle()
	for i := range uint16(5) {
		old.queue(publish("a", 1, i+1, ""))
	}
	old.queue(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	w.settle()
	old.want("CONNACK 00", "PINGRESP") // 3.1.1 waits, and pings are answered
	w.disk.ok()
	w.settle()
	old.want("PUBACK 1", "PUBACK 2", "PUBACK 3", "PUBACK 4", "PUBACK 5")
}

func TestMaximumPacketSizeOfTheClient(t *testing.T) {
	small := func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = 30 }
	w := newWorld(t, Options{})
	sub := w.open("reader", 5, kept, small).subscribe(1, filter("a", 1)).want("SUBACK 1 01")
	pub := w.open("writer", 5)
	pub.publish("a", 1, 1, strings.Repeat("x", 40)).publish("a", 1, 2, "fits").publish("a", 0, 0, strings.Repeat("x", 40))
	sub.want(`PUBLISH a "fits" q1 id=1`)
	if n := w.protocol.Counters()["too_large"]; n != 2 {
		t.Errorf("too_large = %d, want 2", n)
	}
	sub.ack(packets.Puback, 1).cut()
	w.connect("reader", 5, kept).want("CONNACK 00 present")
}

func TestMaximumPacketSizeOfTheServer(t *testing.T) {
	w := newWorld(t, Options{PacketMax: 64})
	w.open("a", 5).raw(0x30, 0x80, 0x01).want(`DISCONNECT 95 "the packet is larger than the server takes"`).wantClosed()
	w.open("b", 4).raw(0x30, 0x80, 0x01).want().wantClosed()
	w.dial("c", 5).raw(0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4, 'M', 'Q', 'T', 'T', 5).want(`CONNACK 95`).wantClosed()
	w.dial("d", 5).raw(0x10, 0xff, 0xff, 0xff, 0x7f).want().wantClosed()
}

func TestNoLocal(t *testing.T) {
	for _, session := range []func(*packets.Packet){kept, func(*packets.Packet) {}} {
		w := newWorld(t, Options{})
		mine := filter("a/#", 1)
		mine.NoLocal = true
		c := w.open("self", 5, session).subscribe(1, mine).want("SUBACK 1 01")
		c.publish("a/1", 1, 1, "own").publish("a/1", 0, 0, "own").want("PUBACK 1")
		w.open("other", 5).publish("a/1", 1, 1, "theirs").want("PUBACK 1")
		c.want(`PUBLISH a/1 "theirs" q1 id=1`)
		c.subscribe(2, filter("a/1", 0)).want("SUBACK 2 00")
		c.publish("a/1", 1, 9, "own") // by the subscription without No Local, and by its QoS
		if got := c.read(); !slices.Contains(got, `PUBLISH a/1 "own" q0`) || len(got) != 2 {
			t.Errorf("own message: got %q", got)
		}
	}
}

func TestBridgeBit(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.dial("bridge", 4)
	b := encode(t, 4, connectPacket("bridge", 4))
	b[8] |= 0x80
	c.raw(b...).want("CONNACK 00")
	c.subscribe(1, filter("#", 0)).want("SUBACK 1 00")
	c.publish("a", 0, 0, "own").want()
	w.open("other", 5).publish("a", 0, 0, "theirs", retained)
	c.want(`PUBLISH a "theirs" q0 retain`)
}

func TestSubscribeOfSevenBytes(t *testing.T) {
	w := newWorld(t, Options{})
	w.open("a", 5).raw(0x82, 5, 0, 1, 0, 0, 0).want(`DISCONNECT 81 "a filter without its options, or not UTF-8"`).wantClosed()
	w.open("b", 4).raw(0x82, 5, 0, 1, 0, 0, 0).want("SUBACK 1 80") // there it is an empty filter with QoS 0
	if n := w.protocol.Counters()["decode_panics"]; n != 0 {
		t.Errorf("decode_panics = %d, want 0", n)
	}
}

func TestTopicAliases(t *testing.T) {
	alias := func(n uint16) func(*packets.Packet) {
		return func(pk *packets.Packet) { pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = n, true }
	}
	w := newWorld(t, Options{})
	sub := w.open("reader", 5).subscribe(1, filter("#", 0)).want("SUBACK 1 00")
	pub := w.open("writer", 5)
	pub.publish("a", 0, 0, "1", alias(3)).publish("", 0, 0, "2", alias(3)).publish("b", 0, 0, "3", alias(3)).publish("", 0, 0, "4", alias(3))
	sub.want(`PUBLISH a "1" q0`, `PUBLISH a "2" q0`, `PUBLISH b "3" q0`, `PUBLISH b "4" q0`)
	pub.publish("secret/x", 1, 1, "", alias(4)).publish("", 1, 2, "", alias(4)) // the guard sees the topic
	pub.want(`PUBACK 1 87 "not allowed to publish t/secret/x"`, `PUBACK 2 87 "not allowed to publish t/secret/x"`)
	sub.want()
	pub.publish("", 0, 0, "", alias(9)).want(`DISCONNECT 82 "a topic alias that was not set"`).wantClosed()
	w.open("x", 5).publish("a", 0, 0, "", alias(65)).want(`DISCONNECT 94 "the topic alias is 0 or above the maximum"`)
}

func TestPropertiesAreForwarded(t *testing.T) {
	w := newWorld(t, Options{})
	five := w.open("five", 5).subscribe(1, filter("#", 0)).want("SUBACK 1 00")
	four := w.open("four", 4).subscribe(1, filter("#", 0)).want("SUBACK 1 00")
	w.open("writer", 5).publish("a", 0, 0, "é", func(pk *packets.Packet) {
		p := &pk.Properties
		p.PayloadFormat, p.PayloadFormatFlag = 1, true
		p.MessageExpiryInterval = 60
		p.ContentType, p.ResponseTopic, p.CorrelationData = "text/plain", "re/é %", []byte{0, 1}
		p.User = []packets.UserProperty{{Key: "b", Val: "1"}, {Key: "a", Val: "2"}, {Key: "b", Val: "3"}}
	})
	five.want(`PUBLISH a "é" q0 expiry=60 format=1 type=text/plain response=re/é % correlation="\x00\x01" b=1 a=2 b=3`)
	four.want(`PUBLISH a "é" q0`)
}

func TestPayloadFormatIsChecked(t *testing.T) {
	text := func(pk *packets.Packet) { pk.Properties.PayloadFormat, pk.Properties.PayloadFormatFlag = 1, true }
	w := newWorld(t, Options{})
	w.open("a", 5).publish("a", 1, 1, "\xff", text).publish("a", 0, 0, "\xff", text).
		want(`PUBACK 1 99 "the payload is not the UTF-8 its format indicator promises"`)
}

func TestMessageExpiry(t *testing.T) {
	w := newWorld(t, Options{})
	w.open("reader", 5, kept).subscribe(1, filter("a", 1)).want("SUBACK 1 01").cut()
	expiry := func(n uint32) func(*packets.Packet) {
		return func(pk *packets.Packet) { pk.Properties.MessageExpiryInterval = n }
	}
	w.open("writer", 5).publish("a", 1, 1, "short", expiry(5)).publish("a", 1, 2, "long", expiry(60)).want("PUBACK 1", "PUBACK 2")
	w.tick(10 * time.Second)
	w.connect("reader", 5, kept).want("CONNACK 00 present", `PUBLISH a "long" q1 id=1 expiry=50`)
}

func TestQueue(t *testing.T) {
	w := newWorld(t, Options{})
	pub := w.open("writer", 5)
	pub.publish("$queue/orders/eu", 1, 1, "one").want("PUBACK 1")
	sub := w.open("reader", 5).subscribe(1, filter("$queue/orders/eu", 1)).want("SUBACK 1 01", `PUBLISH $queue/orders/eu "one" q1 id=1`)
	sub.cut() // not acknowledged: back to the head
	sub = w.open("reader", 5).subscribe(1, filter("$queue/orders/eu", 1)).want("SUBACK 1 01", `PUBLISH $queue/orders/eu "one" q1 id=1 dup`)
	sub.ack(packets.Puback, 1).cut()
	w.open("reader", 5).subscribe(1, filter("$queue/orders/eu", 1)).want("SUBACK 1 01")
	pub.publish("$queue/$mqtt/reader", 1, 2, "").want(`PUBACK 2 87 "queues whose names begin with $ are the server's"`)
}

func TestWhatAnUnsubscriberHasNotSeenGoesToTheNext(t *testing.T) {
	w := newWorld(t, Options{})
	first := w.open("first", 5).subscribe(1, filter("$queue/q", 1)).want("SUBACK 1 01")
	first.stuck = true
	w.open("writer", 5).publish("$queue/q", 1, 1, "x").want("PUBACK 1")
	first.send(unsubscribe(2, "$queue/q"))
	first.stuck = false
	w.settle()
	first.want("UNSUBACK 2 00")
	w.open("second", 5).subscribe(1, filter("$queue/q", 1)).want("SUBACK 1 01", `PUBLISH $queue/q "x" q1 id=1 dup`)
}

func TestNotYetAndNever(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open("a", 5)
	for _, row := range []struct {
		filter, answer string
	}{
		{"$share/g", `8f "want $share/GROUP/FILTER"`},
		{"$share/g/$share/h/a", `8f "one $share is enough"`},
		{"$share/g/$queue/q", `8f "consumers of a queue share it already: subscribe to $queue/NAME without $share"`},
		{"$queue/+", `a2 "a queue is named without wildcards"`},
		{"$queue/$mqtt/a", `87 "queues whose names begin with $ are the server's"`},
		{"$stream/s/#", `83 "subscribing to $stream/: not supported yet"`},
		{"$replay/first/a", `83 "subscribing to $replay/: not supported yet"`},
		{"$reply/x", `83 "subscribing to $reply/: not supported yet"`},
		{"$SYS/#", `83 "subscribing to $SYS/: not supported yet"`},
		{"$delayed/5/a", `8f "$delayed/ is for publishing"`},
		{"a/#/b", `8f "filter \"a/#/b\": # must be the last level of a filter"`},
		{"a+", `8f "filter \"a+\": + and # must be whole levels of a filter"`},
		{"$exchange/amq.topic/a", `8f "the topics of amq.topic have no prefix: subscribe to \"a\""`},
	} {
		c.subscribe(1, filter(row.filter, 0)).want("SUBACK 1 " + row.answer)
	}
	for _, row := range []struct {
		topic, answer string
	}{
		{"$SYS/x", `87 "$SYS is the server's: nobody publishes there"`},
		{"$share/g/a", `90 "\"$share/g/a\" is for subscriptions: nobody publishes there"`},
		{"$delayed/5", `90 "want $delayed/SECONDS/topic"`},
		{"$delayed/40000000/a", `83 "a delay is 366 days at most"`},
		{"$queue/", `90 "want $queue/NAME"`},
		{"$reply/x", `90 "reply address \"x\" does not exist"`},
		{"$exchange/none/a", `90 "no exchange \"none\""`},
		{"a\u0085", `90 "a topic cannot hold the control character U+0085 (byte 1)"`},
	} {
		c.publish(row.topic, 1, 1, "").want("PUBACK 1 " + row.answer)
	}
}

func TestConnect(t *testing.T) {
	empty := func(pk *packets.Packet) { pk.Connect.ClientIdentifier = "" }
	dirty := func(pk *packets.Packet) { pk.Connect.Clean = false }
	wrong := func(pk *packets.Packet) {
		pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = true, true
		pk.Connect.Username, pk.Connect.Password = []byte("u"), []byte("wrong")
	}
	method := func(pk *packets.Packet) { pk.Properties.AuthenticationMethod = "SCRAM-SHA-256" }
	name := func(id string) func(*packets.Packet) {
		return func(pk *packets.Packet) { pk.Connect.ClientIdentifier = id }
	}
	for _, row := range []struct {
		sentence string
		version  byte
		change   []func(*packets.Packet)
		want     string
	}{
		{"5: an empty id is assigned one", 5, fs(empty), "CONNACK 00"},
		{"3.1.1: an empty id of a clean session is assigned one", 4, fs(empty), "CONNACK 00"},
		{"3.1.1: an empty id cannot be kept", 4, fs(empty, dirty), "CONNACK 02"},
		{"3.1: an empty id is none", 3, fs(empty), "CONNACK 02"},
		{"5: a control character in the id", 5, fs(name("a\x01")), "CONNACK 85"},
		{"5: an id that is too long", 5, fs(name(strings.Repeat("x", 256))), "CONNACK 85"},
		{"5: bad login", 5, fs(wrong), "CONNACK 86"},
		{"3.1.1: bad login", 4, fs(wrong), "CONNACK 04"},
		{"5: enhanced authentication is not there yet", 5, fs(method), "CONNACK 8c"},
	} {
		w := newWorld(t, Options{})
		c := w.connect("c", row.version, row.change...)
		if got := c.read(); len(got) != 1 || got[0] != row.want {
			t.Errorf("%s: got %q, want %q", row.sentence, got, row.want)
		}
		if c.closed != (row.want != "CONNACK 00") {
			t.Errorf("%s: closed = %v", row.sentence, c.closed)
		}
	}
}

func fs(f ...func(*packets.Packet)) []func(*packets.Packet) { return f }

func TestConnackTellsLimits(t *testing.T) {
	w := newWorld(t, Options{SessionExpiryMax: time.Hour})
	c := w.connect("", 5, func(pk *packets.Packet) {
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 0xffffffff, true
	})
	f, _ := cut(c.out, largestPacket)
	pk := packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: packets.Connack}}
	if err := pk.ConnackDecode(f.body); err != nil {
		t.Fatal(err)
	}
	p := pk.Properties
	if p.ReceiveMaximum != 1024 || p.MaximumPacketSize != 1<<20 || p.TopicAliasMaximum != 64 || p.SessionExpiryInterval != 3600 {
		t.Errorf("announced %d %d %d %d", p.ReceiveMaximum, p.MaximumPacketSize, p.TopicAliasMaximum, p.SessionExpiryInterval)
	}
	if !strings.HasPrefix(p.AssignedClientID, "gw-") || len(p.AssignedClientID) != 35 {
		t.Errorf("assigned client id %q", p.AssignedClientID)
	}
	if p.MaximumQosFlag || p.RetainAvailableFlag || p.WildcardSubAvailableFlag || p.SubIDAvailableFlag || p.SharedSubAvailableFlag {
		t.Errorf("availability flags: %+v", p)
	}
}

func TestConnackComesAfterTheDisk(t *testing.T) {
	w := newWorld(t, Options{})
	w.disk.hold()
	c := w.dial("c", 5)
	c.queue(connectPacket("c", 5, kept))
	c.queue(publish("a", 1, 1, "kept until CONNACK"))
	w.settle()
	c.want()
	w.disk.ok()
	w.settle()
	c.want("CONNACK 00", "PUBACK 1 10")
}

// mission: P14
func TestSubackComesAfterTheDisk(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open("c", 5, kept)
	w.disk.hold()
	c.subscribe(1, filter("a", 1)).want()
	w.disk.ok()
	w.settle()
	c.want("SUBACK 1 01")
	w.disk.hold()
	c.send(unsubscribe(2, "a")).want()
	w.disk.ok()
	w.settle()
	c.want("UNSUBACK 2 00").send(unsubscribe(3, "a")).want("UNSUBACK 3 11")
}

func TestUnsubscribeWhileSubscribing(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open("c", 5, kept)
	c.queue(subscribe(1, filter("a", 1)))
	c.queue(unsubscribe(2, "a"))
	w.settle()
	c.want("SUBACK 1 01", "UNSUBACK 2 00")
	w.open("writer", 5).publish("a", 1, 1, "").want("PUBACK 1 10")
}

func TestDisconnect(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open("a", 5)
	c.raw(0xe0, 0)
	if !c.closed || c.err != nil {
		t.Errorf("a polite end: closed %v, %v", c.closed, c.err)
	}
	c.want()
	w.open("b", 5).raw(0xe0, 7, 0, 5, 17, 0, 0, 0, 1).
		want(`DISCONNECT 82 "a session that was to end with its connection cannot be kept"`)
	d := w.open("d", 5, kept)
	d.raw(0xe0, 7, 0, 5, 17, 0, 0, 0, 0) // not kept after all
	w.connect("d", 5, kept).want("CONNACK 00")
}

func TestFullBacklogDropsTheNewest(t *testing.T) {
	w := newWorld(t, Options{BacklogMessages: 2})
	one := func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 1 }
	sub := w.open("reader", 5, one).subscribe(1, filter("a", 1)).want("SUBACK 1 01")
	pub := w.open("writer", 5)
	for i := range uint16(5) {
		pub.publish("a", 1, i+1, string('0'+rune(i)))
	}
	sub.want(`PUBLISH a "0" q1 id=1`).ack(packets.Puback, 1).want(`PUBLISH a "1" q1 id=2`)
	sub.ack(packets.Puback, 2).want(`PUBLISH a "2" q1 id=3`).ack(packets.Puback, 3).want()
	if n := w.protocol.Counters()["backlog_full"]; n != 2 {
		t.Errorf("backlog_full = %d, want 2", n)
	}
	for i := range uint16(20_000) { // the room in the outbox was given back
		sub.out = nil
		pub.publish("a", 0, 0, string('0'+rune(i%10)))
	}
	if got := sub.read(); len(got) != 1 {
		t.Errorf("the last of 20,000 QoS 0 messages: got %q", got)
	}
}

func TestManyRetainedValuesAllArrive(t *testing.T) {
	w := newWorld(t, Options{BacklogMessages: 5})
	pub := w.open("writer", 5)
	for i := range 300 {
		pub.publish(fmt.Sprintf("r/%03d", i), 1, 1, "x", retained)
	}
	sub := w.open("reader", 5, func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 10 })
	sub.subscribe(1, filter("r/#", 1))
	next := 0
	for range 300 {
		for _, got := range sub.read() {
			var id uint16
			if _, err := fmt.Sscanf(got, fmt.Sprintf("PUBLISH r/%03d \"x\" q1 id=%%d retain", next), &id); err == nil {
				next++
				sub.queue(ack(packets.Puback, id))
			}
		}
		w.settle()
	}
	if next != 300 {
		t.Errorf("%d retained values came in order, want 300", next)
	}
}

func TestKeepAliveStandsStillWhileWeHoldTheClientBack(t *testing.T) {
	w := newWorld(t, Options{ReceiveMaximum: 1})
	w.open("reader", 5, kept).subscribe(1, filter("a", 1)).want("SUBACK 1 01")
	c := w.open("old", 4, func(pk *packets.Packet) { pk.Connect.Keepalive = 10 })
	w.disk.hold()
	c.publish("a", 1, 1, "").publish("a", 1, 2, "").want()
	w.tick(time.Minute)
	w.disk.ok()
	w.settle()
	c.want("PUBACK 1", "PUBACK 2")
}

func TestFullQueueIsSaidOrHeldBack(t *testing.T) {
	w := newWorld(t, Options{})
	admin := w.broker.Open(core.Identity{VHost: "/", User: "admin"}, core.SessionSpec{}, 1, nobody{})
	admin.Apply([]core.Change{
		{Queue: &core.QueueSpec{Name: "readings", MaxMessages: 1}},
		{Binding: &core.BindingSpec{Queue: "readings", Source: core.Address{Exchange: core.TopicExchange, Topic: "a"}}},
	}, 2)
	w.settle()
	five, four := w.open("five", 5), w.open("four", 4)
	five.publish("a", 1, 1, "").publish("a", 1, 2, "").want("PUBACK 1", `PUBACK 2 97 "queue \"readings\" is full"`)
	four.publish("a", 1, 1, "").publish("b", 1, 2, "").want() // never a false success
	w.tick(29 * time.Second)
	if four.closed {
		t.Fatal("closed too early")
	}
	w.tick(3 * time.Second)
	four.want().wantClosed()
}

type nobody struct{}

func (nobody) Wake() {}

func TestWordsOfTheBroker(t *testing.T) {
	user := func(name, value string) func(*packets.Packet) {
		return func(pk *packets.Packet) {
			pk.Properties.User = append(pk.Properties.User, packets.UserProperty{Key: name, Val: value})
		}
	}
	w := newWorld(t, Options{})
	c := w.open("a", 5)
	c.subscribe(1, filter("a", 0)).want("SUBACK 1 00")
	c.publish("a", 0, 0, "x", user("priority", "7"), user("delay", "soon")).want(`PUBLISH a "x" q0 priority=7 delay=soon`)
	c.publish("a", 1, 1, "x", user("delay", "400d")).want(`PUBACK 1`, `PUBLISH a "x" q0 delay=400d`) // no delay of ours
}

func TestWillIsAskedForAtConnect(t *testing.T) {
	w := newWorld(t, Options{})
	w.open("watcher", 5).subscribe(1, filter("#", 0)).want("SUBACK 1 00")
	w.connect("a", 5, will("secret/x", "", 0, 0)).want("CONNACK 87").wantClosed()
	w.connect("b", 4, will("secret/x", "", 0, 0)).want("CONNACK 05").wantClosed()
	w.clients[0].want()
}

func TestConnackOfAStoppedDisk(t *testing.T) {
	w := newWorld(t, Options{})
	w.disk.hold()
	c := w.connect("a", 5, kept)
	w.tick(31 * time.Second)
	c.want("CONNACK 88").wantClosed()
}

func TestUnknownAcks(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open("a", 5)
	c.ack(packets.Puback, 9).ack(packets.Pubcomp, 9).want()
	c.ack(packets.Pubrec, 9).want("PUBREL 9 92")
	w.open("b", 4).ack(packets.Pubrec, 9).want("PUBREL 9")
}

func TestClientRefusesADelivery(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.open("a", 5, kept).subscribe(1, filter("a", 2)).want("SUBACK 1 02")
	w.open("writer", 5).publish("a", 1, 1, "x").publish("a", 2, 2, "y")
	c.want(`PUBLISH a "x" q1 id=1`, `PUBLISH a "y" q2 id=2`)
	c.ack(packets.Puback, 1, 0x97).ack(packets.Pubrec, 2, 0x97).want().cut()
	w.connect("a", 5, kept).want("CONNACK 00 present") // never again
}
