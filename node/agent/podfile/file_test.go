package podfile

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func pod(t *testing.T, spec string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "love-test", Name: "web-1"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPodResolv(t *testing.T) {
	machine := ParseResolv("# x\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan. example.com\noptions edns0 ndots:2\n")
	cluster := Cluster{DNS: []string{"10.96.0.10"}, Domain: "cluster.local"}
	ours := "search love-test.svc.cluster.local svc.cluster.local cluster.local lan example.com\nnameserver 10.96.0.10\noptions ndots:5\n"
	theirs := "search lan example.com\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0 ndots:2\n"
	for _, tc := range []struct {
		spec, want string
		notes      int
	}{
		{"dnsPolicy: ClusterFirst", ours, 0},
		{"{dnsPolicy: ClusterFirst, hostNetwork: true}", theirs, 0},
		{"{dnsPolicy: ClusterFirstWithHostNet, hostNetwork: true}", ours, 0},
		{"dnsPolicy: Default", theirs, 0},
		{"{dnsPolicy: None, dnsConfig: {nameservers: [1.2.3.4], searches: [a.b], options: [{name: ndots, value: '1'}, {name: rotate}]}}",
			"search a.b\nnameserver 1.2.3.4\noptions ndots:1 rotate\n", 0},
		{"{dnsPolicy: ClusterFirst, dnsConfig: {options: [{name: ndots, value: '1'}]}}", strings.Replace(ours, "ndots:5", "ndots:1", 1), 0},
		{"{dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}}", "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\n", 1},
	} {
		r, notes := PodResolv(pod(t, tc.spec), machine, cluster)
		if r.String() != tc.want || len(notes) != tc.notes {
			t.Errorf("%s:\n%s%q\nwant\n%s", tc.spec, r, notes, tc.want)
		}
	}
	p := pod(t, "dnsPolicy: ClusterFirst")
	if r, notes := PodResolv(p, machine, Cluster{}); r.String() != theirs || len(notes) != 1 {
		t.Errorf("without a cluster DNS: %s %q", r, notes)
	}
	for i := range 40 {
		if p.Spec.DNSConfig == nil {
			p.Spec.DNSConfig = &corev1.PodDNSConfig{}
		}
		p.Spec.DNSConfig.Searches = append(p.Spec.DNSConfig.Searches, fmt.Sprintf("d%d.example", i))
	}
	if r, notes := PodResolv(p, machine, cluster); len(r.Searches) != 32 || len(notes) != 1 {
		t.Errorf("%d search domains, notes %q", len(r.Searches), notes)
	}
}

func TestHostname(t *testing.T) {
	for _, tc := range []struct{ spec, name, domain, kernel string }{
		{"{}", "web-1", "", "web-1"},
		{"{hostname: h}", "h", "", "h"},
		{"{hostname: h, subdomain: s}", "h", "s.love-test.svc.cluster.local", "h"},
		{"{hostname: h, subdomain: s, setHostnameAsFQDN: true}", "h", "s.love-test.svc.cluster.local", "h.s.love-test.svc.cluster.local"},
	} {
		name, domain, kernel, err := Hostname(pod(t, tc.spec), "cluster.local")
		if name != tc.name || domain != tc.domain || kernel != tc.kernel || err != nil {
			t.Errorf("%s: %s %s %s %v", tc.spec, name, domain, kernel, err)
		}
	}
	long := pod(t, "{subdomain: s, setHostnameAsFQDN: true}")
	long.Name = strings.Repeat("a", 70)
	if name, _, _, err := Hostname(long, "cluster.local"); len(name) != 63 || err == nil {
		t.Errorf("%s %v", name, err)
	}
}

func TestHosts(t *testing.T) {
	got := Hosts([]string{"10.0.0.1"}, "h", "s.ns.svc.x", []corev1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"a", "b"}}})
	for _, line := range []string{"127.0.0.1\tlocalhost\n", "10.0.0.1\th.s.ns.svc.x\th\n", "1.2.3.4\ta\tb\n"} {
		if !strings.Contains(got, line) {
			t.Errorf("no %q in:\n%s", line, got)
		}
	}
}

func FuzzParseResolv(f *testing.F) {
	f.Add("search a. b\nnameserver 1.1.1.1\noptions x\n")
	f.Fuzz(func(t *testing.T, s string) {
		r := ParseResolv(s)
		if again := ParseResolv(r.String()); again.String() != r.String() {
			t.Errorf("%q then %q", r, again)
		}
	})
}
