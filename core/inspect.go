package core

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// About is what a Query asks for.
type About uint8

// What can be inspected.
const (
	Queues    About = iota // ready unacked bytes consumers
	Bindings               // queue or exchange, and the options; the row's name is the source
	Exchanges              // kind bindings unrouted diverted
	Sessions               // user protocol remote connected
	Fates                  // newest first: reason address place text
	Counters               // value
	VHosts                 // queues exchanges sessions
)

// A Query asks for a page of rows.
type Query struct {
	About  About
	VHost  string
	Name   string // exactly this
	Prefix string // or what begins so
	After  string // go on behind this name
	Limit  int    // 0: 1,000
	Hidden bool   // with the broker's own ($...)

	// Settings, of queues, exchanges and bindings: what declares them again,
	// instead of figures; without what belongs to sessions.
	Settings bool
}

// A Page is rows in order of name; Next is the After of the next page, or "".
type Page struct {
	Rows []Row
	Next string
}

// A Row is one thing and its figures, in a fixed order.
type Row struct {
	Name   string
	Fields []Field
}

// Inspect lists what there is: paged, sorted, and no shard stops for it.
func (b *Broker) Inspect(q Query) (Page, error) {
	if q.Limit <= 0 {
		q.Limit = 1000
	}
	if q.VHost == "" {
		q.VHost = "/"
	}
	if !b.HasVHost(q.VHost) {
		return Page{}, Errorf(CodeNotFound, "no virtual host %q", q.VHost)
	}
	if q.About == Fates {
		return Page{Rows: b.fateRows(q)}, nil
	}
	return q.page(b.rows(q)), nil
}

func (b *Broker) rows(q Query) []Row {
	v := b.vhost(q.VHost)
	switch q.About {
	case Queues:
		if q.Settings {
			return v.queueSettings()
		}
		return v.queueRows()
	case Bindings:
		return v.bindingRows(q.Settings)
	case Exchanges:
		if q.Settings {
			return v.exchangeSettings()
		}
		return v.exchangeRows()
	case Sessions:
		return v.sessionRows()
	case Counters:
		return b.counterRows()
	case VHosts:
		return b.vhostRows()
	case Fates:
	}
	return nil
}

func (b *Broker) vhostRows() (rows []Row) {
	for _, name := range b.vhostNames() {
		v := b.vhost(name)
		v.mu.RLock()
		rows = append(rows, Row{name, []Field{
			number("queues", int64(len(v.queues))),
			number("exchanges", int64(len(v.exchanges)+1)), // the default one has no table
			number("sessions", int64(len(v.sessions))),
		}})
		v.mu.RUnlock()
	}
	return rows
}

// page sorts, selects and cuts.
func (q *Query) page(rows []Row) (p Page) {
	rows = slices.DeleteFunc(rows, func(r Row) bool { return !q.takes(r.Name) })
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(a.Name, b.Name) })
	if cut := q.Limit; len(rows) > cut {
		for cut < len(rows) && rows[cut].Name == rows[cut-1].Name {
			cut++ // rows of one name stay together: the next page begins behind the name
		}
		if cut < len(rows) {
			p.Next = rows[cut-1].Name
		}
		rows = rows[:cut]
	}
	p.Rows = rows
	return p
}

func (q *Query) takes(name string) bool {
	switch {
	case q.Name != "":
		return name == q.Name
	case ReservedName(name) && !q.Hidden && !strings.HasPrefix(q.Prefix, "$"):
		return false
	case q.After != "" && name <= q.After:
		return false
	}
	return strings.HasPrefix(name, q.Prefix)
}

func number(name string, n int64) Field { return Field{name, strconv.FormatInt(n, 10)} }

func (v *vhost) queueRows() (rows []Row) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for name, ref := range v.queues {
		rows = append(rows, Row{name, []Field{
			number("ready", ref.depth.Load()), number("unacked", ref.unacked.Load()), number("delayed", ref.delayed.Load()),
			number("bytes", ref.size.Load()), number("consumers", ref.readers.Load()),
		}})
	}
	return rows
}

// queueSettings are the queues that are nobody's own.
func (v *vhost) queueSettings() (rows []Row) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for name, ref := range v.queues {
		if spec := ref.spec.Load(); spec != nil && !spec.Owned {
			rows = append(rows, Row{name, spec.Settings()})
		}
	}
	return rows
}

func (v *vhost) bindingRows(settings bool) (rows []Row) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, x := range v.exchanges {
		for _, b := range x.all() {
			if b.listener != nil || settings && (b.spec.Owned || ReservedName(b.spec.Queue)) {
				continue
			}
			target := Field{"queue", b.spec.Queue}
			if b.exchange != "" {
				target = Field{"exchange", b.exchange}
			}
			rows = append(rows, Row{sourceName(&b.spec), append([]Field{target}, b.spec.Settings()...)})
		}
	}
	slices.SortFunc(rows, func(a, b Row) int { // the sort by name is stable
		return slices.CompareFunc(a.Fields, b.Fields, func(a, b Field) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value)) })
	})
	return rows
}

