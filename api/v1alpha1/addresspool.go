package v1alpha1

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// LoadBalancerClass is the spec.loadBalancerClass of Services that get
	// addresses of pools; those without a class get them, too.
	LoadBalancerClass = "fingerpost.dev/l2"
	// AnnotationAddressPool on a Service: the AddressPool to take its
	// addresses from.
	AnnotationAddressPool = "fingerpost.dev/address-pool"
	// LabelAddressOwner on a Lease: its holder announces the address in the
	// annotation of the same name.
	LabelAddressOwner = "fingerpost.dev/load-balancer-address"
)

// AddressPool is a set of addresses for Services of type LoadBalancer.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type AddressPool struct {
	metav1.TypeMeta `json:",inline"`
	// Standard object's metadata.
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Which addresses, and for whom.
	Spec AddressPoolSpec `json:"spec"`
	// How many are in use. Written by the server only.
	Status AddressPoolStatus `json:"status,omitempty"`
}

// AddressPoolList is a list of AddressPools.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type AddressPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	Items           []AddressPool `json:"items" protobuf:"bytes,2,rep,name=items"`
}

// AddressPoolSpec says which addresses, and for whom.
type AddressPoolSpec struct {
	// CIDRs such as 192.0.2.0/28, or ranges such as 192.0.2.10-192.0.2.20, of
	// both families. Nobody else may use them.
	// +listType=atomic
	Addresses []string `json:"addresses"`
	// Whether Services that do not ask for this pool get addresses of it;
	// true if not given.
	// +optional
	AutoAssign *bool `json:"autoAssign,omitempty"`
	// Only Services with these labels. None: all.
	// +optional
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector,omitempty"`
	// Only Services in these namespaces. None: all.
	// +optional
	// +listType=set
	Namespaces []string `json:"namespaces,omitempty"`
}

// AddressPoolStatus says how many addresses are in use.
type AddressPoolStatus struct {
	// Number of addresses.
	// +optional
	Total int64 `json:"total,omitempty"`
	// Number of those that Services have.
	// +optional
	Used int64 `json:"used,omitempty"`
}

// AddressRange is a run of addresses, both ends included.
//
// +k8s:deepcopy-gen=false
// +k8s:openapi-gen=false
type AddressRange struct{ From, To netip.Addr }

// ParseAddressRange reads a CIDR, a range or one address.
func ParseAddressRange(s string) (AddressRange, error) {
	if from, to, ok := strings.Cut(s, "-"); ok {
		a, err1 := netip.ParseAddr(strings.TrimSpace(from))
		b, err2 := netip.ParseAddr(strings.TrimSpace(to))
		switch {
		case err1 != nil || err2 != nil:
			return AddressRange{}, errors.New("want two addresses, such as 192.0.2.10-192.0.2.20")
		case a.Is4() != b.Is4():
			return AddressRange{}, errors.New("both ends must be of one family")
		case b.Less(a):
			return AddressRange{}, errors.New("the end comes before the start")
		}
		return AddressRange{a, b}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return AddressRange{a, a}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return AddressRange{}, errors.New("want a CIDR such as 192.0.2.0/28, or a range such as 192.0.2.10-192.0.2.20")
	}
	if p != p.Masked() {
		return AddressRange{}, fmt.Errorf("bits are set behind the prefix: write %s, or the range that you mean", p.Masked())
	}
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	to, _ := netip.AddrFromSlice(last)
	return AddressRange{p.Addr(), to}, nil
}

// Contains says whether an address is in the range.
func (r AddressRange) Contains(a netip.Addr) bool {
	return a.Is4() == r.From.Is4() && !a.Less(r.From) && !r.To.Less(a)
}

// Overlaps says whether two ranges share an address.
func (r AddressRange) Overlaps(o AddressRange) bool {
	return r.From.Is4() == o.From.Is4() && !r.To.Less(o.From) && !o.To.Less(r.From)
}

// Size is the number of addresses; of very many it says 2^62.
func (r AddressRange) Size() int64 {
	from, to := new(big.Int).SetBytes(r.From.AsSlice()), new(big.Int).SetBytes(r.To.AsSlice())
	n := to.Sub(to, from).Add(to, big.NewInt(1))
	const most = int64(1) << 62
	if !n.IsInt64() || n.Int64() > most {
		return most
	}
	return n.Int64()
}

// String writes it as people do.
func (r AddressRange) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	return r.From.String() + "-" + r.To.String()
}

// Ranges are the addresses of a pool; entries that are not understood are left
// out.
func (p *AddressPool) Ranges() (out []AddressRange) {
	for _, s := range p.Spec.Addresses {
		if r, err := ParseAddressRange(s); err == nil {
			out = append(out, r)
		}
	}
	return out
}

// maxPoolEntries bounds a pool: it is gone through for each Service.
const maxPoolEntries = 256

// ValidateAddressPool checks an AddressPool. Taken are ranges that it must not
// touch, such as those of the ClusterIPs.
func ValidateAddressPool(p *AddressPool, taken []netip.Prefix) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(&p.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	spec := field.NewPath("spec")
	at := spec.Child("addresses")
	switch n := len(p.Spec.Addresses); {
	case n == 0:
		errs = append(errs, field.Required(at, "name addresses that nothing else uses, such as 192.0.2.10-192.0.2.20"))
	case n > maxPoolEntries:
		return append(errs, field.TooMany(at, n, maxPoolEntries))
	}
	var seen []AddressRange
	for i, s := range p.Spec.Addresses {
		r, err := ParseAddressRange(s)
		if err != nil {
			errs = append(errs, field.Invalid(at.Index(i), s, err.Error()))
			continue
		}
		if why := unusable(r, taken); why != "" {
			errs = append(errs, field.Invalid(at.Index(i), s, why))
		}
		if j := slices.IndexFunc(seen, r.Overlaps); j >= 0 {
			errs = append(errs, field.Invalid(at.Index(i), s, fmt.Sprintf("overlaps with %s of the same pool", seen[j])))
		}
		seen = append(seen, r)
	}
	if p.Spec.ServiceSelector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(p.Spec.ServiceSelector, metav1validation.LabelSelectorValidationOptions{}, spec.Child("serviceSelector"))...)
	}
	for i, ns := range p.Spec.Namespaces {
		for _, m := range validation.IsDNS1123Label(ns) {
			errs = append(errs, field.Invalid(spec.Child("namespaces").Index(i), ns, m))
		}
	}
	return errs
}

func unusable(r AddressRange, taken []netip.Prefix) string {
	for _, a := range []netip.Addr{r.From, r.To} {
		switch {
		case a.Is4In6():
			return "write IPv4 addresses as such"
		case a.Zone() != "":
			return "an address with a zone is not known to others"
		case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a.IsLinkLocalUnicast():
			return "must hold unicast addresses that others can reach: no loopback, link-local, multicast or unspecified ones"
		}
	}
	for _, p := range taken {
		if first, err := ParseAddressRange(p.Masked().String()); err == nil && r.Overlaps(first) {
			return fmt.Sprintf("overlaps with %s, where the ClusterIPs come from", p)
		}
	}
	return ""
}
