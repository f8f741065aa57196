package controller

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/controller/instance"
	"github.com/fingerpost/fingerpost/controller/internal/fakeapi"
)

type rig struct {
	t    *testing.T
	ctx  context.Context
	api  *fakeapi.API
	kube kubernetes.Interface
	inst *client.Client
}

// newRig runs all controllers on a fake API.
func newRig(t *testing.T) *rig {
	r := &rig{t: t, api: fakeapi.New()}
	r.kube = kubernetes.NewForConfigOrDie(r.api.Config())
	var err error
	if r.inst, err = client.New(r.api.Config()); err != nil {
		t.Fatal(err)
	}
	live, err := instance.NewLiveness(instance.LivenessConfig{})
	if err != nil {
		t.Fatal(err)
	}
	inf, err := NewInstanceInformer(r.inst)
	if err != nil {
		t.Fatal(err)
	}
	f := NewInformers(r.kube)
	list, err := All(Inputs{Client: r.kube, Instances: r.inst, Informers: f, InstanceInformer: inf, Liveness: live, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	var wg sync.WaitGroup
	f.StartWithContext(ctx)
	wg.Go(func() { inf.RunWithContext(ctx) })
	for _, c := range list {
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Error(c.Name, err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		f.Shutdown()
		wg.Wait()
	})
	r.settle()
	return r
}

func (r *rig) settle() {
	time.Sleep(time.Minute) // of the test's own time
	synctest.Wait()
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// slices gives managed-by, ports and addresses of each slice.
func (r *rig) slices() []string {
	l, err := r.kube.DiscoveryV1().EndpointSlices("ns").List(r.ctx, metav1.ListOptions{})
	r.must(err)
	out := []string{}
	for _, s := range l.Items {
		line := []string{strings.Split(s.Labels[discoveryv1.LabelManagedBy], ".")[0], string(s.AddressType)}
		for _, p := range s.Ports {
			line = append(line, fmt.Sprint(":", *p.Port))
		}
		for _, e := range s.Endpoints {
			a := e.Addresses[0]
			if !*e.Conditions.Ready {
				a = "(" + a + ")"
			}
			line = append(line, a)
		}
		out = append(out, strings.Join(line, " "))
	}
	slices.Sort(out)
	return out
}

func (r *rig) endpoints(name string) string {
	e, err := r.kube.CoreV1().Endpoints("ns").Get(r.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "none"
	}
	r.must(err)
	var out []string
	for _, s := range e.Subsets {
		for _, a := range s.Addresses {
			out = append(out, a.IP)
		}
		for _, a := range s.NotReadyAddresses {
			out = append(out, "("+a.IP+")")
		}
		for _, p := range s.Ports {
			out = append(out, fmt.Sprint(":", p.Port))
		}
	}
	return strings.Join(out, " ")
}

func expect[T any](t *testing.T, got, want T) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Walkthrough 6: a Service without selector and Endpoints of the same name.
func TestExternalService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		svc, err := r.kube.CoreV1().Services("ns").Create(r.ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "external-service"},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
		r.must(err)
		eps := r.kube.CoreV1().Endpoints("ns")
		e, err := eps.Create(r.ctx, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "external-service", Labels: map[string]string{"l": "1"}},
			Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "1.1.1.1"}, {IP: "2.2.2.2"}}, Ports: []corev1.EndpointPort{{Port: 80}}}}}, metav1.CreateOptions{})
		r.must(err)
		r.settle()
		expect(t, r.slices(), []string{"endpointslicemirroring-controller IPv4 :80 1.1.1.1 2.2.2.2"})
		expect(t, r.endpoints("external-service"), "1.1.1.1 2.2.2.2 :80")

		// An instance joins: its own slice; what was made by hand stays as it is.
		_, err = r.inst.Instances("ns").Create(r.ctx, &v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Name: "i"},
			Spec:   v1alpha1.InstanceSpec{Service: "external-service", Address: "3.3.3.3", Ports: []v1alpha1.InstancePort{{Port: 80}}},
			Status: v1alpha1.InstanceStatus{Ready: true, Serving: true}}, metav1.CreateOptions{})
		r.must(err)
		r.settle()
		expect(t, r.slices(), []string{"endpointslice IPv4 :80 3.3.3.3", "endpointslicemirroring-controller IPv4 :80 1.1.1.1 2.2.2.2"})
		expect(t, r.endpoints("external-service"), "1.1.1.1 2.2.2.2 :80")
		r.must(r.inst.Instances("ns").Delete(r.ctx, "i", metav1.DeleteOptions{}))

		e.Subsets[0].NotReadyAddresses = e.Subsets[0].Addresses[1:]
		e.Subsets[0].Addresses = e.Subsets[0].Addresses[:1]
		e.Subsets = append(e.Subsets, corev1.EndpointSubset{Addresses: []corev1.EndpointAddress{{IP: "fd00::1"}}, Ports: []corev1.EndpointPort{{Port: 81}}})
		r.api.Writes()
		e, err = eps.Update(r.ctx, e, metav1.UpdateOptions{})
		r.must(err)
		r.settle()
		mirrored := []string{"endpointslice IPv4", "endpointslicemirroring-controller IPv4 :80 1.1.1.1 (2.2.2.2)", "endpointslicemirroring-controller IPv6 :81 fd00::1"}
		expect(t, r.slices(), mirrored)

		// Somebody deletes a mirrored slice, and edits nothing else.
		l, err := r.kube.DiscoveryV1().EndpointSlices("ns").List(r.ctx, metav1.ListOptions{})
		r.must(err)
		for _, s := range l.Items {
			if s.Labels[discoveryv1.LabelManagedBy] != v1alpha1.ManagedBy {
				r.must(r.kube.DiscoveryV1().EndpointSlices("ns").Delete(r.ctx, s.Name, metav1.DeleteOptions{}))
				break
			}
		}
		r.settle()
		expect(t, r.slices(), mirrored)

		// Not to be mirrored, and again.
		e.Labels[discoveryv1.LabelSkipMirror] = "true"
		e, err = eps.Update(r.ctx, e, metav1.UpdateOptions{})
		r.must(err)
		r.settle()
		expect(t, r.slices(), mirrored[:1])
		delete(e.Labels, discoveryv1.LabelSkipMirror)
		_, err = eps.Update(r.ctx, e, metav1.UpdateOptions{})
		r.must(err)
		r.settle()
		expect(t, r.slices(), mirrored)

		// The Service gets a selector: its Endpoints are ours from now on.
		svc.Spec.Selector = map[string]string{"app": "none"}
		_, err = r.kube.CoreV1().Services("ns").Update(r.ctx, svc, metav1.UpdateOptions{})
		r.must(err)
		r.settle()
		if got := r.slices(); len(got) == 0 || strings.Contains(strings.Join(got, " "), "mirroring") {
			t.Error(got)
		}
		expect(t, r.endpoints("external-service"), "")
		r.must(r.kube.CoreV1().Services("ns").Delete(r.ctx, "external-service", metav1.DeleteOptions{}))
		r.settle()
		expect(t, r.slices(), []string{})
		expect(t, r.endpoints("external-service"), "none")
	})
}

