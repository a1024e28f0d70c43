package line

import (
	"bytes"
	"encoding/binary"
	"sync"
	"unicode/utf8"

	"github.com/godwitmq/godwit/core"
)

const (
	maxArgs    = 3
	maxHeaders = 64
	maxDigits  = 9 // of a payload's length
	noLength   = -1
)

// A span is a part of a request's line.
type span struct{ from, to int32 }

// A request is one line and its payload, in place: what it holds aliases the
// read buffer and is gone when Receive returns.
type request struct {
	line    []byte // without its end
	verb    *verb  // nil: unknown
	rest    []byte // of the line, behind the verb's space, without a length
	bare    bool   // nothing follows the verb, not even a space
	length  int    // of the payload; noLength: the verb has none
	payload []byte

	// After parse.
	args    [maxArgs]span
	nargs   int
	seen    uint32 // options, by their place in the verb's table
	raw     [maxOptions]span
	num     [maxOptions]int64 // numbers, durations, places in lists of words
	headers []span            // name=value, without the colon
	escaped bool              // a "%" is in the line
	copied  string            // the line, once somebody keeps parts of it
}

// requests are shared by all connections, so that an idle one owns none.
var requests = sync.Pool{New: func() any { return new(request) }}

// forget lets go of what a connection sent.
func (r *request) forget() {
	r.line, r.rest, r.payload, r.copied, r.verb = nil, nil, nil, "", nil
	requests.Put(r)
}

// scan reads the first line of in and says how long it is with its end; 0: it
// is not all here. The error is fatal: framing is lost.
func (r *request) scan(in []byte, maxLine int) (n int, err *core.Error) {
	end := bytes.IndexByte(in, '\n')
	if end > maxLine || (end < 0 && len(in) > maxLine) {
		return 0, core.Errorf(core.CodeTooLarge, "line over %d octets", maxLine)
	}
	if end < 0 {
		return 0, nil
	}
	line := in[:end]
	if end > 0 && line[end-1] == '\r' {
		line = line[:end-1]
	}
	r.line, r.length, r.payload = line, noLength, nil
	r.nargs, r.seen = 0, 0
	at, key := 0, uint64(0)
	for at < len(line) && line[at] != ' ' {
		key = key<<8 | uint64(line[at]|0x20)
		at++
	}
	r.verb = lookup(key, at)
	r.bare = at == len(line)
	if r.bare {
		r.rest = nil
	} else {
		r.rest = line[at+1:]
	}
	if r.verb != nil && r.verb.payload {
		return end + 1, r.cutLength()
	}
	return end + 1, nil
}

// cutLength takes the length off the end of the line: the rest may be wrong,
// and the payload is known all the same.
func (r *request) cutLength() *core.Error {
	rest := r.rest
	n, digits := 0, 0
	at, unit := len(rest)-1, 1
	for ; at >= 0 && rest[at] != ' '; at-- {
		d := rest[at] - '0'
		if d > 9 || digits == maxDigits {
			return badLength()
		}
		n += int(d) * unit
		unit *= 10
		digits++
	}
	if digits == 0 {
		return badLength()
	}
	r.length = n
	r.rest = rest[:max(at, 0)]
	if at < 0 {
		r.bare = true // "PUB 5": no destination
	}
	return nil
}

func badLength() *core.Error {
	return core.Errorf(core.CodeSyntax, "PUB ends with the length of its payload, 1 to %d digits: %s", maxDigits, "PUB dest [options] length")
}

// body finds the payload in what follows the line, and says how much that is
// with its end; 0: it is not all here. The error is fatal.
func (r *request) body(in []byte) (n int, err *core.Error) {
	if len(in) <= r.length {
		return 0, nil
	}
	n, err = eol(in[r.length:])
	if err != nil || n == 0 {
		return 0, err
	}
	r.payload = in[:r.length:r.length]
	return r.length + n, nil
}

// eol checks the end of a payload.
func eol(in []byte) (n int, err *core.Error) {
	switch {
	case len(in) == 0:
		return 0, nil
	case in[0] == '\n':
		return 1, nil
	case in[0] == '\r' && len(in) == 1:
		return 0, nil
	case in[0] == '\r' && in[1] == '\n':
		return 2, nil
	}
	return 0, core.Errorf(core.CodeSyntax, "the payload does not end where its length says: an end of line is missing")
}

