package line

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols"
)

// mission: S37
func TestPerson(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.dial()
	c.expect("SAY q/orders hello world", "")
	c.expect("GET q/orders n=1 wait=5s", "MSG 0 1 q/orders ts=_ 11\nhello world\nEND 0 1 why=done")
	c.expect("ACK 0 1", "")
	c.expect("STAT q/orders", ": q/orders ready=0 unacked=0 delayed=0 bytes=0 consumers=1\nOK")
	c.expect("QUIT", "OK")
	if !c.closed || c.outbox == nil {
		t.Errorf("QUIT did not close: %v", c)
	}
}

func TestHello(t *testing.T) {
	w := newWorld(t, Options{Server: "godwit/1.0"})
	c := w.dial()
	c.expect("PING before", "PONG before")
	c.expect("HELLO 1 client=billing hb=30s", "OK v=1 server=godwit/1.0 sess=_ vhost=/ user=anonymous max=1048576 line=4096 subs=1024 pubs=65536")
	c.expect("HELLO 1", "ERR 409 no HELLO comes once, and first")
	c.expect("PING", "PONG")
	if c.closed {
		t.Error("closed")
	}
}

func TestHelloRefused(t *testing.T) {
	far := protocols.Peer{Remote: "192.0.2.1:9"}
	for _, tt := range []struct {
		name, say, want string
		peer            protocols.Peer
		options         Options
	}{
		{"another version", "HELLO 2", "ERR 406 fatal version \"2\": this server speaks 1, say HELLO 1", protocols.Peer{}, Options{}},
		{"an unknown option", "HELLO 1 foo=1", "ERR 406 fatal unknown option*", protocols.Peer{}, Options{}},
		{"a control character in a producer's name", "HELLO 1 pid=a%0Ab", "ERR 400 fatal a name cannot hold*", protocols.Peer{}, Options{}},
		{"a password in plain text", "HELLO 1 user=a pass=b", "ERR 401 fatal a password or token in plain text: use TLS", far, Options{}},
		{"a token in plain text", "HELLO 1 token=b", "ERR 401 fatal a password*", far, Options{}},
		{"a stranger", "HELLO 1", "ERR 401 fatal only loopback*", far, Options{}},
		{"a stranger's first verb", "SAY q/a hi", "ERR 401 fatal only loopback*", far, Options{}},
		{"a stranger with a password, where that is allowed", "HELLO 1 user=a pass=b", "ERR 401 fatal only loopback*", far, Options{PlaintextLogin: true}},
		{"a password without a user", "HELLO 1 pass=b", "ERR 406 fatal pass= needs user=", protocols.Peer{}, Options{}},
		{"a token and a user", "HELLO 1 user=a token=b", "ERR 406 fatal token=*", protocols.Peer{}, Options{}},
		{"a control character in a name", "HELLO 1 client=a%0Ab", "ERR 400 fatal a name cannot hold*", protocols.Peer{}, Options{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newWorld(t, tt.options).dialFrom(tt.peer)
			c.expect(tt.say, tt.want)
			if !c.closed {
				t.Error("it is not closed")
			}
		})
	}
}

// A guard that lets nobody do one thing.
type deny struct {
	core.LoopbackGuard
	do   core.Action
	seen *core.Login
}

func (d deny) Enter(ctx context.Context, l core.Login) (core.Identity, error) {
	if d.seen != nil {
		*d.seen = l
	}
	return d.LoopbackGuard.Enter(ctx, l)
}

func (d deny) Allow(_ *core.Identity, a core.Access, _ func(core.Permit)) core.Permit {
	if a.Do == d.do {
		return core.No
	}
	return core.Yes
}

func TestGuardIsToldWhoComes(t *testing.T) {
	var seen core.Login
	w := guarded(t, Options{}, deny{do: 99, seen: &seen})
	c := w.dialFrom(protocols.Peer{Remote: "127.0.0.1:5", Listener: "line", Secure: true, User: "CN=x"})
	c.expect("HELLO 1 user=an%20na pass=s%25cret vhost=/ client=c1", "OK v=1 server=godwit sess=_ vhost=/ user=an%20na max=_ line=_ subs=_ pubs=_")
	want := core.Identity{VHost: "/", User: "an na", Client: "c1", Protocol: "line", Listener: "line", Remote: "127.0.0.1:5"}
	if id := seen.Identity; id.VHost != want.VHost || id.User != want.User || id.Client != want.Client ||
		id.Protocol != want.Protocol || id.Listener != want.Listener || id.Remote != want.Remote {
		t.Errorf("the guard saw %+v", id)
	}
	if string(seen.Secret) != "s%cret" || string(seen.TLS) != "CN=x" {
		t.Errorf("the guard saw secret %q, TLS %q", seen.Secret, seen.TLS)
	}
}

