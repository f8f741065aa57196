//go:build !linux

package network

import "context"

// Network needs Linux; New says so.
type Network struct{}

// New fails: there are no network namespaces here.
func New(Config) (*Network, error) { return nil, ErrUnsupported }

// Setup fails.
func (*Network) Setup() error { return ErrUnsupported }

// Attach fails.
func (*Network) Attach(context.Context, string) (Attachment, error) {
	return Attachment{}, ErrUnsupported
}

// Detach fails.
func (*Network) Detach(context.Context, string) error { return ErrUnsupported }

// List fails.
func (*Network) List() ([]Attachment, error) { return nil, ErrUnsupported }

// SetRoutes fails.
func (*Network) SetRoutes([]Peer) error { return ErrUnsupported }

// SetHostPorts fails.
func (*Network) SetHostPorts(string, []HostPort) error { return ErrUnsupported }

// Teardown fails.
func (*Network) Teardown() error { return ErrUnsupported }

// Close does nothing.
func (*Network) Close() {}
