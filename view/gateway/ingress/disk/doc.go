// Package disk keeps the objects that routes are made of in a file, so that a
// gateway that starts while its API server is away serves what it knew.
//
// It keeps the objects and not the routes: a gateway that starts with other flags,
// or as a newer version, makes its routes of them anew, by its own rules.
//
// # Guarantees
//
//   - The file is written whole beside the old one, flushed and renamed over it:
//     there is never half a file, whenever the power goes.
//   - It holds Secrets (keys of certificates, hashes of passwords), so that it is
//     readable by its owner only, and its directory is made so.
//   - Writing is bounded: not more often than [Config].Every, and over time not more
//     than about 1 MiB a second, however much changes.
//   - A file that is damaged, of another version, of another source or too old is
//     left alone, and the reason is given; it never stops the process.
//   - What the file says is not believed beyond that: a decoder takes memory in
//     proportion to the bytes there are.
//
// # Format
//
//	8 bytes   "fproute" and the version
//	…         source, time of writing (zigzag nanoseconds), number of records;
//	          of each record kind and content: varint length, then bytes
//	4 bytes   CRC-32C of everything before, big endian
package disk
