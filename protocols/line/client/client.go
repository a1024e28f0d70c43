package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options say who connects, and how. The zero value is an anonymous client.
type Options struct {
	Client string // a name, for traces and durable state
	User   string
	Pass   string
	Token  string // instead of User and Pass
	VHost  string

	TLS       *tls.Config   // nil: plain
	Heartbeat time.Duration // both sides send at least that often; 0: none
	Window    int           // publishes that may wait for their CONFIRM; 0: 1,024
	Buffer    int           // messages a live subscription holds for its reader; 0: 10,000

	// OnError is told what no call waits for: that an Ack failed, for
	// instance. It must not block. Nil: it is dropped.
	OnError func(error)
}

// ErrClosed is what is left of a Client after Close.
var ErrClosed = errors.New("the client is closed")

const (
	maxOut  = 1 << 20 // octets that wait to be written: then callers wait
	maxLine = 1 << 20
	maxBody = 64 << 20
)

// A Client is one connection.
type Client struct {
	options Options
	conn    net.Conn
	welcome map[string]string
	kick    chan struct{}
	done    chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	room    *sync.Cond // something was written, confirmed, or the end came
	out     []byte
	calls   []*call // answered in order
	pending []*Pending
	lastID  uint64
	subs    map[int]*Subscription
	gets    map[int]*get
	handles map[string]int // dest and lease: the sid of its GETs
	nextSid int
	err     error
}

// A call is a request whose answer is waited for.
type call struct {
	sid  int // of a SUB; else 0
	rows []string
	ok   map[string]string
	err  error
	done chan struct{}
}

// Dial connects and logs in. An addr with a slash is a Unix socket.
func Dial(ctx context.Context, addr string, o Options) (*Client, error) {
	network := "tcp"
	if strings.Contains(addr, "/") {
		network = "unix"
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if o.TLS != nil {
		conn = tls.Client(conn, o.TLS)
	}
	c := New(conn, o)
	if err := c.hello(ctx); err != nil {
		_ = c.Close() // the login's error is the one to tell
		return nil, fmt.Errorf("log in at %s: %w", addr, err)
	}
	return c, nil
}

// New makes a Client of a connection, without a login: the broker must let
// anonymous clients in.
func New(conn net.Conn, o Options) *Client {
	if o.Window <= 0 {
		o.Window = 1024
	}
	if o.Buffer <= 0 {
		o.Buffer = 10_000
	}
	c := &Client{
		options: o, conn: conn, kick: make(chan struct{}, 1), done: make(chan struct{}),
		subs: map[int]*Subscription{}, gets: map[int]*get{}, handles: map[string]int{},
	}
	c.room = sync.NewCond(&c.mu)
	c.running.Go(c.read)
	c.running.Go(c.write)
	return c
}

func (c *Client) hello(ctx context.Context) error {
	line := appendOption([]byte("HELLO 1"), "user", c.options.User)
	line = appendOption(line, "pass", c.options.Pass)
	line = appendOption(line, "token", c.options.Token)
	line = appendOption(line, "client", c.options.Client)
	line = appendOption(line, "vhost", c.options.VHost)
	line = appendLapse(line, "hb", c.options.Heartbeat)
	answer, err := c.call(ctx, string(line), 0)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.welcome = answer.ok
	c.mu.Unlock()
	return nil
}

// Welcome is what the broker said at login: server, sess, vhost, user, max...
func (c *Client) Welcome(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.welcome[name]
}

// Done is closed when the connection is over; Err says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the connection is over, or nil.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

const quitTime = 5 * time.Second

// Close ends politely: what was published is confirmed first, for 5 s at most.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.err == nil {
		c.out = append(c.out, "QUIT\n"...)
	}
	c.mu.Unlock()
	c.signal()
	select {
	case <-c.done:
	case <-time.After(quitTime):
	}
	c.end(ErrClosed)
	c.running.Wait()
	return nil
}