// sourceName is a binding's source; without a key it ends in a slash, so that
// all bindings of an exchange begin alike.
func sourceName(b *BindingSpec) string {
	if b.Source.Topic == "" {
		return b.Source.String() + "/"
	}
	return b.Source.String()
}

func (v *vhost) exchangeRows() (rows []Row) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	rows = append(rows, Row{DefaultExchange, []Field{{"kind", "default"}, number("bindings", 0)}})
	for name, x := range v.exchanges {
		rows = append(rows, Row{name, []Field{
			{"kind", x.spec.Kind.String()},
			number("bindings", int64(x.len())),
			number("unrouted", x.unrouted.Load()), number("diverted", x.diverted.Load()),
		}})
	}
	return rows
}

// exchangeSettings are the exchanges that somebody declared.
func (v *vhost) exchangeSettings() (rows []Row) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for name, x := range v.exchanges {
		if !x.builtin {
			rows = append(rows, Row{name, x.spec.Settings()})
		}
	}
	return rows
}

// Exchange is the spec of an exchange that can be bound to, and whether there
// is one.
func (b *Broker) Exchange(vhost, name string) (ExchangeSpec, bool) {
	if !b.HasVHost(vhost) {
		return ExchangeSpec{}, false
	}
	spec := b.vhost(vhost).exchangeSpec(name)
	if spec == nil {
		return ExchangeSpec{}, false
	}
	return *spec, true
}

func (v *vhost) sessionRows() (rows []Row) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for key, info := range v.sessions {
		rows = append(rows, Row{key, []Field{
			{"user", info.user},
			{"protocol", info.protocol},
			{"remote", info.remote},
			{"connected", strconv.FormatBool(info.connected)},
		}})
	}
	return rows
}

// Durable is what declares the queue behind a subscription that outlives its
// connection: one of the broker's own, bound as to says. A new wish takes the
// old one's place, and what is queued stays.
func (b *Broker) Durable(vhost string, to BindingSpec) []Change {
	v := b.vhost(vhost)
	v.mu.RLock()
	defer v.mu.RUnlock()
	if x := v.exchanges[to.Source.Exchange]; x != nil {
		to.Source.Topic = x.keyOf(to.Source.Topic)
	}
	to.Args = to.sorted()
	changes := []Change{
		{Queue: &QueueSpec{Name: to.Queue}, Own: true},
		{Binding: &to, Own: true},
	}
	for _, x := range v.exchanges {
		for _, bound := range x.all() {
			if old := bound.spec; old.Queue == to.Queue && !old.alike(&to) {
				changes = append(changes, Change{Do: Remove, Binding: &old, Own: true})
			}
		}
	}
	return changes
}

func (b *Broker) journals() []*journal {
	out := []*journal{&b.live}
	for _, s := range b.shards {
		out = append(out, s.fates)
	}
	return out
}

// counterRows are how many messages ended how.
func (b *Broker) counterRows() (rows []Row) {
	for r := ReasonNone + 1; r < numReasons; r++ {
		var n int64
		for _, j := range b.journals() {
			n += j.counts[r].Load()
		}
		rows = append(rows, Row{"ended_" + r.String(), []Field{number("value", n)}})
	}
	for _, refused := range []struct {
		name string
		n    *atomic.Int64
	}{
		{"refused_vhosts", &b.bounds.vhosts},
		{"refused_exchanges", &b.bounds.exchanges},
		{"refused_bindings", &b.bounds.bindings},
		{"refused_arguments", &b.bounds.arguments},
	} {
		rows = append(rows, Row{refused.name, []Field{number("value", refused.n.Load())}})
	}
	delayed := int64(0)
	for _, s := range b.shards {
		delayed += s.due.pending.Load()
	}
	return append(rows, Row{"delayed", []Field{number("value", delayed)}})
}

// fateRows are the newest ends; Name or Prefix select by address or place.
func (b *Broker) fateRows(q Query) (rows []Row) {
	var all []Fate
	for _, j := range b.journals() {
		all = append(all, j.newest(q.Limit, func(f *Fate) bool {
			if f.Address.VHost != "" && f.Address.VHost != q.VHost {
				return false
			}
			address := f.Address.String()
			if q.Name != "" {
				return q.Name == address || q.Name == f.Place
			}
			return strings.HasPrefix(address, q.Prefix) || strings.HasPrefix(f.Place, q.Prefix)
		})...)
	}
	slices.SortStableFunc(all, func(a, b Fate) int { return b.At.Compare(a.At) })
	for _, f := range all[:min(len(all), q.Limit)] {
		rows = append(rows, Row{f.At.UTC().Format("2006-01-02T15:04:05.000Z"), []Field{
			{"reason", f.Reason.String()}, {"address", f.Address.String()}, {"place", f.Place}, {"text", f.Text},
		}})
	}
	return rows
}
