//go:build !linux

package kernel

import (
	"context"
	"errors"
	"net"
)

var errNoNamespaces = errors.New("kernel: network namespaces are Linux's")

// InNamespace needs Linux.
func InNamespace(string, func() error) error { return errNoNamespaces }

// DialIn needs Linux.
func DialIn(context.Context, string, string, string) (net.Conn, error) { return nil, errNoNamespaces }
