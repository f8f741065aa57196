//go:build linux || darwin

package agent

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskSize gives the size of the file system that a directory is, or will be,
// on.
func diskSize(dir string) int64 {
	var s unix.Statfs_t
	for unix.Statfs(dir, &s) != nil {
		up := filepath.Dir(dir)
		if up == dir {
			return 0
		}
		dir = up
	}
	return int64(s.Blocks) * int64(s.Bsize)
}
