package space

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// mount makes a file system of that many MB and mounts it.
func mount(t *testing.T, kind string, size int) (dir string) {
	t.Helper()
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("mounting wants root, and takes a second")
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, int64(size)*mb); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, command := range [][]string{{"mkfs." + kind, "-q", image}, {"mount", "-o", "loop", image, dir}} {
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

// fill leaves that many MB free and returns what gives the rest back.
func fill(t *testing.T, dir string, leave int64) (empty func()) {
	t.Helper()
	free, err := Free(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, free-leave*mb); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
		unix.Sync()
	}
}

func TestRealDisk(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			size := map[string]int{"ext4": 200, "xfs": 400}[kind]
			dir := mount(t, kind, size)
			w, err := New(Options{Dir: dir, Reserve: 64 * mb, Ballast: true, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			s := w.State()
			if s.Level != Normal || s.Reserve > int64(size)*mb/10 || s.Ballast < s.Reserve || s.Ballast > s.Reserve+mb {
				t.Fatalf("%+v, want normal, with a reserve of a tenth of %d MB and a ballast as large", s, size)
			}
			empty := fill(t, dir, 1)
			if s := w.Look(); s.Level != ReadOnly || s.Ballast == 0 {
				t.Errorf("filled: %+v, want read-only with a ballast", s)
			}
			before := w.State()
			if err := w.Release(); err != nil {
				t.Fatal(err)
			}
			if s := w.State(); s.Free < before.Free+before.Ballast-mb || s.Ballast != 0 || s.Level != ReadOnly {
				t.Errorf("released: %+v, want the %d bytes of the ballast free, and read-only", s, before.Ballast)
			}
			// The space is really there to be written to.
			if err := os.WriteFile(filepath.Join(dir, "spill"), make([]byte, before.Ballast-mb), 0o600); err != nil {
				t.Errorf("write into what was released: %v", err)
			}
			empty()
			if s := w.Look(); s.Level != Normal || s.Ballast < s.Reserve {
				t.Errorf("space returned: %+v, want normal and the ballast built again", s)
			}
		})
	}
}

// Started on a full disk, the ballast is not built of the last space.
func TestRealDiskFullAtStart(t *testing.T) {
	dir := mount(t, "ext4", 200)
	empty := fill(t, dir, 2)
	w, err := New(Options{Dir: dir, Reserve: 64 * mb, Ballast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if s := w.State(); s.Level != ReadOnly || s.Ballast != 0 || s.Free < mb {
		t.Errorf("%+v, want read-only, and no ballast", s)
	}
	empty()
	if s := w.Look(); s.Level != Normal || s.Ballast < s.Reserve {
		t.Errorf("%+v, want normal, and a ballast", s)
	}
}

// FAT, on many memory cards, cannot hold space: there is no ballast, and the
// store works.
func TestAFileSystemWithoutBallast(t *testing.T) {
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("mounting wants root")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("mount ramfs: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, 0) }()
	w, err := New(Options{Dir: dir, Reserve: mb, Ballast: true, Stat: func(string) (Size, error) { return Size{Free: 100 * mb, Total: 100 * mb}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if s := w.State(); s.Level != Normal || s.Ballast != 0 {
		t.Errorf("%+v, want normal without a ballast", s)
	}
	if _, err := os.Stat(filepath.Join(dir, "ballast")); err == nil {
		t.Error("a file of nothing is left")
	}
}
