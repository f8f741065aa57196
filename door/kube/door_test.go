package kube

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/catalog"
)

func ptr[T any](v T) *T { return &v }

// inBubble runs a test against a fake API in a bubble of time. start starts a
// door; everything ends with the test.
func inBubble(t *testing.T, test func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAPI(t)
		test(t, f, func(cfg Config) (*catalog.Catalog, *Door) {
			cfg.Rest, cfg.Catalog, cfg.Registerer = f.config(), catalog.New(nil), prometheus.NewRegistry()
			cfg.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
			d, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- d.Run(ctx) }()
			t.Cleanup(func() {
				cancel()
				if err := <-done; err != nil {
					t.Error("Run:", err)
				}
			})
			return cfg.Catalog, d
		})
	})
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) { w.t.Logf("%s", b); return len(b), nil }

func space(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func svc(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
}

func ep(addr string, isReady bool, target ...string) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: &isReady}}
	if len(target) == 2 {
		e.TargetRef = &corev1.ObjectReference{Kind: target[0], Name: target[1]}
	}
	return e
}

func slc(name, service string, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   eps,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr(int32(8080)), Protocol: ptr(corev1.ProtocolTCP)}},
	}
}

func inst(name string, isReady bool) *v1alpha1.Instance {
	in := &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       v1alpha1.InstanceSpec{Service: "web", Address: "10.0.0.1", Claims: []v1alpha1.Claim{{Door: "process", ID: "1"}}},
	}
	in.Status.Ready, in.Status.Serving = isReady, isReady
	in.Status.Health = v1alpha1.Health{State: v1alpha1.HealthPassing, By: "check http"}
	if !isReady {
		in.Status.Health.State, in.Status.Health.Reason = v1alpha1.HealthFailing, "connection refused"
	}
	return in
}

var web = catalog.Key{Namespace: "default", Name: "web"}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestFollow(t *testing.T) {
	for _, watchList := range []bool{true, false} {
		inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
			f.watchList = watchList
			f.put(space("default"), svc("web"), slc("web-1", "web", ep("10.0.0.1", true, "Instance", "i1"), ep("10.0.0.2", false)), inst("i1", true))
			c, d := start(Config{})
			synctest.Wait()
			if !isClosed(d.Synced()) || !c.Snapshot().Freshness().Synced {
				t.Fatal("not synced")
			}
			s := c.Snapshot()
			e := s.Get(web)
			if e == nil || len(e.Endpoints) != 2 || !s.HasNamespace("default") {
				t.Fatalf("got %+v", e)
			}
			if got := e.Endpoints[0]; !got.Ready || got.Health.State != catalog.Passing || got.Health.By != "check http" || got.Origin != "process" {
				t.Errorf("endpoint of an instance: %+v", got)
			}
			if got := e.Endpoints[1]; got.Ready || got.Health.By != byManifest || got.Origin != "kube" || !got.Health.Since.IsZero() {
				t.Errorf("endpoint by hand: %+v", got)
			}

			// A negative status is out before the slice follows.
			time.Sleep(time.Minute)
			f.put(inst("i1", false))
			synctest.Wait()
			if got := c.Snapshot().Get(web).Endpoints[0]; got.Ready || got.Serving || got.Health.Reason != "connection refused" {
				t.Errorf("after a negative status: %+v", got)
			}
			// A positive one does not put in what the slice has out.
			f.put(slc("web-1", "web", ep("10.0.0.1", false, "Instance", "i1")))
			f.put(inst("i1", true))
			synctest.Wait()
			if got := c.Snapshot().Get(web).Endpoints[0]; got.Ready || got.Health.State != catalog.Starting || got.Health.Since.IsZero() {
				t.Errorf("positive status, negative slice: %+v", got)
			}
			f.put(slc("web-1", "web", ep("10.0.0.1", true, "Instance", "i1")))
			f.delete(inst("i1", true))
			synctest.Wait()
			if got := c.Snapshot().Get(web).Endpoints[0]; got.Ready || got.Health.State != catalog.Terminating {
				t.Errorf("deleted instance: %+v", got)
			}
			f.delete(slc("web-1", "web"))
			f.delete(svc("web"))
			f.delete(space("default"))
			synctest.Wait()
			if n, _ := c.Snapshot().Len(); n != 0 || c.Snapshot().HasNamespace("default") {
				t.Error("something is left after everything was deleted")
			}
			if f.packed > 0 {
				t.Errorf("%d requests let the server pack what it sends, object by object", f.packed)
			}
		})
	}
}

