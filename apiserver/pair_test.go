package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	etcd "go.etcd.io/etcd/client/v3/kubernetes"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"

	"github.com/fingerpost/fingerpost/store"
)

// TestServiceAndAddressAreOneWrite: a Service and the record of its ClusterIP
// come with one revision, and neither without the other.
func TestServiceAndAddressAreOneWrite(t *testing.T) {
	s := startOne(t)
	ctx, services, addresses := t.Context(), s.admin.CoreV1().Services("default"), s.admin.NetworkingV1().IPAddresses()
	svc, err := services.Create(ctx, service("web", ""), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	record := func(ip string) *networkingv1.IPAddress {
		t.Helper()
		a, err := addresses.Get(ctx, ip, metav1.GetOptions{})
		if err != nil {
			t.Fatalf("the record of %s: %v", ip, err)
		}
		return a
	}
	a := record(svc.Spec.ClusterIP)
	p := a.Spec.ParentRef
	if a.ResourceVersion != svc.ResourceVersion || a.UID == "" || a.CreationTimestamp.IsZero() || p.Resource != "services" || p.Namespace != "default" || p.Name != "web" ||
		a.Labels[networkingv1.LabelManagedBy] != ipallocator.ControllerName || a.Labels[networkingv1.LabelIPAddressFamily] != "IPv4" {
		t.Errorf("the Service came with revision %s, its address is %+v", svc.ResourceVersion, a)
	}
	count := func() int {
		t.Helper()
		l, err := addresses.List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(l.Items)
	}
	before := count()
	if _, err := services.Create(ctx, service("web", ""), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("the same name again: %v", err)
	}
	bad := service("bad", "")
	bad.Spec.Ports[0].Port = 0
	if _, err := services.Create(ctx, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a bad port: %v", err)
	}
	if _, err := services.Create(ctx, service("dry", ""), metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
		t.Error(err)
	}
	if _, err := services.Create(ctx, service("headless", "None"), metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	generated := service("", "")
	generated.GenerateName = "gen-"
	if generated, err = services.Create(ctx, generated, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	} else if p := record(generated.Spec.ClusterIP).Spec.ParentRef; p.Name != generated.Name {
		t.Errorf("the address of %s names %s", generated.Name, p.Name)
	}
	if got := count(); got != before+1 {
		t.Errorf("%d addresses after requests that need one, were %d", got, before)
	}

	// An address that this server believes to be free is another one's.
	alloc := s.core.allocs[api.IPv4Protocol]
	forget := func(addr netip.Addr) {
		alloc.mu.Lock()
		defer alloc.mu.Unlock()
		delete(alloc.used, addr)
	}
	forget(netip.MustParseAddr(svc.Spec.ClusterIP))
	if _, err := services.Create(ctx, service("late", svc.Spec.ClusterIP), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("an address of another server was given: %v", err)
	}
	var taken []netip.Addr
	for i := range 5 {
		o, err := services.Create(ctx, service(fmt.Sprintf("taken-%d", i), ""), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, netip.MustParseAddr(o.Spec.ClusterIP))
	}
	free := netip.MustParseAddr("10.96.14.200")
	alloc.mu.Lock()
	for i := range 4096 {
		addr := nth(mustPrefix("10.96.0.0/20"), uint64(i))
		if _, known := alloc.used[addr]; !known && addr != free {
			alloc.used[addr] = true
		}
	}
	alloc.mu.Unlock()
	for _, addr := range taken {
		forget(addr)
	}
	o, err := services.Create(ctx, service("lucky", ""), metav1.CreateOptions{})
	if err != nil || o.Spec.ClusterIP != free.String() {
		t.Errorf("with one address left that nobody has: %v, %v", o.Spec.ClusterIP, err)
	}
	if err := services.Delete(ctx, "lucky", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := addresses.Get(ctx, free.String(), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after the deletion the address is still recorded: %v", err)
	}
}

// TestPairing: the transaction writes all or nothing, and says what was in the
// way.
func TestPairing(t *testing.T) {
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	c := newPairing(st.Direct())
	a := testAllocator(t, "10.0.0.0/24")
	addr, second := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.8")
	put := func(key string, addrs ...netip.Addr) (etcd.PutResponse, error) {
		p := &pair{}
		for _, addr := range addrs {
			p.addresses = append(p.addresses, pairedAddress{a, addr, "/ip/" + addr.String(), []byte("record of " + key)})
		}
		return c.Kubernetes.OptimisticPut(context.WithValue(t.Context(), pairKey{}, p), key, []byte(key), 0, etcd.PutOptions{})
	}
	have := func(key string) bool {
		r, err := c.Kubernetes.Get(t.Context(), key, etcd.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.KV != nil
	}
	if r, err := put("/s/a", addr); err != nil || !r.Succeeded || !have("/s/a") || !have("/ip/10.0.0.7") || !a.used[addr] {
		t.Errorf("first: %+v, %v", r, err)
	}
	var taken *takenError
	if r, err := put("/s/b", second, addr); !errors.As(err, &taken) || taken.addr != addr || r.Succeeded || have("/s/b") || have("/ip/10.0.0.8") || a.used[second] {
		t.Errorf("a taken address: %+v, %v", r, err)
	}
	if r, err := put("/s/a", second); err != nil || r.Succeeded || have("/ip/10.0.0.8") {
		t.Errorf("a taken name: %+v, %v", r, err)
	}
	if r, err := put("/s/a", addr); err != nil || r.Succeeded {
		t.Errorf("both taken: %+v, %v: want to be told of the name", r, err)
	}
	ended, cancel := context.WithCancel(context.WithValue(t.Context(), pairKey{}, &pair{addresses: []pairedAddress{{a, second, "/ip/x", nil}}}))
	cancel()
	if _, err := c.Kubernetes.OptimisticPut(ended, "/s/c", nil, 0, etcd.PutOptions{}); err == nil || a.used[second] {
		t.Errorf("a request that ended: %v", err)
	}
}
