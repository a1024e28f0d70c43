package wire

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/go-stomp/stomp/v3/frame"
	"github.com/google/go-cmp/cmp"
)

var testLimits = Limits{Line: 64 << 10, Headers: 128, Section: 256 << 10, Body: 16 << 20}

// scanned is a frame as plain text, for comparing.
type scanned struct {
	Command string
	Headers []string // name, value, name, value
	Body    string
}

func (v *View) scanned() scanned {
	s := scanned{Command: v.Command, Body: string(v.Body)}
	for _, h := range v.Headers {
		s.Headers = append(s.Headers, string(h.Name), string(h.Value))
	}
	return s
}

// scanAll takes all frames off in, which comes in pieces of the given size (0:
// at once), as a connection does: what is not taken is offered again, longer.
func scanAll(version Version, l Limits, in []byte, piece int) (frames []scanned, rest int, err error) {
	v := View{Version: version, Limits: l}
	if piece == 0 {
		piece = max(1, len(in))
	}
	var buffer []byte
	for len(in) > 0 {
		n := min(piece, len(in))
		buffer, in = append(buffer, in[:n]...), in[n:]
		for len(buffer) > 0 {
			n, err := Scan(buffer, &v)
			if err != nil {
				return frames, len(buffer), err
			}
			if v.Command != "" {
				frames = append(frames, v.scanned())
			}
			buffer = buffer[n:]
			if v.Command == "" {
				break
			}
		}
	}
	return frames, len(buffer), nil
}

func TestScanAccepts(t *testing.T) {
	all := []Version{V10, V11, V12}
	for _, c := range []struct {
		sentence string
		versions []Version
		in       string
		want     scanned
	}{
		{"a frame is a command, headers, a blank line, a body and a NUL", all, "SEND\na:b\n\nhello\x00", scanned{"SEND", []string{"a", "b"}, "hello"}},
		{"a frame may have no headers", all, "SEND\n\n\x00", scanned{Command: "SEND"}},
		{"line ends before a frame are skipped", all, "\n\r\n\nSEND\n\n\x00", scanned{Command: "SEND"}},
		{"a carriage return before a line feed belongs to the line end", all, "SEND\r\na:b\r\n\r\n\r\n\x00", scanned{"SEND", []string{"a", "b"}, "\r\n"}},
		{"a body without content-length ends at the first NUL", all, "SEND\n\na\x00", scanned{"SEND", nil, "a"}},
		{"a body of content-length may hold NUL", all, "SEND\ncontent-length:3\n\n\x00\x00\x00\x00", scanned{"SEND", []string{"content-length", "3"}, "\x00\x00\x00"}},
		{"content-length 0 is not the same as none", all, "SEND\ncontent-length:0\n\n\x00", scanned{"SEND", []string{"content-length", "0"}, ""}},
		{"of a repeated content-length the first counts", all, "SEND\ncontent-length:1\ncontent-length:9\n\na\x00", scanned{"SEND", []string{"content-length", "1", "content-length", "9"}, "a"}},
		{"repeated headers are kept in order", all, "SEND\na:1\na:2\n\n\x00", scanned{"SEND", []string{"a", "1", "a", "2"}, ""}},
		{"a value may be empty", all, "SEND\na:\n\n\x00", scanned{"SEND", []string{"a", ""}, ""}},
		{"a value may hold colons", all, "SEND\na:b:c\n\n\x00", scanned{"SEND", []string{"a", "b:c"}, ""}},
		{"1.0 trims spaces around name and value", []Version{V10}, "SEND\n a : b \n\n\x00", scanned{"SEND", []string{"a", "b"}, ""}},
		{"1.0 has no escapes", []Version{V10}, "SEND\na:\\n\\t\\\n\n\x00", scanned{"SEND", []string{"a", "\\n\\t\\"}, ""}},
		{"1.1 and 1.2 never trim", []Version{V11, V12}, "SEND\n a : b \n\n\x00", scanned{"SEND", []string{" a ", " b "}, ""}},
		{"1.1 and 1.2 have \\n \\c \\\\, in names too", []Version{V11, V12}, "SEND\n\\ca:\\n\\c\\\\n\n\n\x00", scanned{"SEND", []string{":a", "\n:\\n"}, ""}},
		{"1.2 has \\r", []Version{V12}, "SEND\na:\\r\n\n\x00", scanned{"SEND", []string{"a", "\r"}, ""}},
		{"CONNECT is never unescaped", all, "CONNECT\npasscode:a\\c\\t\n\n\x00", scanned{"CONNECT", []string{"passcode", "a\\c\\t"}, ""}},
		{"STOMP is never unescaped", all, "STOMP\npasscode:a\\c\n\n\x00", scanned{"STOMP", []string{"passcode", "a\\c"}, ""}},
		{"CONNECTED is never unescaped", all, "CONNECTED\nsession:a\\c\n\n\x00", scanned{"CONNECTED", []string{"session", "a\\c"}, ""}},
		{"headers are UTF-8", all, "SEND\nä:ö\n\n\x00", scanned{"SEND", []string{"ä", "ö"}, ""}},
		{"line ends in the place of a body harm nobody", all, "ACK\nid:1\n\n\n\r\n\x00", scanned{"ACK", []string{"id", "1"}, "\n\r\n"}},
		{"ERROR and MESSAGE have bodies", all, "ERROR\n\noh\x00", scanned{"ERROR", nil, "oh"}},
	} {
		for _, version := range c.versions {
			frames, rest, err := scanAll(version, testLimits, []byte(c.in), 0)
			if err != nil || rest != 0 {
				t.Errorf("%s: %s: Scan(%q) = %v, %d octets left", version, c.sentence, c.in, err, rest)
			} else if diff := cmp.Diff([]scanned{c.want}, frames); diff != "" {
				t.Errorf("%s: %s: Scan(%q): (-want +got)\n%s", version, c.sentence, c.in, diff)
			}
		}
	}
}

