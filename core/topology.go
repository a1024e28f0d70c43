package core

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

type bindingRecord struct {
	Spec  BindingSpec
	Owner string `json:",omitempty"`
}

// A plan is changes that are checked all before the first is done.
type plan struct {
	shard   *shard
	vhost   *vhost
	session *sessionState
	made    map[string]*QueueSpec // by name, as it will be; nil: removed

	exchanges map[string]*ExchangeSpec // the same
	added     int                      // exchanges
	bindings  map[string]int           // added, by exchange
}

func newPlan(s *shard, v *vhost, st *sessionState) *plan {
	return &plan{
		shard: s, vhost: v, session: st, made: make(map[string]*QueueSpec),
		exchanges: make(map[string]*ExchangeSpec), bindings: make(map[string]int),
	}
}

func (p *plan) queueSpec(name string) *QueueSpec {
	if spec, ok := p.made[name]; ok {
		return spec
	}
	if ref := p.vhost.queue(name); ref != nil {
		return &ref.queue.declared
	}
	return nil
}

func (p *plan) exchangeSpec(name string) *ExchangeSpec {
	if spec, ok := p.exchanges[name]; ok {
		return spec
	}
	return p.vhost.exchangeSpec(name)
}

func (p *plan) checkVHost(c *Change) error {
	switch c.Do {
	case Remove, Purge:
		return NotYet("removing a virtual host")
	case Move:
		return Errorf(CodeBadValue, "a virtual host cannot be moved")
	case Declare, Alter:
	}
	if err := CheckName(c.VHost.Name); err != nil {
		return err
	}
	names := p.shard.vhostNames()
	if slices.Contains(names, c.VHost.Name) {
		return nil
	}
	if most := p.vhost.bounds.limits.VHosts; len(names) >= most {
		p.vhost.bounds.vhosts.Add(1)
		return Errorf(CodeQuota, "%d virtual hosts are the limit", most)
	}
	return nil
}

// declareVHost makes a virtual host, and writes down where it lives.
func (s *shard) declareVHost(name string) {
	if slices.Contains(s.vhostNames(), name) {
		return
	}
	v := s.vhost(name)
	s.turn.batch.Records = append(s.turn.batch.Records, Record{
		Table: tableMeta, Key: []byte(metaVHost + name), Value: strconv.AppendInt(nil, int64(v.shard), 10),
	})
}

func (p *plan) checkExchange(c *Change) error {
	x := c.Exchange
	if x.Name == DefaultExchange {
		return &Error{Code: CodeDenied, Reason: ReasonDenied, Text: DefaultExchange + " is predeclared: it has the queues by their names and cannot be changed"}
	}
	if err := CheckName(x.Name); err != nil {
		return err
	}
	old := p.exchangeSpec(x.Name)
	switch c.Do {
	case Purge, Move:
		return Errorf(CodeBadValue, "an exchange cannot be purged or moved: it holds nothing")
	case Remove:
		return p.checkExchangeRemoval(c, old)
	case Declare, Alter:
	}
	if old == nil {
		return p.checkNewExchange(x)
	}
	text, err := alternateText(x)
	if err != nil {
		return err
	}
	x.Alternate = text
	if *old == *x {
		return nil
	}
	switch fixed := fixedDifference(old, x); {
	case predeclaredName(x.Name):
		return &Error{Code: CodeConflict, Text: fmt.Sprintf("exchange %q is predeclared and cannot be declared otherwise: %s", x.Name, exchangeDifference(old, x))}
	case c.Do == Declare:
		return &Error{Code: CodeConflict, Text: fmt.Sprintf("declare exchange %q: exists with other settings: %s", x.Name, exchangeDifference(old, x))}
	case fixed != "":
		return &Error{Code: CodeConflict, Text: fmt.Sprintf("exchange %q: %s, which cannot be altered: remove it and declare it again", x.Name, fixed)}
	}
	p.exchanges[x.Name] = x
	return nil
}

