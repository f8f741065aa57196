package instance

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/controller/internal/fakeapi"
	"github.com/fingerpost/fingerpost/health/probe"
)

// rig is the controller on a fake API that evaluates like the real one.
type rig struct {
	t      *testing.T
	api    *fakeapi.API
	kube   kubernetes.Interface
	inst   *client.Client
	live   *Liveness
	events *record.FakeRecorder
	ctx    context.Context
	stop   func()

	mu    sync.Mutex
	alive bool // what probes say
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, api: fakeapi.New(), alive: true, events: record.NewFakeRecorder(100)}
	r.api.Admit = func(resource string, obj map[string]any) {
		if resource != "instances" {
			return
		}
		b, _ := json.Marshal(obj)
		in := &v1alpha1.Instance{}
		if err := json.Unmarshal(b, in); err != nil {
			panic(err)
		}
		v1alpha1.Evaluate(in, time.Now())
		b, _ = json.Marshal(in.Status)
		var status map[string]any
		_ = json.Unmarshal(b, &status)
		obj["status"] = status
	}
	r.kube = kubernetes.NewForConfigOrDie(r.api.Config())
	var err error
	if r.inst, err = client.New(r.api.Config()); err != nil {
		t.Fatal(err)
	}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// start runs a controller; called again after stop it is a restart.
func (r *rig) start() {
	r.t.Helper()
	f := informers.NewSharedInformerFactory(r.kube, 0)
	inf, err := client.NewInformer(r.inst, "", 0, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.live, err = NewLiveness(LivenessConfig{Get: func(ctx context.Context, ns, n string) (*v1alpha1.Instance, error) {
		return r.inst.Instances(ns).Get(ctx, n, metav1.GetOptions{})
	}}); err != nil {
		r.t.Fatal(err)
	}
	c, err := New(Config{
		Client: r.kube, Instances: r.inst, Services: f.Core().V1().Services().Informer(), InstanceInformer: inf, Liveness: r.live,
		Node: "here", Events: r.events,
		Probe: probe.Config{Rand: func() float64 { return 0 }, Probers: map[string]probe.Prober{"http": r.probe, "tcp": r.probe}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	f.StartWithContext(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { inf.RunWithContext(ctx) })
	wg.Go(func() { _ = c.Run(ctx) })
	r.stop = func() {
		cancel()
		f.Shutdown()
		wg.Wait()
	}
	time.Sleep(time.Second) // until the informers have synced
	synctest.Wait()
}

func (r *rig) probe(context.Context, probe.Target) probe.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return probe.Result{OK: r.alive, Output: "as told"}
}

func (r *rig) create(n string, change func(*v1alpha1.Instance)) *v1alpha1.Instance {
	r.t.Helper()
	in := &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{Name: n},
		Spec:       v1alpha1.InstanceSpec{Service: "web", Address: "192.0.2.1", Ports: []v1alpha1.InstancePort{{Name: "http", Port: 8080}}},
	}
	change(in)
	in, err := r.inst.Instances("ns").Create(r.ctx, in, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return in
}

func heartbeats(door, id string, ttl time.Duration) func(*v1alpha1.Instance) {
	return func(in *v1alpha1.Instance) {
		in.Spec.Claims = append(in.Spec.Claims, v1alpha1.Claim{Door: door, ID: id, TTL: &metav1.Duration{Duration: ttl}})
	}
}

func (r *rig) get(n string) *v1alpha1.Instance {
	r.t.Helper()
	in, err := r.inst.Instances("ns").Get(r.ctx, n, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return in
}

func (r *rig) state(n string, want v1alpha1.HealthState, ready bool) {
	r.t.Helper()
	synctest.Wait()
	if s := r.get(n).Status; s.Health.State != want || s.Ready != ready {
		r.t.Errorf("%s is %s, ready %v (%s); want %s, ready %v", n, s.Health.State, s.Ready, s.Health.Reason, want, ready)
	}
}

func (r *rig) statusWrites() int {
	n := 0
	for _, w := range r.api.Writes() {
		if w.Resource == "instances" && w.Sub == "status" {
			n++
		}
	}
	return n
}

func (r *rig) renew(n, door, id string) time.Duration {
	r.t.Helper()
	ttl, err := r.live.Renew("ns", n, door, id, time.Now())
	if err != nil {
		r.t.Error(err)
	}
	return ttl
}

func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.create("a", heartbeats("http", "1", 10*time.Second))
		// At once, though the watch has not told of it.
		if ttl := r.renew("a", "http", "1"); ttl != 10*time.Second {
			t.Error(ttl)
		}
		for range 20 {
			time.Sleep(5 * time.Second)
			r.renew("a", "", "")
		}
		r.state("a", v1alpha1.HealthPassing, true)
		if n := r.statusWrites(); n != 0 {
			t.Errorf("%d status writes for heartbeats that kept coming", n)
		}
		time.Sleep(10*time.Second + 100*time.Millisecond)
		r.state("a", v1alpha1.HealthExpired, false)
		r.renew("a", "http", "1")
		r.state("a", v1alpha1.HealthPassing, true)
		if n := r.statusWrites(); n != 2 {
			t.Errorf("%d status writes, want 2", n)
		}
		for _, bad := range [][3]string{{"b", "", ""}, {"a", "http", "2"}, {"a", "", "1"}} {
			for range 2 {
				if _, err := r.live.Renew("ns", bad[0], bad[1], bad[2], time.Now()); !apierrors.IsNotFound(err) {
					t.Errorf("%q: %v", bad, err)
				}
			}
		}
		time.Sleep(time.Minute)
		r.state("a", v1alpha1.HealthExpired, false)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if _, err := r.inst.Instances("ns").Get(r.ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Error("still there after 10 minutes without heartbeats:", err)
		}
		if n := r.live.leases.Len(); n != 0 {
			t.Errorf("%d leases left over", n)
		}
	})
}

func TestInstanceWithoutTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.create("a", func(in *v1alpha1.Instance) {})
		if ttl := r.renew("a", "", ""); ttl != 0 {
			t.Error(ttl)
		}
		time.Sleep(time.Hour)
		r.state("a", v1alpha1.HealthUnknown, true)
	})
}

func TestTTLCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.create("a", func(in *v1alpha1.Instance) {
			in.Spec.Check = &v1alpha1.Check{Type: v1alpha1.CheckTTL, TTL: &metav1.Duration{Duration: 3 * time.Second}, DeregisterAfter: &metav1.Duration{Duration: time.Minute}}
		})
		if ttl := r.renew("a", "", ""); ttl != 3*time.Second {
			t.Error(ttl)
		}
		r.state("a", v1alpha1.HealthPassing, true)
		time.Sleep(4 * time.Second)
		r.state("a", v1alpha1.HealthExpired, false)
		if why := r.get("a").Status.Health.Reason; why != "no heartbeat for 3s" {
			t.Error(why)
		}
		r.renew("a", "", "")
		r.state("a", v1alpha1.HealthPassing, true)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, err := r.inst.Instances("ns").Get(r.ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.create("alive", heartbeats("http", "1", 10*time.Second))
		r.create("dead", heartbeats("http", "1", 10*time.Second))
		for range 3 {
			time.Sleep(5 * time.Second)
			r.renew("alive", "", "")
		}
		r.state("dead", v1alpha1.HealthExpired, false)
		r.stop()
		time.Sleep(time.Hour)
		r.statusWrites()
		r.start()
		time.Sleep(8 * time.Second) // a full TTL for everybody
		r.state("alive", v1alpha1.HealthPassing, true)
		r.state("dead", v1alpha1.HealthExpired, false)
		if n := r.statusWrites(); n != 0 {
			t.Errorf("%d status writes after a restart", n)
		}
		r.renew("alive", "", "")
		r.renew("dead", "", "")
		r.state("dead", v1alpha1.HealthPassing, true)
		if n := r.statusWrites(); n != 1 {
			t.Errorf("%d status writes, want 1", n)
		}
	})
}

func TestMassExpiryIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		const many = 30
		for i := range many {
			r.create(fmt.Sprint("i", i), heartbeats("http", "1", 10*time.Second))
		}
		synctest.Wait()
		time.Sleep(11 * time.Second)
		for i := range many {
			r.state(fmt.Sprint("i", i), v1alpha1.HealthStale, true)
		}
		for i := range many {
			r.renew(fmt.Sprint("i", i), "", "")
		}
		for i := range many {
			r.state(fmt.Sprint("i", i), v1alpha1.HealthPassing, true)
		}
	})
}

func TestActiveCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.create("a", func(in *v1alpha1.Instance) {
			in.Spec.Check = &v1alpha1.Check{Type: v1alpha1.CheckHTTP, Interval: &metav1.Duration{Duration: time.Second}, Fall: 2}
		})
		r.state("a", v1alpha1.HealthPassing, true)
		r.statusWrites()
		time.Sleep(10 * time.Second)
		if n := r.statusWrites(); n != 0 {
			t.Errorf("%d status writes without a change", n)
		}
		r.mu.Lock()
		r.alive = false
		r.mu.Unlock()
		time.Sleep(3 * time.Second)
		r.state("a", v1alpha1.HealthFailing, false)
		if why := r.get("a").Status.Health.Reason; why != "as told" {
			t.Error(why)
		}
		if n := r.statusWrites(); n != 1 {
			t.Errorf("%d status writes, want 1", n)
		}
		time.Sleep(time.Hour) // failed checks do not end an instance unless it says so
		r.state("a", v1alpha1.HealthFailing, false)

		// The check is taken away.
		in := r.get("a")
		in.Spec.Check = nil
		if _, err := r.inst.Instances("ns").Update(r.ctx, in, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.state("a", v1alpha1.HealthUnknown, true)
		if in := r.get("a"); in.Status.Check != nil {
			t.Error(in.Status.Check)
		}
	})
}

