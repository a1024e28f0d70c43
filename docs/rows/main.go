// Command rows compares the project's promises (docs/rows.tsv) with its tests.
// A test proves a row by naming it in a comment of its own line:
//
//	// mission: S8 S28, P1      in a *_test.go file
//	# mission: S8               in a transcript (*.txt, *.txtar)
//
// rows lists how many tests name each row and which rows none does. It exits
// with 1 if a test names a row that does not exist or, with -stage N, if a row
// of that stage or an earlier one is bare.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	root := flag.String("root", ".", "the repository")
	stage := flag.Int("stage", 0, "fail if a row up to this stage is bare; 0: never")
	all := flag.Bool("all", false, "list the proven rows too, with their tests")
	flag.Parse()
	if err := run(os.Stdout, *root, *stage, *all); err != nil {
		fmt.Fprintln(os.Stderr, "rows:", err)
		os.Exit(1)
	}
}

// A row is one promise.
type row struct {
	id    string
	stage int
	what  string
	tests []string // file:line of each comment that names it
}

func run(out io.Writer, root string, stage int, all bool) error {
	rows, err := read(filepath.Join(root, "docs", "rows.tsv"))
	if err != nil {
		return err
	}
	unknown, err := findTests(root, rows)
	if err != nil {
		return err
	}
	due := report(out, rows, stage, all)
	for _, u := range unknown {
		fmt.Fprintf(out, "%s: no such row in docs/rows.tsv\n", u)
	}
	switch {
	case len(unknown) > 0:
		return fmt.Errorf("%d comments name rows that do not exist", len(unknown))
	case due > 0:
		return fmt.Errorf("%d rows up to stage %d have no test", due, stage)
	}
	return nil
}

// report lists the rows and says how many bare ones are due at the stage.
func report(out io.Writer, rows []*row, stage int, all bool) (due int) {
	proven := 0
	for _, r := range rows {
		if len(r.tests) > 0 {
			proven++
			if all {
				fmt.Fprintf(out, "%-4s stage %-2d %s\n", r.id, r.stage, strings.Join(r.tests, " "))
			}
			continue
		}
		if stage != 0 && r.stage > stage {
			continue
		}
		if r.stage <= stage {
			due++
		}
		fmt.Fprintf(out, "%-4s stage %-2d bare: %s\n", r.id, r.stage, r.what)
	}
	fmt.Fprintf(out, "%d of %d rows have a test that names them\n", proven, len(rows))
	return due
}

// read reads the table.
func read(path string) ([]*row, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	var rows []*row
	seen := map[string]bool{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "id\t") {
			continue
		}
		cells := strings.Split(line, "\t")
		if len(cells) != 4 {
			return nil, fmt.Errorf("%s:%d: %d columns, want id, stage, what must work, how it is proven", path, n, len(cells))
		}
		stage, err := strconv.Atoi(cells[1])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: the stage %q is no number", path, n, cells[1])
		}
		if seen[cells[0]] {
			return nil, fmt.Errorf("%s:%d: %s is there twice", path, n, cells[0])
		}
		seen[cells[0]] = true
		rows = append(rows, &row{id: cells[0], stage: stage, what: cells[2]})
	}
	return rows, lines.Err()
}

// mention is a comment that is nothing but a list of rows, or ends in one.
var mention = regexp.MustCompile(`(?://|#).*\bmission: *([A-Z][0-9]+(?:[ ,]+[A-Z][0-9]+)*)`)

// findTests adds to each row the comments that name it and returns those that
// name none, as file:line: id.
func findTests(root string, rows []*row) (unknown []string, err error) {
	byID := map[string]*row{}
	for _, r := range rows {
		byID[r.id] = r
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // made and gone by a test that runs beside us
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir() || !holdsTests(d.Name()):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		for n, line := range strings.Split(string(text), "\n") {
			m := mention.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			at := fmt.Sprintf("%s:%d", filepath.ToSlash(name), n+1)
			for _, id := range strings.FieldsFunc(m[1], func(r rune) bool { return r == ' ' || r == ',' }) {
				if r := byID[id]; r != nil {
					r.tests = append(r.tests, at)
				} else {
					unknown = append(unknown, at+": "+id)
				}
			}
		}
		return nil
	})
	return unknown, err
}

func holdsTests(name string) bool {
	return strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".txt") || strings.HasSuffix(name, ".txtar")
}
