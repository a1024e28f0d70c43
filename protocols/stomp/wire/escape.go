package wire

import "bytes"

// unescape replaces what the version defines in each header that has a
// backslash. The text is built beside the scanned bytes, which are never
// written to: they may be scanned again.
func (v *View) unescape() error {
	if cap(v.unescaped) > keepText {
		v.unescaped = nil
	}
	v.unescaped = v.unescaped[:0]
	for i := range v.Headers {
		h := &v.Headers[i]
		var ok bool
		if h.Name, ok = v.plain(h.Name); !ok {
			return errEscape
		}
		if h.Value, ok = v.plain(h.Value); !ok {
			return errEscape
		}
	}
	return nil
}

// plain is s without escapes. Earlier results stay good when the backing
// moves: they keep the old one.
func (v *View) plain(s []byte) ([]byte, bool) {
	if bytes.IndexByte(s, '\\') < 0 {
		return s, true
	}
	start := len(v.unescaped)
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			if i++; i == len(s) {
				return nil, false
			}
			if c = meaning(s[i], v.Version); c == 0 {
				return nil, false
			}
		}
		v.unescaped = append(v.unescaped, c)
	}
	return v.unescaped[start:len(v.unescaped):len(v.unescaped)], true
}

// meaning is the octet that a backslash and c stand for; 0: not defined.
// STOMP 1.2, "Value Encoding": "Undefined escape sequences such as \t MUST be
// treated as a fatal protocol error."
func meaning(c byte, version Version) byte {
	switch c {
	case 'n':
		return '\n'
	case 'c':
		return ':'
	case '\\':
		return '\\'
	case 'r': // not in 1.1
		if version == V12 {
			return '\r'
		}
	}
	return 0
}
