// Package mqtt speaks MQTT 3.1, 3.1.1 and 5 to clients.
//
// It is a state machine over bytes: bytes in become verbs of a core.Session,
// events become bytes. It opens no socket, starts no goroutine and reads no
// clock of its own. The wire vocabulary of the rare packets is mochi's packets
// package, behind strict checks, a copy of the frame and a recover; PUBLISH,
// its four acknowledgements and the pings have a path of their own, in place.
//
//	Receive -> frame -> connect | publish | ack | subscribe -> core.Session
//	Deliver <- encode <- outbound ring <- Delivered, Confirmed <- core.Outbox
//
// Clause ids such as [MQTT-3.1.2-24] are those of OASIS MQTT 5.0; those of
// 3.1.1 have the number in front: [3.1.1: MQTT-3.1.2-22].
package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// Options are the limits of the MQTT adapter. The zero value of each field is
// its default.
type Options struct {
	ConnectTimeout   time.Duration // first byte to CONNECT, and CONNECT to the guard's answer; 10 s
	ConnectPacketMax int           // bytes of a CONNECT; 64 KiB, at most 256 KiB
	PacketMax        int           // bytes of any other packet, announced; 1 MiB, at most 268,435,460

	ReceiveMaximum    int // publishes of a client that wait for an answer, announced; 1,024
	InflightMax       int // deliveries to a client that wait for an answer; 1,024, at most 16,383
	InflightMaxV3     int // the same for 3.1 and 3.1.1, which cannot ask for less; 256
	TopicAliasMaximum int // topic aliases a client may set, announced; 64, -1: none

	SessionExpiryMax time.Duration // longest life of a session without its client; 7 days
	QueueMessages    int64         // messages kept for a session; 100,000
	QueueBytes       int64         // 64 MiB
	BacklogMessages  int           // live messages that wait while a client owes acknowledgements; 1,000
	BacklogBytes     int64         // 1 MiB

	ClientIDMax       int // bytes; 255, which core takes as a name
	FiltersMax        int // filters in one SUBSCRIBE; 256
	SubscriptionsMax  int // subscriptions of a session; 1,000
	UserPropertiesMax int // user properties of a packet; 64
	PropertiesMax     int // bytes of all properties of a packet; 32 KiB

	RefusalWait time.Duration // 3.1 and 3.1.1: from a publish there is no room for to the close; 30 s
	Entering    int           // connections that ask the guard at the same time; 256
}

// largestPacket is a fixed header of 5 bytes and the largest remaining length.
const largestPacket = 268_435_460

func (o Options) withDefaults() Options {
	def := func(p *int, n int) {
		if *p == 0 {
			*p = n
		}
	}
	def(&o.ConnectPacketMax, 64<<10)
	def(&o.PacketMax, 1<<20)
	def(&o.ReceiveMaximum, 1024)
	def(&o.InflightMax, 1024)
	def(&o.InflightMaxV3, 256)
	def(&o.TopicAliasMaximum, 64)
	def(&o.BacklogMessages, 1000)
	def(&o.ClientIDMax, core.MaxNameBytes)
	def(&o.FiltersMax, 256)
	def(&o.SubscriptionsMax, 1000)
	def(&o.UserPropertiesMax, 64)
	def(&o.PropertiesMax, 32<<10)
	def(&o.Entering, 256)
	def64 := func(p *int64, n int64) {
		if *p == 0 {
			*p = n
		}
	}
	def64(&o.QueueMessages, 100_000)
	def64(&o.QueueBytes, 64<<20)
	def64(&o.BacklogBytes, 1<<20)
	def64((*int64)(&o.ConnectTimeout), int64(10*time.Second))
	def64((*int64)(&o.SessionExpiryMax), int64(7*24*time.Hour))
	def64((*int64)(&o.RefusalWait), int64(30*time.Second))
	return o
}