func TestScanRefuses(t *testing.T) {
	small := Limits{Line: 20, Headers: 3, Section: 50, Body: 10}
	for _, c := range []struct {
		sentence string
		in       string
		want     int
	}{
		{"an unknown command", "FLY\n\n\x00", 405},
		{"a command in lower case", "send\n\n\x00", 405},
		{"a command with a space behind it", "SEND \n\n\x00", 405},
		{"a header without a colon", "SEND\nab\n\n\x00", 400},
		{"a header without a name", "SEND\n:b\n\n\x00", 400},
		{"an undefined escape", "SEND\na:\\t\n\n\x00", 400},
		{"a lone backslash at the end", "SEND\na:\\\n\n\x00", 400},
		{"a NUL in a header", "SEND\na:\x00b\n\n\x00", 400},
		{"a NUL where a command should be", "\x00", 400},
		{"a carriage return inside a header", "SEND\na:b\rc\n\n\x00", 400},
		{"a carriage return alone between frames", "\rSEND\n\n\x00", 400},
		{"a header that is not UTF-8", "SEND\na:\xff\n\n\x00", 400},
		{"a content-length with a sign", "SEND\ncontent-length:+1\n\na\x00", 400},
		{"a negative content-length", "SEND\ncontent-length:-1\n\na\x00", 400},
		{"a content-length with a space", "SEND\ncontent-length: 1\n\na\x00", 400},
		{"an empty content-length", "SEND\ncontent-length:\n\na\x00", 400},
		{"a body longer than its content-length", "SEND\ncontent-length:1\n\nab\x00", 400},
		{"a content-length beyond the limit, before the body", "SEND\ncontent-length:11\n", 413},
		{"a content-length beyond an int", "SEND\ncontent-length:99999999999999999999999\n", 400 + 13},
		{"a body beyond the limit without an end", "SEND\n\n01234567890", 413},
		{"a body beyond the limit with an end", "SEND\n\n01234567890\x00", 413},
		{"a line beyond the limit without an end", "SEND\n0123456789:01234567890", 413},
		{"a line beyond the limit with an end", "SEND\n0123456789:0123456789\n", 413},
		{"a command beyond the limit", "SSSSSSSSSSSSSSSSSSSSSSSSS", 413},
		{"too many headers", "SEND\na:1\na:2\na:3\na:4\n", 431},
		{"headers too long together", "SEND\na:123456789012345678\na:123456789012345678\na:12345678", 431},
		{"a body on a frame that has none", "ACK\nid:1\n\nx\x00", 400},
		{"a body on a frame that has none, as soon as it begins", "ACK\nid:1\n\nx", 400},
		{"a counted body on a frame that has none", "ACK\ncontent-length:1\n\nx\x00", 400},
		{"line ends without end on a frame that has no body", "ACK\n\n" + strings.Repeat("\n", 2000), 413},
	} {
		for _, piece := range []int{0, 1, 3} {
			_, _, err := scanAll(V12, small, []byte(c.in), piece)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Code != c.want {
				t.Errorf("%s: Scan(%q) in pieces of %d = %v, want %d", c.sentence, c.in, piece, err, c.want)
			}
		}
	}
	if _, _, err := scanAll(V11, small, []byte("SEND\na:\\r\n\n\x00"), 0); err == nil {
		t.Error("1.1 took the escape \\r, which 1.2 brought")
	}
}

