package apiserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/networking"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
)

// allocator hands out ClusterIPs of one family from the ranges of the
// ServiceCIDR objects.
//
// The IPAddress object named after an address is the lock on it: only one
// server can create it. Which addresses are in use is kept in memory besides,
// so that a free one is found without asking anybody; the memory may lag
// behind another server, which costs a retry and never a double allocation.
//
// An allocation has two steps, because REST storage asks for an address
// before it says for which Service: reserve (memory), then record (the
// IPAddress object, naming the Service): together with a Service that is
// created (pairedServices), before one that is changed (recordAllocations).
type allocator struct {
	family    api.IPFamily
	addresses ipAddressStore
	encode    func(runtime.Object) (key string, value []byte, err error) // as the storage of IPAddresses does
	ready     func() bool

	mu     sync.Mutex
	ranges map[string][]netip.Prefix // by name of the ServiceCIDR
	used   map[netip.Addr]bool       // true: an IPAddress exists; false: reserved by a request under way
}

// ipAddressStore is the part of the REST storage of IPAddresses that is used.
type ipAddressStore interface {
	rest.Creater
	rest.GracefulDeleter
}

var _ ipallocator.Interface = (*allocator)(nil)

func newAllocator(family api.IPFamily, f informers.SharedInformerFactory) (*allocator, error) {
	a := &allocator{family: family, ranges: map[string][]netip.Prefix{}, used: map[netip.Addr]bool{}}
	cidrs, ips := f.Networking().V1().ServiceCIDRs().Informer(), f.Networking().V1().IPAddresses().Informer()
	ch, err := cidrs.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { a.setRange(o.(*networkingv1.ServiceCIDR)) },
		UpdateFunc: func(_, o any) { a.setRange(o.(*networkingv1.ServiceCIDR)) },
		DeleteFunc: func(o any) { a.dropRange(o) },
	})
	if err != nil {
		return nil, err
	}
	ih, err := ips.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { a.seen(o.(*networkingv1.IPAddress).Name) },
		DeleteFunc: func(o any) { a.gone(o) },
	})
	if err != nil {
		return nil, err
	}
	a.ready = func() bool { return ch.HasSynced() && ih.HasSynced() }
	return a, nil
}

func (a *allocator) is(addr netip.Addr) bool { return addr.Is6() == (a.family == api.IPv6Protocol) }

func (a *allocator) setRange(c *networkingv1.ServiceCIDR) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.ranges, c.Name)
	if c.DeletionTimestamp != nil { // no new addresses from a range on its way out
		return
	}
	for _, s := range c.Spec.CIDRs {
		if p, err := netip.ParsePrefix(s); err == nil && a.is(p.Addr()) {
			a.ranges[c.Name] = append(a.ranges[c.Name], p.Masked())
		}
	}
}

func (a *allocator) dropRange(o any) {
	if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = t.Obj
	}
	if c, ok := o.(*networkingv1.ServiceCIDR); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.ranges, c.Name)
	}
}

func (a *allocator) seen(name string) {
	if addr, err := netip.ParseAddr(name); err == nil && a.is(addr) {
		a.mu.Lock()
		defer a.mu.Unlock()
		// A reservation of ours stays one until it is recorded: if another server
		// was faster, giving it back must not delete that server's record.
		if _, known := a.used[addr]; !known {
			a.used[addr] = true
		}
	}
}

func (a *allocator) gone(o any) {
	if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = t.Obj
	}
	ip, ok := o.(*networkingv1.IPAddress)
	if !ok {
		return
	}
	if addr, err := netip.ParseAddr(ip.Name); err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.used[addr] { // a reservation of ours stays
			delete(a.used, addr)
		}
	}
}

// Allocate reserves an address that was asked for.
func (a *allocator) Allocate(ip net.IP) error {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return fmt.Errorf("%q is no address", ip)
	}
	addr = addr.Unmap()
	if !a.ready() {
		return ipallocator.ErrNotReady
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.inRange(addr) {
		return &ipallocator.ErrNotInRange{IP: ip, ValidRange: a.rangeText()}
	}
	if _, taken := a.used[addr]; taken {
		return ipallocator.ErrAllocated
	}
	a.used[addr] = false
	return nil
}

