// Package proxyproto reads and writes the header of HAProxy's PROXY protocol,
// versions 1 and 2: a proxy before us says in it whose connection this is.
//
// # Guarantees
//
//   - Parse gives a header only if all of it is right; it reads nothing itself,
//     modifies nothing and keeps nothing of its input.
//   - A header is bounded: 107 bytes in version 1, 16 bytes and MaxLength in
//     version 2. What can never become a header is refused with its first wrong byte.
//   - A checksum (PP2_TYPE_CRC32C) that is present is checked; all other
//     TLVs are skipped, but must be well-formed.
//   - LOCAL, UNKNOWN and UNSPEC give a Header without addresses: the
//     connection's own count.
//
// A header proves nothing by itself: whether a peer may send one is the caller's
// decision.
package proxyproto
