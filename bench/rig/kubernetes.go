package rig

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
)

// KubernetesServices is the range of the ClusterIPs of that server.
const KubernetesServices = "10.112.0.0/16"

// Kubernetes gives the start of kube-apiserver on an etcd of its own, both
// with their defaults, as kubeadm runs them: RBAC, a CA for clients, tokens of
// service accounts. There are no controllers and no kube-proxy beside them.
func Kubernetes(apiserver, etcd string) StartFunc {
	return func(ctx context.Context, dir string) (_ *Server, err error) {
		addrs, err := ports(3)
		if err != nil {
			return nil, err
		}
		in := func(name string) string { return filepath.Join(dir, name) }
		if _, err := os.Stat(in("ca.crt")); errors.Is(err, os.ErrNotExist) {
			if err := writePKI(dir); err != nil {
				return nil, err
			}
		}
		_, port, err := net.SplitHostPort(addrs[2])
		if err != nil {
			return nil, err
		}
		s := &Server{Name: "kube-apiserver + etcd", Etcd: addrs[0], Rest: &rest.Config{
			Host:            "https://" + addrs[2],
			TLSClientConfig: rest.TLSClientConfig{CAFile: in("ca.crt"), CertFile: in("admin.crt"), KeyFile: in("admin.key")},
		}}
		defer func() {
			if err != nil {
				_ = s.Stop()
			}
		}()
		began := time.Now()
		e, err := startEtcd(dir, etcd, addrs[0], addrs[1])
		if err != nil {
			return nil, err
		}
		s.procs = append(s.procs, e)
		// It waits for etcd by itself.
		k, err := run(dir, apiserver,
			"--etcd-servers=http://"+addrs[0], "--bind-address=127.0.0.1", "--secure-port="+port,
			"--service-cluster-ip-range="+KubernetesServices, "--endpoint-reconciler-type=none",
			"--authorization-mode=RBAC", "--client-ca-file="+in("ca.crt"),
			"--tls-cert-file="+in("serving.crt"), "--tls-private-key-file="+in("serving.key"),
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file="+in("sa.key"), "--service-account-signing-key-file="+in("sa.key"))
		if err != nil {
			return nil, err
		}
		s.procs = append(s.procs, k)
		return s, s.waitReady(ctx, began)
	}
}

// Etcd starts an etcd alone, and gives its address.
func Etcd(ctx context.Context, dir, etcd string) (*Server, string, error) {
	addrs, err := ports(2)
	if err != nil {
		return nil, "", err
	}
	p, err := startEtcd(dir, etcd, addrs[0], addrs[1])
	if err != nil {
		return nil, "", err
	}
	return &Server{Name: "etcd", procs: []*process{p}}, addrs[0], nil
}

func startEtcd(dir, etcd, client, peer string) (*process, error) {
	return run(dir, etcd, "--data-dir", filepath.Join(dir, "etcd"), "--log-level", "error",
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer)
}