func TestRights(t *testing.T) {
	for _, tt := range []struct {
		do        core.Action
		say, want string
	}{
		{core.ActPublish, "PUB q/a id=1 2\nhi", "ERR 403 no id=1 not allowed to publish q/a"},
		{core.ActPublish, "SAY q/a hi", ""},
		{core.ActPublish, "BEGIN\nPUB q/a 2\nhi\nCOMMIT", "ERR 403 no not allowed to publish q/a\nERR 412 no nothing of the batch*"},
		{core.ActListen, "SUB 1 t/a", "ERR 403 no sid=1 not allowed*"},
		{core.ActConsume, "SUB 1 q/a", "ERR 403 no sid=1 not allowed*"},
		{core.ActConsume, "GET q/a", "ERR 403 no sid=0 not allowed*"},
		{core.ActDeclare, "MK q/a", "ERR 403 no not allowed*"},
		{core.ActManage, "RM q/a", "ERR 403 no not allowed*"},
		{core.ActMonitor, "STAT q/a", "ERR 403 no not allowed*"},
		{core.ActMonitor, "LS", "ERR 403 no not allowed*"},
		{core.ActMonitor, "INFO", "ERR 403 no not allowed*"},
		{core.ActMonitor, "EXPLAIN q/a", "ERR 403 no not allowed*"},
	} {
		c := guarded(t, Options{}, deny{do: tt.do}).ready()
		c.expect(tt.say, tt.want)
	}
}

// CONFIRM comes when the disk has it, and one for all that is done.
// mission: P1
func TestConfirm(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("MK q/a", "OK")
	w.disk.Hold()
	c.expect("PUB q/a id=1 1\na\nPUB q/a id=2 1\nb\nPUB q/a id=9 1\nc\nPING", "PONG")
	w.disk.Resume()
	c.hears("CONFIRM 9")
	c.expect("PUB q/a id=9 1\nd", "ERR 409 no id=9 ids rise: 9 came before, or a higher one")
	c.expect("PUB q/a id=3 1\nd", "ERR 409 no id=3 ids rise: 3 came before, or a higher one")
	c.expect("PUB q/a 1\nd", "")
	c.expect("PUB q/a qos=1 1\nd", "")
	c.expect("STAT q/a", ": q/a ready=5 *\nOK")
}

// An ERR with an id comes before any CONFIRM that covers it, and not before
// the answers of those before it.
func TestErrKeepsItsPlace(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("MK q/a\nMK q/full max_messages=1", "OK\nOK")
	w.disk.Hold()
	c.expect("PUB q/a id=41 12\n{\"total\":12}\nPUB q/a id=42 pri=9 2\nok", "")
	c.in = append(c.in, "PUB q/orders id=43 2000000\n"...)
	c.in = append(c.in, strings.Repeat("PUB q/evil 1\nx\n", 2000000/15+1)[:2000000]...)
	c.expect("", "")
	c.expect("PUB q/full id=44 1\na\nPUB q/full id=45 foo=1 1\nb", "")
	w.disk.Resume()
	c.hears("ERR 413 no id=43 payload over 1048576\nCONFIRM 43\nERR 406 no id=45 unknown option*\nCONFIRM 45")
	c.expect("PUB q/full id=46 1\nb", "ERR 429 retry id=46 queue \"full\" is full")
	c.expect("STAT q/evil", "ERR 404 no *")
}

// mission: P2
func TestDiskFull(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("PUB q/a id=1 1\na", "CONFIRM 1")
	c.expect("GET q/a", "MSG 0 _ q/a ts=_ 1\na\nEND 0 1 why=done")
	w.disk.SetFull(true)
	c.expect("PUB q/a id=2 1\nb", "ERR 507 retry id=2 *")
	if seq := c.unsettled(0); len(seq) != 1 {
		t.Fatalf("unsettled: %v", seq)
	} else {
		c.expect(fmt.Sprintf("ACK 0 %d id=3", seq[0]), "CONFIRM 3")
	}
}

// unsettled are the numbers of a subscription's unsettled deliveries.
func (c *conn) unsettled(sid uint32) (seqs []uint64) {
	if s := c.handler.subs.bySid[sid]; s != nil {
		return s.unsettled.between(nil, 0, 1<<63)
	}
	return nil
}

