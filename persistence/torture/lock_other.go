//go:build !unix

package torture

import (
	"fmt"
	"os"
	"path/filepath"
)

// refuseBroker refuses a data directory with a lock; here nobody can say
// whether a broker still has it.
func refuseBroker(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "LOCK")); err == nil {
		return fmt.Errorf("%s is a broker's data directory: name another one on the same disk", dir)
	}
	return nil
}
