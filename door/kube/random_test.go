package kube

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/catalog"
)

// TestAnySequenceEndsInTheModel does random things to a server, breaks the
// connection in every way, and wants the catalog to be what a slow and obvious
// program makes of the objects.
func TestAnySequenceEndsInTheModel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
				r := rand.New(rand.NewPCG(seed, 1))
				f.watchList = r.IntN(2) == 0
				for range r.IntN(20) {
					randomWrite(r, f)
				}
				c, _ := start(Config{})
				for range 150 {
					if r.IntN(8) == 0 {
						randomFault(r, f)
					} else {
						randomWrite(r, f)
					}
					if r.IntN(4) == 0 {
						time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
					}
				}
				// What an instance that is gone leaves behind depends on whether
				// the door ever saw it: bring back those that slices name.
				for i := range 6 {
					if f.objects["instances"][fmt.Sprintf("default/i%d", i)] == nil {
						f.put(randomInstance(r, i))
					}
				}
				f.set(func(f *fakeAPI) { f.down, f.silent = false, false })
				time.Sleep(30 * time.Second)
				synctest.Wait()
				compare(t, f, c.Snapshot())
				for name := range f.objects["services"] {
					f.delete(svc(strings.TrimPrefix(name, "default/")))
				}
				for name := range f.objects["endpointslices"] {
					f.delete(slc(strings.TrimPrefix(name, "default/"), "x"))
				}
				synctest.Wait()
				compare(t, f, c.Snapshot())
			})
		})
	}
}

func randomInstance(r *rand.Rand, i int) *v1alpha1.Instance {
	in := inst(fmt.Sprintf("i%d", i), r.IntN(2) == 0)
	if r.IntN(4) == 0 {
		in.Status = v1alpha1.InstanceStatus{} // nobody judged it yet
	}
	if r.IntN(3) == 0 {
		in.Spec.Weight = ptr(r.Int32N(300) - 50)
	}
	if r.IntN(3) == 0 {
		in.Spec.Metadata = map[string]string{"v": fmt.Sprint(r.IntN(3))}
	}
	return in
}

func randomWrite(r *rand.Rand, f *fakeAPI) {
	s := svc(fmt.Sprintf("s%d", r.IntN(4)))
	sl := slc(fmt.Sprintf("s-%d", r.IntN(6)), fmt.Sprintf("s%d", r.IntN(5)))
	switch r.IntN(12) {
	case 0, 1:
		s.Spec.PublishNotReadyAddresses = r.IntN(3) == 0
		f.put(s)
	case 2:
		f.delete(s)
	case 3:
		f.delete(sl)
	case 4:
		f.put(space(fmt.Sprintf("n%d", r.IntN(3))))
	case 5:
		f.delete(space(fmt.Sprintf("n%d", r.IntN(3))))
	case 6, 7:
		f.put(randomInstance(r, r.IntN(6)))
	case 8:
		f.delete(inst(fmt.Sprintf("i%d", r.IntN(6)), true))
	default:
		for range r.IntN(6) {
			e := ep(fmt.Sprintf("10.0.0.%d", 1+r.IntN(6)), r.IntN(2) == 0)
			if r.IntN(10) == 0 {
				e.Addresses[0] = "not an address"
			}
			if r.IntN(5) == 0 {
				e.Conditions.Ready = nil
			}
			if r.IntN(4) == 0 {
				e.Conditions.Serving = ptr(r.IntN(2) == 0)
			}
			if r.IntN(6) == 0 {
				e.Conditions.Terminating = ptr(true)
			}
			switch r.IntN(3) {
			case 0:
				e.TargetRef = &corev1.ObjectReference{Kind: "Instance", Name: fmt.Sprintf("i%d", r.IntN(6))}
			case 1:
				e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprintf("p%d", r.IntN(6))}
			}
			sl.Endpoints = append(sl.Endpoints, e)
		}
		if r.IntN(3) == 0 {
			sl.Ports[0].Port = ptr(int32(9090))
		}
		if r.IntN(20) == 0 {
			delete(sl.Labels, discoveryv1.LabelServiceName)
		}
		f.put(sl)
	}
}

func randomFault(r *rand.Rand, f *fakeAPI) {
	switch r.IntN(6) {
	case 0:
		f.breakStreams("")
	case 1:
		f.breakStreams("{\"type\":\"ADDED\",\"object\":{\"kind\":7}}\n")
	case 2:
		f.cut()
	case 3:
		f.set(func(f *fakeAPI) { f.compacted = f.rv })
		f.breakStreams("")
	case 4:
		f.set(func(f *fakeAPI) { f.down = !f.down })
		f.cut()
	case 5:
		f.set(func(f *fakeAPI) { f.watchList = !f.watchList })
	}
}

