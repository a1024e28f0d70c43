package line

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godwitmq/godwit/core"
)

// parsed is what a request says, for tables.
type parsed struct {
	Verb    string
	Args    []string
	Options map[string]string
	Headers []string
	Payload string
}

func show(r *request) parsed {
	p := parsed{Verb: r.verb.name, Payload: string(r.payload)}
	for i := range r.nargs {
		p.Args = append(p.Args, string(r.arg(i)))
	}
	for i := range r.verb.options {
		if r.has(i) {
			if p.Options == nil {
				p.Options = map[string]string{}
			}
			p.Options[r.verb.options[i].name] = string(r.bytes(r.raw[i]))
		}
	}
	for _, h := range r.headers {
		p.Headers = append(p.Headers, string(r.bytes(h)))
	}
	return p
}

// take scans and parses all of in.
func take(r *request, in string) (n int, err *core.Error) {
	b := []byte(in)
	n, err = r.scan(b, 4096)
	if err != nil || n == 0 || r.verb == nil || len(r.line) == 0 {
		return n, err
	}
	if err := r.parse(); err != nil {
		return n, err
	}
	if r.length != noLength {
		m, err := r.body(b[n:])
		if err != nil || m == 0 {
			return 0, err
		}
		n += m
	}
	return n, nil
}

func TestScan(t *testing.T) {
	tests := []struct {
		name, in string
		want     parsed
	}{
		{"a plain publish", "PUB q/a 2\nhi\n", parsed{Verb: "PUB", Args: []string{"q/a"}, Payload: "hi"}},
		{"verbs are any case", "pUb q/a 2\nhi\n", parsed{Verb: "PUB", Args: []string{"q/a"}, Payload: "hi"}},
		{"CR LF ends lines and payloads", "PUB q/a 2\r\nhi\r\n", parsed{Verb: "PUB", Args: []string{"q/a"}, Payload: "hi"}},
		{"the length counts octets, and CR LF behind it is not part of it", "PUB q/a 4\n\r\n\r\n\r\n", parsed{Verb: "PUB", Args: []string{"q/a"}, Payload: "\r\n\r\n"}},
		{"an empty payload", "PUB q/a 0\n\n", parsed{Verb: "PUB", Args: []string{"q/a"}}},
		{
			"options and headers, in any order", "PUB q/a :x=1 id=7 :x=2 must ct=text/plain 0\n\n",
			parsed{Verb: "PUB", Args: []string{"q/a"}, Options: map[string]string{"id": "7", "must": "", "ct": "text/plain"}, Headers: []string{"x=1", "x=2"}},
		},
		{"a value may hold equals signs", "PUB q/a key=a=b= 0\n\n", parsed{Verb: "PUB", Args: []string{"q/a"}, Options: map[string]string{"key": "a=b="}}},
		{"a value may be empty", "PUB q/a ct= :x= 0\n\n", parsed{Verb: "PUB", Args: []string{"q/a"}, Options: map[string]string{"ct": ""}, Headers: []string{"x="}}},
		{"SAY takes the rest as it is", "SAY q/a  a\t %zz 12 \n", parsed{Verb: "SAY", Args: []string{"q/a", " a\t %zz 12 "}}},
		{"SAY may say nothing", "SAY q/a \n", parsed{Verb: "SAY", Args: []string{"q/a", ""}}},
		{"UTF-8 in names", "GET q/größe n=3\n", parsed{Verb: "GET", Args: []string{"q/größe"}, Options: map[string]string{"n": "3"}}},
		{"an optional argument that is there", "LS q/ord* after=q/x\n", parsed{Verb: "LS", Args: []string{"q/ord*"}, Options: map[string]string{"after": "q/x"}}},
		{"an optional argument that is not", "LS after=q/x\n", parsed{Verb: "LS", Options: map[string]string{"after": "q/x"}}},
		{"two optional numbers", "CREDIT 8 500 65536\n", parsed{Verb: "CREDIT", Args: []string{"8", "500", "65536"}}},
		{"no argument at all", "QUIT\n", parsed{Verb: "QUIT"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := new(request)
			n, err := take(r, tt.in)
			if err != nil || n != len(tt.in) {
				t.Fatalf("%q: took %d of %d: %v", tt.in, n, len(tt.in), err)
			}
			if diff := cmp.Diff(tt.want, show(r)); diff != "" {
				t.Errorf("%q (-want +got):\n%s", tt.in, diff)
			}
			for cut := range len(tt.in) {
				if n, err := take(r, tt.in[:cut]); n != 0 || err != nil {
					t.Errorf("%q: took %d, %v; it is not all there", tt.in[:cut], n, err)
				}
			}
		})
	}
}

