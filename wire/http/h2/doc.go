// Package h2 turns bytes of HTTP/2 into structs and back: frames (RFC 9113)
// and the compression of fields (HPACK, RFC 7541). Connections, streams and
// flow control are the business of whoever owns the connection.
//
// # Guarantees
//
//   - Nothing is allocated, but for tables and arenas that grow to their bound
//     once.
//   - Every error is one of the variables of this package: it says by its code
//     what to tell the peer, and whether the connection or one stream ends.
//   - A head that was decoded is well-formed (RFC 9113, section 8): pseudo fields
//     come first, once and complete, names are in lower case, nothing in it
//     governs a connection, values hold no control characters. A block that is
//     not well-formed is decoded to its end all the same, so that the table of
//     the connection stays true.
//   - What a peer can make a decoder hold is bounded by the size of its table
//     and by Limits; a short block that refers to long entries again and again
//     costs no memory.
package h2
