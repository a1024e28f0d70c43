package core

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// About is what a Query asks for.
type About uint8

// What can be inspected.
const (
	Queues    About = iota // ready unacked bytes consumers
	Bindings               // queue; the row's name is the source
	Exchanges              // kind bindings
	Sessions               // user protocol remote connected
	Fates                  // newest first: reason address place text
	Counters               // value
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

// A Field is one figure.
type Field struct{ Name, Value string }

// Inspect lists what there is: paged, sorted, and no shard stops for it.
func (b *Broker) Inspect(q Query) (Page, error) {
	if q.Limit <= 0 {
		q.Limit = 1000
	}
	if q.VHost == "" {
		q.VHost = "/"
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
		return v.queueRows()
	case Bindings:
		return v.bindingRows()
	case Exchanges:
		return v.exchangeRows()
	case Sessions:
		return v.sessionRows()
	case Counters:
		return b.counterRows()
	case Fates:
	}
	return nil
}

// page sorts, selects and cuts.
func (q *Query) page(rows []Row) (p Page) {
	rows = slices.DeleteFunc(rows, func(r Row) bool { return !q.takes(r.Name) })
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(a.Name, b.Name) })
	if len(rows) > q.Limit {
		rows = rows[:q.Limit]
		p.Next = rows[q.Limit-1].Name
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

func (v *vhost) bindingRows() (rows []Row) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, x := range v.exchanges {
		for _, b := range x.table.All() {
			if b.queue != nil {
				rows = append(rows, Row{b.spec.Source.String(), []Field{{"queue", b.queue.name}}})
			}
		}
	}
	return rows
}

func (v *vhost) exchangeRows() (rows []Row) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	rows = append(rows, Row{DefaultExchange, []Field{{"kind", "default"}, number("bindings", 0)}})
	for name, x := range v.exchanges {
		rows = append(rows, Row{name, []Field{{"kind", "topic"}, number("bindings", int64(x.table.Len()))}})
	}
	return rows
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

// Sources are the addresses that a queue is bound to.
func (b *Broker) Sources(vhost, queue string) (out []Address) {
	v := b.vhost(vhost)
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, x := range v.exchanges {
		for _, binding := range x.table.All() {
			if binding.queue != nil && binding.queue.name == queue {
				out = append(out, binding.spec.Source)
			}
		}
	}
	return out
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