// AllocateNext reserves any free address.
func (a *allocator) AllocateNext() (net.IP, error) {
	if !a.ready() {
		return nil, ipallocator.ErrNotReady
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	addr, err := a.free()
	if err != nil {
		return nil, err
	}
	a.used[addr] = false
	return addr.AsSlice(), nil
}

// free finds an address that is not in use: a random one of the upper part of
// a range, so that the lower part stays for addresses that people choose
// (KEP-3070), else any.
func (a *allocator) free() (netip.Addr, error) {
	if len(a.ranges) == 0 {
		return netip.Addr{}, ipallocator.ErrNotReady
	}
	for _, p := range a.prefixes() {
		first, last, split := bounds(p)
		for _, part := range [2][2]uint64{{split, last}, {first, split - 1}} {
			lo, hi := part[0], part[1]
			if lo > hi {
				continue
			}
			size := hi - lo + 1
			start := rand.Uint64N(size)
			// The chance to hit a free one at once is that of the range's
			// emptiness; the walk from there ends at the latest where it began.
			for i := range size {
				addr := nth(p, lo+(start+i)%size)
				if _, taken := a.used[addr]; !taken {
					return addr, nil
				}
			}
		}
	}
	return netip.Addr{}, ipallocator.ErrFull
}

func (a *allocator) prefixes() []netip.Prefix {
	var ps []netip.Prefix
	for _, r := range a.ranges {
		ps = append(ps, r...)
	}
	slices.SortFunc(ps, func(x, y netip.Prefix) int { return x.Addr().Compare(y.Addr()) })
	return ps
}

// bounds gives the offsets of a range's first and last address that may be
// handed out, and where the part for dynamic allocation begins.
func bounds(p netip.Prefix) (first, last, split uint64) {
	bits := p.Addr().BitLen() - p.Bits()
	if bits > 62 {
		bits = 62 // more addresses than anybody can use
	}
	size := uint64(1) << bits
	first, last = 1, size-1
	if p.Addr().Is4() {
		last-- // broadcast
	}
	// min(max(16, size/16), 256), as KEP-3070 has it
	reserved := min(max(16, size/16), 256)
	if size <= 32 || first+reserved > last {
		return first, last, first
	}
	return first, last, first + reserved
}

func nth(p netip.Prefix, n uint64) netip.Addr {
	b := p.Addr().As16()
	for i := 15; i >= 8 && n > 0; i-- {
		n += uint64(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	addr := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return addr.Unmap()
	}
	return addr
}

func (a *allocator) inRange(addr netip.Addr) bool {
	for _, r := range a.ranges {
		for _, p := range r {
			_, last, _ := bounds(p)
			if p.Contains(addr) && addr != p.Addr() && (!addr.Is4() || addr.Compare(nth(p, last)) <= 0) {
				return true
			}
		}
	}
	return false
}

func (a *allocator) rangeText() string {
	var s string
	for i, p := range a.prefixes() {
		if i > 0 {
			s += ","
		}
		s += p.String()
	}
	return s
}

// object is the record of an address of a Service.
func (a *allocator) object(svc *api.Service, addr netip.Addr) *networking.IPAddress {
	return &networking.IPAddress{
		ObjectMeta: metav1.ObjectMeta{
			Name: addr.String(),
			Labels: map[string]string{
				networkingv1.LabelIPAddressFamily: string(a.family),
				networkingv1.LabelManagedBy:       ipallocator.ControllerName,
			},
		},
		Spec: networking.IPAddressSpec{ParentRef: &networking.ParentReference{
			Resource: "services", Namespace: svc.Namespace, Name: svc.Name,
		}},
	}
}

// record turns a reservation into an allocation for a Service. ErrAllocated:
// another server was faster.
func (a *allocator) record(ctx context.Context, svc *api.Service, addr netip.Addr) error {
	obj := a.object(svc, addr)
	_, err := a.addresses.Create(ipAddressContext(ctx, "create", addr), obj, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return ipallocator.ErrAllocated
	}
	if err != nil {
		return err
	}
	a.recorded(addr, true)
	return nil
}

// recorded notes whether an address in use has its IPAddress.
func (a *allocator) recorded(addr netip.Addr, yes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used[addr] = yes
}

// ipAddressContext makes a call into the REST storage of IPAddresses look like
// a request for one: validation reads the version from it.
func ipAddressContext(ctx context.Context, verb string, addr netip.Addr) context.Context {
	return genericapirequest.WithRequestInfo(genericapirequest.WithNamespace(ctx, metav1.NamespaceNone), &genericapirequest.RequestInfo{
		IsResourceRequest: true, Verb: verb, APIPrefix: "apis", APIGroup: networkingv1.GroupName, APIVersion: "v1",
		Resource: "ipaddresses", Name: addr.String(),
	})
}

// foreign notes that another server holds an address.
func (a *allocator) foreign(addr netip.Addr) {
	a.recorded(addr, true)
}

// Release gives an address back; one that is not in use is no error.
func (a *allocator) Release(ip net.IP) error {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return nil
	}
	addr = addr.Unmap()
	a.mu.Lock()
	recorded, known := a.used[addr]
	if known && !recorded {
		delete(a.used, addr)
	}
	a.mu.Unlock()
	if known && !recorded {
		return nil
	}
	if _, _, err := a.addresses.Delete(ipAddressContext(context.Background(), "delete", addr), addr.String(), rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("release %s: %w", addr, err) // the repair loop takes it from here
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, addr)
	return nil
}

// ForEach visits the addresses in use.
func (a *allocator) ForEach(f func(net.IP)) {
	a.mu.Lock()
	all := make([]netip.Addr, 0, len(a.used))
	for addr := range a.used {
		all = append(all, addr)
	}
	a.mu.Unlock()
	for _, addr := range all {
		f(addr.AsSlice())
	}
}

// CIDR gives the first range.
func (a *allocator) CIDR() net.IPNet {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ps := a.prefixes(); len(ps) > 0 {
		return ipNet(ps[0])
	}
	return net.IPNet{}
}

// IPFamily of the addresses.
func (a *allocator) IPFamily() api.IPFamily { return a.family }

// Has says whether an address is in use.
func (a *allocator) Has(ip net.IP) bool {
	addr, _ := netip.AddrFromSlice(ip)
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.used[addr.Unmap()]
	return ok
}

// Destroy and EnableMetrics are asked for by the interface; there is nothing
// to do.
func (a *allocator) Destroy()       {}
func (a *allocator) EnableMetrics() {}

// DryRun gives an allocator that answers as this one would and keeps nothing.
func (a *allocator) DryRun() ipallocator.Interface { return dryRun{a} }

type dryRun struct{ *allocator }

func (d dryRun) Allocate(ip net.IP) error {
	if err := d.allocator.Allocate(ip); err != nil {
		return err
	}
	return d.allocator.Release(ip)
}

func (d dryRun) AllocateNext() (net.IP, error) {
	ip, err := d.allocator.AllocateNext()
	if err != nil {
		return nil, err
	}
	return ip, d.allocator.Release(ip)
}

func (d dryRun) Release(net.IP) error          { return nil }
func (d dryRun) DryRun() ipallocator.Interface { return d }
