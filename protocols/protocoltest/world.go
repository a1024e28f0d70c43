package protocoltest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/core/coretest"
	"github.com/godwitmq/godwit/protocols"
)

// A world is one run of a script: a broker in its box and who talks to it.
type world struct {
	options Options
	script  *script
	at      int // the step that is being played
	vars    vars
	box     *coretest.Box
	dial    func(protocol string) (net.Conn, error) // over the wire
	stop    func(context.Context) error
	clock   *coretest.Clock // the box's, or one without a box
	setup   setup
	conns   map[string]*conn
	order   []*conn           // those of conns, first come first
	protos  map[string]string // of every name there ever was
	last    *conn             // has sent something since the last settle
	broken  bool              // the disk has failed
	edits   map[int]string    // of -update: what stands in a line's place
}

// setup is what the line "broker ..." says.
type setup struct {
	shards       int
	clock        time.Time
	noAutoCreate bool
}

// maxTurns is how many rounds without rest are taken for a loop.
const maxTurns = 100_000

// play plays a script once.
func play(s *script, values map[string]string, o Options) (w *world, err error) {
	w = &world{
		options: o, script: s, vars: vars{}, conns: map[string]*conn{},
		protos: map[string]string{}, edits: map[int]string{},
	}
	maps.Copy(w.vars, values)
	defer func() {
		if p := recover(); p != nil {
			err = w.fail("panic: %v\n%s", p, stack())
		}
	}()
	for w.at = range s.steps {
		if err := w.step(&s.steps[w.at]); err != nil {
			err = w.wrap(err)
			if w.stop != nil {
				_ = w.done() // the first fault is the one to tell
			}
			return w, err
		}
	}
	return w, w.wrap(w.done())
}

// done ends the run: a broker that cannot be left is a fault too.
func (w *world) done() error {
	for _, c := range w.order {
		c.leave(nil)
	}
	if w.stop != nil {
		return w.shutdown()
	}
	return w.settle()
}

// shutdown ends a run over the wire.
func (w *world) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	w.box.Disk.Resume()
	err := w.stop(ctx)
	if w.broken {
		return err
	}
	return errors.Join(err, w.box.Broker.Close(ctx))
}

func (w *world) step(st *step) error {
	if st.kind == 'w' {
		return w.world(st.words)
	}
	if err := w.power(); err != nil {
		return err
	}
	proto, err := w.vars.fill(st.proto)
	if err != nil {
		return err
	}
	switch st.kind {
	case '>':
		return w.send(proto, st)
	case '<':
		return w.expect(proto, st)
	default:
		return w.neutral(proto, st)
	}
}

// power makes the broker, if that was not done yet.
func (w *world) power() error {
	if w.clock != nil {
		return nil
	}
	if w.options.NewDisk == nil {
		w.clock = coretest.NewClock(coretest.Start)
		return nil
	}
	box, err := coretest.New(coretest.Options{
		Disk: w.options.NewDisk(), Guard: w.options.Guard,
		Start: w.setup.clock, Shards: w.setup.shards, NoAutoCreate: w.setup.noAutoCreate,
		Running: w.options.Wire != nil,
	})
	if err != nil {
		return err
	}
	w.box, w.clock = box, box.Clock
	if w.options.Wire != nil {
		w.dial, w.stop, err = w.options.Wire.Serve(box.Broker)
	}
	return err
}

func (w *world) broker() *core.Broker {
	if w.box == nil {
		return nil
	}
	return w.box.Broker
}

// settle goes on until nobody has anything to do.
func (w *world) settle() error {
	w.last = nil
	if w.dial != nil {
		return w.quiet()
	}
	for range maxTurns {
		busy := w.box != nil && w.box.Turn()
		for _, c := range w.order {
			for c.work() {
				busy = true
			}
		}
		if !busy {
			return nil
		}
	}
	return coretest.ErrNoRest
}

// send feeds a connection. What one connection sends in a row goes in
// together; before another speaks the broker settles.
func (w *world) send(proto string, st *step) error {
	text := st.text
	if !st.exact {
		filled, err := w.vars.fill(text)
		if err != nil {
			return err
		}
		text = filled
	}
	c, err := w.conn(proto, st.name, !st.exact && greets(text))
	if err != nil {
		return err
	}
	if w.last != c {
		if err := w.settle(); err != nil {
			return err
		}
	}
	if c.gone {
		return fmt.Errorf("%s was closed by the broker: %w", c.name, c.why)
	}
	bytes := []byte(text)
	if !st.exact {
		if bytes, err = c.wire.encode(text); err != nil {
			return err
		}
	}
	c.feed(bytes)
	w.last = c
	return nil
}

