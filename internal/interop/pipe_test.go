package interop

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// A pipe is a program one talks to by lines.
type pipe struct {
	t    *testing.T
	in   io.Writer
	out  io.Reader
	rest string
}

func (p *pipe) say(line string) { fmt.Fprintf(p.in, "%s\n", line) }

// line waits for the next line.
func (p *pipe) line() string {
	p.t.Helper()
	type read struct {
		n   int
		err error
	}
	for {
		if line, rest, ok := strings.Cut(p.rest, "\n"); ok {
			p.rest = rest
			return line
		}
		buf := make([]byte, 4096)
		got := make(chan read, 1)
		go func() {
			n, err := p.out.Read(buf)
			got <- read{n, err}
		}()
		select {
		case r := <-got:
			if r.err != nil {
				p.t.Fatalf("the program ended: %v; before that %q", r.err, p.rest)
			}
			p.rest += string(buf[:r.n])
		case <-time.After(patience):
			p.t.Fatalf("nothing came; before that %q", p.rest)
		}
	}
}
