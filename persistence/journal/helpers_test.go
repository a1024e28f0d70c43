package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/journal/journaltest"
)

var instance = [16]byte{1, 2, 3, 15: 16}

// small is a journal whose segments take three frames of a page.
func small(d journal.Disk) journal.Options {
	return journal.Options{Disk: d, Instance: instance, Segment: 5 * 4096, Align: 4096, Keep: 1}
}

// A got is a frame that was read back.
type got struct {
	segment uint32
	commit  uint64
	at      int64
	payload string
}

// reopen opens and returns what is there.
func reopen(o journal.Options) (*journal.Journal, []got, error) {
	var all []got
	j, err := journal.Open(o, func(f journal.Frame) error {
		all = append(all, got{f.Segment, f.Commit, f.At, string(f.Payload)})
		return nil
	})
	return j, all, err
}

func mustOpen(t testing.TB, o journal.Options) *journal.Journal {
	t.Helper()
	j, _, err := reopen(o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func write(j *journal.Journal, payload string) (journal.Frame, error) {
	return j.Write(append(j.Buffer(), payload...))
}

func mustWrite(t testing.TB, j *journal.Journal, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		f, err := write(j, p)
		if err != nil {
			t.Fatal(err)
		}
		if string(f.Payload) != p {
			t.Fatalf("Write says that the payload is %q, want %q", f.Payload, p)
		}
	}
}

func mustClose(t testing.TB, j *journal.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// payloads are those of frames, with spaces between.
func payloads(all []got) string {
	var b bytes.Buffer
	for i, f := range all {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(f.payload)
	}
	return b.String()
}

// holds opens the journal and compares.
func holds(t testing.TB, o journal.Options, want string) *journal.Journal {
	t.Helper()
	j, all, err := reopen(o)
	if err != nil {
		t.Fatal(err)
	}
	if payloads(all) != want {
		t.Fatalf("the journal has %q, want %q", payloads(all), want)
	}
	return j
}

// segmentName is the name of a segment's file.
func segmentName(n uint32) string { return fmt.Sprintf("%010d.jnl", n) }

// corruptAt is where err says that the damage is.
func corruptAt(err error) string {
	var c *journal.CorruptError
	if !errors.As(err, &c) {
		return fmt.Sprint(err)
	}
	return fmt.Sprintf("segment %d at %d, commit %d", c.Segment, c.At, c.Commit)
}

func newDisk() *journaltest.Disk { return journaltest.New(1) }
