// Package hostdns leads a machine's own resolving to a DNS server for the
// names of one zone, and takes that back.
//
// # Guarantees
//
//   - Nothing changes before it is known which program writes the resolver
//     configuration (Detect), what would change to the byte (a Plan), and that
//     the server answers.
//   - A way out stays: where every question goes through the server, the name
//     servers from before stay behind it.
//   - Apply either ends with the machine resolving what it resolved before and
//     the zone's names, or with every file as it was.
//   - What was changed is recorded before it is changed. Undo gives back the
//     bytes from before; where somebody else changed a file since, only our
//     lines go, and the caller is told.
//   - Install is idempotent: it starts from the file without our lines.
//
// The package decides and edits; it runs commands and asks name servers
// through functions that are passed in, and every path is below a root that is
// passed in, so that tests own them all.
package hostdns
