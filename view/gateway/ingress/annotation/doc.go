// Package annotation reads the annotations of ingress-nginx: one table of what is
// known ([All]), and what their values mean ([Annotation].Apply, into a [Reading]).
// It knows nothing of Kubernetes, so that it can be fuzzed by itself.
//
// # Guarantees
//
//   - A value that is not understood changes nothing, but where the default would
//     let in more: then it lets in nobody (origins of CORS).
//   - No value brings a control character into a Reading, or makes its reader slow:
//     regular expressions are RE2.
package annotation
