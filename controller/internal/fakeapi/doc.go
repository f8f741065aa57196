// Package fakeapi is a small Kubernetes API in memory for the tests of the
// controllers. It is an [net/http.RoundTripper], so the real clients and
// informers run on it without a network, also under testing/synctest.
//
// It has the semantics that controllers depend on: resource versions,
// conflicts, generateName, uids, watches from a resource version, merge
// patches, and a status subresource. It validates nothing.
package fakeapi
