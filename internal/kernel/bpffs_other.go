//go:build !linux

package kernel

// IsBPF says no: bpf file systems are Linux's.
func IsBPF(string) bool { return false }