func TestScanLeavesUnfinishedFrames(t *testing.T) {
	whole := "\n\nSEND\na:b\ncontent-length:2\n\nhi\x00"
	for n := range len(whole) {
		frames, rest, err := scanAll(V12, testLimits, []byte(whole[:n]), 0)
		if err != nil || len(frames) != 0 || rest != max(0, n-2) {
			t.Errorf("Scan(%q) = %d frames, %d octets left, %v; want none, the frame's %d, nil", whole[:n], len(frames), rest, err, max(0, n-2))
		}
	}
	v := View{Limits: testLimits}
	if _, err := Scan([]byte("SEND\ncontent-length:100\n\nhi"), &v); err != nil || v.Need != 126 {
		t.Errorf("Need = %d, %v; want 126: the length of the frame", v.Need, err)
	}
}

// No octet of an unfinished frame is searched twice: a megabyte that comes
// octet by octet takes no time.
func TestScanIsLinear(t *testing.T) {
	for what, in := range map[string]string{
		"one endless line":      "SEND\na:" + strings.Repeat("x", 1<<20),
		"headers without end":   "SEND\n" + strings.Repeat("a:b\n", 1<<18),
		"body without a length": "SEND\n\n" + strings.Repeat("x", 1<<20) + "\x00",
		"body with a length":    "SEND\ncontent-length:1048576\n\n" + strings.Repeat("x", 1<<20) + "\x00",
	} {
		v := View{Version: V12, Limits: Limits{1 << 22, 1 << 20, 1 << 22, 1 << 22}}
		in := []byte(in)
		for n := 1; n <= len(in); n++ {
			if _, err := Scan(in[:n], &v); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
}

// mission: section 15 of the design, bad input. What a client can make the
// scanner allocate is a small multiple of what it has sent.
func TestScanHostile(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     int // 0: unfinished
	}{
		{"a promise of 2 GiB", "SEND\ncontent-length:2147483647\n\nx\x00", 413},
		{"a promise of all that is allowed", "SEND\ncontent-length:16777216\n\nx", 0},
		{"a header line of 8 MiB", "SEND\nk:" + strings.Repeat("v", 8<<20), 413},
		{"a command of 8 MiB", strings.Repeat("S", 8<<20), 413},
		{"200,000 headers", "SEND\n" + strings.Repeat("a:b\n", 200_000) + "\n\x00", 431},
		{"64 MiB without a NUL", "SEND\n\n" + strings.Repeat("v", 64<<20), 413},
	} {
		for _, piece := range []int{0, 4096} {
			v := View{Version: V12, Limits: testLimits}
			in := []byte(c.in)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			var err error
			if piece == 0 {
				_, err = Scan(in, &v)
			}
			for n := 0; piece > 0 && err == nil && n < len(in); {
				n = min(n+piece, len(in))
				_, err = Scan(in[:n], &v)
			}
			runtime.ReadMemStats(&after)
			if e, _ := errors.AsType[*Error](err); (e == nil) != (c.want == 0) || (e != nil && e.Code != c.want) {
				t.Errorf("%s: %v, want %d", c.name, err, c.want)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 32<<10 {
				t.Errorf("%s: %d octets allocated", c.name, n)
			}
		}
	}
}

// On valid input we read what go-stomp's Reader reads, and it reads what we
// append.
func TestAgainstGoStomp(t *testing.T) {
	for _, in := range []string{
		"SEND\na:b\n\nhello\x00",
		"SEND\r\na:b\r\n\r\nhello\x00",
		"SEND\ndestination:/queue/a\\cb\ncontent-length:5\n\na\x00b\x00c\x00",
		"MESSAGE\nmessage-id:1\nx:\\\\n\\r\\n\n\nq\x00",
		"SUBSCRIBE\nid:0\ndestination:/topic/ä\nack:client\n\n\x00",
	} {
		theirs, err := frame.NewReader(strings.NewReader(in)).Read()
		if err != nil {
			t.Fatalf("%q: go-stomp: %v", in, err)
		}
		v := View{Version: V12, Limits: testLimits}
		if n, err := Scan([]byte(in), &v); err != nil || n != len(in) {
			t.Fatalf("Scan(%q) = %d, %v", in, n, err)
		}
		if diff := cmp.Diff(plain(theirs), v.scanned()); diff != "" {
			t.Errorf("%q: (-go-stomp +ours)\n%s", in, diff)
		}
		again, err := frame.NewReader(bytes.NewReader(Append(nil, V12, v.Frame()))).Read()
		if err != nil {
			t.Fatalf("%q: go-stomp on ours: %v", in, err)
		}
		if diff := cmp.Diff(plain(theirs), plain(again)); diff != "" {
			t.Errorf("%q appended: (-first +again)\n%s", in, diff)
		}
	}
}

func plain(f *frame.Frame) scanned {
	s := scanned{Command: f.Command, Body: string(f.Body)}
	for i := range f.Header.Len() {
		name, value := f.Header.GetAt(i)
		s.Headers = append(s.Headers, name, value)
	}
	return s
}

func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		"SEND\na:b\n\nhello\x00", "\r\nSEND\r\na:\\c\\n\r\ncontent-length:3\r\n\r\na\x00b\x00\n\n", "CONNECT\nlogin:a\\tb\n\n\x00SEND\n\n\x00",
		"ACK\nid:1\n\n\n\n\x00", "ACK\ncontent-length:4\n\n\n\n\n\n\x00", "SEND\ncontent-length:9999\n\n", "FLY\n", "\r", "SEND\n :\n\n\x00",
	} {
		f.Add([]byte(seed), uint8(0), uint8(1))
		f.Add([]byte(seed), uint8(2), uint8(3))
	}
	limits := Limits{Line: 200, Headers: 8, Section: 400, Body: 300}
	f.Fuzz(func(t *testing.T, in []byte, version, piece uint8) {
		v := Version(version % 3)
		at := bytes.Clone(in)
		frames, rest, err := scanAll(v, limits, in, 0)
		if !bytes.Equal(at, in) {
			t.Fatal("Scan wrote to its input")
		}
		pieces, restPieces, errPieces := scanAll(v, limits, in, 1+int(piece%16))
		if diff := cmp.Diff(frames, pieces); diff != "" || (err == nil) != (errPieces == nil) || (err == nil && rest != restPieces) {
			t.Fatalf("at once %v, %d left; in pieces of %d %v, %d left\n%s", err, rest, 1+piece%16, errPieces, restPieces, diff)
		}
		for _, s := range frames {
			sameAgain(t, v, limits, s)
		}
	})
}

