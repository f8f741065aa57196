// Package h1 turns the bytes of HTTP/1.0 and HTTP/1.1 (RFC 9112) into the
// structs of package http and back. It reads and writes nothing itself: who
// owns the connection owns the buffers.
//
// # Guarantees
//
//   - A head is either complete and right, or refused, or not there yet. Two
//     readers of the same bytes cannot disagree about where a message ends:
//     what RFC 9112 lets a recipient repair is refused in requests.
//   - Nothing is copied and no input is modified: slices in a message point into
//     the bytes that were parsed. Exceptions: the trailers of Chunks are its own
//     copy, and so is the path of a target such as http://host?query.
//   - Parsing does not allocate, but for errors, a list of fields that outgrows
//     its capacity, trailers and the said path.
//   - The time to parse is linear in the length of the head.
//
// # Decisions, where the RFC leaves a choice
//
// Requests:
//
//   - Lines end in CRLF. A bare LF or CR is refused, also in chunked bodies (RFC
//     9112, 2.2 and 7.1). Up to four empty lines before a request are skipped.
//   - Line folding, space before the colon, control characters and NUL in values
//     are refused (5.1, 5.2; RFC 9110, 5.5). Bytes from 0x80 are passed in values.
//   - Transfer-Encoding is "chunked" alone and once, and only in HTTP/1.1;
//     with Content-Length it is refused (6.1, 6.3). Another coding: 501.
//   - Content-Length is digits, at most 18, and once. Equal repetitions, which 6.3
//     lets pass, are refused.
//   - Targets are visible ASCII without "#"; the rest must come percent-encoded, as
//     Envoy demands (nginx passes bytes from 0x80). The characters <>"{}|\^` are
//     passed as all proxies do. In the path, "%" needs two hex digits, and %00 is
//     refused, as nginx does. Dot segments are the router's business.
//   - A host is letters, digits, "-", ".", "_" and "~", or an IP literal in
//     brackets, with an optional port. The rest of RFC 3986's reg-name names no host.
//   - HTTP/1.1 needs one Host that is not empty. If the target has an authority,
//     Host must be the same but for case and the default port; nginx takes that of
//     the target instead (3.2.2), but whoever looked at Host before us decided
//     about another host.
//   - CONNECT has no body: what follows its head is for the tunnel (RFC 9110, 9.3.6).
//   - Versions are 1.0 and 1.1, others 505.
//   - Connection can name fields to be dropped only if they are not well known:
//     to name Host, Cookie, X-Forwarded-For and the like (any ID of package
//     http that does not govern the connection) has no effect, so that no client can
//     take from a request what a proxy before us added (RFC 9110, 7.6.1).
//   - Upgrade counts in HTTP/1.1 if Connection lists it. h2c is never passed on: an
//     endpoint that takes it would get requests that nobody checked.
//
// Responses (errors have status 502):
//
//   - Framing is as strict, but that equal Content-Lengths count as one, in one
//     line or several (RFC 9110, 8.6), as servers behind caches send them.
//   - The reason phrase is optional, and so is the space before it. Space before the
//     colon is removed (RFC 9112, 5.1), but of Content-Length and Transfer-Encoding
//     refused. Options of Connection that are no tokens are ignored. Folded lines
//     are refused, which 5.2 leaves open.
//   - 1xx, 204, 304 and answers to HEAD have no body. A 1xx that declares one is
//     refused; after a 204 that does, the connection is not used again. What a 2xx to
//     CONNECT declares is ignored (RFC 9110, 9.3.6).
//   - Without Content-Length and Transfer-Encoding a body lasts until the
//     connection closes.
//
// Chunked bodies: a size is 1 to 16 hex digits; extensions and trailers are bounded
// and checked, and extensions are dropped. Trailers that would frame, route or
// authorise a message are dropped (RFC 9110, 6.5.1).
package h1
