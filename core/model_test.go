package core_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/godwitmq/godwit/core"
)

// A queueModel is what anybody may expect of a queue with any settings, kept
// beside a real one through readers that come and go, settle in all ways and
// sleep, on a disk that syncs late, fills and loses power.
//
// mission: S1 S27 S30 S33 S34 S45, P1 P6 P7 P8
func TestQueueModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newQueueModel(t, r)
		r.Repeat(map[string]func(*rapid.T){
			"publish": m.publish,
			"join":    m.join,
			"leave":   m.leave,
			"ack":     m.ack,
			"nack":    m.nack,
			"time":    m.time,
			"sync":    m.sync,
			"full":    m.fill,
			"power":   m.power,
			"":        m.look,
		})
		m.heal(r)
	})
}

type queueModel struct {
	*box
	spec    core.QueueSpec
	pub     *client
	sent    []*letter
	readers []*modelReader
	last    map[string]int // level, or level and key => newest first delivery of an earlier look
	newest  map[string]int // and of this one
	token   uint64
	asked   map[uint64]*letter // acks that are owed an answer
}

// A letter is what is known of one message.
type letter struct {
	n                  int
	priority           uint8
	key                string
	confirmed, refused bool
	holder             *modelReader // has it now
	until              time.Time    // and its lease
	attempts           int          // deliveries, as far as is known
	crashed            bool         // since the last delivery: the count may be behind
	acked, settled     bool         // an ack was given; and answered
	dead               bool         // a reader has said so
}

type modelReader struct {
	*client
	held []core.Event
	last map[string]int
}

func newQueueModel(t *testing.T, r *rapid.T) *queueModel {
	m := &queueModel{last: make(map[string]int), newest: make(map[string]int), asked: make(map[uint64]*letter), token: 1 << 30}
	m.spec = core.QueueSpec{
		Name: "q", DeadLetter: "q/dead",
		Priorities:   rapid.SampledFrom([]int{0, 3}).Draw(r, "priorities"),
		Keyed:        rapid.Bool().Draw(r, "keyed"),
		SingleActive: rapid.IntRange(0, 3).Draw(r, "single") == 0,
		MaxAttempts:  rapid.SampledFrom([]int{0, 3}).Draw(r, "attempts"),
		Lease:        rapid.SampledFrom([]time.Duration{0, 10 * time.Second}).Draw(r, "lease"),
		Backoff:      rapid.SampledFrom([]string{"", "2s-8s"}).Draw(r, "backoff"),
	}
	m.box = newBox(t, core.Options{Seed: 1, Window: rapid.SampledFrom([]int64{0, 1}).Draw(r, "window")})
	m.pub, _ = m.connect(core.SessionSpec{Unanswered: 1000})
	m.pub.mustApply(with(m.spec), queueNamed("dead"))
	m.disk.Hold()
	return m
}

func (m *queueModel) publish(r *rapid.T) {
	l := &letter{
		n: len(m.sent), priority: uint8(rapid.IntRange(0, 3).Draw(r, "priority")),
		key: rapid.SampledFrom([]string{"", "a", "b"}).Draw(r, "key"),
	}
	msg := message(queueOf("q"), 1, fmt.Sprint(l.n))
	msg.Priority, msg.Key = l.priority, l.key
	if m.pub.Publish(msg, uint64(l.n+1)) != nil {
		return // it has to wait
	}
	m.sent = append(m.sent, l)
	m.b.Step()
}

func (m *queueModel) join(r *rapid.T) {
	if len(m.readers) == 4 {
		r.Skip("enough")
	}
	m.disk.Resume()
	w := &modelReader{client: m.worker(core.Sub{Credit: core.Credit{Messages: int64(rapid.IntRange(1, 5).Draw(r, "credit")), Auto: true}}, "q"), last: make(map[string]int)}
	m.readers = append(m.readers, w)
	m.settle()
	m.disk.Hold()
}

func (m *queueModel) leave(r *rapid.T) {
	w := m.reader(r)
	m.look(r)
	w.Close(core.Closing{})
	m.readers = slices.DeleteFunc(m.readers, func(o *modelReader) bool { return o == w })
	for _, l := range m.sent {
		if l.holder == w {
			l.holder = nil
		}
	}
	m.b.Step()
}

func (m *queueModel) reader(r *rapid.T) *modelReader {
	if len(m.readers) == 0 {
		r.Skip("nobody")
	}
	return rapid.SampledFrom(m.readers).Draw(r, "reader")
}

// take takes something out of a reader's hands.
func (m *queueModel) take(r *rapid.T) (*modelReader, core.Event, *letter) {
	w := m.reader(r)
	if len(w.held) == 0 {
		r.Skip("nothing held")
	}
	i := rapid.IntRange(0, len(w.held)-1).Draw(r, "which")
	e := w.held[i]
	w.held = slices.Delete(w.held, i, i+1)
	return w, e, m.sent[number(e)]
}

func (m *queueModel) ack(r *rapid.T) {
	w, e, l := m.take(r)
	valid := l.holder == w && int(e.Tag.Attempt) == l.attempts && !m.late(l)
	if valid {
		l.acked = true
	}
	if rapid.Bool().Draw(r, "answered") {
		m.token++
		if valid {
			m.asked[m.token] = l
		}
		if err := w.Submit([]core.Op{{Ack: []core.Tag{e.Tag}}}, m.token); err != nil {
			r.Fatal(err)
		}
	} else {
		w.Ack(e.Tag)
	}
	if valid {
		l.holder = nil
	}
	m.b.Step()
}

func (m *queueModel) nack(r *rapid.T) {
	w, e, l := m.take(r)
	back := core.Back{Dead: rapid.IntRange(0, 3).Draw(r, "dead") == 0}
	if l.holder == w && int(e.Tag.Attempt) == l.attempts {
		l.dead = l.dead || back.Dead
		l.holder = nil
	}
	w.Nack(back, e.Tag)
	m.b.Step()
}