// A registration makes the Service, its slice and its legacy Endpoints.
func TestRegistrationToEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		inst := r.inst.Instances("ns")
		for i, ready := range []bool{true, false} {
			_, err := inst.Create(r.ctx, &v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("i", i)},
				Spec:   v1alpha1.InstanceSpec{Service: "web", Address: fmt.Sprintf("192.0.2.%d", i+1), Ports: []v1alpha1.InstancePort{{Name: "http", Port: 8080}}},
				Status: v1alpha1.InstanceStatus{Ready: ready, Serving: ready}}, metav1.CreateOptions{})
			r.must(err)
		}
		r.settle()
		// In which order they came is nobody's promise.
		if got := r.slices(); !reflect.DeepEqual(got, []string{"endpointslice IPv4 :8080 (192.0.2.2) 192.0.2.1"}) {
			expect(t, got, []string{"endpointslice IPv4 :8080 192.0.2.1 (192.0.2.2)"})
		}
		expect(t, r.endpoints("web"), "192.0.2.1 (192.0.2.2) :8080")
		// What somebody does to them is undone.
		e, err := r.kube.CoreV1().Endpoints("ns").Get(r.ctx, "web", metav1.GetOptions{})
		r.must(err)
		e.Subsets = nil
		_, err = r.kube.CoreV1().Endpoints("ns").Update(r.ctx, e, metav1.UpdateOptions{})
		r.must(err)
		r.settle()
		expect(t, r.endpoints("web"), "192.0.2.1 (192.0.2.2) :8080")
		r.must(inst.Delete(r.ctx, "i0", metav1.DeleteOptions{}))
		r.must(inst.Delete(r.ctx, "i1", metav1.DeleteOptions{}))
		r.settle()
		expect(t, r.endpoints("web"), "")
		r.must(r.kube.CoreV1().Services("ns").Delete(r.ctx, "web", metav1.DeleteOptions{}))
		r.settle()
		expect(t, r.endpoints("web"), "none")
		expect(t, r.slices(), []string{})
	})
}

// Legacy Endpoints of a busy service are written once a second at most, the
// first change at once.
func TestLegacyEndpointsAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		inst := r.inst.Instances("ns")
		for i := range 50 {
			_, err := inst.Create(r.ctx, &v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("i", i)},
				Spec:   v1alpha1.InstanceSpec{Service: "web", Address: fmt.Sprintf("192.0.2.%d", i+1), Ports: []v1alpha1.InstancePort{{Port: 80}}},
				Status: v1alpha1.InstanceStatus{Ready: true}}, metav1.CreateOptions{})
			r.must(err)
			time.Sleep(40 * time.Millisecond)
			if i == 0 {
				synctest.Wait()
				expect(t, r.endpoints("web"), "192.0.2.1 :80")
			}
		}
		r.settle()
		n := 0
		for _, w := range r.api.Writes() {
			if w.Resource == "endpoints" {
				n++
			}
		}
		if n < 3 || n > 4 { // 2 seconds
			t.Errorf("%d writes of endpoints", n)
		}
	})
}

func TestTrim(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	obj, err := Trim()(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{}}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "x"}, {Name: "c", Image: "y", Ports: []corev1.ContainerPort{{Name: "web"}}}},
			InitContainers: []corev1.Container{{Ports: []corev1.ContainerPort{{}}}, {Name: "s", RestartPolicy: &always, Ports: []corev1.ContainerPort{{}}}}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled}, {Type: corev1.PodReady}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := obj.(*corev1.Pod)
	if p.Annotations != nil || p.ManagedFields != nil || len(p.Spec.Containers) != 1 || p.Spec.Containers[0].Image != "" ||
		len(p.Spec.InitContainers) != 1 || len(p.Status.Conditions) != 1 {
		t.Errorf("%+v", p)
	}
}