// Validate says everything that is wrong with the options, at once.
func (o Options) Validate() error {
	o = o.withDefaults()
	var faults []error
	within := func(name string, n, lo, hi int64) {
		if n < lo || n > hi {
			faults = append(faults, fmt.Errorf("mqtt: %s is %d, want %d to %d", name, n, lo, hi))
		}
	}
	positive := func(name string, d time.Duration) {
		if d < 0 {
			faults = append(faults, fmt.Errorf("mqtt: %s is %v, want more than 0", name, d))
		}
	}
	positive("connect_timeout", o.ConnectTimeout)
	positive("session_expiry_max", o.SessionExpiryMax)
	positive("refusal_wait", o.RefusalWait)
	within("connect_packet_max", int64(o.ConnectPacketMax), 64, 256<<10)
	within("packet_max", int64(o.PacketMax), 64, largestPacket)
	within("receive_maximum", int64(o.ReceiveMaximum), 1, 65_535)
	within("inflight_max", int64(o.InflightMax), 1, 16_383)
	within("inflight_max_v3", int64(o.InflightMaxV3), 1, 16_383)
	within("topic_alias_maximum", int64(o.TopicAliasMaximum), -1, 65_535)
	within("queue_messages", o.QueueMessages, 1, 1<<40)
	within("queue_bytes", o.QueueBytes, 1, 1<<50)
	within("backlog_messages", int64(o.BacklogMessages), 1, 1<<20)
	within("backlog_bytes", o.BacklogBytes, 1, 1<<30)
	within("client_id_max", int64(o.ClientIDMax), 23, core.MaxNameBytes)
	within("filters_max", int64(o.FiltersMax), 1, 1<<16)
	within("subscriptions_max", int64(o.SubscriptionsMax), 1, 1<<20)
	within("user_properties_max", int64(o.UserPropertiesMax), 0, 1<<16)
	within("properties_max", int64(o.PropertiesMax), 16, 1<<20)
	within("entering", int64(o.Entering), 1, 1<<16)
	return errors.Join(faults...)
}

// A Protocol makes MQTT handlers; one value serves all connections.
type Protocol struct {
	options Options
	enter   chan struct{} // a slot for each connection that asks the guard
	counts  counts
}

var _ protocols.Protocol = (*Protocol)(nil)

// New makes the adapter. Options that Validate refuses are a bug of the caller.
func New(o Options) *Protocol {
	o = o.withDefaults()
	return &Protocol{options: o, enter: make(chan struct{}, o.Entering)}
}

// Name is "mqtt".
func (p *Protocol) Name() string { return "mqtt" }

// Open starts a connection.
func (p *Protocol) Open(l protocols.Link, b *core.Broker) protocols.Handler {
	return newConn(p, l, b)
}

// Sniff knows a CONNECT by its type and the name of the protocol, within 12
// bytes: 10, a remaining length of one to four bytes, 00 04 MQTT or 00 06
// MQIsdp.
func (p *Protocol) Sniff(prefix []byte) protocols.Match {
	if len(prefix) == 0 {
		return protocols.NeedMore
	}
	if prefix[0] != byte(typeConnect)<<4 {
		return protocols.NoMatch
	}
	_, used, ok := uvarint(prefix[1:])
	if !ok {
		return protocols.NoMatch
	}
	if used == 0 {
		return protocols.NeedMore
	}
	rest := prefix[1+used:]
	best := protocols.NoMatch
	for _, name := range [...]string{"\x00\x04MQTT", "\x00\x06MQIsdp"} {
		switch {
		case bytes.HasPrefix(rest, []byte(name)):
			return protocols.IsMatch
		case len(rest) < len(name) && name[:len(rest)] == string(rest):
			best = protocols.NeedMore
		}
	}
	if best == protocols.NeedMore && len(prefix) >= 12 {
		return protocols.NoMatch
	}
	return best
}

// counts are what happened and has no other trace.
type counts struct {
	refusedQoS0   atomic.Uint64 // publishes of QoS 0 that were refused
	refusedV3     atomic.Uint64 // publishes that 3.1.1 has no word to refuse
	ignoredRetain atomic.Uint64 // RETAIN on a name that keeps nothing
	backlogFull   atomic.Uint64 // live deliveries dropped: the client owes too many acks
	tooLarge      atomic.Uint64 // deliveries above the client's Maximum Packet Size
	nameless      atomic.Uint64 // deliveries whose key is no topic name
	expired       atomic.Uint64 // deliveries past their time
	unknownID     atomic.Uint64 // acknowledgements of unknown packet ids
	panics        atomic.Uint64 // of the decoder: each a bug
}

// Counters is a snapshot of what the adapter counts, by name.
func (p *Protocol) Counters() map[string]uint64 {
	return map[string]uint64{
		"refused_qos0":   p.counts.refusedQoS0.Load(),
		"refused_v3":     p.counts.refusedV3.Load(),
		"ignored_retain": p.counts.ignoredRetain.Load(),
		"backlog_full":   p.counts.backlogFull.Load(),
		"too_large":      p.counts.tooLarge.Load(),
		"nameless":       p.counts.nameless.Load(),
		"expired":        p.counts.expired.Load(),
		"unknown_id":     p.counts.unknownID.Load(),
		"decode_panics":  p.counts.panics.Load(),
	}
}
