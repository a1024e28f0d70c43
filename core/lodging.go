package core

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// takeoverPatience is how long a new connection waits for the old one's state.
const takeoverPatience = time.Second

type sessionRecord struct {
	User, Client, Protocol string
	Expiry                 int64  // ms
	Parked                 int64  // unix ms; 0: was attached when written
	Residue                []byte `json:",omitempty"`
}

type closeRequest struct {
	out     *Outbox
	id      string // of the session
	closing Closing
}

// stepOpen attaches a connection to its session. One that is still attached is
// evicted first, and the new one waits until it has left its state.
func (s *shard) stepOpen(r *openRequest) {
	st := s.sessions[r.from.id]
	switch {
	case st == nil:
		s.open(s.newSession(r), r, false)
	case st.from.identity.User != r.from.identity.User:
		s.reject(r, &Error{Code: CodeDenied, Reason: ReasonDenied, Text: "this client id belongs to another user"})
	case st.out != nil:
		if st.opening != nil {
			s.reject(st.opening, ErrTakenOver)
		} else {
			st.out.put(Event{Kind: Evicted, Err: ErrTakenOver})
			st.openBy = s.env.now.Add(takeoverPatience)
		}
		st.opening = r
	default:
		s.resume(st, r)
	}
}

func (s *shard) reject(r *openRequest, err error) {
	r.out.put(Event{Kind: Confirmed, Token: r.token, Err: err})
}

func (s *shard) newSession(r *openRequest) *sessionState {
	st := &sessionState{
		id: r.from.id, key: r.spec.Key, vhost: r.vhost,
		queues: make(map[string]bool), bindings: make(map[*binding]bool),
	}
	s.sessions[st.id] = st
	return st
}

// resume attaches a connection to a parked session, or to a new one if it asks
// for a clean start.
func (s *shard) resume(st *sessionState, r *openRequest) {
	if r.spec.Clean {
		s.end(st)
		s.open(s.newSession(r), r, false)
		return
	}
	s.open(st, r, true)
}

func (s *shard) open(st *sessionState, r *openRequest, present bool) {
	st.from, st.out, st.expiry, st.will = r.from, r.out, r.spec.Expiry, r.spec.Will
	st.due, st.willDue, st.opening = time.Time{}, time.Time{}, nil
	s.attached[r.out] = st
	st.show()
	e := Event{Kind: Confirmed, Token: r.token, Resumed: st.resumed(present)}
	if r.spec.Producer != "" {
		if err := s.produce(st, r, e.Resumed); err != nil {
			e.Resumed, e.Err = nil, err
		}
	}
	if !st.durable() && !st.stored {
		if st.key != "" || r.spec.Producer != "" {
			r.out.put(e) // one without a key was answered when it was opened
		}
		return
	}
	if st.durable() {
		s.keep(st)
	} else {
		s.forget(st)
	}
	s.answer(r.out, e)
}

// produce makes a connection the one of its producer. Who had it is evicted.
func (s *shard) produce(st *sessionState, r *openRequest, to *Resumed) *Error {
	p := &producer{vhost: st.vhost.name, user: st.from.identity.User, pid: r.spec.Producer}
	if known := s.producers[string(p.key())]; known != nil {
		p = known
	} else if len(s.producers) >= maxProducers {
		return Errorf(CodeQuota, "%d producers are the limit: those unused for %v are forgotten", maxProducers, producerIdle)
	}
	s.producers[string(p.key())] = p
	if p.out != nil && p.out != r.out {
		p.out.put(Event{Kind: Evicted, Err: ErrTakenOver})
	}
	p.out, p.used, st.producer = r.out, s.env.now, p
	to.Last, to.Present = p.known(), to.Present || p.last > 0
	return nil
}

func (st *sessionState) resumed(present bool) *Resumed {
	r := &Resumed{Present: present, Residue: st.residue}
	for key, value := range st.notes {
		r.Notes = append(r.Notes, Note{[]byte(key), value})
	}
	slices.SortFunc(r.Notes, func(a, b Note) int { return strings.Compare(string(a.Key), string(b.Key)) })
	for b := range st.bindings {
		r.Bindings = append(r.Bindings, b.spec)
	}
	slices.SortFunc(r.Bindings, func(a, b BindingSpec) int { return strings.Compare(a.Source.Topic, b.Source.Topic) })
	return r
}

// show lets Inspect see the session.
func (st *sessionState) show() {
	if st.key == "" {
		return
	}
	id := st.from.identity
	st.vhost.noteSession(st.key, sessionInfo{id.User, id.Protocol, id.Remote, st.out != nil})
}