// Whatever a refused PUB carries, none of it is run.
func TestPayloadIsNeverRun(t *testing.T) {
	evil := "SAY q/evil x\nPUB q/evil 1\nx\n"
	for _, tt := range []struct{ name, line, want string }{
		{"too large", "PUB q/a %d", "ERR 413 no payload over 64"},
		{"an unknown option", "PUB q/a foo=1 %d", "ERR 406 no unknown*"},
		{"two spaces", "PUB q/a  %d", "ERR 400 no column 8*"},
		{"no UTF-8", "PUB q/a\xff %d", "ERR 400 no *"},
		{"no destination", "PUB %d", "ERR 400 no *"},
		{"a bad destination", "PUB zz %d", "ERR 400 no *"},
		{"wildcards", "PUB t/a/# %d", "ERR 406 no t/a/#: *"},
		{"an exchange without key", "PUB x/amq.topic id=9 %d", "ERR 400 no id=9 exchange \"amq.topic\" is topic and wants a key*"},
		{"what is not built", "PUB s/a %d", "ERR 406 no streams*"},
		{"what is not built, in a header", "PUB q/a qos=1 expect=5 %d", "ERR 406 no expect: not supported yet"},
		{"retain of a queue", "PUB q/a retain %d", "ERR 406 no retain*"},
		{"two times to expire", "PUB q/a ttl=1s exp=1 %d", "ERR 406 no ttl=*"},
		{"an id that does not rise", "PUB q/a id=1 %d", "ERR 409 no id=1*"},
		{"no such exchange", "PUB x/nowhere/k must id=7 %d", "ERR 404 no id=7 no exchange*"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, split := range []bool{false, true} {
				w := newWorld(t, Options{MaxPayload: 64})
				c := w.ready()
				c.expect("PUB q/a id=5 0\n", "CONFIRM 5")
				c.split = split
				body := evil
				if tt.name == "too large" {
					body = strings.Repeat(evil, 10)
				}
				want := tt.want
				got := c.send(fmt.Sprintf(tt.line, len(body)) + "\n" + body + "\nPING\n")
				if rest, ok := strings.CutPrefix(got, "PONG\n"); ok { // core refused it, when it was its turn
					got = rest + "PONG\n"
				}
				if !matches(got, want+"\nPONG") {
					t.Errorf("split %v: got %q, want %q", split, got, want)
				}
				c.expect("STAT q/evil", "ERR 404 no *")
			}
		})
	}
}

func TestBadInput(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		name, in, want string
		fatal          bool
	}{
		{"an unknown verb", "FROB q/a\n", "ERR 405 no unknown verb \"FROB\": *", false},
		{"an unknown verb that may have a payload", "FROB q/a 5\n", "ERR 405 fatal *", true},
		{"an unknown verb of digits", "12345\n", "ERR 405 fatal *", true},
		{"a verb of nine letters", "FROBNICATE\n", "ERR 405 no *", false},
		{"a line that is too long", long + "\n", "ERR 413 fatal line over 4096 octets", true},
		{"a line that is too long and does not end", long, "ERR 413 fatal line over 4096 octets", true},
		{"a payload that is much too long", "PUB q/a 16777217\n", "ERR 413 fatal payload over 16 times 1048576", true},
		{"a payload without its end", "PUB q/a 2\nhi there\n", "ERR 400 fatal the payload*", true},
		{"a skipped payload without its end", "PUB q/a x 2\nhi there\n", "ERR 406 no *\nERR 400 fatal the payload*", true},
		{"a length that is none", "PUB q/a 2x\nhi\n", "ERR 400 fatal PUB ends*", true},
		{"a space first", " PING\n", "ERR 405 no *", false},
		{"a browser's GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", true},
		{"a browser's GET of something", "GET /line HTTP/1.1\r\n", "", true},
		{"a browser's POST", "POST /line HTTP/1.1\r\n", "", true},
		{"a browser's PUT", "PUT q/a\n", "", true},
		{"a line that ends in HTTP/1.0", "FROB HTTP/1.0\r\n", "", true},
		{"a text that ends in HTTP/1.1 is a text", "SAY q/a GET / HTTP/1.1\n", "", false},
		{"SUB 0", "SUB 0 q/a\n", "ERR 406 no sid=0 0 is GET's*", false},
		{"a sid with ten digits", "SUB 1000000000 q/a\n", "ERR 400 no *", false},
		{"an address of no kind", "STAT z/a\n", "ERR 400 no *", false},
		{"an empty name", "STAT q/\n", "ERR 400 no *", false},
		{"a control character in a name", "STAT q/a%0Ab\n", "ERR 400 no *", false},
		{"NUL in a name", "STAT q/a%00\n", "ERR 400 no *", false},
		{"NUL in a header", "PUB q/a :a=%00 0\n\n", "ERR 400 no \"%00\": *", false},
		{"no UTF-8 in a header", "PUB q/a ct=%ff 0\n\n", "ERR 400 no *", false},
		{"any octets in cid", "PUB q/a cid=%ff%00 0\n\n", "", false},
		{"empty lines are heart-beats", "\n\r\n\n", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, split := range []bool{false, true} {
				c := newWorld(t, Options{}).ready()
				c.split = split
				if got := c.send(tt.in); !matches(got, tt.want) || c.closed != tt.fatal {
					t.Errorf("split %v: %q\n got %q, closed %v\nwant %q, %v", split, tt.in, got, c.closed, tt.want, tt.fatal)
				}
			}
		})
	}
}

