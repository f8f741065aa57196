//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// resolverClient is a program that resolves, and how to ask it and read what
// it says. It gives nil for a kind of question that it has no way to ask.
type resolverClient struct {
	name    string
	program string
	search  bool // it completes names with the search list
	ask     func(kind, name string) []string
	read    map[string]*regexp.Regexp // by kind: the data is the first group
}

const address = `([0-9a-f.:]+)`

func line(expr string) *regexp.Regexp { return regexp.MustCompile(`(?m)^` + expr + `\s*$`) }

// goSource is a client with Go's own resolver: there is no C in it.
const goSource = `package main

import (
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	kind, name := os.Args[1], os.Args[2]
	ctx, r := context.Background(), net.DefaultResolver
	var err error
	switch kind {
	case "A", "AAAA":
		var ips []net.IP
		ips, err = r.LookupIP(ctx, map[string]string{"A": "ip4", "AAAA": "ip6"}[kind], name)
		for _, ip := range ips {
			fmt.Println(ip)
		}
	case "SRV":
		var all []*net.SRV
		_, all, err = r.LookupSRV(ctx, "", "", name)
		for _, s := range all {
			fmt.Println(s.Port, s.Target)
		}
	case "PTR":
		var names []string
		names, err = r.LookupAddr(ctx, name)
		for _, n := range names {
			fmt.Println(n)
		}
	case "CNAME":
		name, err = r.LookupCNAME(ctx, name)
		fmt.Println(name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
`

// nodeSource is a client with c-ares.
const nodeSource = `
const dns = require("dns").promises, [kind, name] = process.argv.slice(1);
const ask = kind == "PTR" ? dns.reverse(name) : dns.resolve(name, kind);
ask.then(all => all.forEach(a => console.log(kind == "SRV" ? a.port + " " + a.name : a)), e => { console.error(e.message); process.exit(1) });
`

const pythonSource = `
import socket, sys
kind, name = sys.argv[1:]
if kind == "PTR":
    print(socket.gethostbyaddr(name)[0])
else:
    for a in {i[4][0] for i in socket.getaddrinfo(name, None, socket.AF_INET6 if kind == "AAAA" else socket.AF_INET)}:
        print(a)
`