// conn is the connection of that name, made and logged in if there is none.
func (w *world) conn(proto, name string, raw bool) (*conn, error) {
	if c := w.conns[name]; c != nil {
		if proto != "" && proto != c.proto {
			return nil, fmt.Errorf("%s speaks %s", name, c.proto)
		}
		return c, nil
	}
	if proto == "" {
		proto = w.protos[name]
	}
	if proto == "" {
		return nil, fmt.Errorf("%s is not known here: say which protocol it speaks", name)
	}
	return w.open(proto, name, nil, raw)
}

func (w *world) open(proto, name string, options []field, raw bool) (*conn, error) {
	if err := w.settle(); err != nil {
		return nil, err
	}
	if w.conns[name] != nil {
		return nil, fmt.Errorf("%s is open already", name)
	}
	if w.box != nil && w.box.Broker == nil {
		return nil, errors.New("the power is off")
	}
	side, err := newWire(proto)
	if err != nil {
		return nil, err
	}
	kind, _, _ := strings.Cut(proto, "/")
	c := &conn{
		name: name, proto: proto, wire: side, split: w.options.Split,
		peer: protocols.Peer{Remote: "pipe", Listener: kind, Secure: true},
	}
	if err := w.connect(c, kind); err != nil {
		return nil, err
	}
	w.conns[name], w.protos[name] = c, proto
	w.order = append(w.order, c)
	if raw {
		return c, nil
	}
	return c, w.login(c, options)
}

// connect gives a connection its handler, or a socket with one behind it.
func (w *world) connect(c *conn, kind string) error {
	if w.dial != nil {
		nc, err := w.dial(kind)
		if err == nil {
			c.socket = newSocket(nc)
		}
		return err
	}
	adapter := w.options.Protocols[kind]
	if adapter == nil {
		return fmt.Errorf("no adapter for %s was given in Options", kind)
	}
	c.handler = adapter.Open(c, w.broker())
	return nil
}

func (w *world) login(c *conn, options []field) error {
	say, welcome, err := c.wire.login(c.name, options)
	if err != nil || say == "" {
		return err
	}
	bytes, err := c.wire.encode(say)
	if err != nil {
		return err
	}
	c.feed(bytes)
	if err := w.settle(); err != nil {
		return err
	}
	answer, err := w.answer(c, c.wire.first)
	if err != nil {
		return fmt.Errorf("%s logs in with %s: %w", c.name, say, err)
	}
	diff, err := c.wire.match(welcome, answer, vars{})
	if err == nil && diff != "" {
		err = fmt.Errorf("%s logs in with %s, and gets %s", c.name, say, c.wire.show(answer))
	}
	return err
}

// answer takes the next answer off what the broker wrote.
func (w *world) answer(c *conn, cut func([]byte) (skip, n int, err error)) ([]byte, error) {
	skip, n, err := cut(c.out)
	for err == nil && n == 0 && c.await(answerTime) {
		skip, n, err = cut(c.out)
	}
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errNothing
	}
	answer := c.out[skip : skip+n]
	c.out = c.out[skip+n:]
	return answer, nil
}

// errNothing says that an answer did not come.
var errNothing = errors.New("nothing came")

func (w *world) expect(proto string, st *step) error {
	if err := w.settle(); err != nil {
		return err
	}
	if st.text == "eof" && !st.exact && w.conns[st.name] == nil && w.protos[st.name] != "" {
		return nil // cut, closed or without power
	}
	c, err := w.conn(proto, st.name, false)
	if err != nil {
		return err
	}
	switch {
	case c.stopped:
		return fmt.Errorf("%s does not read: say go %s first", c.name, c.name)
	case st.exact:
		return w.expectBytes(c, st.text)
	case st.text == "-":
		return w.expectNothing(c)
	case st.text == "eof":
		return w.expectEOF(c)
	}
	answer, err := w.answer(c, c.wire.first)
	if err != nil {
		if w.options.Update && errors.Is(err, errNothing) {
			w.edits[st.line] = ""
			return nil
		}
		return err
	}
	diff, err := c.wire.match(st.text, answer, w.vars)
	if err != nil || diff == "" {
		return err
	}
	if w.options.Update {
		prefix, _, _ := strings.Cut(w.script.lines[st.line-1], "<")
		w.edits[st.line] = prefix + "< " + c.wire.show(answer)
		return nil
	}
	return fmt.Errorf("%s\n   got: %s", diff, c.wire.show(answer))
}

func (w *world) expectBytes(c *conn, want string) error {
	for len(c.out) < len(want) && c.await(answerTime) {
	}
	got := string(c.out[:min(len(want), len(c.out))])
	if got != want {
		return fmt.Errorf("the bytes differ\n   got: %q", c.out)
	}
	c.out = c.out[len(want):]
	return nil
}

func (w *world) expectNothing(c *conn) error {
	if err := w.nothing(c); err != nil {
		return err
	}
	if c.gone {
		return fmt.Errorf("%s was closed by the broker: %w", c.name, c.why)
	}
	return nil
}