// Before anything was done for a stranger, each error is the last.
func TestFirstErrorIsFatal(t *testing.T) {
	for _, in := range []string{"FROB\n", "STAT q/none\n", "HELP FROB\n", "PUB q/a foo=1 0\n", "SUB 1\n", "COMMIT\n"} {
		c := newWorld(t, Options{}).dial()
		if got := c.send(in); !strings.HasPrefix(got, "ERR ") || !strings.Contains(got, " fatal ") || !c.closed {
			t.Errorf("%q: %q, closed %v", in, got, c.closed)
		}
	}
	c := newWorld(t, Options{}).dial()
	c.in = append(c.in, strings.Repeat("PING\n", 1700)...)
	c.w.settle()
	if got := c.take(); !strings.HasSuffix(got, "ERR 413 fatal over 8192 octets before HELLO\n") || !c.closed {
		t.Errorf("8 KiB before login: %.100q, closed %v", got[max(0, len(got)-100):], c.closed)
	}
}

func TestFirstLineIsShort(t *testing.T) {
	c := newWorld(t, Options{MaxLine: 64 << 10}).dial()
	if got := c.send("PING " + strings.Repeat("x", 9000) + "\n"); got != "ERR 413 fatal line over 8192 octets\n" {
		t.Errorf("heard %q", got)
	}
}

func TestTooManyErrors(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	for range 19 {
		c.expect("FROB", "ERR 405 no *")
	}
	w.pass(11 * time.Second)
	for range 19 {
		c.expect("PUB x/none/k qos=1 0\n", "ERR 404 no *")
	}
	c.expect("FROB", "ERR 405 no *\nERR 429 fatal 20 errors in 10s")
	if !c.closed {
		t.Error("it is not closed")
	}
}

func TestLogin(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.dial()
	w.pass(9 * time.Second)
	c.expect("PING", "PONG")
	w.pass(time.Second)
	c.hears("ERR 408 fatal no HELLO within 10s")
	if !c.closed {
		t.Error("it is not closed")
	}
}

func TestHeartbeat(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.dial()
	c.expect("HELLO 1 hb=4s", "OK v=1 *")
	w.pass(5 * time.Second)
	if got := c.take(); got != "\n" {
		t.Errorf("after 5 s of silence: %q, want an empty line", got)
	}
	c.expect("", "") // our own
	w.pass(7 * time.Second)
	c.take()
	if c.closed {
		t.Fatal("closed too early")
	}
	w.pass(2 * time.Second)
	if got := c.take(); !strings.HasSuffix(got, "ERR 408 fatal nothing came for twice hb=4s\n") || !c.closed {
		t.Errorf("after 9 s: %q, closed %v", got, c.closed)
	}
}

// Whom we hold back is not late.
func TestHeartbeatStandsStill(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.dial()
	c.expect("HELLO 1 hb=4s", "OK v=1 *")
	w.disk.Hold()
	c.expect("MK q/a", "")
	w.pass(time.Minute)
	if c.closed {
		t.Fatalf("closed: %v", c.err)
	}
	c.take()
	w.disk.Resume()
	c.hears("OK")
}

func TestQuit(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("MK q/a", "OK")
	w.disk.Hold()
	c.expect("PUB q/a id=1 1\na\nBEGIN\nPUB q/a 1\nb\nQUIT", "")
	w.disk.Resume()
	c.hears("CONFIRM 1\nOK")
	if !c.closed || c.handler.batch != nil {
		t.Errorf("closed %v", c.closed)
	}
	d := w.ready()
	d.expect("STAT q/a", ": q/a ready=1 *\nOK")
	w.disk.Hold()
	d.expect("PUB q/a id=1 1\na\nQUIT", "")
	w.pass(6 * time.Second)
	d.hears("ERR 408 fatal what is unconfirmed after 5s stays so")
	e := w.dial()
	e.expect("QUIT", "OK")
}

func TestManageHoldsTheReader(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	w.disk.Hold()
	c.expect("MK q/a\nSTAT q/a\nPING", "")
	w.disk.Resume()
	c.hears("OK\n: q/a ready=0 unacked=0 delayed=0 bytes=0 consumers=0\nOK\nPONG")
}

