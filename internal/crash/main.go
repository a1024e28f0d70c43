package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func main() {
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

var errFaults = errors.New("the broker did not keep its word")

func command() error {
	o := options{out: os.Stdout}
	keep := flag.Bool("keep", false, "keep the data directory; a failed run always does")
	flag.IntVar(&o.rounds, "rounds", 10, "how often the broker is killed while it serves")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "decides bodies, pauses and when to kill")
	flag.StringVar(&o.binary, "binary", "", "the broker; built from ./cmd/godwit if empty")
	flag.StringVar(&o.dir, "dir", "", "where the data directory is made: the disk that is tried; the system's temporary folder if empty")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q is not a flag", flag.Arg(0))
	}
	dir, err := os.MkdirTemp(o.dir, "godwit-crash-*")
	if err != nil {
		return err
	}
	o.dir = dir
	if o.binary == "" {
		o.binary = filepath.Join(dir, "godwit")
		if err := build(o.binary, "."); err != nil {
			return errors.Join(err, os.RemoveAll(dir))
		}
	}
	fmt.Fprintf(o.out, "crash: %d rounds, seed %d\n", o.rounds, o.seed)
	l, err := crash(o)
	if err == nil && l.faults.any() {
		err = errFaults
	}
	keepOrRemove(o.out, dir, *keep || err != nil)
	return err
}

// build builds the broker of the repository at root.
func build(binary, root string) error {
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/godwit")
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the broker (run me in the repository's root, or say -binary): %w\n%s", err, said)
	}
	return nil
}
