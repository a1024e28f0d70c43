package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
	"github.com/godwitmq/godwit/persistence/torture"
)

// tortureFlags are the command line of godwit torture.
type tortureFlags struct {
	torture.Options
	full, write, verify bool
	listen              string
	to                  torture.PowerCut
	fillMost            string
	json                bool
}

func newTortureCommand() *cobra.Command {
	var f tortureFlags
	c := &cobra.Command{
		Use:   "torture",
		Short: "Try the store on a disk of yours: kill it, fill the disk, pull the plug; and say what was lost",
		Long: `Try the store on a disk of yours, and say what was lost.

A process writes to a store in DIR/torture and says what was confirmed. It is
killed with kill -9 at random instants, while it recovers too, and started
again; then all that was confirmed must be there or be settled, in order and
octet by octet. The last line is the verdict. How long the disk takes to flush
is measured as well: one that is too fast may not tell the truth.

--disk-full fills the disk instead, until the store keeps what is left for
itself: appends must be refused, acknowledgements go on, the process lives, and
appends go on when there is space again. While it runs other programs on that
disk have little space. It takes at most --fill-most, and gives the space back
however it ends.

A kill does not show what a power cut takes. For that, --write and pull the
plug; what was confirmed goes to a file on another disk, or to a machine that
listens. Then start the machine, and --verify.

The directory of a run without faults is removed, one with faults stays.
Exit code 0: all is kept. 1: something was lost, or is wrong. 2: it could not
be tried.`,
		Example: `  godwit torture --data /var/lib/godwit --rounds 200
  godwit torture --data /mnt/card --disk-full
  # a real power cut, with a second machine
  godwit torture --listen :9999 --record tried.txt             (on the second)
  godwit torture --data /mnt/card --write --confirm second:9999
  godwit torture --data /mnt/card --verify --record tried.txt  (with that file)
  # or with a stick
  godwit torture --data /mnt/card --write --record /media/stick/tried.txt
  godwit torture --data /mnt/card --verify --record /media/stick/tried.txt`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return &exitError{2, err}
			}
			return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.Dir, "data", "", "directory `DIR` on the disk that is tried")
	flags.IntVar(&f.Rounds, "rounds", 0, "how often to kill (20), or with --disk-full to fill (3)")
	flags.Uint64Var(&f.Seed, "seed", 0, "decides what is written and when to kill; 0: by chance")
	flags.StringVar(&f.Profile, "profile", "", "of the store: edge or server; by default as serve chooses")
	flags.BoolVar(&f.Keep, "keep", false, "leave DIR/torture after a run without faults")
	flags.BoolVar(&f.json, "json", false, "the verdict as JSON; the progress goes to standard error")
	flags.BoolVar(&f.full, "disk-full", false, "fill the disk")
	flags.StringVar(&f.fillMost, "fill-most", "16G", "take at most `SIZE` of the disk")
	flags.BoolVar(&f.write, "write", false, "write until the power is cut")
	flags.BoolVar(&f.verify, "verify", false, "say what a power cut took")
	flags.StringVar(&f.to.File, "record", "", "`FILE` of what was confirmed; not on the disk that is tried")
	flags.StringVar(&f.to.Addr, "confirm", "", "`ADDR` of the machine that listens")
	flags.StringVar(&f.listen, "listen", "", "keep the record of another machine: listen on `ADDR`")
	c.AddCommand(newTortureChildCommand())
	return c
}

// check refuses command lines that say two things, or not enough.
func (f *tortureFlags) check() error {
	what := 0
	for _, asked := range []bool{f.full, f.write, f.verify, f.listen != ""} {
		if asked {
			what++
		}
	}
	most, err := parseSize(f.fillMost)
	f.FillMost = most
	switch {
	case what > 1:
		return errors.New("--disk-full, --write, --verify and --listen are different things: choose one")
	case err != nil:
		return fmt.Errorf("--fill-most: %w", err)
	case f.Dir == "" && f.listen == "":
		return errors.New("which disk is to be tried? Say --data DIR")
	case (f.verify || f.listen != "") && f.to.File == "":
		return errors.New("say --record FILE: where the list of what was confirmed is")
	case f.write && (f.to.File == "") == (f.to.Addr == ""):
		return errors.New("say where the list of what was confirmed survives the power cut: --record FILE on another disk, or --confirm ADDR")
	case f.to.Addr != "" && !f.write:
		return errors.New("--confirm goes with --write")
	case f.Rounds < 0:
		return fmt.Errorf("--rounds %d: want 1 or more", f.Rounds)
	}
	return nil
}

// run does what was asked. An error is one of the exit code.
func (f *tortureFlags) run(ctx context.Context, out, progress io.Writer) error {
	if !f.json {
		progress = out
	}
	if f.listen != "" {
		return orNotTried(torture.Listen(ctx, f.listen, f.to.File, progress))
	}
	f.Self, f.Out = tortureChild, progress
	result, err := f.torture(ctx)
	if result.Dir == "" {
		return orNotTried(err)
	}
	if f.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(result); err != nil {
			return err
		}
	} else {
		result.Print(out)
	}
	if result.Verdict == torture.Broken {
		return &exitError{1, errors.New("the store, or the disk below it, did not keep its word")}
	}
	return orNotTried(err)
}

func (f *tortureFlags) torture(ctx context.Context) (torture.Result, error) {
	rounds := func(usual int) {
		if f.Rounds == 0 {
			f.Rounds = usual
		}
	}
	switch {
	case f.write:
		return torture.Write(ctx, f.Options, f.to)
	case f.verify:
		return torture.Verify(f.Options, f.to.File)
	}
	if f.Seed == 0 {
		f.Seed = 1 + rand.Uint64N(1_000_000) // to be said again by people
	}
	if f.full {
		rounds(3)
		return torture.Fill(ctx, f.Options)
	}
	rounds(20)
	return torture.Kill(ctx, f.Options)
}

// orNotTried gives an error the exit code that says nothing about the disk.
func orNotTried(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{2, err}
}

// newTortureChildCommand is what torture runs to have something to kill.
func newTortureChildCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "child JOB",
		Short:  "The process that is killed; torture starts it",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return torture.RunChild(args[0], openTortured, c.InOrStdin(), c.OutOrStdout())
		},
	}
}

func tortureChild(job string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return exec.Command(self, "torture", "child", job)
}

func openTortured(dir, profile string) (core.Store, error) {
	return badger.Open(dir, badger.Options{Profile: badger.Profile(profile)})
}

// parseSize reads 300, 16K, 5M, 16G, 1T: bytes, in powers of 1,024.
func parseSize(text string) (int64, error) {
	var n int64
	var unit string
	if _, err := fmt.Sscanf(text+" ", "%d%s", &n, &unit); err != nil && unit != "" {
		return 0, fmt.Errorf("%q: want a size like 500M or 16G", text)
	}
	shift, ok := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	if !ok || n <= 0 || n<<shift>>shift != n {
		return 0, fmt.Errorf("%q: want a size like 500M or 16G", text)
	}
	return n << shift, nil
}