// late says that a lease may be over: who acks now may come too late.
func (m *queueModel) late(l *letter) bool { return !l.until.IsZero() && !m.now.Before(l.until) }

func (m *queueModel) time(r *rapid.T) {
	m.look(r)
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 12).Draw(r, "seconds")) * time.Second)
	m.b.Tick(m.now)
	for _, l := range m.sent {
		if l.holder != nil && m.late(l) {
			l.holder = nil
		}
	}
	m.b.Step()
}

func (m *queueModel) sync(*rapid.T) { m.disk.Sync(); m.b.Step() }

func (m *queueModel) fill(r *rapid.T) { m.disk.SetFull(rapid.Bool().Draw(r, "full")) }

// power goes off and on: nobody holds anything, and what was not answered is
// unknown.
func (m *queueModel) power(r *rapid.T) {
	m.look(r)
	m.disk.SetFull(false)
	m.cut()
	m.disk.Resume()
	m.settle()
	m.readers, m.asked = nil, make(map[uint64]*letter)
	for _, l := range m.sent {
		l.holder, l.until, l.crashed = nil, time.Time{}, true
	}
	m.pub, _ = m.connect(core.SessionSpec{Unanswered: 1000})
	m.disk.Hold()
}

// look takes what the broker said and compares it with what may be.
func (m *queueModel) look(r *rapid.T) {
	events, _ := m.pub.Events().Take(nil)
	for _, e := range events {
		if e.Kind == core.Confirmed && e.Token > 0 && int(e.Token) <= len(m.sent) {
			l := m.sent[e.Token-1]
			l.confirmed, l.refused = e.Err == nil, e.Err != nil
		}
	}
	for _, w := range m.readers {
		events, _ := w.Events().Take(nil)
		for _, e := range events {
			switch {
			case e.Kind == core.Delivered:
				m.delivered(r, w, e)
			case e.Kind == core.Confirmed && m.asked[e.Token] != nil:
				m.asked[e.Token].settled = e.Err == nil
				delete(m.asked, e.Token)
			}
		}
	}
	maps.Copy(m.last, m.newest)
}

func (m *queueModel) delivered(r *rapid.T, w *modelReader, e core.Event) {
	l := m.sent[number(e)]
	attempt := int(e.Tag.Attempt)
	switch {
	case l.settled:
		r.Fatalf("%d comes again, and its ack was answered", l.n)
	case l.refused:
		r.Fatalf("%d comes, and was refused", l.n)
	case l.holder != nil:
		r.Fatalf("%d comes to a second reader, and the first still has it", l.n)
	case l.attempts > 0 && attempt < 2:
		r.Fatalf("%d comes again and does not say so", l.n)
	case !l.crashed && attempt != l.attempts+1:
		r.Fatalf("%d comes as attempt %d after %d", l.n, attempt, l.attempts)
	case m.spec.MaxAttempts > 0 && attempt > m.spec.MaxAttempts:
		r.Fatalf("%d comes for the %d. time, %d is the most", l.n, attempt, m.spec.MaxAttempts)
	}
	if m.spec.Keyed && l.key != "" {
		for _, o := range m.sent {
			if o.key == l.key && o.holder != nil && o.holder != w {
				r.Fatalf("%d of key %s comes, and another reader has %d of it", l.n, l.key, o.n)
			}
		}
	}
	if m.spec.SingleActive && w != m.readers[0] {
		r.Fatalf("%d comes to a reader that stands by", l.n)
	}
	if attempt == 1 {
		line := fmt.Sprint(min(int(l.priority), max(m.spec.Priorities-1, 0)))
		if m.spec.Keyed {
			line += l.key + fmt.Sprint(l.key == "" && m.spec.Keyed)
		}
		for _, before := range []map[string]int{m.last, w.last} { // who looks cannot tell which of two readers was first
			if last, ok := before[line]; ok && l.n < last {
				r.Fatalf("%d comes first after %d", l.n, last)
			}
		}
		w.last[line] = l.n
		m.newest[line] = max(m.newest[line], l.n)
	}
	l.attempts, l.crashed, l.holder, l.until = attempt, false, w, time.Time{}
	if m.spec.Lease > 0 {
		l.until = m.now.Add(m.spec.Lease)
	}
	w.held = append(w.held, e)
}

// heal lets everything work again: what is owed is in the queue or among its
// dead letters, and in one of them alone.
func (m *queueModel) heal(r *rapid.T) {
	m.disk.SetFull(false)
	m.disk.Resume()
	m.settle()
	m.look(r)
	for _, w := range m.readers {
		w.Close(core.Closing{})
	}
	m.readers = nil
	m.settle()
	for range 3 {
		m.advance(20 * time.Second)
	}
	where := make(map[int]string)
	for _, q := range []string{"q", "dead"} {
		for _, e := range m.read(q) {
			n := int(number(e))
			if where[n] != "" {
				r.Fatalf("%d is in %s and in %s", n, where[n], q)
			}
			where[n] = q
		}
	}
	for _, l := range m.sent {
		switch is := where[l.n]; {
		case is == "" && (l.confirmed || l.attempts > 0) && !l.acked:
			r.Fatalf("%d is lost: %+v", l.n, *l)
		case is != "" && l.settled:
			r.Fatalf("%d is in %s, and its ack was answered", l.n, is)
		case is != "" && l.refused:
			r.Fatalf("%d is in %s, and was refused", l.n, is)
		case is == "dead" && !l.dead && m.spec.MaxAttempts == 0:
			r.Fatalf("%d is dead, and nobody said so", l.n)
		}
	}
}