func resolverClients(goProgram string) []resolverClient {
	forAll := func(expr string, kinds ...string) map[string]*regexp.Regexp {
		m := map[string]*regexp.Regexp{}
		for _, k := range kinds {
			m[k] = line(expr)
		}
		return m
	}
	names := forAll(`(\S+?)\.?`, "PTR", "CNAME")
	merge := func(ms ...map[string]*regexp.Regexp) map[string]*regexp.Regexp {
		all := map[string]*regexp.Regexp{}
		for _, m := range ms {
			for k, v := range m {
				all[k] = v
			}
		}
		return all
	}
	digRead := merge(forAll(address, "A", "AAAA"), names, forAll(`\d+ \d+ (\d+ \S+?)\.?`, "SRV"))
	digAsk := func(more ...string) func(kind, name string) []string {
		return func(kind, name string) []string {
			args := append([]string{"+search", "+short", "+time=20"}, more...)
			if kind == "PTR" {
				return append(args, "-x", name)
			}
			return append(args, name, kind)
		}
	}
	return []resolverClient{
		{"dig", "dig", true, digAsk(), digRead},
		{"dig +tcp", "dig", true, digAsk("+tcp"), digRead},
		{"dig +noedns", "dig", true, digAsk("+noedns"), digRead},
		{"nslookup", "nslookup", true, func(kind, name string) []string { return []string{"-type=" + kind, name} }, map[string]*regexp.Regexp{
			"A": line(`Name:.*\nAddress: ` + address), "AAAA": line(`Name:.*\nAddress: ` + address), "PTR": line(`\S+\s+name = (\S+?)\.?`),
			"CNAME": line(`\S+\s+canonical name = (\S+?)\.?`), "SRV": line(`\S+\s+service = \d+ \d+ (\d+ \S+?)\.?`),
		}},
		{"host", "host", true, func(kind, name string) []string {
			if kind == "PTR" {
				return []string{name}
			}
			return []string{"-t", kind, name}
		}, map[string]*regexp.Regexp{
			"A": line(`\S+ has address ` + address), "AAAA": line(`\S+ has IPv6 address ` + address), "PTR": line(`\S+ domain name pointer (\S+?)\.?`),
			"CNAME": line(`\S+ is an alias for (\S+?)\.?`), "SRV": line(`\S+ has SRV record \d+ \d+ (\d+ \S+?)\.?`),
		}},
		{"getent", "getent", true, func(kind, name string) []string {
			return map[string][]string{"A": {"ahostsv4", name}, "AAAA": {"ahostsv6", name}, "PTR": {"hosts", name}}[kind]
		}, merge(forAll(address+`\s.*`, "A", "AAAA"), forAll(`\S+\s+(\S+)(?:\s.*)?`, "PTR"))},
		{"Go", goProgram, true, func(kind, name string) []string { return []string{kind, name} }, merge(digRead, forAll(`(\d+ \S+?)\.?`, "SRV"))},
		{"c-ares (node)", "node", false, func(kind, name string) []string { return []string{"-e", nodeSource, kind, name} }, merge(digRead, forAll(`(\d+ \S+?)\.?`, "SRV"))},
		{"python", "/usr/bin/python3", true, func(kind, name string) []string {
			if kind == "SRV" || kind == "CNAME" {
				return nil
			}
			return []string{"-c", pythonSource, kind, name}
		}, digRead},
		{"busybox", "busybox", false, func(kind, name string) []string {
			switch {
			case kind == "PTR":
				return []string{"nslookup", name}
			case strings.HasPrefix(name, "many."):
				return nil // it knows no TCP
			}
			return []string{"nslookup", "-type=" + strings.ToLower(kind), name}
		}, map[string]*regexp.Regexp{
			"A": line(`Name:.*\nAddress: ` + address), "AAAA": line(`Name:.*\nAddress: ` + address), "PTR": line(`\S+\s+name = (\S+?)\.?`),
			"CNAME": line(`\S+\s+canonical name = (\S+?)\.?`), "SRV": line(`\S+\s+service = \d+ \d+ (\d+ \S+?)\.?`),
		}},
	}
}

// says asks a client and gives the data, sorted; empty when there is none.
func (r *resolverClient) says(t testing.TB, c *cell, kind, name string) (data []string, whole result) {
	t.Helper()
	whole = c.run(t, append([]string{r.program}, r.ask(kind, name)...)...)
	for _, m := range r.read[kind].FindAllStringSubmatch(whole.out, -1) {
		d := m[1]
		if a, err := netip.ParseAddr(d); err == nil {
			if d = a.String(); a.Is4In6() {
				continue // getent's way to say that there is none
			}
		}
		data = append(data, d)
	}
	slices.Sort(data)
	return slices.Compact(data), whole
}

