package journal_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/godwitmq/godwit/persistence/journal"
)

var update = flag.Bool("update-format", false, "write the golden file of today's version")

// golden is segment 7, closed, with two frames of which the second is empty.
// It is laid out by hand: the code that writes could change its mind.
func golden() []byte {
	b := make([]byte, 5*512)
	copy(b, journal.Head(7, instance, 41, 512, 0x0102030405060708, 5*512))
	copy(b[512:], journal.Seal(1, 7, 41, 0x0102030405060708, []byte("first")))
	copy(b[1024:], journal.Seal(1, 7, 42, 0x0102030405060708, nil))
	copy(b[1536:], journal.Seal(3, 7, 42, 0x0102030405060708, nil))
	return b
}

// A journal that was ever written can be read for ever: see FORMAT.md before
// this test is changed.
func TestGolden(t *testing.T) {
	const name = "testdata/segment_v1.hex"
	if *update {
		if _, err := os.Stat(name); err == nil {
			t.Fatalf("%s exists, and is never changed", name)
		}
		if err := os.WriteFile(name, []byte(dump(golden())), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if dump(golden()) != string(text) {
		t.Errorf("what is written today is not %s:\n%s", name, dump(golden()))
	}
	d := newDisk()
	d.Put(segmentName(7), undump(t, string(text)))
	o := journal.Options{Disk: d, Instance: instance, Segment: 5 * 512, Align: 512, From: journal.Position{Segment: 7, Commit: 40}}
	j, all, err := reopen(o)
	if err != nil {
		t.Fatal(err)
	}
	want := []got{{7, 41, 538, "first"}, {7, 42, 1050, ""}}
	if fmt.Sprint(all) != fmt.Sprint(want) || !j.Recovered().Clean {
		t.Errorf("it has %v, want %v; Recovered is %+v", all, want, j.Recovered())
	}
}

// dump writes 32 bytes a line, but for lines of zeros.
func dump(b []byte) string {
	var text strings.Builder
	for at := 0; at < len(b); at += 32 {
		if line := b[at : at+32]; !bytes.Equal(line, make([]byte, 32)) {
			fmt.Fprintf(&text, "%06d %s\n", at, hex.EncodeToString(line))
		}
	}
	fmt.Fprintf(&text, "%06d\n", len(b))
	return text.String()
}

func undump(t *testing.T, text string) []byte {
	t.Helper()
	var b []byte
	for line := range strings.Lines(text) {
		place, data, _ := strings.Cut(strings.TrimSpace(line), " ")
		at, err := strconv.Atoi(place)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(data)
		if err != nil {
			t.Fatal(err)
		}
		b = append(append(b, make([]byte, at-len(b))...), raw...)
	}
	return b
}
