package stomp

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/protocols/stomp/wire"
)

// A failure is the one ERROR of a connection.
type failure struct {
	err     *core.Error
	command string // of the frame at fault; empty: none was
	receipt receipt
	silent  bool // close without a word
}

// maxText bounds the text of an ERROR, maxQuoted what it shows of a header.
const (
	maxText   = 200
	maxQuoted = 64
)

// headerVersions is what we say where there is no version in common.
// STOMP 1.2, "Protocol Negotiation".
const headerVersions = "1.0,1.1,1.2"

var errNoVersion = &core.Error{Code: core.CodeBadValue, Text: "no version in common: accept-version must hold one of " + headerVersions}

// asFailure makes the broker's error of any error of a frame.
func asFailure(err error) *core.Error {
	if w, ok := errors.AsType[*wire.Error](err); ok {
		return &core.Error{Code: core.Code(w.Code), Text: w.Text}
	}
	return core.AsError(err)
}

// appendError says why the connection ends. It shows the rule that was broken
// and never a body, a passcode or what the broker keeps to itself.
func appendError(dst []byte, version wire.Version, f *failure) []byte {
	text := oneLine(f.err.Error())
	e := frame.New(frame.ERROR, frame.Message, text, "code", strconv.Itoa(int(f.err.Code)))
	if f.receipt.asked {
		e.Header.Add(frame.ReceiptId, f.receipt.id)
	}
	if f.err == errNoVersion {
		e.Header.Add(frame.Version, headerVersions)
	}
	e.Body = errorBody(f, text)
	e.Header.Add(frame.ContentType, "text/plain")
	e.Header.Add(frame.ContentLength, strconv.Itoa(len(e.Body)))
	return wire.Append(dst, version, e)
}

func errorBody(f *failure, text string) []byte {
	var b []byte
	if f.command != "" {
		b = append(append(b, f.command...), ": "...)
	}
	b = append(append(b, text...), "\n"...)
	b = append(append(b, "error "...), strconv.Itoa(int(f.err.Code))...)
	return append(append(append(b, ' '), f.err.Code.Name()...), '\n')
}

func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return cut(s, maxText)
}

// cut is s, or as much of it as whole characters fill n octets.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// quoted shows what a client wrote, briefly and without control characters.
func quoted(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(cut(s, maxQuoted)) + "..."
	}
	return strconv.Quote(s)
}

// passing says whether a refusal is of the moment: then a SEND without receipt
// is dropped and counted, for closing would only start a storm of reconnects.
func passing(e *core.Error) bool {
	return e.Code == core.CodeQuota || e.Code == core.CodeUnavailable || e.Code == core.CodeStorageFull
}

func badValue(name, value, want string) *core.Error {
	return core.Errorf(core.CodeBadValue, "header %s is %s: want %s", name, quoted(value), want)
}

func missing(name string) *core.Error {
	return core.Errorf(core.CodeSyntax, "header %s is missing", name)
}
