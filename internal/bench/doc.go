//go:build linux

// Bench measures what a message costs the server that carries it: user and
// system time of the server's process, divided by the messages it carried.
// The generator's own time is left out, so it can share the machine.
//
//	go run ./internal/bench [-time 5s] [-runs 3] [-only durable] [-json]
//
// It starts a broker of ours and, where it is installed, a Mosquitto, one
// after the other on the same path, so that both meet the same machine at the
// same hour. Every message carries the number of its publisher and its own;
// each reader must see each number once and in order, and each answer must
// come once and in order, or the run fails: speed bought with loss is no
// speed.
//
//	publishers --> server --> readers        (paths.go: who, how many, how far ahead)
//	    ^            |           |
//	    |           CPU          v
//	    +------- flow: sent, confirmed, seen  (flow.go: closed loop)
//
// One goroutine drives all connections off one epoll (loop.go): what has come
// in is taken in big reads, what may go out leaves in one write a connection
// and turn, as a busy gateway's would.
package main
