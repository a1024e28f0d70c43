package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// startWithin is how long a broker may take to recover and listen.
const startWithin = 60 * time.Second

// A broker is the process that is killed, and started again on what is left.
type broker struct {
	binary            string
	dir               string // data, and what it said
	mqtt, stomp, line string // its ports are the same in every life

	cmd   *exec.Cmd
	log   *os.File
	ended chan struct{} // closed when the process is gone
	kills int           // while it was serving
	early int           // while it was starting
}

func newBroker(binary, dir string) (*broker, error) {
	log, err := os.OpenFile(filepath.Join(dir, "broker.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	b := &broker{binary: binary, dir: dir, log: log}
	for _, addr := range []*string{&b.mqtt, &b.stomp, &b.line} {
		if *addr, err = freePort(); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// freePort finds a port below those that the system gives to outgoing
// connections: a client that dials such a port while nobody listens may be
// connected to itself.
func freePort() (string, error) {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+random(10000))
		if l, err := net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("no free port on loopback between 20000 and 30000")
}

// start runs the process; it does not wait until it listens.
func (b *broker) start() error {
	b.cmd = exec.Command(b.binary, "--data", filepath.Join(b.dir, "data"),
		"--mqtt", b.mqtt, "--stomp", b.stomp, "--line", b.line, "--http", "off")
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	if err := b.cmd.Start(); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	cmd, ended := b.cmd, make(chan struct{})
	b.ended = ended
	go func() { // kill waits for it
		_ = cmd.Wait() // the ProcessState says as much
		close(ended)
	}()
	return nil
}

// await returns when all three ports take connections.
func (b *broker) await() error {
	deadline := time.NewTimer(startWithin)
	defer deadline.Stop()
	retry := time.NewTicker(2 * time.Millisecond)
	defer retry.Stop()
	for _, addr := range []string{b.mqtt, b.stomp, b.line} {
		for {
			if nc, err := net.Dial("tcp", addr); err == nil {
				nc.Close()
				break
			}
			select {
			case <-b.ended:
				return fmt.Errorf("the broker ended before it listened: %s\n%s", b.cmd.ProcessState, b.said())
			case <-deadline.C:
				return fmt.Errorf("the broker does not listen on %s after %v\n%s", addr, startWithin, b.said())
			case <-retry.C:
			}
		}
	}
	return nil
}

// kill is kill -9. It returns when the process is gone, with an error if it
// had ended before by itself.
func (b *broker) kill() error {
	select {
	case <-b.ended:
		return fmt.Errorf("the broker ended by itself: %s\n%s", b.cmd.ProcessState, b.said())
	default:
	}
	if err := b.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-b.ended
	return nil
}

// close kills what may still run.
func (b *broker) close() {
	if b.ended != nil {
		_ = b.kill() // it may be gone
	}
	_ = b.log.Close()
}

// said is the end of what it wrote.
func (b *broker) said() []byte {
	all, err := os.ReadFile(b.log.Name())
	if err != nil {
		return []byte(err.Error())
	}
	return all[max(0, len(all)-4096):]
}
