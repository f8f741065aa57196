package apiserver

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
)

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func testAllocator(t *testing.T, cidr string) *allocator {
	t.Helper()
	f := api.IPv4Protocol
	if mustPrefix(cidr).Addr().Is6() {
		f = api.IPv6Protocol
	}
	a := &allocator{family: f, ranges: map[string][]netip.Prefix{}, used: map[netip.Addr]bool{}, ready: func() bool { return true }}
	a.setRange(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{cidr}}})
	return a
}

func TestAllocateUntilFull(t *testing.T) {
	for cidr, want := range map[string]int{"10.0.0.0/28": 14, "10.0.0.0/24": 254, "10.0.0.0/22": 1022, "fd00::/124": 15} {
		a := testAllocator(t, cidr)
		seen := map[string]bool{}
		for range want {
			ip, err := a.AllocateNext()
			if err != nil {
				t.Fatalf("%s: after %d: %v", cidr, len(seen), err)
			}
			if seen[ip.String()] {
				t.Fatalf("%s: %s given twice", cidr, ip)
			}
			if !mustPrefix(cidr).Contains(netip.MustParseAddr(ip.String())) {
				t.Fatalf("%s: %s is outside", cidr, ip)
			}
			seen[ip.String()] = true
		}
		if _, err := a.AllocateNext(); !errors.Is(err, ipallocator.ErrFull) {
			t.Errorf("%s: after %d addresses %v, want full", cidr, want, err)
		}
		if err := a.Release(net.ParseIP(firstKey(seen))); err != nil {
			t.Fatal(err)
		}
		if _, err := a.AllocateNext(); err != nil {
			t.Errorf("%s: after a release: %v", cidr, err)
		}
	}
}

func firstKey(m map[string]bool) string {
	for k := range m {
		return k
	}
	return ""
}

// TestDynamicAddressesLeaveTheLowerPart: KEP-3070.
func TestDynamicAddressesLeaveTheLowerPart(t *testing.T) {
	a := testAllocator(t, "10.0.0.0/16")
	for range 2000 {
		ip, err := a.AllocateNext()
		if err != nil {
			t.Fatal(err)
		}
		if addr := netip.MustParseAddr(ip.String()); addr.Less(netip.MustParseAddr("10.0.1.1")) {
			t.Fatalf("%s is in the part for addresses that people choose", addr)
		}
	}
	if err := a.Allocate(net.ParseIP("10.0.0.10")); err != nil {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	for cidr, want := range map[string][3]uint64{
		"10.0.0.0/16": {1, 65534, 257}, "10.0.0.0/24": {1, 254, 17}, "10.0.0.0/28": {1, 14, 1}, "fd00::/112": {1, 65535, 257},
	} {
		first, last, split := bounds(mustPrefix(cidr))
		if got := [3]uint64{first, last, split}; got != want {
			t.Errorf("%s: first, last, split = %v, want %v", cidr, got, want)
		}
	}
	if got := nth(mustPrefix("10.0.255.0/24"), 255); got != netip.MustParseAddr("10.0.255.255") {
		t.Errorf("nth = %s", got)
	}
	if got := nth(mustPrefix("fd00::/64"), 1<<40); got != netip.MustParseAddr("fd00::100:0:0") {
		t.Errorf("nth = %s", got)
	}
}

func BenchmarkAllocateNext(b *testing.B) {
	a := &allocator{family: api.IPv4Protocol, ranges: map[string][]netip.Prefix{"k": {mustPrefix("10.0.0.0/8")}}, used: map[netip.Addr]bool{}, ready: func() bool { return true }}
	for b.Loop() {
		if _, err := a.AllocateNext(); err != nil {
			b.Fatal(err)
		}
	}
}
