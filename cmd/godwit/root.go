package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newRootCommand() *cobra.Command {
	root := newServeCommand() // godwit alone serves
	root.Use = "godwit"
	root.Short = "A message broker for the edge: MQTT, STOMP and a line protocol on one durable core"
	root.Long = root.Short + ".\nAn acknowledgement means that the disk has it.\n\ngodwit alone is godwit serve."
	root.Example = ""
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &exitError{2, fmt.Errorf("%w (godwit help %s)", err, c.Name())}
	})
	root.AddCommand(newServeCommand(), newPubCommand(), newSubCommand(), newGetCommand(), newConfigCommand(), newTopologyCommand(), newVersionCommand())
	root.AddCommand(newTortureCommand(), newStoreCommand(), newRestoreCommand())
	return root
}

// version is set by the linker (make build).
var version = ""

// versionText is the version as people and the log read it.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			fmt.Fprintf(c.OutOrStdout(), "godwit %s %s %s/%s\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