func TestScanRefuses(t *testing.T) {
	tests := []struct {
		name, in string
		code     core.Code
		text     string // part of it
	}{
		{"a double space", "PUB q/a  id=1 2\nhi\n", 400, "column 9"},
		{"a double space before the length", "PUB q/a  2\nhi\n", 400, "column 8"},
		{"a double space before the destination", "GET  q/a\n", 400, "column 5"},
		{"a space at the end", "GET q/a n=1 \n", 400, "column 12"},
		{"a space behind a verb", "PING \n", 400, "column 5"},
		{"a space behind a verb without words", "QUIT \n", 400, "column 5"},
		{"a tab", "GET q/a\tn=1\n", 400, "column 8: a tab"},
		{"a control character", "GET q/\x01\n", 400, "column 7: the control character 01"},
		{"DEL", "GET q/aaaaaaaaaaa\x7f\n", 400, "column 18: the control character 7F"},
		{"NUL", "GET q/aaaaaaaaaaa\x00\n", 400, "control character 00"},
		{"a lone CR", "GET q/a\rb\n", 400, "control character 0D"},
		{"no UTF-8", "GET q/a\xff\n", 400, "not UTF-8"},
		{"half a rune", "GET q/\xc3\n", 400, "not UTF-8"},
		{"an overlong rune", "GET q/\xc0\xaf\n", 400, "not UTF-8"},
		{"a surrogate", "GET q/\xed\xa0\x80\n", 400, "not UTF-8"},
		{"a lone percent sign", "GET q/100%\n", 400, "column 10: %"},
		{"a percent sign with one digit", "GET q/100%2\n", 400, "%25"},
		{"a percent sign with no digits", "GET q/100%zz\n", 400, "column 10"},
		{"a missing word", "SUB 1\n", 400, "SUB sid dest"},
		{"a verb alone", "GET\n", 400, "GET dest"},
		{"a publish without destination", "PUB 5\nhello\n", 400, "PUB dest"},
		{"a text that is missing", "SAY q/a\n", 400, "SAY dest text"},
		{"an unknown option", "PUB q/a foo=1 0\n\n", 406, `"foo"`},
		{"the end of a key", "MK q/a messages=5\n", 406, `"messages"`},
		{"a key with something before", "SUB 1 t/a xretained=all\n", 406, `"xretained"`},
		{"an unknown flag", "PUB q/a foo 0\n\n", 406, `"foo"`},
		{"a key in upper case", "PUB q/a ID=1 0\n\n", 406, `"ID"`},
		{"an option twice", "PUB q/a id=1 id=2 0\n\n", 406, "twice"},
		{"a word too many", "QUIT now\n", 406, `"now"`},
		{"a header where there is none", "GET q/a :x=1\n", 406, `":x=1"`},
		{"a header without equals sign", "PUB q/a :x 0\n\n", 400, ":name=value"},
		{"a header without name", "PUB q/a :=x 0\n\n", 400, ":name=value"},
		{"too many headers", "PUB q/a" + strings.Repeat(" :a=1", 65) + " 0\n\n", 431, "64"},
		{"a flag with a value", "PUB q/a must=1 0\n\n", 406, "no value"},
		{"a key without its value", "PUB q/a id 0\n\n", 406, "id wants a number"},
		{"an id of 0", "PUB q/a id=0 0\n\n", 406, "id wants"},
		{"an id that is too large", "PUB q/a id=9223372036854775808 0\n\n", 406, "id wants"},
		{"a number with too many digits", "PUB q/a id=00000000000000000001 0\n\n", 406, "id wants"},
		{"a number with a sign", "PUB q/a id=-1 0\n\n", 406, "id wants"},
		{"a quality of service of 3", "PUB q/a qos=3 0\n\n", 406, "0 to 2"},
		{"a priority of 10", "PUB q/a pri=10 0\n\n", 406, "0 to 9"},
		{"a duration without unit", "PUB q/a ttl=5 0\n\n", 406, "30s"},
		{"a duration of a year and two days", "PUB q/a ttl=367d 0\n\n", 406, "366d"},
		{"a duration that overflows", "PUB q/a ttl=9223372036854775807d 0\n\n", 406, "366d"},
		{"a wait that is too long", "GET q/a wait=301s\n", 406, "5m"},
		{"a lease that is too long", "GET q/a lease=13h\n", 406, "12h"},
		{"more than a GET may take", "GET q/a n=10001\n", 406, "10000"},
		{"a GET of nothing", "GET q/a n=0\n", 406, "1 to 10000"},
		{"an unknown word", "SUB 1 q/a ack=maybe\n", 406, "none auto manual"},
		{"an empty name", "HELLO 1 client=\n", 406, "client wants a name"},
		{"what is not built", "SUB 1 q/a sel=x\n", 406, "not supported yet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := new(request)
			_, err := take(r, tt.in)
			if err == nil || err.Code != tt.code || !strings.Contains(err.Text, tt.text) {
				t.Errorf("%q: %d %v, want %d ... %s", tt.in, codeOf(err), err, tt.code, tt.text)
			}
		})
	}
}

