//go:build linux

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const (
	outsideServer = "127.0.0.99"
	hostResolv    = "# the machine's own\nnameserver " + outsideServer + "\noptions timeout:9 attempts:3\n"
	insideName    = "kubernetes.default.svc.cluster.local"
)

// The way of plain resolv.conf on a real one: names of the cluster resolve,
// others go on, a killed server leaves the fallback, and every byte comes back.
func TestDNSInstall(t *testing.T) {
	t.Parallel()
	c := newCell(t, hostResolv, false)
	c.nameserver(t, outsideServer+":53", upstream)
	if got := c.getent(t, "example.com"); got != "192.0.2.80" {
		t.Fatalf("the cell's own name server: %q", got)
	}
	r := finish(t, c.enter(layout(newSite(t), 1, t.TempDir()).fingerpost(t, "dns", "install")))
	if r.code != 4 || c.read(t, "/etc/resolv.conf") != hostResolv || !strings.Contains(r.err, "--dns-address 127.0.0.54:53") {
		t.Errorf("without a server: exit %d\n%s%s", r.code, r.out, r.err)
	}
	sys := c.dev(t, "--dns-address", "127.0.0.54:53")
	vip := sys.site.cidr()[:strings.LastIndex(sys.site.cidr(), ".")] + ".1"

	if r := sys.cli(t, "dns", "status"); r.code != 5 || !strings.Contains(r.out, "do not get there") {
		t.Errorf("status before: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r := sys.cli(t, "dns", "install", "--dry-run"); r.code != 0 || !strings.Contains(r.out, "+nameserver 127.0.0.54\n") || c.read(t, "/etc/resolv.conf") != hostResolv {
		t.Errorf("dry run: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r := sys.cli(t, "dns", "install", "--address", sys.dns); r.code != 1 || !strings.Contains(r.err, "port is always 53") {
		t.Errorf("another port: exit %d\n%s%s", r.code, r.out, r.err)
	}
	for range 2 { // the second changes nothing
		if r := sys.cli(t, "dns", "install", "--search", "default"); r.code != 0 {
			t.Fatalf("install: exit %d\n%s%s", r.code, r.out, r.err)
		}
		for name, want := range map[string]string{insideName: vip, "kubernetes": vip, "kubernetes.default": vip, "example.com": "192.0.2.80", "nobody.default": ""} {
			if got := c.getent(t, name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
	r = sys.cli(t, "dns", "status", "-o", "json")
	var s struct {
		Reached   bool
		Upstreams []string
		Installed struct{ Method string }
		Health    struct{ Answers, Forwards bool }
	}
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || r.code != 0 || !s.Reached || !s.Health.Forwards || s.Installed.Method != "resolv.conf" || strings.Join(s.Upstreams, " ") != outsideServer {
		t.Errorf("status: exit %d %v\n%s%s", r.code, err, r.out, r.err)
	}

	sys.kill()
	if got := c.getent(t, "example.com"); got != "192.0.2.80" {
		t.Errorf("with the server killed example.com is %q", got)
	}
	if r := sys.cli(t, "dns", "status"); r.code != 4 {
		t.Errorf("status of a dead server: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r := sys.cli(t, "dns", "uninstall"); r.code != 0 || c.read(t, "/etc/resolv.conf") != hostResolv {
		t.Errorf("uninstall: exit %d\n%s%s\n%s", r.code, r.out, r.err, c.read(t, "/etc/resolv.conf"))
	}
	if got := c.getent(t, "example.com"); got != "192.0.2.80" {
		t.Errorf("after the uninstall example.com is %q", got)
	}
	if r := sys.cli(t, "dns", "uninstall"); r.code != 0 || !strings.Contains(r.out, "Nothing is installed") {
		t.Errorf("a second uninstall: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r := c.run(t, "ls", "/var/lib"); strings.Contains(r.out, "fingerpost-dns") {
		t.Errorf("left in /var/lib: %s", r.out)
	}
}

// A server that says the right thing to us and nothing to programs (they send
// no EDNS): everything is put back. So is it when it would take away names
// that resolved before.
func TestDNSInstallRollsBack(t *testing.T) {
	t.Parallel()
	c := newCell(t, hostResolv, true)
	c.nameserver(t, outsideServer+":53", upstream)
	c.nameserver(t, "127.0.0.60:53", func(q *dns.Msg) *dns.Msg { return pretend(q, q.IsEdns0() != nil, true) })
	c.nameserver(t, "127.0.0.61:53", func(q *dns.Msg) *dns.Msg { return pretend(q, true, false) })
	fp := layout(newSite(t), 1, t.TempDir())
	install := func(more ...string) result {
		return finish(t, c.enter(fp.fingerpost(t, append([]string{"dns", "install"}, more...)...)))
	}
	for addr, want := range map[string]struct {
		code int
		said string
	}{
		"127.0.0.60:53": {1, "Everything is as it was before"},
		"127.0.0.61:53": {4, "does not resolve example.com"},
	} {
		r := install("--address", addr)
		if r.code != want.code || !strings.Contains(r.err, want.said) {
			t.Errorf("%s: exit %d\n%s%s", addr, r.code, r.out, r.err)
		}
		if got := c.read(t, "/etc/resolv.conf"); got != hostResolv {
			t.Errorf("%s left\n%s", addr, got)
		}
		if got := c.getent(t, "example.com"); got != "192.0.2.80" {
			t.Errorf("after %s example.com is %q", addr, got)
		}
	}

	t.Run("an immutable file", func(t *testing.T) {
		if r := c.run(t, "chattr", "+i", "/etc/resolv.conf"); r.code != 0 {
			t.Skipf("this file system knows no immutable files: %s", r.err)
		}
		defer c.run(t, "chattr", "-i", "/etc/resolv.conf")
		c.nameserver(t, "127.0.0.62:53", func(q *dns.Msg) *dns.Msg { return pretend(q, true, true) })
		if r := install("--address", "127.0.0.62:53"); r.code != 1 || !strings.Contains(r.err, "chattr -i /etc/resolv.conf") {
			t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
		}
	})
	t.Run("changed by somebody else in between", func(t *testing.T) {
		c.nameserver(t, "127.0.0.63:53", func(q *dns.Msg) *dns.Msg { return pretend(q, true, true) })
		if r := install("--address", "127.0.0.63:53"); r.code != 0 {
			t.Fatalf("exit %d\n%s%s", r.code, r.out, r.err)
		}
		c.run(t, "sh", "-c", "echo '# a lease' >> /etc/resolv.conf")
		r := finish(t, c.enter(fp.fingerpost(t, "dns", "uninstall")))
		if r.code != 0 || c.read(t, "/etc/resolv.conf") != hostResolv+"# a lease\n" || !strings.Contains(r.err, "changed by somebody else") {
			t.Errorf("exit %d\n%s%s%s", r.code, r.out, r.err, c.read(t, "/etc/resolv.conf"))
		}
	})
}

// pretend answers like a Fingerpost that knows one Service.
func pretend(q *dns.Msg, honest, forwards bool) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	line := ""
	switch name := strings.ToLower(q.Question[0].Name); {
	case !honest:
	case name == "dns-version.cluster.local.":
		line = name + ` 5 IN TXT "1.1.0"`
	case name == insideName+"." && q.Question[0].Qtype == dns.TypeA:
		line = name + " 5 IN A 10.96.0.1"
	case strings.HasSuffix(name, ".cluster.local."):
	case forwards:
		return upstream(q)
	}
	if line == "" {
		m.Rcode = dns.RcodeNameError
		return m
	}
	rr, err := dns.NewRR(line)
	if err == nil && rr.Header().Rrtype == q.Question[0].Qtype {
		m.Answer = append(m.Answer, rr)
	}
	return m
}