func (p *plan) checkNewExchange(x *ExchangeSpec) error {
	if strings.HasPrefix(x.Name, "amq.") || strings.HasPrefix(x.Name, "$") {
		return Errorf(CodeDenied, "names that begin with amq. or $ are the broker's: %q", x.Name)
	}
	if int(x.Kind) >= len(exchangeKindNames) {
		return Errorf(CodeBadValue, "exchange %q: there is no kind %d", x.Name, x.Kind)
	}
	text, err := alternateText(x)
	if err != nil {
		return err
	}
	x.Alternate = text
	p.added++
	if n, most := p.vhost.declaredExchanges()+p.added, p.vhost.bounds.limits.Exchanges; n > most {
		p.vhost.bounds.exchanges.Add(1)
		return Errorf(CodeQuota, "virtual host %s has %d exchanges, the limit", p.vhost.name, most)
	}
	p.exchanges[x.Name] = x
	return nil
}

func (p *plan) checkExchangeRemoval(c *Change, old *ExchangeSpec) error {
	name := c.Exchange.Name
	switch {
	case old == nil:
		return Errorf(CodeNotFound, "no exchange %q", name)
	case predeclaredName(name):
		return Errorf(CodeDenied, "exchange %q is predeclared and cannot be removed", name)
	case c.IfUnused:
		if n := p.vhost.uses(name); n > 0 {
			return Errorf(CodeConflict, "exchange %q has %d bindings and subscriptions", name, n)
		}
	}
	if user := p.vhost.alternateOf(name); user != "" {
		return Errorf(CodeConflict, "exchange %q is the alternate of %q: alter that first", name, user)
	}
	p.exchanges[name] = nil
	return nil
}

// checkAlternates says whether every alternate that was named is there.
func (p *plan) checkAlternates() error {
	for _, x := range p.exchanges {
		if x == nil || x.Alternate == "" {
			continue
		}
		a, err := ParseAddress(p.vhost.name, x.Alternate)
		switch {
		case err != nil:
			return err
		case a.Topic != "" && p.queueSpec(a.Topic) == nil:
			return Errorf(CodeNotFound, "exchange %q: its alternate %s does not exist", x.Name, x.Alternate)
		case a.Topic == "" && p.exchangeSpec(a.Exchange) == nil:
			return Errorf(CodeNotFound, "exchange %q: its alternate %s does not exist", x.Name, x.Alternate)
		}
	}
	return nil
}

// alternateText is the one way to write the alternate of x.
func alternateText(x *ExchangeSpec) (string, error) {
	if x.Alternate == "" {
		return "", nil
	}
	a, err := ParseAddress("", x.Alternate)
	switch {
	case err != nil:
		return "", err
	case a.Exchange == DefaultExchange && a.Topic != "":
	case a.Topic != "" || a.Exchange == DefaultExchange:
		return "", Errorf(CodeBadValue, "exchange %q: an alternate is an exchange, x/NAME, or a queue, q/NAME, not %s", x.Name, x.Alternate)
	case a.Exchange == x.Name:
		return "", Errorf(CodeBadValue, "exchange %q cannot be its own alternate", x.Name)
	}
	return a.String(), nil
}

func predeclaredName(name string) bool {
	for i := range predeclared {
		if predeclared[i].Name == name {
			return true
		}
	}
	return name == DefaultExchange
}

// fixedDifference names what differs and cannot be altered.
func fixedDifference(old, asked *ExchangeSpec) string {
	switch {
	case old.Kind != asked.Kind:
		return fmt.Sprintf("kind is %s, asked for %s", old.Kind, asked.Kind)
	case old.Transient != asked.Transient:
		return fmt.Sprintf("transient is %v, asked for %v", old.Transient, asked.Transient)
	}
	return ""
}