func codeOf(e *core.Error) core.Code {
	if e == nil {
		return 0
	}
	return e.Code
}

// Where the framing is lost there is nothing to go on from.
func TestFramingIsLost(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		code     core.Code
	}{
		{"a payload without its end", "PUB q/a 2\nhix", 400},
		{"a payload that CR alone ends", "PUB q/a 2\nhi\rx", 400},
		{"a length with a letter", "PUB q/a 12a\n", 400},
		{"a length that is negative", "PUB q/a -1\n", 400},
		{"a length of ten digits", "PUB q/a 0000000001\n", 400},
		{"no length", "PUB q/a \n", 400},
		{"nothing at all", "PUB\n", 400},
		{"a line over the limit", strings.Repeat("x", 4097) + "\n", 413},
		{"a line over the limit that has not ended", strings.Repeat("x", 4097), 413},
	} {
		r := new(request)
		n, err := r.scan([]byte(tt.in), 4096)
		if err == nil && n > 0 {
			_, err = r.body([]byte(tt.in)[n:])
		}
		if codeOf(err) != tt.code {
			t.Errorf("%s: %v, want %d", tt.name, err, tt.code)
		}
	}
	if _, err := new(request).scan([]byte(strings.Repeat("x", 4096)), 4096); err != nil {
		t.Errorf("a line at the limit that has not ended: %v", err)
	}
}

func TestPlain(t *testing.T) {
	for n := range 40 {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte{'a'}, n)
				b[at] = byte(c)
				want := c >= ' ' && c < 0x7f && c != '%'
				if got := plain(b); got != want {
					t.Fatalf("plain of %d octets, %02X at %d = %v, want %v", n, c, at, got, want)
				}
			}
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{"0", 0, true},
		{"9223372036854775807", 1<<63 - 1, true},
		{"9223372036854775808", 0, false},
		{"9999999999999999999", 0, false},
		{"", 0, false},
		{"1x", 0, false},
		{"007", 7, true},
	} {
		if got, ok := number([]byte(tt.in)); ok != tt.ok || (ok && got != tt.want) {
			t.Errorf("number(%q) = %d, %v, want %d, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
	for _, tt := range []struct {
		in, want string
	}{
		{"0s", "0ms"}, {"1500ms", "1500ms"}, {"90s", "90s"}, {"60s", "1m"}, {"24h", "1d"}, {"366d", "366d"},
	} {
		n, ok := duration([]byte(tt.in))
		if got := formatDuration(lapseOf(n)); !ok || got != tt.want {
			t.Errorf("duration(%q) = %s, %v, want %s", tt.in, got, ok, tt.want)
		}
	}
}

// What a stranger sends costs memory in proportion.
func TestScanAllocatesLittle(t *testing.T) {
	for _, in := range []string{
		"PUB q/a " + strings.Repeat("%", 4000) + " 0\n\n",
		"PUB q/a " + strings.Repeat("x", 4000) + "=1 0\n\n",
		"PUB q/a" + strings.Repeat(" :%41=%42", 64) + " 0\n\n",
		"GET q/" + strings.Repeat("\x01", 4000) + "\n",
		strings.Repeat("é", 2000) + "\n",
		"PUB q/a 999999999\n",
	} {
		r := new(request)
		take(r, in)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const runs = 100
		for range runs {
			take(r, in)
		}
		runtime.ReadMemStats(&after)
		if got, most := (after.TotalAlloc-before.TotalAlloc)/runs, uint64(4*len(in)+2048); got > most {
			t.Errorf("%.20q: %d octets take %d, want %d at most", in, len(in), got, most)
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range []string{
		"PUB q/a id=1 ct=text/plain :a=b 2\nhi\n", "SAY q/a \t%\n", "GET q/a%20b wait=5s\r\n", "\n\r\n", "ACK 0 1-9,12 id=4\n",
		"HELLO 1 user=a pass=b\n", "PUB q/a 3\nab", "LS q/*\n", "NACK 8 4 dead\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, part := new(request), new(request)
		n, err := take(whole, string(in))
		if n > len(in) {
			t.Fatalf("took %d of %d", n, len(in))
		}
		if n == 0 || err != nil || whole.verb == nil || len(whole.line) == 0 {
			return
		}
		for cut := range n {
			if m, err := take(part, string(in[:cut])); m != 0 && err == nil {
				t.Fatalf("took %d of %q: it is not all there", m, in[:cut])
			}
		}
		if m, err := take(part, string(in[:n])); m != n || err != nil {
			t.Fatalf("took %d, %v of %q, before %d", m, err, in[:n], n)
		}
		if diff := cmp.Diff(show(whole), show(part)); diff != "" {
			t.Fatal(diff)
		}
	})
}