// nothing says that the broker wrote no answer that was not looked at.
func (w *world) nothing(c *conn) error {
	skip, n, err := c.wire.first(c.out)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("something came\n   got: %s", c.wire.show(c.out[skip:skip+n]))
	}
	if skip < len(c.out) {
		return fmt.Errorf("part of an answer came\n   got: %q", c.out[skip:])
	}
	return nil
}

func (w *world) expectEOF(c *conn) error {
	if err := w.nothing(c); err != nil {
		return err
	}
	for !c.gone && c.await(answerTime) {
	}
	if err := w.nothing(c); err != nil {
		return err
	}
	if !c.gone {
		return fmt.Errorf("%s is open", c.name)
	}
	c.leave(nil)
	w.drop(c)
	return nil
}

// drop forgets a connection, so that its name connects anew.
func (w *world) drop(c *conn) {
	delete(w.conns, c.name)
	for i := range w.order {
		if w.order[i] == c {
			w.order = append(w.order[:i:i], w.order[i+1:]...)
			return
		}
	}
}

// world moves the world.
func (w *world) world(written []string) error {
	words := make([]string, len(written))
	for i := range written {
		filled, err := w.vars.fill(written[i])
		if err != nil {
			return err
		}
		words[i] = filled
	}
	if words[0] == "broker" {
		return w.describe(words[1:])
	}
	if err := w.power(); err != nil {
		return err
	}
	if err := w.settle(); err != nil {
		return err
	}
	switch words[0] {
	case "settle":
		return nil
	case "open":
		return w.openStep(words[1:])
	case "close", "cut", "stop", "go":
		return w.client(words)
	case "tick":
		return w.tick(words)
	case "disk", "power":
		if w.box == nil || len(words) != 2 {
			return fmt.Errorf("want %s and one word, and a broker in the box", words[0])
		}
		if words[0] == "disk" {
			return w.disk(words[1])
		}
		return w.switchPower(words[1])
	}
	return fmt.Errorf("%s: not supported yet", words[0])
}

func (w *world) describe(words []string) (err error) {
	if w.clock != nil {
		return errors.New("broker must be the first step")
	}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "store":
			if value != "memory" {
				err = fmt.Errorf("store=%s: only memory can be held, filled and cut", value)
			}
		case "shards":
			w.setup.shards, err = strconv.Atoi(value)
		case "clock":
			w.setup.clock, err = time.Parse(time.RFC3339, value)
		case "auto_create":
			w.setup.noAutoCreate = value == "false"
		default:
			err = fmt.Errorf("%s: want store, shards, clock or auto_create", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) openStep(words []string) error {
	if len(words) < 2 {
		return errors.New("want open PROTOCOL NAME [raw] [OPTION=VALUE]...")
	}
	raw := false
	var options []field
	for _, word := range words[2:] {
		if word == "raw" {
			raw = true
			continue
		}
		name, value, has := strings.Cut(word, "=")
		if !has {
			value = "1"
		}
		options = append(options, field{name, value})
	}
	_, err := w.open(words[0], words[1], options, raw)
	return err
}

func (w *world) client(words []string) error {
	if len(words) != 2 || w.conns[words[1]] == nil {
		return fmt.Errorf("want %s and the name of an open connection", words[0])
	}
	c := w.conns[words[1]]
	switch words[0] {
	case "cut":
		c.leave(errCut)
		w.drop(c)
	case "close":
		bytes, err := c.wire.encode(c.wire.goodbye())
		if err != nil {
			return err
		}
		c.feed(bytes)
		if err := w.settle(); err != nil {
			return err
		}
		c.leave(nil)
		w.drop(c)
	case "stop":
		c.stopped = true
	case "go":
		c.stopped = false
	}
	return w.settle()
}

func (w *world) tick(words []string) error {
	if len(words) != 2 {
		return errors.New("want tick and a duration")
	}
	d, err := time.ParseDuration(words[1])
	if err != nil {
		return err
	}
	for _, c := range w.order {
		c.tick(w.clock.Now()) // from now on it counts
	}
	for step := range coretest.Steps(d) {
		if w.box != nil {
			w.box.Pass(step)
		} else {
			w.clock.Advance(step)
		}
		for _, c := range w.order {
			c.tick(w.clock.Now())
		}
		if err := w.settle(); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) disk(word string) error {
	d := w.box.Disk
	switch word {
	case "hold":
		d.Hold()
	case "sync":
		d.Sync()
	case "ok":
		d.SetFull(false)
		d.Resume()
	case "full":
		d.SetFull(true)
	case "fail":
		w.broken = true
		d.Fail()
	default:
		return fmt.Errorf("disk %s: want hold, sync, ok, full or fail", word)
	}
	return w.settle()
}

func (w *world) switchPower(word string) error {
	switch word {
	case "off":
		w.box.PowerOff() // nobody is told, and nobody answers any more
		clear(w.conns)
		w.order = nil
		return nil
	case "on":
		return w.box.PowerOn()
	}
	return fmt.Errorf("power %s: want off or on", word)
}
