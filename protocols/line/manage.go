package line

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/godwitmq/godwit/core"
)

// apply asks for changes and holds the reader until they are on the disk.
func (h *handler) apply(what heldKind, changes ...core.Change) error {
	h.session.Apply(changes, h.hold(held{what: what}))
	return errHeld
}

// mk declares a queue, an exchange or a stream.
func (h *handler) mk(r *request) error {
	if name, is, err := vhostName(r.arg(0)); is || err != nil {
		return h.mkVHost(r, name, err)
	}
	where, err := h.named(r, 0)
	if err != nil {
		return err
	}
	c := core.Change{Do: core.Declare}
	if r.has(mkAlter) {
		c.Do = core.Alter
	}
	switch {
	case isQueue(where):
		c.Queue, err = queueSpec(where, r)
	case where.Exchange == core.StreamExchange:
		c.Stream, err = streamSpec(where, r)
	default:
		c.Exchange, err = exchangeSpec(where, r)
	}
	if err != nil {
		return err
	}
	return h.apply(heldApply, c)
}

// mkVHost declares a virtual host: v/NAME is a word of MK, RM and LS alone.
func (h *handler) mkVHost(r *request, name string, err error) error {
	switch {
	case err != nil:
		return err
	case r.seen != 0:
		return core.Errorf(core.CodeBadValue, "a virtual host has no options: MK v/NAME")
	}
	return h.apply(heldApply, core.Change{Do: core.Declare, VHost: &core.VHostSpec{Name: name}})
}

// vhostName is the name in v/NAME, and whether it is one.
func vhostName(text []byte) (name string, is bool, err error) {
	rest, ok := bytes.CutPrefix(text, []byte("v/"))
	if !ok {
		return "", false, nil
	}
	decoded, e := unescape(rest)
	if e != nil {
		return "", true, e
	}
	return string(decoded), true, nil
}

// named reads an argument that names a thing: q/NAME, x/NAME or s/NAME, and
// checks that it can have the options that were given.
func (h *handler) named(r *request, arg int) (core.Address, error) {
	where, err := h.address(r, arg)
	if err != nil {
		return where, err
	}
	letter := r.arg(arg)[0]
	switch {
	case letter == 't' || letter == 'r':
		return where, core.Errorf(core.CodeBadValue, "%s wants q/QUEUE, x/EXCHANGE or s/STREAM", r.verb.name)
	case letter == 'x' && where.Topic != "":
		return where, core.Errorf(core.CodeBadValue, "an exchange is x/NAME, without a key")
	}
	for i := range r.verb.options {
		if o := &r.verb.options[i]; r.has(i) && o.of != "" && strings.IndexByte(o.of, letter) < 0 {
			return where, core.Errorf(core.CodeBadValue, "%s is no option of %c/", o.name, letter)
		}
	}
	return where, nil
}

func (r *request) lapse(option int) time.Duration {
	if !r.has(option) {
		return 0
	}
	return time.Duration(r.num[option])
}

func (r *request) number(option int) int64 {
	if !r.has(option) {
		return 0
	}
	return r.num[option]
}

// addressText is an option that is an address, in its canonical form.
func (r *request) addressText(option int) (string, error) {
	if !r.has(option) {
		return "", nil
	}
	a, err := core.ParseAddress("/", string(r.bytes(r.raw[option])))
	if err != nil {
		return "", core.Errorf(core.CodeBadValue, "%s= %s", r.verb.options[option].name, err)
	}
	return a.String(), nil
}

func queueSpec(where core.Address, r *request) (*core.QueueSpec, error) {
	q := &core.QueueSpec{
		Name:           where.Topic,
		Class:          core.Class(r.number(mkClass)),
		MaxMessages:    r.number(mkMaxMessages),
		MaxBytes:       r.number(mkMaxBytes),
		Overflow:       core.Overflow(r.number(mkOverflow)),
		TTL:            r.lapse(mkTTL),
		MaxAttempts:    int(r.number(mkMaxAttempts)),
		Lease:          r.lapse(mkLease),
		IdleExpiry:     r.lapse(mkIdleExpiry),
		AutoDelete:     r.has(mkAutoDelete),
		Priorities:     int(r.number(mkPriorities)),
		MaxWait:        r.lapse(mkMaxWait),
		SingleActive:   r.has(mkSingleActive),
		Keyed:          r.has(mkKeyed),
		DedupWindow:    r.lapse(mkDedupWindow),
		OnArrival:      r.number(mkDeliver) == 1,
		StoreTransient: r.has(mkStoreTransient),
		Spread:         r.has(mkSpread),
	}
	var err error
	if q.DeadLetter, err = r.addressText(mkDeadLetter); err != nil {
		return nil, err
	}
	if q.Archive, err = r.addressText(mkArchive); err != nil {
		return nil, err
	}
	if r.has(mkBackoff) {
		text, err := r.value(mkBackoff)
		if err != nil {
			return nil, err
		}
		q.Backoff = text
	}
	return q, nil
}

