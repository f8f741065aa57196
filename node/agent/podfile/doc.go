// Package podfile writes the files that tell a pod who and where it is:
// /etc/hosts, /etc/hostname and /etc/resolv.conf. Its functions are pure.
//
// # Guarantees
//
//   - The content is what a kubelet writes for the same pod, comments aside.
//   - resolv.conf keeps the limits that Kubernetes states: 3 name servers, 32
//     search domains of 2048 characters together. What is cut off is told.
//
// Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
package podfile
