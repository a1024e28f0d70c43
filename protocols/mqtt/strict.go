package mqtt

import "github.com/mochi-mqtt/server/v2/packets"

// Where a property stands: a set of the packets a client sends.
type place uint16

const (
	inConnect place = 1 << iota
	inWill
	inPublish
	inAck // PUBACK, PUBREC, PUBREL, PUBCOMP
	inSubscribe
	inUnsubscribe
	inDisconnect
	inAuth
)

// shape is what the value of a property looks like.
type shape byte

const (
	shapeBool shape = iota + 1
	shapeUint16
	shapeUint32
	shapeVarint
	shapeText
	shapeBytes
	shapePair
)

// propertyRule says what a property looks like and where a client may send it.
type propertyRule struct {
	shape   shape
	in      place
	nonzero bool
}

// propertyRules is the one table, MQTT 5 section 2.2.2.2. What only a server
// sends is not in it.
var propertyRules = [64]propertyRule{
	packets.PropPayloadFormat:          {shapeBool, inPublish | inWill, false},
	packets.PropMessageExpiryInterval:  {shapeUint32, inPublish | inWill, false},
	packets.PropContentType:            {shapeText, inPublish | inWill, false},
	packets.PropResponseTopic:          {shapeText, inPublish | inWill, false},
	packets.PropCorrelationData:        {shapeBytes, inPublish | inWill, false},
	packets.PropSubscriptionIdentifier: {shapeVarint, inSubscribe, true},
	packets.PropSessionExpiryInterval:  {shapeUint32, inConnect | inDisconnect, false},
	packets.PropAuthenticationMethod:   {shapeText, inConnect | inAuth, false},
	packets.PropAuthenticationData:     {shapeBytes, inConnect | inAuth, false},
	packets.PropRequestProblemInfo:     {shapeBool, inConnect, false},
	packets.PropWillDelayInterval:      {shapeUint32, inWill, false},
	packets.PropRequestResponseInfo:    {shapeBool, inConnect, false},
	packets.PropReasonString:           {shapeText, inAck | inDisconnect | inAuth, false},
	packets.PropReceiveMaximum:         {shapeUint16, inConnect, true},
	packets.PropTopicAliasMaximum:      {shapeUint16, inConnect, false},
	packets.PropTopicAlias:             {shapeUint16, inPublish, false}, // 0 has a code of its own
	packets.PropUser:                   {shapePair, inConnect | inWill | inPublish | inAck | inSubscribe | inUnsubscribe | inDisconnect | inAuth, false},
	packets.PropMaximumPacketSize:      {shapeUint32, inConnect, true},
}

// A property is one property where it lies in the frame.
type property struct {
	id    byte
	num   uint32
	name  []byte // of a user property
	bytes []byte
}

// A walker goes through the properties of one packet and never past their
// declared length.
type walker struct {
	cursor cursor
	in     place
	seen   uint64 // by id
	users  int
	limits *Options
}

// walk reads the length of the properties off c and returns a walker for them.
func walk(c *cursor, in place, limits *Options) (walker, *fault) {
	n := c.uvarint()
	b := c.take(n)
	if c.bad {
		return walker{}, malformed("the properties are longer than the packet")
	}
	if n > limits.PropertiesMax {
		return walker{}, &fault{codeQuotaExceeded, "the properties are larger than the server takes"}
	}
	return walker{cursor: cursor{b: b}, in: in, limits: limits}, nil
}

func (w *walker) more() bool { return len(w.cursor.b) > 0 }

// next reads one property. It is a protocol error to send one where it does
// not belong or, but for user properties, twice.
func (w *walker) next() (p property, f *fault) {
	c := &w.cursor
	p.id = c.byte() // a variable byte integer, of which all known ones have one byte
	if p.id >= byte(len(propertyRules)) || propertyRules[p.id].shape == 0 {
		return p, malformed("an unknown property")
	}
	rule := &propertyRules[p.id]
	if rule.in&w.in == 0 {
		if p.id == packets.PropSubscriptionIdentifier && w.in == inPublish {
			return p, violation("a subscription identifier in a PUBLISH") // [MQTT-3.3.4-6]
		}
		return p, malformed("a property that does not belong into this packet") // MQTT 5, 2.2.2.2
	}
	if bit := uint64(1) << p.id; rule.shape != shapePair {
		if w.seen&bit != 0 {
			return p, violation("a property that is there twice")
		}
		w.seen |= bit
	} else if w.users++; w.users > w.limits.UserPropertiesMax {
		return p, &fault{codeQuotaExceeded, "more user properties than the server takes"}
	}
	switch rule.shape {
	case shapeBool:
		p.num = uint32(c.byte())
	case shapeUint16:
		p.num = uint32(c.uint16())
	case shapeUint32:
		p.num = c.uint32()
	case shapeVarint:
		p.num = uint32(c.uvarint())
	case shapeText:
		p.bytes = c.text()
	case shapeBytes:
		p.bytes = c.bytes()
	case shapePair:
		p.name, p.bytes = c.text(), c.text() // [MQTT-1.5.7-1]
	}
	switch {
	case c.bad:
		return p, malformed("a property runs past its end or is not UTF-8")
	case rule.shape == shapeBool && p.num > 1, rule.nonzero && p.num == 0:
		return p, violation("a property whose value is out of its range")
	}
	return p, nil
}

// checkProperties walks through all properties at c.
func checkProperties(c *cursor, in place, limits *Options) *fault {
	w, f := walk(c, in, limits)
	for f == nil && w.more() {
		_, f = w.next()
	}
	return f
}

