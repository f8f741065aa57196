package apiserver

import (
	"errors"
	"net/http"

	"k8s.io/apiserver/pkg/server/healthz"
	api "k8s.io/kubernetes/pkg/apis/core"
)

// allocatorCheck keeps the server from being ready before it can give out
// ClusterIPs.
func allocatorCheck(allocs map[api.IPFamily]*allocator) healthz.HealthChecker {
	return healthz.NamedCheck("clusterip-allocator", func(*http.Request) error {
		for _, a := range allocs {
			a.mu.Lock()
			known := len(a.ranges) > 0
			a.mu.Unlock()
			if !known || !a.ready() {
				return errors.New("the service ranges and the addresses in use are not known yet")
			}
		}
		return nil
	})
}
