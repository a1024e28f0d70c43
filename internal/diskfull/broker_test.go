//go:build linux

package diskfull

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// soon is how long anything may take that must come.
const soon = 60 * time.Second

// A broker is the real program, with its data on the small disk.
type broker struct {
	t                 *testing.T
	binary, config    string
	mqtt, stomp, line string
	cmd               *exec.Cmd
	log               *os.File
	ended             chan struct{}
}

const configText = `
listeners:
  mqtt: {address: %q}
  stomp: {address: %q}
  line: {address: %q}
http: {address: off}
store:
  dir: %q
  badger: {profile: edge}
log: {level: info, format: text}
vhosts:
  /:
    queues: [{name: full-mqtt}, {name: full-stomp}, {name: full-line}]
    bindings: [{queue: full-mqtt, source: t/full/mqtt}]
`

func newBroker(t *testing.T, data, binary string) *broker {
	t.Helper()
	dir := t.TempDir() // not on the small disk
	b := &broker{t: t, binary: binary, config: filepath.Join(dir, "godwit.yaml")}
	if b.binary == "" {
		b.binary = filepath.Join(dir, "godwit")
		cmd := exec.Command("go", "build", "-o", b.binary, "./cmd/godwit")
		cmd.Dir = "../.."
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the broker: %v\n%s", err, said)
		}
	}
	for _, addr := range []*string{&b.mqtt, &b.stomp, &b.line} {
		*addr = freePort(t)
	}
	text := fmt.Sprintf(configText, b.mqtt, b.stomp, b.line, data)
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.log, err = os.Create(filepath.Join(dir, "broker.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.alive() {
			b.kill()
		}
		if t.Failed() {
			t.Logf("the broker said:\n%s", b.said())
		}
		_ = b.log.Close()
	})
	return b
}

// freePort is below those that the system gives to outgoing connections: a
// client that dials such a port while nobody listens may be connected to
// itself.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// start starts the process; it does not wait until it listens.
func (b *broker) start() {
	b.t.Helper()
	b.cmd = exec.Command(b.binary, "serve", "--config", b.config)
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	cmd, ended := b.cmd, make(chan struct{})
	b.ended = ended
	go func() { // kill waits for it
		_ = cmd.Wait()
		close(ended)
	}()
}

func (b *broker) alive() bool {
	if b.ended == nil {
		return false
	}
	select {
	case <-b.ended:
		return false
	default:
		return true
	}
}

// mustLive fails the test when the process has ended by itself.
func (b *broker) mustLive(when string) {
	b.t.Helper()
	if !b.alive() {
		b.t.Fatalf("%s: the broker has ended by itself: %s", when, b.cmd.ProcessState)
	}
}

// awaitPorts returns when all ports take connections.
func (b *broker) awaitPorts(when string) {
	b.t.Helper()
	for _, addr := range []string{b.mqtt, b.stomp, b.line} {
		b.await(when+": it listens on "+addr, func() bool {
			nc, err := net.Dial("tcp", addr)
			if err == nil {
				nc.Close()
			}
			return err == nil
		})
	}
}

// await waits for what must come while the broker lives.
func (b *broker) await(what string, come func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(soon); !come(); {
		b.mustLive(what)
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: that has not come in %v", what, soon)
		}
		time.Sleep(5 * time.Millisecond) // other processes do not tell
	}
}

// kill is kill -9.
func (b *broker) kill() {
	b.t.Helper()
	_ = b.cmd.Process.Kill()
	<-b.ended
}

func (b *broker) said() []byte {
	all, err := os.ReadFile(b.log.Name())
	if err != nil {
		return []byte(err.Error())
	}
	if n := 12_000; len(all) > n {
		all = append(bytes.Clone(all[:n/2]), append([]byte("\n...\n"), all[len(all)-n/2:]...)...)
	}
	return all
}
