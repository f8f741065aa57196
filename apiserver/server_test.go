package apiserver

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStart(t *testing.T) {
	began := time.Now()
	s := startOne(t)
	t.Logf("ready after %v", time.Since(began))
	svc, err := s.admin.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(svc.Spec.ClusterIP, "10.96.") {
		t.Errorf("ClusterIP %q, want one of 10.96.0.0/20", svc.Spec.ClusterIP)
	}
	ips, err := s.admin.NetworkingV1().IPAddresses().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(ips.Items) != 1 || ips.Items[0].Spec.ParentRef.Name != "web" {
		t.Errorf("IPAddresses %+v, want one of web", ips.Items)
	}
}
