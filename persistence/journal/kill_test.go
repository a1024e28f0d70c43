package journal_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/persistence/journal"
)

var rounds = flag.Int("rounds", 5, "how often TestKill kills the process")

// The child's environment: where its journal is.
const killDir = "GODWIT_TEST_JOURNAL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		killMe(dir)
	}
	os.Exit(m.Run())
}

func killOptions(dir string) journal.Options {
	return journal.Options{Disk: journal.OSDisk(dir), Instance: instance, Segment: 256 << 10, Keep: 2}
}

// numbered is the payload of a commit: it can be told from every other one.
func numbered(b []byte, commit uint64) []byte {
	b = binary.LittleEndian.AppendUint64(b, commit)
	for i := range commit * 7919 % 20_000 {
		b = append(b, byte(commit+i))
	}
	return b
}

// killMe writes until it is killed. It says "done n" when commit n is
// confirmed, and "from s n" before it recycles the segments below s.
func killMe(dir string) {
	out := bufio.NewWriterSize(os.Stdout, 0)
	die := func(err error) {
		fmt.Fprintln(out, "failed", err)
		_ = out.Flush()
		os.Exit(1)
	}
	var from journal.Position
	if b, err := os.ReadFile(dir + "/mark"); err == nil {
		_, _ = fmt.Sscan(string(b), &from.Segment, &from.Commit)
	}
	o := killOptions(dir)
	o.From = from
	j, err := journal.Open(o, func(journal.Frame) error { return nil })
	if err != nil {
		die(err)
	}
	var ends []journal.Frame // the last frame of each segment
	for {
		f, err := j.Write(numbered(j.Buffer(), j.State().Commit+1))
		if err != nil {
			die(err)
		}
		fmt.Fprintln(out, "done", f.Commit)
		_ = out.Flush()
		f.Payload = nil
		if n := len(ends); n > 0 && ends[n-1].Segment == f.Segment {
			ends[n-1] = f
			continue
		}
		if ends = append(ends, f); len(ends) < 4 {
			continue
		}
		mark := fmt.Sprintln(ends[1].Segment, ends[0].Commit)
		if err := os.WriteFile(dir+"/mark.new", []byte(mark), 0o600); err != nil {
			die(err)
		}
		if err := os.Rename(dir+"/mark.new", dir+"/mark"); err != nil {
			die(err)
		}
		if err := j.Recycle(ends[1].Segment); err != nil {
			die(err)
		}
		ends = ends[1:]
	}
}

// mission: S8. A process that is killed has all it confirmed, on a real disk.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	var confirmed uint64
	for range *rounds {
		confirmed = max(confirmed, killOnce(t, dir))
		o := killOptions(dir)
		if b, err := os.ReadFile(dir + "/mark"); err == nil {
			if _, err := fmt.Sscan(string(b), &o.From.Segment, &o.From.Commit); err != nil {
				t.Fatal(err)
			}
		}
		last := o.From.Commit
		j, err := journal.Open(o, func(f journal.Frame) error {
			last = f.Commit
			if !bytes.Equal(f.Payload, numbered(nil, f.Commit)) {
				t.Fatalf("commit %d has other bytes", f.Commit)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if last < confirmed {
			t.Fatalf("commit %d was confirmed, the last one is %d", confirmed, last)
		}
		if rand.IntN(2) == 0 {
			mustClose(t, j)
		}
	}
	t.Logf("%d kills, %d frames confirmed", *rounds, confirmed)
}

// killOnce lets a child work for a while, kills it, and returns the last
// commit it has confirmed.
func killOnce(t *testing.T, dir string) (confirmed uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killDir+"="+dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Duration(5+rand.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	said, _ := io.ReadAll(stdout)
	_ = cmd.Wait()
	lines := strings.Split(string(said), "\n")
	for _, line := range lines[:len(lines)-1] { // a last line without its end does not count
		n, err := strconv.ParseUint(strings.TrimPrefix(line, "done "), 10, 64)
		if err != nil {
			t.Fatalf("the child said %q", line)
		}
		confirmed = n
	}
	return confirmed
}
