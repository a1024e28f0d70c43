package interop

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take.
const patience = 20 * time.Second

var build struct {
	sync.Once
	path string
	err  error
}

// binary is the program, built once.
func binary(t *testing.T) string {
	t.Helper()
	build.Do(func() {
		dir, err := os.MkdirTemp("", "godwit-interop") //nolint:usetesting // all tests share it: TestMain removes it
		if err != nil {
			build.err = err
			return
		}
		build.path = filepath.Join(dir, "godwit")
		out, err := exec.Command("go", "build", "-o", build.path, "../../cmd/godwit").CombinedOutput()
		if err != nil {
			build.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if build.path != "" {
		os.RemoveAll(filepath.Dir(build.path))
	}
	os.Exit(code)
}

// A broker is a running program that can be killed and started again.
type broker struct {
	t                       *testing.T
	data                    string
	mqtt, stomp, line, http string
	cmd                     *exec.Cmd
	log                     *bytes.Buffer
}

func start(t *testing.T) *broker {
	t.Helper()
	if testing.Short() {
		t.Skip("stock clients have a target of their own: make interop")
	}
	b := &broker{t: t, data: t.TempDir(), mqtt: freePort(t), stomp: freePort(t), line: freePort(t), http: freePort(t), log: new(bytes.Buffer)}
	b.run()
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			t.Logf("the broker said:\n%s", b.log)
		}
	})
	return b
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (b *broker) run() {
	b.t.Helper()
	b.cmd = exec.Command(binary(b.t), "serve", "--data", b.data, "--mqtt", b.mqtt, "--stomp", b.stomp, "--line", b.line, "--http", b.http)
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if c, err := net.DialTimeout("tcp", b.line, time.Second); err == nil {
			fmt.Fprint(c, "PING\n")
			answer, _ := bufio.NewReader(c).ReadString('\n')
			c.Close()
			if strings.HasPrefix(answer, "PONG") {
				return
			}
		}
		if err := b.cmd.Process.Signal(syscall.Signal(0)); err != nil {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	b.t.Fatalf("the broker does not answer:\n%s", b.log)
}

// kill is kill -9; run starts it again on the same data and ports.
func (b *broker) kill() {
	b.cmd.Process.Kill()
	b.cmd.Wait()
}

func (b *broker) stop() {
	b.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { b.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		b.t.Error("the broker did not end within 15 s of SIGTERM")
		b.cmd.Process.Kill()
	}
}

// rss is the broker's resident memory in bytes.
func (b *broker) rss() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if err != nil {
		b.t.Skip("no /proc here")
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kb int64
			fmt.Sscan(rest, &kb)
			return kb << 10
		}
	}
	return 0
}

// tool is the path of an installed program, or the end of the test.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("GODWIT_INTEROP") != "" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// host and port as the flags of the tools.
func split(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// run runs a program to its end and returns what it printed.
func run(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A typed connection to the line port: what a person does with nc.
type typed struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func (b *broker) typed() *typed {
	b.t.Helper()
	c, err := net.Dial("tcp", b.line)
	if err != nil {
		b.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	b.t.Cleanup(func() { c.Close() })
	return &typed{b.t, c, bufio.NewReader(c)}
}

// say sends a line and expects an answer that begins so.
func (c *typed) say(line, want string) string {
	c.t.Helper()
	fmt.Fprintf(c, "%s\n", line)
	answer, err := c.in.ReadString('\n')
	if err != nil || !strings.HasPrefix(answer, want) {
		c.t.Fatalf("%s: got %q (%v), want %s...", line, answer, err, want)
	}
	return strings.TrimSuffix(answer, "\n")
}
