package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/config"
	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols/line/client"
)

// exitDiffers is godwit topology diff's code where something would change.
const exitDiffers = 1

const topologyHelp = `

A topology is the exchanges, queues and bindings of virtual hosts, as the
configuration writes them under vhosts: a configuration can be applied, and an
export can be a part of one. What belongs to sessions (subscriptions, replies,
the broker's own queues) is not in it, and no messages are.` + exitCodesHelp

func newTopologyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "topology",
		Short: "Export, compare and apply exchanges, queues and bindings",
		Long:  "Export, compare and apply exchanges, queues and bindings of a running broker." + topologyHelp,
		Args:  cobra.NoArgs,
	}
	c.AddCommand(newTopologyExportCommand(), newTopologyDiffCommand(), newTopologyApplyCommand())
	return c
}

func newTopologyExportCommand() *cobra.Command {
	var from caller
	var all bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print what there is, as YAML that apply takes",
		Long: `Print the exchanges, queues and bindings of a virtual host, as YAML that apply
and the configuration take: applied to an empty broker it makes the same.` + topologyHelp,
		Example: `  godwit topology export > topology.yaml
  godwit topology export --vhost east --addr broker:7070
  godwit topology export --all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return from.export(cmd, all) },
	}
	from.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every virtual host")
	return cmd
}

func newTopologyDiffCommand() *cobra.Command {
	d := &differ{}
	cmd := &cobra.Command{
		Use:   "diff FILE",
		Short: "Print what apply would change; exit code 1 if anything",
		Long: `Print what apply would change, and change nothing. + is declared, ~ altered,
- removed (with --prune alone). What the broker has beside the file is told with
a question mark and changes nothing.` + topologyHelp + `; 1 also: something would change`,
		Example: `  godwit topology diff topology.yaml
  godwit topology diff --prune godwit.yaml || echo it differs`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := d.run(cmd, args[0])
			if err == nil && n > 0 {
				err = &exitError{exitDiffers, fmt.Errorf("%d changes would be made", n)}
			}
			return err
		},
	}
	d.flags(cmd)
	return cmd
}

func newTopologyApplyCommand() *cobra.Command {
	d := &differ{apply: true}
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Declare what a file says, on a running broker",
		Long: `Declare what a file says on a running broker, and print what was changed. Applied
again it changes nothing. What the file does not name stays, unless --prune says
otherwise; a queue that holds messages or has consumers is never pruned.

It begins at the top and stops at the first refusal; what was done until then is
done, and applying it again goes on from there. - is the standard input.` + topologyHelp,
		Example: `  godwit topology apply topology.yaml
  godwit topology export --addr old:7070 | godwit topology apply - --addr new:7070
  godwit topology apply --prune topology.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { _, err := d.run(cmd, args[0]); return err },
	}
	d.flags(cmd)
	return cmd
}