func streamSpec(where core.Address, r *request) (*core.StreamSpec, error) {
	return &core.StreamSpec{
		Name:        where.Topic,
		Class:       core.Class(r.number(mkClass)),
		MaxAge:      r.lapse(mkMaxAge),
		MaxBytes:    r.number(mkMaxBytes),
		MaxMessages: r.number(mkMaxMessages),
		Compact:     r.has(mkCompact),
		Partitions:  int(r.number(mkPartitions)),
		DedupWindow: r.lapse(mkDedupWindow),
	}, nil
}

func exchangeSpec(where core.Address, r *request) (*core.ExchangeSpec, error) {
	alternate, err := r.addressText(mkAlternate)
	return &core.ExchangeSpec{
		Name:       where.Exchange,
		Kind:       core.ExchangeKind(r.number(mkKind)),
		Alternate:  alternate,
		Transient:  r.has(mkTransient),
		AutoDelete: r.has(mkAutoDelete),
		Internal:   r.has(mkInternal),
	}, err
}

func (h *handler) rm(r *request) error {
	if _, is, _ := vhostName(r.arg(0)); is {
		return core.NotYet("RM of a virtual host")
	}
	where, err := h.named(r, 0)
	if err != nil {
		return err
	}
	c := thing(where)
	c.Do, c.IfEmpty, c.IfUnused = core.Remove, r.has(rmIfEmpty), r.has(rmIfUnused)
	return h.apply(heldApply, c)
}

func (h *handler) purge(r *request) error {
	where, err := h.named(r, 0)
	if err != nil {
		return err
	}
	c := thing(where)
	c.Do = core.Purge
	return h.apply(heldPurge, c)
}

// isQueue tells q/NAME from x/amq.default, which is an exchange.
func isQueue(a core.Address) bool { return a.Exchange == core.DefaultExchange && a.Topic != "" }

// move empties a queue into another.
func (h *handler) move(r *request) error {
	to, err := h.address(r, 1)
	if err != nil {
		return err
	}
	return h.moving(r, to.String())
}

// redrive gives dead letters back to the queues where they died.
func (h *handler) redrive(r *request) error { return h.moving(r, "") }

func (h *handler) moving(r *request, to string) error {
	where, err := h.named(r, 0)
	if err != nil {
		return err
	}
	if !isQueue(where) {
		return core.Errorf(core.CodeBadValue, "%s wants q/QUEUE, not %s", r.verb.name, clip(r.arg(0)))
	}
	return h.apply(heldPurge, core.Change{Do: core.Move, Queue: &core.QueueSpec{Name: where.Topic}, To: to, Limit: r.number(only)})
}

// thing is a change of what an address names.
func thing(where core.Address) core.Change {
	switch {
	case isQueue(where):
		return core.Change{Queue: &core.QueueSpec{Name: where.Topic}}
	case where.Exchange == core.StreamExchange:
		return core.Change{Stream: &core.StreamSpec{Name: where.Topic}}
	}
	return core.Change{Exchange: &core.ExchangeSpec{Name: where.Exchange}}
}

func (h *handler) bind(r *request) error   { return h.binding(r, core.Declare) }
func (h *handler) unbind(r *request) error { return h.binding(r, core.Remove) }

