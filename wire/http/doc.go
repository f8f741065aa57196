// Package http holds what the heads of HTTP messages have in common in all
// versions of the protocol (RFC 9110). Package h1 below it turns bytes of
// HTTP/1.1 into these structs and back, package h2 those of HTTP/2.
//
// # Guarantees
//
//   - Byte slices in a message point into buffers of whoever decoded it. They
//     are valid until that one says otherwise; nothing here copies.
//   - No function here allocates, but for a list of fields that outgrows its
//     capacity.
package http
