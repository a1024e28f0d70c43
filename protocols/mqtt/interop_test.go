package mqtt_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/mqtt"
	"github.com/godwitmq/godwit/protocols/transport"
)

// serve starts a broker on a port of loopback, and ends it with the test.
func serve(t *testing.T) (port string) {
	b, err := core.New(core.Options{Store: memory.New(memory.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := transport.New(transport.Options{Broker: b})
	if err := s.Serve(l, transport.ListenerOptions{Name: "mqtt", Protocols: []protocols.Protocol{mqtt.New(mqtt.Options{})}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// tool is a stock client under way.
type tool struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    bytes.Buffer
	cancel context.CancelFunc
}

func start(t *testing.T, name string, args ...string) *tool {
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is not installed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	p := &tool{t: t, cmd: exec.CommandContext(ctx, path, args...), cancel: cancel}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *tool) wait() string {
	p.t.Helper()
	defer p.cancel()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%v: %v: %s", p.cmd.Args, err, p.out.String())
	}
	return p.out.String()
}

// mission: S59
func TestMosquittoClients(t *testing.T) {
	port := serve(t)
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		for qos := range 3 {
			q := fmt.Sprint(qos)
			topic := "plant/" + version + q + "/temp"
			common := []string{"-p", port, "-V", version, "-q", q}
			// A kept session makes the order sure: first subscribed, then published, then read.
			session := append([]string{"-i", "dev" + version + q, "-c", "-t", topic}, common...)
			if version == "mqttv5" {
				session = append(session, "-x", "60")
			}
			start(t, "mosquitto_sub", append([]string{"-E"}, session...)...).wait()
			start(t, "mosquitto_pub", append([]string{"-r", "-t", topic, "-m", "21.5"}, common...)...).wait()
			sub := start(t, "mosquitto_sub", append([]string{"-C", "1", "-W", "5"}, session...)...)
			if got := sub.wait(); got != "21.5\n" {
				t.Errorf("%s QoS %d: got %q", version, qos, got)
			}
		}
	}
}

// Many messages in flight at once, to a reader and from a writer that do not wait.
func TestMosquittoStream(t *testing.T) {
	port := serve(t)
	var lines strings.Builder
	for i := range 2000 {
		fmt.Fprintln(&lines, i)
	}
	for qos := 1; qos < 3; qos++ {
		q := fmt.Sprint(qos)
		session := []string{"-p", port, "-V", "5", "-i", "stream" + q, "-c", "-x", "60", "-q", q, "-t", "stream/" + q}
		start(t, "mosquitto_sub", append([]string{"-E"}, session...)...).wait()
		sub := start(t, "mosquitto_sub", append([]string{"-C", "2000", "-W", "15"}, session...)...)
		path, _ := exec.LookPath("mosquitto_pub")
		pub := exec.Command(path, "-p", port, "-V", "5", "-q", q, "-t", "stream/"+q, "-l")
		pub.Stdin = strings.NewReader(lines.String())
		if out, err := pub.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := sub.wait(); got != lines.String() {
			t.Errorf("QoS %d: got %d lines, want 2000 in order", qos, strings.Count(got, "\n"))
		}
	}
}

// mission: S13
func TestMosquittoRequestResponse(t *testing.T) {
	port := serve(t)
	session := []string{"-p", port, "-V", "5", "-i", "answerer", "-c", "-x", "60", "-q", "1", "-t", "ask"}
	start(t, "mosquitto_sub", append([]string{"-E"}, session...)...).wait()
	rr := start(t, "mosquitto_rr", "-p", port, "-V", "5", "-q", "1", "-t", "ask", "-e", "to/me", "-m", "how warm?", "-W", "10")
	request := start(t, "mosquitto_sub", append([]string{"-C", "1", "-W", "10", "-F", "%p %R"}, session...)...).wait()
	if request != "how warm? to/me\n" {
		t.Errorf("the request: %q, want how warm? to/me", request)
	}
	start(t, "mosquitto_pub", "-p", port, "-V", "5", "-q", "1", "-t", "to/me", "-m", "21.5").wait()
	if got := rr.wait(); got != "21.5\n" {
		t.Errorf("the answer: %q, want 21.5", got)
	}
}
