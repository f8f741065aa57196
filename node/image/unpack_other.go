//go:build !linux

package image

import (
	"errors"
	"io"
	"log/slog"
)

// unpack needs Linux, as what would be started from an image does.
func unpack(string, io.Reader, *budget, *slog.Logger) error {
	return errors.New("image layers can be unpacked on Linux only; map a program or directory instead")
}

func syncDir(string) error { return nil }