// compare builds the truth from the server's objects and holds the snapshot
// against it. Since is left out: it depends on when things were seen.
func compare(t *testing.T, f *fakeAPI, s *catalog.Snapshot) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	n, _ := s.Len()
	if n != len(f.objects["services"]) {
		t.Errorf("%d services, want %d", n, len(f.objects["services"]))
	}
	for _, o := range f.sorted("services", "") {
		in := o.(*corev1.Service)
		e := s.Get(catalog.Key{Namespace: in.Namespace, Name: in.Name})
		if e == nil {
			t.Errorf("%s is missing", in.Name)
			continue
		}
		want, got := modelEndpoints(f, in), []string{}
		for i := range e.Endpoints {
			got = append(got, line(&e.Endpoints[i]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got  %s\n want %s", in.Name, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
		}
		if !e.Service.Equal(convertService(in)) {
			t.Errorf("%s: service differs", in.Name)
		}
	}
	for _, o := range f.sorted("namespaces", "") {
		if !s.HasNamespace(o.(*corev1.Namespace).Name) {
			t.Errorf("namespace %s is missing", o.(*corev1.Namespace).Name)
		}
	}
	count := 0
	for range s.Namespaces() {
		count++
	}
	if count != len(f.objects["namespaces"]) {
		t.Errorf("%d namespaces, want %d", count, len(f.objects["namespaces"]))
	}
}

func line(e *catalog.Endpoint) string {
	return fmt.Sprint(e.Addr, e.Ports, e.Ready, e.Serving, e.Terminating, e.Weight, e.Metadata, e.Origin, e.Target, e.Health.State, e.Health.Reason)
}

func modelEndpoints(f *fakeAPI, in *corev1.Service) []string {
	var all []catalog.Endpoint
	for _, o := range f.sorted("endpointslices", "") {
		sl := o.(*discoveryv1.EndpointSlice)
		if sl.Labels[discoveryv1.LabelServiceName] != in.Name {
			continue
		}
		for _, x := range sl.Endpoints {
			if x.Addresses[0] == "not an address" {
				continue
			}
			e := catalog.Endpoint{Weight: 100, Origin: "kube"}
			e.Addr, _ = address(x.Addresses[0])
			e.Ports = []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: uint16(*sl.Ports[0].Port)}}
			e.Ready = x.Conditions.Ready == nil || *x.Conditions.Ready
			e.Serving = e.Ready
			if x.Conditions.Serving != nil {
				e.Serving = *x.Conditions.Serving
			}
			e.Terminating = x.Conditions.Terminating != nil
			if x.TargetRef != nil {
				e.Target = catalog.Ref{Kind: x.TargetRef.Kind, Name: x.TargetRef.Name}
			}
			modelHealth(f, in, &e)
			all = append(all, e)
		}
	}
	var out []catalog.Endpoint
	for _, e := range all {
		i := slices.IndexFunc(out, func(o catalog.Endpoint) bool { return o.Addr == e.Addr && o.Ports[0] == e.Ports[0] })
		switch {
		case i < 0:
			out = append(out, e)
		case e.Ready && !out[i].Ready, !out[i].Ready && e.Serving && !out[i].Serving:
			out[i] = e
		}
	}
	lines := []string{}
	for i := range out {
		lines = append(lines, line(&out[i]))
	}
	return lines
}

func modelHealth(f *fakeAPI, in *corev1.Service, e *catalog.Endpoint) {
	if e.Target.Kind == "Instance" {
		o := f.objects["instances"]["default/"+e.Target.Name].(*v1alpha1.Instance)
		e.Origin, e.Metadata = "process", o.Spec.Metadata
		if o.Spec.Weight != nil {
			e.Weight = uint16(max(*o.Spec.Weight, 0))
		}
		if o.Status.Health.State == "" {
			e.Health.State = catalog.Unknown
		} else {
			e.Ready = e.Ready && (o.Status.Ready || in.Spec.PublishNotReadyAddresses)
			e.Serving = e.Serving && o.Status.Serving
			e.Health = catalog.Health{State: catalog.State(o.Status.Health.State), Reason: o.Status.Health.Reason}
		}
		if !e.Ready && e.Health.State != catalog.Failing {
			e.Health = catalog.Health{State: catalog.Starting, Reason: "its EndpointSlice does not list it as ready"}
			if e.Terminating {
				e.Health = catalog.Health{State: catalog.Terminating, Reason: "it is being stopped"}
			}
		}
		return
	}
	pod := e.Target.Kind == "Pod"
	switch {
	case e.Terminating:
		e.Health = catalog.Health{State: catalog.Terminating, Reason: "it is being stopped"}
	case pod && e.Serving:
		e.Health.State = catalog.Passing
	case pod:
		e.Health = catalog.Health{State: catalog.Failing, Reason: "the pod is not ready"}
	case e.Ready:
		e.Health.State = catalog.Unknown
	default:
		e.Health = catalog.Health{State: catalog.Failing, Reason: "its EndpointSlice says that it is not ready"}
	}
}
