//go:build !linux

package ipvs

// Device is what the addresses of virtual servers are on. Only Linux has IPVS.
const Device = "kube-ipvs0"