// parse checks the line and takes it apart. What it refuses leaves the framing
// whole.
func (r *request) parse() *core.Error {
	r.nargs, r.seen, r.headers, r.copied, r.escaped = 0, 0, r.headers[:0], "", false
	if !plain(r.line) {
		if err := r.check(); err != nil {
			return err
		}
	}
	rest, v := r.rest, r.verb
	if r.bare {
		return r.arity()
	}
	for r.nargs < len(v.args) {
		if v.args[r.nargs] == argText {
			return r.verbatim(rest)
		}
		end := bytes.IndexByte(rest, ' ')
		if end < 0 {
			end = len(rest)
		}
		if end == 0 || (end == len(rest)-1 && !v.text()) {
			return r.space(rest, end)
		}
		if r.nargs >= v.need && !v.args[r.nargs].looks(rest[:end]) {
			break
		}
		r.args[r.nargs] = r.span(rest[:end])
		r.nargs++
		if end == len(rest) {
			return r.arity()
		}
		rest = rest[end+1:]
	}
	if r.nargs < v.need {
		return r.arity()
	}
	return r.options(rest)
}

// arity says what is missing.
func (r *request) arity() *core.Error {
	if r.nargs >= r.verb.need {
		return nil
	}
	return core.Errorf(core.CodeSyntax, "too few words: %s", r.verb.grammar)
}

// verbatim takes the rest of a line as it is.
func (r *request) verbatim(rest []byte) *core.Error {
	r.args[r.nargs] = r.span(rest)
	r.nargs++
	return nil
}

// space says where one too many is: at the head of rest, or at its end.
func (r *request) space(rest []byte, end int) *core.Error {
	column := int(r.span(rest).from) + end + 1
	if len(rest) == 0 {
		column--
	}
	return core.Errorf(core.CodeSyntax, "column %d: exactly one space is between words, and none at the end", column)
}

// span says where in the line a part of it is.
func (r *request) span(part []byte) span {
	from := cap(r.line) - cap(part)
	return span{int32(from), int32(from + len(part))}
}

// options reads "key=value key :name=value" behind the arguments.
func (r *request) options(rest []byte) *core.Error {
	at := int(r.span(rest).from)
	b := r.line[:at+len(rest)]
	for {
		from, hash := at, uint64(0)
		for at < len(b) && b[at] != '=' && b[at] != ' ' {
			hash = hash<<8 | uint64(b[at])
			at++
		}
		if at == from && (at == len(b) || b[at] == ' ') {
			return r.space(b[from:], 0)
		}
		key := at
		if at < len(b) && b[at] == '=' {
			if n := bytes.IndexByte(b[at:], ' '); n >= 0 {
				at += n
			} else {
				at = len(b)
			}
		}
		if at == len(b)-1 {
			return r.space(b[from:], at-from)
		}
		if err := r.option(from, key, at, hash); err != nil {
			return err
		}
		if at == len(b) {
			return nil
		}
		at++
	}
}

// hashOf makes a number of a key, which is compared faster than text: it is
// the key itself up to 8 octets, and its end above.
func hashOf(key string) (hash uint64) {
	for i := range len(key) {
		hash = hash<<8 | uint64(key[i])
	}
	return hash
}

// option takes one: its key is line[from:key], and its value, if it has one,
// stands behind line[key] and before line[to].
func (r *request) option(from, key, to int, hash uint64) *core.Error {
	if r.line[from] == ':' {
		return r.header(from, to)
	}
	for i, h := range r.verb.hashes {
		if h != hash {
			continue
		}
		o := &r.verb.options[i]
		if len(o.name) != key-from || (key-from > 8 && o.name != string(r.line[from:key])) {
			continue
		}
		if r.seen&(1<<i) != 0 {
			return core.Errorf(core.CodeBadValue, "%s= stands there twice", o.name)
		}
		r.seen |= 1 << i
		value := min(key+1, to)
		r.raw[i] = span{int32(value), int32(to)}
		if o.kind == count && o.not == "" { // most are, and a call less is felt
			if n, ok := number(r.line[value:to]); ok && n >= o.min && (o.max == 0 || n <= o.max) {
				r.num[i] = n
				return nil
			}
		}
		return o.read(&r.num[i], r.line[value:to], key < to)
	}
	return r.verb.unknown(r.line[from:key])
}

func (r *request) header(from, to int) *core.Error {
	switch {
	case !r.verb.headers:
		return r.verb.unknown(r.line[from:to])
	case bytes.IndexByte(r.line[from:to], '=') < 2:
		return core.Errorf(core.CodeSyntax, "a header is :name=value; an equals sign in its name is %%3D")
	case len(r.headers) == maxHeaders:
		return core.Errorf(core.CodeTooMany, "more than %d headers", maxHeaders)
	}
	r.headers = append(r.headers, span{int32(from + 1), int32(to)})
	return nil
}

func (r *request) has(option int) bool { return r.seen&(1<<option) != 0 }

func (r *request) bytes(s span) []byte { return r.line[s.from:s.to] }

func (r *request) arg(i int) []byte { return r.bytes(r.args[i]) }

// keep is a part of the line that outlives Receive. The line is copied once.
func (r *request) keep(s span) string {
	if r.copied == "" {
		r.copied = string(r.line)
	}
	return r.copied[s.from:s.to]
}