func TestRelistIsADiff(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
		f.put(space("default"), svc("web"), svc("old"), slc("web-1", "web", ep("10.0.0.1", true)))
		c, _ := start(Config{})
		synctest.Wait()
		before := c.Snapshot()

		f.set(func(f *fakeAPI) { f.compacted = f.rv + 1 })
		f.breakStreams("")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := c.Snapshot(); got.Revision() != before.Revision() {
			t.Errorf("reading the same again made revision %d of %d", got.Revision(), before.Revision())
		}

		sub := c.Subscribe()
		defer sub.Close()
		sub.TryNext()
		f.set(func(f *fakeAPI) { f.down = true })
		f.cut()
		f.delete(svc("old"))
		f.put(svc("new"))
		f.set(func(f *fakeAPI) { f.down, f.compacted = false, f.rv+1 })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if b := sub.TryNext(); len(b.Changes) != 2 {
			t.Errorf("want old gone and new there, got %v", b.Changes)
		}
	})
}

func TestStaleAndBack(t *testing.T) {
	lose := map[string]struct{ lose, back func(*fakeAPI) }{
		"refused": {
			func(f *fakeAPI) { f.set(func(f *fakeAPI) { f.down = true }); f.cut() },
			func(f *fakeAPI) { f.set(func(f *fakeAPI) { f.down = false }) },
		},
		"vanished": { // no packet comes back, connections stay open
			func(f *fakeAPI) { f.set(func(f *fakeAPI) { f.silent = true }) },
			func(f *fakeAPI) { f.set(func(f *fakeAPI) { f.silent = false }) },
		},
		"forbidden": {
			func(f *fakeAPI) {
				f.set(func(f *fakeAPI) { f.hidden["services"] = 403 })
				f.breakStreams("")
			},
			func(f *fakeAPI) { f.set(func(f *fakeAPI) { f.hidden["services"] = 0 }) },
		},
		"broken": {
			func(f *fakeAPI) {
				f.set(func(f *fakeAPI) { f.hidden["services"], f.hidden["endpointslices"] = 500, 500 })
				f.breakStreams("{]")
			},
			func(f *fakeAPI) {
				f.set(func(f *fakeAPI) { f.hidden["services"], f.hidden["endpointslices"] = 0, 0 })
			},
		},
	}
	for name, how := range lose {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
				f.put(svc("web"), slc("web-1", "web", ep("10.0.0.1", true)))
				c, _ := start(Config{})
				time.Sleep(10 * time.Second)
				lost := time.Now()
				how.lose(f)
				time.Sleep(2 * time.Second)
				if c.Snapshot().Freshness().Stale() {
					t.Error("stale within the grace time")
				}
				time.Sleep(10 * time.Second)
				fr := c.Snapshot().Freshness()
				if !fr.Stale() || !fr.Synced || fr.StaleSince.Before(lost) || fr.StaleSince.After(lost.Add(5*time.Second)) {
					t.Errorf("12 s after the loss: %+v (lost %v)", fr, lost)
				}
				if e := c.Snapshot().Get(web); e == nil || len(e.Endpoints) != 1 || !e.Endpoints[0].Ready {
					t.Error("the last state did not stay")
				}
				f.put(svc("later"))
				how.back(f)
				time.Sleep(5 * time.Second)
				if c.Snapshot().Freshness().Stale() {
					t.Error("still stale after the server came back")
				}
				if c.Snapshot().Get(catalog.Key{Namespace: "default", Name: "later"}) == nil {
					t.Error("what changed meanwhile is missing")
				}
			})
		})
	}
}

func TestRestartIsNoticedWithinASecond(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
		f.put(svc("web"))
		c, _ := start(Config{})
		time.Sleep(time.Minute)
		f.set(func(f *fakeAPI) { f.down = true })
		f.cut()
		time.Sleep(5 * time.Minute)
		f.put(svc("later"))
		f.set(func(f *fakeAPI) { f.down = false })
		time.Sleep(1400 * time.Millisecond) // one back-off with its jitter
		synctest.Wait()
		if c.Snapshot().Get(catalog.Key{Namespace: "default", Name: "later"}) == nil {
			t.Error("not read again 1.4 s after the server came back")
		}
	})
}

