// Package cert is TLS towards the gateway's clients: which certificate is shown
// for which name, what is asked of clients, and sessions that outlive both.
//
// # Guarantees
//
//   - A certificate is found without a lock: that of the name as written, then
//     the wildcard with the same parent (one label), then the default one. Of several
//     for one name those that are valid now and that the client can check come
//     first, then those with elliptic curves (cheaper to show), then the one that
//     expires last.
//   - Replacing certificates touches no connection, and sessions go on: the
//     keys of tickets belong to the process, and rotate in time, not with
//     certificates. A session is not resumed under another rule for client
//     certificates than that under which it began.
//   - A missing or wrong client certificate never breaks the handshake: what is wrong
//     is in [stream.Identity], for an answer that people can read.
//   - A handshake makes no [tls.Config]: there is one for each rule for client
//     certificates, and one for all hosts that have none.
//   - TLS 1.2 and 1.3 only, unless told otherwise.
//
// # What a handshake costs
//
// CPU of client and server together on one core, crypto/tls at both ends: 580 µs
// with an ECDSA P-256 certificate, 1,460 µs with RSA 2048, 530 µs with a resumed
// session. 220 to 260 µs of each are the hybrid key exchange with ML-KEM, which is
// used when the client offers it (crypto/tls and browsers do); with X25519 alone they
// are 400, 1,240 and 265 µs. The choice among 10,000 names is 0.06 µs of it, and
// allocates nothing. So: use ECDSA, and leave ML-KEM out ([Config].Curves) only
// where recorded traffic need not stay secret.
package cert
