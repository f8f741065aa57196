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
//   - A waiting probe costs a timer, no goroutine.
//   - After Stop, at most a report that had begun is still running.
//
// Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
package prober
