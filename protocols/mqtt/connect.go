package mqtt

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/godwitmq/godwit/core"
)

// never is a Session Expiry Interval without an end; ours has one.
const never = 0xffffffff

// A connack is what a CONNACK says beside its code.
type connack struct {
	asked    time.Duration // of a session's life
	assigned string
	will     *core.Will // the guard is asked about it once there is a session
}

// connect handles the first packet: who is it, which session, what is
// announced. It blocks while the guard is asked; the answer comes when the
// session is open.
func (c *conn) connect(body []byte) error {
	if f := c.readProtocol(body); f != nil {
		return f
	}
	if c.bridge {
		body = bytes.Clone(body)
		body[bytes.IndexByte(body, c.version|0x80)] = c.version // mochi knows no bridges
	}
	if f := checkConnect(body, c.version, c.options); f != nil {
		return f
	}
	pk, f := c.decode(typeConnect, body, c.version)
	if f != nil {
		return f
	}
	if f := c.readConnect(&pk); f != nil {
		return f
	}
	will, f := c.readWill(&pk)
	if f != nil {
		return f
	}
	id, err := c.identify(&pk)
	if err != nil {
		return &fault{connackCode(core.AsError(err)), err.Error()}
	}
	c.topics.vhost = id.VHost
	if will != nil {
		will.Message.Address.VHost = id.VHost
	}
	c.open(id, &pk, will)
	return nil
}

// readProtocol reads the protocol's name and level, which everything else
// depends on [MQTT-3.1.2-1] [MQTT-3.1.2-2]. A level that we do not speak is
// told in the words of the nearest that we do.
func (c *conn) readProtocol(body []byte) *fault {
	r := cursor{b: body}
	name, level := string(r.bytes()), r.byte()
	if r.bad {
		return malformed("the CONNECT ends too early")
	}
	if level&0x80 != 0 && level != 0x80 { // what Mosquitto's bridges set
		c.bridge, level = true, level&0x7f
	}
	switch {
	case name == "MQTT" && (level == 4 || level == 5), name == "MQIsdp" && level == 3:
		c.version = level
		return nil
	case name == "MQTT" && level > 5:
		c.version = 5
	case name == "MQTT" || name == "MQIsdp":
		c.version = 4
	default:
		return violation("the protocol is not MQTT")
	}
	return &fault{codeVersion, "MQTT 3.1, 3.1.1 and 5 are spoken here"}
}

// readConnect keeps what the CONNECT asks for.
func (c *conn) readConnect(pk *packets.Packet) *fault {
	p := &pk.Properties
	c.outbound.window = c.options.InflightMax
	if c.version < 5 {
		c.outbound.window = c.options.InflightMaxV3
	}
	if p.ReceiveMaximum > 0 { // [MQTT-3.3.4-9]
		c.outbound.window = min(c.outbound.window, int(p.ReceiveMaximum))
	}
	if p.MaximumPacketSize > 0 {
		c.clientMax = int(min(p.MaximumPacketSize, largestPacket))
	}
	c.noProblems = p.RequestProblemInfoFlag && p.RequestProblemInfo == 0
	c.keepAlive = time.Duration(pk.Connect.Keepalive) * time.Second
	switch {
	case p.AuthenticationMethod != "":
		return &fault{codeAuthMethod, "enhanced authentication: not supported yet"} // [MQTT-4.12.0-1]
	case len(p.AuthenticationData) > 0:
		return violation("authentication data without a method")
	}
	c.readExpiry(pk)
	return c.readClientID(pk)
}

// readExpiry decides how long the session outlives its connection: MQTT before
// 5 says only "clean" or "for ever", and for ever has an end here.
func (c *conn) readExpiry(pk *packets.Packet) {
	switch {
	case c.version == 5:
		c.connack.asked = seconds(pk.Properties.SessionExpiryInterval)
		c.expiry = c.sessionExpiry(pk.Properties.SessionExpiryInterval)
	case !pk.Connect.Clean:
		c.expiry = c.options.SessionExpiryMax
	}
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// sessionExpiry caps what a client asks for.
func (c *conn) sessionExpiry(interval uint32) time.Duration {
	if interval == never {
		return c.options.SessionExpiryMax
	}
	return min(seconds(interval), c.options.SessionExpiryMax)
}

// readClientID takes the client's name for itself, or gives it one.
func (c *conn) readClientID(pk *packets.Packet) *fault {
	id := pk.Connect.ClientIdentifier
	switch {
	case id == "" && (c.version == 5 || (c.version == 4 && pk.Connect.Clean)): // [MQTT-3.1.3-6] [MQTT-3.1.3-7]
		id = assignedID()
		c.connack.assigned = id // [MQTT-3.2.2-16]
	case id == "":
		return &fault{codeClientID, "an empty client id needs a clean session"} // [3.1.1: MQTT-3.1.3-8]
	case len(id) > c.options.ClientIDMax:
		return &fault{codeClientID, "the client id is longer than the server takes"}
	case core.CheckTopic(sessionPrefix+id) != nil:
		return &fault{codeClientID, "the client id holds control characters or too many levels"} // [MQTT-3.1.3-8]
	}
	c.client = id
	return nil
}

// assignedID is a name nobody can guess.
func assignedID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return "gw-" + hex.EncodeToString(b[:])
}

