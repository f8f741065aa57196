//go:build linux

package e2e

import (
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	vipNode  = "198.51.100.1" // the cell's address
	vipRange = "10.96.0.0/16"
)

// vipDev runs the whole system inside, with pods, and virtual IPs in a mode.
func (c *cell) vipDev(t testing.TB, mode string) *celled {
	t.Helper()
	sys := layout(newSite(t), 1, t.TempDir())
	sys.child = start(t, "dev", c.enter(sys.fingerpost(t, "dev", "--data-dir", sys.data, "--listen", sys.listen, "--metrics-address", sys.obs,
		"--service-cidr", vipRange, "--dns-address", sys.dns, "--node-address", vipNode, "--proxy-mode", mode, "--log-level", "info")))
	if err := sys.waitFor("is ready"); err != nil {
		t.Fatal(err)
	}
	return &celled{sys, c}
}

// curl gives what an address says, "" if it cannot be reached.
func (c *cell) curl(t testing.TB, at string) string {
	t.Helper()
	return strings.TrimSpace(c.run(t, "curl", "-s", "-m", "20", "http://"+at).out)
}

// eventually asks until it is so.
func (c *cell) eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		c.run(t, "sleep", "0.1")
	}
}

func (s *celled) value(t testing.TB, path string, args ...string) string {
	t.Helper()
	return s.ctl(t, "", append(append([]string{"get"}, args...), "-o", "jsonpath="+path)...)
}

// Walkthroughs 6, 8, 9 and 10 with the kernel's virtual IPs.
func TestVIPWalkthroughs(t *testing.T) {
	for _, mode := range []string{"nftables", "iptables"} {
		t.Run(mode, func(t *testing.T) {
			for _, p := range []string{"curl", "iptables-save", "nft"} {
				if _, err := exec.LookPath(p); err != nil {
					t.Skipf("%s is not installed (hack/deps.sh installs it)", p)
				}
			}
			c := newCell(t, "nameserver 127.0.0.99\n", false)
			s := c.vipDev(t, mode)
			s.hostnames(t, mode)
			s.nodePort(t)
			s.external(t)
			s.balancer(t)
			if r := c.run(t, "nft", "list", "ruleset"); r.code != 0 {
				t.Errorf("nft list ruleset: %s", r.err)
			}
			if r := c.run(t, "iptables-save"); r.code != 0 {
				t.Errorf("iptables-save: %s", r.err)
			}
		})
	}
}

