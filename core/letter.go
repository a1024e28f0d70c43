package core

import (
	"slices"
	"strconv"
)

// Headers of a dead letter. What the publisher called so is replaced.
const (
	HeaderDeadReason   = "dead-reason"   // rejected, expired, overflow, max_attempts
	HeaderDeadQueue    = "dead-queue"    // where it died: q/orders
	HeaderDeadAddress  = "dead-address"  // where it was published first: t/plant/7/temp
	HeaderDeadAttempts = "dead-attempts" // how often that queue had delivered it
	HeaderDeadCount    = "dead-count"    // how often it has died
	HeaderDeadArrived  = "dead-arrived"  // when it was published first, unix ms
	HeaderDeadText     = "dead-text"     // what its reader said, if it said something
)

var deadHeaders = []string{
	HeaderDeadReason, HeaderDeadQueue, HeaderDeadAddress, HeaderDeadAttempts, HeaderDeadCount, HeaderDeadArrived, HeaderDeadText,
}

// maxDeaths is how often a message may die: dead letters can go in a circle.
const maxDeaths = 16

// letter makes the message that arrives elsewhere: a dead letter, or one that
// is alive again. It returns nil if it has died too often.
func (q *queue) letter(d *dying, to Address) *Message {
	old := d.entry.message
	m := &Message{
		Address: old.Address, From: old.From, QoS: old.QoS, Priority: old.Priority, UTF8: old.UTF8,
		Key: old.Key, Body: old.Body, Arrived: q.env.now,
	}
	if to.Exchange != DefaultExchange {
		m.Address = to
	}
	m.Headers = slices.DeleteFunc(slices.Clone(old.Headers), func(h Header) bool { return slices.Contains(deadHeaders, h.Name) })
	if d.by != nil {
		q.revive(m, old, d)
		return m
	}
	deaths := deathsOf(old) + 1
	if deaths > maxDeaths {
		return nil
	}
	add := func(name, value string) { m.Headers = append(m.Headers, Header{name, value}) }
	add(HeaderDeadReason, d.why.String())
	add(HeaderDeadQueue, Address{Exchange: DefaultExchange, Topic: q.ref.name}.String())
	add(HeaderDeadAddress, firstOf(old, HeaderDeadAddress, old.Address.String()))
	add(HeaderDeadAttempts, strconv.Itoa(int(d.entry.attempts)))
	add(HeaderDeadCount, strconv.Itoa(deaths))
	add(HeaderDeadArrived, firstOf(old, HeaderDeadArrived, strconv.FormatInt(old.Arrived.UnixMilli(), 10)))
	if d.text != "" {
		add(HeaderDeadText, d.text)
	}
	return m
}

// revive makes a moved message what it was: a plain move changes nothing of it,
// one back to where it died gives its address back and keeps only how often it
// has died.
func (q *queue) revive(m, old *Message, d *dying) {
	if d.by.to != nil {
		m.Headers, m.Expires, m.Address = old.Headers, old.Expires, old.Address
		return
	}
	if a, err := ParseAddress(q.vhost, firstOf(old, HeaderDeadAddress, "")); err == nil && !a.namesNothing() {
		m.Address = a
	}
	if n := deathsOf(old); n > 0 {
		m.Headers = append(m.Headers, Header{HeaderDeadCount, strconv.Itoa(n)})
	}
}

func firstOf(m *Message, name, otherwise string) string {
	if v, ok := m.Header(name); ok {
		return v
	}
	return otherwise
}

func deathsOf(m *Message) int {
	n, _ := strconv.Atoi(firstOf(m, HeaderDeadCount, "0"))
	return max(n, 0)
}
