package kernel

import (
	"net/netip"
	"strings"
	"testing"
)

func TestConflict(t *testing.T) {
	p := netip.MustParsePrefix
	want := p("10.96.0.0/16")
	ours := route{dst: want, typ: "local", dev: "lo", table: 255, ours: true}
	for _, tc := range []struct {
		name    string
		routes  []route
		prefix  netip.Prefix
		covered bool
		refused string
	}{
		{"nothing there", nil, want, false, ""},
		{"default route", []route{{dst: p("0.0.0.0/0"), typ: "unicast", dev: "eth0"}}, want, false, ""},
		{"neighbouring range", []route{{dst: p("10.97.0.0/16"), typ: "unicast", dev: "eth0"}}, want, false, ""},
		{"ours", []route{ours}, want, true, ""},
		{"ours, narrower one wanted", []route{ours}, p("10.96.128.0/17"), true, ""},
		{"ours, wider one wanted", []route{ours}, p("10.96.0.0/12"), false, ""},
		{"office network", []route{{dst: p("10.0.0.0/8"), typ: "unicast", dev: "tun0"}}, want, false, "unicast 10.0.0.0/8 dev tun0"},
		{"a host inside", []route{{dst: p("10.96.7.7/32"), typ: "unicast", dev: "eth0", via: netip.MustParseAddr("192.0.2.9")}}, want, false, "unicast 10.96.7.7/32 via 192.0.2.9 dev eth0"},
		{"another proxy's address", []route{{dst: p("10.96.0.1/32"), typ: "local", dev: "kube-ipvs0"}}, want, false, "local 10.96.0.1/32 dev kube-ipvs0"},
		{"somebody's route of the same shape", []route{{dst: want, typ: "local", dev: "lo"}}, want, false, "local 10.96.0.0/16 dev lo"},
		{"ours and a conflict", []route{ours, {dst: p("10.96.3.0/24"), typ: "blackhole"}}, want, false, "blackhole 10.96.3.0/24"},
		{"loopback", []route{
			{dst: p("127.0.0.0/8"), typ: "local", dev: "lo"},
			{dst: p("127.0.0.1/32"), typ: "local", dev: "lo"},
			{dst: p("127.255.255.255/32"), typ: "broadcast", dev: "lo"},
		}, p("127.96.0.0/16"), true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			covered, err := conflict(tc.routes, tc.prefix)
			switch {
			case tc.refused == "" && err != nil:
				t.Fatal(err)
			case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused) || !strings.Contains(err.Error(), "--service-cidr")):
				t.Fatalf("error %v, want one that names %q and says what to do", err, tc.refused)
			}
			if covered != tc.covered {
				t.Errorf("covered = %v, want %v", covered, tc.covered)
			}
		})
	}
}

func TestCheckRange(t *testing.T) {
	for _, bad := range []netip.Prefix{
		{},
		netip.MustParsePrefix("0.0.0.0/0"),
		netip.MustParsePrefix("8.0.0.0/7"),
		netip.MustParsePrefix("224.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("::ffff:10.0.0.0/112"),
		netip.MustParsePrefix("fe80::/64"),
	} {
		if _, err := checkRange(bad); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
	got, err := checkRange(netip.MustParsePrefix("10.96.3.4/16"))
	if err != nil || got != netip.MustParsePrefix("10.96.0.0/16") {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestIsLocalAddress(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1":        true,
		"::ffff:127.0.0.1": true,
		"203.0.113.7":      false,
		"0.0.0.0":          false,
		"224.0.0.1":        false,
	} {
		if got := IsLocalAddress(netip.MustParseAddr(addr)); got != want {
			t.Errorf("IsLocalAddress(%s) = %v, want %v", addr, got, want)
		}
	}
	if IsLocalAddress(netip.Addr{}) {
		t.Error("no address is local")
	}
}
