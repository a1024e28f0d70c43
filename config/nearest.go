package config

import (
	"fmt"
	"slices"
	"strings"
)

// suggest says which of the known names was probably meant.
func suggest(unknown string, known []string) string {
	best, distance := "", len(unknown)/3+2
	for _, k := range known {
		if d := edits(unknown, k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	known = slices.Sorted(slices.Values(known))
	return "it can be " + strings.Join(known, ", ")
}

// edits is the number of letters to insert, drop or change to make b of a.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
