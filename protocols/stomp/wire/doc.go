// Package wire knows the bytes of STOMP 1.0, 1.1 and 1.2 and nothing else: it
// scans frames in place and appends frames to a buffer.
//
//	in -> Scan -> View (text and body still lie in the read buffer)
//	out <- Append, AppendText, AppendHeader
//
// The words are those of go-stomp's frame package. Its Reader and Writer are
// not used: the Reader allocates what content-length promises before a byte of
// the body is there, has no limits and knows no versions; the Writer flushes
// each frame and lets a NUL in a header start a frame of its own.
package wire

// A Version is a version of the protocol.
type Version uint8

// The versions, in order.
const (
	V10 Version = iota
	V11
	V12
)

// String is the version as it stands in accept-version.
func (v Version) String() string {
	return [...]string{"1.0", "1.1", "1.2"}[v]
}

// Limits bound one frame. They are taken as they are: zero allows nothing.
type Limits struct {
	Line    int // octets of the command or of one header
	Headers int // headers of a frame
	Section int // octets of command and headers together
	Body    int // octets
}

// An Error says what is wrong with the bytes: Code is Godwit's number of it
// (400, 405, 413, 431), Text one line for people that holds nothing of the
// bytes themselves.
type Error struct {
	Code int
	Text string
}

func (e *Error) Error() string { return e.Text }

var (
	errCommand   = &Error{405, "unknown command: commands are upper case, one to a line"}
	errColon     = &Error{400, "a header line has no colon, or nothing before it"}
	errControl   = &Error{400, "a header holds a NUL or a carriage return that does not end the line"}
	errUTF8      = &Error{400, "a header is not UTF-8"}
	errEscape    = &Error{400, "a header holds an escape that this version does not define"}
	errLength    = &Error{400, "content-length is not a number"}
	errUnended   = &Error{400, "the octet behind a body of content-length is not NUL"}
	errBody      = &Error{400, "only SEND, MESSAGE and ERROR can have a body"}
	errLineEnd   = &Error{400, "a carriage return between frames is not followed by a line feed"}
	errLine      = &Error{413, "a line is longer than the limit"}
	errHeaders   = &Error{431, "a frame has more headers than the limit"}
	errSection   = &Error{431, "the headers of a frame are longer than the limit"}
	errBodyLimit = &Error{413, "a body is longer than the limit"}
)
