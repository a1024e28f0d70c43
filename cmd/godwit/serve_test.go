package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

// within is how long a test waits for what must come.
const within = 10 * time.Second

// A talk is a line protocol connection of a test.
type talk struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, addr string) *talk {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, within)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &talk{t, conn, bufio.NewReader(conn)}
}

func (c *talk) say(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format+"\n", args...); err != nil {
		c.t.Fatalf("say "+format+": %v", append(args, err)...)
	}
}

func (c *talk) hear() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("hear: %v (after %q)", err, line)
	}
	return strings.TrimRight(line, "\r\n")
}

func (c *talk) expect(prefix string) string {
	c.t.Helper()
	line := c.hear()
	if !strings.HasPrefix(line, prefix) {
		c.t.Fatalf("heard %q, want %q...", line, prefix)
	}
	return line
}

// The program starts with nothing but an empty directory, keeps what it
// confirmed over a clean end, and says no lie about its health.
// mission: S16
func TestServe(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	p := start(t, dir)
	if got := get(t, "http://"+p.at["http"]+"/healthz"); got != "200 ok\n" {
		t.Errorf("/healthz: %q", got)
	}
	if got := get(t, "http://"+p.at["http"]+"/readyz"); got != "200 ready\n" {
		t.Errorf("/readyz: %q", got)
	}
	a := dial(t, p.at["line"])
	a.say("PUB q/kept id=1 5\nhello")
	a.expect("CONFIRM 1")
	if code := p.stop(); code != 0 {
		t.Errorf("after SIGTERM: exit code %d, want 0", code)
	}

	p = start(t, dir)
	b := dial(t, p.at["line"])
	b.say("GET q/kept wait=5s")
	b.expect("MSG 0 ")
	b.expect("hello")
	b.expect("END 0 1")
	if code := p.stop(); code != 0 {
		t.Errorf("after SIGTERM: exit code %d, want 0", code)
	}
}

// A listener has a virtual host for who names none; the same topic in another
// never crosses. It is told in the configuration which there are.
//
// mission: S12
func TestListenerPicksTheVHost(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "godwit.yaml")
	text := "listeners: {east: {address: 127.0.0.1:0, vhost: east}}\nvhosts: {east: {queues: [{name: q}]}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, t.TempDir(), "--store", "memory", "--config", file)
	a, b := dial(t, p.at["east"]), dial(t, p.at["line"])
	a.say("HELLO 1")
	if got := a.hear(); !strings.Contains(got, " vhost=east ") {
		t.Errorf("at the listener of east: %s", got)
	}
	b.say("HELLO 1")
	if got := b.hear(); !strings.Contains(got, " vhost=/ ") {
		t.Errorf("at another: %s", got)
	}
	mqtt := dial(t, p.at["east"])
	if _, err := io.WriteString(mqtt, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x1e\x00\x01a"); err != nil {
		t.Fatal(err)
	}
	var connack [4]byte
	if _, err := io.ReadFull(mqtt, connack[:]); err != nil {
		t.Fatal(err)
	}
	a.say("SUB 1 t/t")
	a.expect("OK sid=1")
	b.say("SUB 1 t/t")
	b.expect("OK sid=1")
	if _, err := io.WriteString(mqtt, "\x30\x05\x00\x01thi"); err != nil {
		t.Fatal(err)
	}
	a.expect("MSG 1 1 t/t ")
	a.expect("hi")
	stomp := dial(t, p.at["east"])
	stomp.say("CONNECT\naccept-version:1.2\nhost:127.0.0.1\n\n\x00SEND\ndestination:/topic/t\n\nho\x00")
	a.expect("MSG 1 2 t/t ")
	a.expect("ho")
	b.say("PING x")
	b.expect("PONG x") // and nothing before it
}

// Each port serves all three protocols.
func TestOnePortServesAll(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "--store", "memory", "--stomp", "off", "--line", "off")
	addr := p.at["mqtt"]
	if p.at["stomp"] != "" || p.at["line"] != "" {
		t.Errorf("ports that are off listen: %v", p.at)
	}
	line := dial(t, addr)
	line.say("PING x")
	line.expect("PONG x")
	stomp := dial(t, addr)
	stomp.say("CONNECT\naccept-version:1.2\nhost:/\n\n\x00")
	stomp.expect("CONNECTED")
	mqtt := dial(t, addr)
	if _, err := io.WriteString(mqtt, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x1e\x00\x01a"); err != nil {
		t.Fatal(err)
	}
	var connack [4]byte
	if _, err := io.ReadFull(mqtt, connack[:]); err != nil || connack != [4]byte{0x20, 2, 0, 0} {
		t.Errorf("CONNACK % x, %v", connack, err)
	}
}

