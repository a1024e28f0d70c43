package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/core"
	"github.com/godwitmq/godwit/persistence/badger"
	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/lsm"
	"github.com/godwitmq/godwit/persistence/space"
)

// checkOptions say how much of a store is read.
type checkOptions struct {
	scratch string // where the copy is made; empty: the system's temporary folder
	profile string
	quick   bool // no copy
}

func (o *checkOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.scratch, "scratch", "", "`DIR` with space for a copy of the data; by default the system's temporary folder")
	c.Flags().StringVar(&o.profile, "profile", "", "of the store: edge or server; by default as serve chooses")
	c.Flags().BoolVar(&o.quick, "quick", false, "read the journal and look at the files; make no copy")
}

func newStoreCheckCommand() *cobra.Command {
	var o checkOptions
	var asJSON bool
	c := &cobra.Command{
		Use:   "check DIR",
		Short: "Say whether a data directory is sound; it changes nothing",
		Long: `Say whether a data directory is sound. Nothing in it is changed, and nothing is
opened for writing.

The journal is read frame by frame. The database cannot be opened without
changing it, so it is copied, and the copy is opened and read to its end: every
message of every queue, and every record. That needs space for a copy.

The broker must not be running.
` + storeExits,
		Example: "  godwit store check /var/lib/godwit\n  godwit store check /var/lib/godwit --scratch /mnt/big",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r := storeReport{Dir: args[0]}
			if !asJSON {
				r.lines = c.OutOrStdout()
			}
			if err := checkStore(c.Context(), &r, o); err != nil {
				return err
			}
			if asJSON {
				if err := printJSON(c.OutOrStdout(), r); err != nil {
					return err
				}
			} else {
				fmt.Fprintln(c.OutOrStdout(), strings.ToUpper(r.Verdict.String()))
			}
			return r.exit()
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

// checkStore reads all that can be read. An error means that it is no store,
// or that a broker has it.
func checkStore(ctx context.Context, r *storeReport, o checkOptions) error {
	if err := isStore(r.Dir); err != nil {
		return &exitError{int(storeCantTell), err}
	}
	if err := whoHas(r.Dir); err != nil {
		return &exitError{int(storeCantTell), err}
	}
	checkJournal(r)
	checkFiles(r)
	if o.quick {
		r.add(kindUnread, "badger", "--quick does not read the database")
	} else {
		_ = checkCopy(ctx, r, o) // it is reported
	}
	r.judge()
	return nil
}

// checkJournal reports each segment, and returns them.
func checkJournal(r *storeReport) (segments journalSegments) {
	dir := filepath.Join(r.Dir, "journal")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		r.add(kindNote, "journal", "there is none: the store has never been opened with one")
		return nil
	}
	var instance *[16]byte
	err := journal.Inspect(readDisk(dir), func(s journal.Segment) error {
		what := "journal/" + s.Name
		segments = append(segments, s)
		if instance == nil && s.First > 0 {
			instance = &s.Instance
		}
		corrupt, isCorrupt := errors.AsType[*journal.CorruptError](s.Err)
		switch {
		case isCorrupt:
			r.add(kindDamaged, what, "at %d, commit %d: %s", corrupt.At, corrupt.Commit, corrupt.Text)
		case s.Err != nil:
			r.add(kindUnread, what, "%v", s.Err)
		case instance != nil && s.Instance != *instance:
			r.add(kindDamaged, what, "it belongs to another store than the segments before it: it was copied here")
		default:
			r.add(kindOK, what, "%s", segmentText(s))
		}
		return nil
	})
	if err != nil {
		r.add(kindUnread, "journal", "%v", err)
	}
	return segments
}

// journalSegments are a journal's, in order.
type journalSegments []journal.Segment

// damage is the damage that comes first, or nil.
func (s journalSegments) damage() *journal.CorruptError {
	for _, one := range s {
		if c, ok := errors.AsType[*journal.CorruptError](one.Err); ok {
			return c
		}
	}
	return nil
}

func segmentText(s journal.Segment) string {
	if s.Frames == 0 {
		return fmt.Sprintf("no commits yet, %s", sizeText(s.Size))
	}
	text := fmt.Sprintf("commits %d to %d, %s of %s", s.First, s.Commit, sizeText(s.Bytes), sizeText(s.Size))
	switch s.End {
	case journal.EndClosed:
		text += ", closed"
	case journal.EndTorn:
		text += ", its last frame was under way and was never confirmed"
	case journal.EndWhole, journal.EndDamaged:
	}
	return text
}

// checkFiles looks at what lies around.
func checkFiles(r *storeReport) {
	for _, part := range []string{"journal", "badger"} {
		names, err := os.ReadDir(filepath.Join(r.Dir, part))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.add(kindUnread, part, "%v", err)
		}
		for _, e := range names {
			checkFile(r, part, e)
		}
	}
}

