package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
)

// A world is a broker whose shards, clock and disk the test moves by hand, and
// the connections to it. Nothing runs beside the test.
type world struct {
	t        testing.TB
	now      time.Time
	disk     *disk
	broker   *core.Broker
	protocol *Protocol
	guard    *guard
	clients  []*client
}

// guard lets everybody in and denies what starts with "secret".
type guard struct{ deny map[string]bool }

func (g *guard) Enter(_ context.Context, l core.Login) (core.Identity, error) {
	if string(l.Secret) == "wrong" {
		return core.Identity{}, core.Errorf(core.CodeUnauthenticated, "bad login")
	}
	return l.Identity, nil
}

func (g *guard) Allow(_ *core.Identity, a core.Access, _ func(core.Permit)) core.Permit {
	if strings.HasPrefix(a.Where.Topic, "secret") || g.deny[a.Where.Topic] {
		return core.No
	}
	return core.Yes
}

func newWorld(t testing.TB, o Options) *world {
	w := &world{t: t, now: time.Date(2030, 1, 1, 13, 0, 0, 0, time.UTC), disk: &disk{Store: memory.New(memory.Options{})}, guard: &guard{deny: map[string]bool{}}}
	w.protocol = New(o)
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	b, err := core.New(core.Options{
		Store: w.disk, Guard: w.guard, Manual: true, Shards: 2,
		Now: func() time.Time { return w.now },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.broker = b
}

// restart is a crash: connections and memory are gone, the disk is not.
func (w *world) restart() {
	w.clients = nil
	w.start()
}

// disk is a store whose commits can be held.
type disk struct {
	core.Store
	held    bool
	waiting []func()
}

func (d *disk) Open(ctx context.Context, p core.PartitionID) (core.Partition, error) {
	part, err := d.Store.Open(ctx, p)
	return &partition{part, d}, err
}

func (d *disk) hold() { d.held = true }

func (d *disk) ok() {
	d.held = false
	for _, f := range d.waiting {
		f()
	}
	d.waiting = nil
}

type partition struct {
	core.Partition
	disk *disk
}

func (p *partition) Commit(b *core.Batch) error {
	if p.disk.held {
		p.disk.waiting = append(p.disk.waiting, func() { _ = p.Partition.Commit(b) })
		return nil
	}
	return p.Partition.Commit(b)
}

// A client is the far end of a connection, and its Link.
type client struct {
	w       *world
	name    string
	version byte
	handler protocols.Handler
	outbox  *core.Outbox
	spare   []core.Event

	in     []byte // sent, not taken yet
	out    []byte // written, not read yet
	woken  bool
	wait   bool // Receive said ErrWait
	resume bool
	closed bool
	err    error // why
	ending error // Close was asked for
	looked int   // bytes that Ahead has seen
	stuck  bool  // takes no bytes: Deliver is not called
}

func (c *client) Wake()                   { c.woken = true }
func (c *client) Attach(o *core.Outbox)   { c.outbox = o; c.woken = true }
func (c *client) Resume()                 { c.resume = true }
func (c *client) Want(int)                {}
func (c *client) Border(int, bool)        {}
func (c *client) TickEvery(time.Duration) {}
func (c *client) Peer() protocols.Peer {
	return protocols.Peer{Remote: "127.0.0.1:1", Listener: "mqtt"}
}

func (c *client) Close(err error) {
	if c.ending == nil {
		c.ending = err
	}
	c.woken = true
}

// dial makes a connection that has sent nothing yet.
func (w *world) dial(name string, version byte) *client {
	c := &client{w: w, name: name, version: version}
	c.handler = w.protocol.Open(c, w.broker)
	w.clients = append(w.clients, c)
	return c
}

// settle runs everything until nothing moves.
func (w *world) settle() {
	for range 10_000 {
		moved := w.broker.Step()
		for _, c := range w.clients {
			moved = c.step() || moved
		}
		if !moved {
			return
		}
	}
	w.t.Fatal("the world does not settle")
}

// step does what a transport does for one connection.
func (c *client) step() (moved bool) {
	if c.closed {
		return false
	}
	if c.resume {
		c.resume, c.wait, moved = false, false, true
	}
	if len(c.in) > 0 && !c.wait && c.ending == nil {
		n, err := c.handler.Receive(bytes.Clone(c.in))
		c.in, c.looked = c.in[n:], 0
		moved = n > 0
		c.receiveError(err)
	} else if len(c.in) > c.looked && c.wait {
		c.looked = len(c.in)
		if a, ok := c.handler.(protocols.Ahead); ok {
			a.Ahead(bytes.Clone(c.in))
		}
	}
	if c.stuck && c.ending == nil {
		return moved
	}
	events := c.take()
	if c.woken || len(events) > 0 {
		c.woken, moved = false, true
		c.out = c.handler.Deliver(c.out, events)
	}
	if c.ending != nil {
		c.end(c.ending)
		return true
	}
	return moved
}

func (c *client) receiveError(err error) {
	switch {
	case errors.Is(err, core.ErrWait):
		c.wait = true
	case err != nil:
		if c.ending == nil {
			c.ending = err
		}
	}
}

func (c *client) take() []core.Event {
	if c.outbox == nil {
		return nil
	}
	events, _ := c.outbox.Take(c.spare)
	c.spare = nil
	return events
}

func (c *client) end(err error) {
	if polite, ok := errors.AsType[*protocols.Close](err); ok {
		c.out = c.handler.Deliver(c.out, c.take())
		err = polite.Err
	}
	c.closed, c.err = true, err
	c.handler.Closed(err)
}

// cut is a connection that vanishes.
func (c *client) cut() {
	if !c.closed {
		c.closed, c.err = true, errors.New("reset")
		c.handler.Closed(c.err)
	}
	c.w.settle()
}

// tick moves the clock in steps of a second.
func (w *world) tick(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(time.Second)
		w.broker.Tick(w.now)
		for _, c := range w.clients {
			if !c.closed {
				c.receiveError(c.handler.Tick(w.now))
			}
		}
		w.settle()
	}
}

// raw sends bytes as they are.
func (c *client) raw(b ...byte) *client {
	c.in = append(c.in, b...)
	c.w.settle()
	return c
}

// queue adds a packet to what the client sends, and does not settle.
func (c *client) queue(pk packets.Packet) { c.in = append(c.in, encode(c.w.t, c.version, pk)...) }

func encode(t testing.TB, version byte, pk packets.Packet) []byte {
	pk.ProtocolVersion = version
	if pk.Mods.MaxSize == 0 {
		pk.Mods.AllowResponseInfo = true
	}
	var b bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectEncode(&b)
	case packets.Publish:
		err = pk.PublishEncode(&b)
	case packets.Subscribe:
		pk.FixedHeader.Qos = 1
		err = pk.SubscribeEncode(&b)
	case packets.Unsubscribe:
		pk.FixedHeader.Qos = 1
		err = pk.UnsubscribeEncode(&b)
	case packets.Puback, packets.Pubrec, packets.Pubcomp, packets.Pubrel:
		if pk.FixedHeader.Type == packets.Pubrel {
			pk.FixedHeader.Qos = 1
		}
		err = pk.PubackEncode(&b)
	case packets.Disconnect:
		err = pk.DisconnectEncode(&b)
	case packets.Pingreq:
		err = pk.PingreqEncode(&b)
	default:
		t.Fatalf("cannot encode packet type %d", pk.FixedHeader.Type)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (c *client) send(pk packets.Packet) *client {
	c.queue(pk)
	c.w.settle()
	return c
}

// connectPacket is a CONNECT with defaults, which change alters.
func connectPacket(name string, version byte, change ...func(*packets.Packet)) packets.Packet {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}}
	pk.Connect.ProtocolName = []byte("MQTT")
	if version == 3 {
		pk.Connect.ProtocolName = []byte("MQIsdp")
	}
	pk.Connect.ClientIdentifier = name
	pk.Connect.Clean = true
	for _, f := range change {
		f(&pk)
	}
	return pk
}