// sameAgain appends a frame and scans it back.
func sameAgain(t *testing.T, v Version, limits Limits, s scanned) {
	t.Helper()
	out := append(Append(nil, v, &frame.Frame{Command: s.Command, Header: frame.NewHeader(s.Headers...), Body: []byte(s.Body)}), '\n')
	limits.Line, limits.Section = 3*limits.Line, 3*limits.Section // escapes take room
	again, rest, err := scanAll(v, limits, out, 0)
	if v == V10 || connecting(s.Command) {
		if err != nil || rest != 0 {
			t.Fatalf("%q: appended as %q: %v, %d left", s, out, err, rest)
		}
		return // a name with a colon is not said
	}
	if diff := cmp.Diff([]scanned{s}, again); diff != "" || err != nil || rest != 0 {
		t.Fatalf("appended as %q: %v, %d left (-want +got)\n%s", out, err, rest, diff)
	}
}

// Wherever it stands, what is not ordinary is seen.
func TestOrdinary(t *testing.T) {
	for n := range 40 {
		text := bytes.Repeat([]byte("a"), n)
		if !ordinary(text) {
			t.Errorf("%q is not ordinary", text)
		}
		for i := range text {
			for _, c := range []byte{0, '\r', '\\', 0x80, 0xff} {
				text[i] = c
				if ordinary(text) {
					t.Errorf("%q is ordinary", text)
				}
			}
			text[i] = 'a'
		}
	}
}

