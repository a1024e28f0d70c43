package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"

	"github.com/godwitmq/godwit/config"
)

// greet says what listens where, with a line to try on each protocol.
func greet(out io.Writer, c *config.Config, ports []port, web port) {
	fmt.Fprintf(out, "godwit %s, %s\n", versionText(), keeps(c.Store))
	for _, p := range ports {
		fmt.Fprintf(out, "%-6s %s\n", p.name, p.addr)
	}
	if web.addr != nil {
		fmt.Fprintf(out, "%-6s %s  /healthz /readyz\n", web.name, web.addr)
	}
	first := true
	for _, p := range ports {
		for _, t := range tries(p.name, p.addr) {
			if first {
				fmt.Fprintln(out, "\ntry")
				first = false
			}
			fmt.Fprintln(out, "  "+t)
		}
	}
	fmt.Fprintln(out, "\nCtrl-C ends it")
}

func keeps(s config.Store) string {
	if s.Driver == "memory" {
		return "nothing survives the process (store memory)"
	}
	dir, err := filepath.Abs(s.Dir)
	if err != nil {
		dir = s.Dir
	}
	return "data in " + dir
}

// tries are commands for another terminal that speak to the port of that name.
// A test runs them, so that the greeting never lies.
func tries(name string, addr net.Addr) []string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	switch name {
	case "mqtt":
		return []string{
			fmt.Sprintf("mosquitto_sub -h %s -p %s -t 'plant/#' -v", host, port),
			fmt.Sprintf("mosquitto_pub -h %s -p %s -q 1 -t plant/7/temp -m 21.5", host, port),
		}
	case "stomp":
		return []string{fmt.Sprintf(`printf 'CONNECT\naccept-version:1.2\nhost:/\n\n\0SEND\ndestination:/queue/hello\nreceipt:kept\n\nhi\0' | nc -q 1 %s %s`, host, port)}
	case "line":
		return []string{fmt.Sprintf(`printf 'SAY q/hello hi there\nGET q/hello\n' | nc -q 1 %s %s`, host, port)}
	}
	return nil
}
