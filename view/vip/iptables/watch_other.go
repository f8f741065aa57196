//go:build !linux

package iptables

// watch tells cheaply whether somebody else has changed the tables. Only Linux
// has any.
type watch struct{ v6, nft bool }

func (w *watch) mark() {}

func (w *watch) moved() bool { return false }
