// Command godwit is the broker and its tools.
//
//	godwit serve          runs the broker; serve.go wires the house, once
//	godwit config check   says everything that is wrong with a configuration
//	godwit topology       exports, compares and applies exchanges, queues and bindings
//	godwit pub, sub, get  talk to a broker from a terminal
//	godwit version
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// The first signal asks for a clean end; stop then gives the second one
	// its old meaning, which is to end at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code: 0, 1 for what went
// wrong, 2 for a command line that cannot be, or the code of an *exitError.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "godwit:", err)
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code
	}
	return 1
}

// exitStoreLost is EX_IOERR of sysexits.h: the store is lost, nothing more can
// be confirmed, and a restart reads what the disk really has.
const exitStoreLost = 74

// An exitError ends the program with its code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }
