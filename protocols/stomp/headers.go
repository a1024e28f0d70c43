package stomp

import (
	"strconv"
	"time"

	"github.com/godwitmq/godwit/core"
)

// A field is what a header of SEND is.
type field uint8

// Fields of SEND. Of each the first header counts, except userField.
const (
	userField        field = iota // carried along, in order, repeats kept
	destinationField              // where to
	receiptField
	transactionField
	contentTypeField
	correlationField
	encodingField // how correlation-id is written
	replyToField
	expiresField    // absolute, unix ms
	expirationField // relative, ms
	priorityField
	persistentField
	qosField
	retainField
	keyField
	timestampField // carried as x-client-timestamp: the time of arrival is ours
	messageIDField // carried as x-client-message-id: the ids are ours
	queueField     // an argument for a queue that this SEND creates
	exchangeField  // of an exchange that this SEND declares
	reservedField  // of the protocol: never carried, so that nobody forges it
	delayField     // relative, ms
	deliverAtField // absolute, unix ms
	dedupField
	neverField // not supported
)

// fieldOf is the one table of SEND's headers.
func fieldOf(name []byte) field {
	switch string(name) {
	case "destination":
		return destinationField
	case "receipt":
		return receiptField
	case "transaction":
		return transactionField
	case core.HeaderContentType:
		return contentTypeField
	case core.HeaderCorrelationID:
		return correlationField
	case headerEncoding:
		return encodingField
	case core.HeaderReplyTo:
		return replyToField
	case "expires":
		return expiresField
	case "expiration":
		return expirationField
	case "priority":
		return priorityField
	case "persistent":
		return persistentField
	case "qos":
		return qosField
	case "retain":
		return retainField
	case "JMSXGroupID", "group-key":
		return keyField
	case "timestamp":
		return timestampField
	case "message-id":
		return messageIDField
	case "delay", "x-delay", "AMQ_SCHEDULED_DELAY":
		return delayField
	case "deliver-at", "AMQ_SCHEDULED_TIME":
		return deliverAtField
	case "dedup", "_AMQ_DUPL_ID":
		return dedupField
	case "AMQ_SCHEDULED_PERIOD", "AMQ_SCHEDULED_REPEAT", "AMQ_SCHEDULED_CRON":
		return neverField
	}
	if isQueueArgument(string(name)) {
		return queueField
	}
	if isExchangeArgument(string(name)) {
		return exchangeField
	}
	if isReserved(string(name)) {
		return reservedField
	}
	return userField
}

const headerEncoding = "correlation-id-encoding"

// isReserved knows the headers of the protocol that are no field of a message.
// One of another protocol's messages that is called so is shown as foreign-.
func isReserved(name string) bool {
	switch name {
	case "content-length", "receipt-id", "login", "passcode", "host", "accept-version", "version", "session", "server",
		"heart-beat", "id", "ack", "subscription", "message", "redelivered", "browser", "code",
		"x-delivery-count", "x-stream-offset",
		"destination", "receipt", "transaction", "message-id":
		return true
	}
	return false
}

// isQueueArgument knows the headers that describe a queue which does not exist.
func isQueueArgument(name string) bool {
	switch name {
	case "durable", "auto-delete", "exclusive", "x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes",
		"x-overflow", "x-dead-letter-exchange", "x-dead-letter-routing-key", "x-max-priority", "x-delivery-limit",
		"x-single-active-consumer", "x-queue-type", "x-max-age",
		"x-dead-letter", "x-backoff", "x-max-wait", "x-lease", "x-keyed":
		return true
	}
	return false
}

// Headers that describe an exchange: the first declares it, if it is not there.
const (
	exchangeType       = "x-exchange-type"
	exchangeDurable    = "x-exchange-durable"
	exchangeAutoDelete = "x-exchange-auto-delete"
	exchangeInternal   = "x-exchange-internal"
	exchangeAlternate  = "x-exchange-alternate"
)

func isExchangeArgument(name string) bool {
	switch name {
	case exchangeType, exchangeDurable, exchangeAutoDelete, exchangeInternal, exchangeAlternate:
		return true
	}
	return false
}

// exchangeSpec is the exchange that arguments declare.
func (h *handler) exchangeSpec(name string, args []argument) (*core.ExchangeSpec, error) {
	x := &core.ExchangeSpec{Name: name}
	typed := false
	for _, a := range args {
		if err := h.setExchange(x, a.name, a.value); err != nil {
			return nil, err
		}
		typed = typed || a.name == exchangeType
	}
	if !typed {
		return nil, core.Errorf(core.CodeBadValue, "header %s: it describes an exchange together with %s", args[0].name, exchangeType)
	}
	return x, nil
}

func (h *handler) setExchange(x *core.ExchangeSpec, name, value string) (err error) {
	var yes bool
	switch name {
	case exchangeType:
		x.Kind, err = exchangeKind(name, value)
	case exchangeDurable:
		yes, err = boolean(name, value)
		x.Transient = !yes
	case exchangeAutoDelete:
		x.AutoDelete, err = boolean(name, value)
	case exchangeInternal:
		x.Internal, err = boolean(name, value)
	case exchangeAlternate:
		var p place
		if p, err = h.names.target(value); err == nil {
			x.Alternate = p.at.String()
		}
	}
	return err
}

