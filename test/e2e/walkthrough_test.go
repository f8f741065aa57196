//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// serveAt runs the web program at an address.
func serveAt(t testing.TB, addr, name string) *child {
	t.Helper()
	c := start(t, "web-"+name, exec.Command(filepath.Join(tools.bin(t), "web"), "-listen", addr, "-name", name))
	eventually(t, name+" listens", func() error {
		code, body := fetch("http://" + addr + "/")
		return unless(code == 200, "%d %s", code, body)
	})
	return c
}

func node(t testing.TB) string {
	t.Helper()
	h, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return strings.ToLower(h)
}

// wantNames waits until exactly these answer.
func wantNames(t testing.TB, url string, want ...string) {
	t.Helper()
	eventually(t, url, func() error {
		got := names(url, 10*len(want)+5)
		ok := len(got) == len(want)
		for _, n := range want {
			ok = ok && got[n] > 0
		}
		return unless(ok, "answers of %v, want %v", got, want)
	})
}

// Walkthroughs 1 and 8: the manifests of a tutorial, with Instances where it
// has pods. Killing one removes it, a new one joins; then the Service becomes
// a NodePort.
func TestWalkthroughClusterIP(t *testing.T) {
	t.Parallel()
	needLowPorts(t)
	sys := common.system(t)
	const ns = "love-test" // the manifests name it
	sys.makeNamespace(t, ns)
	sys.must(t, "apply", "-f", abs(t, "testdata/walkthrough/nginx-service.yaml"))

	a, b, c := sys.site.ip(11, 1), sys.site.ip(11, 2), sys.site.ip(11, 3)
	first := start(t, "run-a", sys.fingerpost(t, "run", "-n", ns, "--name", "nginx-service", "--port", "80", "--address", a,
		"--restart", "never", "--", "web", "-listen", a+":80", "-name", "a"))
	serveAt(t, b+":80", "b")
	sys.apply(t, ns, instance(node(t), "nginx-b", "nginx-service", b, "app: nginx-rs-test", "=80"))
	ip := sys.clusterIP(t, ns, "nginx-service")
	wantNames(t, "http://"+ip+"/", "a", "b")

	if got := sys.must(t, "get", "svc", "-n", ns); !regexp.MustCompile(`(?m)^nginx-service +ClusterIP +` + regexp.QuoteMeta(ip) + ` +<none> +80/TCP `).MatchString(got) {
		t.Errorf("kubectl get svc:\n%s", got)
	}
	for _, shown := range [][]string{{"get", "endpoints", "-n", ns, "nginx-service"}, {"describe", "svc", "-n", ns, "nginx-service"}} {
		eventually(t, "kubectl "+shown[0], func() error {
			got := sys.must(t, shown...)
			return unless(strings.Contains(got, a+":80") && strings.Contains(got, b+":80"), "%s, want %s and %s", got, a, b)
		})
	}
	wantDNS(t, sys.dns, "nginx-service.love-test.svc.cluster.local", dns.TypeA, "A "+ip)

	first.kill() // takes its process with it
	wantNames(t, "http://"+ip+"/", "b")
	serveAt(t, c+":80", "c")
	sys.apply(t, ns, instance(node(t), "nginx-c", "nginx-service", c, "app: nginx-rs-test", "=80"))
	wantNames(t, "http://"+ip+"/", "b", "c")

	sys.must(t, "apply", "-f", abs(t, "testdata/walkthrough/nodeport.yaml"))
	if now := sys.clusterIP(t, ns, "nginx-service"); now != ip {
		t.Errorf("the ClusterIP changed from %s to %s with the type", ip, now)
	}
	wantNames(t, "http://"+sys.site.at(0, 1, 31234)+"/", "b", "c")
	wantNames(t, "http://"+ip+":8080/", "b", "c")
}

