//go:build linux

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestGatewayWalkthrough is what people do with Ingresses, with manifests as
// they were written for Kubernetes 1.14 and for ingress-nginx.
func TestGatewayWalkthrough(t *testing.T) {
	t.Parallel()
	c := newPods(t, 1)
	for name, walk := range map[string]func(*testing.T, *cluster){
		"11 dashboard": walkDashboard, "12 default backend": walkDefaultBackend, "13 localhost": walkLocalhost, "14 gray release": walkGrayRelease,
		"browser": walkBrowser,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			walk(t, c)
		})
	}
}

// visit makes one request to the gateway of a machine, whatever host the URL
// names, and follows no redirect.
func (m *machine) visit(method, url string, header http.Header) (*http.Response, string, error) {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(address)
		return m.dial(ctx, network, net.JoinHostPort("127.0.0.1", port))
	}
	client := &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true, DialContext: dial,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // what is shown is looked at, not trusted
		},
	}
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return nil, "", err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

// shows waits until a URL gives a status, and a body that begins so.
func (m *machine) shows(t testing.TB, url string, status int, begin string) *http.Response {
	t.Helper()
	var last *http.Response
	eventually(t, url, func() error {
		res, body, err := m.visit("GET", url, nil)
		if err != nil {
			return err
		}
		last = res
		return unless(res.StatusCode == status && strings.HasPrefix(body, begin), "%d %q, want %d %q", res.StatusCode, body, status, begin)
	})
	return last
}

// keyPair writes a self-signed certificate and its key as kubectl wants them.
func keyPair(t testing.TB, names ...string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}, &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, SerialNumber: serial}, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// service is a Service on port 80 with one pod behind it that answers its name.
func (c *cluster) service(t testing.TB, ns, name, pod string) {
	t.Helper()
	c.apply(t, ns, webPod(pod, "app: "+name, "")+fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s}
spec:
  selector: {app: %[1]s}
  ports: [{name: http, port: 80}]
`, name))
	c.pod(t, ns, pod, "ready", podReady)
}

func walkDashboard(t *testing.T, c *cluster) {
	const ns = "kube-system" // the manifests name it
	m := c.server()
	c.service(t, ns, "kubernetes-dashboard", "dashboard")
	c.must(t, "apply", "-f", abs(t, "testdata/walkthrough/dashboard-ingress.yaml"))
	m.shows(t, "http://dashboard.example.com/", 200, "dashboard ")
	m.shows(t, "http://other.example.com/", 404, "")
	if got := c.must(t, "get", "ingress", "-n", ns, "dashboard-ingress"); !strings.Contains(got, "dashboard.example.com") {
		t.Errorf("kubectl get ingress:\n%s", got)
	}
	eventually(t, "status of the ingress", func() error {
		ing, err := c.client.NetworkingV1().Ingresses(ns).Get(t.Context(), "dashboard-ingress", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return unless(len(ing.Status.LoadBalancer.Ingress) > 0, "no address")
	})

	cert, key := keyPair(t, "dashboard.example.com")
	c.must(t, "create", "secret", "tls", "ingress-secret", "-n", ns, "--cert", cert, "--key", key)
	c.must(t, "apply", "-f", abs(t, "testdata/walkthrough/dashboard-ingress-tls.yaml"))
	eventually(t, "the host's certificate", func() error {
		res, body, err := m.visit("GET", "https://dashboard.example.com/", nil)
		if err != nil {
			return err
		}
		return unless(res.StatusCode == 200 && strings.HasPrefix(body, "dashboard ") && res.TLS.PeerCertificates[0].Subject.CommonName == "dashboard.example.com",
			"%d %q with the certificate of %s", res.StatusCode, body, res.TLS.PeerCertificates[0].Subject)
	})
	eventually(t, "redirect to https", func() error {
		res, _, err := m.visit("GET", "http://dashboard.example.com/a?b=c", nil)
		if err != nil {
			return err
		}
		return unless(res.StatusCode == 308 && res.Header.Get("Location") == "https://dashboard.example.com/a?b=c",
			"%d to %q", res.StatusCode, res.Header.Get("Location"))
	})

	// A host that is not in tls.hosts.
	c.apply(t, ns, `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: forgotten, annotations: {kubernetes.io/ingress.class: nginx}}
spec:
  tls: [{hosts: [dashboard.example.com], secretName: ingress-secret}]
  rules:
  - {host: forgotten.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: kubernetes-dashboard, port: {name: http}}}}]}}
