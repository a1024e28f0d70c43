package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/protocols/line/client"
)

// A getter is one run of godwit get.
type getter struct {
	caller
	printer
	options client.GetOptions
	ack     string
}

func newGetCommand() *cobra.Command {
	g := &getter{}
	cmd := &cobra.Command{
		Use:   "get q/QUEUE",
		Short: "Take messages off a queue and print them",
		Long: `Take messages off a queue and print them.

Each is settled after it was printed. With --ack=none they are not settled and
go back to the queue when the program ends; with --ack=auto the broker settles
them as it sends.` + exitCodesHelp + `; 3 nothing was there.`,
		Example: `  godwit get q/orders
  godwit get q/orders --count 100 --wait 5s --json
  while godwit get q/jobs --raw > job; do work job; done`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return g.run(cmd, args[0]) },
	}
	g.caller.flags(cmd)
	g.printer.flags(cmd)
	f := cmd.Flags()
	f.IntVarP(&g.options.N, "count", "n", 1, "take so many at most")
	f.DurationVar(&g.options.Wait, "wait", 0, "wait so long for them")
	f.StringVar(&g.ack, "ack", "manual", "who settles: none, auto (the broker, as it sends), manual (this program, after printing)")
	return cmd
}

func (g *getter) run(cmd *cobra.Command, dest string) (err error) {
	ack, err := ackOf(g.ack)
	if err != nil {
		return err
	}
	if ack == client.AckAuto {
		g.options.Ack = client.AckAuto
	}
	var lost error
	g.caller.options.OnError = func(err error) { lost = err } // of an ack; read after Flush
	c, err := g.dial(cmd.Context())
	if err != nil {
		return err
	}
	defer hangUp(c, &err)
	g.timeout += g.options.Wait
	short, cancel := g.short(cmd.Context())
	defer cancel()
	got, err := c.Get(short, dest, g.options)
	if err != nil {
		return err
	}
	for _, d := range got {
		if err := g.print(cmd.OutOrStdout(), d); err != nil {
			return err
		}
	}
	if len(got) == 0 {
		return &exitError{exitNothing, errors.New("nothing there: " + dest)}
	}
	if ack != client.AckManual {
		return nil
	}
	if err := g.settle(cmd, c, got); err != nil {
		return err
	}
	return lost
}

// settle acks what was printed, and waits until that is on the disk.
func (g *getter) settle(cmd *cobra.Command, c *client.Client, got []*client.Delivery) error {
	short, cancel := g.short(cmd.Context())
	defer cancel()
	last := len(got) - 1
	for _, d := range got[:last] {
		if err := d.Ack(); err != nil {
			return err
		}
	}
	if err := got[last].AckWait(short); err != nil {
		return err
	}
	return c.Flush(short)
}