func TestServerWithoutInstances(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
		f.hidden["instances"] = 404
		f.put(svc("web"), slc("web-1", "web", ep("10.0.0.1", true, "Instance", "i1")))
		c, d := start(Config{})
		synctest.Wait()
		if !isClosed(d.Synced()) {
			t.Fatal("not synced without instances")
		}
		f.put(inst("i1", false))
		f.set(func(f *fakeAPI) { f.hidden["instances"] = 0 })
		time.Sleep(2 * recheck)
		if c.Snapshot().Get(web).Endpoints[0].Ready {
			t.Error("instances that came later are not read")
		}
		f.set(func(f *fakeAPI) { f.hidden["instances"] = 404 })
		f.breakStreams("")
		time.Sleep(10 * time.Second)
		if got := c.Snapshot().Get(web).Endpoints[0]; !got.Ready || c.Snapshot().Freshness().Stale() {
			t.Errorf("after the kind went: %+v, %+v", got, c.Snapshot().Freshness())
		}
	})
}

func TestOneNamespace(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
		f.hidden["namespaces"] = 403
		other := svc("web")
		other.Namespace = "other"
		f.put(svc("web"), other)
		c, d := start(Config{Namespace: "default"})
		synctest.Wait()
		if !isClosed(d.Synced()) || !c.Snapshot().HasNamespace("default") || c.Snapshot().Freshness().Stale() {
			t.Error("not synced without the right to list namespaces")
		}
		if n, _ := c.Snapshot().Len(); n != 1 {
			t.Errorf("%d services, want those of one namespace", n)
		}
	})
}

func TestPodsGiveReasons(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Message: "probe: 503", LastTransitionTime: metav1.Unix(1000, 0)}}
		f.put(svc("web"), slc("web-1", "web", ep("10.0.0.1", false, "Pod", "p")), pod)
		c, _ := start(Config{Pods: true})
		synctest.Wait()
		got := c.Snapshot().Get(web).Endpoints[0]
		want := catalog.Health{State: catalog.Failing, Reason: "probe: 503", By: byKubelet, Since: time.Unix(1000, 0)}
		if got.Ready || got.Health.State != want.State || got.Health.Reason != want.Reason || got.Health.By != want.By || !got.Health.Since.Equal(want.Since) {
			t.Errorf("got %+v, want %+v", got.Health, want)
		}
		f.delete(pod)
		synctest.Wait()
		if got := c.Snapshot().Get(web).Endpoints[0]; got.Health.Reason != "the pod is not ready" {
			t.Errorf("without the pod: %+v", got.Health)
		}
	})
}

func TestSinceIsWhenTheStateWasReached(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeAPI, start func(Config) (*catalog.Catalog, *Door)) {
		f.put(svc("web"), slc("web-1", "web", ep("10.0.0.1", true, "Pod", "a"), ep("10.0.0.2", true, "Pod", "b")))
		c, _ := start(Config{})
		time.Sleep(time.Hour)
		t1 := time.Now()
		f.put(slc("web-1", "web", ep("10.0.0.1", false, "Pod", "a"), ep("10.0.0.2", true, "Pod", "b")))
		time.Sleep(time.Hour)
		// Order and slice change, states do not.
		f.put(slc("web-0", "web", ep("10.0.0.2", true, "Pod", "b"), ep("10.0.0.1", false, "Pod", "a")))
		f.delete(slc("web-1", "web"))
		synctest.Wait()
		for _, e := range c.Snapshot().Get(web).Endpoints {
			want := time.Time{}
			if e.Target.Name == "a" {
				want = t1
			}
			if !e.Health.Since.Equal(want) {
				t.Errorf("%s: since %v, want %v", e.Target.Name, e.Health.Since, want)
			}
		}
		t2 := time.Now().Add(-time.Second)
		later := slc("web-0", "web", ep("10.0.0.2", false, "Pod", "b"))
		later.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: t2.Format(time.RFC3339Nano)}
		f.put(later)
		synctest.Wait()
		if got := c.Snapshot().Get(web).Endpoints[0].Health.Since; !got.Equal(t2) {
			t.Errorf("since %v, want the trigger %v", got, t2)
		}
	})
}
