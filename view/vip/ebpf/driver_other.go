//go:build !linux

package ebpf

import (
	"context"
	"errors"
	"fmt"

	"github.com/fingerpost/fingerpost/catalog"
)

// Driver is the proxy. This system has no eBPF at control groups.
type Driver struct{}

func unsupported() error {
	return fmt.Errorf("ebpf: start: it needs Linux; use the proxy mode userspace: %w", errors.ErrUnsupported)
}

// New says that it needs Linux.
func New(Config) (*Driver, error) { return nil, unsupported() }

// Probe says that it needs Linux.
func Probe(Config) error { return unsupported() }

// Cleanup has nothing to do.
func Cleanup(Config) error { return nil }

// Run says that it needs Linux.
func (*Driver) Run(context.Context) error { return unsupported() }

// Apply says that it needs Linux.
func (*Driver) Apply(context.Context, catalog.Batch) error { return unsupported() }
