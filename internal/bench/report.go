//go:build linux

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A result is what all runs of one path on one server gave.
type result struct {
	Path    string   `json:"path"`
	Server  string   `json:"server"`
	Samples []sample `json:"samples"`
	Err     string   `json:"error,omitempty"`
}

// A report is a whole run.
type report struct {
	paths   []path
	servers []string
	results map[[2]string]*result // by path and server
}

func newReport(paths []path, servers []string) *report {
	return &report{paths, servers, map[[2]string]*result{}}
}

func (r *report) add(p *path, server string, s sample, err error) {
	key := [2]string{p.name, server}
	res := r.results[key]
	if res == nil {
		res = &result{Path: p.name, Server: server}
		r.results[key] = res
	}
	if err != nil {
		res.Err = err.Error()
		return
	}
	res.Samples = append(res.Samples, s)
}

// of is nil where a path was not run on a server, or failed there.
func (r *report) of(path, server string) *result {
	if res := r.results[[2]string{path, server}]; res != nil && res.Err == "" {
		return res
	}
	return nil
}

// spread returns the median, least and greatest of what f gives.
func (r *result) spread(f func(sample) float64) (median, least, most float64) {
	v := make([]float64, len(r.Samples))
	for i, s := range r.Samples {
		v[i] = f(s)
	}
	slices.Sort(v)
	median = v[len(v)/2]
	if len(v)%2 == 0 {
		median = (median + v[len(v)/2-1]) / 2
	}
	return median, v[0], v[len(v)-1]
}

// cpu is a cell: the median, and how far the runs lie apart.
func (r *result) cpu() string {
	if r == nil {
		return "-"
	}
	median, least, most := r.spread(sample.micros)
	if len(r.Samples) == 1 {
		return fmt.Sprintf("%.2f us", median)
	}
	return fmt.Sprintf("%.2f us (%.2f-%.2f)", median, least, most)
}

func (r *result) rate() string {
	if r == nil {
		return "-"
	}
	median, _, _ := r.spread(sample.perSecond)
	return thousands(median)
}

// thousands writes 123456.7 as 123,457.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// within says whether ours is at most twice the budget, or half the rate.
func (p *path) within(r *result) string {
	if p.budget == 0 || r == nil {
		return "-"
	}
	cpu, _, _ := r.spread(sample.micros)
	rate, _, _ := r.spread(sample.perSecond)
	switch {
	case p.rate && rate >= p.budget, !p.rate && cpu <= p.budget:
		return "met"
	case p.rate && rate >= p.budget/2, !p.rate && cpu <= 2*p.budget:
		return "yes"
	}
	return "NO"
}

func (p *path) goal() string {
	switch {
	case p.budget == 0:
		return "-"
	case p.rate:
		return ">= " + thousands(p.budget) + "/s"
	}
	return fmt.Sprintf("<= %.2f us", p.budget)
}

// print writes the table: a row a path, server CPU per message and messages a
// second of each server.
func (r *report) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := []string{"path"}
	for i, s := range r.servers {
		head = append(head, s)
		if i == 0 {
			head = append(head, "budget", "within 2x?")
		}
	}
	for _, s := range r.servers {
		head = append(head, s+"/s")
	}
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for i := range r.paths {
		r.row(w, &r.paths[i])
	}
	err := w.Flush()
	r.printErrors(out)
	return err
}

func (r *report) row(w io.Writer, p *path) {
	cells := []string{p.title}
	for i, s := range r.servers {
		cells = append(cells, r.of(p.name, s).cpu())
		if i == 0 {
			cells = append(cells, p.goal(), p.within(r.of(p.name, ours)))
		}
	}
	for _, s := range r.servers {
		cells = append(cells, r.of(p.name, s).rate())
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

func (r *report) printErrors(out io.Writer) {
	for _, res := range r.sorted() {
		if res.Err != "" {
			fmt.Fprintf(out, "FAILED %s on %s: %s\n", res.Path, res.Server, res.Err)
		}
	}
}

// groupGain is how much faster a window of 1,000 must be than a window of 1,
// or commits are not shared.
const groupGain = 10

// gain compares the two durable windows of ours: what group commit gives.
func (r *report) gain() (text string, ok bool) {
	one, thousand := r.of("durable-1", ours), r.of("durable-1000", ours)
	if one == nil || thousand == nil {
		return "", true
	}
	slow, _, _ := one.spread(sample.perSecond)
	fast, _, _ := thousand.spread(sample.perSecond)
	ok = fast >= groupGain*slow
	verdict := "at least"
	if !ok {
		verdict = "FAILED: less than"
	}
	return fmt.Sprintf("group commit: window 1 gives %s/s, window 1,000 gives %s/s: %.1f times, %s %d\n",
		thousands(slow), thousands(fast), fast/slow, verdict, groupGain), ok
}

func (r *report) failed() bool {
	return slices.ContainsFunc(r.sorted(), func(res *result) bool { return res.Err != "" })
}

func (r *report) sorted() (all []*result) {
	for _, res := range r.results {
		all = append(all, res)
	}
	slices.SortFunc(all, func(a, b *result) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Server, b.Server))
	})
	return all
}

func (r *report) writeJSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "\t")
	return e.Encode(r.sorted())
}
