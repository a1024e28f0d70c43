package protocoltest

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
)

// vars are what a run has captured, and its each-variables.
type vars map[string]string

var dollar = regexp.MustCompile(`\$(\$|[A-Za-z_]\w*)`)

// fill replaces the variables of a text that is sent.
func (v vars) fill(text string) (string, error) {
	var err error
	out := dollar.ReplaceAllStringFunc(text, func(m string) string {
		if m == "$$" {
			return "$"
		}
		value, ok := v[m[1:]]
		if !ok && err == nil {
			err = fmt.Errorf("%s is not known here (write $$ for a dollar)", m)
		}
		return value
	})
	return out, err
}

// match says whether got is what the pattern means: $x is captured, and from
// then on must be equal; $_ is anything. A variable holds no space unless it
// ends the pattern.
func (v vars) match(pattern, got string) bool {
	if !strings.Contains(pattern, "$") {
		return pattern == got // any octets
	}
	if begin, ok := strings.CutSuffix(pattern, "$_"); ok && !strings.Contains(begin, "$") {
		return strings.HasPrefix(got, begin) // bodies can be long
	}
	re, names := v.compile(pattern)
	m := re.FindStringSubmatch(got)
	if m == nil {
		return false
	}
	caught := vars{}
	for i, name := range names {
		if old, twice := caught[name]; twice && old != m[i+1] {
			return false
		}
		caught[name] = m[i+1]
	}
	maps.Copy(v, caught)
	return true
}

func (v vars) compile(pattern string) (*regexp.Regexp, []string) {
	var names []string
	var re strings.Builder
	re.WriteString(`^(?s)`)
	for pattern != "" {
		at := dollar.FindStringIndex(pattern)
		if at == nil {
			re.WriteString(regexp.QuoteMeta(pattern))
			break
		}
		name, last := pattern[at[0]+1:at[1]], at[1] == len(pattern)
		re.WriteString(regexp.QuoteMeta(pattern[:at[0]]))
		pattern = pattern[at[1]:]
		value, known := v[name]
		switch {
		case name == "$":
			re.WriteString(`\$`)
		case known:
			re.WriteString(regexp.QuoteMeta(value))
		case name == "_" && last:
			re.WriteString(`.*`)
		case name == "_":
			re.WriteString(`\S*`)
		case last:
			re.WriteString(`(.+)`)
			names = append(names, name)
		default:
			re.WriteString(`(\S+?)`)
			names = append(names, name)
		}
	}
	re.WriteString(`$`)
	return regexp.MustCompile(re.String()), names
}

// A field is a name and its value, in whatever notation.
type field struct{ name, value string }

// unquote takes a Go string off the front of text.
func unquote(text string) (value, rest string, err error) {
	q, err := strconv.QuotedPrefix(text)
	if err != nil {
		return "", text, err
	}
	value, err = strconv.Unquote(q)
	return value, text[len(q):], err
}

// fieldsOf cuts a text at its spaces. Inside a Go string a space is no cut,
// and the string counts as what it says.
func fieldsOf(text string) ([]string, error) {
	var out []string
	for {
		text = strings.TrimLeft(text, " ")
		if text == "" {
			return out, nil
		}
		var word strings.Builder
		for text != "" && text[0] != ' ' {
			if text[0] != '"' {
				word.WriteByte(text[0])
				text = text[1:]
				continue
			}
			value, rest, err := unquote(text)
			if err != nil {
				return nil, fmt.Errorf("%s: a Go string is not closed", text)
			}
			word.WriteString(value)
			text = rest
		}
		out = append(out, word.String())
	}
}

// cutBody cuts "head | body": the body is the rest of the line, or a Go string.
func cutBody(text string) (head, body string, has bool, err error) {
	head, body, has = strings.Cut(text, " |")
	if !has {
		return text, "", false, nil
	}
	body = strings.TrimPrefix(body, " ")
	if !strings.HasPrefix(body, `"`) {
		return head, body, true, nil
	}
	value, rest, err := unquote(body)
	if err != nil || rest != "" {
		return head, body, true, fmt.Errorf("%s is no Go string", body)
	}
	return head, value, true, nil
}

// showValue quotes what would not be read back as it is.
func showValue(s string) string {
	if plain(s) && !strings.ContainsAny(s, ` |`) {
		return s
	}
	return strconv.Quote(s)
}

// showBody is showValue for what ends a line.
func showBody(s string) string {
	if plain(s) {
		return s
	}
	return strconv.Quote(s)
}

// plain says whether a text can stand in a transcript without quotes.
func plain(s string) bool {
	q := strconv.Quote(s)
	return q[1:len(q)-1] == s && !strings.HasPrefix(s, " ") && !strings.HasSuffix(s, " ")
}
