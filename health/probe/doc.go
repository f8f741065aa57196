// Package probe finds out whether things are alive by asking them: [HTTP],
// [TCP], [GRPC] and [Exec] each ask once; a [Runner] asks many targets again
// and again and tells when one's state changes.
//
// # Probers
//
// A [Prober] gives up when its context ends. Its output is one line of at most
// 200 characters, fit for a status field; what a target sends in an HTTP body
// is never in it, so that a check cannot be used to read what its owner may
// not. Probers use no proxy, keep no connection, and do not verify TLS
// certificates: a check is about life, not about identity.
//
// # Runner
//
//   - A new target is probed at once. When many come together, their first
//     probes are spread (by Rate), and later ones keep their distance.
//   - At most Concurrency probes run at a time. When that is too few, probes are
//     late but nobody is left out.
//   - The next probe of a target starts Interval after the start of the last
//     one, and never before the last one has ended.
//   - States have the hysteresis of health.Threshold: Starting, then Passing
//     after Rise successes or Failing after Fall failures in a row.
//   - OnChange is called for each change of state, one call at a time and in
//     order for each key. After Remove, at most a call that had begun is still
//     running; no other comes.
package probe
