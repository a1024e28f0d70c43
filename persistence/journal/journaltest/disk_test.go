package journaltest_test

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/journal/journaltest"
)

// outcomes runs a history under many seeds and counts what a file holds, or
// "-" where there is none, after the power cut.
func outcomes(t *testing.T, name string, history func(d *journaltest.Disk)) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for seed := range uint64(300) {
		d := journaltest.New(seed)
		history(d)
		d = d.PowerCut()
		b := d.Bytes(name)
		switch {
		case b == nil && !exists(d, name):
			seen["-"]++
		case len(b) == 0:
			seen["empty"]++
		default:
			seen[string([]byte{b[0], b[journaltest.Sector]})]++
		}
	}
	return seen
}

func exists(d *journaltest.Disk, name string) bool {
	entries, _ := d.List()
	for _, e := range entries {
		if e.Name == name {
			return true
		}
	}
	return false
}

func twoSectors(c byte) []byte { return bytes.Repeat([]byte{c}, 2*journaltest.Sector) }

// durable makes a file of two sectors of c that a power cut does not take.
func durable(d *journaltest.Disk, c byte) journal.File {
	f, _ := d.Create("f", 2*journaltest.Sector)
	_, _ = f.WriteAt(twoSectors(c), 0)
	_ = f.Sync()
	_ = d.Sync()
	return f
}

func TestPowerCut(t *testing.T) {
	for _, row := range []struct {
		says    string
		history func(d *journaltest.Disk)
		may     []string // each is seen, and nothing else
	}{
		{"what is synced stays", func(d *journaltest.Disk) { durable(d, 'a') }, []string{"aa"}},
		{"what is not may stay, by sectors", func(d *journaltest.Disk) {
			_, _ = durable(d, 'a').WriteAt(twoSectors('b'), 0)
		}, []string{"aa", "ab", "ba", "bb"}},
		{"in any state it has had", func(d *journaltest.Disk) {
			f := durable(d, 'a')
			for _, c := range []byte("bc") {
				_, _ = f.WriteAt([]byte{c}, 0)
			}
		}, []string{"aa", "ba", "ca"}},
		{"a name that is not synced may be missing", func(d *journaltest.Disk) {
			f, _ := d.Create("f", 2*journaltest.Sector)
			_, _ = f.WriteAt(twoSectors('a'), 0)
			_ = f.Sync()
		}, []string{"-", "aa"}},
		{"a file may be missing, empty, or there", func(d *journaltest.Disk) {
			f, _ := d.Create("f", 2*journaltest.Sector)
			_, _ = f.WriteAt(twoSectors('a'), 0)
			_ = d.Sync()
		}, []string{"empty", "\x00\x00", "a\x00", "\x00a", "aa"}},
		{"a rename may not have been", func(d *journaltest.Disk) {
			durable(d, 'a')
			_ = d.Rename("f", "g")
		}, []string{"-", "aa"}},
		{"a file that was removed may be there", func(d *journaltest.Disk) {
			durable(d, 'a')
			_ = d.Remove("f")
		}, []string{"-", "aa"}},
		{"a file that was replaced is there, or the other", func(d *journaltest.Disk) {
			durable(d, 'a')
			g, _ := d.Create("g", 2*journaltest.Sector)
			_, _ = g.WriteAt(twoSectors('b'), 0)
			_ = g.Sync()
			_ = d.Rename("g", "f")
		}, []string{"aa", "bb"}},
		{"what a sync has failed on may be lost, although a later one succeeds", func(d *journaltest.Disk) {
			f := durable(d, 'a')
			_, _ = f.WriteAt(twoSectors('b'), 0)
			d.Fail(journaltest.Sync, 1, syscall.EIO)
			_ = f.Sync()
			_ = f.Sync()
		}, []string{"aa", "ab", "ba", "bb"}},
		{"unless it is written again", func(d *journaltest.Disk) {
			f := durable(d, 'a')
			_, _ = f.WriteAt(twoSectors('b'), 0)
			d.Fail(journaltest.Sync, 1, syscall.EIO)
			_ = f.Sync()
			_, _ = f.WriteAt(twoSectors('b'), 0)
			_ = f.Sync()
		}, []string{"bb"}},
	} {
		t.Run(row.says, func(t *testing.T) {
			seen := outcomes(t, "f", row.history)
			for _, want := range row.may {
				if seen[want] == 0 {
					t.Errorf("%q is never seen: %v", want, seen)
				}
				delete(seen, want)
			}
			if len(seen) > 0 {
				t.Errorf("it has %v", seen)
			}
		})
	}
}

func TestKillKeepsWhatWasWritten(t *testing.T) {
	d := journaltest.New(1)
	f, _ := d.Create("f", 2*journaltest.Sector)
	_, _ = f.WriteAt(twoSectors('b'), 0)
	next := d.Kill()
	if !bytes.Equal(next.Bytes("f"), twoSectors('b')) {
		t.Error("it is gone")
	}
	if _, err := f.WriteAt(twoSectors('c'), 0); !errors.Is(err, journaltest.ErrStopped) {
		t.Errorf("the killed process still writes: %v", err)
	}
	if f, err := next.Open("f"); err != nil || f.Sync() != nil {
		t.Errorf("the next one cannot: %v", err)
	}
}

func TestFaults(t *testing.T) {
	d := journaltest.New(1)
	d.SetFree(1024)
	if _, err := d.Create("large", 1025); !errors.Is(err, syscall.ENOSPC) || exists(d, "large") {
		t.Errorf("Create on a full disk gives %v", err)
	}
	f, err := d.Create("f", 1024)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create("g", 1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Create on a full disk gives %v", err)
	}
	d.Fail(journaltest.Write, 2, syscall.EIO)
	var got []error
	for range 3 {
		_, err := f.WriteAt(twoSectors('a'), 0)
		got = append(got, err)
	}
	if fmt.Sprint(got) != fmt.Sprint([]error{nil, syscall.EIO, nil}) {
		t.Errorf("the second write was to fail: %v", got)
	}
	_ = d.Remove("f")
	if _, err := d.Create("g", 1024); err != nil {
		t.Errorf("what was removed is not free: %v", err)
	}
	d.StopAfter(1)
	if err := d.Rename("g", "h"); err != nil {
		t.Error(err)
	}
	if err := d.Sync(); !errors.Is(err, journaltest.ErrStopped) || !d.Stopped() {
		t.Errorf("the machine goes on: %v", err)
	}
	var kinds []journaltest.Kind
	for _, op := range d.Ops() {
		kinds = append(kinds, op.Kind)
	}
	if want := "[create create create write write write remove create rename sync the directory]"; fmt.Sprint(kinds) != want {
		t.Errorf("Ops are %v, want %v", kinds, want)
	}
}
