// Package ipvs speaks to the kernel's IPVS: virtual servers, the real servers
// behind each, and the device that holds their addresses. It is the lower half
// of a proxy mode; package vip says what the upper half has to do.
//
// # Guarantees
//
//   - [Table.Put] and [Table.Remove] return when the kernel does it. Each is a
//     message for each server that differs; nothing is listed on the way.
//   - A server that leaves keeps its connections: it gets weight 0, and
//     [Table.Drain] takes it away when it has none, or when the time for that is
//     over.
//   - [Table.Adopt] takes over what an earlier process left, so that a restart
//     loses no connection. What nobody puts again goes with [Table.Forget].
//   - Only virtual servers of addresses on the device are ours.
//
// # Limits
//
// It does not decide what is masqueraded, rejected or kept out: that is for the
// packet filter of the mode. This kernel module is often not there; [Open] says
// so.
package ipvs
