package mqtt

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// The states of a connection.
const (
	opening        int32 = iota // CONNECT is awaited
	authenticating              // the guard and the session are asked; nothing else is read
	open
	closing // the last packet is written, or there is none
)

// Tokens of what core answers. A publish has sequence<<16 | packet id; the
// others have their kind in the highest bits.
const (
	tokenKind    uint64 = 0xf << 60
	tokenPublish uint64 = 0
	tokenOpen    uint64 = 1 << 60
	tokenQueue   uint64 = 2 << 60 // the session's queue is declared
	tokenConsume uint64 = 3 << 60 // and read
	tokenRelease uint64 = 4 << 60 // | packet id: a QoS 2 id is off the disk
	tokenStep    uint64 = 5 << 60 // | number of the step of a SUBSCRIBE or UNSUBSCRIBE
)

// maxReplies is how many bytes of answers may wait before we stop reading.
const maxReplies = 64 << 10

// A conn is one connection. What the reader and the flusher share is atomic or
// behind one of the small mutexes, each held for one operation and never
// across a call.
//
//	Receive -> frame -> verbs, replies
//	Deliver <- replies, then Confirmed and Delivered in their order
type conn struct {
	options *Options
	counts  *counts
	enter   chan struct{}
	link    protocols.Link
	broker  *core.Broker

	read time.Time // the reader's: the time of this Receive, if it was asked

	state   atomic.Int32
	heard   atomic.Bool // something came since the last Tick
	waiting atomic.Bool // we make the client wait: keep-alive stands still
	holding atomic.Bool // a publish of 3.1.1 that there is no room for: nothing more is read

	// Set before the state is open, and only read from then on.
	session    *core.Session
	version    byte
	bridge     bool // Mosquitto's: No Local and Retain As Published everywhere
	client     string
	expiry     time.Duration
	keepAlive  time.Duration
	clientMax  int // largest packet the client takes
	noProblems bool
	durable    bool // the session has a queue, or may get one
	connack    connack

	// The reader's.
	topics topics
	seq    uint64
	acks   []core.Tag // settled since the last Ack
	ahead  int        // bytes after the last ErrWait of which pings and acks are done

	// The flusher's.
	opened    time.Time
	lastHeard time.Time
	held      time.Time // since when nothing is read
	backlog   backlog
	matches   matches
	settling  []core.Tag // written with QoS 0, or dropped
	returning []core.Tag // of queues the client does not read any more
	reading   bool       // the session's queue is read
	released  int        // live deliveries written or dropped
	releasedB int64

	inbound  inbound
	outbound outbound
	subs     subscriptions

	mu         sync.Mutex
	replies    []byte // whole packets, the reader's answers
	wantRoom   bool   // the reader waits for them to go
	dropWill   bool
	newExpiry  *time.Duration
	sayGoodbye sync.Once
}

var (
	_ protocols.Handler = (*conn)(nil)
	_ protocols.Ahead   = (*conn)(nil)
)

func newConn(p *Protocol, l protocols.Link, b *core.Broker) *conn {
	now := b.Now()
	l.TickEvery(time.Second)
	return &conn{
		options: &p.options, counts: &p.counts, enter: p.enter, link: l, broker: b,
		opened: now, lastHeard: now, clientMax: largestPacket,
	}
}

// Receive takes whole packets off in.
func (c *conn) Receive(in []byte) (int, error) {
	c.heard.Store(true) // [MQTT-3.1.2-22]: any packet counts
	c.read = time.Time{}
	c.waiting.Store(false)
	n, err := c.receive(in)
	c.ahead = max(0, c.ahead-n)
	c.settleAcks()
	var f *fault
	switch {
	case errors.As(err, &f):
		err = c.fail(f)
	case errors.Is(err, core.ErrWait):
		c.waiting.Store(true)
	}
	c.wakeForReplies()
	return n, err
}

func (c *conn) receive(in []byte) (n int, err error) {
	for {
		if err := c.mayRead(); err != nil {
			return n, err
		}
		f, bad := cut(in[n:], c.limit())
		if bad != nil {
			if c.state.Load() == opening && f.size > 0 {
				_, used, _ := uvarint(in[1:])
				_ = c.readProtocol(in[1+used:]) // for the words of the refusal
			}
			return n, bad
		}
		if !f.whole(len(in) - n) {
			if f.size > 0 {
				c.link.Want(f.size)
			}
			return n, nil
		}
		if bad := checkFlags(&f, c.version); bad != nil {
			return n, bad
		}
		if err := c.handle(&f, n < c.ahead); err != nil {
			return n, err
		}
		n += f.size
	}
}

// mayRead says whether the next packet may be looked at.
func (c *conn) mayRead() error {
	switch c.state.Load() {
	case authenticating:
		return core.ErrWait // [MQTT-3.1.4-6]: kept until after CONNACK
	case closing:
		return &protocols.Close{Err: core.ErrClosed}
	}
	if c.holding.Load() {
		return core.ErrWait
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.replies) >= maxReplies {
		c.wantRoom = true
		return core.ErrWait
	}
	return nil
}

