// Package prober asks containers whether they have started, live and are ready,
// with the rules of Kubernetes' probes.
//
// # Guarantees
//
//   - Liveness and readiness are not asked before the startup probe has passed.
//   - A probe begins initialDelaySeconds after the start of the container and
//     again periodSeconds after it last began, never before it has ended.
//   - Within the first period a readiness or startup probe over the network
//     that fails is asked again after 50 ms, 100 ms …, and these failures do
//     not count and are not told: a container that listens after 80 ms need not
//     wait for a second round.
//   - A waiting probe costs at most a timer, no goroutine.
//   - In [Rounds], after the first of its questions, a probe is asked together
//     with all that are due within 50 ms; a period is kept to the point. An HTTP
//     or TCP probe to an address is a [Quick] question then: five calls to the
//     kernel and no goroutine, unless the answer takes longer than 15 ms.
//   - An answer of which 64 KiB say nothing is none.
//   - After Stop, at most a report that had begun is still running.
//
// Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
package prober
