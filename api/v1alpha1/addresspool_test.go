package v1alpha1

import (
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAddressRange(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		size     int64
	}{
		{"192.0.2.0/30", "192.0.2.0-192.0.2.3", 4}, {"192.0.2.7", "192.0.2.7", 1}, {"192.0.2.7/32", "192.0.2.7", 1},
		{"192.0.2.10 - 192.0.2.20", "192.0.2.10-192.0.2.20", 11}, {"fd00::/64", "fd00::-fd00::ffff:ffff:ffff:ffff", 1 << 62},
		{"fd00::1-fd00::10", "fd00::1-fd00::10", 16}, {"192.0.2.1/30", "bits are set", 0}, {"192.0.2.2-192.0.2.1", "before the start", 0},
		{"192.0.2.2-fd00::1", "one family", 0}, {"x", "want a CIDR", 0}, {"1.2.3.4-x", "want two addresses", 0},
	} {
		r, err := ParseAddressRange(tt.in)
		switch {
		case err != nil && (tt.size != 0 || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v", tt.in, err)
		case err == nil && (r.String() != tt.want || r.Size() != tt.size):
			t.Errorf("%s: %s of %d, want %s of %d", tt.in, r, r.Size(), tt.want, tt.size)
		}
	}
}

func TestValidateAddressPool(t *testing.T) {
	taken := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	for _, tt := range []struct {
		addresses []string
		says      string // "": fine
	}{
		{[]string{"192.0.2.0/28", "fd00::/64"}, ""}, {nil, "name addresses"}, {[]string{"10.96.4.0/24"}, "where the ClusterIPs come from"},
		{[]string{"10.0.0.0/8"}, "where the ClusterIPs come from"}, {[]string{"192.0.2.0/28", "192.0.2.15-192.0.2.16"}, "same pool"},
		{[]string{"127.0.0.1"}, "loopback"}, {[]string{"224.0.0.1"}, "multicast"}, {[]string{"::ffff:1.2.3.4"}, "IPv4 addresses as such"},
	} {
		p := &AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: AddressPoolSpec{Addresses: tt.addresses}}
		errs := ValidateAddressPool(p, taken).ToAggregate()
		if tt.says == "" && errs != nil || tt.says != "" && (errs == nil || !strings.Contains(errs.Error(), tt.says)) {
			t.Errorf("%v: %v, want %q", tt.addresses, errs, tt.says)
		}
	}
}

func FuzzParseAddressRange(f *testing.F) {
	f.Add("192.0.2.0/28")
	f.Add("fd00::1-fd00::2")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseAddressRange(s)
		if err != nil {
			return
		}
		if r.To.Less(r.From) || r.Size() < 1 || !r.Contains(r.From) || !r.Contains(r.To) || !r.Overlaps(r) {
			t.Errorf("%q: %s of %d", s, r, r.Size())
		}
		if again, err := ParseAddressRange(r.String()); err != nil || again != r {
			t.Errorf("%q: %s is read as %v, %v", s, r, again, err)
		}
	})
}