// limit is the largest packet taken now.
func (c *conn) limit() int {
	if c.state.Load() == opening {
		return c.options.ConnectPacketMax
	}
	return c.options.PacketMax
}

// handle does what a packet asks for. done means that it was looked at before:
// pings and acknowledgements are not taken twice.
func (c *conn) handle(f *frame, done bool) error {
	if c.state.Load() == opening {
		if f.kind() != typeConnect {
			return errors.New("the first packet is not CONNECT") // [MQTT-3.1.0-1]
		}
		return c.connect(f.body)
	}
	switch f.kind() {
	case typePublish:
		return c.publish(f)
	case typePubrel:
		return c.release(f)
	case typePuback, typePubrec, typePubcomp, typePingreq:
		if done {
			return nil
		}
		return c.acknowledge(f)
	case typeSubscribe:
		return c.subscribe(f.body)
	case typeUnsubscribe:
		return c.unsubscribe(f.body)
	case typeDisconnect:
		return c.disconnected(f.body)
	case typeConnect:
		return violation("a second CONNECT") // [MQTT-3.1.0-2]
	case typeAuth:
		if c.version < 5 {
			return malformed("AUTH does not exist before MQTT 5")
		}
		return violation("AUTH without an authentication method: not supported yet") // [MQTT-4.12.0-6]
	}
	return violation("a packet that only a server sends, or of a reserved type")
}

// acknowledge handles what never waits: PUBACK, PUBREC, PUBCOMP and PINGREQ.
func (c *conn) acknowledge(f *frame) error {
	if f.kind() == typePingreq {
		if len(f.body) > 0 {
			return malformed("a PINGREQ with a body")
		}
		c.replyBytes(byte(typePingresp)<<4, 0) // [MQTT-3.12.4-1]
		return nil
	}
	id, code, bad := readAck(f.body, c.version, c.options)
	if bad != nil {
		return bad
	}
	switch f.kind() {
	case typePuback:
		c.settled(id, code, sentQoS1)
	case typePubrec:
		if code >= 0x80 {
			c.settled(id, code, sentQoS2)
		} else {
			c.pubrec(id)
		}
	case typePubcomp:
		c.settled(id, 0, sentPubrel, latePubrel) // its 0x92 settles too
	}
	return nil
}

// settled ends a delivery as the client says.
func (c *conn) settled(id uint16, code byte, at ...sent) {
	tag, was := c.outbound.settle(id, at...)
	if was == sentDone {
		c.counts.unknownID.Add(1)
		return
	}
	switch {
	case tag == core.Tag{}:
	case code >= 0x80: // [MQTT-4.4.0-2]: never sent again
		c.session.Nack(core.Back{Dead: true, Text: "the client refused it"}, tag)
	default:
		c.acks = append(c.acks, tag)
	}
	if c.backlog.waits.Load() {
		c.link.Wake()
	}
}

func (c *conn) pubrec(id uint16) {
	if c.outbound.received(id) {
		c.replyAck(typePubrel, id, 0) // [MQTT-4.3.3-4]
		return
	}
	c.counts.unknownID.Add(1)
	c.replyAck(typePubrel, id, codeIDUnknown)
}

// Ahead looks at what was read beyond an ErrWait: pings are answered and
// acknowledgements taken, so that neither side starves the other.
func (c *conn) Ahead(in []byte) {
	if c.state.Load() != open {
		return
	}
	c.heard.Store(true)
	for n := 0; ; {
		f, bad := cut(in[n:], c.options.PacketMax)
		if bad != nil || !f.whole(len(in)-n) || checkFlags(&f, c.version) != nil {
			break // Receive will say what is wrong
		}
		if n >= c.ahead {
			switch f.kind() {
			case typePuback, typePubrec, typePubcomp, typePingreq:
				if c.repliesFull() || c.acknowledge(&f) != nil {
					c.settleAcks()
					c.wakeForReplies()
					return
				}
			}
			c.ahead = n + f.size
		}
		n += f.size
	}
	c.settleAcks()
	c.wakeForReplies()
}

func (c *conn) settleAcks() {
	if len(c.acks) > 0 {
		c.session.Ack(c.acks...)
		c.acks = nil // core may keep it
	}
}

func (c *conn) repliesFull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.replies) >= maxReplies
}

// disconnected handles the client's DISCONNECT.
func (c *conn) disconnected(body []byte) error {
	code, expiry, bad := readDisconnect(body, c.version, c.options)
	if bad != nil {
		return bad
	}
	if expiry != nil {
		if c.expiry == 0 && *expiry > 0 {
			return violation("a session that was to end with its connection cannot be kept") // MQTT 5, 3.14.2.2.2
		}
		d := c.sessionExpiry(*expiry)
		c.newExpiry = &d
	}
	if code != 0 && code != codeDisconnectWithWill && code < 0x80 {
		return violation("an unknown reason")
	}
	c.dropWill = code == 0 // [MQTT-3.1.2-10] [MQTT-3.14.4-3]
	c.state.Store(closing)
	return &protocols.Close{}
}

