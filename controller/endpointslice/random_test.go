package endpointslice

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// model says, slowly and obviously, which endpoints a service must have: one
// line each.
func (w *world) model() []string {
	type line struct {
		text  string
		ready bool
		name  string
	}
	best := map[string]line{} // instances by address and ports
	var lines []string
	add := func(kind, name, uid, ip, ports, node, zone string, ready, serving, terminating bool) {
		text := fmt.Sprintf("%s %s %s %s [%s] node=%s zone=%s %v %v %v", kind, name, uid, ip, ports, node, zone, ready, serving, terminating)
		if kind == "Pod" {
			lines = append(lines, text)
			return
		}
		k := ip + ports
		old, dup := best[k]
		if !dup || ready && !old.ready || ready == old.ready && name < old.name {
			best[k] = line{text, ready, name}
		}
	}
	for _, p := range w.pods {
		if p.Labels["app"] != w.service.Spec.Selector["app"] {
			continue
		}
		var ports []string
		for _, sp := range w.service.Spec.Ports {
			if n := podPort(p, &sp); n != 0 {
				ports = append(ports, fmt.Sprint(sp.Name, ":", n))
			}
		}
		slices.Sort(ports)
		for _, ip := range p.Status.PodIPs {
			serving := len(p.Status.Conditions) == 1 && p.Status.Conditions[0].Status == corev1.ConditionTrue
			gone := p.DeletionTimestamp != nil
			add("Pod", p.Name, string(p.UID), ip.IP, strings.Join(ports, " "), p.Spec.NodeName, w.zones[p.Spec.NodeName], serving && !gone, serving, gone)
		}
	}
	for _, in := range w.instances {
		var ports []string
		for i, sp := range w.service.Spec.Ports {
			if p := InstancePort(in.Spec.Ports, w.service.Spec.Ports, i); p != nil {
				ports = append(ports, fmt.Sprint(sp.Name, ":", p.Port))
			}
		}
		slices.Sort(ports)
		add("Instance", in.Name, string(in.UID), in.Spec.Address, strings.Join(ports, " "), in.Spec.NodeName, in.Spec.Zone, in.Status.Ready, in.Status.Serving, false)
	}
	for _, l := range best {
		lines = append(lines, l.text)
	}
	slices.Sort(lines)
	return lines
}

// linesOf spells the endpoints of slices the way model does.
func linesOf(t *testing.T, all map[string]*discoveryv1.EndpointSlice, max int) []string {
	t.Helper()
	var lines []string
	for _, s := range all {
		if len(s.Endpoints) > max {
			t.Fatalf("slice %s has %d endpoints", s.Name, len(s.Endpoints))
		}
		var ports []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprint(*p.Name, ":", *p.Port))
		}
		slices.Sort(ports)
		for _, e := range s.Endpoints {
			if strings.Contains(e.Addresses[0], ":") != (s.AddressType == discoveryv1.AddressTypeIPv6) {
				t.Fatalf("slice %s of %s holds %s", s.Name, s.AddressType, e.Addresses[0])
			}
			lines = append(lines, fmt.Sprintf("%s %s %s %s [%s] node=%s zone=%s %v %v %v", e.TargetRef.Kind, e.TargetRef.Name, e.TargetRef.UID,
				e.Addresses[0], strings.Join(ports, " "), deref(e.NodeName), deref(e.Zone),
				*e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating))
		}
	}
	slices.Sort(lines)
	return lines
}

// server stores slices as an API server does, sharing nothing.
type server struct {
	rv     int
	slices map[string]*discoveryv1.EndpointSlice
	writes int
}

