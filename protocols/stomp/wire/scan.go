package wire

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"github.com/go-stomp/stomp/v3/frame"
)

// A Header is one header of a View, unescaped.
type Header struct{ Name, Value []byte }

// A View is what Scan found. Its slices lie in the bytes that were scanned, or
// in the View itself where text had to be unescaped: they are good until the
// bytes change or the next Scan.
//
// A View remembers how far it got in an unfinished frame, so it belongs to one
// connection. The zero value with Limits is ready to use.
type View struct {
	Limits  Limits
	Version Version

	Command string // one of the frame package's; empty: no whole frame is there
	Headers []Header
	Body    []byte
	Need    int // octets that the unfinished frame has in all; 0: not known

	part      part
	unescaped []byte
}

// A part is how far an unfinished frame has been looked at, so that no octet
// is searched twice however small the pieces are in which it comes.
type part struct {
	seen  int // octets looked at, from the first of the command
	line  int // where the line under way begins
	count int // headers complete
	body  int // where the body begins; 0: not known yet
	total int // octets of the whole frame; 0: it ends at the first NUL

	command string // empty: its line is not complete
	length  int    // content-length; -1: none yet
}

// keep bounds what a View holds on to between frames.
const (
	keepHeaders = 64
	keepText    = 4 << 10
)

// maxEnds bounds the line ends that a frame without a body may have in its
// place.
const maxEnds = 1 << 10

// Get returns the value of the first header of that name.
// STOMP 1.2, "Repeated Header Entries".
func (v *View) Get(name string) ([]byte, bool) {
	for i := range v.Headers {
		if string(v.Headers[i].Name) == name {
			return v.Headers[i].Value, true
		}
	}
	return nil, false
}

// Frame is a copy that rests on nothing, for frames that are rare.
func (v *View) Frame() *frame.Frame {
	f := frame.New(v.Command)
	for _, h := range v.Headers {
		f.Header.Add(string(h.Name), string(h.Value))
	}
	f.Body = bytes.Clone(v.Body)
	return f
}

// Scan takes one frame off in, with the line ends before it, and returns how
// many octets that were. With v.Command empty there was none: the octets
// counted are line ends, what follows is unfinished, and the next Scan must
// begin with it. The error is an *Error; after it the connection is lost, for
// nobody knows where the next frame begins. v.Command then says which it was
// in, if that was known.
//
// It allocates nothing but room for the headers' places and for text that has
// escapes, both kept for the next frame and bounded by the Limits.
func Scan(in []byte, v *View) (n int, err error) {
	v.Command, v.Need = "", 0
	skip := 0
	if v.part.seen == 0 {
		skip, err = lineEnds(in)
	} else if whole, err := v.more(in); !whole {
		return 0, err
	}
	if err != nil || skip == len(in) {
		return skip, err
	}
	if in[skip] == '\r' { // the other half of a line end is on its way
		return skip, nil
	}
	v.part = part{}
	n, err = v.parse(in[skip:])
	if n == 0 && err == nil {
		v.Command = ""
	}
	return skip + n, err
}

// lineEnds counts the line ends before a frame.
// STOMP 1.2, "Heart-beating": any end of line may come between frames.
func lineEnds(in []byte) (n int, err error) {
	for n < len(in) {
		switch {
		case in[n] == '\n':
			n++
		case in[n] != '\r':
			return n, nil
		case n+1 == len(in):
			return n, nil
		case in[n+1] != '\n':
			return n, errLineEnd
		default:
			n += 2
		}
	}
	return n, nil
}

// parse takes a frame that begins at once. It returns 0 where the frame is
// unfinished, and notes how far it got.
func (v *View) parse(in []byte) (n int, err error) {
	end := bytes.IndexByte(in, '\n')
	if end < 0 {
		return 0, v.unfinishedHead(in, part{length: -1})
	}
	if end > v.Limits.Line {
		return 0, errLine
	}
	v.Command = command(trimReturn(in[:end]))
	if v.Command == "" {
		return 0, errCommand
	}
	body, length, err := v.parseHeaders(in, end+1)
	if err != nil || body == 0 {
		return 0, err
	}
	if err := v.clean(in[:body]); err != nil {
		return 0, err
	}
	return v.parseBody(in, body, length)
}

