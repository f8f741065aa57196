package apiserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	corev1listers "k8s.io/client-go/listers/core/v1"
	networkingv1listers "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/networking"
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

// memory is a store of IPAddresses.
type memory struct {
	objects map[string]*networking.IPAddress
}

func (m *memory) New() runtime.Object { return &networking.IPAddress{} }

func (m *memory) Create(_ context.Context, obj runtime.Object, _ rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	ip := obj.(*networking.IPAddress)
	if m.objects[ip.Name] != nil {
		return nil, apierrors.NewAlreadyExists(networking.Resource("ipaddresses"), ip.Name)
	}
	m.objects[ip.Name] = ip
	return obj, nil
}

func (m *memory) Delete(_ context.Context, name string, _ rest.ValidateObjectFunc, _ *metav1.DeleteOptions) (runtime.Object, bool, error) {
	if m.objects[name] == nil {
		return nil, false, apierrors.NewNotFound(networking.Resource("ipaddresses"), name)
	}
	delete(m.objects, name)
	return nil, true, nil
}

// TestRepair: what a crash between the two writes of an allocation leaves.
func TestRepair(t *testing.T) {
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	old, young := metav1.NewTime(now.Add(-2*repairAge)), metav1.NewTime(now.Add(-repairAge/2))
	services, addresses := cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil), cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil)
	m := &memory{map[string]*networking.IPAddress{}}
	a := testAllocator(t, "10.0.0.0/24")
	a.addresses = m
	addService := func(name, ip string, at metav1.Time) {
		if err := services.Add(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, CreationTimestamp: at}, Spec: corev1.ServiceSpec{ClusterIPs: []string{ip}}}); err != nil {
			t.Fatal(err)
		}
	}
	addAddress := func(ip, by string, at metav1.Time) {
		meta := metav1.ObjectMeta{Name: ip, CreationTimestamp: at, Labels: map[string]string{networkingv1.LabelManagedBy: by}}
		if err := addresses.Add(&networkingv1.IPAddress{ObjectMeta: meta}); err != nil {
			t.Fatal(err)
		}
		m.objects[ip] = &networking.IPAddress{ObjectMeta: meta}
		a.seen(ip)
	}
	addService("good", "10.0.0.20", old)
	addAddress("10.0.0.20", ipallocator.ControllerName, old)
	addService("unrecorded", "10.0.0.21", old)
	addService("new", "10.0.0.22", young)
	addAddress("10.0.0.23", ipallocator.ControllerName, old)
	addAddress("10.0.0.24", ipallocator.ControllerName, young)
	addAddress("10.0.0.25", "a person", old)
	r := &repair{
		allocs: map[api.IPFamily]*allocator{api.IPv4Protocol: a}, services: corev1listers.NewServiceLister(services), addresses: networkingv1listers.NewIPAddressLister(addresses),
		now: func() time.Time { return now }, log: func(string, ...any) {},
	}
	if err := r.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for ip := range m.objects {
		got = append(got, ip)
	}
	slices.Sort(got)
	if want := []string{"10.0.0.20", "10.0.0.21", "10.0.0.24", "10.0.0.25"}; !slices.Equal(got, want) {
		t.Errorf("addresses after the repair: %v, want %v", got, want)
	}
	if ref := m.objects["10.0.0.21"].Spec.ParentRef; ref == nil || ref.Name != "unrecorded" {
		t.Errorf("the repaired address belongs to %+v", ref)
	}
	if a.Has(net.ParseIP("10.0.0.23")) {
		t.Error("the address of nobody is still taken")
	}
}
