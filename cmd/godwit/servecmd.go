package main

import (
	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/config"
)

// serveFlags are what the command line says over the file.
type serveFlags struct {
	config              string
	data, store         string
	mqtt, stomp, line   string
	http                string
	logLevel, logFormat string
}

func newServeCommand() *cobra.Command {
	var f serveFlags
	d := config.Default()
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the broker",
		Long: "Run the broker. It needs no configuration: all three protocols and HTTP on loopback,\n" +
			"data in ./" + d.Store.Dir + ". Flags override the configuration file.\n\n" +
			"SIGTERM and Ctrl-C end it cleanly, a second one at once. Exit code 74: the store\n" +
			"is lost; start again to go on with what the disk has.",
		Example: "  godwit serve\n" +
			"  godwit serve --data /var/lib/godwit --mqtt 0.0.0.0:1883 --stomp off\n" +
			"  godwit serve --config godwit.yaml",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			loaded, err := f.load(c.Flags().Changed)
			if err != nil {
				return err
			}
			return serve(c.Context(), &loaded, c.OutOrStdout(), newLog(c.ErrOrStderr(), loaded.Log))
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.config, "config", "", "configuration `FILE` (YAML)")
	flags.StringVar(&f.data, "data", d.Store.Dir, "data directory `DIR`")
	flags.StringVar(&f.store, "store", d.Store.Driver, "badger, or memory: nothing survives the process")
	flags.StringVar(&f.mqtt, "mqtt", d.Listeners["mqtt"].Address, "`ADDR` of MQTT, or off")
	flags.StringVar(&f.stomp, "stomp", d.Listeners["stomp"].Address, "`ADDR` of STOMP, or off")
	flags.StringVar(&f.line, "line", d.Listeners["line"].Address, "`ADDR` of the line protocol, or off")
	flags.StringVar(&f.http, "http", d.HTTP.Address, "`ADDR` of /healthz and /readyz, or off")
	flags.StringVar(&f.logLevel, "log-level", d.Log.Level, "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", d.Log.Format, "text, json, or auto: text on a terminal, else JSON")
	return c
}

// load reads the file, if there is one, and puts the flags that were given on
// top of it.
func (f *serveFlags) load(given func(string) bool) (config.Config, error) {
	c := config.Default()
	if f.config != "" {
		var err error
		if c, err = config.Load(f.config); err != nil {
			return c, err
		}
	}
	for _, o := range []struct {
		flag, value string
		set         func(string)
	}{
		{"data", f.data, func(v string) { c.Store.Dir = v }},
		{"store", f.store, func(v string) { c.Store.Driver = v }},
		{"http", f.http, func(v string) { c.HTTP.Address = v }},
		{"log-level", f.logLevel, func(v string) { c.Log.Level = v }},
		{"log-format", f.logFormat, func(v string) { c.Log.Format = v }},
		{"mqtt", f.mqtt, func(v string) { move(&c, "mqtt", v) }},
		{"stomp", f.stomp, func(v string) { move(&c, "stomp", v) }},
		{"line", f.line, func(v string) { move(&c, "line", v) }},
	} {
		if given(o.flag) {
			o.set(o.value)
		}
	}
	return c, c.Validate()
}

// move gives a listener another address.
func move(c *config.Config, listener, address string) {
	l := c.Listeners[listener]
	l.Address = address
	c.Listeners[listener] = l
}