// parseHeaders returns where the body begins, 0 if that is not there yet, and
// the content-length, -1 if there is none.
func (v *View) parseHeaders(in []byte, pos int) (body, length int, err error) {
	if cap(v.Headers) > keepHeaders {
		v.Headers = nil
	}
	v.Headers, length = v.Headers[:0], -1
	for {
		i := bytes.IndexByte(in[pos:], '\n')
		if i < 0 {
			return 0, 0, v.unfinishedHead(in, part{line: pos, count: len(v.Headers), command: v.Command, length: length})
		}
		line := trimReturn(in[pos : pos+i])
		pos += i + 1
		if len(line) == 0 {
			break
		}
		count := len(v.Headers)
		if count < cap(v.Headers) { // filled in place: a header is six words
			v.Headers = v.Headers[:count+1]
		} else {
			v.Headers = append(v.Headers, Header{})
		}
		if err = v.header(line, count, &v.Headers[count], &length); err != nil {
			return 0, 0, err
		}
	}
	if pos > v.Limits.Section {
		return 0, 0, errSection
	}
	return pos, length, nil
}

// header splits the line of header number i into h, and notes the first
// content-length.
func (v *View) header(line []byte, i int, h *Header, length *int) (err error) {
	if len(line) > v.Limits.Line {
		return errLine
	}
	if i >= v.Limits.Headers {
		return errHeaders
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return errColon
	}
	h.Name, h.Value = line[:colon], line[colon+1:]
	if v.Version == V10 { // 1.1 was the first to forbid it
		if h.Name, h.Value = bytes.Trim(h.Name, " "), bytes.Trim(h.Value, " "); len(h.Name) == 0 {
			return errColon
		}
	}
	if *length < 0 && len(h.Name) == len(frame.ContentLength) && string(h.Name) == frame.ContentLength {
		*length, err = contentLength(h.Value, bodyLimit(v.Command, &v.Limits))
	}
	return err
}

// clean looks at the text of a frame as a whole, which is cheaper than header
// by header, and goes into the headers only where there is something to do.
func (v *View) clean(text []byte) error {
	if ordinary(text) {
		return nil
	}
	if !utf8.Valid(text) {
		return errUTF8
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return errControl
	}
	if bytes.IndexByte(text, '\r') >= 0 {
		for i := range v.Headers {
			if bytes.IndexByte(v.Headers[i].Name, '\r') >= 0 || bytes.IndexByte(v.Headers[i].Value, '\r') >= 0 {
				return errControl
			}
		}
	}
	// STOMP 1.2, "Value Encoding": "all frames except the CONNECT and
	// CONNECTED frames"; 1.0 has no escapes.
	if v.Version == V10 || connecting(v.Command) || bytes.IndexByte(text, '\\') < 0 {
		return nil
	}
	return v.unescape()
}

// ordinary says that all octets are ASCII, and none is a NUL, a carriage return
// or a backslash: eight at a time. It may say no without need, never yes.
func ordinary(text []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	for ; len(text) >= 8; text = text[8:] {
		x := binary.LittleEndian.Uint64(text)
		cr, backslash := x^('\r'*ones), x^('\\'*ones)
		// v-ones borrows into the high bit of an octet that is zero in v.
		if (x|(x-ones)&^x|(cr-ones)&^cr|(backslash-ones)&^backslash)&highs != 0 {
			return false
		}
	}
	for _, c := range text {
		if c >= utf8.RuneSelf || c == 0 || c == '\r' || c == '\\' {
			return false
		}
	}
	return true
}

// parseBody takes the body and the NUL behind it.
func (v *View) parseBody(in []byte, body, length int) (n int, err error) {
	if length >= 0 {
		return v.parseCounted(in, body, body+length+1)
	}
	limit := bodyLimit(v.Command, &v.Limits)
	i := bytes.IndexByte(in[body:], 0)
	if i > limit || (i < 0 && len(in)-body > limit) {
		return 0, v.tooLong(in[body:])
	}
	if i < 0 {
		v.part = part{seen: len(in), body: body, command: v.Command}
		return 0, v.allowed(in[body:])
	}
	v.Body = in[body : body+i]
	return body + i + 1, v.allowed(v.Body)
}

func (v *View) parseCounted(in []byte, body, total int) (n int, err error) {
	if len(in) < total {
		v.part = part{seen: len(in), body: body, total: total, command: v.Command}
		v.Need = total
		return 0, v.allowed(in[body:])
	}
	v.Body = in[body : total-1]
	if in[total-1] != 0 {
		return 0, errUnended
	}
	return total, v.allowed(v.Body)
}

// allowed says whether the frame may have this body, or this much of one.
// STOMP 1.2, "Body": "Only the SEND, MESSAGE, and ERROR frames MAY have a
// body"; line ends there harm nobody, and some clients send them.
func (v *View) allowed(body []byte) error {
	if bodied(v.Command) {
		return nil
	}
	for _, c := range body {
		if c != '\n' && c != '\r' {
			return errBody
		}
	}
	return nil
}

