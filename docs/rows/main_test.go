package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree writes a repository of these files and returns its root. The word that
// marks a row is put together here, so that this file names none.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "@", "mission"+":")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const table = "# comment\nid\tstage\twhat\thow\nS1\t1\tone\tx\nS2\t2\ttwo\tx\nP1\t1\tyes\tx\n"

func TestRun(t *testing.T) {
	tests := []struct {
		sentence string
		files    map[string]string
		stage    int
		out, err string
	}{
		{
			sentence: "bare rows are listed and are no failure by themselves",
			files:    map[string]string{"a_test.go": "// @ S1\n"},
			out:      "S2   stage 2  bare: two\nP1   stage 1  bare: yes\n1 of 3 rows have a test that names them\n",
		},
		{
			sentence: "a comment may name several, a transcript may too, a plain source may not",
			files:    map[string]string{"x/a_test.go": "\t// Found by a seed. @ S1, P1.\n", "x/testdata/b.txt": "# @ S2\n", "c.go": "// @ S9\n"},
			out:      "3 of 3 rows have a test that names them\n",
		},
		{
			sentence: "a bare row of the stage, or of an earlier one, fails",
			files:    map[string]string{"a_test.go": "// @ S1\n"},
			stage:    1,
			out:      "P1   stage 1  bare: yes\n1 of 3 rows have a test that names them\n",
			err:      "1 rows up to stage 1 have no test",
		},
		{
			sentence: "a row that does not exist fails, with its place",
			files:    map[string]string{"a_test.go": "// @ S1 S2 P1\n// @ S99\n"},
			out:      "3 of 3 rows have a test that names them\na_test.go:2: S99: no such row in docs/rows.tsv\n",
			err:      "1 comments name rows that do not exist",
		},
	}
	for _, tt := range tests {
		t.Run(tt.sentence, func(t *testing.T) {
			tt.files["docs/rows.tsv"] = table
			var out strings.Builder
			err := run(&out, tree(t, tt.files), tt.stage, false)
			if diff := cmp.Diff(tt.out, out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			if got := text(err); got != tt.err {
				t.Errorf("error %q, want %q", got, tt.err)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// The table of the repository itself can be read, and no test names a row that
// is not in it.
func TestThisRepository(t *testing.T) {
	if err := run(new(strings.Builder), "../..", 0, false); err != nil {
		t.Error(err)
	}
}