// keep writes the session's record into the batch.
func (s *shard) keep(st *sessionState) {
	id := st.from.identity
	rec := sessionRecord{
		User: id.User, Client: id.Client, Protocol: id.Protocol,
		Expiry: milliseconds(st.expiry), Residue: st.residue,
	}
	if st.out == nil {
		rec.Parked = s.env.now.UnixMilli()
	}
	if most := s.caps.MaxValue; most > 0 && len(rec.Residue) > most/2 { // it grows by a third as text
		rec.Residue = nil // the deliveries come again, with new ids
	}
	st.stored = true
	s.turn.batch.Records = append(s.turn.batch.Records, Record{
		Table: tableSessions, Key: joinKey(st.vhost.name, st.key), Value: encodeRecord(rec),
	})
}

// forget takes the session's record away.
func (s *shard) forget(st *sessionState) {
	if !st.stored {
		return
	}
	st.stored = false
	s.turn.batch.Records = append(s.turn.batch.Records, Record{Table: tableSessions, Key: joinKey(st.vhost.name, st.key)})
}

// stepClose detaches a connection: what it holds goes back to the queues, and
// its session is parked or ends.
func (s *shard) stepClose(r *closeRequest) {
	s.leaveAll(r.out)
	if st := s.sessions[r.id]; st != nil && st.opening != nil && st.opening.out == r.out {
		st.opening = nil // it has gone before it was let in
	}
	st := s.attached[r.out]
	if st == nil {
		return
	}
	delete(s.attached, r.out)
	if p := st.producer; p != nil && p.out == r.out {
		p.out, st.producer = nil, nil
	}
	if st.out != r.out {
		return // given up before
	}
	s.detach(st, r.closing)
	if st.opening != nil {
		s.resumeOpening(st)
	}
}

// leaveAll takes a connection out of every queue it reads.
func (s *shard) leaveAll(out *Outbox) {
	for _, q := range s.reading[out] {
		if !q.removed {
			q.leave(out)
			s.afterLeaving(q)
		}
	}
	delete(s.reading, out)
}

func (s *shard) detach(st *sessionState, c Closing) {
	st.out = nil
	st.residue = c.Residue
	if c.Expiry != nil {
		st.expiry = *c.Expiry
	}
	if c.DropWill {
		st.will = nil
	}
	if !st.durable() {
		s.end(st)
		return
	}
	st.due = s.env.now.Add(st.expiry)
	if st.will != nil && st.will.Delay > 0 {
		st.willDue = s.env.now.Add(st.will.Delay)
	} else {
		s.fireWill(st)
	}
	s.keep(st)
	st.show()
}

func (s *shard) resumeOpening(st *sessionState) {
	r := st.opening
	st.opening = nil
	if s.sessions[st.id] != st {
		s.open(s.newSession(r), r, false)
		return
	}
	s.resume(st, r)
}

func (s *shard) fireWill(st *sessionState) {
	if w := st.will; w != nil {
		st.will, st.willDue = nil, time.Time{}
		s.publish(st.from, w.Message)
	}
}

// end is the end of a session: its queues, bindings, notes and record go.
func (s *shard) end(st *sessionState) {
	s.fireWill(st)
	for name := range st.queues {
		if ref := st.vhost.queue(name); ref != nil {
			s.removeQueue(st.vhost, ref, ReasonSessionOver)
		}
	}
	for b := range st.bindings {
		s.unbind(st.vhost, b)
	}
	for key := range st.notes {
		s.turn.batch.Records = append(s.turn.batch.Records, noteRecord(st, key, nil))
	}
	s.forget(st)
	delete(s.sessions, st.id)
	if st.key != "" {
		st.vhost.forgetSession(st.key)
	}
}

func noteRecord(st *sessionState, key string, value []byte) Record {
	return Record{Table: tableNotes, Key: joinKey(st.vhost.name, st.key, key), Value: value}
}

// tickSessions ends what is over: parked sessions, delayed wills, takeovers
// whose old connection does not answer.
func (s *shard) tickSessions() {
	for _, st := range s.sessions {
		switch {
		case st.out != nil && st.opening != nil && !s.env.now.Before(st.openBy):
			delete(s.attached, st.out)
			s.leaveAll(st.out)
			s.detach(st, Closing{})
			s.resumeOpening(st)
		case st.out == nil && !st.due.IsZero() && !s.env.now.Before(st.due):
			s.end(st)
		case !st.willDue.IsZero() && !s.env.now.Before(st.willDue):
			s.fireWill(st)
		}
	}
}

// A loader brings back what the store holds of a shard, before it runs.
type loader struct {
	shard   *shard
	vhosts  func(name string) *vhost
	cursors map[CursorID]CursorState
	ends    map[LogID]Offset // newest in each log
	last    Offset           // newest in the shard log
	now     time.Time
}