// Walkthroughs 4, 5 and 7 with the resolvers that people have, as in a pod of
// namespace love-test: its search list, ndots:5, nothing but the cluster DNS.
func TestDNSClients(t *testing.T) {
	t.Parallel()
	at := newSite(t)
	server := at.ip(0, 53)
	c := newCell(t, "search love-test.svc.cluster.local svc.cluster.local cluster.local\nnameserver "+server+"\noptions ndots:5\n", false)
	c.nameserver(t, outsideServer+":53", upstream)
	sys := c.dev(t, "--service-cidr", "fd00:10::/112", "--dns-address", server+":53", "--dns-upstream", outsideServer+":53")

	backend := at.ip(11, 1)
	start(t, "web", c.enter(exec.Command(filepath.Join(tools.bin(t), "web"), "-listen", backend+":8080", "-name", "a")))
	start(t, "web6", c.enter(exec.Command(filepath.Join(tools.bin(t), "web"), "-listen", "[fd00:200::1]:8080", "-name", "a")))
	var many strings.Builder
	var manyWant []string
	for i := range 200 {
		a := fmt.Sprintf("10.77.%d.%d", i/100, i%100+1)
		manyWant = append(manyWant, a)
		if i%100 == 0 {
			fmt.Fprintf(&many, "---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: many-%d, namespace: love-test, labels: {kubernetes.io/service-name: many}}, addressType: IPv4, ports: [{name: x, port: 1}], endpoints: [", i)
		}
		fmt.Fprintf(&many, "{addresses: [%s]}", a)
		many.WriteString(map[bool]string{true: "]}\n", false: ", "}[i%100 == 99])
	}
	slices.Sort(manyWant)
	sys.ctl(t, "", "create", "namespace", "love-test")
	sys.ctl(t, "", "create", "namespace", "other")
	sys.ctl(t, `
{apiVersion: v1, kind: Service, metadata: {name: my-app, namespace: love-test}, spec: {ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: other}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: love-test}, spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: many, namespace: love-test}, spec: {clusterIP: None, ports: [{name: x, port: 1}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: outside, namespace: love-test}, spec: {type: ExternalName, externalName: my.database.example.com}}
---
{apiVersion: v1, kind: Service, metadata: {name: alias, namespace: love-test}, spec: {type: ExternalName, externalName: web.other.svc.cluster.local}}
---
{apiVersion: v1, kind: Service, metadata: {name: six, namespace: love-test}, spec: {clusterIP: None, ipFamilies: [IPv6], ports: [{name: x, port: 1}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: six, namespace: love-test, labels: {kubernetes.io/service-name: six}}, addressType: IPv6, ports: [{name: x, port: 1}], endpoints: [{addresses: ["fd00:6::1"]}, {addresses: ["fd00:6::2"], conditions: {ready: false}}]}
`+many.String(), "apply", "-f", "-")
	sys.ctl(t, instance(node(t), "my-app-0", "my-app", backend, "", "8080=8080")+instance(node(t), "my-app-6", "my-app", `"fd00:200::1"`, "", "8080=8080")+
		instance(node(t), "db-0", "db", "10.66.0.1", "", "sql=5432")+instance(node(t), "db-1", "db", "10.66.0.2", "", "sql=5432"), "apply", "-n", "love-test", "-f", "-")
	ips := func(ns, name string) (v4, v6 string) {
		all := strings.Fields(sys.ctl(t, "", "get", "service", name, "-n", ns, "-o", "jsonpath={.spec.clusterIPs[*]}"))
		for _, a := range all {
			if strings.Contains(a, ":") {
				v6 = a
			} else {
				v4 = a
			}
		}
		return v4, v6
	}
	app4, app6 := ips("love-test", "my-app")
	web4, _ := ips("other", "web")
	if app4 == "" || app6 == "" || web4 == "" {
		t.Fatalf("ClusterIPs %q %q %q", app4, app6, web4)
	}
	for name, n := range map[string]int{"db": 2, "many": 200, "six": 1} {
		eventually(t, "endpoints of "+name, func() error {
			got := c.getent(t, name+".love-test.svc.cluster.local.")
			return unless(len(strings.Fields(got)) == n, "%s", got)
		})
	}

	const ns = ".love-test.svc.cluster.local"
	cases := []struct {
		kind, name string
		want       []string
		short      bool // needs the search list
	}{
		{"A", "my-app", []string{app4}, true},
		{"A", "my-app.love-test", []string{app4}, true},
		{"A", "my-app.love-test.svc", []string{app4}, true},
		{"A", "my-app" + ns, []string{app4}, false},
		{"A", "my-app" + ns + ".", []string{app4}, false},
		{"A", "MY-App.Love-Test.SVC.cluster.LOCAL", []string{app4}, false},
		{"AAAA", "my-app", []string{app6}, true},
		{"AAAA", "my-app" + ns, []string{app6}, false},
		{"A", "web.other", []string{web4}, true},
		{"A", "web.other.svc.cluster.local", []string{web4}, false},
		{"AAAA", "web.other.svc.cluster.local", nil, false},
		{"A", "web", nil, true},
		{"A", "nobody" + ns, nil, false},
		{"A", "web.nowhere.svc.cluster.local", nil, false},
		{"A", "db", []string{"10.66.0.1", "10.66.0.2"}, true},
		{"A", "db" + ns, []string{"10.66.0.1", "10.66.0.2"}, false},
		{"A", "db-1.db" + ns, []string{"10.66.0.2"}, false},
		{"SRV", "_sql._tcp.db" + ns, []string{"5432 db-0.db" + ns, "5432 db-1.db" + ns}, false},
		{"SRV", "_http._tcp.my-app" + ns, []string{"80 my-app" + ns}, false},
		{"A", "many" + ns, manyWant, false},
		{"A", "10-77-1-5.many" + ns, []string{"10.77.1.5"}, false},
		{"AAAA", "six", []string{"fd00:6::1"}, true},
		{"AAAA", "six" + ns, []string{"fd00:6::1"}, false},
		{"A", "outside" + ns, []string{"192.0.2.81"}, false},
		{"A", "outside", []string{"192.0.2.81"}, true},
		{"AAAA", "outside" + ns, []string{"2001:db8::81"}, false},
		{"CNAME", "outside" + ns, []string{"my.database.example.com"}, false},
		{"A", "alias" + ns, []string{web4}, false},
		{"A", "example.com", []string{"192.0.2.80"}, false},
		{"A", "nobody.example.com", nil, false},
		{"PTR", app4, []string{"my-app" + ns}, false},
		{"PTR", app6, []string{"my-app" + ns}, false},
		{"PTR", "10.66.0.2", []string{"db-1.db" + ns}, false},
		{"PTR", "10.77.0.7", []string{"10-77-0-7.many" + ns}, false},
		{"PTR", "10.99.99.99", nil, false},
	}
	goProgram := filepath.Join(c.dir, "lookup")
	src := filepath.Join(c.dir, "lookup.go")
	if err := os.WriteFile(src, []byte(goSource), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := build(goProgram, src); err != nil {
		t.Fatal(err)
	}
	for _, r := range resolverClients(goProgram) {
		t.Run(r.name, func(t *testing.T) {
			if _, err := exec.LookPath(r.program); err != nil {
				t.Skipf("%s is not installed (hack/deps.sh installs it)", r.program)
			}
			for _, q := range cases {
				if q.short && !r.search || r.ask(q.kind, q.name) == nil || r.read[q.kind] == nil {
					continue
				}
				got, whole := r.says(t, c, q.kind, q.name)
				if !slices.Equal(got, q.want) {
					t.Errorf("%s %s: %d %.300q, want %d %.300q\nexit %d %.600s%s", q.kind, q.name, len(got), got, len(q.want), q.want, whole.code, whole.out, whole.err)
				}
			}
		})
	}

	t.Run("wire", func(t *testing.T) {
		for _, q := range []struct {
			args string
			want *regexp.Regexp
		}{
			{"+noall +comments +ignore +noedns many" + ns, regexp.MustCompile(`flags: qr aa tc rd[ ;]`)},
			{"+noall +comments +ignore +bufsize=1232 many" + ns, regexp.MustCompile(`flags: qr aa tc rd[ ;]`)},
			{"+noall +comments +tcp many" + ns, regexp.MustCompile(`flags: qr aa rd.*ANSWER: 200,`)},
			{"+noall +comments many" + ns, regexp.MustCompile(`(?s)Truncated, retrying in TCP.*ANSWER: 200,`)},
			{"+noall +comments +authority nobody" + ns, regexp.MustCompile(`(?s)NXDOMAIN.*cluster\.local\..*SOA`)},
			{"+noall +comments +authority AAAA web.other.svc.cluster.local", regexp.MustCompile(`(?s)NOERROR.*ANSWER: 0.*SOA`)},
			{"+short TXT dns-version.cluster.local", regexp.MustCompile(`^"1\.1\.0"`)},
			{"+noall +additional SRV _sql._tcp.db" + ns, regexp.MustCompile(`(?s)10\.66\.0\.[12].*10\.66\.0\.[12]`)},
			{"+noall +answer outside" + ns, regexp.MustCompile(`(?s)CNAME\s+my\.database\.example\.com\..*192\.0\.2\.81`)},
		} {
			r := c.run(t, append([]string{"dig"}, strings.Fields(q.args)...)...)
			if !q.want.MatchString(r.out) {
				t.Errorf("dig %s: want %s\n%.1500s", q.args, q.want, r.out)
			}
		}
	})

	// What the names are for: each of these connects by a short name.
	t.Run("http", func(t *testing.T) {
		for _, get := range [][]string{
			{"curl", "-sS", "--max-time", "20", "http://my-app/"},
			{"curl", "-sS", "-4", "--max-time", "20", "http://my-app.love-test/"},
			{"curl", "-sS", "-6", "--max-time", "20", "http://my-app.love-test/"},
			{"busybox", "wget", "-q", "-O", "-", "http://my-app.love-test.svc/"},
			{"/usr/bin/python3", "-c", "import urllib.request; print(urllib.request.urlopen('http://my-app.love-test:80/', timeout=20).read().decode())"},
			{"node", "-e", "fetch('http://my-app/').then(r => r.text()).then(console.log)"},
		} {
			if _, err := exec.LookPath(get[0]); err != nil {
				t.Errorf("%s is not installed (hack/deps.sh installs it)", get[0])
				continue
			}
			eventually(t, strings.Join(get, " "), func() error {
				r := c.run(t, get...)
				return unless(strings.HasPrefix(r.out, "a "), "exit %d %s%s", r.code, r.out, r.err)
			})
		}
	})
	t.Run("trace", func(t *testing.T) { traceClients(t, sys, server, app4) })
}

// traceClients: what dns trace says of the names that the clients asked for.
func traceClients(t *testing.T, sys *celled, server, app4 string) {
	for args, want := range map[string]struct {
		code int
		said string
	}{
		"my-app -n love-test":                       {0, "(?s)1\\. my-app\\.love-test\\.svc.*rule +service love-test/my-app.*answer .* A " + regexp.QuoteMeta(app4) + ".*instance my-app-0.*says the same"},
		"web.other -n love-test":                    {5, "(?s)1\\. web\\.other\\.love-test.*NXDOMAIN.*2\\. web\\.other\\.svc\\.cluster\\.local\\. A: NOERROR"},
		"many -n love-test":                         {0, "says the same"},
		"_sql._tcp.db -n love-test":                 {0, "(?s)SRV 0 50 5432 db-0.*says the same"},
		"six -n love-test -t AAAA":                  {0, "(?s)fd00:6::1 in.*fd00:6::2 out: it is not ready.*says the same"},
		"alias -n love-test":                        {0, "(?s)stands for web\\.other.*-> web\\.other\\.svc.*says the same"},
		"outside -n love-test":                      {0, "(?s)stands for my\\.database.*says the same"},
		"10.66.0.2":                                 {0, "(?s)PTR: NOERROR.*an endpoint of service love-test/db.*says the same"},
		"db-1.db.love-test.svc.cluster.local.":      {0, "an endpoint of service love-test/db"},
		"1-2-3-4.love-test.pod.cluster.local.":      {0, "spelled as a pod"},
		"example.com.":                              {0, "(?s)forwards.*says NOERROR.*192\\.0\\.2\\.80"},
		"my-ap -n love-test":                        {3, "Did you mean my-app"},
		"my-app --client-ip 10.66.0.1 -o json":      {0, `"namespace": "love-test"`},
		"nobody.nowhere.svc.cluster.local.":         {3, "there is no such namespace|no such service"},
		"my-app.love-test.svc.cluster.local. -t MX": {5, "NODATA"},
	} {
		r := sys.cli(t, append([]string{"dns", "trace", "--server", server + ":53"}, strings.Fields(args)...)...)
		if r.code != want.code || !regexp.MustCompile(want.said).MatchString(r.out) {
			t.Errorf("trace %s: exit %d, want %d and %s\n%.3000s%s", args, r.code, want.code, want.said, r.out, r.err)
		}
	}
}
