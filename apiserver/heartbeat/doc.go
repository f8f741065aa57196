// Package heartbeat reads heartbeats off HTTP/1.1 connections.
//
// # Guarantees
//
//   - What [Head.Read] takes for a heartbeat is one for net/http too, with the
//     same target, body and credential, without anything else in it that would
//     change its meaning (a fuzz target holds the two against each other).
//   - Everything else is [Other]; the bytes are untouched, for net/http.
package heartbeat
