package endpointslice

import (
	"fmt"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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

// BenchmarkChangeToWrite runs the whole controller on a fake API in a service
// of 1,000 endpoints and reports its own share of the latency: from the
// watch's news to the start of the write.
func BenchmarkChangeToWrite(b *testing.B) {
	r := newRig(b, func(c *Config) { c.MinInterval = -1 })
	svc := testService(nil)
	svc.Spec.IPFamilies, svc.Spec.Ports = svc.Spec.IPFamilies[:1], svc.Spec.Ports[:1]
	if _, err := r.kube.CoreV1().Services("ns").Create(r.ctx, svc, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		in := &v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("i", i)}, Spec: v1alpha1.InstanceSpec{
			Service: "web", Address: fmt.Sprintf("10.1.%d.%d", i/250, i%250), Ports: []v1alpha1.InstancePort{{Port: 80}}}}
		if _, err := r.instances.Instances("ns").Create(r.ctx, in, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	for len(strings.Fields(addresses(r.slices()))) < 1000 {
		time.Sleep(10 * time.Millisecond)
	}
	written := make(chan struct{}, 1)
	r.api.Admit = func(resource string, _ map[string]any) {
		if resource == "endpointslices" {
			written <- struct{}{}
		}
	}
	before := observed(b, r.c)
	i := 0
	for b.Loop() {
		name := fmt.Sprint("i", i%1000)
		patch := fmt.Sprintf(`{"status":{"ready":%v}}`, i/1000%2 == 0)
		if _, err := r.instances.Instances("ns").Patch(r.ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
			b.Fatal(err)
		}
		<-written
		i++
	}
	after := observed(b, r.c)
	for i, bucket := range after.Bucket { // the mean suffers from whatever else this machine does
		n, old := bucket.GetCumulativeCount(), before.Bucket[i].GetCumulativeCount()
		if (n-old)*2 >= after.GetSampleCount()-before.GetSampleCount() {
			b.ReportMetric(bucket.GetUpperBound()*1e6, "own-p50-µs-at-most")
			break
		}
	}
	b.ReportMetric((after.GetSampleSum()-before.GetSampleSum())/float64(after.GetSampleCount()-before.GetSampleCount())*1e6, "own-mean-µs")
}

func observed(b *testing.B, c *Controller) *dto.Histogram {
	var m dto.Metric
	if err := c.metrics.latency.Write(&m); err != nil {
		b.Fatal(err)
	}
	return m.Histogram
}
