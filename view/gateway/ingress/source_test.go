package ingress

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// rig is a Source on an API server that is none.
type rig struct {
	t      *testing.T
	client *fake.Clientset
	events *record.FakeRecorder
	source *Source

	mu   sync.Mutex
	sum  route.Update
	news chan struct{}
}

func start(t *testing.T, change func(*Config), objects ...runtime.Object) *rig {
	t.Helper()
	r := &rig{t: t, client: fake.NewClientset(objects...), events: record.NewFakeRecorder(1000), news: make(chan struct{}, 1)}
	r.sum = route.Update{Hosts: map[string]*route.Host{}, Certificates: map[string]*route.Certificate{}}
	c := Config{Client: r.client, Name: "b", Publish: []string{"192.0.2.1"}, Events: r.events, OnUpdate: func(u route.Update) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if u.Replace {
			clear(r.sum.Hosts)
			clear(r.sum.Certificates)
		}
		add(&r.sum, &u)
		select {
		case r.news <- struct{}{}:
		default:
		}
	}}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r.source = s
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Synced():
	case <-time.After(2 * time.Minute):
		t.Fatal("never synced")
	}
	return r
}

// until waits for something to become true.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	end := time.After(2 * time.Minute)
	for {
		if ok() {
			return
		}
		select {
		case <-r.news:
		case <-time.After(5 * time.Millisecond):
		case <-end:
			r.t.Fatalf("never: %s", what)
		}
	}
}

func (r *rig) rule(host string) *route.Rule {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.sum.Hosts[host]; h != nil && len(h.Rules) > 0 {
		return &h.Rules[0]
	}
	return nil
}

func (r *rig) status(name string) string {
	in, err := r.client.NetworkingV1().Ingresses("default").Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, a := range in.Status.LoadBalancer.Ingress {
		all = append(all, a.IP+a.Hostname)
	}
	return strings.Join(all, " ")
}

const oneIngress = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
  - host: shop.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
