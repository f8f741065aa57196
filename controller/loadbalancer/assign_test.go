package loadbalancer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

func pool(name string, addresses ...string) *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AddressPoolSpec{Addresses: addresses}}
}

func service(name string, age int, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, CreationTimestamp: metav1.Unix(int64(1000-age), 0)},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

func has(ips ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		for _, ip := range ips {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
		}
	}
}

func wants(ip string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerIP = ip }
}

func from(p string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Annotations = map[string]string{v1alpha1.AnnotationAddressPool: p} }
}

func dual(policy corev1.IPFamilyPolicy) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		s.Spec.IPFamilyPolicy = &policy
	}
}

func class(c string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerClass = &c }
}

func TestAssign(t *testing.T) {
	no := false
	manual := pool("manual", "198.51.100.1-198.51.100.2")
	manual.Spec.AutoAssign = &no
	limited := pool("limited", "203.0.113.1")
	limited.Spec.Namespaces = []string{"other"}
	labelled := pool("labelled", "203.0.113.9")
	labelled.Spec.ServiceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	two := pool("default", "192.0.2.1-192.0.2.2")
	for _, tt := range []struct {
		name     string
		services []*corev1.Service
		pools    []*v1alpha1.AddressPool
		want     string // name=addresses, oldest first; ! trouble
	}{
		{"no pool", []*corev1.Service{service("a", 1)}, nil, "a=!there is no AddressPool"},
		{"in turn", []*corev1.Service{service("young", 1), service("old", 2)}, []*v1alpha1.AddressPool{two}, "old=192.0.2.1 young=192.0.2.2"},
		{"exhausted", []*corev1.Service{service("c", 1), service("a", 3), service("b", 2)}, []*v1alpha1.AddressPool{two}, "a=192.0.2.1 b=192.0.2.2 c=!no IPv4 address is free"},
		{"it keeps what it has", []*corev1.Service{service("a", 2), service("b", 1, has("192.0.2.1"))}, []*v1alpha1.AddressPool{two}, "a=192.0.2.2 b=192.0.2.1"},
		{"two have one: the older", []*corev1.Service{service("a", 1, has("192.0.2.2")), service("b", 2, has("192.0.2.2"))}, []*v1alpha1.AddressPool{two}, "b=192.0.2.2 a=192.0.2.1"},
		{"no pool has it any more", []*corev1.Service{service("a", 1, has("192.0.2.77"))}, []*v1alpha1.AddressPool{two}, "a=192.0.2.1"},
		{"a wish", []*corev1.Service{service("a", 1, wants("192.0.2.2"))}, []*v1alpha1.AddressPool{two}, "a=192.0.2.2"},
		{"a wish changes", []*corev1.Service{service("a", 1, wants("192.0.2.2"), has("192.0.2.1"))}, []*v1alpha1.AddressPool{two}, "a=192.0.2.2"},
		{"a wish that another has", []*corev1.Service{service("a", 2, has("192.0.2.2")), service("b", 1, wants("192.0.2.2"))}, []*v1alpha1.AddressPool{two}, "a=192.0.2.2 b=!192.0.2.2 belongs to the Service ns/a"},
		{"a wish outside", []*corev1.Service{service("a", 1, wants("192.0.3.1"))}, []*v1alpha1.AddressPool{two}, "a=!in no pool"},
		{"a wish of the other family", []*corev1.Service{service("a", 1, wants("fd00::1"))}, []*v1alpha1.AddressPool{two}, "a=!not of a family"},
		{"a wish that is none", []*corev1.Service{service("a", 1, wants("x"))}, []*v1alpha1.AddressPool{two}, "a=!is no address"},
		{"only on demand", []*corev1.Service{service("a", 1)}, []*v1alpha1.AddressPool{manual}, "a=!autoAssign"},
		{"on demand by name", []*corev1.Service{service("a", 1, from("manual"))}, []*v1alpha1.AddressPool{two, manual}, "a=198.51.100.1"},
		{"on demand by address", []*corev1.Service{service("a", 1, wants("198.51.100.2"))}, []*v1alpha1.AddressPool{two, manual}, "a=198.51.100.2"},
		{"a pool that is not there", []*corev1.Service{service("a", 1, from("x"))}, []*v1alpha1.AddressPool{two}, "a=!there is no AddressPool x"},
		{"another namespace's", []*corev1.Service{service("a", 1)}, []*v1alpha1.AddressPool{limited}, "a=!not for the namespace ns"},
		{"other labels", []*corev1.Service{service("a", 1)}, []*v1alpha1.AddressPool{labelled}, "a=!the labels"},
		{"another class", []*corev1.Service{service("a", 1, class("cloud"))}, []*v1alpha1.AddressPool{two}, ""},
		{"our class", []*corev1.Service{service("a", 1, class(v1alpha1.LoadBalancerClass))}, []*v1alpha1.AddressPool{two}, "a=192.0.2.1"},
		{"two families", []*corev1.Service{service("a", 1, dual(corev1.IPFamilyPolicyRequireDualStack))}, []*v1alpha1.AddressPool{pool("p", "192.0.2.0/30", "fd00::/64")}, "a=192.0.2.0,fd00::"},
		{"two preferred, one there", []*corev1.Service{service("a", 1, dual(corev1.IPFamilyPolicyPreferDualStack))}, []*v1alpha1.AddressPool{two}, "a=192.0.2.1"},
		{"two required, one there", []*corev1.Service{service("a", 1, dual(corev1.IPFamilyPolicyRequireDualStack))}, []*v1alpha1.AddressPool{two}, "a=192.0.2.1!no IPv6 address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := assign(tt.services, tt.pools)
			var text []string
			for _, w := range got {
				var ips []string
				for _, a := range w.got {
					ips = append(ips, a.String())
				}
				s := w.service.Name + "=" + strings.Join(ips, ",")
				if w.trouble != "" {
					s += "!" + w.trouble
				}
				text = append(text, s)
			}
			all := strings.Join(text, " ")
			head, said, _ := strings.Cut(tt.want, "!")
			if !strings.HasPrefix(all, head) || !strings.Contains(all, said) || said == "" && strings.Contains(all, "!") {
				t.Errorf("got  %s\nwant %s", all, tt.want)
			}
		})
	}
}

