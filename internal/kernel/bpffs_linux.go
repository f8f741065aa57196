package kernel

import "golang.org/x/sys/unix"

// IsBPF says whether a directory is on a bpf file system, where programs and
// maps of the kernel can be given names.
func IsBPF(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.BPF_FS_MAGIC
}
