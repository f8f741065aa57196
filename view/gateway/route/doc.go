// Package route is what the gateway knows of where requests go: the model that
// sources (Ingress, later others) translate into, and the table that answers.
//
// # Guarantees
//
//   - A [Table] is immutable; [Table.With] makes another one that shares
//     everything untouched, and costs what changed.
//   - [Table.Match] takes no lock, and allocates only for regular expressions
//     with captures that are more than a text and one of the usual ends.
//   - The order of choice: the host as written, then the wildcard host with the
//     same parent, then the host "". The one that is found decides alone: what its
//     rules do not take goes to [Global].Default, not to a less exact host.
//     Within a host: Exact before anything, then regular expressions, then the
//     longest prefix; of the same path the rule with more conditions, then the
//     one that comes first in the host. A rule whose conditions do not hold makes
//     room for the next path.
//     Wildcards stand for exactly one label; prefixes match by whole elements;
//     regular expressions are tried by length of their text, longest first, and
//     are bound to the begin of the path, without regard to case.
//
// # Paths that can be read in more than one way
//
// What is matched is what the endpoint gets, or the request is refused; nobody
// gets around a rule by writing a path in another way.
//
//   - Escapes are compared by what they stand for: "/%61dmin" is "/admin". Only
//     an escaped slash stays different from a slash. Rules and requests are
//     brought into the same form, in which expressions see them too: everything that
//     RFC 3986 does not let stand for itself is escaped in upper case.
//   - "." and ".." elements, escaped or not, are resolved before the choice, and
//     the endpoint gets the resolved path. A path that leaves the root is
//     refused, and so are dot elements beside what different readers separate in
//     different ways ("//", "%2F", "\", "..;").
//   - Slashes at the begin are reduced to one, for the endpoint too.
//   - Empty elements further on, "%2F", "\" and ";parameters" are matched in
//     each way in which they can be read. If all lead to the same rule the path is sent
//     as it came. If not: with empty elements the path without them is matched
//     and sent, with the others the request is refused.
//   - Broken escapes, NUL, control characters and "#" are refused.
package route
