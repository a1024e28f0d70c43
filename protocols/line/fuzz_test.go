package line

import (
	"slices"
	"strings"
	"testing"
)

// Whatever comes, nothing panics, and it makes no difference in which parts it
// comes.
func FuzzReceive(f *testing.F) {
	for _, s := range []string{
		"HELLO 1\nSAY q/a hi\nGET q/a n=2\nACK 0 1\nSTAT q/a\nQUIT\n",
		"HELLO 1\nPUB q/a id=1 5\nPING\n\nPUB q/a id=2 foo 5\nPING\n\nPING\n",
		"BEGIN\nPUB q/a 1\nx\nACK 0 1\nCOMMIT id=4\nABORT\n",
		"SUB 1 t/a/#\nPUB t/a/b retain 1\nx\nUNSUB 1\nSUB 2 q/a credit=1\nCREDIT 2 5\n",
		"MK q/a max_messages=1\nBIND q/a t/#\nPUB t/x id=1 0\n\nPUB t/x id=2 0\n\nLS\nRM q/a\n",
		"GET / HTTP/1.1\r\n\r\n", "PUB q/a 99999999\n", "FROB 3\nQUIT\n", "SUB 1 t/a ack=manual\nSAY t/a x\nNACK 1 1\nTOUCH 1 1 lease=5s\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 600 || strings.Contains(strings.ToLower(string(in)), "r/new") || strings.Contains(strings.ToLower(string(in)), "info") {
			t.Skip() // those answer with what differs anyway
		}
		whole, wholeClosed := play(t, in, false)
		split, splitClosed := play(t, in, true)
		if wholeClosed != splitClosed {
			t.Fatalf("%q\nwhole: closed %v, %q\nsplit: closed %v, %q", in, wholeClosed, whole, splitClosed, split)
		}
		if !wholeClosed && !slices.Equal(whole, split) {
			t.Fatalf("%q\nwhole %q\nsplit %q", in, whole, split)
		}
	})
}

// play gives what is answered: sorted, since a part more is a flush more, and
// without what only says how answers were gathered.
func play(t *testing.T, in []byte, split bool) (lines []string, closed bool) {
	w := newWorld(t, Options{MaxPayload: 1 << 10})
	w.protocol.life = "life"
	c := w.dial()
	c.split = split
	c.in = append(c.in, in...)
	w.settle()
	last := ""
	for line := range strings.Lines(c.take()) {
		switch {
		case strings.HasPrefix(line, "CONFIRM "):
			last = line
		case strings.HasPrefix(line, ": "): // figures depend on the moment
		default:
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return append(lines, last), c.closed
}
