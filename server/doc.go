// Package server composes the parts into a running system. What runs, and in
// which order, is one readable list: see [System] and parts.go.
//
// Three compositions exist:
//
//	dev     store + API server + controllers + catalog + views, one process
//	server  store + API server + controllers
//	node    catalog + views, following the API server of a kubeconfig
//
// Parts start in order, each when the one before is ready, and stop in the
// opposite order, so that nothing loses what it stands on.
package server