func exchangeKind(name, value string) (core.ExchangeKind, error) {
	for k := core.TopicKind; k <= core.HeadersKind; k++ {
		if k.String() == value {
			return k, nil
		}
	}
	return 0, badValue(name, value, "direct, fanout, topic or headers")
}

// bindingMatch says how the arguments of a headers exchange count; each is a
// header that begins with bindingArgument.
const (
	bindingMatch    = "x-match"
	bindingArgument = "x-match-"
)

func readMatch(name, value string) (core.Match, error) {
	for m := core.MatchAll; m <= core.MatchAnyWithX; m++ {
		if m.String() == value {
			return m, nil
		}
	}
	return 0, badValue(name, value, "all, any, all-with-x or any-with-x")
}

// setArgument puts one queue argument into a spec.
func setArgument(q *core.QueueSpec, name, value string) (err error) {
	var yes bool
	switch name {
	case "durable", "persistent":
		if yes, err = boolean(name, value); err == nil && !yes {
			q.Class = core.Memory
		}
	case "auto-delete":
		q.AutoDelete, err = boolean(name, value)
	case "exclusive":
		q.Owned, err = boolean(name, value)
	case "x-single-active-consumer":
		q.SingleActive, err = boolean(name, value)
	case "x-message-ttl":
		q.TTL, err = milliseconds(name, value)
	case "x-expires":
		q.IdleExpiry, err = milliseconds(name, value)
	case "x-max-length":
		q.MaxMessages, err = count(name, value)
	case "x-max-length-bytes":
		q.MaxBytes, err = count(name, value)
	case "x-max-priority":
		q.Priorities, err = small(name, value)
	case "x-delivery-limit":
		q.MaxAttempts, err = small(name, value)
	case "x-overflow":
		q.Overflow, err = overflow(name, value)
	case "x-queue-type":
		err = queueType(name, value)
	case "x-dead-letter-exchange", "x-dead-letter-routing-key":
		err = deadLetter(q, name, value)
	default:
		err = setOurs(q, name, value)
	}
	return err
}

// setOurs puts an argument into a spec that only we have.
func setOurs(q *core.QueueSpec, name, value string) (err error) {
	switch name {
	case "x-dead-letter":
		q.DeadLetter, err = canonical(name, value)
	case "x-backoff":
		q.Backoff = value
	case "x-max-wait":
		q.MaxWait, err = milliseconds(name, value)
	case "x-lease":
		q.Lease, err = milliseconds(name, value)
	case "x-keyed":
		q.Keyed, err = boolean(name, value)
	default:
		err = core.NotYet("header " + name)
	}
	return err
}

// canonical reads a destination as the core names it.
func canonical(name, value string) (string, error) {
	p, err := (&names{}).target(value)
	if err != nil {
		return "", badValue(name, value, "a destination")
	}
	return p.at.String(), nil
}

// deadLetter reads RabbitMQ's two headers, in any order: an exchange, whose
// name is empty where the key names a queue, and a key.
func deadLetter(q *core.QueueSpec, name, value string) error {
	a := core.Address{Exchange: core.DefaultExchange}
	switch known, err := core.ParseAddress("/", q.DeadLetter); {
	case err == nil:
		a = known
	case q.DeadLetter == "t/": // its key is still to come
		a.Exchange = core.TopicExchange
	}
	if name == "x-dead-letter-routing-key" {
		a.Topic = value
	} else if a.Exchange = value; value == "" {
		a.Exchange = core.DefaultExchange
	}
	if err := core.CheckName(a.Exchange); err != nil {
		return err
	}
	q.DeadLetter = a.String()
	return nil
}

func overflow(name, value string) (core.Overflow, error) {
	switch value {
	case "reject-publish":
		return core.RejectNew, nil
	case "drop-head":
		return core.DropOldest, nil
	case "reject-publish-dlx":
		return core.DeadLetter, nil
	}
	return 0, badValue(name, value, "reject-publish, drop-head or reject-publish-dlx")
}

func queueType(name, value string) error {
	switch value {
	case "classic", "quorum": // both are what a queue of ours is: on the disk before it is confirmed
		return nil
	case "stream":
		return core.NotYet("streams")
	}
	return badValue(name, value, "classic, quorum or stream")
}

func boolean(name, value string) (bool, error) {
	switch value {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, badValue(name, value, "true or false")
}

func count(name, value string) (int64, error) {
	n, err := strconv.ParseUint(value, 10, 62)
	if err != nil {
		return 0, badValue(name, value, "a number")
	}
	return int64(n), nil
}

func small(name, value string) (int, error) {
	n, err := count(name, value)
	if err == nil && n > 1<<16 {
		err = badValue(name, value, "a number up to 65536")
	}
	return int(n), err
}

// maxSpan is the longest time that a header may name.
const maxSpan = 366 * 24 * time.Hour

func milliseconds(name, value string) (time.Duration, error) {
	n, err := count(name, value)
	if err == nil && n > maxSpan.Milliseconds() {
		err = badValue(name, value, "milliseconds, 366 days at most")
	}
	return time.Duration(n) * time.Millisecond, err
}
