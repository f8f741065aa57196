package ingress

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

const keptManifest = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations:
    nginx.ingress.kubernetes.io/auth-type: basic
    nginx.ingress.kubernetes.io/auth-secret: users
    nginx.ingress.kubernetes.io/auth-tls-secret: default/ca
    nginx.ingress.kubernetes.io/custom-headers: fields
    nginx.ingress.kubernetes.io/session-cookie-secure: "false"
    nginx.ingress.kubernetes.io/affinity: cookie
spec:
  tls: [{hosts: [shop.example.com], secretName: cert}]
  rules:
  - host: shop.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: other}
spec:
  ingressClassName: other
  defaultBackend: {service: {name: web, port: {number: 80}}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: other}
spec: {controller: example.com/other}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: unused}
spec:
  ports: [{port: 80}]
---
apiVersion: v1
kind: Secret
metadata: {name: cert, annotations: {test/names: shop.example.com}}
type: kubernetes.io/tls
---
apiVersion: v1
kind: Secret
metadata: {name: ca, annotations: {test/names: shop.example.com, test/ca: "true"}}
type: kubernetes.io/tls
---
apiVersion: v1
kind: Secret
metadata: {name: secret-of-somebody-else, annotations: {test/names: x.example.com}}
type: kubernetes.io/tls
---
apiVersion: v1
kind: Secret
metadata: {name: users}
data: {auth: YTpi}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: fields}
data: {X-One: "1"}
---
apiVersion: v1
kind: Service
metadata: {name: default-http-backend, namespace: kube-system}
spec:
  ports: [{port: 80}]
`

// nobody is an API server that is away.
func nobody(t *testing.T) *rest.Config {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return &rest.Config{Host: s.URL}
}

// second is a start with a file while the API server is away: what it hands over
// until told to end. It gives the log too.
func second(t *testing.T, file string, change func(*Config)) (*Source, *route.Update, string) {
	t.Helper()
	var log bytes.Buffer
	var mu sync.Mutex
	got := make(chan route.Update, 10)
	c := Config{Rest: nobody(t), Name: "b", File: file, FileSource: "one", OnUpdate: func(u route.Update) { got <- u },
		Log: slog.New(slog.NewTextHandler(locked{&mu, &log}, nil)), Options: Options{Now: func() time.Time { return today }}}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	var u *route.Update
	if s.Kept() {
		select {
		case x := <-got:
			u = &x
		case <-time.After(2 * time.Minute):
			t.Error("nothing was handed over")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return s, u, log.String()
}

type locked struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// TestKept: what a run knew is served by the next one while the API server is
// away, certificates, passwords and all; and no Secret is kept that no route
// needs.
func TestKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes", "b", "routes")
	objects := parseObjects(t, []byte(keptManifest))
	t.Run("first", func(t *testing.T) { // its end writes the file
		r := start(t, func(c *Config) {
			c.File, c.FileSource, c.Now = file, "one", func() time.Time { return today }
		}, objects...)
		if r.source.Kept() || !r.source.Stale().IsZero() {
			t.Error("the first run begins with kept routes")
		}
	})
	want, err := Translate(objects, Options{Now: func() time.Time { return today }})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("secret-of-somebody-else")) || bytes.Contains(raw, []byte("unused")) {
		t.Error("the file holds what no route needs")
	}
	reg := prometheus.NewRegistry()
	s, u, log := second(t, file, func(c *Config) {
		c.Registerer = reg
		c.Now = func() time.Time { return today.Add(time.Minute) }
	})
	if u == nil || !u.Replace {
		t.Fatalf("no routes: %s", log)
	}
	if got, want := dump(&Translation{Update: *u}), dump(&Translation{Update: want.Update}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !s.Stale().Equal(today) || !strings.Contains(log, "serving the routes of the last run") {
		t.Errorf("stale since %s; log %s", s.Stale(), log)
	}
	if n := testutil.ToFloat64(collected(t, reg, "fingerpost_ingress_stale_seconds")); n != 60 {
		t.Errorf("stale for %v s", n)
	}
	// A run that never reached the server leaves the file as it was.
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, raw) {
		t.Errorf("the file has changed: %v", err)
	}
	// Other flags: the routes are made by them.
	_, u, _ = second(t, file, func(c *Config) { c.OnlyWithClass = true })
	if u == nil || len(u.Hosts) != 0 {
		t.Errorf("with --only-with-class: %+v", u)
	}

	// And with the server back they are those of the server.
	var updates []route.Update
	r := start(t, func(c *Config) {
		c.File, c.FileSource, c.Now = file, "one", func() time.Time { return today }
		next := c.OnUpdate
		c.OnUpdate = func(u route.Update) { updates = append(updates, u); next(u) }
	}, parseObjects(t, []byte(oneService))...)
	if len(updates) != 2 || len(updates[0].Hosts) != 1 || !updates[1].Replace || len(updates[1].Hosts) != 0 {
		t.Errorf("%d updates: %+v", len(updates), updates)
	}
	if !r.source.Stale().IsZero() {
		t.Error("still stale")
	}
}

// collected gives one metric of a registry.
func collected(t *testing.T, reg *prometheus.Registry, name string) prometheus.Collector {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "x"})
			g.Set(f.GetMetric()[0].GetGauge().GetValue())
			return g
		}
	}
	t.Fatalf("there is no metric %s", name)
	return nil
}

// TestKeptUseless: a file that cannot be used is told, and does no harm.
func TestKeptUseless(t *testing.T) {
	good := filepath.Join(t.TempDir(), "routes")
	t.Run("first", func(t *testing.T) {
		start(t, func(c *Config) { c.File, c.FileSource = good, "one"; c.Now = func() time.Time { return today } }, parseObjects(t, []byte(keptManifest))...)
	})
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name, says string
		raw        []byte
		change     func(*Config)
	}{
		{"foreign", "no routes of this version", []byte("apiVersion: v1\nkind: Secret\n"), nil},
		{"cut", "damaged", raw[:len(raw)/2], nil},
		{"of another server", `from \"one\", not from \"two\"`, raw, func(c *Config) { c.FileSource = "two" }},
		{"old", "old", raw, func(c *Config) { c.Now = func() time.Time { return today.AddDate(0, 1, 0) } }},
	} {
		file := filepath.Join(t.TempDir(), "routes")
		if err := os.WriteFile(file, x.raw, 0o600); err != nil {
			t.Fatal(err)
		}
		s, u, log := second(t, file, x.change)
		if s.Kept() || u != nil || !s.Stale().IsZero() || !strings.Contains(log, "are not used") || !strings.Contains(log, x.says) {
			t.Errorf("%s: kept %v, log %s", x.name, s.Kept(), log)
		}
	}
}

