package ebpf

import (
	"testing"

	"github.com/fingerpost/fingerpost/catalog/viewtest"
)

// TestConformance reads what the kernel's maps say, which is what sockets meet.
func TestConformance(t *testing.T) {
	needKernel(t)
	viewtest.Run(t, func(t *testing.T) viewtest.View {
		return newRig(t, func(c *Config) { c.Node = viewtest.Node }).d
	})
}
