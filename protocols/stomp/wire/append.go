package wire

import (
	"strings"
	"unicode/utf8"

	"github.com/go-stomp/stomp/v3/frame"
)

// special marks what must not stand as it is in header text.
var special = [256]bool{0: true, '\n': true, '\r': true, ':': true, '\\': true}

// AppendHeader appends one header with its line end, in the version's escapes.
// It says false, and appends nothing, where the header cannot be said: a NUL,
// no UTF-8, no name, and in 1.0 a colon in the name.
func AppendHeader(dst []byte, version Version, name, value string) ([]byte, bool) {
	if name == "" || (version == V10 && strings.IndexByte(name, ':') >= 0) {
		return dst, false
	}
	start := len(dst)
	dst, ok := AppendText(dst, version, name)
	if ok {
		dst, ok = AppendText(append(dst, ':'), version, value)
	}
	if !ok {
		return dst[:start], false
	}
	return append(dst, '\n'), true
}

// AppendText appends header text in the version's escapes. What a version has
// no escape for becomes a space: CR in 1.1, CR and LF in 1.0. It says false for
// text that no version can say: with a NUL, or not UTF-8.
func AppendText(dst []byte, version Version, s string) ([]byte, bool) {
	plain, ascii := true, true
	for i := range len(s) {
		plain = plain && !special[s[i]]
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	if !ascii && !utf8.ValidString(s) {
		return dst, false
	}
	if plain {
		return append(dst, s...), true
	}
	return appendEscaped(dst, version, s)
}

func appendEscaped(dst []byte, version Version, s string) ([]byte, bool) {
	for i := range len(s) {
		c := s[i]
		switch {
		case c == 0:
			return dst, false
		case !special[c]:
			dst = append(dst, c)
		case version == V10 && (c == ':' || c == '\\'):
			dst = append(dst, c)
		case version == V10, version == V11 && c == '\r':
			dst = append(dst, ' ')
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == ':':
			dst = append(dst, '\\', 'c')
		default:
			dst = append(dst, '\\', '\\')
		}
	}
	return dst, true
}

// Append appends a frame, and leaves out the headers that cannot be said. The
// body goes as it is: who has one sets content-length.
func Append(dst []byte, version Version, f *frame.Frame) []byte {
	if connecting(f.Command) {
		// STOMP 1.2, "Value Encoding": CONNECT and CONNECTED are not escaped,
		// "to remain backwards compatible with STOMP 1.0".
		version = V10
	}
	dst = append(dst, f.Command...)
	dst = append(dst, '\n')
	for i := range f.Header.Len() {
		name, value := f.Header.GetAt(i)
		dst, _ = AppendHeader(dst, version, name, value)
	}
	dst = append(dst, '\n')
	dst = append(dst, f.Body...)
	return append(dst, 0)
}