// checkFile says what an operator may wonder about, and what may not be so.
func checkFile(r *storeReport, part string, e fs.DirEntry) {
	what := part + "/" + e.Name()
	info, err := e.Info()
	if err != nil {
		r.add(kindUnread, what, "%v", err)
		return
	}
	switch ext := filepath.Ext(e.Name()); {
	case ext == ".cut":
		r.add(kindNote, what, "%s that a repair has put away; the broker does not need it", sizeText(info.Size()))
	case ext == ".sst" && info.Size() == 0:
		r.add(kindDamaged, what, "a table without an octet")
	case (ext == ".mem" || ext == ".vlog") && info.Size() == 0:
		r.add(kindNote, what, "empty, as a kill may leave it; the next start removes it")
	}
}

// readDisk is a journal's directory that cannot be written.
type readDisk string

var errReadOnlyDisk = errors.New("a check writes nothing")

func (d readDisk) Open(name string) (journal.File, error) {
	f, err := os.Open(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	return readFile{f}, nil
}

func (d readDisk) List() ([]journal.Entry, error)             { return journal.OSDisk(string(d)).List() }
func (d readDisk) Create(string, int64) (journal.File, error) { return nil, errReadOnlyDisk }
func (d readDisk) Rename(string, string) error                { return errReadOnlyDisk }
func (d readDisk) Remove(string) error                        { return errReadOnlyDisk }
func (d readDisk) Sync() error                                { return errReadOnlyDisk }

type readFile struct{ *os.File }

func (readFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnlyDisk }
func (readFile) Sync() error                        { return errReadOnlyDisk }

// checkCopy copies the store, opens the copy and reads all of it. The error is
// the one that was reported, if there was one.
func checkCopy(ctx context.Context, r *storeReport, o checkOptions) error {
	copied, remove, err := copyStore(ctx, r.Dir, o.scratch)
	if err != nil {
		r.add(kindUnread, "badger", "no copy could be made to read: %v", err)
		return err
	}
	defer remove()
	sum, err := readCopy(ctx, copied, o.profile)
	if err != nil {
		r.add(damageOr(err), "the store", "%s", strings.ReplaceAll(err.Error(), copied, r.Dir))
		return err
	}
	r.add(kindOK, "the store", "%d partitions, %d logs, %d messages with %s, %d cursors, %d records: all read",
		len(sum.Partitions), sum.Logs, sum.Messages, sizeText(sum.Bytes), sum.Cursors, sum.Records)
	return nil
}

func readCopy(ctx context.Context, copied, profile string) (sum storeSum, err error) {
	store, err := badger.Open(copied, badger.Options{Profile: badger.Profile(profile)})
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, store.Close(context.WithoutCancel(ctx))) }()
	return readStore(ctx, store)
}

// damageOr tells damage from what else can keep one from reading.
func damageOr(err error) string {
	_, byCore := errors.AsType[*core.CorruptError](err)
	_, byJournal := errors.AsType[*journal.CorruptError](err)
	_, byTable := errors.AsType[*lsm.CorruptError](err)
	if byCore || byJournal || byTable {
		return kindDamaged
	}
	return kindUnread
}

// copyStore copies what the store is made of; not the ballast. remove removes
// the copy.
func copyStore(ctx context.Context, dir, scratch string) (copied string, remove func(), err error) {
	if scratch == "" {
		scratch = os.TempDir()
	}
	need, err := treeSize(dir)
	if err != nil {
		return "", nil, err
	}
	free, err := space.Free(scratch)
	if err != nil {
		return "", nil, err
	}
	// Opening it writes too: tables, and segments.
	if want := need + need/4 + 64<<20; free < want {
		return "", nil, fmt.Errorf("%s has %s free, and %s are needed: name a place with --scratch DIR", scratch, sizeText(free), sizeText(want))
	}
	if copied, err = os.MkdirTemp(scratch, "godwit-check-*"); err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(copied) } // ours, and of no use
	for _, part := range []string{"journal", "badger"} {
		if err := copyDir(ctx, filepath.Join(dir, part), filepath.Join(copied, part)); err != nil {
			remove()
			return "", nil, err
		}
	}
	return copied, remove, nil
}

// treeSize is what the files of a store really take.
func treeSize(dir string) (n int64, err error) {
	for _, part := range []string{"journal", "badger"} {
		names, err := os.ReadDir(filepath.Join(dir, part))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		for _, e := range names {
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() && !setAside(e.Name()) {
				n += min(info.Size(), allocated(info))
			}
		}
	}
	return n, nil
}

// setAside: a repair has put the file away, nobody reads it.
func setAside(name string) bool {
	return slices.Contains([]string{".cut", ".tmp"}, filepath.Ext(name))
}

// copyDir copies the files of a directory, but not what a broker does not read.
func copyDir(ctx context.Context, from, to string) error {
	names, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	for _, e := range names {
		if !e.Type().IsRegular() || setAside(e.Name()) || e.Name() == "LOCK" {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies what is not zero: logs and segments are long before they are
// full. What the disk cannot read ends it.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, reading := in.ReadAt(buf, at)
		if n > 0 && string(buf[:n]) != string(zero[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if n < len(buf) {
			if info, err := in.Stat(); err == nil && at < info.Size() {
				return fmt.Errorf("read %s at %d: %w", from, at, reading)
			}
			return out.Truncate(at)
		}
	}
}
