package userspace

import (
	"testing"

	"github.com/fingerpost/fingerpost/catalog/viewtest"
)

// TestConformance: the suite's addresses are not of this machine, so this is
// about the choice of endpoints; the other tests send traffic.
func TestConformance(t *testing.T) {
	viewtest.Run(t, func(t *testing.T) viewtest.View {
		return newRig(t, func(c *Config) { c.Node = viewtest.Node }).d
	})
}