// checkConnect says whether a CONNECT is one, field by field, before mochi
// reads it. The name and level of the protocol are checked already.
func checkConnect(body []byte, version byte, limits *Options) *fault {
	c := &cursor{b: body}
	c.bytes()
	c.byte()
	flags := c.byte()
	c.uint16()
	will, user, password := flags&4 != 0, flags&0x80 != 0, flags&0x40 != 0
	switch {
	case flags&1 != 0:
		return malformed("the reserved connect flag is set") // [MQTT-3.1.2-3]
	case flags>>3&3 == 3:
		return malformed("a will with QoS 3") // [MQTT-3.1.2-12]
	case !will && flags&0x38 != 0:
		return malformed("will QoS or will retain without a will") // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
	case version < 5 && password && !user:
		return malformed("a password without a user name") // [3.1.1: MQTT-3.1.2-22]
	}
	if version == 5 {
		if f := checkProperties(c, inConnect, limits); f != nil {
			return f
		}
	}
	c.text() // [MQTT-3.1.3-3] [MQTT-3.1.3-4]
	if will {
		if version == 5 {
			if f := checkProperties(c, inWill, limits); f != nil {
				return f
			}
		}
		c.text() // [MQTT-3.1.3-11]
		c.bytes()
	}
	if user {
		c.text() // [MQTT-3.1.3-12]
	}
	if password {
		c.bytes()
	}
	if c.bad || len(c.b) > 0 {
		return malformed("the fields of the CONNECT do not add up to its length") // [MQTT-3.1.4-1]
	}
	return nil
}

// checkSubscribe says whether each filter has its options, and none of the
// bits and values that are reserved.
func checkSubscribe(body []byte, version byte, limits *Options) *fault {
	c := &cursor{b: body}
	if id := c.uint16(); id == 0 && !c.bad {
		return violation("packet id 0") // [MQTT-2.2.1-3]
	}
	if version == 5 {
		if f := checkProperties(c, inSubscribe, limits); f != nil {
			return f
		}
	}
	if c.bad {
		return malformed("the SUBSCRIBE ends too early")
	}
	if len(c.b) == 0 {
		return violation("no filter at all") // [MQTT-3.8.3-2]
	}
	for len(c.b) > 0 {
		filter := c.text() // [MQTT-3.8.3-1]
		options := c.byte()
		if c.bad {
			return malformed("a filter without its options, or not UTF-8")
		}
		if f := checkOptions(filter, options, version); f != nil {
			return f
		}
	}
	return nil
}

func checkOptions(filter []byte, options, version byte) *fault {
	switch {
	case options&3 == 3:
		return malformed("QoS 3")
	case version == 5 && options&0xc0 != 0, version < 5 && options&0xfc != 0:
		return malformed("reserved bits of the subscription options are set") // [MQTT-3.8.3-5] [3.1.1: MQTT-3-8.3-4]
	case version == 5 && options>>4&3 == 3:
		return violation("Retain Handling 3")
	case version == 5 && options&4 != 0 && isShared(string(filter)):
		return violation("No Local on a shared subscription") // [MQTT-3.8.3-4]
	}
	return nil
}

// checkUnsubscribe says whether an UNSUBSCRIBE holds filters and nothing else.
func checkUnsubscribe(body []byte, version byte, limits *Options) *fault {
	c := &cursor{b: body}
	if id := c.uint16(); id == 0 && !c.bad {
		return violation("packet id 0") // [MQTT-2.2.1-3]
	}
	if version == 5 {
		if f := checkProperties(c, inUnsubscribe, limits); f != nil {
			return f
		}
	}
	if c.bad {
		return malformed("the UNSUBSCRIBE ends too early")
	}
	if len(c.b) == 0 {
		return violation("no filter at all") // [MQTT-3.10.3-2]
	}
	for len(c.b) > 0 && !c.bad {
		c.text() // [MQTT-3.10.3-1]
	}
	if c.bad {
		return malformed("a filter that runs past the packet, or is not UTF-8")
	}
	return nil
}

// readDisconnect reads a DISCONNECT by itself: mochi takes one of a single
// byte for reason 0, and the will would be lost. Bytes after it are ignored.
func readDisconnect(body []byte, version byte, limits *Options) (code byte, expiry *uint32, f *fault) {
	if version < 5 {
		if len(body) > 0 {
			return 0, nil, malformed("a DISCONNECT with a body")
		}
		return 0, nil, nil
	}
	if len(body) == 0 {
		return 0, nil, nil
	}
	c := &cursor{b: body}
	code = c.byte()
	if len(c.b) == 0 {
		return code, nil, nil
	}
	w, f := walk(c, inDisconnect, limits)
	for f == nil && w.more() {
		var p property
		if p, f = w.next(); f == nil && p.id == packets.PropSessionExpiryInterval {
			expiry = &p.num
		}
	}
	if f == nil && len(c.b) > 0 {
		f = malformed("bytes after the properties of a DISCONNECT")
	}
	return code, expiry, f
}

// readAck reads PUBACK, PUBREC, PUBREL or PUBCOMP: an id and, in MQTT 5, a
// reason that may be left out.
func readAck(body []byte, version byte, limits *Options) (id uint16, code byte, f *fault) {
	c := &cursor{b: body}
	id = c.uint16()
	if version == 5 && len(c.b) > 0 {
		code = c.byte()
		if len(c.b) > 0 {
			if f := checkProperties(c, inAck, limits); f != nil {
				return 0, 0, f
			}
		}
	}
	switch {
	case c.bad || len(c.b) > 0:
		return 0, 0, malformed("an acknowledgement of the wrong length")
	case id == 0:
		return 0, 0, violation("packet id 0")
	}
	return id, code, nil
}
