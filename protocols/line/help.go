package line

import (
	"strings"

	"github.com/godwitmq/godwit/core"
)

// overview is HELP alone: what there is, for a person with nc.
const overview = `: publish  PUB dest [options] length     then the payload;  SAY dest text
: read     GET dest [n=10] [wait=5s]     take;   SUB sid dest   keep coming;   UNSUB sid
: settle   ACK sid seq    NACK sid seq [delay=10s] [dead]    TOUCH sid seq
: batch    BEGIN ... COMMIT or ABORT
: look     LS [q/*]   STAT dest   EXPLAIN dest   INFO        manage  MK RM PURGE BIND UNBIND MOVE REDRIVE
: session  HELLO 1 user= pass=   PING   QUIT                 HELP verb tells its options
: dest     q/queue  t/mqtt/topic  x/exchange/key  s/stream  r/reply      space is %20, % is %25
: example  SAY q/hello hi there      GET q/hello      ACK 0 1
OK
`

// help prints the overview, or a verb's row of the table.
func (h *handler) help(r *request) error {
	if r.nargs == 0 {
		h.reply(func(out []byte) []byte { return append(out, overview...) })
		return nil
	}
	v := find(r.arg(0))
	if v == nil {
		return core.Errorf(core.CodeNotFound, "no verb %q: HELP tells what there is", clip(r.arg(0)))
	}
	h.reply(v.help)
	return nil
}

// help prints the grammar, a row an option, and the example.
func (v *verb) help(out []byte) []byte {
	out = appendRow(out, v.grammar)
	for i := range v.options {
		o := &v.options[i]
		text := o.help
		if o.not != "" {
			text += " (not supported yet)"
		}
		usage := o.usage()
		out = appendRow(out, " "+usage+strings.Repeat(" ", max(1, 24-len(usage)))+text)
	}
	if v.headers {
		out = appendRow(out, " :name=value             a header of yours, any number, in order")
	}
	for line := range strings.SplitSeq(v.example, "\n") {
		out = appendRow(out, "example", line)
	}
	return append(out, "OK\n"...)
}
