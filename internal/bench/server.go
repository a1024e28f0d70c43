//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// startWithin is how long a server may take to listen, stopWithin to end.
const (
	startWithin = 10 * time.Second
	stopWithin  = 15 * time.Second
)

// A server is a process under measurement. Addresses it does not have are
// empty.
type server struct {
	name              string
	mqtt, stomp, line string
	pid               int

	cmd   *exec.Cmd     // nil: not ours to stop
	ended chan struct{} // closed when the process is gone
	says  bytes.Buffer  // what it wrote, for the reader of a failure
}

// A maker starts a server with nothing in it.
type maker struct {
	name  string
	start func(dir string) (*server, error)
}

// ours is the name of the server the budgets are for.
const ours = "godwit"

// godwit starts our own broker with a data directory of its own below dir.
func godwit(binary string) maker {
	return maker{ours, func(dir string) (*server, error) {
		s := &server{name: ours, mqtt: freePort(), stomp: freePort(), line: freePort()}
		return s, s.run(binary, "--data", filepath.Join(dir, "data"),
			"--mqtt", s.mqtt, "--stomp", s.stomp, "--line", s.line, "--http", "off")
	}}
}

// mosquittoConf lets nothing be dropped and nothing be written to the disk:
// the fastest a Mosquitto can be without losing messages.
const mosquittoConf = `listener %s 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_dest none
`

func mosquitto(binary string) maker {
	return maker{"mosquitto", func(dir string) (*server, error) {
		s := &server{name: "mosquitto", mqtt: freePort()}
		_, port, _ := net.SplitHostPort(s.mqtt)
		conf := filepath.Join(dir, "mosquitto.conf")
		if err := os.WriteFile(conf, fmt.Appendf(nil, mosquittoConf, port), 0o600); err != nil {
			return nil, err
		}
		return s, s.run(binary, "-c", conf)
	}}
}

// running is a server somebody else has started and will stop.
func running(addr string, pid int) maker {
	return maker{"other", func(string) (*server, error) {
		s := &server{name: "other", mqtt: addr, pid: pid}
		_, err := s.cpu()
		return s, err
	}}
}

// run starts the process and waits until it listens.
func (s *server) run(binary string, args ...string) error {
	s.cmd = exec.Command(binary, args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.says, &s.says
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.pid = s.cmd.Process.Pid
	s.ended = make(chan struct{})
	go func() { // stop waits for it
		_ = s.cmd.Wait() // the ProcessState says as much
		close(s.ended)
	}()
	for _, addr := range []string{s.mqtt, s.stomp, s.line} {
		if err := s.await(addr); err != nil {
			return errors.Join(err, s.stop())
		}
	}
	return nil
}

// await returns when addr takes connections.
func (s *server) await(addr string) error {
	if addr == "" {
		return nil
	}
	deadline := time.After(startWithin)
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		if nc, err := net.Dial("tcp", addr); err == nil {
			return nc.Close()
		}
		select {
		case <-s.ended:
			return fmt.Errorf("%s ended before it listened: %s\n%s", s.name, s.cmd.ProcessState, s.says.Bytes())
		case <-deadline:
			return fmt.Errorf("%s does not listen on %s after %v", s.name, addr, startWithin)
		case <-retry.C:
		}
	}
}

// stop ends the process.
func (s *server) stop() error {
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-s.ended:
		return nil
	case <-time.After(stopWithin):
		_ = s.cmd.Process.Kill()
		<-s.ended
		return fmt.Errorf("%s did not end within %v and was killed", s.name, stopWithin)
	}
}

// dead returns why the server is no longer there, or nil.
func (s *server) dead() error {
	if s.cmd == nil {
		return nil
	}
	select {
	case <-s.ended:
		return fmt.Errorf("%s died: %s\n%s", s.name, s.cmd.ProcessState, tail(s.says.Bytes(), 4096))
	default:
		return nil
	}
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// tick is the unit of /proc's times: USER_HZ is 100 on every Linux that Go
// runs on.
const tick = 10 * time.Millisecond

// cpu is the user and system time the process has used.
func (s *server) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of %s: %w", s.name, err)
	}
	return parseStat(b)
}

// parseStat reads utime and stime, fields 14 and 15 of proc(5)'s stat. The
// second field is a name in parentheses that may hold anything.
func parseStat(b []byte) (time.Duration, error) {
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("not a line of /proc/PID/stat: %q", b)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("not a line of /proc/PID/stat: %q", b)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// memory is the process's resident set in bytes.
func (s *server) memory() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.pid))
	if f := bytes.Fields(b); err == nil && len(f) > 1 {
		n, _ := strconv.ParseInt(string(f[1]), 10, 64)
		return n * int64(os.Getpagesize())
	}
	return 0
}

// freePort is an address nobody listens on at this moment, below those that
// the system gives to outgoing connections: who dials such a one before
// anybody listens may be connected to himself.
func freePort() string {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	panic("bug: no free port on loopback between 20000 and 30000")
}