func TestLoopbackOfAnotherNodeIsNotChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		check := func(node string) func(*v1alpha1.Instance) {
			return func(in *v1alpha1.Instance) {
				in.Spec.Address, in.Spec.NodeName, in.Spec.Check = "127.0.0.1", node, &v1alpha1.Check{Type: v1alpha1.CheckTCP}
			}
		}
		r.create("mine", check("here"))
		r.create("theirs", check("there"))
		r.state("mine", v1alpha1.HealthPassing, true)
		r.state("theirs", v1alpha1.HealthStarting, false)
	})
}

func TestServiceIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		services := r.kube.CoreV1().Services("ns")
		get := func() *corev1.Service {
			t.Helper()
			synctest.Wait()
			s, err := services.Get(r.ctx, "web", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		r.create("a", func(in *v1alpha1.Instance) { in.Annotations = map[string]string{v1alpha1.AnnotationServicePort: "80"} })
		s := get()
		if p := s.Spec.Ports; len(p) != 1 || p[0].Name != "http" || p[0].Port != 80 || p[0].TargetPort.IntValue() != 8080 ||
			s.Annotations[v1alpha1.AnnotationCreatedBy] != "a" || s.Spec.Selector != nil {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Second)
		r.create("b", func(in *v1alpha1.Instance) {
			in.Spec.Address = "192.0.2.2"
			in.Spec.Ports = append(in.Spec.Ports, v1alpha1.InstancePort{Name: "admin", Port: 9000}, v1alpha1.InstancePort{Name: "taken", Port: 80})
		})
		if p := get().Spec.Ports; len(p) != 2 || p[1].Name != "admin" || p[1].Port != 9000 {
			t.Errorf("%+v", p)
		}
		// Deleted by a person: stays away until somebody registers.
		if err := services.Delete(r.ctx, "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := services.Get(r.ctx, "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Error(err)
		}
		// Made by a person: not changed, but the instances that do not fit are told.
		if _, err := services.Create(r.ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{
			Ports: []corev1.ServicePort{{Name: "x", Port: 1}, {Name: "y", Port: 2}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.api.Writes()
		r.create("c", func(in *v1alpha1.Instance) { in.Spec.Address = "192.0.2.3" })
		synctest.Wait()
		for _, w := range r.api.Writes() {
			if w.Resource == "services" {
				t.Error("changed a Service made by a person:", w)
			}
		}
		if n := len(r.events.Events); n != 3 {
			t.Errorf("%d events, want one for each instance", n)
		}
	})
}

func TestRecreatedAndReclaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.create("a", heartbeats("http", "1", 10*time.Second))
		time.Sleep(11 * time.Second)
		r.state("a", v1alpha1.HealthExpired, false)
		// Its door registers it again, with something new to say: alive.
		in := r.get("a")
		in.Spec.Claims[0].Origin = "another process"
		if _, err := r.inst.Instances("ns").Update(r.ctx, in, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.state("a", v1alpha1.HealthPassing, true)
		// A person edits it: that says nothing about its health.
		time.Sleep(11 * time.Second)
		r.state("a", v1alpha1.HealthExpired, false)
		in = r.get("a")
		in.Spec.Metadata = map[string]string{"k": "v"}
		if _, err := r.inst.Instances("ns").Update(r.ctx, in, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.state("a", v1alpha1.HealthExpired, false)
		if err := r.inst.Instances("ns").Delete(r.ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.create("a", heartbeats("http", "1", 10*time.Second))
		r.renew("a", "http", "1")
		r.state("a", v1alpha1.HealthPassing, true)
	})
}

func BenchmarkRenew(b *testing.B) {
	l, err := NewLiveness(LivenessConfig{})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	var names []string
	for i := range 10_000 {
		in := &v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("instance-", i), ResourceVersion: "1"}}
		in.Spec.Service = "web"
		heartbeats("http", "1", 30*time.Second)(in)
		l.Put(in, now)
		names = append(names, in.Name)
	}
	b.ReportAllocs()
	b.ResetTimer()
	i := 0
	for b.Loop() {
		if _, err := l.Renew("ns", names[i%len(names)], "http", "1", now); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