// TestAssignIsStable: whatever comes and goes, nobody's address changes, and
// none is given twice.
func TestAssignIsStable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	pools := []*v1alpha1.AddressPool{pool("a", "192.0.2.0/29"), pool("b", "198.51.100.4-198.51.100.9")}
	var services []*corev1.Service
	for round := range 400 {
		if len(services) > 0 && rnd.IntN(3) == 0 {
			i := rnd.IntN(len(services))
			services = slices.Delete(services, i, i+1)
		} else {
			services = append(services, service(fmt.Sprintf("s%d", round), rnd.IntN(50)))
		}
		before := map[string]string{}
		for _, s := range services {
			if in := s.Status.LoadBalancer.Ingress; len(in) > 0 {
				before[s.Name] = in[0].IP
			}
		}
		seen := map[netip.Addr]string{}
		rnd.Shuffle(len(services), func(i, j int) { services[i], services[j] = services[j], services[i] })
		for _, w := range assign(services, pools) {
			for _, a := range w.got {
				if other := seen[a]; other != "" {
					t.Fatalf("round %d: %s has %s, and %s too", round, other, a, w.service.Name)
				}
				seen[a] = w.service.Name
				if was := before[w.service.Name]; was != "" && was != a.String() {
					t.Fatalf("round %d: %s had %s, gets %s", round, w.service.Name, was, a)
				}
			}
			w.service.Status.LoadBalancer.Ingress = nil
			for _, a := range w.got {
				has(a.String())(w.service)
			}
		}
		if want := min(14, len(services)); len(seen) != want {
			t.Fatalf("round %d: %d of %d services have an address, 14 are there", round, len(seen), len(services))
		}
	}
}

// TestChoose: addresses spread over nodes, and those of the others stay when
// one goes.
func TestChoose(t *testing.T) {
	nodes := []string{"a", "b", "c", "d"}
	count := map[string]int{}
	a := netip.MustParseAddr("192.0.2.0")
	for range 400 {
		owner := choose(a, nodes)
		count[owner]++
		for _, gone := range nodes {
			left := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return n == gone })
			if now := choose(a, left); gone != owner && now != owner || now == gone {
				t.Fatalf("%s: %s moves to %s when %s goes", a, owner, now, gone)
			}
		}
		a = a.Next()
	}
	for n, c := range count {
		if c < 60 || c > 140 {
			t.Errorf("node %s has %d of 400 addresses: %v", n, c, count)
		}
	}
	if choose(a, nil) != "" {
		t.Error("no nodes, no owner")
	}
}