func (s *server) do(l *layout, ops []op, fail func() bool) {
	for _, o := range ops {
		s.writes++
		if fail() {
			return
		}
		s.rv++
		if o.verb == remove {
			delete(s.slices, o.obj.Name)
			delete(l.condemned, o.obj.Name)
			continue
		}
		obj := o.obj.DeepCopy()
		if o.verb == create {
			obj.Name = fmt.Sprint(obj.GenerateName, s.rv)
		} else if s.slices[obj.Name] == nil {
			panic("update of a slice that is not there: " + obj.Name)
		}
		obj.ResourceVersion = fmt.Sprint(s.rv)
		s.slices[obj.Name] = obj
		l.written(o.slice, obj.DeepCopy())
		l.seen(obj) // the watch's echo
	}
}

func testService(selector map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "svc"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.1", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, Selector: selector,
			Ports: []corev1.ServicePort{
				{Name: "a", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)},
				{Name: "b", Protocol: corev1.ProtocolTCP, Port: 81, TargetPort: intstr.FromString("b")},
			},
		},
	}
}

func randomPod(r *rand.Rand, i int) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("p", i), UID: types.UID(fmt.Sprint("u", r.IntN(3))), Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: fmt.Sprint("n", r.IntN(3))},
	}
	if r.IntN(10) == 0 {
		p.Labels["app"] = "other"
	}
	if r.IntN(2) == 0 {
		p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "b", ContainerPort: int32(9000 + r.IntN(2)), Protocol: corev1.ProtocolTCP}}}}
	}
	if r.IntN(8) > 0 {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("10.0.0.%d", i)})
	}
	if r.IntN(4) == 0 {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("fd00::%d", i+1)})
	}
	if r.IntN(3) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	if r.IntN(8) == 0 {
		p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	}
	return p
}

func randomInstance(r *rand.Rand, i int) *v1alpha1.Instance {
	in := &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("i", i), UID: "u"},
		Spec:       v1alpha1.InstanceSpec{Service: "web", Address: fmt.Sprintf("192.0.2.%d", r.IntN(12)), Zone: fmt.Sprint("z", r.IntN(2))},
		Status:     v1alpha1.InstanceStatus{Ready: r.IntN(2) == 0},
	}
	in.Status.Serving = in.Status.Ready
	in.Spec.Ports = []v1alpha1.InstancePort{{Name: "b", Port: int32(9000 + r.IntN(2))}}
	if r.IntN(3) == 0 {
		in.Spec.Ports = append(in.Spec.Ports, v1alpha1.InstancePort{Name: "x", Port: 8080})
	}
	return in
}

// TestRandom: after any sequence of changes, batched in any way, with failed
// writes, lost slices and edits by others, the union of the slices is what the
// model says.
func TestRandom(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := &world{service: testService(map[string]string{"app": "web"}), zones: map[string]string{"n0": "z0", "n1": "z1"}}
		pods, instances := map[string]*corev1.Pod{}, map[string]*v1alpha1.Instance{}
		max := 1 + r.IntN(8)
		srv := &server{slices: map[string]*discoveryv1.EndpointSlice{}}
		l := w.layout(t, max)
		reload := func() {
			w.slices = nil
			for _, s := range srv.slices {
				w.slices = append(w.slices, s)
			}
			l = w.layout(t, max)
		}
		for range 150 {
			for _, i := range r.Perm(14)[:1+r.IntN(4)] { // each at most once between two plans
				step(r, i, w, l, pods, instances)
			}
			w.pods, w.instances = slices.Collect(maps.Values(pods)), slices.Collect(maps.Values(instances))
			if r.IntN(15) == 0 { // somebody deletes or edits a slice
				for name, s := range srv.slices {
					if r.IntN(2) == 0 {
						delete(srv.slices, name)
						l.gone(name)
					} else {
						srv.rv++
						s = s.DeepCopy()
						s.Endpoints = s.Endpoints[:len(s.Endpoints)/2]
						s.ResourceVersion = fmt.Sprint(srv.rv)
						srv.slices[name] = s
						l.seen(s)
					}
					break
				}
			}
			if l.stale {
				reload()
			}
			srv.do(l, l.plan(time.Time{}), func() bool { return r.IntN(20) == 0 })
			for tries := 0; ; tries++ {
				if l.stale {
					reload()
				}
				ops := l.plan(time.Time{})
				if len(ops) == 0 {
					break
				}
				if tries > 5 {
					t.Fatalf("seed %d: never done: %v", seed, ops)
				}
				srv.do(l, ops, func() bool { return false })
			}
			if got, want := linesOf(t, srv.slices, max), w.model(); !slices.Equal(got, want) {
				t.Fatalf("seed %d:\ngot  %s\nwant %s", seed, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
			}
		}
	}
}

