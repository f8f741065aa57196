//go:build !linux

package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// Runtime needs Linux.
type Runtime struct{}

// New says that this system cannot run containers as processes.
func New(Config) (*Runtime, error) {
	return nil, fmt.Errorf("process: pods run on Linux only: %w", errors.ErrUnsupported)
}

// Run implements runtime.Runtime's neighbour on Linux.
func (*Runtime) Run(context.Context) error { return errors.ErrUnsupported }

// Close does nothing.
func (*Runtime) Close() {}

// Quit does nothing.
func (*Runtime) Quit(context.Context) error { return errors.ErrUnsupported }

// List implements runtime.Runtime.
func (*Runtime) List(context.Context) ([]runtime.Pod, error) { return nil, errors.ErrUnsupported }

// StartPod implements runtime.Runtime.
func (*Runtime) StartPod(context.Context, runtime.PodConfig) error { return errors.ErrUnsupported }

// StartContainer implements runtime.Runtime.
func (*Runtime) StartContainer(context.Context, runtime.ContainerConfig) error {
	return errors.ErrUnsupported
}

// StopContainer implements runtime.Runtime.
func (*Runtime) StopContainer(context.Context, runtime.ContainerID, time.Duration) error {
	return errors.ErrUnsupported
}

// RemovePod implements runtime.Runtime.
func (*Runtime) RemovePod(context.Context, string) error { return errors.ErrUnsupported }

// Ended implements runtime.Notifier.
func (*Runtime) Ended() <-chan runtime.ContainerID { return nil }

// Exec implements runtime.Streamer.
func (*Runtime) Exec(context.Context, runtime.ContainerID, runtime.ExecConfig) (int, error) {
	return 0, errors.ErrUnsupported
}

// Attach implements runtime.Streamer.
func (*Runtime) Attach(context.Context, runtime.ContainerID, runtime.Streams) error {
	return errors.ErrUnsupported
}