// binding makes a queue or an exchange a target of what another exchange gets,
// or no longer.
func (h *handler) binding(r *request, do core.Do) error {
	target, err := h.named(r, 0)
	if err != nil {
		return err
	}
	source, err := h.address(r, 1)
	if err != nil {
		return err
	}
	switch {
	case target.Exchange == core.StreamExchange:
		return core.NotYet("bindings of streams")
	case source.Exchange == core.StreamExchange || source.Exchange == core.ReplyExchange:
		return core.Errorf(core.CodeBadValue, "%s is no exchange: a source is t/FILTER, x/EXCHANGE/KEY or x/EXCHANGE", clip(r.arg(1)))
	}
	b := &core.BindingSpec{Source: source}
	if isQueue(target) {
		b.Queue = target.Topic
	} else {
		b.Exchange = target.Exchange
	}
	match := bindMatch
	if do == core.Remove {
		match = unbindMatch
	}
	if b.Match, b.Args, err = arguments(r, match); err != nil {
		return err
	}
	return h.apply(heldApply, core.Change{Do: do, Binding: b})
}

// arguments are what a headers exchange is asked for.
func arguments(r *request, option int) (core.Match, []core.Header, error) {
	var args []core.Header
	for _, s := range r.headers {
		a, err := header(r, s)
		if err != nil {
			return 0, nil, err
		}
		args = append(args, a)
	}
	return core.Match(r.number(option)), args, nil
}

// may asks for the right to look.
func (h *handler) may(where core.Address) error {
	if err := h.session.May(core.Access{Do: core.ActMonitor, Where: where}); err != nil {
		return core.AsError(err)
	}
	return nil
}

// stat shows the figures of one thing as they are now: what was asked for just
// before may not be in them yet.
func (h *handler) stat(r *request) error {
	where, err := h.named(r, 0)
	if err != nil {
		return err
	}
	if where.Exchange == core.StreamExchange {
		return core.NotYet("streams (s/...)")
	}
	if err := h.may(where); err != nil {
		return err
	}
	q := core.Query{About: core.Queues, VHost: where.VHost, Name: where.Topic, Hidden: true}
	if !isQueue(where) {
		q.About, q.Name = core.Exchanges, where.Exchange
	}
	page, err := h.broker.Inspect(q)
	if err != nil {
		return core.AsError(err)
	}
	if len(page.Rows) == 0 {
		return core.Errorf(core.CodeNotFound, "no such thing: %s", where)
	}
	return h.rows(q.About, page, "")
}

// ls lists queues, exchanges or, by their sources, bindings.
func (h *handler) ls(r *request) error {
	pattern := []byte("q/*")
	if r.nargs > 0 {
		pattern = r.arg(0)
	}
	q, err := h.query(pattern)
	if err != nil {
		return err
	}
	q.Settings = r.has(lsSettings)
	if r.has(lsAfter) {
		if q.After, err = after(r, q.About); err != nil {
			return err
		}
	}
	if err := h.may(core.Address{VHost: q.VHost, Exchange: core.DefaultExchange, Topic: max(q.Prefix, q.Name, "*")}); err != nil {
		return err
	}
	page, err := h.broker.Inspect(q)
	if err != nil {
		return core.AsError(err)
	}
	return h.rows(q.About, page, page.Next)
}

// after is the name behind which a list goes on, as an earlier OK gave it.
func after(r *request, about core.About) (string, error) {
	text, err := r.value(lsAfter)
	if err != nil {
		return "", err
	}
	if about == core.Bindings {
		return text, nil
	}
	if about == core.VHosts {
		return strings.TrimPrefix(text, "v/"), nil
	}
	a, e := core.ParseAddress("/", string(r.bytes(r.raw[lsAfter])))
	switch {
	case e != nil:
		return text, nil // a name is enough
	case about == core.Exchanges:
		return a.Exchange, nil
	}
	return a.Topic, nil
}

// query is what a pattern asks about.
func (h *handler) query(pattern []byte) (core.Query, error) {
	q := core.Query{VHost: h.identity.VHost}
	body, star := bytes.CutSuffix(pattern, []byte{'*'})
	if len(body) < 2 || body[1] != '/' {
		return q, core.Errorf(core.CodeBadValue, "a pattern is q/ord*, x/* or t/plant*, not %q", clip(pattern))
	}
	text := string(body)
	set := func(about core.About, name string) core.Query {
		q.About = about
		if star {
			q.Prefix = name
		} else {
			q.Name = name
		}
		return q
	}
	switch body[0] {
	case 'q', 'x':
		name, err := unescape(body[2:])
		if err != nil {
			return q, err
		}
		if body[0] == 'q' {
			return set(core.Queues, string(name)), nil
		}
		if strings.Contains(text[2:], "/") {
			return set(core.Bindings, text), nil
		}
		return set(core.Exchanges, string(name)), nil
	case 't':
		return set(core.Bindings, text), nil
	case 'v':
		name, err := unescape(body[2:])
		if err != nil {
			return q, err
		}
		return set(core.VHosts, string(name)), nil
	case 's':
		return q, core.NotYet("streams (s/...)")
	}
	return q, core.Errorf(core.CodeBadValue, "a pattern is q/ord*, x/* or t/plant*, not %q", clip(pattern))
}

