package network

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func open(t testing.TB, dir string, ranges ...string) *leases {
	t.Helper()
	l, err := openLeases(dir, prefixes(ranges...), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAddressesGoRound(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, "10.1.0.0/29", "fd00:1::/64")
	take := func(uid, v4, v6 string) {
		t.Helper()
		n, err := l.get(uid)
		if err != nil {
			t.Fatal(err)
		}
		if n.Addrs[0].String() != v4 || n.Addrs[1].String() != v6 {
			t.Errorf("%s got %v, want %s and %s", uid, n.Addrs, v4, v6)
		}
	}
	take("a", "10.1.0.2", "fd00:1::2")
	take("b", "10.1.0.3", "fd00:1::3")
	take("a", "10.1.0.2", "fd00:1::2")
	if err := l.drop("a"); err != nil {
		t.Fatal(err)
	}
	take("c", "10.1.0.4", "fd00:1::4") // not a's at once
	l = open(t, dir, "10.1.0.0/29", "fd00:1::/64")
	take("b", "10.1.0.3", "fd00:1::3")
	take("d", "10.1.0.5", "fd00:1::5") // nor after a restart
	take("e", "10.1.0.6", "fd00:1::6")
	take("f", "10.1.0.2", "fd00:1::7")
	if _, err := l.get("g"); !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "10.1.0.0/29") {
		t.Errorf("a full range said %v", err)
	}
	l.drop("d")
	take("g", "10.1.0.5", "fd00:1::8")
}

func TestRecordsThatAreDamaged(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, "10.1.0.0/24")
	l.get("good")
	for name, text := range map[string]string{
		"cut.json":     `{"uid":"cut","addrs":["10.`,
		"name.json":    `{"uid":"other","addrs":["10.1.0.9"]}`,
		"range.json":   `{"uid":"range","addrs":["10.2.0.9"]}`,
		"gateway.json": `{"uid":"gateway","addrs":["10.1.0.1"]}`,
		"twice.json":   `{"uid":"twice","addrs":["10.1.0.2"]}`,
		".tmp-123":     ``,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l = open(t, dir, "10.1.0.0/24")
	if len(l.byUID) != 1 || l.byUID["good"] == nil {
		t.Errorf("left are %v", l.byUID)
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("%d files left, want the lease and the cursor", len(files))
	}
}

func TestHostPortClashes(t *testing.T) {
	l := open(t, t.TempDir(), "10.1.0.0/24")
	l.get("a")
	l.get("b")
	ip := netip.MustParseAddr
	if err := l.setHostPorts("a", []HostPort{{Port: 80, ContainerPort: 8080}, {HostIP: ip("192.0.2.1"), Port: 90, ContainerPort: 1}}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		port HostPort
		want string // part of the error
	}{
		{HostPort{Port: 80, ContainerPort: 1}, "pod a has 80/TCP"},
		{HostPort{HostIP: ip("192.0.2.7"), Port: 80, ContainerPort: 1}, "pod a"},
		{HostPort{Port: 80, Protocol: UDP, ContainerPort: 1}, ""},
		{HostPort{Port: 90, ContainerPort: 1}, "192.0.2.1:90/TCP"},
		{HostPort{HostIP: ip("0.0.0.0"), Port: 90, ContainerPort: 1}, "pod a"},
		{HostPort{HostIP: ip("192.0.2.2"), Port: 90, ContainerPort: 1}, ""},
		{HostPort{HostIP: ip("fd00::1"), Port: 91, ContainerPort: 1}, "family"},
		{HostPort{Port: 0, ContainerPort: 1}, "no host port"},
		{HostPort{Port: 1, ContainerPort: 0}, "no host port"},
		{HostPort{Port: 1, ContainerPort: 1, Protocol: "ICMP"}, "no host port"},
	} {
		err := l.setHostPorts("b", []HostPort{tc.port})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%+v: %v, want %q", tc.port, err, tc.want)
		}
	}
	if err := l.setHostPorts("nobody", nil); !errors.Is(err, ErrNotAttached) {
		t.Errorf("a pod without network: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	for _, tc := range []struct {
		c    Config
		want string
	}{
		{Config{PodCIDRs: prefixes("10.0.0.0/24")}, "directory"},
		{Config{Dir: "x"}, "pod ranges"},
		{Config{Dir: "x", PodCIDRs: prefixes("10.0.0.0/24", "10.1.0.0/24")}, "one family"},
		{Config{Dir: "x", PodCIDRs: prefixes("10.0.0.0/31")}, "no room"},
		{Config{Dir: "x", PodCIDRs: []netip.Prefix{{}}}, "not an address range"},
		{Config{Dir: "x", PodCIDRs: prefixes("10.0.0.0/24"), Bridge: "a-much-too-long-name"}, "bridge name"},
		{Config{Dir: "x", PodCIDRs: prefixes("10.0.0.0/24"), Bridge: "../x"}, "bridge name"},
		{Config{Dir: "x", PodCIDRs: prefixes("10.0.0.0/24"), MTU: 100}, "MTU"},
	} {
		if _, err := tc.c.complete(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.c, err, tc.want)
		}
	}
}

func FuzzParseLease(f *testing.F) {
	f.Add([]byte(`{"uid":"a","addrs":["10.1.0.2"],"hostPorts":[{"port":80,"protocol":"TCP","containerPort":8080}]}`))
	f.Add([]byte(`{"uid":"../a"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLease(b)
		if err != nil {
			return
		}
		if filepath.Base(l.UID+leaseSuffix) != l.UID+leaseSuffix {
			t.Errorf("UID %q would leave the directory", l.UID)
		}
		for _, a := range l.Addrs {
			hardwareAddr(a)
		}
	})
}

func BenchmarkAllocate(b *testing.B) {
	l := open(b, b.TempDir(), "10.0.0.0/16")
	for i := range 1000 {
		l.get("pod" + strconv.Itoa(i))
	}
	for b.Loop() {
		if _, err := l.get("x"); err != nil {
			b.Fatal(err)
		}
		l.drop("x")
	}
}
