//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// lookup asks a name server and gives the answers' data, sorted, without
// owner and TTL: "A 10.0.0.1".
func lookup(server, name string, qtype uint16) (rcode string, data []string, extra []dns.RR, err error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(4096, false)
	c := &dns.Client{Timeout: 20 * time.Second}
	res, _, err := c.Exchange(m, server)
	if err != nil {
		return "", nil, nil, err
	}
	for _, rr := range res.Answer {
		data = append(data, strings.Join(strings.Fields(rr.String())[3:], " "))
	}
	slices.Sort(data)
	return dns.RcodeToString[res.Rcode], data, res.Extra, nil
}

// wantDNS waits until the name has this answer.
func wantDNS(t testing.TB, server, name string, qtype uint16, want ...string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, "DNS "+name, func() error {
		rcode, got, _, err := lookup(server, name, qtype)
		if err != nil {
			return err
		}
		return unless(rcode == "NOERROR" && slices.Equal(got, want), "%s %s: %s %q, want %q", name, dns.TypeToString[qtype], rcode, got, want)
	})
}

// dig asks with the real program.
func dig(t testing.TB, server string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("dig is not installed (hack/deps.sh installs it)")
	}
	host, port, _ := strings.Cut(server, ":")
	r := finish(t, exec.Command(path, append([]string{"@" + host, "-p", port, "+time=20"}, args...)...))
	if r.code != 0 {
		t.Fatalf("dig %v: exit %d\n%s%s", args, r.code, r.out, r.err)
	}
	return strings.TrimSpace(r.out)
}

// echo sends one datagram and gives the answer.
func echo(addr, text string) (string, error) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		return "", err
	}
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// instance is a manifest of one Instance on this machine.
func instance(node, name, service, address string, labels string, ports ...string) string {
	var p strings.Builder
	for _, s := range ports { // NAME=NUMBER[/PROTOCOL]
		n, number, _ := strings.Cut(s, "=")
		number, proto, ok := strings.Cut(number, "/")
		if !ok {
			proto = "TCP"
		}
		fmt.Fprintf(&p, "  - {name: %q, port: %s, protocol: %s}\n", n, number, proto)
	}
	return fmt.Sprintf(`apiVersion: fingerpost.dev/v1alpha1
kind: Instance
metadata:
  name: %s
  labels: {%s}
spec:
  service: %s
  address: %s
  nodeName: %s
  hostname: %s
  ports:
%s---
`, name, labels, service, address, node, name, p.String())
}
