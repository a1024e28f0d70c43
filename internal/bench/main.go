//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

func main() {
	o, err := parseFlags(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ok, err := o.run(os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	time    time.Duration
	runs    int
	only    string
	json    bool
	binary  string
	without bool
	against string
	pid     int
	dir     string
}

func parseFlags(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.DurationVar(&o.time, "time", 5*time.Second, "how long each path is measured")
	f.IntVar(&o.runs, "runs", 1, "how often, in turn with the others; the median is shown")
	f.StringVar(&o.only, "only", "", "only paths whose name holds one of these, separated by commas")
	f.BoolVar(&o.json, "json", false, "print every sample as JSON instead of the table")
	f.StringVar(&o.binary, "binary", "", "the broker to measure; built from ./cmd/godwit if empty; \"none\" measures the peers alone")
	f.BoolVar(&o.without, "no-mosquitto", false, "leave Mosquitto out")
	f.StringVar(&o.against, "against", "", "also measure the MQTT broker that listens here, host:port; needs -pid")
	f.IntVar(&o.pid, "pid", 0, "its process")
	f.StringVar(&o.dir, "dir", "", "where data directories are made: the disk that is measured; the system's temporary folder if empty")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("%q is not a flag", f.Arg(0))
	case o.time < 100*time.Millisecond || o.runs < 1:
		return o, errors.New("-time must be at least 100ms and -runs at least 1")
	case (o.against == "") != (o.pid == 0):
		return o, errors.New("-against HOST:PORT and -pid N go together: the CPU time is read from /proc/N/stat")
	}
	return o, nil
}

// chosen are the paths -only leaves.
func (o *options) chosen() (some []path, err error) {
	for _, p := range paths {
		for word := range strings.SplitSeq(o.only, ",") {
			if strings.Contains(p.name, word) {
				some = append(some, p)
				break
			}
		}
	}
	if len(some) == 0 {
		var names []string
		for _, p := range paths {
			names = append(names, p.name)
		}
		return nil, fmt.Errorf("-only %s: no such path; there are %s", o.only, strings.Join(names, " "))
	}
	return some, nil
}

// makers are the servers to measure, ours first. clean removes what was built.
func (o *options) makers() (all []maker, clean func(), err error) {
	clean = func() {}
	if o.binary != "none" {
		binary := o.binary
		if binary == "" {
			if binary, clean, err = buildGodwit(); err != nil {
				return nil, clean, err
			}
		}
		all = append(all, godwit(binary))
	}
	if binary, err := lookMosquitto(); err == nil && !o.without {
		all = append(all, mosquitto(binary))
	}
	if o.against != "" {
		all = append(all, running(o.against, o.pid))
	}
	if len(all) == 0 {
		return nil, clean, errors.New("no server to measure")
	}
	return all, clean, nil
}

// lookMosquitto also looks where Debian installs it, which is not on
// everybody's path.
func lookMosquitto() (string, error) {
	if p, err := exec.LookPath("mosquitto"); err == nil {
		return p, nil
	}
	return exec.LookPath("/usr/sbin/mosquitto")
}

func buildGodwit() (binary string, clean func(), err error) {
	dir, err := os.MkdirTemp("", "godwit-bench-*")
	if err != nil {
		return "", func() {}, err
	}
	clean = func() { _ = os.RemoveAll(dir) }
	binary = filepath.Join(dir, "godwit")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/godwit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", clean, fmt.Errorf("build the broker (run me in the repository's root, or say -binary): %w\n%s", err, said)
	}
	return binary, clean, nil
}

// run measures all paths on all servers, in turn, and says whether nothing
// was lost and group commit works.
func (o *options) run(out, progress io.Writer) (bool, error) {
	some, err := o.chosen()
	if err != nil {
		return false, err
	}
	all, clean, err := o.makers()
	defer clean()
	if err != nil {
		return false, err
	}
	// One goroutine does the work; the other thread is for the runtime.
	runtime.LockOSThread()
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.name
	}
	r := newReport(some, names)
	for run := range o.runs {
		for i := range some {
			for _, m := range all {
				s, ran, err := o.once(&some[i], m)
				if ran || err != nil {
					r.add(&some[i], m.name, s, err)
					fmt.Fprintln(progress, progressLine(run+1, &some[i], m.name, s, err))
				}
			}
		}
	}
	text, gained := r.gain()
	if o.json {
		err = r.writeJSON(out)
	} else {
		err = r.print(out)
		fmt.Fprint(out, text)
	}
	return gained && !r.failed(), err
}

func progressLine(run int, p *path, server string, s sample, err error) string {
	if err != nil {
		return fmt.Sprintf("run %d  %s  %s: %v", run, p.name, server, err)
	}
	return fmt.Sprintf("run %d  %-18s %-10s %8.2f us  %11s/s  %5.1f s CPU  %4d MiB", run, p.name, server,
		s.micros(), thousands(s.perSecond()), s.CPU.Seconds(), s.Memory>>20)
}

// once starts a fresh server, measures one path on it and stops it.
func (o *options) once(p *path, m maker) (s sample, ran bool, err error) {
	dir, err := os.MkdirTemp(o.dir, "bench-*")
	if err != nil {
		return s, false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := m.start(dir)
	if err != nil {
		return s, false, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	if !p.runsOn(server) {
		return s, false, nil
	}
	s, err = p.measure(server, o.time)
	if err != nil {
		err = errors.Join(err, server.dead())
	}
	return s, true, err
}
