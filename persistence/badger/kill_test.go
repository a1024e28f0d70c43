package badger

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godwitmq/godwit/core"
)

var rounds = flag.Int("rounds", 5, "how often TestKill kills the store")

// The child's environment: the directory, and whether everything is tiny.
const killDir, killTiny = "GODWIT_TEST_KILL_DIR", "GODWIT_TEST_KILL_TINY"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		killMe(dir, os.Getenv(killTiny) != "")
	}
	os.Exit(m.Run())
}

func killProfile(tiny bool) profile {
	p := edgeProfile
	if tiny {
		p = tinyProfile()
		p.segment = 4 << 20
	}
	return p
}

// killMe commits until it is killed. Batch n has a message "n" for cursor 2
// and one for cursor 3, and sets the record "last" to n; some are large.
// Cursor 3 settles what is 40 behind. It prints "done n" when a batch is
// confirmed, and "ack n" before it settles all up to n.
func killMe(dir string, tiny bool) {
	die := func(err error) {
		if err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
	}
	s, err := open(dir, killProfile(tiny), slog.New(slog.DiscardHandler))
	die(err)
	p, err := s.Open(context.Background(), 1)
	die(err)
	first, err := lastNumber(p)
	die(err)
	out := bufio.NewWriterSize(os.Stdout, 0)
	tokens := make(chan struct{}, 64)
	offsets := map[int]core.Offset{}
	told := make(chan [2]int, 1000)
	for n := first + 1; ; n++ {
		tokens <- struct{}{}
		b := &core.Batch{Now: int64(n), Wait: n%5 != 0}
		if n == 0 {
			b.Cursors = []core.CursorOp{{ID: 2, Log: 1}, {ID: 3, Log: 1}}
		}
		m := small(strconv.Itoa(n))
		if n%97 == 0 {
			m.Dedup = strings.Repeat("x", 300_000)
		}
		b.Appends = []core.Append{{Log: 1, Routes: core.Solo(2), Message: m}, {Log: 1, Routes: core.Solo(3), Message: m}}
		b.Records = []core.Record{{Table: 1, Key: []byte("last"), Value: []byte(strconv.Itoa(n))}}
		for more := true; more; {
			select {
			case d := <-told:
				offsets[d[0]] = core.Offset(d[1])
			default:
				more = false
			}
		}
		if at, ok := offsets[n-40]; ok && n%3 == 0 {
			fmt.Fprintln(out, "ack", n-40)
			out.Flush()
			b.Acks = []core.Ack{{Cursor: 3, From: 1, To: at + 1}}
			delete(offsets, n-40)
		}
		b.Done = doneFunc(func(b *core.Batch, err error) {
			die(err)
			fmt.Println("done", n)
			told <- [2]int{n, int(b.Appends[1].Offset)}
			<-tokens
		})
		for err := p.Commit(b); err != nil; err = p.Commit(b) {
			if core.AsError(err).Code != core.CodeUnavailable {
				die(err)
			}
			time.Sleep(time.Millisecond) // the store asks for it
		}
	}
}

// lastNumber is the record "last", or -1.
func lastNumber(p core.Partition) (int, error) {
	v, err := p.Get(context.Background(), 1, []byte("last"))
	if core.AsError(err) != nil && core.AsError(err).Code == core.CodeNotFound {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(v))
}

// mission: S8, S30. A store that is killed has all it confirmed, each batch whole.
func TestKill(t *testing.T) {
	for _, tiny := range []bool{false, true} {
		t.Run(fmt.Sprintf("tiny=%v", tiny), func(t *testing.T) {
			dir := t.TempDir()
			k := &killing{t: t, dir: dir, tiny: tiny, confirmed: -1, acked: -1}
			for range *rounds {
				k.run()
				k.check()
			}
			t.Logf("%d kills, %d batches confirmed", *rounds, k.confirmed+1)
		})
	}
}

// A killing remembers what the children said.
type killing struct {
	t                *testing.T
	dir              string
	tiny             bool
	confirmed, acked int
}

// run lets a child work for a while and kills it.
func (k *killing) run() {
	k.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killDir+"="+k.dir)
	if k.tiny {
		cmd.Env = append(cmd.Env, killTiny+"=1")
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	var said bytes.Buffer
	started := bufio.NewReader(stdout)
	if line, err := started.ReadString('\n'); err == nil {
		said.WriteString(line)
	}
	kill := time.AfterFunc(time.Duration(rand.IntN(400))*time.Millisecond, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_, _ = io.Copy(&said, started)
	_ = cmd.Wait()
	k.listen(said.String())
}

// listen takes note of what a child said. A last line without its end does
// not count.
func (k *killing) listen(said string) {
	k.t.Helper()
	lines := strings.Split(said, "\n")
	for _, line := range lines[:len(lines)-1] {
		verb, rest, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(rest)
		switch {
		case err == nil && verb == "done":
			k.confirmed = max(k.confirmed, n)
		case err == nil && verb == "ack":
			k.acked = max(k.acked, n)
		default:
			k.t.Fatalf("the child said %q", line)
		}
	}
}

// check opens what is left and compares.
func (k *killing) check() {
	k.t.Helper()
	b := &bench{t: k.t, profile: killProfile(k.tiny), dir: k.dir}
	b.open()
	defer b.s.Close(context.Background())
	b.openPart()
	last, err := lastNumber(b.p)
	if err != nil {
		k.t.Fatal(err)
	}
	if last < k.confirmed {
		k.t.Fatalf("batch %d was confirmed, the record says %d", k.confirmed, last)
	}
	mine, its := b.numbers(2), b.numbers(3)
	if len(mine) != last+1 {
		k.t.Fatalf("cursor 2 owes %d messages, the record says %d", len(mine), last+1)
	}
	for i, n := range mine {
		if n != i {
			k.t.Fatalf("message %d of cursor 2 is %d", i, n)
		}
	}
	for i, n := range its {
		if n != its[0]+i {
			k.t.Fatalf("cursor 3 owes %d after %d", n, its[i-1])
		}
	}
	if last >= 0 && (len(its) == 0 || its[0] > k.acked+1 || its[len(its)-1] != last) {
		k.t.Fatalf("cursor 3 owes %v; acked %d, last %d", its, k.acked, last)
	}
}

// numbers is what a cursor owes.
func (b *bench) numbers(c core.CursorID) []int {
	b.t.Helper()
	if len(b.p.Cursors()) == 0 {
		return nil
	}
	f := &core.Fetch{Log: 1, Cursor: c}
	if err := b.fetch(f); err != nil {
		b.t.Fatal(err)
	}
	numbers := make([]int, len(f.Out))
	for i := range f.Out {
		n, err := strconv.Atoi(string(f.Out[i].Message.Body))
		if err != nil {
			b.t.Fatal(err)
		}
		numbers[i] = n
	}
	return numbers
}
