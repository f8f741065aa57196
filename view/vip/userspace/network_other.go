//go:build !linux

package userspace

import "log/slog"

func newNetwork(*slog.Logger) (network, error) { return newPortable(), nil }
