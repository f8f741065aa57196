package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	goruntime "runtime"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost/fingerpost/node/runtime/runtimetest"
)

// BenchmarkIdle: what 200 pods with an HTTP probe each second cost while
// nothing happens, the server that answers included.
func BenchmarkIdle(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	api := fake.NewSimpleClientset()
	a, err := New(Config{
		NodeName: "n1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Client: api, Runtime: runtimetest.NewFake(),
		Images: &fakeImages{}, Dir: b.TempDir(), SecretsOnDisk: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-a.Ready()
	defer func() { cancel(); <-done }()
	const pods = 200
	begin := time.Now()
	for i := range pods {
		p := &corev1.Pod{}
		text := fmt.Sprintf("{metadata: {name: p%d, namespace: d, uid: u%d}, spec: {nodeName: n1, containers: [{name: c, image: i, readinessProbe: {periodSeconds: 1, httpGet: {port: %s}}}]}}", i, i, s.URL[len("http://127.0.0.1:"):])
		if err := yaml.Unmarshal([]byte(text), p); err != nil {
			b.Fatal(err)
		}
		if _, err := api.CoreV1().Pods("d").Create(ctx, p, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	ready := func() (n int) {
		for _, p := range a.Pods() {
			if isReady(&p.Status) {
				n++
			}
		}
		return n
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ready() < pods {
		if time.Since(begin) > 30*time.Second {
			b.Fatalf("%d are ready", ready())
		}
		<-tick.C
	}
	b.ReportMetric(float64(time.Since(begin).Milliseconds()), "ms-to-all-ready")
	cpu := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ResetTimer()
	for b.Loop() {
		was, at := cpu(), time.Now()
		<-time.After(3 * time.Second)
		b.ReportMetric(100*float64(cpu()-was)/float64(time.Since(at)), "%core")
	}
	b.ReportMetric(float64(goruntime.NumGoroutine()), "goroutines")
}
