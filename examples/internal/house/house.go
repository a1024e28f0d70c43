// Package house gives an example a broker of its own: the real program, built
// from this repository, on free ports.
package house

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

// Addresses are where a broker listens.
type Addresses struct{ MQTT, STOMP, Line string }

// A Broker is a godwit process of our own.
type Broker struct {
	Addresses

	process *exec.Cmd
	dir     string
}

// Start builds the broker of this repository and starts it on free
// ports, with a data directory that goes when it is stopped.
func Start(ctx context.Context) (*Broker, error) {
	dir, err := os.MkdirTemp("", "godwit-example-*")
	if err != nil {
		return nil, err
	}
	b := &Broker{dir: dir}
	if err := b.start(ctx); err != nil {
		b.Stop()
		return nil, err
	}
	return b, nil
}

func (b *Broker) start(ctx context.Context) error {
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
func (b *Broker) listen(greeting *bufio.Scanner) error {
	for greeting.Scan() {
		words := strings.Fields(greeting.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "mqtt":
			b.MQTT = words[1]
		case "stomp":
			b.STOMP = words[1]
		case "line":
			b.Line = words[1]
		}
		if b.MQTT != "" && b.STOMP != "" && b.Line != "" {
			return nil
		}
	}
	return errors.New("the broker ended before it listened")
}

// Stop asks the broker to end, waits for it and removes its data.
func (b *Broker) Stop() {
	if b.process != nil && b.process.Process != nil {
		_ = b.process.Process.Signal(syscall.SIGTERM)
		_ = b.process.Wait()
	}
	_ = os.RemoveAll(b.dir)
}
