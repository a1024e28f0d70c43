package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asProgram makes the test binary the program itself, so that tests can start,
// kill and restart the real thing without building it.
const asProgram = "GODWIT_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// A process is a godwit of its own.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	greeting string
	at       map[string]string // addresses by port name
	waited   chan error
}

// program is the command godwit args, not started.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// start runs godwit serve on free ports and returns when it has said where it
// listens. The test kills what it leaves running.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	free := "127.0.0.1:0"
	args = append([]string{"serve", "--data", dir, "--mqtt", free, "--stomp", free, "--line", free, "--http", free, "--log-level", "warn"}, args...)
	p := &process{t: t, cmd: program(t, args...), at: map[string]string{}, waited: make(chan error, 1)}
	p.cmd.Stderr = os.Stderr
	says, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	greeted := make(chan struct{})
	go func() { // ends with the process, which kill ends
		p.listen(says, greeted)
		p.waited <- p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	select {
	case <-greeted:
	case err := <-p.waited:
		p.waited <- err
		t.Fatalf("godwit ended before it listened: %v", err)
	case <-time.After(within):
		t.Fatal("godwit does not say where it listens")
	}
	return p
}

// listen reads the greeting, says so, and reads on to the end.
func (p *process) listen(says io.Reader, greeted chan<- struct{}) {
	var text strings.Builder
	lines := bufio.NewScanner(says)
	for lines.Scan() {
		line := lines.Text()
		text.WriteString(line + "\n")
		words := strings.Fields(line)
		if len(words) >= 2 && !strings.HasPrefix(line, " ") {
			p.at[words[0]] = words[1]
		}
		if strings.HasPrefix(line, "Ctrl-C") {
			p.greeting = text.String()
			close(greeted)
			break
		}
	}
	_, _ = io.Copy(io.Discard, says)
}

// kill is kill -9, and waits. It may be called again.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.waited <- <-p.waited
}

// stop asks for a clean end and returns the exit code.
func (p *process) stop() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.waited:
		p.waited <- err
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode()
		}
		return 0
	case <-time.After(closeUntil + 5*time.Second):
		p.t.Fatal("godwit does not end after SIGTERM")
		return -1
	}
}

func TestRunExitCodes(t *testing.T) {
	for _, tt := range []struct {
		sentence string
		args     []string
		code     int
		out, err string
	}{
		{"help is no failure", []string{"help"}, 0, "Usage:", ""},
		{"version says what it is", []string{"version"}, 0, "godwit ", ""},
		{"an unknown command is told", []string{"sreve"}, 1, "", "unknown command"},
		{"an unknown flag is told, with where to look", []string{"serve", "--prot", "1"}, 2, "", "godwit help serve"},
		{"flags are validated before anything is opened", []string{"serve", "--mqtt", "1883"}, 1, "", `listeners.mqtt.address: "1883": want host:port`},
		{"a missing configuration starts no default broker", []string{"serve", "--config", "none.yaml"}, 1, "", "none.yaml: no such file"},
		{"a good configuration is OK", []string{"config", "check", "../../examples/config/dev.yaml"}, 0, "OK\n", ""},
		{"a bad one is told with lines", []string{"config", "check", "../../config/testdata/keys.yaml"}, 1, "", `keys.yaml:4:5: listeners.mqtt.adress: no such key: did you mean "address"?`},
		{"so is what the broker itself would refuse", []string{"config", "check", "testdata/refused.yaml"}, 1, "", "queue a: spread: not supported yet"},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			var out, errs strings.Builder
			code := run(t.Context(), tt.args, &out, &errs)
			if code != tt.code || !strings.Contains(out.String(), tt.out) || !strings.Contains(errs.String(), tt.err) {
				t.Errorf("godwit %v = %d\n%s%s\nwant %d, %q, %q", tt.args, code, out.String(), errs.String(), tt.code, tt.out, tt.err)
			}
		})
	}
}

func TestClosersCloseTheNewestFirst(t *testing.T) {
	var order []string
	var c closers
	for _, name := range []string{"store", "broker", "ports"} {
		c.add(name, func(context.Context) error {
			order = append(order, name)
			if name == "broker" {
				return errors.New("late")
			}
			return nil
		})
	}
	err := c.close(t.Context())
	if got := strings.Join(order, " "); got != "ports broker store" {
		t.Errorf("closed %s, want ports broker store", got)
	}
	if err == nil || err.Error() != "close broker: late" {
		t.Errorf("close = %v, want close broker: late", err)
	}
}

func TestClosersStopAtTheDeadline(t *testing.T) {
	var c closers
	closed := false
	c.add("store", func(context.Context) error { closed = true; return nil })
	c.add("broker", func(ctx context.Context) error { <-ctx.Done(); <-t.Context().Done(); return nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.close(ctx); err == nil || !strings.Contains(err.Error(), "close broker: still busy at the deadline") {
		t.Errorf("close = %v, want that broker is busy", err)
	}
	if closed {
		t.Error("the store was closed under a broker that is still busy")
	}
}
