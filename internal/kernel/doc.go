// Package kernel is the little that Fingerpost asks of the operating system
// beyond sockets: a range of addresses made local, the limit of open files,
// and questions about what this process may do.
//
// # Guarantees
//
//   - Everything compiles everywhere. What a system cannot do returns an error
//     wrapping [errors.ErrUnsupported] that says what to do instead.
//   - [AddLocalRange] and [RemoveLocalRange] may be repeated: the second call
//     changes nothing and succeeds. They touch only the one route that they
//     made, which carries the route protocol number 102 so that it can be told
//     from everybody else's (`ip route show table local proto 102`).
//   - A range that the machine already routes somewhere is refused, never
//     taken over.
//   - The route is not persistent: it is gone after a reboot, and it stays
//     after a crash, where the next start finds it.
package kernel
