//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestSameAsCoreDNS asks a stock CoreDNS and ours, which follow the same API,
// the same questions. Every difference is one that testdata/coredns/differences.txt
// gives a reason for, and every line there is needed.
func TestSameAsCoreDNS(t *testing.T) {
	t.Parallel()
	program := os.Getenv("COREDNS")
	if program == "" {
		t.Skip("COREDNS names no CoreDNS binary (make test builds one: .cache/bin/coredns)")
	}
	program, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	at := newSite(t)
	upstream := serveOutside(t, at.at(2, 1, 53))
	sys := layout(at, 1, t.TempDir()).launch(t, "dev", "--no-proxy", "--service-cidr", "fd00:96::/112", "--dns-upstream", upstream)
	manifest, err := os.ReadFile("testdata/coredns/world.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"alpha", "beta"} {
		sys.makeNamespace(t, ns)
	}
	sys.apply(t, "alpha", string(manifest))

	peer := sys.site.at(1, 1, 5353)
	host, port, _ := strings.Cut(peer, ":")
	conf := filepath.Join(t.TempDir(), "Corefile")
	// As kubeadm configures it.
	text := fmt.Sprintf(`.:%s {
		bind %s
		kubernetes cluster.local in-addr.arpa ip6.arpa {
			kubeconfig %s
			pods insecure
			fallthrough in-addr.arpa ip6.arpa
		}
		forward . %s
	}`, port, host, sys.kubeconfig(), upstream)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-conf", conf)
	cmd.Env = sys.env(t)
	start(t, "coredns", cmd)

	var services struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
			Spec     struct{ ClusterIPs []string }
		}
	}
	sys.api(t).get(t, "/api/v1/services", &services)
	names := fixedNames()
	for _, s := range services.Items {
		names = append(names, s.Metadata.Name+"."+s.Metadata.Namespace+".svc.cluster.local.")
		for _, ip := range s.Spec.ClusterIPs {
			if r, err := dns.ReverseAddr(ip); err == nil {
				names = append(names, r)
			}
		}
	}
	// Both must have seen everything: the last object of the manifest.
	for _, server := range []string{sys.dns, peer} {
		wantDNS(t, server, "last.alpha.svc.cluster.local", dns.TypeA, "A 10.9.9.9")
		wantDNS(t, server, "away.alpha.svc.cluster.local", dns.TypeA, "A 192.0.2.80", "CNAME www.example.com.")
	}
	allowed := readDifferences(t)
	used := map[string]bool{}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR, dns.TypeTXT, dns.TypeCNAME, dns.TypeMX, dns.TypeNS, dns.TypeSOA}
	asked := 0
	for _, name := range names {
		for _, typ := range types {
			if strings.HasSuffix(name, ".arpa.") && typ != dns.TypePTR {
				continue // nobody asks, and what is not ours is the upstream's
			}
			asked++
			ours, theirs := say(t, sys.dns, name, typ), say(t, peer, name, typ)
			if ours == theirs {
				continue
			}
			line := name + " " + dns.TypeToString[typ]
			if i := slices.IndexFunc(allowed, func(d difference) bool { return d.match.MatchString(line) }); i >= 0 {
				used[allowed[i].match.String()] = true
				continue
			}
			t.Errorf("%s\nfingerpost: %s\nCoreDNS:    %s", line, ours, theirs)
		}
	}
	for _, d := range allowed {
		if !used[d.match.String()] {
			t.Errorf("no answer differs by %s: the line is not needed", d.match)
		}
	}
	t.Logf("%d questions, %d kinds of intended differences", asked, len(used))
}

// serveOutside is the name server that both ask for names that are not theirs.
func serveOutside(t testing.TB, addr string) string {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		zone := "example.com."
		switch name := strings.ToLower(q.Question[0].Name); {
		case name == "www.example.com." && q.Question[0].Qtype == dns.TypeA:
			rr, _ := dns.NewRR("www.example.com. 60 A 192.0.2.80")
			m.Answer = append(m.Answer, rr)
		case name == "www.example.com.":
		default:
			m.Rcode, zone = dns.RcodeNameError, "."
		}
		if len(m.Answer) == 0 {
			rr, _ := dns.NewRR(zone + " 60 SOA ns.example.com. host.example.com. 1 60 60 60 60")
			m.Ns = append(m.Ns, rr)
		}
		_ = w.WriteMsg(m)
	})
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}} {
		up, done := make(chan struct{}), make(chan error, 1)
		srv.NotifyStartedFunc = func() { close(up) }
		go func() { done <- srv.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = srv.Shutdown(); <-done })
	}
	return addr
}

