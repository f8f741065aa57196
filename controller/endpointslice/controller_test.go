package endpointslice

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/controller/internal/fakeapi"
)

// rig is a controller on a fake API.
type rig struct {
	t         testing.TB
	api       *fakeapi.API
	kube      kubernetes.Interface
	instances *client.Client
	ctx       context.Context
	c         *Controller
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, api: fakeapi.New()}
	cfg := r.api.Config()
	r.kube = kubernetes.NewForConfigOrDie(cfg)
	var err error
	if r.instances, err = client.New(cfg); err != nil {
		t.Fatal(err)
	}
	f := informers.NewSharedInformerFactory(r.kube, 0)
	inst, err := client.NewInformer(r.instances, "", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	conf := Config{
		Client: r.kube, Services: f.Core().V1().Services().Informer(), Pods: f.Core().V1().Pods().Informer(),
		Nodes: f.Core().V1().Nodes().Informer(), Slices: f.Discovery().V1().EndpointSlices().Informer(), Instances: inst,
	}
	if change != nil {
		change(&conf)
	}
	if r.c, err = New(conf); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	done := make(chan struct{})
	f.StartWithContext(ctx)
	stopped := make(chan struct{})
	go func() { inst.RunWithContext(ctx); close(stopped) }()
	go func() { _ = r.c.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		f.Shutdown()
		<-stopped
		<-done
	})
	return r
}

// settle lets everything come to rest and gives the writes of slices since
// the last time.
func (r *rig) settle() []string {
	time.Sleep(time.Minute) // of the test's own time
	synctest.Wait()
	var ws []string
	for _, w := range r.api.Writes() {
		if w.Resource == "endpointslices" {
			ws = append(ws, w.Verb)
		}
	}
	return ws
}