func (l *loader) session(rec Record) error {
	parts := strings.SplitN(string(rec.Key), "\x00", 2)
	var r sessionRecord
	if err := json.Unmarshal(rec.Value, &r); err != nil {
		return err
	}
	v := l.vhosts(parts[0])
	st := &sessionState{
		id: sessionID(v.name, parts[1]), key: parts[1], vhost: v, stored: true,
		expiry: time.Duration(r.Expiry) * time.Millisecond, residue: r.Residue,
		queues: make(map[string]bool), bindings: make(map[*binding]bool),
	}
	st.from = &sender{
		identity: &Identity{VHost: v.name, User: r.User, Client: r.Client, Protocol: r.Protocol}, id: st.id,
	}
	parked := l.now
	if r.Parked > 0 {
		parked = time.UnixMilli(r.Parked)
	}
	st.due = parked.Add(st.expiry)
	l.shard.sessions[st.id] = st
	st.show()
	return nil
}

func sessionID(vhost, key string) string { return vhost + "\x00" + key }

func (l *loader) note(rec Record) error {
	parts := strings.SplitN(string(rec.Key), "\x00", 3)
	if st := l.shard.sessions[sessionID(parts[0], parts[1])]; st != nil {
		if st.notes == nil {
			st.notes = make(map[string][]byte)
		}
		st.notes[parts[2]] = rec.Value
	}
	return nil
}

func (l *loader) exchange(rec Record) error {
	var spec ExchangeSpec
	if err := json.Unmarshal(rec.Value, &spec); err != nil {
		return err
	}
	if int(spec.Kind) >= len(exchangeKindNames) {
		return fmt.Errorf("kind %d, this Godwit knows %d: start the one that wrote it", spec.Kind, len(exchangeKindNames))
	}
	vhost, _, _ := strings.Cut(string(rec.Key), "\x00")
	l.vhosts(vhost).addExchange(spec)
	return nil
}

func (l *loader) queue(rec Record) error {
	var r queueRecord
	if err := json.Unmarshal(rec.Value, &r); err != nil {
		return err
	}
	vhost, _, _ := strings.Cut(string(rec.Key), "\x00")
	v := l.vhosts(vhost)
	if r.Spec.Owned && l.shard.sessions[r.Owner] == nil { // its session ended in a crash
		b := &l.shard.turn.batch
		b.Cursors = append(b.Cursors, CursorOp{ID: CursorID(r.Cursor), Log: l.shard.log, Drop: true})
		for _, lv := range r.Levels {
			b.Cursors = append(b.Cursors, CursorOp{ID: CursorID(lv.Cursor), Log: l.shard.log, Drop: true})
		}
		b.Records = append(b.Records, Record{Table: tableQueues, Key: rec.Key})
		return nil
	}
	q := l.shard.newQueue(v, r.Spec, r.Cursor)
	for _, lv := range r.Levels {
		q.addLevel(lv.Priority, lv.Cursor)
		l.shard.places[lv.Cursor] = q
	}
	q.owner, q.recorded = r.Owner, true
	if st := l.shard.sessions[r.Owner]; st != nil {
		st.queues[r.Spec.Name] = true
	}
	for _, lv := range q.levels {
		if cur, ok := l.cursors[CursorID(lv.place)]; ok && cur.Depth > 0 {
			q.count, q.bytes = q.count+cur.Depth, q.bytes+cur.Bytes
			lv.paged, lv.pagedCount, lv.pagedBytes = true, cur.Depth, cur.Bytes
			lv.fetchFrom, lv.skipped = max(cur.Floor, 1), l.last
		}
	}
	v.addQueue(q.ref)
	q.publishStats()
	return nil
}

func (l *loader) binding(rec Record) error {
	var r bindingRecord
	if err := json.Unmarshal(rec.Value, &r); err != nil {
		return err
	}
	vhost, _, _ := strings.Cut(string(rec.Key), "\x00")
	v := l.vhosts(vhost)
	var ref *queueRef
	if r.Spec.Queue != "" {
		ref = v.queue(r.Spec.Queue)
	}
	if ref == nil && v.exchange(r.Spec.Exchange) == nil || v.exchange(r.Spec.Source.Exchange) == nil {
		return nil // its target went in the same batch
	}
	if r.Spec.Owned && l.shard.sessions[r.Owner] == nil {
		l.shard.turn.batch.Records = append(l.shard.turn.batch.Records, Record{Table: tableBindings, Key: rec.Key})
		return nil
	}
	b := newBinding(r.Spec)
	b.queue, b.owner = ref, r.Owner
	l.shard.link(v, b, l.shard.sessions[r.Owner])
	return nil
}

func (l *loader) retained(rec Record) error {
	m, err := DecodeMessage(rec.Value)
	if err != nil {
		return err
	}
	r := l.shard.retained[m.Address.VHost]
	if r == nil {
		r = new(retained)
		l.shard.retained[m.Address.VHost] = r
	}
	r.set(m) // it was within the limits when it was stored
	return nil
}