// say is an answer in one line: what a client acts on. Order, TTL and the
// numbers of an SOA are left out; the names of records are without case.
func say(t testing.TB, server, name string, typ uint16) string {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, typ)
	m.SetEdns0(4096, false)
	m.RecursionDesired = true
	c := &dns.Client{Timeout: patience, Net: "tcp"}
	r, _, err := c.Exchange(m, server)
	if err != nil {
		t.Fatalf("ask %s for %s: %v", server, name, err)
	}
	section := func(rrs []dns.RR) string {
		set := map[string]bool{}
		for _, rr := range rrs {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			if rr.Header().Rrtype == dns.TypeSOA {
				set[strings.ToLower(rr.Header().Name)+" SOA"] = true
				continue
			}
			f := strings.Fields(strings.ToLower(rr.String()))
			set[f[0]+" "+strings.Join(f[3:], " ")] = true
		}
		return strings.Join(slices.Sorted(maps.Keys(set)), ", ")
	}
	return fmt.Sprintf("%s aa=%t [%s] [%s] [%s]", dns.RcodeToString[r.Rcode], r.Authoritative, section(r.Answer), section(r.Ns), section(r.Extra))
}

type difference struct{ match *regexp.Regexp }

// readDifferences reads lines of a regular expression on "name. TYPE"; the
// comment above says why.
func readDifferences(t testing.TB) []difference {
	t.Helper()
	text, err := os.ReadFile("testdata/coredns/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []difference
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			all = append(all, difference{regexp.MustCompile("^(?:" + line + ")$")})
		}
	}
	return all
}

// fixedNames are names beside those of the services themselves.
func fixedNames() []string {
	names := strings.Fields(`
		cluster.local. svc.cluster.local. pod.cluster.local. alpha.svc.cluster.local. alpha.pod.cluster.local. beta.svc.cluster.local.
		none.svc.cluster.local. none.pod.cluster.local. dns-version.cluster.local. ns.dns.cluster.local. dns.cluster.local. foo.cluster.local.
		_http._tcp.web.alpha.svc.cluster.local. _tcp.web.alpha.svc.cluster.local. _http._udp.web.alpha.svc.cluster.local. _dns._udp.many.alpha.svc.cluster.local.
		_dns._tcp.many.alpha.svc.cluster.local. _x._tcp.many.alpha.svc.cluster.local. _http._tcp.heads.alpha.svc.cluster.local. _http._tcp.none.alpha.svc.cluster.local.
		_http._tcp.named.alpha.svc.cluster.local. _http._tcp.ext.alpha.svc.cluster.local. http.tcp.web.alpha.svc.cluster.local.
		10-1-0-1.heads.alpha.svc.cluster.local. 10-1-0-9.heads.alpha.svc.cluster.local. 10-1-0-2.web.alpha.svc.cluster.local. db-0.named.alpha.svc.cluster.local.
		db-1.named.alpha.svc.cluster.local. db-2.named.alpha.svc.cluster.local. twin.named.alpha.svc.cluster.local. 10-2-0-1.named.alpha.svc.cluster.local.
		fd01--1.dual-heads.alpha.svc.cluster.local. host.dual-heads.alpha.svc.cluster.local. x.web.alpha.svc.cluster.local. x.y.web.alpha.svc.cluster.local.
		1-2-3-4.alpha.pod.cluster.local. 1-2-3-4.none.pod.cluster.local. 10-1-0-1.alpha.pod.cluster.local. fd01--1.alpha.pod.cluster.local. x.alpha.pod.cluster.local.
		WEB.Alpha.svc.cluster.LOCAL. none.alpha.svc.cluster.local. web.beta.svc.cluster.local. *.alpha.svc.cluster.local. any.any.svc.cluster.local.
		1.0.1.10.in-addr.arpa. 9.0.1.10.in-addr.arpa. 1.0.2.10.in-addr.arpa. 9.9.9.10.in-addr.arpa. 4.3.2.1.in-addr.arpa. 10.in-addr.arpa. in-addr.arpa.
		1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa. ip6.arpa. 1.0.d.f.ip6.arpa.
	`)
	return names
}
