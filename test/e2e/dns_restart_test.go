//go:build linux

package e2e

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestRestartWithoutServer: a node that starts while the server is away
// answers from its last state, says SERVFAIL to what it does not know, and is
// brought up to date when the server is back.
func TestRestartWithoutServer(t *testing.T) {
	t.Parallel()
	sys := layout(newSite(t), 1, t.TempDir()).launch(t, "server")
	sys.makeNamespace(t, "again")
	external := func(name, target string) {
		sys.must(t, "create", "service", "externalname", name, "-n", "again", "--external-name="+target)
	}
	external("same", "same.example.com")
	external("gone", "gone.example.com")
	n := layout(sys.site, 2, t.TempDir())
	state := filepath.Join(n.data, "state")
	n.data = sys.data // for the kubeconfig
	dot, config := strings.TrimSuffix(n.dns, ":8053")+":8853", filepath.Join(t.TempDir(), "dns.yaml")
	write := func(text string) { // whole: half a file is one too
		err := os.WriteFile(config+".new", []byte(text), 0o600)
		if err == nil {
			err = os.Rename(config+".new", config)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("dns:\n  records: [192.0.2.7 printer.example]\n")
	launch := func() {
		n.child = start(t, "node", n.fingerpost(t, "node", "--kubeconfig", sys.kubeconfig(), "--dns-address", n.dns, "--metrics-address", n.obs,
			"--node-address", strings.TrimSuffix(n.dns, ":8053"), "--service-cidr", sys.site.cidr(), "--state-dir", state,
			"--dns-tls-address", dot, "--dns-query-log", "errors", "--config", config, "--dns-lameduck", "8s"))
		if err := n.waitFor("is ready"); err != nil {
			t.Fatal(err)
		}
	}
	wantCNAME := func(name, target string) {
		t.Helper()
		wantDNS(t, n.dns, name+".again.svc.cluster.local", dns.TypeCNAME, "CNAME "+target+".")
	}
	wantRcode := func(name, want string) {
		t.Helper()
		eventually(t, name+" is "+want, func() error {
			rcode, _, _, err := lookup(n.dns, name+".again.svc.cluster.local", dns.TypeCNAME)
			if err != nil {
				return err
			}
			return unless(rcode == want, "%s", rcode)
		})
	}
	launch()
	wantCNAME("same", "same.example.com")
	wantCNAME("gone", "gone.example.com")
	wantRcode("new", "NXDOMAIN")

	// The configuration is taken when it changes, not when it makes no sense.
	wantDNS(t, n.dns, "printer.example", dns.TypeA, "A 192.0.2.7")
	write("dns:\n  ttl: never\n")
	eventually(t, "the log says what is wrong", func() error {
		return unless(strings.Contains(n.text(), `line 2: dns.ttl`), "%s", tail(n.text(), 5))
	})
	wantDNS(t, n.dns, "printer.example", dns.TypeA, "A 192.0.2.7")
	write("dns:\n  records: [192.0.2.8 printer.example]\n")
	wantDNS(t, n.dns, "printer.example", dns.TypeA, "A 192.0.2.8")

	taken := func() int { return strings.Count(n.text(), "configuration was taken") }
	before := taken()
	n.signal(syscall.SIGHUP)
	eventually(t, "SIGHUP makes it read the file again", func() error { return unless(taken() > before, "it was taken %d times", before) })

	// DNS over TLS, with a certificate of the node's own.
	c := dns.Client{Net: "tcp-tls", Timeout: patience, TLSConfig: &tls.Config{InsecureSkipVerify: true}}
	if r, _, err := c.Exchange(new(dns.Msg).SetQuestion("same.again.svc.cluster.local.", dns.TypeCNAME), dot); err != nil || len(r.Answer) != 1 {
		t.Errorf("DNS over TLS: %v %v", r, err)
	}

	// Told to stop, it says that it is not ready, and goes on answering.
	n.signal(syscall.SIGTERM)
	eventually(t, "/readyz says no", func() error {
		code, body := fetch("http://" + n.obs + "/readyz")
		return unless(code == http.StatusServiceUnavailable && strings.Contains(body, "stopping"), "%d %s", code, body)
	})
	if rcode, got, _, err := lookup(n.dns, "same.again.svc.cluster.local", dns.TypeCNAME); err != nil || rcode != "NOERROR" || !slices.Contains(got, "CNAME same.example.com.") {
		t.Errorf("a lame duck: %s %q %v", rcode, got, err)
	}
	eventually(t, "it ends", func() error { return unless(n.ended(), "it runs") })

	// The world changes while nobody looks, and then the server is gone too.
	sys.must(t, "delete", "service", "gone", "-n", "again")
	external("new", "new.example.com")
	sys.kill()
	began := time.Now()
	launch()
	took := time.Since(began)
	wantCNAME("same", "same.example.com")
	wantCNAME("gone", "gone.example.com")
	wantRcode("new", "SERVFAIL")
	if code, body := fetch("http://" + n.obs + "/readyz"); code != http.StatusOK || !strings.Contains(body, "stale since") {
		t.Errorf("/readyz: %d %s", code, body)
	}

	sys.launch(t, "server")
	wantCNAME("new", "new.example.com")
	wantRcode("gone", "NXDOMAIN")
	wantCNAME("same", "same.example.com")
	wantRcode("never", "NXDOMAIN")
	eventually(t, "the query log has the SERVFAIL", func() error {
		text := n.text()
		return unless(strings.Contains(text, "never.again") || strings.Contains(text, `new.again.svc.cluster.local. udp`), "%s", tail(text, 20))
	})
	t.Logf("a node was up without its server after %v", took.Round(10*time.Millisecond))
}