// hostnames is walkthrough 9.
func (s *celled) hostnames(t *testing.T, mode string) {
	s.ctl(t, "", "apply", "-f", abs(t, "testdata/walkthrough/hostnames.yaml"))
	s.ctl(t, "", "wait", "--for=condition=Available", "deployment/hostnames", "--timeout=120s")
	ip := s.value(t, "{.spec.clusterIP}", "service/hostnames")
	seen := map[string]int{}
	s.cell.eventually(t, "all three answer", func() bool {
		if name := s.cell.curl(t, ip); strings.HasPrefix(name, "hostnames-") {
			seen[name]++
		}
		return len(seen) == 3
	})
	if r := s.cli(t, "vip", "trace", ip+":80", "--metrics-address", s.obs); r.code != 0 || strings.Count(r.out, "33.3 %") != 3 || !strings.Contains(r.out, "mode "+mode) {
		t.Errorf("vip trace: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if mode != "iptables" {
		return
	}
	rules := s.cell.run(t, "iptables-save", "-t", "nat").out
	chain := regexp.MustCompile(`-A KUBE-SERVICES -d ` + regexp.QuoteMeta(ip) + `/32 .*-j (KUBE-SVC-\w+)`).FindStringSubmatch(rules)
	if chain == nil {
		t.Fatalf("no rule in KUBE-SERVICES for %s:\n%s", ip, rules)
	}
	var shares []string
	for _, m := range regexp.MustCompile(`-A `+chain[1]+` .*--mode random --probability (0\.\d{3})\d* -j KUBE-SEP-`).FindAllStringSubmatch(rules, -1) {
		shares = append(shares, m[1])
	}
	if !slices.Equal(shares, []string{"0.333", "0.500"}) {
		t.Errorf("probabilities %v, want 0.333 and 0.500:\n%s", shares, rules)
	}
	if n := len(regexp.MustCompile(`-A KUBE-SEP-\w+ .*-j DNAT --to-destination [0-9.]+:9376`).FindAllString(rules, -1)); n != 3 {
		t.Errorf("%d rules translate to port 9376, want 3:\n%s", n, rules)
	}
	if r := s.cli(t, "vip", "show", "hostnames", "--metrics-address", s.obs); r.code != 0 || !strings.Contains(r.out, " hits") {
		t.Errorf("vip show: exit %d\n%s%s", r.code, r.out, r.err)
	}
}

// nodePort is walkthrough 8.
func (s *celled) nodePort(t *testing.T) {
	s.ctl(t, "", "create", "namespace", "love-test")
	s.ctl(t, "", "apply", "-f", abs(t, "testdata/walkthrough/nodeport.yaml"))
	s.ctl(t, "", "-n", "love-test", "create", "deployment", "nginx", "--image=nginx")
	s.ctl(t, "", "-n", "love-test", "patch", "service", "nginx-service", "-p", `{"spec":{"selector":{"app":"nginx"}}}`)
	s.ctl(t, "", "-n", "love-test", "wait", "--for=condition=Available", "deployment/nginx", "--timeout=120s")
	ip := s.value(t, "{.spec.clusterIP}", "-n", "love-test", "service/nginx-service")
	for _, at := range []string{vipNode + ":31234", ip + ":8080"} {
		s.cell.eventually(t, "an answer at "+at, func() bool { return s.cell.curl(t, at) != "" })
	}
	s.ctl(t, "", "-n", "love-test", "expose", "deployment", "nginx", "--name", "any", "--type", "NodePort", "--port", "80")
	port := s.value(t, "{.spec.ports[0].nodePort}", "-n", "love-test", "service/any")
	s.cell.eventually(t, "an answer at the node port "+port, func() bool { return s.cell.curl(t, vipNode+":"+port) != "" })
}

// external is walkthrough 6.
func (s *celled) external(t *testing.T) {
	s.ctl(t, "", "apply", "-f", abs(t, "testdata/walkthrough/external-service.yaml"))
	ip := s.value(t, "{.spec.clusterIP}", "service/external-service")
	s.cell.eventually(t, "both addresses behind the ClusterIP", func() bool {
		r := s.cli(t, "vip", "trace", netip.AddrPortFrom(netip.MustParseAddr(ip), 80).String(), "--metrics-address", s.obs)
		return strings.Contains(r.out, "-> 1.1.1.1:80") && strings.Contains(r.out, "-> 2.2.2.2:80")
	})
}

// balancer is walkthrough 10.
func (s *celled) balancer(t *testing.T) {
	s.ctl(t, "", "expose", "deployment", "hostnames", "--name", "lb", "--type", "LoadBalancer", "--port", "80", "--target-port", "9376")
	s.cell.eventually(t, "an event that says how to make a pool", func() bool {
		return strings.Contains(s.ctl(t, "", "describe", "service", "lb"), `"kind":"AddressPool"`)
	})
	s.ctl(t, `{"apiVersion":"fingerpost.dev/v1alpha1","kind":"AddressPool","metadata":{"name":"default"},"spec":{"addresses":["192.0.2.10-192.0.2.20"]}}`, "apply", "-f", "-")
	s.cell.eventually(t, "an address in the status, answering", func() bool {
		at := s.value(t, "{.status.loadBalancer.ingress[0].ip}", "service/lb")
		return at == "192.0.2.10" && strings.HasPrefix(s.cell.curl(t, at), "hostnames-")
	})
	s.cell.eventually(t, "the pool says that one address of eleven is used", func() bool {
		return s.value(t, "{.status.used}/{.status.total}", "addresspool/default") == "1/11"
	})
	s.cell.eventually(t, "the address on a device", func() bool {
		return strings.Contains(s.cell.run(t, "ip", "addr").out, "192.0.2.10/32")
	})
	s.ctl(t, "", "delete", "service", "lb")
	s.cell.eventually(t, "the address off the device", func() bool {
		return !strings.Contains(s.cell.run(t, "ip", "addr").out, "192.0.2.10")
	})
}
