//go:build !linux

package iptables

// cutFlows deletes what the judge says. Only Linux has such flows.
func cutFlows(*judge) (int, error) { return 0, nil }
