//go:build !linux

package announce

import (
	"errors"
	"fmt"
)

func newNetwork() (network, error) {
	return nil, fmt.Errorf("addresses are announced on Linux only: %w", errors.ErrUnsupported)
}
