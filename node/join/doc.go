// Package join makes a machine a node: it trades a bootstrap token for
// credentials of the node's own, and keeps them good.
//
// What is promised:
//
//   - The server is known before anything is sent to it: by the hash of its CA,
//     or by the CA itself. The token never goes to a server that is another one.
//   - Keys are made on this machine and never leave it. Certificate and key lie
//     in one file (mode 0600) that is replaced in one step.
//   - The token is used once. After that the node renews its certificates with
//     the ones it has, when two thirds of their life are over.
//   - A node that joined starts without its server: what cannot be renewed is
//     used as long as it is good, and asked for again.
//   - A certificate that serves is for the node's own name and addresses. It is
//     asked for again when the addresses change.
//   - Errors say what to do: a token that ended, another CA, a clock that is
//     wrong, a name that a live node has.
package join