// end is the end of everything: whoever waits is told.
func (c *Client) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	calls, pending, subs, gets := c.calls, c.pending, c.subs, c.gets
	c.calls, c.pending = nil, nil
	c.subs, c.gets = map[int]*Subscription{}, map[int]*get{}
	close(c.done)
	c.room.Broadcast()
	c.mu.Unlock()
	c.conn.Close()
	for _, k := range calls {
		k.end(err)
	}
	for _, p := range pending {
		p.end(err)
		p.tell()
	}
	for _, s := range subs {
		s.end(err)
	}
	for _, g := range gets {
		g.end(err)
	}
}

func (k *call) end(err error) {
	k.err = err
	close(k.done)
}

// write writes what has gathered, in large chunks.
func (c *Client) write() {
	var spare []byte
	beat := c.beats()
	defer beat.Stop()
	for {
		select {
		case <-c.kick:
		case <-beat.C:
			c.mu.Lock()
			if len(c.out) == 0 {
				c.out = append(c.out, '\n')
			}
			c.mu.Unlock()
		case <-c.done:
			return
		}
		c.mu.Lock()
		out := c.out
		c.out = spare[:0]
		c.room.Broadcast()
		c.mu.Unlock()
		spare = out
		if len(out) == 0 {
			continue
		}
		if _, err := c.conn.Write(out); err != nil {
			c.end(fmt.Errorf("write: %w", err))
			return
		}
		if cap(spare) > 2*maxOut {
			spare = nil
		}
	}
}

// beats ticks often enough for our promise.
func (c *Client) beats() *time.Ticker {
	every := c.options.Heartbeat / 2
	if every <= 0 {
		every = 1 << 60
	}
	return time.NewTicker(every)
}

func (c *Client) signal() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// await waits under mu until ready says so, the context or the client ends.
func (c *Client) await(ctx context.Context, ready func() bool) error {
	if c.err == nil && ctx.Err() == nil && ready() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		c.room.Broadcast()
		c.mu.Unlock()
	})
	defer stop()
	for {
		switch {
		case c.err != nil:
			return c.err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case ready():
			return nil
		}
		c.room.Wait()
	}
}

// enqueue appends a request when there is room. add runs with mu held.
func (c *Client) enqueue(ctx context.Context, ready func() bool, add func()) error {
	c.mu.Lock()
	err := c.await(ctx, func() bool { return len(c.out) < maxOut && (ready == nil || ready()) })
	if err == nil {
		add()
	}
	c.mu.Unlock()
	if err == nil {
		c.signal()
	}
	return err
}

// call says a line and waits for its answer.
func (c *Client) call(ctx context.Context, line string, sid int) (*call, error) {
	k := &call{sid: sid, done: make(chan struct{})}
	err := c.enqueue(ctx, nil, func() {
		c.calls = append(c.calls, k)
		c.out = append(append(c.out, line...), '\n')
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-k.done:
		return k, k.err
	case <-ctx.Done():
		return nil, context.Cause(ctx) // its answer is dropped when it comes
	}
}

// read takes answers until the connection ends.
func (c *Client) read() {
	in := bufio.NewReaderSize(c.conn, 64<<10)
	for {
		line, err := readLine(in)
		if err == nil {
			err = c.heard(line, in)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the broker closed the connection")
			}
			c.end(err)
			return
		}
	}
}

