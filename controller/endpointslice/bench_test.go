package endpointslice

import (
	"fmt"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

func thousand() (*world, *layout, *server) {
	w := &world{service: testService(nil)}
	w.service.Spec.IPFamilies = w.service.Spec.IPFamilies[:1]
	w.service.Spec.Ports = w.service.Spec.Ports[:1]
	for i := range 1000 {
		w.instances = append(w.instances, &v1alpha1.Instance{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("instance-", i), UID: "0123456789"},
			Spec: v1alpha1.InstanceSpec{Service: "web", Address: fmt.Sprintf("10.0.%d.%d", i/250, i%250), NodeName: "n",
				Ports: []v1alpha1.InstancePort{{Port: 80}}},
			Status: v1alpha1.InstanceStatus{Ready: true, Serving: true},
		})
	}
	srv := &server{slices: map[string]*discoveryv1.EndpointSlice{}}
	l := w.layout(&testing.B{}, 100)
	srv.do(l, l.plan(time.Time{}), func() bool { return false })
	return w, l, srv
}

// BenchmarkOneChangeIn1000 is a readiness flip, from the object to what is to
// be written.
func BenchmarkOneChangeIn1000(b *testing.B) {
	w, l, _ := thousand()
	var x want
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		in := w.instances[i%1000]
		i++
		in.Status.Ready = !in.Status.Ready
		if l.v.flattenInstance(&x.flat, in) {
			x.set = l.ports.ofInstance(l.v, in)
			l.put(&x)
		}
		ops := l.plan(time.Time{})
		if len(ops) != 1 {
			b.Fatal(len(ops))
		}
		s := ops[0].slice
		s.obj = &discoveryv1.EndpointSlice{ObjectMeta: s.obj.ObjectMeta, Endpoints: s.eps}
		s.own, s.dirty = false, false
	}
}

// BenchmarkLoad1000 is the whole computation: a Service that changed.
func BenchmarkLoad1000(b *testing.B) {
	w, _, srv := thousand()
	for _, s := range srv.slices {
		w.slices = append(w.slices, s)
	}
	b.ReportAllocs()
	for b.Loop() {
		if ops := w.layout(b, 100).plan(time.Time{}); len(ops) != 0 {
			b.Fatal(len(ops))
		}
	}
}