func TestManage(t *testing.T) {
	for _, tt := range []struct{ say, want string }{
		{"MK q/a class=async max_messages=5 max_bytes=100 overflow=drop_oldest lease=5s auto_delete store_transient", "OK"},
		{"MK q/b\nMK q/b", "OK\nOK"},
		{"MK q/b\nMK q/b class=async", "OK\nERR 409 no declare queue \"b\"*"},
		{"MK q/b max_messages=1\nMK q/b alter max_messages=2\nMK q/b max_messages=2", "OK\nOK\nOK"},
		{"MK q/a ttl=5s max_attempts=3 backoff=1s-5m~0.2 dead_letter=q/dead overflow=dead_letter max_messages=9 idle_expiry=1h", "OK"},
		{"MK q/a priorities=10 max_wait=30s single_active keyed\nMK q/a alter priorities=3", "OK\nOK"},
		{"MK q/a backoff=soon", "ERR 406 no backoff \"soon\"*"},
		{"MK q/a overflow=dead_letter", "ERR 406 no overflow=dead_letter needs*"},
		{"MK q/a dead_letter=q/a", "ERR 406 no queue \"a\" cannot be its own*"},
		{"MK q/a priorities=11", "ERR 406 no priorities wants a number from 0 to 10*"},
		{"MK q/a max_wait=5s", "ERR 406 no max_wait needs*"},
		{"SAY q/a 1\nSAY q/a 2\nMK q/b\nMOVE q/a q/b n=1\nMOVE q/a q/b\nGET q/b n=2 ack=auto", "OK\nOK n=1\nOK n=1\nMSG 0 1 q/a ts=_ 1\n1\nMSG 0 3 q/a ts=_ 1\n2\nEND 0 2 why=done"},
		{"MK q/a\nREDRIVE q/a", "OK\nOK n=0"},
		{"MK q/a\nMOVE q/a q/a", "OK\nERR 406 no queue \"a\" cannot be moved into itself"},
		{"REDRIVE t/a", "ERR 406 no REDRIVE wants q/*"},
		{"SAY q/a 1\nREDRIVE q/a", "ERR 404 no none of 1 messages was moved*"},
		{"SAY q/a 1\nSAY q/a 2\nSUB 3 q/a peek\nSTAT q/a", "OK sid=3\nMSG 3 1 q/a ts=_ 1\n1\nMSG 3 3 q/a ts=_ 1\n2\nEND 3 2 why=done\n: q/a ready=2 unacked=0 *\nOK"},
		{"SUB 3 q/a exclusive\nSUB 4 q/a\nSUB 5 q/a takeover rank=3", "OK sid=3\nERR 409 no sid=4 *\nEND 3 0 why=taken code=423\nOK sid=5"},
		{"MK q/a dead_letter=zz/b", "ERR 406 no dead_letter wants an address*"},
		{"MK q/a deliver=on_arrival", "ERR 406 no deliver=on_arrival: not supported yet"},
		{"MK q/a kind=topic", "ERR 406 no kind is no option of q/"},
		{"MK s/a", "ERR 406 no streams: not supported yet"},
		{"MK s/a overflow=reject", "ERR 406 no overflow is no option of s/"},
		{"MK t/a", "ERR 406 no MK wants*"},
		{"MK x/logs", "OK"},
		{"MK x/logs/key", "ERR 406 no an exchange is x/NAME*"},
		{"MK x/logs kind=fanout", "OK"},
		{"MK x/logs kind=fanout\nMK x/logs kind=fanout\nMK x/logs", "OK\nOK\nERR 409 no declare exchange \"logs\": exists with other settings: kind is fanout, asked for topic"},
		{"MK x/logs\nMK x/logs alter internal auto_delete", "OK\nOK"},
		{"MK x/logs alternate=x/none", "ERR 404 no *"},
		{"MK x/logs alternate=x/amq.fanout transient", "OK"},
		{"MK x/logs kind=odd", "ERR 406 no *"},
		{"MK x/amq.default", "ERR 403 no *"},
		{"RM x/amq.default", "ERR 403 no *"},
		{"MK v/south", "OK"},
		{"MK v/south%20pole\nMK v/south%20pole\nLS v/so*", "OK\nOK\n: v/south%20pole queues=0 exchanges=5 sessions=0\nOK"},
		{"MK v/", "ERR 400 no *"},
		{"MK v/x kind=fanout", "ERR 406 no a virtual host has no options*"},
		{"RM v/south", "ERR 406 no RM of a virtual host: not supported yet"},
		{"STAT x/amq.default", ": x/amq.default kind=default bindings=0\nOK"},
		{"MK x/amq.mine", "ERR 403 no *"},
		{"MK q/a\nRM q/a", "OK\nOK"},
		{"RM q/none", "ERR 404 no no queue \"none\""},
		{"PUB q/a id=1 1\na\nRM q/a if_empty", "ERR 409 no *\nCONFIRM 1"},
		{"RM x/amq.topic", "ERR 403 no *"},
		{"MK x/logs\nRM x/logs if_unused", "OK\nOK"},
		{"RM x/logs if_empty", "ERR 406 no if_empty is no option of x/"},
		{"PURGE q/none", "ERR 404 no *"},
		{"MK q/r\nBIND q/r t/plant/+/temp\nBIND q/r t/plant/+/temp\nUNBIND q/r t/plant/+/temp", "OK\nOK\nOK\nOK"},
		{"BIND q/none t/a", "ERR 404 no no queue \"none\""},
		{"MK q/r\nUNBIND q/r t/a", "OK\nERR 404 no *"},
		{"MK q/r\nBIND q/r t/a/#/b", "OK\nOK"},
		{"MK q/r\nBIND q/r t/a+/b", "OK\nERR 400 no *"},
		{"MK q/r\nBIND q/r x/none/k", "OK\nERR 404 no *"},
		{"MK q/r\nBIND q/r x/none", "OK\nERR 404 no no exchange \"none\""},
		{"MK q/r\nBIND q/r x/amq.direct", "OK\nERR 400 no exchange \"amq.direct\" is direct: it wants a key*"},
		{"MK q/r\nBIND q/r x/amq.direct/a/#", "OK\nERR 406 no exchange \"amq.direct\" is direct and compares whole keys*"},
		{"MK q/r\nBIND q/r x/amq.fanout", "OK\nOK"},
		{"MK q/r\nBIND q/r x/amq.headers match=any :a=b :c=\nLS x/amq.headers/*", "OK\nOK\n: x/amq.headers/ queue=r match=any :a=b :c=\nOK"},
		{"MK q/r\nBIND q/r x/amq.headers :a=b\nUNBIND q/r x/amq.headers", "OK\nOK\nERR 404 no q/r is not bound to x/amq.headers"},
		{"MK q/r\nBIND q/r x/amq.headers :a=b\nUNBIND q/r x/amq.headers :a=b", "OK\nOK\nOK"},
		{"MK q/r\nBIND q/r t/a match=any", "OK\nERR 406 no exchange \"amq.topic\" is topic: arguments are asked by a headers exchange alone"},
		{"MK q/r\nBIND q/r q/a", "OK\nERR 403 no amq.default takes no bindings*"},
		{"BIND x/logs t/a", "ERR 404 no no exchange \"logs\""},
		{"BIND x/amq.fanout t/a\nUNBIND x/amq.fanout t/a", "OK\nOK"},
		{"BIND x/amq.default t/a", "ERR 403 no *"},
		{"BIND s/logs t/a", "ERR 406 no bindings of streams*"},
		{"BIND q/a t/a sel=x", "ERR 406 no sel=*"},
		{"STAT s/a", "ERR 406 no streams*"},
		{"STAT x/amq.topic", ": x/amq.topic kind=topic bindings=0 unrouted=0 diverted=0\nOK"},
		{"STAT t/a", "ERR 406 no STAT wants*"},
		{"STAT x/none", "ERR 404 no *"},
		{"EXPLAIN t/a", ": exchange amq.topic topic: compares the key with filters\n: nobody t/a *\nOK"},
		{"MK q/r\nBIND q/r t/a\nEXPLAIN t/a :x=1", "OK\nOK\n: exchange amq.topic topic: compares the key with filters\n: binding t/a queue \"r\" takes it\n: queue r kept there until acknowledged\nOK"},
		{"EXPLAIN t/a user=x", "ERR 406 no user=*"},
	} {
		t.Run(tt.say, func(t *testing.T) {
			c := newWorld(t, Options{}).ready()
			got := c.send(tt.say + "\n")
			if !matches(sortConfirms(got), tt.want) {
				t.Errorf("\n got %q\nwant %q", got, tt.want)
			}
		})
	}
}

