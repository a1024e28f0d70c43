package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// closers is what has been built, to be closed in reverse.
type closers []closer

type closer struct {
	name  string
	close func(context.Context) error
}

func (c *closers) add(name string, f func(context.Context) error) {
	*c = append(*c, closer{name, f})
}

// close closes all, the newest first, until ctx ends: what is still open then
// is left to the end of the process. Nothing confirmed is lost by that.
func (c *closers) close(ctx context.Context) error {
	var errs []error
	for _, one := range slices.Backward(*c) {
		done := make(chan error, 1)
		go func() { done <- one.close(ctx) }() // ends, or the process does
		select {
		case err := <-done:
			if err != nil {
				errs = append(errs, fmt.Errorf("close %s: %w", one.name, err))
			}
		case <-ctx.Done():
			return errors.Join(append(errs, fmt.Errorf("close %s: still busy at the deadline", one.name))...)
		}
	}
	return errors.Join(errs...)
}
