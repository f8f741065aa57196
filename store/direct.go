package store

import (
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// newDirect makes the client that calls the embedded etcd without a socket: a
// write through it costs about half of one over gRPC, with all the same checks.
func newDirect(e *embed.Etcd) *kubernetes.Client {
	c := &kubernetes.Client{Client: v3client.New(e.Server)}
	c.Kubernetes = c
	return c
}

// Direct gives the client that calls the embedded etcd in this process, nil
// for an external one. It lives as long as the store and is not to be closed.
func (s *Store) Direct() *kubernetes.Client { return s.direct }
