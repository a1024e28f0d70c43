//go:build !unix

package transport

import "net"

func newWire(c net.Conn) wire { return plainWire{c} }
