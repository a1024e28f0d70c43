package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
)

func newStoreBackupCommand() *cobra.Command {
	var profile string
	c := &cobra.Command{
		Use:   "backup DIR FILE|-",
		Short: "Write all that a data directory holds into one file",
		Long: `Write all that a data directory holds into one file, or to the standard output
(-). It opens the store as the broker does, so the broker must not be running, and
a store that was killed recovers.

The file has its name only once it is whole and on the disk; a file that is
there already is left alone. godwit restore makes a data directory of it.`,
		Example: "  godwit store backup /var/lib/godwit /mnt/backup/monday.godwit\n" +
			"  godwit store backup /var/lib/godwit - | ssh elsewhere 'cat > monday.godwit'",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := backupStore(c.Context(), args[0], args[1], profile, c.OutOrStdout())
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "The backup of %s is whole: %s.\n", args[0], sizeText(n))
			return nil
		},
	}
	c.Flags().StringVar(&profile, "profile", "", "of the store: edge or server; by default as serve chooses")
	return c
}

func backupStore(ctx context.Context, dir, to, profile string, stdout io.Writer) (n int64, err error) {
	if err := errors.Join(isStore(dir), whoHas(dir)); err != nil {
		return 0, err
	}
	if to != "-" {
		if _, err := os.Lstat(to); err == nil {
			return 0, fmt.Errorf("%s is there already, and is left alone: give the backup another name", to)
		}
	}
	store, err := badger.Open(dir, badger.Options{Profile: badger.Profile(profile)})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close(context.WithoutCancel(ctx))) }()
	if to == "-" {
		w := counting{w: stdout}
		err := store.Backup(ctx, &w)
		return w.n, err
	}
	return backupFile(ctx, store, to)
}

// backupFile writes the file beside its name, and names it once it is on the
// disk.
func backupFile(ctx context.Context, store core.Store, name string) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".part-")
	if err != nil {
		return 0, err
	}
	w := counting{w: f}
	err = store.Backup(ctx, &w)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Link(f.Name(), name) // takes nobody's name
		if !errors.Is(err, fs.ErrExist) && err != nil {
			err = os.Rename(f.Name(), name) // file systems without links
		}
	}
	if left := os.Remove(f.Name()); err == nil && !errors.Is(left, fs.ErrNotExist) {
		err = left
	}
	if err != nil {
		return 0, err
	}
	return w.n, syncDir(filepath.Dir(name))
}

// syncDir makes the names in a directory durable, where that can be asked for.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// counting counts what goes through it.
type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

func newRestoreCommand() *cobra.Command {
	var profile string
	c := &cobra.Command{
		Use:   "restore FILE|- DIR",
		Short: "Make a data directory of a backup",
		Long: `Make a data directory of a backup, read from a file or the standard input (-).
DIR must not exist, or be empty.

It is built beside DIR and has its name only once all of the backup was read and
checked, and the store has been opened: after an error DIR is as it was. A
directory DIR.restoring-* is what a restore that was killed has left; delete it.`,
		Example: "  godwit restore /mnt/backup/monday.godwit /var/lib/godwit",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			in := c.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }() // it was only read
				in = f
			}
			r, err := badger.Restore(c.Context(), in, args[1], badger.Options{Profile: badger.Profile(profile)})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is restored, up to commit %d: %d entries and %d frames of the journal, %s.\n",
				args[1], r.Commit, r.Entries, r.Frames, sizeText(r.Bytes))
			return nil
		},
	}
	c.Flags().StringVar(&profile, "profile", "", "of the store: edge or server; by default as serve chooses")
	return c
}
