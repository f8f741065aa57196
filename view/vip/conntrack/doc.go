// Package conntrack deletes entries of the kernel's connection tracking: flows
// that would go on leading where new ones do not. It is shared by those drivers
// that have no faster way of their own.
package conntrack
