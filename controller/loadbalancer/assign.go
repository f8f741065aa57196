package loadbalancer

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// wish is a Service that wants addresses, and what it gets.
type wish struct {
	service  *corev1.Service
	families []corev1.IPFamily
	got      []netip.Addr
	trouble  string // why it did not get everything
}

// serves says whether the addresses of a Service are this controller's business.
func serves(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil &&
		(s.Spec.LoadBalancerClass == nil || *s.Spec.LoadBalancerClass == v1alpha1.LoadBalancerClass)
}

// assign gives every Service its addresses. It is a pure function of what there
// is, so that it gives the same after a restart.
func assign(services []*corev1.Service, pools []*v1alpha1.AddressPool) []*wish {
	var all []*wish
	for _, s := range services {
		if serves(s) {
			all = append(all, &wish{service: s, families: s.Spec.IPFamilies})
		}
	}
	slices.SortFunc(all, func(a, b *wish) int {
		if c := a.service.CreationTimestamp.Compare(b.service.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(key(a.service), key(b.service))
	})
	pools = slices.Clone(pools)
	slices.SortFunc(pools, func(a, b *v1alpha1.AddressPool) int { return strings.Compare(a.Name, b.Name) })
	taken := map[netip.Addr]*corev1.Service{}
	// First those that have one keep it: nobody's address may be given away.
	for _, w := range all {
		usable, _ := w.pools(pools)
		want, _ := netip.ParseAddr(w.service.Spec.LoadBalancerIP)
		for _, in := range w.service.Status.LoadBalancer.Ingress {
			a, err := netip.ParseAddr(in.IP)
			if err != nil || taken[a] != nil || w.has(a.Is4()) || !w.wants(a.Is4()) || !inPools(usable, a) {
				continue
			}
			if want.IsValid() && want.Is4() == a.Is4() && want != a {
				continue // the wish is newer than the address
			}
			w.take(a, taken)
		}
	}
	for _, w := range all {
		w.fill(pools, taken)
	}
	return all
}

func key(s *corev1.Service) string { return s.Namespace + "/" + s.Name }

func (w *wish) take(a netip.Addr, taken map[netip.Addr]*corev1.Service) {
	taken[a] = w.service
	w.got = append(w.got, a)
}

func (w *wish) wants(v4 bool) bool {
	f := corev1.IPv6Protocol
	if v4 {
		f = corev1.IPv4Protocol
	}
	return slices.Contains(w.families, f)
}

func (w *wish) has(v4 bool) bool {
	return slices.ContainsFunc(w.got, func(a netip.Addr) bool { return a.Is4() == v4 })
}

// pools are those that the Service may use; why: it may use none.
func (w *wish) pools(all []*v1alpha1.AddressPool) (out []*v1alpha1.AddressPool, why string) {
	asked := w.service.Annotations[v1alpha1.AnnotationAddressPool]
	for _, p := range all {
		if asked != "" && p.Name != asked || asked == "" && p.Spec.AutoAssign != nil && !*p.Spec.AutoAssign && w.service.Spec.LoadBalancerIP == "" {
			continue
		}
		if len(p.Spec.Namespaces) > 0 && !slices.Contains(p.Spec.Namespaces, w.service.Namespace) {
			why = fmt.Sprintf("the pool %s is not for the namespace %s", p.Name, w.service.Namespace)
			continue
		}
		if p.Spec.ServiceSelector != nil {
			if sel, err := metav1.LabelSelectorAsSelector(p.Spec.ServiceSelector); err != nil || !sel.Matches(labels.Set(w.service.Labels)) {
				why = fmt.Sprintf("the labels are not those that the pool %s is for", p.Name)
				continue
			}
		}
		out = append(out, p)
	}
	switch {
	case len(out) > 0:
		return out, ""
	case len(all) == 0:
		return nil, "there is no AddressPool: make one with addresses of your network that nothing else uses, such as: " + Example
	case why != "":
		return nil, why
	case asked != "":
		return nil, fmt.Sprintf("there is no AddressPool %s (annotation %s)", asked, v1alpha1.AnnotationAddressPool)
	}
	return nil, "no AddressPool gives addresses to Services that do not ask for it (autoAssign); choose one with the annotation " + v1alpha1.AnnotationAddressPool
}

// Example is a command that makes a pool.
const Example = `echo '{"apiVersion":"fingerpost.dev/v1alpha1","kind":"AddressPool","metadata":{"name":"default"},"spec":{"addresses":["192.0.2.10-192.0.2.20"]}}' | kubectl apply -f -`

func inPools(pools []*v1alpha1.AddressPool, a netip.Addr) bool {
	return slices.ContainsFunc(pools, func(p *v1alpha1.AddressPool) bool {
		return slices.ContainsFunc(p.Ranges(), func(r v1alpha1.AddressRange) bool { return r.Contains(a) })
	})
}

// fill looks for the addresses that are missing.
func (w *wish) fill(all []*v1alpha1.AddressPool, taken map[netip.Addr]*corev1.Service) {
	pools, why := w.pools(all)
	if len(pools) == 0 {
		w.trouble = why
		return
	}
	if s := w.service.Spec.LoadBalancerIP; s != "" {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			w.trouble = fmt.Sprintf("spec.loadBalancerIP %q is no address", s)
			return
		case slices.Contains(w.got, a):
		case !w.wants(a.Is4()):
			w.trouble = fmt.Sprintf("spec.loadBalancerIP %s is not of a family of the Service (%v)", a, w.families)
			return
		case !inPools(pools, a):
			w.trouble = fmt.Sprintf("spec.loadBalancerIP %s is in no pool that the Service may use", a)
			return
		case taken[a] != nil:
			w.trouble = fmt.Sprintf("spec.loadBalancerIP %s belongs to the Service %s", a, key(taken[a]))
			return
		default:
			w.take(a, taken)
		}
	}
	var names []string
	for _, p := range pools {
		names = append(names, p.Name)
	}
	missing := []string{}
	for _, f := range w.families {
		v4 := f == corev1.IPv4Protocol
		if w.has(v4) {
			continue
		}
		if a, ok := free(pools, v4, taken); ok {
			w.take(a, taken)
		} else {
			missing = append(missing, string(f))
		}
	}
	// Of two families one may do, unless both were required.
	policy := w.service.Spec.IPFamilyPolicy
	required := policy == nil || *policy != corev1.IPFamilyPolicyPreferDualStack
	if len(missing) > 0 && (required || len(w.got) == 0) {
		w.trouble = fmt.Sprintf("no %s address is free in the pools that the Service may use (%s)", strings.Join(missing, " and no "), strings.Join(names, ", "))
	}
}

// free finds the lowest address of a family that nobody has. The network and
// broadcast addresses of a range written as a CIDR are addresses like others.
func free(pools []*v1alpha1.AddressPool, v4 bool, taken map[netip.Addr]*corev1.Service) (netip.Addr, bool) {
	for _, p := range pools {
		for _, r := range p.Ranges() {
			if r.From.Is4() != v4 {
				continue
			}
			// It ends after as many steps as there are Services.
			for a := r.From; a.IsValid() && r.Contains(a); a = a.Next() {
				if taken[a] == nil {
					return a, true
				}
			}
		}
	}
	return netip.Addr{}, false
}

// choose is rendezvous hashing: the node with the highest number for this
// address.
func choose(a netip.Addr, nodes []string) string {
	var best string
	var most uint64
	for _, n := range nodes {
		h := fnv.New64a()
		_, _ = h.Write(a.AsSlice())
		_, _ = h.Write([]byte(n))
		// FNV's last bytes hardly reach the high bits.
		v := h.Sum64()
		v ^= v >> 33
		v *= 0xff51afd7ed558ccd
		v ^= v >> 33
		if best == "" || v > most || v == most && n < best {
			best, most = n, v
		}
	}
	return best
}
