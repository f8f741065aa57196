//go:build !linux

package ipvs

import (
	"context"
	"errors"
	"fmt"

	"github.com/fingerpost/fingerpost/catalog"
)

// Driver is the proxy; it needs Linux.
type Driver struct{}

// New fails: IPVS is Linux's.
func New(Config) (*Driver, error) { return nil, Probe(Config{}) }

// Probe fails: IPVS is Linux's.
func Probe(Config) error {
	return fmt.Errorf("ipvs: start: needs Linux (use the userspace mode here): %w", errors.ErrUnsupported)
}

// Cleanup has nothing to do.
func Cleanup(Config) error { return nil }

// Apply does nothing: there is no driver.
func (*Driver) Apply(context.Context, catalog.Batch) error { return nil }

// Run waits for the end of ctx.
func (*Driver) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