// exchangeDifference names the settings in which two specs differ.
func exchangeDifference(old, asked *ExchangeSpec) string {
	var out []string
	add := func(name string, a, b any) {
		if a != b {
			out = append(out, fmt.Sprintf("%s is %v, asked for %v", name, a, b))
		}
	}
	add("kind", old.Kind, asked.Kind)
	add("alternate", orNone(old.Alternate), orNone(asked.Alternate))
	add("transient", old.Transient, asked.Transient)
	add("auto_delete", old.AutoDelete, asked.AutoDelete)
	add("internal", old.Internal, asked.Internal)
	return strings.Join(out, "; ")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (p *plan) checkBinding(c *Change) error {
	b := c.Binding
	if c.Do == Purge || c.Do == Move {
		return Errorf(CodeBadValue, "a binding cannot be purged or moved")
	}
	if (b.Queue == "") == (b.Exchange == "") {
		return Errorf(CodeBadValue, "a binding has one target: a queue or an exchange")
	}
	x := p.source(b)
	if x == nil {
		return noExchange(b.Source.Exchange)
	}
	b.Source.Topic = x.keyOf(b.Source.Topic)
	b.Args = b.sorted()
	if err := p.checkTarget(b); err != nil {
		return err
	}
	if err := p.vhost.mayBind(x, b); err != nil {
		return err
	}
	old := p.shard.bound(p.vhost, b)
	switch {
	case c.Do == Remove && old == nil:
		return Errorf(CodeNotFound, "%s is not bound to %s", b.Target(), boundTo(b))
	case c.Do == Remove, old != nil:
		return nil
	}
	p.bindings[b.Source.Exchange]++
	return p.vhost.mayBindMore(x, b, p.bindings[b.Source.Exchange])
}

// source is the exchange of a binding's source; one that the plan makes is
// there to ask, and empty.
func (p *plan) source(b *BindingSpec) *exchange {
	if spec, ok := p.exchanges[b.Source.Exchange]; ok {
		if spec == nil {
			return nil
		}
		if x := p.vhost.exchange(b.Source.Exchange); x != nil && x.spec.Kind == spec.Kind {
			return x
		}
		return newExchange(*spec)
	}
	return p.vhost.exchange(b.Source.Exchange)
}

func (p *plan) checkTarget(b *BindingSpec) error {
	switch {
	case b.Queue != "" && p.queueSpec(b.Queue) == nil:
		return Errorf(CodeNotFound, "no queue %q", b.Queue)
	case b.Queue != "":
		return nil
	case b.Exchange == DefaultExchange:
		return Errorf(CodeDenied, "%s takes no bindings: bind the queue itself", DefaultExchange)
	case p.exchangeSpec(b.Exchange) == nil:
		return noExchange(b.Exchange)
	case b.Exchange == b.Source.Exchange:
		return Errorf(CodeBadValue, "exchange %q cannot be bound to itself", b.Exchange)
	case b.Only != All || b.NoLocal || b.Owned:
		return Errorf(CodeBadValue, "a binding between exchanges takes every message: only, no_local and owned are for queues")
	}
	return nil
}

// bound finds the binding that a spec names, or nil.
func (s *shard) bound(v *vhost, spec *BindingSpec) *binding {
	var ofQueue map[*binding]bool
	if spec.Queue != "" {
		ref := v.queue(spec.Queue)
		if ref == nil {
			return nil
		}
		ofQueue = s.bindings[ref]
	}
	return v.bound(spec, ofQueue)
}

// bind puts a binding in force. The same again replaces the old wish, and
// nothing in between is missed.
func (s *shard) bind(v *vhost, spec BindingSpec, st *sessionState) {
	spec.Source.VHost = v.name
	old := s.bound(v, &spec)
	b := newBinding(spec)
	if spec.Queue != "" {
		b.queue = v.queue(spec.Queue)
	}
	if st != nil {
		b.owner = st.id
	}
	if !s.link(v, b, st) {
		return
	}
	if old != nil {
		s.unlink(v, old)
	}
	if s.storesBinding(v, b, st) {
		s.turn.batch.Records = append(s.turn.batch.Records, Record{
			Table: tableBindings, Key: bindingKey(v, &spec), Value: encodeRecord(bindingRecord{spec, b.owner}),
		})
	}
}

// link puts a binding in force and with its queue and session.
func (s *shard) link(v *vhost, b *binding, st *sessionState) bool {
	if !v.bind(b) {
		return false
	}
	if b.queue != nil {
		if s.bindings[b.queue] == nil {
			s.bindings[b.queue] = make(map[*binding]bool)
		}
		s.bindings[b.queue][b] = true
	}
	if st != nil && b.spec.Owned {
		st.bindings[b] = true
	}
	return true
}

// unlink says whether the exchange goes with the binding.
func (s *shard) unlink(v *vhost, b *binding) (idle bool) {
	idle = v.unbind(b)
	if b.queue != nil {
		if delete(s.bindings[b.queue], b); len(s.bindings[b.queue]) == 0 {
			delete(s.bindings, b.queue)
		}
	}
	if st := s.sessions[b.owner]; st != nil {
		delete(st.bindings, b)
	}
	return idle
}

// storesBinding says whether a binding outlives the process: its target does,
// its exchange, and its owner if it has one.
func (s *shard) storesBinding(v *vhost, b *binding, st *sessionState) bool {
	if b.queue != nil && b.queue.queue.spec.Class == Memory {
		return false
	}
	for _, name := range []string{b.spec.Source.Exchange, b.exchange} {
		if x := v.exchangeSpec(name); x != nil && x.Transient {
			return false
		}
	}
	return !b.spec.Owned || (st != nil && st.durable())
}

// bindingKey tells bindings apart as alike does. Keys of queues without
// arguments are what they were before there were others.
func bindingKey(v *vhost, spec *BindingSpec) []byte {
	parts := []string{v.name, spec.Source.Exchange, spec.Source.Topic, spec.Queue}
	if spec.Exchange != "" {
		parts = append(parts, "exchange", spec.Exchange)
	}
	if spec.asks() {
		parts = append(parts, "arguments", spec.argumentSum())
	}
	if spec.Owned {
		parts = append(parts, "owned")
	}
	return joinKey(parts...)
}

func (s *shard) unbind(v *vhost, b *binding) {
	idle := s.unlink(v, b)
	if b.queue == nil || b.queue.queue.spec.Class != Memory {
		s.turn.batch.Records = append(s.turn.batch.Records, Record{Table: tableBindings, Key: bindingKey(v, &b.spec)})
	}
	if idle {
		s.removeExchange(v, b.spec.Source.Exchange)
	}
}

func (s *shard) changeExchange(v *vhost, c *Change) {
	name := c.Exchange.Name
	switch old := v.exchangeSpec(name); {
	case c.Do == Remove:
		s.removeExchange(v, name)
		return
	case old == nil:
		v.addExchange(*c.Exchange)
	case *old == *c.Exchange:
		return
	default:
		v.alterExchange(*c.Exchange)
	}
	if c.Exchange.Transient {
		return
	}
	s.turn.batch.Records = append(s.turn.batch.Records, Record{
		Table: tableExchanges, Key: joinKey(v.name, name), Value: encodeRecord(*c.Exchange),
	})
}

// removeExchange takes an exchange away with its bindings and those of others
// to it; its live listeners are told.
func (s *shard) removeExchange(v *vhost, name string) {
	bound, incoming := v.removeExchange(name)
	s.turn.batch.Records = append(s.turn.batch.Records, Record{Table: tableExchanges, Key: joinKey(v.name, name)})
	for _, b := range bound {
		if b.listener != nil {
			b.listener.end(Errorf(CodeNotFound, "exchange %q was removed", name))
			continue
		}
		s.unbind(v, b)
	}
	for _, b := range incoming {
		s.unbind(v, b)
	}
}

// stepIdle removes an exchange whose last live listener has left, if it goes
// with that and nobody has come since.
func (s *shard) stepIdle(a Address) {
	if v := s.vhost(a.VHost); v.isIdle(a.Exchange) {
		s.removeExchange(v, a.Exchange)
	}
}