// decoded is a token's text that outlives Receive.
func (r *request) decoded(s span) (string, *core.Error) {
	if !r.escaped || bytes.IndexByte(r.bytes(s), '%') < 0 {
		return r.keep(s), nil
	}
	out, err := unescape(r.bytes(s))
	if err != nil {
		return "", err
	}
	if !utf8.Valid(out) || bytes.IndexByte(out, 0) >= 0 {
		return "", core.Errorf(core.CodeSyntax, "%q: decoded, it must be UTF-8 without NUL", clip(r.bytes(s)))
	}
	return string(out), nil
}

// value is the text of an option.
func (r *request) value(option int) (string, *core.Error) { return r.decoded(r.raw[option]) }

// octets is unescape for an option whose value need not be UTF-8.
func (r *request) octets(option int) (string, *core.Error) {
	out, err := unescape(r.bytes(r.raw[option]))
	return string(out), err
}

// clip is what an error shows of a client's text: enough to find it.
func clip(b []byte) []byte { return b[:min(len(b), 40)] }

func unescape(in []byte) ([]byte, *core.Error) {
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); i++ {
		if in[i] != '%' {
			out = append(out, in[i])
			continue
		}
		if i+2 >= len(in) || unhex(in[i+1]) > 15 || unhex(in[i+2]) > 15 {
			return nil, core.Errorf(core.CodeSyntax, "%q: %% is not followed by two hexadecimal digits; %% itself is %%25", clip(in))
		}
		out = append(out, unhex(in[i+1])<<4|unhex(in[i+2]))
		i += 2
	}
	return out, nil
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain says that all octets are %x20-24 or %x26-7E: nothing to check further.
// Eight at a time, since every line passes here.
func plain(b []byte) bool {
	if len(b) < 8 {
		for _, c := range b {
			if c < ' ' || c >= 0x7f || c == '%' {
				return false
			}
		}
		return true
	}
	for at := 0; at+8 <= len(b); at += 8 {
		if odd(binary.LittleEndian.Uint64(b[at:])) {
			return false
		}
	}
	return !odd(binary.LittleEndian.Uint64(b[len(b)-8:]))
}

// odd says whether one of eight octets is below %x20, above %x7E or "%".
func odd(x uint64) bool {
	percent := x ^ ones*'%'
	return ((x-ones*' ')|x|(x+ones)|((percent-ones)&^percent))&highs != 0
}

// check is plain's slow and exact brother: it names the column.
func (r *request) check() *core.Error {
	verbatim := r.verb.text()
	for at := 0; at < len(r.line); {
		c := r.line[at]
		switch {
		case c == '%' && !verbatim:
			if at+2 >= len(r.line) || unhex(r.line[at+1]) > 15 || unhex(r.line[at+2]) > 15 {
				return core.Errorf(core.CodeSyntax, "column %d: %% is not followed by two hexadecimal digits; %% itself is %%25", at+1)
			}
			r.escaped = true
			at += 3
		case c == '%':
			r.escaped = true
			at++
		case c == '\t' && verbatim, c >= ' ' && c < 0x7f:
			at++
		case c == '\t':
			return core.Errorf(core.CodeSyntax, "column %d: a tab; words are separated by one space", at+1)
		case c < ' ', c == 0x7f:
			return core.Errorf(core.CodeSyntax, "column %d: the control character %02X", at+1, c)
		default:
			s, n := utf8.DecodeRune(r.line[at:])
			if s == utf8.RuneError && n <= 1 {
				return core.Errorf(core.CodeSyntax, "column %d: not UTF-8", at+1)
			}
			at += n
		}
	}
	return nil
}

// id finds the id= of a line that may be wrong otherwise; 0: none that counts.
func (r *request) id() int64 {
	if r.verb == nil || !r.verb.numbered {
		return 0
	}
	for rest := r.rest; len(rest) > 0; {
		token := rest
		if i := bytes.IndexByte(rest, ' '); i >= 0 {
			token, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		if v, ok := bytes.CutPrefix(token, []byte("id=")); ok {
			if n, ok := number(v); ok {
				return n
			}
		}
	}
	return 0
}

// digits says whether the line's last word is a number: an unknown verb may
// have a payload then, which must never be run as commands.
func (r *request) digits() bool {
	last := r.line[bytes.LastIndexByte(r.line, ' ')+1:]
	for _, c := range last {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(last) > 0
}

// webby says that a browser is being used against us.
func (r *request) webby() bool {
	word, rest, _ := bytes.Cut(r.line, []byte{' '})
	switch string(bytes.ToUpper(word)) {
	case "POST", "PUT", "HEAD", "OPTIONS", "CONNECT":
		return true
	case "GET":
		if len(rest) > 0 && rest[0] == '/' {
			return true
		}
	case "SAY":
		return false
	}
	n := len(r.line)
	return n >= 8 && string(r.line[n-8:n-1]) == "HTTP/1."
}
