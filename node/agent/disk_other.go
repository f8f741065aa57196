//go:build !linux && !darwin

package agent

func diskSize(string) int64 { return 0 }
