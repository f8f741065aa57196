//go:build !linux

package volume

import "errors"

// MountMemory needs Linux.
func MountMemory(string, int64) error {
	return errors.New("a file system in memory needs Linux")
}

func isMount(string) bool { return false }

// IsMount says whether something is mounted on a directory.
func IsMount(string) bool { return false }

func unmountBelow(string) error { return nil }