func readLine(in *bufio.Reader) (string, error) {
	var long []byte
	for {
		part, err := in.ReadSlice('\n')
		if err == nil && long == nil {
			return strings.TrimRight(string(part), "\r\n"), nil
		}
		long = append(long, part...)
		switch {
		case err == nil:
			return strings.TrimRight(string(long), "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		case len(long) > maxLine:
			return "", fmt.Errorf("a line over %d octets", maxLine)
		}
	}
}

// heard is one answer. Its error ends the connection.
func (c *Client) heard(line string, in *bufio.Reader) error {
	if line == "" {
		return nil // a heart-beat
	}
	if row, ok := strings.CutPrefix(line, ":"); ok {
		c.row(strings.TrimPrefix(row, " "))
		return nil
	}
	words := strings.Split(line, " ")
	switch words[0] {
	case "MSG":
		d, length, err := parseMsg(words[1:])
		if err != nil {
			return err
		}
		if d.Body, err = readBody(in, length); err != nil {
			return err
		}
		c.deliver(d)
		return nil
	case "CONFIRM":
		if len(words) < 2 {
			return fmt.Errorf("no id in %q", line)
		}
		id, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return fmt.Errorf("CONFIRM: %w", err)
		}
		c.confirm(id)
		return nil
	case "OK", "PONG":
		c.answer(words[1:], nil)
		return nil
	case "ERR":
		return c.failed(words)
	case "END":
		return c.ended(words)
	}
	return fmt.Errorf("the broker said %q, which this client does not know", line)
}

// readBody reads a payload and its end. It takes memory as octets come.
func readBody(in *bufio.Reader, n int) ([]byte, error) {
	const chunk = 256 << 10
	body := make([]byte, min(n, chunk))
	for at := 0; ; {
		m, err := io.ReadFull(in, body[at:])
		if err != nil {
			return nil, err
		}
		if at += m; at == n {
			break
		}
		body = append(body, make([]byte, min(n-at, max(chunk, at)))...)
	}
	c, err := in.ReadByte()
	if err == nil && c == '\r' {
		c, err = in.ReadByte()
	}
	if err == nil && c != '\n' {
		err = errors.New("a payload does not end where its length says")
	}
	return body, err
}

// row is a row of a list: the oldest call's.
func (c *Client) row(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) > 0 {
		c.calls[0].rows = append(c.calls[0].rows, text)
	}
}

// answer ends the oldest call.
func (c *Client) answer(words []string, err error) {
	c.mu.Lock()
	if len(c.calls) == 0 {
		c.mu.Unlock()
		if err != nil {
			c.report(err)
		}
		return
	}
	k := c.calls[0]
	c.calls = c.calls[1:]
	c.mu.Unlock()
	if err == nil {
		k.ok = map[string]string{}
		for _, w := range words {
			name, value, _ := strings.Cut(w, "=")
			if text, err := Unescape(value); err == nil {
				value = text
			}
			k.ok[name] = value
		}
	}
	k.end(err)
}

func (c *Client) report(err error) {
	if c.options.OnError != nil {
		c.options.OnError(err)
	}
}

// failed gives an ERR to whom it belongs.
func (c *Client) failed(words []string) error {
	if len(words) < 3 {
		return fmt.Errorf("an ERR of %d words", len(words))
	}
	e := &Error{Class: words[2]}
	e.Code, _ = strconv.Atoi(words[1])
	rest := words[3:]
	id, sid := uint64(0), -1
	if len(rest) > 0 {
		if v, ok := strings.CutPrefix(rest[0], "id="); ok {
			id, _ = strconv.ParseUint(v, 10, 64)
			rest = rest[1:]
		} else if v, ok := strings.CutPrefix(rest[0], "sid="); ok {
			sid, _ = strconv.Atoi(v)
			rest = rest[1:]
		}
	}
	e.Text = strings.Join(rest, " ")
	switch {
	case e.Class == "fatal":
		return e
	case id > 0:
		c.refuse(id, e)
	case sid >= 0:
		c.failedSid(sid, e)
	default:
		c.answer(nil, e)
	}
	return nil
}

// failedSid is about a GET that runs, a SUB that waits, or what nobody waits
// for.
func (c *Client) failedSid(sid int, e *Error) {
	c.mu.Lock()
	g := c.gets[sid]
	delete(c.gets, sid)
	mine := len(c.calls) > 0 && c.calls[0].sid == sid && sid > 0
	c.mu.Unlock()
	switch {
	case g != nil:
		g.end(e)
	case mine:
		c.answer(nil, e)
	default:
		c.report(e)
	}
}
