package mirror

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestProject(t *testing.T) {
	addrs := func(ips ...string) (as []corev1.EndpointAddress) {
		for _, ip := range ips {
			as = append(as, corev1.EndpointAddress{IP: ip})
		}
		return as
	}
	ports := []corev1.EndpointPort{{Port: 80}}
	e := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "ns", Labels: map[string]string{"l": "1"}, Annotations: map[string]string{
			"keep": "1", corev1.LastAppliedConfigAnnotation: "{}", corev1.EndpointsLastChangeTriggerTime: "x"}},
		Subsets: []corev1.EndpointSubset{
			{Addresses: addrs("1.1.1.1", "01.1.1.2", "nonsense", "fd00:0::1"), Ports: ports},
			{NotReadyAddresses: addrs("1.1.1.1"), Ports: ports},
			{Addresses: addrs("3.3.3.3")},
		},
	}
	got, skipped, invalid := Project(e)
	if len(got) != 3 || skipped != 0 || invalid != 1 {
		t.Fatal(len(got), skipped, invalid)
	}
	var lines string
	for _, s := range got {
		lines += string(s.AddressType)
		for _, p := range s.Ports {
			lines += fmt.Sprint(" :", *p.Port, *p.Protocol)
		}
		for _, x := range s.Endpoints {
			lines += fmt.Sprint(" ", x.Addresses[0], *x.Conditions.Ready)
		}
		lines += "\n"
	}
	if want := "IPv4 3.3.3.3true\nIPv4 :80TCP 1.1.1.2true 1.1.1.1false\nIPv6 :80TCP fd00::1true\n"; lines != want {
		t.Errorf("got\n%swant\n%s", lines, want)
	}
	if s := got[0]; len(s.Annotations) != 1 || s.Labels["l"] != "1" || s.Labels["kubernetes.io/service-name"] != "e" || s.OwnerReferences[0].Kind != "Endpoints" {
		t.Errorf("%+v", s.ObjectMeta)
	}

	var many []string
	for i := range 1200 {
		many = append(many, fmt.Sprintf("10.0.%d.%d", i/250, i%250))
	}
	e.Subsets = []corev1.EndpointSubset{{Addresses: addrs(many...), Ports: ports}}
	if got, skipped, _ := Project(e); len(got) != 1 || len(got[0].Endpoints) != MaxAddresses || skipped != 200 {
		t.Error(len(got), skipped)
	}
}