// now is the time of this Receive: all that it brings arrived at once. The
// clock a message was a fifteenth of the server's CPU at a fan-in.
func (c *conn) now() time.Time {
	if c.read.IsZero() {
		c.read = c.broker.Now()
	}
	return c.read
}

// resume ends the client's wait: its keep-alive runs again, whether or not it
// has more to say.
func (c *conn) resume() {
	c.waiting.Store(false)
	c.link.Resume()
}

// Tick keeps the clock of the connection.
func (c *conn) Tick(now time.Time) error {
	if c.heard.Swap(false) || c.waiting.Load() {
		c.lastHeard = now
	}
	switch c.state.Load() {
	case opening:
		if now.Sub(c.opened) >= c.options.ConnectTimeout {
			return errors.New("no CONNECT within " + c.options.ConnectTimeout.String())
		}
	case authenticating:
		if now.Sub(c.opened) >= 3*c.options.ConnectTimeout { // CONNECT, guard, disk
			return c.fail(&fault{codeUnavailable, "the session could not be opened in time"})
		}
	case open:
		return c.tickOpen(now)
	}
	return nil
}

func (c *conn) tickOpen(now time.Time) error {
	if c.holding.Load() {
		if c.held.IsZero() {
			c.held = now
		}
		if now.Sub(c.held) >= c.options.RefusalWait {
			return c.fail(&fault{codeQuotaExceeded, "no room for what the client publishes"})
		}
		return nil
	}
	if c.keepAlive > 0 && now.Sub(c.lastHeard) > c.keepAlive+c.keepAlive/2 { // [MQTT-3.1.2-22]
		return c.fail(&fault{codeKeepAlive, "nothing heard for one and a half times the keep-alive"})
	}
	return nil
}

// Closed is the last call.
func (c *conn) Closed(error) {
	c.state.Store(closing)
	if c.session == nil {
		return
	}
	closing := core.Closing{DropWill: c.dropWill, Expiry: c.newExpiry}
	if c.durable {
		closing.Residue = c.outbound.residue()
	}
	c.session.Close(closing)
}

// fail ends the connection from the reader or from Tick.
func (c *conn) fail(f *fault) error {
	c.farewell(f)
	return &protocols.Close{Err: f}
}

// bye ends the connection from Deliver.
func (c *conn) bye(f *fault) {
	c.farewell(f)
	c.link.Close(&protocols.Close{Err: f})
}

// farewell puts the last packet behind all answers: a CONNACK if there was
// none yet, a DISCONNECT in MQTT 5, nothing before [MQTT-3.14.0-1].
func (c *conn) farewell(f *fault) {
	c.sayGoodbye.Do(func() {
		var last []byte
		if was := c.state.Swap(closing); was == open {
			last = c.encodeDisconnect(f)
		} else if was != closing {
			last = c.encodeRefusal(f)
		}
		c.mu.Lock()
		c.replies = append(c.replies, last...)
		c.mu.Unlock()
	})
}

// reply queues a packet that Deliver writes.
func (c *conn) replyBytes(b ...byte) {
	c.mu.Lock()
	c.replies = append(c.replies, b...)
	c.mu.Unlock()
}

func (c *conn) replyAck(kind packetType, id uint16, code byte) {
	c.mu.Lock()
	c.replies = appendAck(c.replies, kind, c.version, id, code, "", c.clientMax)
	c.mu.Unlock()
}

func (c *conn) wakeForReplies() {
	c.mu.Lock()
	any := len(c.replies) > 0
	c.mu.Unlock()
	if any {
		c.link.Wake()
	}
}

// takeReplies appends the answers that have gathered.
func (c *conn) takeReplies(out []byte) []byte {
	c.mu.Lock()
	out = append(out, c.replies...)
	if c.replies = c.replies[:0]; cap(c.replies) > 4096 {
		c.replies = nil
	}
	resume := c.wantRoom
	c.wantRoom = false
	c.mu.Unlock()
	if resume {
		c.resume()
	}
	return out
}

// problem is a reason string, if the client wants to hear it [MQTT-3.1.2-29].
func (c *conn) problem(text string) string {
	if c.noProblems {
		return ""
	}
	return text
}

func (c *conn) publishToken(id uint16) uint64 {
	c.seq++
	return c.seq<<16&^tokenKind | uint64(id)
}

// holdBack stops reading: there is no room for a publish, and 3.1.1 has no word
// for that. The connection closes after a while and the client sends it again.
func (c *conn) holdBack() { c.holding.Store(true) }