// step changes one member of the world and tells the layout.
func step(r *rand.Rand, i int, w *world, l *layout, pods map[string]*corev1.Pod, instances map[string]*v1alpha1.Instance) {
	if l.stale {
		// A real worker loads again before it goes on; here the reload comes
		// with the whole batch.
		l = newLayout(l.v, l.pool, l.max)
	}
	var x want
	zone := func(n string) string { return w.zones[n] }
	if r.IntN(2) == 0 {
		name := fmt.Sprint("p", i)
		if r.IntN(3) == 0 {
			delete(pods, name)
			l.remove(member{pod, name})
			return
		}
		p := randomPod(r, i)
		pods[name] = p
		if p.Labels["app"] == "web" && l.v.flattenPod(&x.flat, p, zone) {
			x.set = l.ports.ofPod(l.v, p)
			l.put(&x)
		} else {
			l.remove(member{pod, name})
		}
		return
	}
	name := fmt.Sprint("i", i)
	if r.IntN(3) == 0 {
		delete(instances, name)
		l.remove(member{instance, name})
		return
	}
	in := randomInstance(r, i)
	instances[name] = in
	if l.v.flattenInstance(&x.flat, in) {
		x.set = l.ports.ofInstance(l.v, in)
		l.put(&x)
	}
}

// TestOneChangeOneWrite: with slices full, half full and empty, a single
// endpoint that comes, changes or goes costs exactly one write.
func TestOneChangeOneWrite(t *testing.T) {
	w := &world{service: testService(nil)}
	w.service.Spec.IPFamilies = w.service.Spec.IPFamilies[:1]
	w.service.Spec.Ports = w.service.Spec.Ports[:1]
	r := rand.New(rand.NewPCG(1, 2))
	srv := &server{slices: map[string]*discoveryv1.EndpointSlice{}}
	l := w.layout(t, 5)
	have := map[string]*v1alpha1.Instance{}
	for step := range 3000 {
		i := r.IntN(60)
		name := fmt.Sprint("i", i)
		var x want
		what := "add"
		switch in := have[name]; {
		case in == nil:
			in = &v1alpha1.Instance{
				ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "u"},
				Spec:       v1alpha1.InstanceSpec{Service: "web", Address: fmt.Sprintf("192.0.2.%d", i), Ports: []v1alpha1.InstancePort{{Port: 80}}},
			}
			have[name] = in
			l.v.flattenInstance(&x.flat, in)
			x.set = l.ports.ofInstance(l.v, in)
			l.put(&x)
		case r.IntN(3) == 0:
			what = "change"
			in.Status.Ready = !in.Status.Ready
			l.v.flattenInstance(&x.flat, in)
			x.set = l.ports.ofInstance(l.v, in)
			l.put(&x)
		default:
			what = "remove"
			delete(have, name)
			l.remove(member{instance, name})
		}
		ops := l.plan(time.Time{})
		if len(ops) != 1 {
			t.Fatalf("step %d: %s of %s with %d endpoints: %d writes, want 1: %v", step, what, name, len(have), len(ops), ops)
		}
		srv.do(l, ops, func() bool { return false })
		if again := l.plan(time.Time{}); len(again) != 0 {
			t.Fatalf("step %d: %d more writes", step, len(again))
		}
	}
}
