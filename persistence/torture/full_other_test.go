//go:build !linux

package torture

import "github.com/godwitmq/godwit/core"

func newCareful(s core.Store, _, _ string) (core.Store, error) { return s, nil }