// connect dials and connects; the CONNACK is still to be read.
func (w *world) connect(name string, version byte, change ...func(*packets.Packet)) *client {
	return w.dial(name, version).send(connectPacket(name, version, change...))
}

// open connects and reads a CONNACK of success away.
func (w *world) open(name string, version byte, change ...func(*packets.Packet)) *client {
	w.t.Helper()
	c := w.connect(name, version, change...)
	got := c.read()
	if len(got) == 0 || !strings.HasPrefix(got[0], "CONNACK 00") {
		w.t.Fatalf("%s: CONNECT got %q, want CONNACK 00; closed: %v", name, got, c.err)
	}
	return c
}

// kept makes a session that outlives its connection by an hour.
func kept(pk *packets.Packet) {
	pk.Connect.Clean = false
	pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 3600, true
}

func publish(topic string, qos byte, id uint16, body string, change ...func(*packets.Packet)) packets.Packet {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos},
		TopicName:   topic, PacketID: id, Payload: []byte(body),
	}
	for _, f := range change {
		f(&pk)
	}
	return pk
}

func retained(pk *packets.Packet) { pk.FixedHeader.Retain = true }
func again(pk *packets.Packet)    { pk.FixedHeader.Dup = true }

func subscribe(id uint16, filters ...packets.Subscription) packets.Packet {
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: id, Filters: filters}
}

func filter(f string, qos byte) packets.Subscription {
	return packets.Subscription{Filter: f, Qos: qos}
}

func unsubscribe(id uint16, filter string) packets.Packet {
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, PacketID: id,
		Filters: packets.Subscriptions{{Filter: filter}},
	}
}

func ack(kind byte, id uint16, code ...byte) packets.Packet {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, PacketID: id}
	if len(code) > 0 {
		pk.ReasonCode = code[0]
	}
	return pk
}