func (v *View) tooLong(body []byte) error {
	if err := v.allowed(body[:bodyLimit(v.Command, &v.Limits)]); err != nil {
		return err
	}
	return errBodyLimit
}

func bodyLimit(command string, l *Limits) int {
	if bodied(command) {
		return l.Body
	}
	return maxEnds
}

// unfinishedHead notes a head that goes on behind in, and refuses it where
// what is there is already too much.
func (v *View) unfinishedHead(in []byte, p part) error {
	p.seen = len(in)
	v.part = p
	return v.checkHead(in, 0)
}

// checkHead looks at what has come of a head from an octet on: how long it has
// grown, and for a NUL, which nothing can make good.
func (v *View) checkHead(in []byte, from int) error {
	v.Command = v.part.command
	switch {
	case bytes.IndexByte(in[from:], 0) >= 0:
		return errControl
	case len(in)-v.part.line > v.Limits.Line+1: // a carriage return may be the last
		return errLine
	case len(in) > v.Limits.Section:
		return errSection
	}
	v.Command = ""
	return nil
}

// more goes on with an unfinished frame where the last Scan stopped, and says
// whether its next part is complete, so that parsing it again is worth while:
// that happens at most twice a frame, at the end of its headers and at its
// own, so the whole is linear in the octets that come.
func (v *View) more(in []byte) (whole bool, err error) {
	p := &v.part
	if len(in) < p.seen {
		return false, nil
	}
	if p.body == 0 {
		return v.moreHead(in)
	}
	fresh := in[p.seen:]
	if !bodied(p.command) && len(fresh) > 0 {
		return true, nil // at most maxEnds octets: parse looks at them each time
	}
	if p.total > 0 {
		v.Need = p.total
		return len(in) >= p.total, nil
	}
	p.seen = len(in)
	// Beyond the limit parse says what is wrong.
	return bytes.IndexByte(fresh, 0) >= 0 || len(in)-p.body > v.Limits.Body, nil
}

// moreHead looks at the lines of a head one by one as they come.
func (v *View) moreHead(in []byte) (whole bool, err error) {
	p := &v.part
	for {
		i := bytes.IndexByte(in[p.seen:], '\n')
		if i < 0 {
			from := p.seen
			p.seen = len(in)
			return false, v.checkHead(in, from)
		}
		end := p.seen + i
		line := trimReturn(in[p.line:end])
		p.seen = end + 1
		if p.command == "" || len(line) == 0 {
			return true, nil // the command, or the end of the headers
		}
		v.Command = p.command
		var h Header
		if err := v.header(line, p.count, &h, &p.length); err != nil {
			return false, err
		}
		if bytes.IndexByte(line, 0) >= 0 {
			return false, errControl
		}
		if end >= v.Limits.Section {
			return false, errSection
		}
		v.Command = ""
		p.line = end + 1
		p.count++
	}
}

func trimReturn(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

// contentLength reads digits alone: no sign, no spaces.
func contentLength(text []byte, limit int) (n int, err error) {
	if len(text) == 0 {
		return 0, errLength
	}
	over := false
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, errLength
		}
		if n = n*10 + int(c-'0'); n > limit {
			n, over = limit, true // no overflow; the digits are still checked
		}
	}
	if over {
		return 0, errBodyLimit
	}
	return n, nil
}

// command is the frame package's own string for the word, "" if it is none.
// STOMP 1.2, "Augmented BNF": commands are case-sensitive.
func command(word []byte) string {
	switch string(word) {
	case frame.SEND:
		return frame.SEND
	case frame.ACK:
		return frame.ACK
	case frame.NACK:
		return frame.NACK
	case frame.SUBSCRIBE:
		return frame.SUBSCRIBE
	case frame.UNSUBSCRIBE:
		return frame.UNSUBSCRIBE
	case frame.BEGIN:
		return frame.BEGIN
	case frame.COMMIT:
		return frame.COMMIT
	case frame.ABORT:
		return frame.ABORT
	case frame.CONNECT:
		return frame.CONNECT
	case frame.STOMP:
		return frame.STOMP
	case frame.DISCONNECT:
		return frame.DISCONNECT
	case frame.CONNECTED:
		return frame.CONNECTED
	case frame.MESSAGE:
		return frame.MESSAGE
	case frame.RECEIPT:
		return frame.RECEIPT
	case frame.ERROR:
		return frame.ERROR
	}
	return ""
}

func bodied(command string) bool {
	return command == frame.SEND || command == frame.MESSAGE || command == frame.ERROR
}

func connecting(command string) bool {
	return command == frame.CONNECT || command == frame.STOMP || command == frame.CONNECTED
}
