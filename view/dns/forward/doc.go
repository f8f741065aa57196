// Package forward asks other name servers about names that this server does
// not know, and remembers what they said.
//
// What it promises:
//
//   - Cached neither blocks nor allocates: a hit is a look-up without a lock
//     and one copy. Readers never wait for writers.
//   - The longest zone that holds a name decides whom to ask. An upstream that
//     is silent costs Config.Hedge, not the whole time-out: the next one is
//     asked beside it and the first good answer wins. An upstream that failed
//     several times is asked only by a probe in the background until it answers
//     again; when all are down they are asked all the same.
//   - Equal questions that wait at the same time cost one question upstream.
//     The number of questions under way and of those who wait is bounded; more
//     get ErrBusy.
//   - The cache is bounded in bytes. Names that are asked for once pass through
//     a tenth of it, so that a flood of random names leaves the rest alone.
//   - Only what the question asked for is cached: positive answers for their
//     TTL, negative ones by RFC 2308, failures for a second (RFC 9520);
//     truncated answers, ANY and classes other than IN never. DO and CD are
//     part of the key. A client's EDNS options are not sent on, so that no
//     answer is for one subnet only.
//   - If upstreams fail, answers that are out of date go on being given for
//     Config.StaleFor, with a TTL of 30 s (RFC 8767).
//   - Bytes of upstreams are not trusted: by UDP the port, the number and the
//     case of the question are random and must come back (RFC 5452), every
//     answer is unpacked and packed anew before anybody gets it.
//   - An upstream that sends questions back to this server is found by a probe
//     (see Loop) and left alone. Until then a question that comes back joins
//     itself, waits and fails: it cannot multiply.
//
// An answer takes its TTLs, its rotation and its question's case from the
// moment it is given; AA is never set.
package forward
