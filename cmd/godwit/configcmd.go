package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/config"
)

func newConfigCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Look at a configuration", Args: cobra.NoArgs}
	c.AddCommand(newConfigCheckCommand())
	return c
}

func newConfigCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE",
		Short:   "Say everything that is wrong with a configuration, or OK",
		Example: "  godwit config check godwit.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			loaded, err := config.Load(args[0])
			if err != nil {
				return err
			}
			if err := rehearse(c.Context(), &loaded); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintln(c.OutOrStdout(), "OK")
			return nil
		},
	}
}
