package interop

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-stomp/stomp/v3"
)

// A device publishes with QoS 1 into a topic that a durable queue is bound to;
// a worker on another protocol reads it: at once, and after kill -9 between
// the publish and the read.
//
// mission: S1 S8 S30 S39 S59, P1
func TestSpine(t *testing.T) {
	readers := []struct {
		name string
		read func(*testing.T, *broker, string)
	}{
		{"go-stomp with ACK", readStomp},
		{"mosquitto_sub", readMosquitto},
		{"nc", readNc},
	}
	b := start(t)
	b.typed().say("MK q/readings", "OK")
	b.typed().say("BIND q/readings t/plant/+/temp", "OK")
	for _, killed := range []string{"", " after kill -9"} {
		for _, r := range readers {
			t.Run(r.name+killed, func(t *testing.T) {
				body := r.name + killed
				b.mosquittoPub(t, "plant/7/temp", body)
				if killed != "" {
					b.kill()
					b.run()
				}
				r.read(t, b, body)
				stat := b.typed()
				stat.say("GET q/readings", "END 0 0 why=done") // settled: nothing is left
			})
		}
	}
}

func (b *broker) mosquittoPub(t *testing.T, topic, body string) {
	t.Helper()
	host, port := split(t, b.mqtt)
	run(t, "", "mosquitto_pub", "-h", host, "-p", port, "-q", "1", "-t", topic, "-m", body)
}

func readStomp(t *testing.T, b *broker, want string) {
	c, err := stomp.Dial("tcp", b.stomp)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := c.Subscribe("/queue/readings", stomp.AckClientIndividual)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-sub.C:
		if m.Err != nil || string(m.Body) != want {
			t.Fatalf("got %q (%v), want %q", m.Body, m.Err, want)
		}
		if err := c.Ack(m); err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	if err := c.Disconnect(); err != nil { // its receipt comes after the ACK is done
		t.Fatal(err)
	}
}

func readMosquitto(t *testing.T, b *broker, want string) {
	host, port := split(t, b.mqtt)
	got := run(t, "", "mosquitto_sub", "-h", host, "-p", port, "-q", "1", "-t", "$queue/readings", "-C", "1", "-W", "15")
	if strings.TrimSuffix(got, "\n") != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func readNc(t *testing.T, b *broker, want string) {
	host, port := split(t, b.line)
	nc := exec.CommandContext(t.Context(), tool(t, "nc"), "-q", "5", host, port)
	in, _ := nc.StdinPipe()
	out, _ := nc.StdoutPipe()
	if err := nc.Start(); err != nil {
		t.Fatal(err)
	}
	defer nc.Wait()
	defer nc.Process.Kill()
	c := &pipe{t, in, out, ""}
	c.say("GET q/readings wait=10s")
	head := c.line()
	if f := strings.Fields(head); len(f) < 5 || f[0] != "MSG" || f[3] != "t/plant/7/temp" {
		t.Fatalf("got %q", head)
	}
	if body := c.line(); body != want {
		t.Fatalf("got %q, want %q", body, want)
	}
	if end := c.line(); end != "END 0 1 why=done" {
		t.Fatalf("got %q", end)
	}
	c.say("ACK 0 " + strings.Fields(head)[2])
	c.say("PING")
	if pong := c.line(); pong != "PONG" {
		t.Fatalf("got %q", pong)
	}
}
