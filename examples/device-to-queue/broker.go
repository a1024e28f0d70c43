package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A broker is a godwit process of our own.
type broker struct {
	addresses
	process *exec.Cmd
	dir     string
}

// startBroker builds the broker of this repository and starts it on free
// ports, with a data directory that goes when it is stopped.
func startBroker(ctx context.Context) (*broker, error) {
	dir, err := os.MkdirTemp("", "device-to-queue-*")
	if err != nil {
		return nil, err
	}
	b := &broker{dir: dir}
	if err := b.start(ctx); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

func (b *broker) start(ctx context.Context) error {
	program := filepath.Join(b.dir, "godwit")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/godwitmq/godwit/cmd/godwit")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the broker: %w\n%s", err, said)
	}
	free := "127.0.0.1:0"
	b.process = exec.Command(program, "serve", "--data", filepath.Join(b.dir, "data"), "--log-level", "warn",
		"--mqtt", free, "--stomp", free, "--line", free, "--http", "off")
	b.process.Stderr = os.Stderr
	says, err := b.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.process.Start(); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	return b.listen(bufio.NewScanner(says))
}

// listen reads from the broker's greeting where it listens.
func (b *broker) listen(greeting *bufio.Scanner) error {
	for greeting.Scan() {
		words := strings.Fields(greeting.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "mqtt":
			b.mqtt = words[1]
		case "stomp":
			b.stomp = words[1]
		case "line":
			b.line = words[1]
		}
		if b.mqtt != "" && b.stomp != "" && b.line != "" {
			return nil
		}
	}
	return errors.New("the broker ended before it listened")
}

// stop asks the broker to end, waits for it and removes its data.
func (b *broker) stop() {
	if b.process != nil && b.process.Process != nil {
		_ = b.process.Process.Signal(syscall.SIGTERM)
		_ = b.process.Wait()
	}
	_ = os.RemoveAll(b.dir)
}
