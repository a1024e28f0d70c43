package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/memory"
	"github.com/godwitmq/godwit/protocols"
	"github.com/godwitmq/godwit/protocols/line"
	"github.com/godwitmq/godwit/protocols/transport"
)

// lineBroker is a broker in this process, without a disk, that speaks the line
// protocol alone.
func lineBroker(t *testing.T) (addr string) {
	t.Helper()
	broker, err := core.New(core.Options{Store: memory.New(memory.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	server := transport.New(transport.Options{Broker: broker})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(l, transport.ListenerOptions{Name: "line", Protocols: []protocols.Protocol{line.New(line.Options{})}}); err != nil {
		t.Fatal(err)
	}
	ticking, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		ticks := time.NewTicker(50 * time.Millisecond)
		defer ticks.Stop()
		for {
			select {
			case now := <-ticks.C:
				broker.Tick(now)
			case <-ticking.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		stop()
		running.Wait()
		if err := broker.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// invoke runs pub, sub or get and gives what it printed and its exit code.
func invoke(t *testing.T, addr, stdin string, args ...string) (stdout string, code int) {
	t.Helper()
	root := &cobra.Command{Use: "godwit", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(newPubCommand(), newSubCommand(), newGetCommand())
	var out, stderr bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&stderr)
	root.SetIn(strings.NewReader(stdin))
	root.SetArgs(append(args, "--addr", addr))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := root.ExecuteContext(ctx)
	var exit *exitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		code = exit.code
	default:
		code = 1
		t.Log(err)
	}
	return out.String(), code
}

func TestTalk(t *testing.T) {
	addr := lineBroker(t)
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, []byte("a\r\nb\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what  string
		stdin string
		args  string
		want  string
		code  int
	}{
		{"nothing is there", "", "get q/a", "", 3},
		{"words are the payload", "", "pub q/a hello world", "", 0},
		{"and come back", "", "get q/a", "hello world\n", 0},
		{"once", "", "get q/a", "", 3},
		{"lines are messages", "one\ntwo\r\nthree", "pub q/a", "", 0},
		{"a look settles nothing", "", "get q/a -n 10 --ack none", "one\ntwo\nthree\n", 0},
		{"one after the other", "", "get q/a", "one\n", 0},
		{"a subscription goes on", "", "sub q/a --count 2", "two\nthree\n", 0},
		{"a file is one message", "", "pub q/a --file " + file + " --header k=v --content-type x/y", "", 0},
		{"as it is", "", "get q/a --raw", "a\r\nb\x00", 0},
		{"so is the whole of stdin", "1\n2\n", "pub q/a --file -", "", 0},
		{"settled as it is sent", "", "get q/a --ack auto --raw", "1\n2\n", 0},
		{"many times", "", "pub q/a x --count 3", "", 0},
		{"as many come", "", "get q/a -n 9 --wait 100ms --raw", "xxx", 0},
		{"a last value", "", "pub t/plant/7/temp 21.5 --retain --header unit=C --key a%20b --correlation-id 7 --reply q/r", "", 0},
		{"is seen later", "", "sub t/plant/# --count 1", "21.5\n", 0},
		{"or not", "", "sub t/plant/# --for 100ms --no-retained", "", 0},
		{"no such exchange", "", "pub x/none/k hi", "", 1},
		{"nobody takes it", "", "pub t/nobody hi --must", "", 1},
		{"a bad destination", "", "pub nowhere hi", "", 1},
		{"a wrong word", "", "sub t/a --ack maybe", "", 2},
		{"a wrong header", "", "pub q/a x --header x", "", 2},
		{"a file and words", "", "pub q/a x --file " + file, "", 2},
		{"a topic cannot be taken from", "", "get t/a", "", 1},
	} {
		got, code := invoke(t, addr, tt.stdin, strings.Fields(tt.args)...)
		if got != tt.want || code != tt.code {
			t.Errorf("%s: godwit %s: %q, code %d, want %q, %d", tt.what, tt.args, got, code, tt.want, tt.code)
		}
	}
	got, _ := invoke(t, addr, "", "sub", "t/plant/#", "--count", "1", "-v")
	if !strings.HasPrefix(got, "t/plant/7/temp ts=") || !strings.HasSuffix(got, " key=a%2520b cid=7 reply=q/r :unit=C retain\n21.5\n") {
		t.Errorf("-v prints %q", got)
	}
	got, _ = invoke(t, addr, "", "sub", "t/plant/#", "--count", "1", "--json")
	if !strings.Contains(got, `"dest":"t/plant/7/temp"`) || !strings.Contains(got, `"headers":[{"name":"unit","value":"C"}]`) || !strings.Contains(got, `"body":"21.5"`) {
		t.Errorf("--json prints %s", got)
	}
	if _, code := invoke(t, "127.0.0.1:1", "", "pub", "q/a", "x"); code != 1 {
		t.Errorf("without a broker: code %d", code)
	}
}

// What was sent before an interrupt is waited for; a terminal keeps nobody.
func TestPubIsInterrupted(t *testing.T) {
	addr := lineBroker(t)
	ctx, interrupt := context.WithCancel(t.Context())
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := newPubCommand()
	cmd.SetIn(in)
	cmd.SetArgs([]string{"q/a", "--addr", addr})
	done := make(chan error)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	if _, err := out.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	if got, _ := invoke(t, addr, "", "get", "q/a", "--wait", "5s"); got != "hello\n" {
		t.Errorf("got %q", got)
	}
	interrupt()
	if err := <-done; err != nil {
		t.Error(err)
	}
	in.Close()
}
