// Package disk keeps the last state of a catalog in a file, so that a process
// that starts while its source is away answers from what it knew.
//
// # Guarantees
//
//   - The file is written whole beside the old one and renamed over it: there
//     is never half a file, whenever the power goes.
//   - Only a catalog that its door has read completely is written. A process
//     that never reached its source leaves the file as it was.
//   - Writing is bounded: not more often than Config.Every, and over time not
//     more than about 128 KiB a second, however much changes. The writer reads
//     an immutable snapshot: nobody waits for it.
//   - What was loaded is marked: not synced, and stale since the moment of the
//     writing. Views answer what they know and say SERVFAIL, not NXDOMAIN, to
//     the rest.
//   - A file that is damaged, of another version, of another source or too old
//     is left alone and reported; it never stops the process.
//   - What the file says is not believed beyond that: a decoder takes memory
//     in proportion to the bytes there are.
//
// # Format
//
//	8 bytes   "fpcatlg" and the version
//	…         the body: varints and strings; see encode.go
//	4 bytes   CRC-32C of everything before, big endian
package disk
