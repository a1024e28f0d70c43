package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godwitmq/godwit/persistence/badger"
	"github.com/godwitmq/godwit/persistence/space"
)

// storeStats is what godwit store stats prints.
type storeStats struct {
	Dir     string    `json:"dir"`
	Driver  string    `json:"driver"`
	Files   []fileSum `json:"files"`
	Ballast int64     `json:"ballast_bytes"`
	Free    int64     `json:"free_bytes"`
	Reserve int64     `json:"reserve_bytes"`
	Full    bool      `json:"read_only"`
	Store   storeSum  `json:"store"`
}

// A fileSum counts files of one kind.
type fileSum struct {
	Kind  string `json:"kind"`
	Count int    `json:"count"`
	Bytes int64  `json:"bytes"` // what they take
}

func newStoreStatsCommand() *cobra.Command {
	var profile string
	var asJSON bool
	c := &cobra.Command{
		Use:   "stats DIR",
		Short: "Count what is in a data directory",
		Long: `Count what is in a data directory: files, free space, logs, messages, cursors
and records. It opens the store as the broker does, so the broker must not be
running, and a store that was killed recovers.`,
		Example: "  godwit store stats /var/lib/godwit\n  godwit store stats /var/lib/godwit --json | jq .store.messages",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := statStore(c.Context(), args[0], profile)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), s)
			}
			s.print(c.OutOrStdout())
			return nil
		},
	}
	c.Flags().StringVar(&profile, "profile", "", "of the store: edge or server; by default as serve chooses")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func statStore(ctx context.Context, dir, profile string) (s storeStats, err error) {
	if err := isStore(dir); err != nil {
		return s, err
	}
	s.Dir = dir
	if s.Files, err = sumFiles(dir); err != nil {
		return s, err
	}
	store, err := badger.Open(dir, badger.Options{Profile: badger.Profile(profile)})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, store.Close(context.WithoutCancel(ctx))) }()
	h := store.Health()
	s.Driver, s.Reserve, s.Full = store.Caps().Name, h.Reserve, h.ReadOnly
	if s.Free, err = space.Free(dir); err != nil {
		return s, err
	}
	if info, err := os.Stat(filepath.Join(dir, "ballast")); err == nil {
		s.Ballast = allocated(info)
	}
	s.Store, err = countStore(ctx, store)
	return s, err
}

// sumFiles counts the files as they are before the store is opened.
func sumFiles(dir string) ([]fileSum, error) {
	sums := map[string]fileSum{}
	for _, part := range []string{"journal", "badger"} {
		names, err := os.ReadDir(filepath.Join(dir, part))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range names {
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() {
				continue
			}
			kind := part + "/*" + filepath.Ext(e.Name())
			if filepath.Ext(e.Name()) == "" {
				kind = part + "/" + e.Name()
			}
			one := sums[kind]
			one.Kind = kind
			one.Count++
			one.Bytes += allocated(info)
			sums[kind] = one
		}
	}
	return slices.SortedFunc(maps.Values(sums), func(a, b fileSum) int { return strings.Compare(b.Kind, a.Kind) }), nil
}

func (s *storeStats) print(w io.Writer) {
	fmt.Fprintf(w, "%s, driver %s\n\n", s.Dir, s.Driver)
	for _, f := range s.Files {
		fmt.Fprintf(w, "  %-22s %5d files %10s\n", f.Kind, f.Count, sizeText(f.Bytes))
	}
	fmt.Fprintf(w, "\nfree %s, reserve %s, ballast %s", sizeText(s.Free), sizeText(s.Reserve), sizeText(s.Ballast))
	if s.Full {
		fmt.Fprint(w, "; READ-ONLY: publishes are refused")
	}
	fmt.Fprint(w, "\n\npartition  logs  messages       bytes  cursors      owed  longest  records\n")
	for _, p := range s.Store.Partitions {
		fmt.Fprintf(w, "%9d %5d %9d %11s %8d %9d %8d %8d\n", p.Partition, p.Logs, p.Messages, sizeText(p.Bytes), p.Cursors, p.Owed, p.LongestOwed, p.Records)
	}
	records := map[string]int64{}
	for _, p := range s.Store.Partitions {
		for table, n := range p.ByTable {
			records[table] += n
		}
	}
	fmt.Fprint(w, "\nrecords:")
	for _, table := range slices.Sorted(maps.Keys(records)) {
		fmt.Fprintf(w, " %s %d", table, records[table])
	}
	fmt.Fprintln(w)
}