`

const oneService = `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports: [{port: 80}]
`

func TestSourceFollows(t *testing.T) {
	objects := parseObjects(t, []byte(oneIngress+"\n---\n"+oneService))
	r := start(t, nil, objects...)
	if got := r.rule("shop.example.com"); got == nil || got.Problem != "" {
		t.Fatalf("after Synced: %+v", got)
	}
	ctx := t.Context()
	if err := r.client.CoreV1().Services("default").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("the rule has a problem", func() bool { return r.rule("shop.example.com").Problem != "" })
	if e := <-r.events.Events; !strings.Contains(e, "Warning BackendUnusable the Service default/web does not exist") {
		t.Errorf("event %q", e)
	}
	if _, err := r.client.CoreV1().Services("default").Create(ctx, objects[1].(*corev1.Service), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("the rule works again", func() bool { return r.rule("shop.example.com").Problem == "" })
	if err := r.client.NetworkingV1().Ingresses("default").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("the host is gone", func() bool { return r.rule("shop.example.com") == nil })
	if n := len(r.events.Events); n != 0 {
		t.Errorf("%d more events, first %q", n, <-r.events.Events)
	}
}

// TestEventOnce: a cause is told once, however often the object changes.
func TestEventOnce(t *testing.T) {
	r := start(t, nil, parseObjects(t, []byte(oneIngress))...)
	e := <-r.events.Events
	if !strings.Contains(e, "BackendUnusable") {
		t.Errorf("event %q", e)
	}
	ctx := t.Context()
	for _, v := range []string{"/a", "/b", "c"} {
		in, err := r.client.NetworkingV1().Ingresses("default").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		in = in.DeepCopy()
		in.Annotations = map[string]string{Prefix + "/app-root": v}
		if _, err := r.client.NetworkingV1().Ingresses("default").Update(ctx, in, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if e := <-r.events.Events; !strings.Contains(e, `BadAnnotation the annotation nginx.ingress.kubernetes.io/app-root has the value "c"`) {
		t.Errorf("event %q", e)
	}
	if n := len(r.events.Events); n != 0 {
		t.Errorf("%d more", n)
	}
}

// TestSecretByAnnotation: a Secret of any type is read if an annotation names it,
// and what it guards is closed until it is there.
func TestSecretByAnnotation(t *testing.T) {
	objects := parseObjects(t, []byte(strings.Replace(oneIngress, "{name: web}", `{name: web, annotations: {nginx.ingress.kubernetes.io/auth-type: basic, nginx.ingress.kubernetes.io/auth-secret: users}}`, 1)+"\n---\n"+oneService))
	users := func(v string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "users"}, Data: map[string][]byte{"auth": []byte(v)}}
	}
	r := start(t, nil, objects...)
	basic := func() *route.BasicAuth { return r.rule("shop.example.com").Policy.Basic }
	if b := basic(); b == nil || b.Problem == "" {
		t.Fatalf("without the Secret: %+v", b)
	}
	api := r.client.CoreV1().Secrets("default")
	if _, err := api.Create(t.Context(), users("anna:x"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("a user", func() bool { return basic().Users["anna"] == "x" })
	if _, err := api.Update(t.Context(), users("bert:y"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("another user", func() bool { return basic().Users["bert"] == "y" && basic().Users["anna"] == "" })
}

func TestSecretThereFromTheBegin(t *testing.T) {
	objects := parseObjects(t, []byte(strings.Replace(oneIngress, "{name: web}", `{name: web, annotations: {nginx.ingress.kubernetes.io/auth-type: basic, nginx.ingress.kubernetes.io/auth-secret: users}}`, 1)+"\n---\n"+oneService))
	objects = append(objects, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "users"}, Data: map[string][]byte{"auth": []byte("a:b")}})
	r := start(t, nil, objects...)
	if b := r.rule("shop.example.com").Policy.Basic; b == nil || b.Problem != "" || len(b.Users) != 1 {
		t.Errorf("the first update has %+v", b)
	}
}

func TestStatus(t *testing.T) {
	r := start(t, func(c *Config) { c.Publish = []string{"gate.example.com", "192.0.2.1"} }, parseObjects(t, []byte(oneIngress+"\n---\n"+oneService))...)
	r.until("the status is there", func() bool { return r.status("web") == "192.0.2.1 gate.example.com" })
	in, err := r.client.NetworkingV1().Ingresses("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Somebody else writes it.
	in = in.DeepCopy()
	in.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "203.0.113.9"}}
	if _, err := r.client.NetworkingV1().Ingresses("default").Update(t.Context(), in, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("the status is ours again", func() bool { return r.status("web") == "192.0.2.1 gate.example.com" })
	in = in.DeepCopy()
	other := "other"
	in.Spec.IngressClassName = &other
	in.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}, {Hostname: "gate.example.com"}}
	if _, err := r.client.NetworkingV1().Ingresses("default").Update(t.Context(), in, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("the status is empty, for it is not ours any more", func() bool { return r.status("web") == "" })
	r.until("the host is gone", func() bool { return r.rule("shop.example.com") == nil })
}

// TestTwoGateways: the living ones are told together, and one of them writes.
func TestTwoGateways(t *testing.T) {
	lease := func(name, address string) *coordinationv1.Lease {
		now := metav1.NowMicro()
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: leasePrefix + name,
			Labels: map[string]string{leaseLabel: "true"}, Annotations: map[string]string{leaseAnnotation: address}}, Spec: coordinationv1.LeaseSpec{RenewTime: &now}}
	}
	objects := parseObjects(t, []byte(oneIngress+"\n---\n"+oneService))
	r := start(t, nil, append(objects, lease("c", "192.0.2.3"))...)
	r.until("both addresses", func() bool { return r.status("web") == "192.0.2.1 192.0.2.3" })

	// With a lower name about, it is not for this one to write.
	var mu sync.Mutex
	now := time.Unix(1_000_000, 0)
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	c := Config{Client: fake.NewClientset(lease("a", "192.0.2.7")), Name: "b", Publish: []string{"192.0.2.1"}, LeaseNamespace: metav1.NamespaceSystem, Options: Options{Now: clock}}
	c.Log = r.source.log
	l := newLeases(&c)
	l.beat(t.Context())
	if l.leads() || strings.Join(l.addresses(), " ") != "192.0.2.1 192.0.2.7" {
		t.Errorf("leads %v, addresses %v", l.leads(), l.addresses())
	}
	mu.Lock()
	now = now.Add(leaseLife)
	mu.Unlock()
	l.beat(t.Context())
	if !l.leads() || strings.Join(l.addresses(), " ") != "192.0.2.1" {
		t.Errorf("a has gone: leads %v, addresses %v", l.leads(), l.addresses())
	}
	l.leave()
	if _, err := c.Client.CoordinationV1().Leases(metav1.NamespaceSystem).Get(t.Context(), l.own(), metav1.GetOptions{}); err == nil {
		t.Error("the Lease is still there")
	}
}

func TestNewNeeds(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no error")
	}
	r := start(t, nil)
	if err := r.source.Run(t.Context()); err == nil {
		t.Error("it ran twice")
	}
}
