//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// proxyNode runs the service proxy alone inside a cell, after a server.
func (s *celled) proxyNode(t testing.TB, mode string) *child {
	t.Helper()
	p := start(t, "proxy-node", s.cell.enter(s.fingerpost(t, "proxy-node", "--kubeconfig", s.kubeconfig(), "--node-name", "n1", "--proxy-mode", mode)))
	if err := p.waitFor("is ready"); err != nil {
		t.Fatal(err)
	}
	return p
}

// echo answers lines with who it is, inside, until the test ends.
func (c *cell) echo(t testing.TB, at, who string) {
	t.Helper()
	var l net.Listener
	if err := c.within(func() (err error) { l, err = net.Listen("tcp4", at); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if _, err := fmt.Fprintln(conn, who, lines.Text()); err != nil {
						return
					}
				}
			}()
		}
	}()
}

func (c *cell) dial(at string, most time.Duration) (conn net.Conn, err error) {
	err = c.within(func() error {
		conn, err = net.DialTimeout("tcp4", at, most)
		return err
	})
	return conn, err
}

func echoed(conn net.Conn, word string) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(conn, word); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

const proxyNodeWorld = `{"apiVersion":"v1","kind":"List","items":[
{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}},
{"apiVersion":"v1","kind":"Service","metadata":{"name":"echo"},"spec":{"clusterIP":"10.96.0.50","ports":[{"port":80,"targetPort":8080}]}},
{"apiVersion":"v1","kind":"Service","metadata":{"name":"other","labels":{"service.kubernetes.io/service-proxy-name":"x"}},"spec":{"clusterIP":"10.96.0.51","ports":[{"port":80,"targetPort":8080}]}},
{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"echo"},"subsets":[{"addresses":[{"ip":"198.51.100.1"}],"ports":[{"port":8080}]}]}]}`

// TestVIPProxyNode: in the place of kube-proxy; every switch of the mode leaves
// connections alone and nothing of the mode before.
func TestVIPProxyNode(t *testing.T) {
	for _, p := range []string{"curl", "iptables-save", "nft"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (hack/deps.sh installs it)", p)
		}
	}
	c := newCell(t, "nameserver 127.0.0.99\n", false)
	sys := layout(newSite(t), 1, t.TempDir())
	sys.child = start(t, "server", c.enter(sys.fingerpost(t, "server", "--data-dir", sys.data, "--listen", sys.listen, "--metrics-address", sys.obs, "--service-cidr", vipRange)))
	if err := sys.waitFor("is ready"); err != nil {
		t.Fatal(err)
	}
	s := &celled{sys, c}
	s.ctl(t, proxyNodeWorld, "apply", "-f", "-")
	c.echo(t, vipNode+":8080", "me")

	// What a kube-proxy in nftables mode leaves must not stay.
	if r := c.run(t, "nft", "add table ip kube-proxy"); r.code != 0 {
		t.Fatal(r.err)
	}
	p := s.proxyNode(t, "nftables")
	c.eventually(t, "kube-proxy's table is gone", func() bool { return !strings.Contains(c.run(t, "nft", "list", "tables").out, "kube-proxy") })
	var held net.Conn
	c.eventually(t, "a connection", func() (ok bool) {
		var err error
		held, err = c.dial("10.96.0.50:80", 5*time.Second)
		return err == nil
	})
	defer held.Close()
	for _, mode := range []string{"iptables", "nftables"} {
		p.stop()
		if got, err := echoed(held, "between"); got != "me between" {
			t.Errorf("with no proxy running, before %s: %q, %v", mode, got, err)
		}
		if conn, err := c.dial("10.96.0.50:80", patience); err != nil {
			t.Errorf("a new connection with no proxy running: %v", err)
		} else {
			conn.Close()
		}
		p = s.proxyNode(t, mode)
		c.eventually(t, "rules of "+mode+" alone", func() bool {
			nft := strings.Contains(c.run(t, "nft", "list", "tables").out, "fingerpost")
			ipt := strings.Contains(c.run(t, "iptables-save").out, "KUBE-SVC-")
			return nft == (mode == "nftables") && ipt == (mode == "iptables")
		})
		if got, err := echoed(held, mode); got != "me "+mode {
			t.Errorf("the connection after the switch to %s: %q, %v", mode, got, err)
		}
		if conn, err := c.dial("10.96.0.50:80", patience); err != nil {
			t.Errorf("a new connection in mode %s: %v", mode, err)
		} else {
			conn.Close()
		}
		if conn, err := c.dial("10.96.0.51:80", 2*time.Second); err == nil {
			conn.Close()
			t.Error("a service of another proxy is served")
		}
		if got := c.run(t, "curl", "-s", "http://127.0.0.1:10249/proxyMode").out; got != mode {
			t.Errorf("/proxyMode says %q", got)
		}
	}
	health := c.run(t, "curl", "-s", "-w", "%{http_code}", "http://127.0.0.1:10256/healthz").out
	for _, want := range []string{`"lastUpdated":`, `"currentTime":`, `"nodeEligible":true`, `"healthy":true`, `"IPv4":`, "200"} {
		if !strings.Contains(health, want) {
			t.Errorf("/healthz lacks %s: %s", want, health)
		}
	}
	s.ctl(t, "", "taint", "node", "n1", "ToBeDeletedByClusterAutoscaler=x:NoSchedule")
	c.eventually(t, "503 for a node that is to be removed", func() bool {
		return strings.HasSuffix(c.run(t, "curl", "-s", "-w", "%{http_code}", "http://127.0.0.1:10256/healthz").out, "503")
	})
	if got := c.run(t, "curl", "-s", "-w", "%{http_code}", "http://127.0.0.1:10256/livez").out; !strings.HasSuffix(got, "200") {
		t.Errorf("/livez: %s", got)
	}
	metrics := c.run(t, "curl", "-s", "http://127.0.0.1:10249/metrics").out
	for _, name := range []string{
		"kubeproxy_sync_proxy_rules_duration_seconds_count", "kubeproxy_network_programming_duration_seconds_count", "kubeproxy_sync_proxy_rules_service_changes_total",
		"kubeproxy_sync_proxy_rules_endpoint_changes_total", "kubeproxy_sync_proxy_rules_last_timestamp_seconds", `kubeproxy_proxy_healthz_total{code="503"}`,
	} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	p.stop()
	if r := finish(t, c.enter(s.fingerpost(t, "proxy-node", "--cleanup"))); r.code != 0 {
		t.Errorf("--cleanup: %s", r.err)
	}
	if left := c.run(t, "nft", "list", "tables").out + c.run(t, "iptables-save").out; strings.Contains(left, "fingerpost") || strings.Contains(left, "KUBE-") {
		t.Errorf("--cleanup left\n%s", left)
	}
}