func (c *client) publish(topic string, qos byte, id uint16, body string, change ...func(*packets.Packet)) *client {
	return c.send(publish(topic, qos, id, body, change...))
}

func (c *client) subscribe(id uint16, filters ...packets.Subscription) *client {
	return c.send(subscribe(id, filters...))
}

func (c *client) ack(kind byte, id uint16, code ...byte) *client {
	return c.send(ack(kind, id, code...))
}

// want reads what was written and compares it with packets in words.
func (c *client) want(packets ...string) *client {
	c.w.t.Helper()
	got := c.read()
	if strings.Join(got, "\n") != strings.Join(packets, "\n") {
		c.w.t.Fatalf("%s got\n\t%s\nwant\n\t%s", c.name, strings.Join(got, "\n\t"), strings.Join(packets, "\n\t"))
	}
	return c
}

// wantClosed says that the connection has ended.
func (c *client) wantClosed() *client {
	c.w.t.Helper()
	if !c.closed {
		c.w.t.Fatalf("%s is not closed", c.name)
	}
	return c
}

// read takes what was written, in words.
func (c *client) read() (words []string) {
	c.w.t.Helper()
	for len(c.out) > 0 {
		f, bad := cut(c.out, largestPacket)
		if bad != nil || !f.whole(len(c.out)) {
			c.w.t.Fatalf("%s got half a packet: % x", c.name, c.out)
		}
		c.out = c.out[f.size:]
		words = append(words, c.words(f))
	}
	return words
}

func (c *client) words(f frame) string {
	c.w.t.Helper()
	pk := packets.Packet{ProtocolVersion: c.version}
	if err := pk.FixedHeader.Decode(f.first); err != nil {
		c.w.t.Fatalf("%s got a wrong fixed header: %v", c.name, err)
	}
	pk.FixedHeader.Remaining = len(f.body)
	var err error
	var s string
	switch f.kind() {
	case typeConnack:
		err = pk.ConnackDecode(f.body)
		s = fmt.Sprintf("CONNACK %02x", pk.ReasonCode)
		if pk.SessionPresent {
			s += " present"
		}
	case typePublish:
		err = pk.PublishDecode(f.body)
		s = fmt.Sprintf("PUBLISH %s %q q%d", pk.TopicName, pk.Payload, pk.FixedHeader.Qos)
		if pk.PacketID > 0 {
			s += fmt.Sprintf(" id=%d", pk.PacketID)
		}
		if pk.FixedHeader.Dup {
			s += " dup"
		}
		if pk.FixedHeader.Retain {
			s += " retain"
		}
	case typePuback, typePubrec, typePubrel, typePubcomp:
		err = pk.PubackDecode(f.body)
		s = fmt.Sprintf("%s %d", strings.ToUpper(packets.PacketNames[byte(f.kind())]), pk.PacketID)
		if pk.ReasonCode > 0 {
			s += fmt.Sprintf(" %02x", pk.ReasonCode)
		}
	case typeSuback, typeUnsuback:
		if f.kind() == typeSuback {
			err = pk.SubackDecode(f.body)
		} else {
			err = pk.UnsubackDecode(f.body)
		}
		s = fmt.Sprintf("%s %d % x", strings.ToUpper(packets.PacketNames[byte(f.kind())]), pk.PacketID, pk.ReasonCodes)
	case typePingresp:
		s = "PINGRESP"
	case typeDisconnect:
		err = pk.DisconnectDecode(f.body)
		s = fmt.Sprintf("DISCONNECT %02x", pk.ReasonCode)
	default:
		c.w.t.Fatalf("%s got a packet of type %d", c.name, f.kind())
	}
	if err != nil {
		c.w.t.Fatalf("%s got a packet that mochi cannot read: %v: % x", c.name, err, f.body)
	}
	return strings.TrimRight(s, " ") + propertyWords(&pk)
}

// propertyWords names the properties that tests look at.
func propertyWords(pk *packets.Packet) (s string) {
	p := &pk.Properties
	if pk.FixedHeader.Type == packets.Connack {
		return ""
	}
	if p.MessageExpiryInterval > 0 {
		s += fmt.Sprintf(" expiry=%d", p.MessageExpiryInterval)
	}
	if p.PayloadFormatFlag {
		s += fmt.Sprintf(" format=%d", p.PayloadFormat)
	}
	if p.ContentType != "" {
		s += " type=" + p.ContentType
	}
	if p.ResponseTopic != "" {
		s += " response=" + p.ResponseTopic
	}
	if len(p.CorrelationData) > 0 {
		s += fmt.Sprintf(" correlation=%q", p.CorrelationData)
	}
	for _, id := range p.SubscriptionIdentifier {
		s += fmt.Sprintf(" sub=%d", id)
	}
	for _, u := range p.User {
		s += fmt.Sprintf(" %s=%s", u.Key, u.Val)
	}
	if p.ReasonString != "" {
		s += fmt.Sprintf(" %q", p.ReasonString)
	}
	return s
}
