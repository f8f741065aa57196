// Package filter is what the policy of a rule does to an exchange, before the
// request goes to an endpoint and before the response goes to the client.
//
// A [Set] holds what the filters of all rules share: what addresses are
// trusted, the counters of limits, passwords that were right, answers of
// authentication servers. [Set.Compile] turns a rule into a [Chain] once; the
// state in the Set survives a rule that is compiled anew.
//
// # Guarantees
//
//   - A Chain is immutable and may be used by any number of goroutines; an
//     [Exchange] belongs to one.
//   - A request of a rule with an empty policy costs no allocation and no lock
//     once the buffers of its Exchange have grown.
//   - Fields that the gateway sets are never those of a client: copies that came
//     in are removed, unless the connection comes from a trusted prefix.
//   - Nothing built here holds a line break, whatever the client sent, and no
//     client decides to which host it is redirected, but by its own Host.
//   - Memory is bounded: limits, passwords and cached answers live in tables of
//     fixed size, in which the new displaces the old.
//   - Slices in an Exchange or an Answer are valid until the next
//     [Set.Begin] with it.
//
// The order is that of nginx: client certificate, redirects, CORS preflight,
// limits, addresses, password, external authentication, choice of the canary
// and of the endpoint, rewriting, fields.
package filter
