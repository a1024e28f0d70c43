package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/persistence/journal"
	"github.com/godwitmq/godwit/persistence/lsm"
)

func newStoreRepairCommand() *cobra.Command {
	var o checkOptions
	var yes bool
	c := &cobra.Command{
		Use:   "repair DIR",
		Short: "Let a damaged store open again, and say what is given up for it",
		Long: `Let a damaged store open again. It says what would be given up, and does it only
with --yes.

A damaged journal is made to end before the damage: what was committed from
there on is given up, confirmed or not. Nothing is deleted: what is taken out
stays beside the journal, in files that end in .cut. That needs space for two
segments.

Damage in a part of the journal that the database has already taken over costs
nothing, and such a store is left as it is. A damaged database cannot be
repaired: restore a backup.

The broker must not be running.
Exit code 0: there was nothing to repair, or it is repaired. 1: it is damaged
still. 2: it cannot be told.`,
		Example: "  godwit store repair /var/lib/godwit\n  godwit store repair /var/lib/godwit --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			release, err := lockStore(args[0])
			if err != nil {
				return err
			}
			defer release()
			return repairStore(c.Context(), args[0], o, yes, c.OutOrStdout())
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

// mostCuts bounds the repair of a journal that is damaged in many places: each
// cut ends it earlier.
const mostCuts = 100

// repairStore cuts the journal until the store opens and reads to its end.
func repairStore(ctx context.Context, dir string, o checkOptions, yes bool, out io.Writer) error {
	for range mostCuts {
		r := storeReport{Dir: dir}
		segments := checkJournal(&r)
		damage := segments.damage()
		if !o.quick {
			err := checkCopy(ctx, &r, o)
			if err == nil {
				fmt.Fprintln(out, soundAs(damage))
				return nil
			}
			if damage = whereToCut(err, damage); damage == nil {
				return cannotRepair(err, r.Findings[len(r.Findings)-1])
			}
		} else if damage == nil {
			fmt.Fprintln(out, "The journal is sound. The database was not read.")
			return nil
		}
		tellCut(out, dir, damage, segments, o.quick)
		if !yes {
			return &exitError{int(storeDamaged), errNotYes}
		}
		if err := journal.Cut(journal.OSDisk(filepath.Join(dir, "journal")), damage.Segment, damage.At); err != nil {
			return &exitError{int(storeDamaged), fmt.Errorf("cut the journal: %w", err)}
		}
		fmt.Fprintf(out, "The journal ends before commit %d now; what was taken out is in journal/*.cut.\n", damage.Commit)
	}
	return &exitError{int(storeDamaged), fmt.Errorf("the journal of %s is damaged still after %d cuts: restore a backup", dir, mostCuts)}
}

// soundAs says why nothing needs to be done.
func soundAs(damage *journal.CorruptError) string {
	if damage == nil {
		return "The store is sound: it opens, and all of it was read."
	}
	return fmt.Sprintf("The store opens, and all of it was read. Segment %d of the journal is damaged, and the database has taken over what was in it: "+
		"nothing is lost, and nothing needs to be done.", damage.Segment)
}

// whereToCut is the damage that keeps the store from opening, if that is the
// journal's: what the store itself stumbles over, else the first there is.
func whereToCut(opening error, first *journal.CorruptError) *journal.CorruptError {
	if c, ok := errors.AsType[*journal.CorruptError](opening); ok {
		return c
	}
	if _, ok := errors.AsType[*lsm.CorruptError](opening); ok || damageOr(opening) != kindDamaged {
		return nil
	}
	return first
}

// tellCut names what would be lost.
func tellCut(out io.Writer, dir string, damage *journal.CorruptError, segments journalSegments, quick bool) {
	fmt.Fprintf(out, "Segment %d of the journal is damaged at %d: %s.\n", damage.Segment, damage.At, damage.Text)
	fmt.Fprintf(out, "It would end before commit %d. Given up would be, confirmed or not:\n", damage.Commit)
	for _, s := range segments {
		name := filepath.Join(dir, "journal", s.Name)
		switch {
		case s.Number == damage.Segment:
			fmt.Fprintf(out, "  of %s all from %d on: at most %s\n", name, damage.At, sizeText(max(0, contentEnd(name)-damage.At)))
		case s.Number > damage.Segment && s.Frames > 0:
			fmt.Fprintf(out, "  %s, with commits %d to %d and perhaps more: %s\n", name, s.First, s.Commit, sizeText(s.Bytes))
		case s.Number > damage.Segment:
			fmt.Fprintf(out, "  %s, with no commit that can be read\n", name)
		}
	}
	fmt.Fprintln(out, "What the database had taken over of it stays. A message that was settled in what is given up comes again.")
	if quick {
		fmt.Fprintln(out, "Whether the store opens as it is was not tried (--quick): the database may have taken over all of it, and then this gives up more than needs be.")
	}
}

// contentEnd is behind the last octet of a file that is not zero.
func contentEnd(name string) (end int64) {
	f, err := os.Open(name)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // it was only read
	buf := make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := f.ReadAt(buf, at)
		if used := len(bytes.TrimRight(buf[:n], "\x00")); used > 0 {
			end = at + int64(used)
		}
		if at += int64(n); err != nil {
			return end
		}
	}
}

// cannotRepair: what is wrong is not the journal's, or not known.
func cannotRepair(err error, what storeFinding) error {
	if damageOr(err) == kindUnread {
		return &exitError{int(storeCantTell), fmt.Errorf("nothing was changed, for not all could be read: %s", what.Text)}
	}
	return &exitError{int(storeDamaged), fmt.Errorf("the database is damaged, which cannot be repaired: restore a backup, "+
		"or start with an empty directory and keep this one: %s", what.Text)}
}