func (r *rig) slices() []discoveryv1.EndpointSlice {
	l, err := r.kube.DiscoveryV1().EndpointSlices("").List(r.ctx, metav1.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return l.Items
}

func (r *rig) service(selector map[string]string) *corev1.Service {
	s := testService(selector)
	s.Spec.IPFamilies = s.Spec.IPFamilies[:1]
	s.Spec.Ports = s.Spec.Ports[:1]
	s, err := r.kube.CoreV1().Services("ns").Create(r.ctx, s, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) instance(i int) *v1alpha1.Instance {
	in, err := r.instances.Instances("ns").Create(r.ctx, &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("i", i)},
		Spec:       v1alpha1.InstanceSpec{Service: "web", Address: fmt.Sprintf("192.0.2.%d", i), Ports: []v1alpha1.InstancePort{{Port: 80}}},
		Status:     v1alpha1.InstanceStatus{Ready: true, Serving: true},
	}, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return in
}

func (r *rig) pod(i int) *corev1.Pod {
	p, err := r.kube.CoreV1().Pods("ns").Create(r.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Labels: map[string]string{"app": "web", "x": fmt.Sprint(i)}},
		Status: corev1.PodStatus{
			PodIPs:     []corev1.PodIP{{IP: fmt.Sprintf("10.0.0.%d", i)}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func wrote(t testing.TB, got []string, wanted ...string) {
	t.Helper()
	slices.Sort(got)
	if !slices.Equal(got, wanted) {
		t.Errorf("writes %q, want %q", got, wanted)
	}
}

func addresses(ss []discoveryv1.EndpointSlice) string {
	var as []string
	for _, s := range ss {
		for _, e := range s.Endpoints {
			as = append(as, e.Addresses[0])
		}
	}
	slices.Sort(as)
	return strings.Join(as, " ")
}

func TestLifeOfAService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		pods, slicesAPI := r.kube.CoreV1().Pods("ns"), r.kube.DiscoveryV1().EndpointSlices("ns")
		r.service(map[string]string{"app": "web"})
		wrote(t, r.settle(), "create") // the placeholder
		r.pod(1)
		wrote(t, r.settle(), "update")
		p2 := r.pod(2)
		wrote(t, r.settle(), "update")
		r.instance(3)
		// On port 80, not 8080: another set of ports, another slice. The only
		// TCP port of both sides is the match.
		wrote(t, r.settle(), "create")
		if got := addresses(r.slices()); got != "10.0.0.1 10.0.0.2 192.0.2.3" {
			t.Error(got)
		}

		p2.Status.Conditions[0].Status = corev1.ConditionFalse
		if _, err := pods.Update(r.ctx, p2, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		wrote(t, r.settle(), "update")

		p2.Annotations = map[string]string{"nobody": "cares"}
		p2.ResourceVersion = ""
		if _, err := pods.Update(r.ctx, p2, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		wrote(t, r.settle())

		// Somebody deletes a slice, somebody edits one.
		ss := r.slices()
		if err := slicesAPI.Delete(r.ctx, ss[0].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		wrote(t, r.settle(), "create", "delete")
		ss = r.slices()
		ss[0].Endpoints = nil
		ss[0].Labels["mine"] = "now"
		if _, err := slicesAPI.Update(r.ctx, &ss[0], metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		wrote(t, r.settle(), "update", "update")
		if got := addresses(r.slices()); got != "10.0.0.1 10.0.0.2 192.0.2.3" {
			t.Error(got)
		}

		// Hand-made slices are nobody's business.
		if _, err := slicesAPI.Create(r.ctx, &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: "mine", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4,
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		wrote(t, r.settle(), "create")

		if err := r.kube.CoreV1().Services("ns").Delete(r.ctx, "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		wrote(t, r.settle(), "delete", "delete")
		if ss = r.slices(); len(ss) != 1 || ss[0].Name != "mine" {
			t.Errorf("left over: %v", ss)
		}
		// The instance that still names the service keeps nothing alive.
		if n := r.c.count(); n != 0 {
			t.Errorf("%v services are still known", n)
		}
	})
}

func TestServiceRecreatedAndSelectorChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		services := r.kube.CoreV1().Services("ns")
		r.pod(1)
		r.service(map[string]string{"app": "web"})
		wrote(t, r.settle(), "create")
		if err := services.Delete(r.ctx, "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s := r.service(map[string]string{"app": "web"})
		wrote(t, r.settle(), "create", "delete")

		s.Spec.Selector = map[string]string{"app": "web", "x": "2"}
		s, err := services.Update(r.ctx, s, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wrote(t, r.settle(), "update") // now the placeholder
		r.pod(2)
		wrote(t, r.settle(), "update")
		if got := addresses(r.slices()); got != "10.0.0.2" {
			t.Error(got)
		}
		s.Spec.Type = corev1.ServiceTypeExternalName
		if _, err := services.Update(r.ctx, s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		wrote(t, r.settle(), "delete")
	})
}

func TestBurstIsBatchedAndFirstChangeIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.service(nil)
		wrote(t, r.settle()) // no selector, no instance: nothing
		begin := time.Now()
		r.instance(1)
		synctest.Wait()
		wrote(t, verbsOf(r), "create")
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("the first change waited for %s", waited)
		}
		for i := range 100 {
			r.instance(2 + i)
			synctest.Wait()
		}
		wrote(t, r.settle(), "create") // they do not fit beside the first: one slice for all of them
	})
}

func verbsOf(r *rig) []string {
	var ws []string
	for _, w := range r.api.Writes() {
		if w.Resource == "endpointslices" {
			ws = append(ws, w.Verb)
		}
	}
	return ws
}

func TestConflictsAndFailuresAreRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.service(map[string]string{"app": "web"})
		r.settle()
		left := 3
		r.api.Fault = func(verb, resource, name string) int {
			if resource == "endpointslices" && verb != http.MethodGet && left > 0 {
				left--
				return []int{500, 409, 404}[left]
			}
			return 0
		}
		r.pod(1)
		r.settle()
		if got := addresses(r.slices()); got != "10.0.0.1" || left != 0 {
			t.Error(got, left)
		}
		for i := range 20 {
			r.pod(2 + i)
		}
		r.settle()
		if n := len(strings.Fields(addresses(r.slices()))); n != 21 {
			t.Error(n)
		}
	})
}

func TestStartFindsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := newRig(t, nil)
		first.service(map[string]string{"app": "web"})
		for i := range 5 {
			first.pod(i)
			first.instance(i)
		}
		first.settle()
		// A second controller on the same API: nothing to do.
		f := informers.NewSharedInformerFactory(first.kube, 0)
		inst, err := client.NewInformer(first.instances, "", 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(Config{
			Client: first.kube, Services: f.Core().V1().Services().Informer(), Pods: f.Core().V1().Pods().Informer(),
			Nodes: f.Core().V1().Nodes().Informer(), Slices: f.Discovery().V1().EndpointSlices().Informer(), Instances: inst,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		f.StartWithContext(ctx)
		go inst.RunWithContext(ctx)
		go func() { _ = c.Run(ctx) }()
		wrote(t, first.settle())
		cancel()
		f.Shutdown()
	})
}

func TestZoneOfANodeThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.service(map[string]string{"app": "web"})
		p := r.pod(1)
		p.Spec.NodeName = "n1"
		if _, err := r.kube.CoreV1().Pods("ns").Update(r.ctx, p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.settle()
		if _, err := r.kube.CoreV1().Nodes().Create(r.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "west"}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		wrote(t, r.settle(), "update")
		if z := r.slices()[0].Endpoints[0].Zone; z == nil || *z != "west" {
			t.Error(z)
		}
	})
}
