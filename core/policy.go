package core

import (
	"strings"
	"time"
)

// A Policy gives settings to queues by their names: what a queue's own
// declaration leaves at its default. Several may match; the first that says
// something of a setting counts. It holds for queues that are there already as
// well, from the next start on.
type Policy struct {
	Match string // "*" stands for anything. One that does not begin with $ is not for the broker's own queues

	MaxMessages int64
	MaxBytes    int64
	Overflow    Overflow
	TTL         time.Duration
	MaxAttempts int
	Backoff     string
	Lease       time.Duration
	DeadLetter  string // not of the queue that it names
	IdleExpiry  time.Duration
	DedupWindow time.Duration
}

// Check says what of the policy cannot be.
func (p *Policy) Check() error {
	if p.Match == "" {
		return Errorf(CodeBadValue, "a policy needs match: the name of a queue, with * for anything")
	}
	if err := CheckTopic(p.Match); err != nil {
		return err
	}
	return checkSettings(p.over(QueueSpec{}))
}

// matches says whether a queue's name is meant.
func (p *Policy) matches(name string) bool {
	if ReservedName(name) != ReservedName(p.Match) {
		return false
	}
	parts := strings.Split(p.Match, "*")
	if len(parts) == 1 {
		return name == p.Match
	}
	rest, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, parts[last])
}

// over is a spec with the policy's settings where it has none.
func (p *Policy) over(q QueueSpec) *QueueSpec {
	or(&q.MaxMessages, p.MaxMessages)
	or(&q.MaxBytes, p.MaxBytes)
	or(&q.Overflow, p.Overflow)
	or(&q.TTL, p.TTL)
	or(&q.MaxAttempts, p.MaxAttempts)
	or(&q.Backoff, p.Backoff)
	or(&q.Lease, p.Lease)
	or(&q.IdleExpiry, p.IdleExpiry)
	or(&q.DedupWindow, p.DedupWindow)
	if p.DeadLetter != (Address{Exchange: DefaultExchange, Topic: q.Name}).String() {
		or(&q.DeadLetter, p.DeadLetter)
	}
	return &q
}

func or[T comparable](to *T, value T) {
	var none T
	if *to == none {
		*to = value
	}
}

// ruled is a spec as the policies leave it. A full queue that should send what
// it has no room for to dead letters, and has none, refuses it.
func ruled(q QueueSpec, policies []Policy) QueueSpec {
	for i := range policies {
		if policies[i].matches(q.Name) {
			q = *policies[i].over(q)
		}
	}
	if q.Overflow == DeadLetter && q.DeadLetter == "" {
		q.Overflow = RejectNew
	}
	return q
}

// checkSettings says what of a queue's settings cannot be.
func checkSettings(q *QueueSpec) error {
	if err := checkGrave(q); err != nil {
		return err
	}
	if _, err := parseBackoff(q.Backoff); err != nil {
		return err
	}
	switch {
	case q.Priorities < 0 || q.Priorities > 10:
		return Errorf(CodeBadValue, "priorities=%d: a queue has 2 to 10 levels", q.Priorities)
	case q.MaxWait > 0 && q.Priorities < 2:
		return Errorf(CodeBadValue, "max_wait needs priorities=: without levels nothing overtakes")
	case q.MaxAttempts < 0 || q.MaxAttempts > 1<<15:
		return Errorf(CodeBadValue, "max_attempts=%d: the limit is %d", q.MaxAttempts, 1<<15)
	case q.MaxMessages < 0, q.MaxBytes < 0:
		return Errorf(CodeBadValue, "a limit below 0: leave it out for none")
	}
	return checkLapses(q)
}

// checkLapses sees to it that every protocol can say a queue's durations, and
// so declare it as it is.
func checkLapses(q *QueueSpec) error {
	for _, l := range [...]struct {
		name  string
		value time.Duration
	}{
		{"ttl", q.TTL},
		{"lease", q.Lease},
		{"idle_expiry", q.IdleExpiry},
		{"max_wait", q.MaxWait},
		{"dedup_window", q.DedupWindow},
	} {
		switch {
		case l.value < 0:
			return Errorf(CodeBadValue, "%s below 0: leave it out for none", l.name)
		case l.value > maxDelay:
			return Errorf(CodeBadValue, "%s: 366 days at most", l.name)
		case l.value%time.Millisecond != 0:
			return Errorf(CodeBadValue, "%s=%v: want whole milliseconds", l.name, l.value)
		}
	}
	return nil
}

// checkGrave says whether a queue can have such dead letters.
func checkGrave(spec *QueueSpec) *Error {
	if spec.DeadLetter == "" {
		if spec.Overflow == DeadLetter {
			return Errorf(CodeBadValue, "overflow=dead_letter needs dead_letter=: where the dead letters go")
		}
		return nil
	}
	a, err := ParseAddress("/", spec.DeadLetter)
	switch {
	case err != nil:
		return AsError(err)
	case a.namesNothing() || a.Exchange == StreamExchange || a.Exchange == ReplyExchange:
		return Errorf(CodeBadValue, "dead_letter=%s: want q/QUEUE, t/TOPIC, x/EXCHANGE/KEY or x/EXCHANGE", spec.DeadLetter)
	case a.Exchange == TopicExchange && strings.ContainsAny(a.Topic, "+#"):
		return Errorf(CodeBadValue, "dead_letter=%s: a topic that is published to has no + or #", spec.DeadLetter)
	case a.Exchange == DefaultExchange && a.Topic == spec.Name:
		return Errorf(CodeBadValue, "queue %q cannot be its own dead letters", spec.Name)
	}
	return nil
}
