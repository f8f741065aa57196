//go:build !linux

package kernel

import (
	"errors"
	"fmt"
	"runtime"
)

// RaiseFileLimit relies on the Go runtime, which raises the soft limit to the
// hard one at start.
func RaiseFileLimit(uint64) (uint64, error) {
	return 0, fmt.Errorf("kernel: raise the limit of open files: not on %s: %w; use `ulimit -n`", runtime.GOOS, errors.ErrUnsupported)
}
