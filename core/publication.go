package core

import (
	"sync"
	"sync/atomic"
)

// A Publication is a message under way, together with the answer owed to its
// publisher. Stages see it; whoever takes it settles its part.
type Publication struct {
	message  *Message
	out      *Outbox // where the publisher waits for its answer; also who it is, for No Local
	place    uint64  // in out, if answered
	answered bool    // an answer is owed
	targets  uint64
	key      string       // id of the publisher's session
	owed     atomic.Int32 // targets that have not settled yet
	failed   atomic.Pointer[Error]
	group    *together // of a Submit
	number   uint64    // of its producer, if it has one
	recorder *Recorder
	lane     *Lane
	passed   bool // its stages are done with it; the lane's lock guards it
	refused  *Error
	then     Then
	behind   *Publication // in the lane
}

// together is a Submit under way: ops that are answered as one.
type together struct {
	out     *Outbox
	token   uint64
	place   uint64
	ordered bool // it has a place among the publishes
	targets uint64
	owed    atomic.Int32
	failed  atomic.Pointer[Error]
}

// Then is what follows a refusal.
type Then uint8

// What follows a refusal.
const (
	ThenAnswer     Then = iota // the publisher is told
	ThenSilent                 // the publisher is told that all is well
	ThenDisconnect             // the publisher is told, and evicted
)

// Message is the message as it is now.
func (p *Publication) Message() *Message { return p.message }

// Replace puts m in the place of the message; the old one is not written to.
func (p *Publication) Replace(m *Message) { p.message = m }

// Outbox is the publisher's.
func (p *Publication) Outbox() *Outbox { return p.out }

// Recorder is not nil when somebody asks why.
func (p *Publication) Recorder() *Recorder { return p.recorder }

// Together returns the publications of its transaction in order; alone, itself.
func (p *Publication) Together() []*Publication { return []*Publication{p} }

// Refuse settles the publication in its place.
func (p *Publication) Refuse(e *Error, then Then) {
	p.owed.Store(1)
	switch then {
	case ThenAnswer:
		p.settle(e)
	case ThenSilent:
		p.settle(nil)
	case ThenDisconnect:
		p.settle(e)
		if p.out != nil {
			p.out.put(Event{Kind: Evicted, Err: e})
		}
	}
}

// Also is an emitted message right behind this one.
func (p *Publication) Also(*Message) error { return NotYet("emitting messages") }

// Lane is the order of its session's publications.
func (p *Publication) Lane() *Lane { return p.lane }

// Next is what comes after a stage.
type Next func(p *Publication)

// A Lane keeps the order of one session's publications while stages hold some
// of them: what is done waits for what came before it.
type Lane struct {
	mu         sync.Mutex
	head, tail *Publication
	draining   bool
}

// Idle says whether nothing is under way: a publication that no stage wants
// may then pass by.
func (l *Lane) Idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head == nil && !l.draining
}

// Enter puts p at the end.
func (l *Lane) Enter(p *Publication) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tail == nil {
		l.head = p
	} else {
		l.tail.behind = p
	}
	l.tail = p
}

// Done says that the stages are through with p; e, if not nil, is their
// refusal. Whoever finds nobody draining calls next on the done ones at the
// front, in order and without the lock.
func (l *Lane) Done(p *Publication, e *Error, then Then, next Next) {
	l.mu.Lock()
	p.passed, p.refused, p.then = true, e, then
	if l.draining {
		l.mu.Unlock()
		return
	}
	l.draining = true
	for l.head != nil && l.head.passed {
		p := l.head
		if l.head = p.behind; l.head == nil {
			l.tail = nil
		}
		l.mu.Unlock()
		if p.refused != nil {
			p.Refuse(p.refused, p.then)
		} else {
			next(p)
		}
		l.mu.Lock()
	}
	l.draining = false
	l.mu.Unlock()
}

// settle is called once by each target, when the message is safe there or
// cannot be. The last one answers the publisher.
func (p *Publication) settle(err error) {
	if err != nil {
		p.failed.CompareAndSwap(nil, AsError(err))
	}
	if p.owed.Add(-1) > 0 {
		return
	}
	var failed error
	if e := p.failed.Load(); e != nil {
		failed = e
	}
	if p.group != nil {
		p.group.settle(failed)
		return
	}
	if p.answered {
		p.out.settle(p.place, p.targets, failed)
	}
}

// settle is called once by each op of a Submit.
func (t *together) settle(err error) {
	if err != nil {
		t.failed.CompareAndSwap(nil, AsError(err))
	}
	if t.owed.Add(-1) > 0 {
		return
	}
	var failed error
	if e := t.failed.Load(); e != nil {
		failed = e
	}
	if t.ordered {
		t.out.settle(t.place, t.targets, failed)
	} else if t.token != 0 {
		t.out.put(Event{Kind: Confirmed, Token: t.token, Err: failed})
	}
}

// A Recorder holds what a message met on its way. The way is the one that
// messages take: nobody matches twice, so explain cannot differ from it. A nil
// Recorder costs a nil check.
type Recorder struct{ Steps []Step }

// A Step is one thing the message met: a binding, a queue, a listener, a stage,
// a refusal.
type Step struct{ What, Name, Text string }

func (r *Recorder) add(what, name, text string) {
	if r != nil {
		r.Steps = append(r.Steps, Step{what, name, text})
	}
}