func (c *caller) export(cmd *cobra.Command, all bool) (err error) {
	conn, err := c.dial(cmd.Context())
	if err != nil {
		return err
	}
	names := []string{conn.Welcome("vhost")}
	if all {
		names, err = vhostsOf(cmd.Context(), c, conn)
	}
	if e := conn.Close(); err == nil {
		err = e
	}
	hosts := make(map[string]topology)
	for _, name := range names {
		if err != nil {
			return err
		}
		err = c.in(cmd.Context(), name, func(ctx context.Context, conn *client.Client) error {
			hosts[name], err = c.readTopology(ctx, conn)
			return err
		})
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(cmd.OutOrStdout(), writeTopology(hosts))
	return err
}

func vhostsOf(ctx context.Context, c *caller, conn *client.Client) ([]string, error) {
	rows, err := c.list(ctx, conn, "v/*")
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range rows {
		name, err := client.Unescape(rows[i].Name[len("v/"):])
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// in does something on a connection to a virtual host.
func (c *caller) in(ctx context.Context, vhost string, do func(context.Context, *client.Client) error) (err error) {
	there := *c
	there.options.VHost = vhost
	conn, err := there.dial(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn, &err)
	return do(ctx, conn)
}

// ask is one request on a connection, which may take its time and no longer.
func (c *caller) ask(ctx context.Context, conn *client.Client, words ...string) error {
	ctx, cancel := c.short(ctx)
	defer cancel()
	_, err := conn.Do(ctx, words...)
	return err
}

func (c *caller) list(ctx context.Context, conn *client.Client, pattern string, options ...string) ([]client.Row, error) {
	ctx, cancel := c.short(ctx)
	defer cancel()
	return conn.List(ctx, pattern, options...)
}

// A differ compares a file with a broker, and makes the broker like it.
type differ struct {
	caller
	prune bool
	apply bool
}

func (d *differ) flags(cmd *cobra.Command) {
	d.caller.flags(cmd)
	cmd.Flags().BoolVar(&d.prune, "prune", false, "what the file does not name goes, in the virtual hosts it names")
}

// run prints the changes, and makes them if it should. It says how many there are.
func (d *differ) run(cmd *cobra.Command, file string) (n int, err error) {
	wanted, err := readTopologyFile(cmd.InOrStdin(), file)
	if err != nil {
		return 0, err
	}
	if d.options.VHost != "" {
		host, ok := wanted[d.options.VHost]
		if !ok {
			return 0, fmt.Errorf("%s says nothing of virtual host %s", file, d.options.VHost)
		}
		wanted = map[string]config.VHost{d.options.VHost: host}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		host := wanted[name]
		if len(host.Policies) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: policies of virtual host %s are left alone: a broker reads them from its configuration when it starts\n", file, name)
		}
		m, err := d.host(cmd, name, &host)
		if n += m; err != nil {
			return n, fmt.Errorf("virtual host %s: %w", name, err)
		}
	}
	return n, nil
}

func (d *differ) host(cmd *cobra.Command, name string, wanted *config.VHost) (n int, err error) {
	out := cmd.OutOrStdout()
	there, err := d.has(cmd.Context(), name)
	if err != nil {
		return 0, err
	}
	var have topology
	if !there {
		n++
		fmt.Fprintf(out, "+ v/%s\n", client.Escape(name))
		if d.apply {
			err = d.in(cmd.Context(), "", func(ctx context.Context, c *client.Client) error {
				return d.ask(ctx, c, "MK", "v/"+client.Escape(name))
			})
		}
	} else {
		err = d.in(cmd.Context(), name, func(ctx context.Context, c *client.Client) error {
			have, err = d.readTopology(ctx, c)
			return err
		})
	}
	if err != nil {
		return n, err
	}
	want, err := topologyOf(name, wanted, have)
	if err != nil {
		return n, err
	}
	steps := have.changes(want, d.prune)
	for _, s := range steps {
		if s.sign != '?' {
			n++
		}
	}
	if !d.apply {
		for _, s := range steps {
			s.print(out)
		}
		return n, nil
	}
	return n, d.in(cmd.Context(), name, func(ctx context.Context, c *client.Client) error { return d.perform(ctx, c, steps, out) })
}

// has says whether the broker has a virtual host.
func (d *differ) has(ctx context.Context, name string) (there bool, err error) {
	err = d.in(ctx, "", func(ctx context.Context, c *client.Client) error {
		rows, err := d.list(ctx, c, "v/"+client.Escape(name))
		there = len(rows) == 1
		return err
	})
	return there, err
}

// perform does the steps, and prints each when it is done.
func (d *differ) perform(ctx context.Context, c *client.Client, steps []step, out io.Writer) error {
	for _, s := range steps {
		if s.sign == '?' {
			continue
		}
		for _, words := range s.requests {
			err := d.ask(ctx, c, words...)
			if gone, ok := errors.AsType[*client.Error](err); ok && s.sign == '-' && gone.Code == int(core.CodeNotFound) {
				err = nil // it went with what it was bound to
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.what, err)
			}
		}
		s.print(out)
	}
	return nil
}

// readTopologyFile reads what a configuration, or an export, has under vhosts.
func readTopologyFile(stdin io.Reader, file string) (map[string]config.VHost, error) {
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	c, err := config.Parse(file, text)
	if err != nil {
		return nil, err
	}
	if len(c.VHosts) == 0 {
		return nil, errors.New(file + ": nothing under vhosts")
	}
	return c.VHosts, nil
}