`)
	res := m.shows(t, "https://forgotten.example.com/", 200, "dashboard ")
	if cn := res.TLS.PeerCertificates[0].Subject.CommonName; cn == "dashboard.example.com" {
		t.Errorf("a host that is not in tls.hosts has the certificate of %s", cn)
	}
	eventually(t, "an event that names the host", func() error {
		list, err := c.client.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=forgotten"})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range list.Items {
			if e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, "forgotten.example.com") {
				return nil
			}
			seen = append(seen, e.Reason+": "+e.Message)
		}
		return fmt.Errorf("there is only %q", seen)
	})
}

func walkDefaultBackend(t *testing.T, c *cluster) {
	m := c.server()
	c.must(t, "apply", "-f", abs(t, "testdata/walkthrough/default-backend.yaml"))
	c.ready(t, "kube-system", "k8s-app=default-http-backend", 1)
	m.shows(t, "http://nobody.example.com/", 404, "default backend")
	m.shows(t, "http://nobody.example.com/healthz", 200, "")
}

func walkLocalhost(t *testing.T, c *cluster) {
	m := c.server()
	c.must(t, "apply", "-f", abs(t, "testdata/walkthrough/localhost-ingress.yaml"))
	c.pod(t, "default", "nginx-pod-demo-for-test-ingress", "ready", podReady)
	m.shows(t, "http://localhost/", 200, "")

	// Another pod takes over while requests come: none fails. It has a probe: one
	// without is called ready before it listens, as in Kubernetes.
	load := m.press("http://localhost/", 200)
	for _, next := range []string{"second", "third"} {
		c.apply(t, "default", fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: nginx-pod-demo-for-test-ingress}}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - {name: nginx-container, image: nginx, ports: [{containerPort: 80}], readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1, timeoutSeconds: 20}}
`, next))
		c.pod(t, "default", next, "ready", podReady)
		old := map[string]string{"second": "nginx-pod-demo-for-test-ingress", "third": "second"}[next]
		c.must(t, "delete", "pod", old)
	}
	load.stop()
	if n := load.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed while pods were replaced: %s", n, load.sent.Load(), strings.Join(load.first, "; "))
	}
}

func walkGrayRelease(t *testing.T, c *cluster) {
	m := c.server()
	ns := c.namespace(t, "gray")
	c.service(t, ns, "stable", "old")
	c.service(t, ns, "next", "new")
	ingress := func(name, service, annotations string) string {
		return fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %s, annotations: {%s}}
spec:
  ingressClassName: nginx
  rules:
  - {host: gray.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: %s, port: {number: 80}}}}]}}
---
`, name, annotations, service)
	}
	const canary = `nginx.ingress.kubernetes.io/canary: "true", nginx.ingress.kubernetes.io/`
	c.apply(t, ns, ingress("main", "stable", ""))
	m.shows(t, "http://gray.example.com/", 200, "old ")
	c.apply(t, ns, ingress("canary", "next", canary+`canary-weight: "20"`))
	share := func(header http.Header) (share float64) {
		const n = 300
		for range n {
			_, body, err := m.visit("GET", "http://gray.example.com/", header)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(body, "new ") {
				share += 1. / n
			}
		}
		return share
	}
	eventually(t, "the canary takes a part", func() error {
		// 300 requests at 20 %: beyond 6 standard deviations is 0.06 and 0.34.
		s := share(nil)
		return unless(s > 0.06 && s < 0.34, "%.2f go to the canary", s)
	})
	c.apply(t, ns, ingress("canary", "next", canary+`canary-weight: "0", nginx.ingress.kubernetes.io/canary-by-header: X-Canary, nginx.ingress.kubernetes.io/canary-by-cookie: canary`))
	for _, tc := range []struct {
		what   string
		header http.Header
		want   string
	}{
		{"no header", nil, "old "},
		{"header always", http.Header{"X-Canary": {"always"}}, "new "},
		{"header never, cookie always", http.Header{"X-Canary": {"never"}, "Cookie": {"canary=always"}}, "old "},
		{"cookie always", http.Header{"Cookie": {"a=b; canary=always"}}, "new "},
		{"cookie never", http.Header{"Cookie": {"canary=never"}}, "old "},
	} {
		eventually(t, tc.what, func() error {
			_, body, err := m.visit("GET", "http://gray.example.com/", tc.header)
			if err != nil {
				return err
			}
			return unless(strings.HasPrefix(body, tc.want), "%q answers, want %q", body, tc.want)
		})
	}
}
