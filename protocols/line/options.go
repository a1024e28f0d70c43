package line

import (
	"strconv"
	"strings"
	"time"

	"github.com/godwitmq/godwit/core"
)

// maxOptions is how many options a verb's table may have: request.seen has a
// bit for each.
const maxOptions = 32

// A kind is what an option's value must look like.
type kind uint8

const (
	flag   kind = iota // no value
	count              // a number from min to max
	lapse              // a duration from 0 to max
	word               // one of words
	text               // a token, decoded; may be empty
	name               // a token, decoded; 1 to 255 octets
	octets             // a token whose decoded octets are free
	dest               // an address
)

// An option is one row of a verb's table. HELP prints it.
type option struct {
	name     string
	kind     kind
	min, max int64 // of count; of lapse max in nanoseconds
	words    []string
	help     string
	not      string // NotYet's subject: in the grammar, and not built yet
	of       string // of MK and RM: which kinds of things have it, by first letter
}

const (
	maxNumber = 1<<63 - 1
	maxLapse  = 366 * 24 * time.Hour
)

// read checks a value and reads what has a number.
func (o *option) read(to *int64, value []byte, given bool) *core.Error {
	if o.not != "" {
		return core.NotYet(o.not)
	}
	if (o.kind == flag) == given {
		return o.bad(value, given)
	}
	ok := true
	switch o.kind {
	case flag, text, octets:
	case count:
		*to, ok = number(value)
		ok = ok && *to >= o.min && (o.max == 0 || *to <= o.max)
	case lapse:
		*to, ok = duration(value)
		ok = ok && *to <= o.most()
	case word:
		ok = false
		for i, w := range o.words {
			if w == string(value) {
				*to, ok = int64(i), true
			}
		}
	case name:
		ok = len(value) > 0 && len(value) <= 3*core.MaxNameBytes
	case dest:
		ok = len(value) > 2 && value[1] == '/'
	}
	if !ok {
		return o.bad(value, given)
	}
	return nil
}

func (o *option) most() int64 {
	if o.max == 0 {
		return int64(maxLapse)
	}
	return o.max
}

func (o *option) bad(value []byte, given bool) *core.Error {
	if o.kind == flag && given {
		return core.Errorf(core.CodeBadValue, "%s has no value", o.name)
	}
	return core.Errorf(core.CodeBadValue, "%s wants %s, not %q", o.name, o.wants(), clip(value))
}

// wants is what a value must be, for people.
func (o *option) wants() string {
	switch o.kind {
	case flag:
		return "no value"
	case count:
		if o.max == 0 {
			return "a number from " + strconv.FormatInt(o.min, 10)
		}
		return "a number from " + strconv.FormatInt(o.min, 10) + " to " + strconv.FormatInt(o.max, 10)
	case lapse:
		return "a duration as 500ms, 30s, 5m, 1h or 2d, at most " + formatDuration(time.Duration(o.most()))
	case word:
		return "one of " + strings.Join(o.words, " ")
	case text, octets:
		return "text"
	case name:
		return "a name of 1 to " + strconv.Itoa(core.MaxNameBytes) + " octets"
	case dest:
		return "an address: q/QUEUE, t/TOPIC, x/EXCHANGE/KEY, s/STREAM or r/REPLY"
	}
	return "a value"
}

// usage is the option in HELP.
func (o *option) usage() string {
	switch o.kind {
	case flag:
		return o.name
	case count:
		return o.name + "=N"
	case lapse:
		return o.name + "=DURATION"
	case word:
		return o.name + "=" + strings.Join(o.words, "|")
	case dest:
		return o.name + "=DEST"
	case text, name, octets:
	}
	return o.name + "=TEXT"
}

// number reads 1 to 19 digits, at most 2^63-1.
func number(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	n := uint64(0)
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 {
			return 0, false
		}
		n = n*10 + d
	}
	return int64(n), n <= maxNumber
}

// duration reads a number and its unit, at most 366 days, in nanoseconds.
func duration(b []byte) (int64, bool) {
	at := 0
	for at < len(b) && b[at]-'0' <= 9 {
		at++
	}
	n, ok := number(b[:at])
	if !ok {
		return 0, false
	}
	var unit time.Duration
	switch string(b[at:]) {
	case "ms":
		unit = time.Millisecond
	case "s":
		unit = time.Second
	case "m":
		unit = time.Minute
	case "h":
		unit = time.Hour
	case "d":
		unit = 24 * time.Hour
	default:
		return 0, false
	}
	if n > int64(maxLapse/unit) {
		return 0, false
	}
	return n * int64(unit), true
}

// formatDuration is duration's reverse: the largest unit that fits.
func formatDuration(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d >= u.unit && d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}