// TestKeptFollows: the file follows what the server says, soon.
func TestKeptFollows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes")
	r := start(t, func(c *Config) { c.File = file }, parseObjects(t, []byte(oneService))...)
	in := parseObjects(t, []byte(oneIngress))[0].(*networkingv1.Ingress)
	if _, err := r.client.NetworkingV1().Ingresses("default").Create(t.Context(), in, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	holds := func(what string) func() bool {
		return func() bool {
			raw, err := os.ReadFile(file)
			return err == nil && bytes.Contains(raw, []byte(what))
		}
	}
	r.until("the file has the Ingress", holds("shop.example.com"))
	if err := r.client.NetworkingV1().Ingresses("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("the file has it no more", func() bool { return !holds("shop.example.com")() })
}

// TestAway: an API server that ceases to answer makes the routes old.
func TestAway(t *testing.T) {
	s, err := New(Config{Rest: nobody(t), Name: "b", OnUpdate: func(route.Update) {}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	end := time.Now().Add(2 * time.Minute)
	for s.Stale().IsZero() && time.Now().Before(end) {
		<-time.After(5 * time.Millisecond)
	}
	if s.Stale().IsZero() {
		t.Error("nobody answers, and the routes are said to be fresh")
	}
	cancel()
	<-done
}

func BenchmarkKeep(b *testing.B) {
	st := newState(Options{})
	for i := range 10_000 {
		in := parseObjects(b, []byte(strings.ReplaceAll(oneIngress, "shop", "shop"+strings.Repeat("x", i%7))))[0].(*networkingv1.Ingress)
		in.Name = in.Name + time.Duration(i).String()
		st.putIngress(keyOf(in), in)
	}
	st.putService(keyOf(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}), parseObjects(b, []byte(oneService))[0].(*corev1.Service))
	st.flush()
	b.Run("gather", func(b *testing.B) {
		for b.Loop() {
			st.used()
		}
	})
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			for _, o := range st.used() {
				if _, err := encodeRecord(o); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
