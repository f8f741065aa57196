package endpoints

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// slice reads "80,443: 10.0.0.1 (10.0.0.2) !10.0.0.3": ports, then ready,
// (not ready) and !terminating endpoints.
func slice(text string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	ports, addrs, _ := strings.Cut(text, ":")
	for _, p := range strings.FieldsFunc(ports, func(r rune) bool { return r == ',' }) {
		var n int32
		fmt.Sscan(p, &n)
		name := "p" + p
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Port: &n})
	}
	for _, a := range strings.Fields(addrs) {
		ready, terminating := !strings.HasPrefix(a, "("), strings.HasPrefix(a, "!")
		e := discoveryv1.Endpoint{Addresses: []string{strings.Trim(a, "()!")}}
		e.Conditions.Ready, e.Conditions.Terminating = &ready, &terminating
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func show(subsets []corev1.EndpointSubset) string {
	var lines []string
	for _, s := range subsets {
		var ports, addrs []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprint(p.Port))
		}
		for _, a := range s.Addresses {
			addrs = append(addrs, " "+a.IP)
		}
		for _, a := range s.NotReadyAddresses {
			addrs = append(addrs, " ("+a.IP+")")
		}
		lines = append(lines, strings.Join(ports, ",")+":"+strings.Join(addrs, ""))
	}
	return strings.Join(lines, "\n")
}

func TestProject(t *testing.T) {
	withPorts := corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}
	tests := []struct {
		name string
		spec corev1.ServiceSpec
		in   []string
		want string
	}{
		{"nothing", withPorts, []string{":"}, ""},
		{"slices of the same ports are one subset", withPorts, []string{"80: 10.0.0.2 (10.0.0.4)", "80: 10.0.0.1"}, "80: 10.0.0.1 10.0.0.2 (10.0.0.4)"},
		{"several ports", withPorts, []string{"443,80: 10.0.0.1"}, "443,80: 10.0.0.1"},
		{"overlapping sets of ports", withPorts, []string{"80,443: 10.0.0.1", "80: 10.0.0.2"}, "443: 10.0.0.1\n80: 10.0.0.1 10.0.0.2"},
		{"terminating ones are not shown", withPorts, []string{"80: !10.0.0.1 10.0.0.2"}, "80: 10.0.0.2"},
		{"unless asked for", corev1.ServiceSpec{Ports: withPorts.Ports, PublishNotReadyAddresses: true}, []string{"80: !10.0.0.1"}, "80: 10.0.0.1"},
		{"a loopback address without a node is refused by the API", withPorts, []string{"80: 127.0.0.1 10.0.0.2"}, "80: 10.0.0.2"},
		{"endpoints without any port of the service", withPorts, []string{": 10.0.0.1"}, ""},
		{"headless without ports", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}, []string{": 10.0.0.1"}, ": 10.0.0.1"},
		{"the other family", corev1.ServiceSpec{IPFamilies: []corev1.IPFamily{corev1.IPv6Protocol}}, []string{"80: 10.0.0.1"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var in []*discoveryv1.EndpointSlice
			for _, s := range tt.in {
				in = append(in, slice(s))
			}
			got, truncated := Project(&corev1.Service{Spec: tt.spec}, in)
			if show(got) != tt.want || truncated {
				t.Errorf("got\n%s\nwant\n%s", show(got), tt.want)
			}
		})
	}
}

func TestProjectTruncates(t *testing.T) {
	many := func(port string, n int, form string) *discoveryv1.EndpointSlice {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, form, i/250, i%250)
		}
		return slice(port + ":" + b.String())
	}
	for _, tt := range []struct {
		name                   string
		a, b                   *discoveryv1.EndpointSlice
		readyA, readyB, notRdy int
	}{
		{"too many ready", many("80", 900, " 10.0.%d.%d"), many("81", 600, " 10.1.%d.%d"), 600, 400, 0},
		{"too many in all", many("80", 700, " 10.0.%d.%d"), many("81", 600, " (10.1.%d.%d)"), 700, 0, 300},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, truncated := Project(&corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{}}}}, []*discoveryv1.EndpointSlice{tt.a, tt.b})
			if !truncated || len(got) != 2 || len(got[0].Addresses) != tt.readyA || len(got[1].Addresses) != tt.readyB || len(got[1].NotReadyAddresses) != tt.notRdy {
				t.Errorf("%d %d %d", len(got[0].Addresses), len(got[1].Addresses), len(got[1].NotReadyAddresses))
			}
		})
	}
}