// sortConfirms puts CONFIRMs last: when they are due is not what is tested.
func sortConfirms(s string) string {
	var rest, confirms string
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "CONFIRM") {
			confirms += line
		} else {
			rest += line
		}
	}
	return rest + confirms
}

func TestList(t *testing.T) {
	c := newWorld(t, Options{}).ready()
	c.expect("MK q/b\nMK q/a%20a\nMK q/c\nMK x/logs\nBIND q/b t/plant/#\nBIND q/c x/logs/k", "OK\nOK\nOK\nOK\nOK\nOK")
	c.expect("LS", ": q/a%20a ready=0 unacked=0 delayed=0 bytes=0 consumers=0\n: q/b *\n: q/c *\nOK")
	c.expect("LS q/a*", ": q/a%20a *\nOK")
	c.expect("LS q/b", ": q/b *\nOK")
	c.expect("LS q/* after=q/b", ": q/c *\nOK")
	c.expect("LS q/none*", "OK")
	c.expect("LS x/l*", ": x/logs kind=topic bindings=1 unrouted=0 diverted=0\nOK")
	c.expect("LS x/amq.t*", ": x/amq.topic kind=topic bindings=1 unrouted=0 diverted=0\nOK")
	c.expect("LS t/plant*", ": t/plant/# queue=b\nOK")
	c.expect("LS x/logs/*", ": x/logs/k queue=c\nOK")
	c.expect("MK x/all kind=fanout alternate=x/logs internal\nMK q/d max_messages=10 lease=90s auto_delete\nBIND x/all x/logs/k", "OK\nOK\nOK")
	c.expect("LS x/* settings", ": x/all kind=fanout alternate=x/logs internal\n: x/logs kind=topic\nOK")
	c.expect("LS q/d settings", ": q/d max_messages=10 lease=90s auto_delete\nOK")
	c.expect("LS x/logs/* settings", ": x/logs/k exchange=all\n: x/logs/k queue=c\nOK")
	c.expect("LS s/*", "ERR 406 no streams*")
	c.expect("LS z/*", "ERR 406 no a pattern is*")
	for i := range 1100 {
		c.handler.session.Apply([]core.Change{{Queue: &core.QueueSpec{Name: fmt.Sprintf("many/%04d", i)}}}, nobody)
	}
	got := c.send("LS q/many/*\n")
	if n := strings.Count(got, "\n"); n != 1001 || !strings.HasSuffix(got, "\nOK after=q/many/0999\n") {
		t.Errorf("%d lines, ends %q", n, got[len(got)-40:])
	}
	if got := c.send("LS q/many/* after=q/many/0999\n"); strings.Count(got, "\n") != 101 || !strings.HasSuffix(got, "\nOK\n") {
		t.Errorf("the rest: %d lines", strings.Count(got, "\n"))
	}
}

