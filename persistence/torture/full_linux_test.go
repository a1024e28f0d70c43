package torture

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/space"
)

// mount makes a small disk.
func mount(t *testing.T) (dir string) {
	t.Helper()
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("mounting wants root, and takes a while")
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 300<<20); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, command := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if said, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v\n%s", command, err, said)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("umount %s: %v", dir, err)
		}
	})
	return dir
}

// careful refuses appends on a full disk whatever the driver below does, so
// that these tests are of the torture and not of the driver. What lie says
// goes wrong.
type careful struct {
	core.Store
	watch *space.Watch
	lie   string
}

func newCareful(s core.Store, dir, lie string) (core.Store, error) {
	w, err := space.New(space.Options{Dir: dir, Reserve: 16 << 20})
	if err != nil {
		return nil, err
	}
	if lie == "wont-open" && w.State().Level == space.ReadOnly {
		return nil, errors.New("the disk is full, I do not open")
	}
	go w.Run(context.Background())
	return careful{s, w, lie}, nil
}

func (c careful) Health() core.Health {
	if c.lie == "no-reserve" {
		return core.Health{}
	}
	s := c.watch.State()
	return core.Health{ReadOnly: s.Level == space.ReadOnly, Free: s.Free, Reserve: s.Reserve}
}

func (c careful) Open(ctx context.Context, id core.PartitionID) (core.Partition, error) {
	p, err := c.Store.Open(ctx, id)
	return carefulPart{p, c}, err
}

type carefulPart struct {
	core.Partition
	careful
}

func (p carefulPart) Commit(b *core.Batch) error {
	full := p.watch.State().Level == space.ReadOnly
	switch {
	case full && p.lie == "dies":
		os.Exit(2)
	case full && p.lie != "not-refused" && len(b.Appends) > 0, full && p.lie == "acks-refused":
		return core.ErrReadOnly
	}
	return p.Partition.Commit(b)
}

func (p carefulPart) Close(ctx context.Context) error { return p.Partition.Close(ctx) }

func TestFill(t *testing.T) {
	for _, tt := range []struct {
		sentence, lie string
		kind, says    string
	}{
		{"a careful store", "careful", "", ""},
		{"one that keeps no reserve", "no-reserve", full, "keeps nothing free"},
		{"one that dies", "dies", died, "ended by itself (exit status 2)"},
		{"one that does not start on a full disk", "wont-open", died, "I do not open"},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			o, out := options(t, tt.lie)
			o.Dir, o.Rounds = mount(t), 2
			r, err := Fill(t.Context(), o)
			if err != nil && !errors.Is(err, errBroken) {
				t.Fatalf("%v\n%s", err, out)
			}
			if tt.kind == "" && (r.Verdict != Kept || r.Full.Kills != 2 || r.Full.Resumed != 2 || r.Full.Settled < 4*acksFull || r.Full.Refused == 0) {
				t.Errorf("%+v, %+v, want all kept\n%s", r, r.Full, out)
			}
			if tt.kind != "" && (r.Verdict != Broken || r.Faults[tt.kind] == 0 || !strings.Contains(strings.Join(r.Findings, "\n"), tt.says)) {
				t.Errorf("%+v, want %s: %s\n%s", r, tt.kind, tt.says, out)
			}
			t.Logf("%s", out)
		})
	}
}

// More than may be taken is not taken.
func TestFillMost(t *testing.T) {
	o, out := options(t, "careful")
	o.Dir, o.Rounds, o.FillMost = mount(t), 1, 10<<20
	r, err := Fill(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "at most 10 MiB may be") || r.Verdict != Untold {
		t.Errorf("%v, %+v; want a refusal\n%s", err, r, out)
	}
}