// The configuration's topology is there before the first client, and a second
// start changes nothing.
func TestServeDeclaresTheTopology(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "godwit.yaml")
	text := "vhosts: {/: {queues: [{name: readings}], bindings: [{queue: readings, source: t/plant/+/temp}]}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for id := 1; id <= 2; id++ {
		p := start(t, filepath.Join(dir, "data"), "--config", file)
		a := dial(t, p.at["line"])
		a.say("PUB t/plant/7/temp id=%d 4\n21.%d", id, id)
		a.expect(fmt.Sprintf("CONFIRM %d", id))
		a.say("STAT q/readings")
		a.expect(fmt.Sprintf(": q/readings ready=%d ", id))
		if code := p.stop(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	}
}

// fails runs godwit args, which is to end by itself, and returns what it says.
func fails(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := program(t, args...)
	guard := time.AfterFunc(within, func() { _ = cmd.Process.Kill() })
	defer guard.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestServeSaysWhyItCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	out, err := fails(t, "serve", "--data", t.TempDir(), "--mqtt", taken.Addr().String(), "--http", "off")
	if err == nil || !strings.Contains(out, "listen for mqtt on "+taken.Addr().String()) {
		t.Errorf("a port that is taken: %v\n%s", err, out)
	}
}

// A directory belongs to one process at a time.
func TestServeTakesNoDirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, dir)
	free := "127.0.0.1:0"
	out, err := fails(t, "serve", "--data", dir, "--mqtt", free, "--stomp", "off", "--line", "off", "--http", "off")
	if err == nil || !strings.Contains(out, "open the data: ") {
		t.Errorf("a directory in use: %v\n%s", err, out)
	}
}

// A lost store ends the program with a code of its own.
// mission: P12
func TestWait(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	closed := make(chan struct{})
	close(closed)
	web := make(chan error, 1)
	web <- errors.New("no more files")
	sick := func() core.Health { return core.Health{Err: errors.New("input/output error")} }
	for _, tt := range []struct {
		sentence string
		err      error
		code     int
		text     string
	}{
		{"asked to end: no error", wait(gone, nil, nil, sick), 0, ""},
		{"the store is lost: 74", wait(t.Context(), closed, nil, sick), 74, "input/output error"},
		{"the http port is lost", wait(t.Context(), nil, web, sick), 0, "the http port ended: no more files"},
	} {
		exit, _ := errors.AsType[*exitError](tt.err)
		if (exit != nil && exit.code != tt.code) || (exit == nil && tt.code != 0) || (tt.err == nil) != (tt.text == "") ||
			(tt.err != nil && !strings.Contains(tt.err.Error(), tt.text)) {
			t.Errorf("%s: wait = %v", tt.sentence, tt.err)
		}
	}
}

func TestReadiness(t *testing.T) {
	state := new(readiness)
	h := newHTTP(state).Handler
	for _, tt := range []struct{ why, want string }{
		{"starting", "503 not ready: starting\n"},
		{ready, "200 ready\n"},
		{"the store is lost", "503 not ready: the store is lost\n"},
	} {
		if tt.why != "starting" {
			state.set(tt.why)
		}
		if got := handle(t, h, "/readyz"); got != tt.want {
			t.Errorf("/readyz when %q: %q, want %q", tt.why, got, tt.want)
		}
		if got := handle(t, h, "/healthz"); got != "200 ok\n" {
			t.Errorf("/healthz when %q: %q", tt.why, got)
		}
	}
	if got := handle(t, h, "/nothing"); !strings.HasPrefix(got, "404") {
		t.Errorf("/metrics: %q, want 404", got)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: within}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return said(t, r)
}

func said(t *testing.T, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", r.StatusCode, body)
}

func handle(t *testing.T, h http.Handler, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return said(t, w.Result())
}
