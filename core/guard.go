package core

import (
	"context"
	"net/netip"
	"strings"
)

// A Guard decides who may do what. Core asks it in every verb, and per topic
// at delivery; adapters only Enter.
type Guard interface {
	// Enter turns a login into an identity. It is the one call that may
	// block. A *Challenge error means: ask the client, and call again.
	Enter(ctx context.Context, l Login) (Identity, error)
	// Allow answers Yes or No, or Later, and then calls later once; never
	// Later for Publish, whose later is nil.
	Allow(id *Identity, a Access, later func(Permit)) Permit
}

// A Login is what a client says it is. Method empty: a password or token.
type Login struct {
	Identity           Identity
	Method             string
	Secret, State, TLS []byte
}

// A Challenge is what the guard asks the client before it decides.
type Challenge struct{ Data, State []byte }

func (c *Challenge) Error() string { return "the guard asks for more" }

// An Access is one question to the guard.
type Access struct {
	Do     Action
	Where  Address
	QoS    uint8
	Retain bool
}

// An Action is what a client wants to do.
type Action uint8

// The actions.
const (
	ActPublish Action = iota
	ActListen
	ActConsume
	ActFollow
	ActDeclare
	ActManage
	ActMonitor
)

var actionNames = [...]string{"publish", "listen", "consume", "follow", "declare", "manage", "monitor"}

// String is the action's name in errors and rights.
func (a Action) String() string { return actionNames[a] }

// A Permit is the guard's answer.
type Permit uint8

// The guard's answers.
const (
	No Permit = iota
	Yes
	Later
)

// LoopbackGuard lets everybody in who comes over loopback or a Unix socket,
// with all rights, and nobody else. It is the guard until users are
// configured, so an open port is never an open broker.
type LoopbackGuard struct{}

var _ Guard = LoopbackGuard{}

// Enter accepts loopback and refuses the rest with 401.
func (LoopbackGuard) Enter(_ context.Context, l Login) (Identity, error) {
	id := l.Identity
	if !local(id.Remote) {
		return Identity{}, &Error{Code: CodeUnauthenticated, Text: "only loopback may connect while no users are configured"}
	}
	if id.VHost == "" {
		id.VHost = "/"
	}
	if id.User == "" {
		id.User = "anonymous"
	}
	return id, nil
}

// Allow says Yes.
func (LoopbackGuard) Allow(*Identity, Access, func(Permit)) Permit { return Yes }

// local says whether a remote address is this machine's: loopback, a Unix
// socket ("" or "@" or a path), or a connection inside the process ("pipe").
func local(remote string) bool {
	if remote == "" || remote == "pipe" || strings.HasPrefix(remote, "@") || strings.HasPrefix(remote, "/") {
		return true
	}
	ap, err := netip.ParseAddrPort(remote)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}
