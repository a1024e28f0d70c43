package lsm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

var rounds = flag.Int("rounds", 20, "how often TestKill kills the database")

// killMe writes checkpoints until it is killed. Checkpoint c puts 60 blocks of
// its own, in pairs, deletes those of c-2, and sets the key "last". Now and then it
// rewrites a pair of the finished checkpoint, or reclaims. It prints "done c"
// when Finish has returned.
func killMe(dir string) {
	db, err := Open(Options{Dir: dir, Sizes: Tiny})
	die(err)
	die(whole(db))
	for c := max(db.Recovered().Checkpoint, db.Mark().Checkpoint) + 1; ; c++ {
		done := db.Mark().Checkpoint
		die(clearAbove(db, done, c))
		w := db.Writer(c)
		for i := range 30 {
			die(w.Put(pairOf(c, i)...))
			if i%7 == 0 {
				die(w.Flush())
			}
		}
		die(db.Scan([]byte("b"), nil, false, func(k, _ []byte) error {
			if binary.BigEndian.Uint64(k[1:]) < done {
				return w.Put(Entry{Key: bytes.Clone(k)})
			}
			return nil
		}))
		die(w.Put(Entry{[]byte("last"), fmt.Append(nil, c)}))
		die(w.Finish(Mark{Checkpoint: c, Extra: fmt.Append(nil, c)}))
		fmt.Println("done", c)
		switch c % 9 {
		case 3:
			die(db.Rewrite(c, pairOf(c, int(c%30))...))
		case 5:
			die(db.Reclaim())
		case 7:
			die(db.DropPrefix(blockKey(c-1, 0)[:9]))
		}
	}
}

func blockKey(c uint64, i int) []byte {
	return append(binary.BigEndian.AppendUint64([]byte("b"), c), byte(i))
}

// pairOf are two entries that are written together, and know it.
func pairOf(c uint64, i int) []Entry {
	value := bytes.Repeat([]byte{byte(c)}, 700)
	return []Entry{{blockKey(c, 2*i), value}, {blockKey(c, 2*i+1), value}}
}

// clearAbove deletes what unfinished checkpoints left, as R2 wants it.
func clearAbove(db *DB, mark, next uint64) error {
	w := db.Writer(next)
	err := db.Scan([]byte("b"), nil, false, func(k, _ []byte) error {
		if c := binary.BigEndian.Uint64(k[1:]); c > mark {
			return w.Put(Entry{Key: bytes.Clone(k)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.Flush()
}

// whole says what is wrong: the mark's blocks are all there, and every pair is.
func whole(db *DB) error {
	m := db.Mark()
	n := map[uint64]int{}
	pairs := map[string]int{}
	err := db.Scan([]byte("b"), nil, true, func(k, v []byte) error {
		c := binary.BigEndian.Uint64(k[1:])
		if len(v) != 700 || v[0] != byte(c) || v[699] != byte(c) {
			return fmt.Errorf("the value of %x is %d octets of %x", k, len(v), v[:1])
		}
		n[c]++
		pairs[fmt.Sprint(c, " ", k[9]/2)]++
		return nil
	})
	if err != nil {
		return err
	}
	if m.Checkpoint > 0 && n[m.Checkpoint] != 60 {
		return fmt.Errorf("mark %d has %d of 60 blocks", m.Checkpoint, n[m.Checkpoint])
	}
	for pair, k := range pairs {
		if c, _, _ := strings.Cut(pair, " "); k != 2 && c != fmt.Sprint(m.Checkpoint-1) { // deletions are not in pairs
			return fmt.Errorf("pair %s has %d halves", pair, k)
		}
	}
	if string(m.Extra) != fmt.Sprint(m.Checkpoint) && m.Checkpoint > 0 {
		return fmt.Errorf("mark %d has extra %q", m.Checkpoint, m.Extra)
	}
	return nil
}

// A database that is killed anywhere has the newest finished checkpoint, whole.
func TestKill(t *testing.T) {
	n := *rounds
	if testing.Short() {
		n = min(n, 4)
	}
	dir := t.TempDir()
	finished, removed := uint64(0), 0
	for range n {
		if c := killed(t, dir); c > 0 {
			finished = c
		}
		db, err := Open(Options{Dir: dir, Sizes: Tiny, Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		m, r := db.Mark(), db.Recovered()
		removed += len(r.Removed)
		if m.Checkpoint != finished && m.Checkpoint != r.Checkpoint || m.Checkpoint < finished || r.SetBack {
			t.Errorf("checkpoint %d was finished; mark %d, recovered %+v", finished, m.Checkpoint, r)
		}
		finished = m.Checkpoint
		if err := whole(db); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d kills, %d checkpoints, %d files of no octets", n, finished, removed)
}

// killed lets a child work for a while, kills it and returns the last
// checkpoint that it said it had finished.
func killed(t *testing.T, dir string) (finished uint64) {
	t.Helper()
	cmd := child("kill", dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	r := bufio.NewReader(stdout)
	// Not always after the first: a kill may meet the open.
	if rand.IntN(4) > 0 {
		line, _ := r.ReadString('\n')
		said.WriteString(line)
	}
	kill := time.AfterFunc(time.Duration(rand.IntN(400))*time.Millisecond, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_, _ = io.Copy(&said, r)
	_ = cmd.Wait()
	lines := strings.Split(said.String(), "\n")
	for _, line := range lines[:len(lines)-1] {
		n, err := strconv.ParseUint(strings.TrimPrefix(line, "done "), 10, 64)
		if err != nil {
			t.Fatalf("the child said %q", line)
		}
		finished = n
	}
	return finished
}
