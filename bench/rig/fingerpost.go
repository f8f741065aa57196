package rig

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// Fingerpost gives the start of 'fingerpost dev': API, store, controllers, DNS
// and virtual IPs in one process. The service range is a part of 127.0.0.0/8,
// so that no root is needed.
func Fingerpost(binary string, flags ...string) StartFunc {
	return func(ctx context.Context, dir string) (_ *Server, err error) {
		addrs, err := ports(3)
		if err != nil {
			return nil, err
		}
		const node = "bench"
		kubeconfig := filepath.Join(dir, "admin.kubeconfig")
		// One left by the run before names another port.
		if err := os.Remove(kubeconfig); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		began := time.Now()
		p, err := run(dir, binary, append([]string{"dev", "--no-pods", "--data-dir", dir, "--listen", addrs[0], "--dns-address", addrs[1],
			"--metrics-address", addrs[2], "--node-name", node, "--service-cidr", "127.112.0.0/16"}, flags...)...)
		if err != nil {
			return nil, err
		}
		s := &Server{Name: "fingerpost", DNS: addrs[1], Metrics: addrs[2], Node: node, procs: []*process{p}}
		defer func() {
			if err != nil {
				_ = s.Stop()
			}
		}()
		err = poll(ctx, func() bool {
			s.Rest, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
			return err == nil
		}, p)
		if err != nil {
			return nil, err
		}
		return s, s.waitReady(ctx, began)
	}
}