// readWill makes the message that is published when the client vanishes.
func (c *conn) readWill(pk *packets.Packet) (*core.Will, *fault) {
	w := &pk.Connect
	if !w.WillFlag {
		return nil, nil
	}
	p := &w.WillProperties
	if strings.ContainsAny(w.WillTopic, "+#") {
		return nil, violation("the topic of the will has wildcards")
	}
	if err := core.CheckTopic(w.WillTopic); err != nil {
		return nil, &fault{codeTopicInvalid, err.Error()}
	}
	to := targetOf("", w.WillTopic)
	if to.delay > 0 {
		to.refused = core.NotYet("a will to $delayed/ (will delay does it)")
	}
	if to.refused != nil {
		return nil, &fault{willCode(to.refused), to.refused.Text}
	}
	m := &core.Message{
		Address: to.address, QoS: w.WillQos, Priority: core.DefaultPriority,
		Retain: w.WillRetain && to.keeps, // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
		UTF8:   p.PayloadFormat == 1, Body: w.WillPayload,
	}
	if bad := c.willProperties(m, p); bad != nil {
		return nil, bad
	}
	return &core.Will{Message: m, Delay: seconds(p.WillDelayInterval)}, nil
}

// willCode is ackCode in a CONNACK.
func willCode(e *core.Error) byte {
	if code := ackCode(e); code == codeTopicInvalid || code == codeNotAuthorized {
		return code
	}
	return codeImplementation
}

// willProperties gives the will its headers, in the order they are encoded in
// when it is delivered; user properties keep theirs [MQTT-3.1.3-10].
func (c *conn) willProperties(m *core.Message, p *packets.Properties) *fault {
	add := func(name, value string) { m.Headers = append(m.Headers, core.Header{Name: name, Value: value}) }
	if p.ContentType != "" {
		add(core.HeaderContentType, p.ContentType)
	}
	if p.ResponseTopic != "" {
		if bad := checkResponseTopic([]byte(p.ResponseTopic)); bad != nil {
			return bad
		}
		add(core.HeaderReplyTo, replyHeader(m.Address.VHost, p.ResponseTopic))
	}
	if len(p.CorrelationData) > 0 {
		add(core.HeaderCorrelationID, string(p.CorrelationData))
	}
	for _, u := range p.User {
		add(u.Key, u.Val)
	}
	if p.MessageExpiryInterval > 0 {
		// From now on, where the clause wants it from the will's publication:
		// core has no word for that yet.
		m.Expires = c.broker.Now().Add(seconds(p.MessageExpiryInterval) + seconds(p.WillDelayInterval))
	}
	return nil
}

// identify asks the guard who this is.
func (c *conn) identify(pk *packets.Packet) (core.Identity, error) {
	peer := c.link.Peer()
	id := core.Identity{
		Protocol: "mqtt", Client: c.client, User: peer.User,
		Listener: peer.Listener, Remote: peer.Remote, VHost: peer.VHost,
	}
	if pk.Connect.UsernameFlag {
		id.User = string(pk.Connect.Username)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.options.ConnectTimeout)
	defer cancel()
	select {
	case c.enter <- struct{}{}:
		defer func() { <-c.enter }()
	case <-ctx.Done():
		return id, core.ErrOverload
	}
	id, err := c.broker.Enter(ctx, core.Login{Identity: id, Secret: pk.Connect.Password})
	var ask *core.Challenge
	switch {
	case errors.As(err, &ask):
		return id, core.NotYet("enhanced authentication")
	case errors.Is(err, context.DeadlineExceeded):
		return id, &core.Error{Code: core.CodeTooSlow, Text: "the guard did not answer in time"}
	}
	return id, err
}

// open starts or resumes the session; its Confirmed is the CONNACK.
func (c *conn) open(id core.Identity, pk *packets.Packet, will *core.Will) {
	c.connack.will = will
	c.state.Store(authenticating)
	c.session = c.broker.Open(id, core.SessionSpec{
		Key: c.client, Clean: pk.Connect.Clean, Expiry: c.expiry, Will: will,
		Unanswered: c.options.ReceiveMaximum,
	}, tokenOpen, c.link)
	c.link.Attach(c.session.Events())
}

// encodeConnack is the CONNACK of success.
func (c *conn) encodeConnack(present bool) []byte {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connack}, ProtocolVersion: c.version,
		SessionPresent: present,
	}
	if c.version == 5 {
		pk.Properties = packets.Properties{
			ReceiveMaximum:    uint16(c.options.ReceiveMaximum),
			MaximumPacketSize: uint32(c.options.PacketMax),
			TopicAliasMaximum: uint16(max(c.options.TopicAliasMaximum, 0)),
			AssignedClientID:  c.connack.assigned,
			// Retain, wildcards, subscription identifiers and shared
			// subscriptions are there, which is what silence means.
		}
		if c.expiry != c.connack.asked {
			pk.Properties.SessionExpiryIntervalFlag = true
			pk.Properties.SessionExpiryInterval = uint32(c.expiry / time.Second)
		}
	}
	return encodeCold(&pk)
}

// encodeRefusal is the CONNACK of a refusal, or nothing where the version has
// no word for it. Session Present is 0 [MQTT-3.2.2-6].
func (c *conn) encodeRefusal(f *fault) []byte {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ProtocolVersion: c.version}
	switch {
	case c.version == 5:
		pk.ReasonCode = f.code
		pk.Properties.ReasonString = clip(f.text)
		pk.Mods.MaxSize = uint32(max(c.clientMax-8, 8)) // [MQTT-3.2.2-19]
	case c.version == 0:
		return nil // not even a CONNECT was read
	default:
		code, ok := returnCode(f.code)
		if !ok {
			return nil
		}
		pk.ReasonCode = code
	}
	return c.within(encodeCold(&pk))
}