// rows answers with a list. next is behind what the list goes on.
func (h *handler) rows(about core.About, page core.Page, next string) error {
	h.reply(func(out []byte) []byte {
		for i := range page.Rows {
			out = appendFields(out, rowName(about, page.Rows[i].Name), page.Rows[i].Fields)
		}
		out = append(out, "OK"...)
		if next != "" {
			out = appendOption(out, "after", rowName(about, next))
		}
		return append(out, '\n')
	})
	return nil
}

// rowName is the address of what a row is about.
func rowName(about core.About, name string) string {
	switch about {
	case core.Queues:
		return core.Address{Exchange: core.DefaultExchange, Topic: name}.String()
	case core.Exchanges:
		return core.Address{Exchange: name}.String()
	case core.VHosts:
		return string(appendEscaped([]byte("v/"), name, 0))
	case core.Bindings, core.Sessions, core.Fates, core.Counters:
	}
	return name
}

func appendFields(out []byte, name string, fields []core.Field) []byte {
	out = append(out, ": "...)
	out = append(out, name...)
	for _, f := range fields {
		out = append(out, ' ')
		name, argument := strings.CutPrefix(f.Name, ":")
		if argument { // named by a user
			out = appendEscaped(append(out, ':'), name, '=')
		} else {
			out = append(out, f.Name...)
		}
		if f.Value == "" && !argument && flags[f.Name] {
			continue
		}
		out = append(out, '=')
		if addresses[f.Name] {
			out = append(out, f.Value...) // it is escaped as addresses are
		} else {
			out = appendEscaped(out, f.Value, 0)
		}
	}
	return append(out, '\n')
}

// flags are the options of MK that have no value, addresses those whose value
// is one.
var flags, addresses = make(map[string]bool), make(map[string]bool)

// info says who the server is, who the client is, and what has ended how.
func (h *handler) info(*request) error {
	if err := h.may(core.Address{Exchange: core.DefaultExchange, Topic: "*"}); err != nil {
		return err
	}
	page, err := h.broker.Inspect(core.Query{About: core.Counters, VHost: h.identity.VHost})
	if err != nil {
		return core.AsError(err)
	}
	h.mu.Lock()
	unsettled, subs := 0, len(h.subs.byID)
	for _, s := range h.subs.bySid {
		unsettled += s.unsettled.live
	}
	h.mu.Unlock()
	now := h.broker.Now()
	h.reply(func(out []byte) []byte {
		out = appendFields(out, "server", []core.Field{
			{Name: "name", Value: h.options.Server},
			{Name: "protocol", Value: "1"},
			{Name: "time", Value: strconv.FormatInt(now.UnixMilli(), 10)},
		})
		out = appendFields(out, "session", []core.Field{
			{Name: "sess", Value: h.name},
			{Name: "vhost", Value: h.identity.VHost},
			{Name: "user", Value: h.identity.User},
			{Name: "client", Value: h.identity.Client},
			{Name: "subs", Value: strconv.Itoa(subs)},
			{Name: "unsettled", Value: strconv.Itoa(unsettled)},
		})
		for i := range page.Rows {
			out = appendFields(out, page.Rows[i].Name, page.Rows[i].Fields)
		}
		return append(out, "OK\n"...)
	})
	return nil
}

// explain tells the way a message would go, and publishes nothing.
func (h *handler) explain(r *request) error {
	where, err := h.target(r)
	if err != nil {
		return err
	}
	if err := h.may(where); err != nil {
		return err
	}
	m := &core.Message{Address: where, QoS: 1, Priority: core.DefaultPriority, From: h.identity, Arrived: h.broker.Now()}
	if err := headers(m, r); err != nil {
		return err
	}
	recorder := h.broker.Explain(*h.identity, m)
	h.reply(func(out []byte) []byte {
		for _, s := range recorder.Steps {
			out = appendRow(out, s.What, s.Name, s.Text)
		}
		return append(out, "OK\n"...)
	})
	return nil
}
