package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// stock skips the test where a program is not installed; with GODWIT_INTEROP
// set (make interop) it fails instead.
func stock(t *testing.T, program string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil && exec.Command(program, args...).Run() == nil {
		return
	}
	if os.Getenv("GODWIT_INTEROP") != "" {
		t.Fatalf("%s %v is missing", program, args)
	}
	t.Skipf("%s %v is missing", program, args)
}

// shell runs a command line and returns what it prints.
func shell(t *testing.T, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", line, err, out)
	}
	return string(out)
}

// tryLine is the line of the greeting that begins so.
func tryLine(t *testing.T, p *process, holds ...string) string {
	t.Helper()
	for line := range strings.Lines(p.greeting) {
		line = strings.TrimSpace(line)
		all := true
		for _, h := range holds {
			all = all && strings.Contains(line, h)
		}
		if all {
			return line
		}
	}
	t.Fatalf("the greeting has no line with %q:\n%s", holds, p.greeting)
	return ""
}

// What the greeting tells a newcomer to type works as it stands.
// mission: S59
func TestTryLines(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), "--store", "memory")

	t.Run("line over nc", func(t *testing.T) {
		stock(t, "sh", "-c", "command -v nc")
		got := shell(t, tryLine(t, p, "SAY", "nc"))
		if !strings.Contains(got, "\nhi there\nEND 0 1") {
			t.Errorf("got\n%s", got)
		}
	})
	t.Run("STOMP over nc", func(t *testing.T) {
		stock(t, "sh", "-c", "command -v nc")
		got := shell(t, tryLine(t, p, "CONNECT", "nc"))
		if !strings.HasPrefix(got, "CONNECTED\n") || !strings.Contains(got, "RECEIPT\nreceipt-id:kept\n") {
			t.Errorf("got\n%s", got)
		}
	})
	t.Run("MQTT with mosquitto_pub and mosquitto_sub", func(t *testing.T) {
		stock(t, "sh", "-c", "command -v mosquitto_sub mosquitto_pub")
		// -d says when the subscription is made, -C 1 ends after one message.
		sub := exec.CommandContext(t.Context(), "sh", "-c", "exec stdbuf -oL "+tryLine(t, p, "mosquitto_sub")+" -d -C 1")
		out, err := sub.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		sub.Stderr = os.Stderr
		if err := sub.Start(); err != nil {
			t.Fatal(err)
		}
		guard := time.AfterFunc(within, func() { _ = sub.Process.Kill() })
		defer guard.Stop()
		lines := bufio.NewScanner(out)
		for lines.Scan() && !strings.Contains(lines.Text(), "Subscribed") {
		}
		shell(t, tryLine(t, p, "mosquitto_pub"))
		rest := ""
		for lines.Scan() {
			rest += lines.Text() + "\n"
		}
		_, _ = io.Copy(io.Discard, out)
		if err := sub.Wait(); err != nil || !strings.Contains(rest, "plant/7/temp 21.5") {
			t.Errorf("mosquitto_sub: %v\n%s", err, rest)
		}
	})
}