func TestAppend(t *testing.T) {
	for _, c := range []struct {
		sentence    string
		version     Version
		name, value string
		want        string // "": dropped
	}{
		{"1.2 escapes CR, LF, colon and backslash", V12, "a:b", "\r\n:\\", "a\\cb:\\r\\n\\c\\\\\n"},
		{"1.1 has no escape for CR: it becomes a space", V11, "a", "x\ry\n", "a:x y\\n\n"},
		{"1.0 has no escapes: CR and LF become spaces", V10, "a", "x\r\n:\\", "a:x  :\\\n"},
		{"a name with a colon cannot be said in 1.0", V10, "a:b", "c", ""},
		{"a NUL cannot be said", V12, "a", "x\x00SEND\n", ""},
		{"nor in a name", V12, "a\x00", "x", ""},
		{"what is not UTF-8 cannot be said", V12, "a", "\xff", ""},
		{"a header without a name cannot be said", V12, "", "x", ""},
		{"UTF-8 goes as it is", V12, "ä", "€", "ä:€\n"},
	} {
		got, ok := AppendHeader([]byte("-"), c.version, c.name, c.value)
		if string(got) != "-"+c.want || ok != (c.want != "") {
			t.Errorf("%s: AppendHeader(%s, %q, %q) = %q, %v; want %q", c.sentence, c.version, c.name, c.value, got, ok, "-"+c.want)
		}
	}
	// STOMP 1.2, "Value Encoding": CONNECTED is not escaped.
	got := Append(nil, V12, frame.New(frame.CONNECTED, frame.Session, "a:b\n"))
	if want := "CONNECTED\nsession:a:b \n\n\x00"; string(got) != want {
		t.Errorf("Append(CONNECTED) = %q, want %q", got, want)
	}
}

func sendFrame() []byte {
	return []byte("SEND\ndestination:/queue/bench.orders\ncontent-type:application/json\ncontent-length:256\npersistent:true\ncorrelation-id:abc-123456\n\n" +
		strings.Repeat("x", 256) + "\x00")
}

// Goal: at most 120 ns and no allocation.
func BenchmarkScan(b *testing.B) {
	in := bytes.Repeat(sendFrame(), 128)
	v := View{Version: V12, Limits: testLimits}
	b.SetBytes(int64(len(sendFrame())))
	b.ReportAllocs()
	pos := 0
	for b.Loop() {
		n, err := Scan(in[pos:], &v)
		if err != nil || n == 0 {
			b.Fatal(n, err)
		}
		if pos += n; pos == len(in) {
			pos = 0
		}
	}
}

func TestScanAllocates(t *testing.T) {
	for what, in := range map[string][]byte{
		"plain":   sendFrame(),
		"escaped": []byte("SEND\ndestination:/queue/a\\cb\nx:\\n\\\\\n\nhello\x00"),
	} {
		v := View{Version: V12, Limits: testLimits}
		if n := testing.AllocsPerRun(100, func() {
			if _, err := Scan(in, &v); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("Scan of a %s SEND allocates %v times, want 0", what, n)
		}
	}
}

func ExampleScan() {
	v := View{Version: V12, Limits: testLimits}
	n, err := Scan([]byte("\nSEND\ndestination:/queue/orders\n\nhello\x00SEND\ndest"), &v)
	destination, _ := v.Get(frame.Destination)
	fmt.Println(n, err, v.Command, string(destination), string(v.Body))
	// Output: 39 <nil> SEND /queue/orders hello
}