func TestHelp(t *testing.T) {
	c := newWorld(t, Options{}).ready()
	if got := c.send("HELP\n"); got != overview {
		t.Errorf("HELP says %q", got)
	}
	for i := range verbs {
		v := &verbs[i]
		if !strings.Contains(overview, v.name) && v.name != "CREDIT" {
			t.Errorf("HELP does not know %s", v.name)
		}
		got := c.send("HELP " + strings.ToLower(v.name) + "\n")
		if !strings.HasPrefix(got, ": "+v.grammar+"\n") || !strings.HasSuffix(got, "\nOK\n") {
			t.Errorf("HELP %s: %q", v.name, got)
		}
		if n := strings.Count(got, "\n"); n < 3+len(v.options) {
			t.Errorf("HELP %s has %d lines", v.name, n)
		}
		for _, o := range v.options {
			if !strings.Contains(got, o.usage()) || o.help == "" {
				t.Errorf("HELP %s does not tell %s", v.name, o.name)
			}
		}
	}
	c.expect("HELP FROB", "ERR 404 no no verb*")
}

// Every example of HELP does what it shows.
func TestHelpExamples(t *testing.T) {
	before := map[string]string{
		"COMMIT": "BEGIN\nPUB q/hello 2\nhi\n", "ABORT": "BEGIN\n",
		"UNSUB": "SUB 7 t/a\n", "CREDIT": "SUB 8 q/a credit=1\n",
		"ACK":   "SAY q/hello hi\nGET q/hello\n",
		"NACK":  "SAY q/hello 1\nSAY q/hello 2\nGET q/hello n=2 sid=8\nNACK 8 1-3\n",
		"TOUCH": "SAY q/hello 1\nSAY q/hello 2\nSAY q/hello 3\nSAY q/hello 4\nSUB 8 q/hello\n",
		"RM":    "MK q/readings\n", "PURGE": "MK q/readings\n",
		"BIND": "MK q/readings\n", "UNBIND": "MK q/readings\nBIND q/readings t/plant/+/temp\n",
		"STAT": "SAY q/hello hi\n",
		"MOVE": "MK q/old\nMK q/new\n", "REDRIVE": "MK q/dead\n",
	}
	for i := range verbs {
		v := &verbs[i]
		t.Run(v.name, func(t *testing.T) {
			example := v.example
			if v.name == "NACK" {
				example = strings.Replace(example, "4", "1", 1)
			}
			if v.name == "TOUCH" {
				example = strings.Replace(example, " 6 ", " 7 ", 1)
			}
			c := newWorld(t, Options{}).dial()
			if v.name != "HELLO" {
				c.expect("HELLO 1", "OK v=1 *")
			}
			c.send(before[v.name])
			if got := c.send(example + "\n"); strings.HasPrefix(got, "ERR ") || strings.Contains(got, "\nERR ") {
				t.Errorf("%q: %s", example, got)
			}
		})
	}
	c := newWorld(t, Options{}).dial()
	c.expect("SAY q/hello hi there", "")
	c.expect("GET q/hello", "MSG 0 1 q/hello ts=_ 8\nhi there\nEND 0 1 why=done")
	c.expect("ACK 0 1", "")
	c.expect("STAT q/hello", ": q/hello ready=0 unacked=0 *\nOK")
}