func abs(t testing.TB, path string) string {
	t.Helper()
	p, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Walkthrough 2: a named target port, with another number at each endpoint;
// and the same for UDP.
func TestWalkthroughNamedTargetPort(t *testing.T) {
	t.Parallel()
	sys, ns := common.namespace(t, "named")
	ip := sys.site.ip(12, 1)
	for name, port := range map[string]int{"eight": 8081, "nine": 9091} {
		serveAt(t, fmt.Sprintf("%s:%d", ip, port), name)
		start(t, "udp-"+name, exec.Command(filepath.Join(tools.bin(t), "udpecho"), "-listen", fmt.Sprintf("%s:%d", ip, port+1), "-name", name))
		// The names of ports are what is matched; "admin" is of no Service.
		sys.apply(t, ns, instance(node(t), name, "web", ip, "", fmt.Sprintf("web=%d", port), fmt.Sprintf("talk=%d/UDP", port+1), fmt.Sprintf("admin=%d", port+2)))
	}
	sys.apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports:
  - {name: http, port: 8000, targetPort: web}
  - {name: udp, port: 5353, targetPort: talk, protocol: UDP}
`)
	vip := sys.clusterIP(t, ns, "web")
	wantNames(t, "http://"+vip+":8000/", "eight", "nine")
	seen := map[string]bool{}
	eventually(t, "UDP answers of both", func() error {
		got, err := echo(vip+":5353", "hello")
		if name, text, _ := strings.Cut(got, " "); text == "hello" {
			seen[name] = true
		}
		return unless(seen["eight"] && seen["nine"], "%q %v", got, err)
	})
	wantDNS(t, sys.dns, "_http._tcp.web."+ns+".svc.cluster.local", dns.TypeSRV, "SRV 0 100 8000 web."+ns+".svc.cluster.local.")
	wantDNS(t, sys.dns, "_udp._udp.web."+ns+".svc.cluster.local", dns.TypeSRV, "SRV 0 100 5353 web."+ns+".svc.cluster.local.")
}

// Walkthrough 5: a headless Service has no virtual IP; its names are those of
// the endpoints.
func TestWalkthroughHeadless(t *testing.T) {
	t.Parallel()
	sys, ns := common.namespace(t, "headless")
	one, two := sys.site.ip(13, 1), sys.site.ip(13, 2)
	sys.apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  ports: [{name: sql, port: 5432}]
---
`+instance(node(t), "db-0", "db", one, "", "sql=5432")+instance(node(t), "db-1", "db", two, "", "sql=5432"))
	zone := "db." + ns + ".svc.cluster.local"
	wantDNS(t, sys.dns, zone, dns.TypeA, "A "+one, "A "+two)
	wantDNS(t, sys.dns, "db-0."+zone, dns.TypeA, "A "+one)
	wantDNS(t, sys.dns, "_sql._tcp."+zone, dns.TypeSRV, "SRV 0 50 5432 db-0."+zone+".", "SRV 0 50 5432 db-1."+zone+".")
	if rcode, data, _, err := lookup(sys.dns, zone, dns.TypeAAAA); rcode != "NOERROR" || len(data) != 0 || err != nil {
		t.Errorf("AAAA: %s %v %v, want no data", rcode, data, err)
	}
	if rcode, _, _, err := lookup(sys.dns, "nobody."+ns+".svc.cluster.local", dns.TypeA); rcode != "NXDOMAIN" || err != nil {
		t.Errorf("a name that does not exist: %s %v", rcode, err)
	}
	_, _, extra, err := lookup(sys.dns, "_sql._tcp."+zone, dns.TypeSRV)
	if err != nil || len(extra) < 3 { // two addresses and EDNS
		t.Errorf("SRV brings no addresses: %v %v", extra, err)
	}
	sys.must(t, "delete", "instance", "db-0", "-n", ns)
	wantDNS(t, sys.dns, zone, dns.TypeA, "A "+two)

	t.Run("dig", func(t *testing.T) {
		if got := dig(t, sys.dns, "+short", zone); got != two {
			t.Errorf("dig A: %s", got)
		}
		if got := dig(t, sys.dns, "+short", "+tcp", "SRV", "_sql._tcp."+zone); got != "0 100 5432 db-1."+zone+"." {
			t.Errorf("dig SRV: %s", got)
		}
		if got := dig(t, sys.dns, "+short", "-x", two); got != "db-1."+zone+"." {
			t.Errorf("dig -x: %s", got)
		}
	})
}

// Walkthroughs 6 and 7: a Service without selector with Endpoints made by
// hand, and an alias for a name elsewhere.
func TestWalkthroughExternal(t *testing.T) {
	t.Parallel()
	sys, ns := common.namespace(t, "external")
	sys.must(t, "apply", "-n", ns, "-f", abs(t, "testdata/walkthrough/external-service.yaml"))
	eventually(t, "mirrored slices", func() error {
		got := sys.must(t, "get", "endpointslices", "-n", ns, "-l", "kubernetes.io/service-name=external-service",
			"-o", `jsonpath={.items[*].metadata.labels.endpointslice\.kubernetes\.io/managed-by} {.items[*].endpoints[*].addresses[0]} {.items[*].ports[0].port}`)
		return unless(got == "endpointslicemirroring-controller.k8s.io 1.1.1.1 2.2.2.2 80", "%q", got)
	})
	wantDNS(t, sys.dns, "external-name."+ns+".svc.cluster.local", dns.TypeCNAME, "CNAME my.database.example.com.")
	eventually(t, "fingerpost explain", func() error {
		r := finish(t, sys.fingerpost(t, "explain", "external-service", "-n", ns))
		return unless(strings.Contains(r.out, "1.1.1.1") && strings.Contains(r.out, "2.2.2.2"), "exit %d\n%s%s", r.code, r.out, r.err)
	})
	// The addresses of the manifest are of somebody else: what is called is
	// the same with addresses that answer here. Endpoints may not hold loopback
	// addresses, as in Kubernetes, so it takes an address of this machine.
	ip, port := machineAddress(t), strconv.Itoa(20000+sys.site.n) // below those that the kernel gives
	serveAt(t, ip+":"+port, "outside")
	sys.apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: outside}
spec:
  ports: [{port: 8000}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside}
subsets:
- addresses: [{ip: %s}]
  ports: [{port: %s}]
`, ip, port))
	wantNames(t, "http://"+sys.clusterIP(t, ns, "outside")+":8000/", "outside")
}
