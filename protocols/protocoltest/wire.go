package protocoltest

import (
	"fmt"
	"strings"
)

// A wire is the client's side of one protocol: small, and written from the
// specifications alone, so that it cannot share a mistake with the adapter.
type wire interface {
	// login is what a client sends first, and welcome what must come back;
	// "" is nothing.
	login(name string, options []field) (say, welcome string, err error)
	// encode makes bytes of a step's text, its variables filled in.
	encode(text string) ([]byte, error)
	// first is how many bytes of in are no answer, and how many the first
	// answer behind them has; 0: it is not all there.
	first(in []byte) (skip, n int, err error)
	// show writes an answer as a transcript does.
	show(answer []byte) string
	// match says how an answer differs from the text of a step, "" if not.
	match(text string, answer []byte, v vars) (diff string, err error)
	// goodbye is how a client leaves politely.
	goodbye() string

	neutral
}

// newWire is the client of "line", "stomp/1.1", "mqtt/5" and the like.
func newWire(proto string) (wire, error) {
	name, version, _ := strings.Cut(proto, "/")
	switch name {
	case "line":
		if version == "" || version == "1" {
			return &lineWire{}, nil
		}
	case "stomp":
		if version == "" {
			version = "1.2"
		}
		if version == "1.0" || version == "1.1" || version == "1.2" {
			return &stompWire{version: version}, nil
		}
	case "mqtt":
		if level, ok := map[string]byte{"": 5, "5": 5, "3.1.1": 4, "3.1": 3}[version]; ok {
			return &mqttWire{level: level}, nil
		}
	}
	return nil, fmt.Errorf("protocol %q: want line, stomp[/1.0|1.1|1.2] or mqtt[/3.1|3.1.1|5]", proto)
}

// greets says whether a text is itself the login, so that none is made.
func greets(text string) bool {
	switch word, _, _ := strings.Cut(text, " "); word {
	case "CONNECT", "STOMP":
		return true
	}
	return false
}