func TestInfo(t *testing.T) {
	c := newWorld(t, Options{Server: "godwit/1.0"}).ready()
	got := c.send("INFO\n")
	if !strings.HasPrefix(got, ": server name=godwit/1.0 protocol=1 time=") || !strings.HasSuffix(got, "\nOK\n") {
		t.Errorf("INFO says %q", got)
	}
}

func TestEvicted(t *testing.T) {
	c := newWorld(t, Options{}).ready()
	c.out = c.handler.Deliver(c.out, []core.Event{
		{Kind: core.Confirmed, Token: 1}, {Kind: core.Evicted, Err: core.ErrTakenOver}, {Kind: core.Confirmed, Token: 2, Err: core.ErrConflict},
	})
	c.hears("ERR 409 no id=2 conflict\nERR 423 fatal taken over by another connection") // the farewell is the last
	if !c.closed {
		t.Error("it is not closed")
	}
}

// mission: P12
func TestDiskFails(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	c.expect("MK q/a", "OK")
	w.disk.Fail()
	got := c.send("PUB q/a id=1 1\na\nPING\n")
	if strings.Contains(got, "CONFIRM") {
		t.Errorf("heard %q", got)
	}
	t.Logf("heard %q", got)
}

func TestPurge(t *testing.T) {
	c := newWorld(t, Options{}).ready()
	c.expect("PUB q/a id=1 1\na\nPUB q/a id=2 1\nb", "CONFIRM 2")
	c.expect("PURGE q/a", "OK n=2")
	c.expect("STAT q/a", ": q/a ready=0 *\nOK")
}

// The reader stops when answers are not read, and the connection ends when
// that stays so.
func TestAnswersThatAreNotRead(t *testing.T) {
	w := newWorld(t, Options{})
	c := w.ready()
	h := c.handler
	in := []byte(strings.Repeat("HELP\n", 200))
	var err error
	for n := 0; err == nil && n < 100; n++ {
		_, err = h.Receive(in)
	}
	if !errors.Is(err, core.ErrWait) || len(h.replies) > 3*maxReplies {
		t.Fatalf("after %d octets of answers: %v", len(h.replies), err)
	}
	now := w.box.Clock.Now()
	if err := h.Tick(now); err != nil {
		t.Fatal(err)
	}
	if err := h.Tick(now.Add(59 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var polite *protocols.Close
	if err := h.Tick(now.Add(61 * time.Second)); err == nil || errors.As(err, &polite) {
		t.Errorf("after a minute: %v", err)
	}
	c.resumed = false
	h.Deliver(nil, nil)
	if !c.resumed {
		t.Error("Deliver did not resume the reader")
	}
}

func TestSniff(t *testing.T) {
	p := New(Options{})
	for _, tt := range []struct {
		in   string
		want protocols.Match
	}{
		{"", protocols.NeedMore},
		{"P", protocols.NeedMore},
		{"hel", protocols.NeedMore},
		{"HELLO", protocols.NeedMore},
		{"HELLO ", protocols.IsMatch},
		{"hello 1\n", protocols.IsMatch},
		{"QUIT\n", protocols.IsMatch},
		{"INFO\r", protocols.IsMatch},
		{"GET", protocols.NeedMore},
		{"GET ", protocols.NeedMore},
		{"GET /", protocols.NoMatch},
		{"GET q", protocols.IsMatch},
		{"POST", protocols.NoMatch},
		{"CONNECT\n", protocols.NoMatch},
		{"STOMP\n", protocols.NoMatch},
		{"\x10\x10", protocols.NoMatch},
		{"\x16\x03\x01", protocols.NoMatch},
		{"\n", protocols.NoMatch},
		{"PUBX ", protocols.NoMatch},
		{"SEND\n", protocols.NoMatch},
		{"EXPLAIN q/a", protocols.IsMatch},
		{"abcdefghijkl", protocols.NoMatch},
	} {
		if got := p.Sniff([]byte(tt.in)); got != tt.want {
			t.Errorf("Sniff(%q) = %d, want %d", tt.in, got, tt.want)
		}
	}
}

func TestOptions(t *testing.T) {
	if err := (Options{}).Validate(); err != nil {
		t.Error(err)
	}
	err := Options{MaxPayload: 65 << 20, MaxLine: 10, Subscriptions: -1, Unconfirmed: 1 << 20}.Validate()
	for _, want := range []string{"max_payload", "max_line", "subscriptions", "unconfirmed"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate does not name %s: %v", want, err)
		}
	}
}
