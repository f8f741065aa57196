// Package nodecert decides about the certificates of nodes and signs them.
//
// What is promised:
//
//   - A client certificate names a node ("system:node:NAME") and nothing else.
//     It is given to a joining token when no live node has that name, and to the
//     node of that name itself.
//   - A serving certificate is given to the node of its name only, for that name
//     and for addresses that no other Node has.
//   - A request that is refused says why. A request of anybody else for these
//     signers waits for a person; what a person approves is signed if its form
//     is that of a node's certificate.
//   - Requests of other signers are not touched.
//   - What is decided is removed after an hour, what is not after a day, and
//     joining tokens when they have ended.
package nodecert
