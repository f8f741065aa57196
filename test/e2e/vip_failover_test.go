//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestLoadBalancerFailover: when the node that announces an address is killed,
// the other one takes the address over, and never are there two.
func TestLoadBalancerFailover(t *testing.T) {
	t.Parallel()
	c := newPods(t, 2)
	ns := c.namespace(t, "failover")
	c.service(t, ns, "web", "web")
	manifest := `
apiVersion: fingerpost.dev/v1alpha1
kind: AddressPool
metadata: {name: lan}
spec: {addresses: [192.168.99.100-192.168.99.120]}
`
	for i := range 6 { // owners are spread over the nodes
		manifest += fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: lb-%d}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
`, i)
	}
	c.apply(t, ns, manifest)
	has := func(i int, ip string) bool {
		return strings.Contains(c.machines[i].sh(t, "ip -o -4 addr show"), " "+ip+"/32 ")
	}
	var moved, stay string // an address of the second node, and one of the first
	eventually(t, "both nodes announce addresses", func() error {
		list, err := c.client.CoreV1().Services(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		moved, stay = "", ""
		for _, s := range list.Items {
			if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
				continue
			}
			if len(s.Status.LoadBalancer.Ingress) == 0 {
				return fmt.Errorf("%s has no address", s.Name)
			}
			ip := s.Status.LoadBalancer.Ingress[0].IP
			switch first, second := has(0, ip), has(1, ip); {
			case first == second:
				return fmt.Errorf("%s is announced by the first node: %v, by the second: %v", ip, first, second)
			case first:
				stay = ip
			default:
				moved = ip
			}
		}
		return unless(moved != "" && stay != "", "all addresses are on one node")
	})
	// From the first machine the other's address is reached over the wire.
	c.machines[1].answers(t, "http://"+stay+"/", "web")
	if got := c.machines[1].sh(t, "ip neigh show "+stay+" dev eth0 || :"); strings.Contains(got, "FAILED") {
		t.Errorf("nobody answers for %s: %s", stay, got)
	}

	c.children[1].signal(syscall.SIGKILL)
	if err := pollFor(90*time.Second, func() error { return unless(has(0, moved), "%s is not on the first node", moved) }); err != nil {
		t.Fatal(err)
	}
	c.machines[0].answers(t, "http://"+moved+"/", "web")
	// The killed process could not take it away: the kernel does.
	eventually(t, "the address is off the second node", func() error { return unless(!has(1, moved), "%s is on both", moved) })
}
