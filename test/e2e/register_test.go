//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"k8s.io/client-go/rest"
)

// Walkthrough 18: the API is a Service itself.
func TestWalkthroughKubernetesService(t *testing.T) {
	t.Parallel()
	sys := common.system(t)
	ip := sys.clusterIP(t, "default", "kubernetes")
	if got := sys.must(t, "get", "services", "-n", "default"); !strings.Contains(got, "kubernetes") || !strings.Contains(got, ip) || !strings.Contains(got, "443/TCP") {
		t.Errorf("kubectl get services:\n%s", got)
	}
	if got := sys.must(t, "get", "endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=kubernetes"); !strings.Contains(got, strings.TrimSuffix(sys.listen, ":6443")) {
		t.Errorf("kubectl get endpointslices:\n%s", got)
	}
	wantDNS(t, sys.dns, "kubernetes.default.svc.cluster.local", dns.TypeA, "A "+ip)
	needLowPorts(t)
	// With everything verified: the certificate is good for the virtual IP too.
	eventually(t, "kubectl through the ClusterIP", func() error {
		r := finish(t, sys.kubectl(t, "--server", "https://"+ip+":443", "get", "--raw", "/version"))
		return unless(r.code == 0 && strings.Contains(r.out, `"major"`), "exit %d\n%s%s", r.code, r.out, r.err)
	})
}

// registrant is a client with nothing but a service account's token and the
// CA, as a process that registers itself has them.
func registrant(t testing.TB, sys *system, ns string) *client {
	t.Helper()
	sys.must(t, "create", "serviceaccount", "reg", "-n", ns)
	sys.must(t, "create", "rolebinding", "reg", "-n", ns, "--clusterrole=fingerpost:registrar", "--serviceaccount="+ns+":reg")
	token := strings.TrimSpace(sys.must(t, "create", "token", "reg", "-n", ns))
	ca := sys.must(t, "get", "configmap", "kube-root-ca.crt", "-n", ns, "-o", `jsonpath={.data.ca\.crt}`)
	return clientFor(t, &rest.Config{Host: "https://" + sys.listen, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: []byte(ca)}})
}

// Walkthrough 19, first part: a process registers itself over plain HTTP, is
// found while it sends heartbeats, and is gone when they stop.
func TestWalkthroughSelfRegistration(t *testing.T) {
	t.Parallel()
	sys, ns := common.namespace(t, "self")
	me := registrant(t, sys, ns)
	ip := sys.site.ip(19, 1)
	serveAt(t, ip+":9000", "self")
	const ttl = 6 * time.Second // beats may come late, but not that late
	instances := "/apis/fingerpost.dev/v1alpha1/namespaces/" + ns + "/instances"
	body := fmt.Sprintf(`{"apiVersion":"fingerpost.dev/v1alpha1","kind":"Instance","metadata":{"name":"api-1"},
		"spec":{"service":"api","address":%q,"nodeName":%q,"ports":[{"name":"http","port":9000}],
		"check":{"type":"ttl","ttl":%q,"deregisterAfter":"2s"}}}`, ip, node(t), ttl)
	if code, text := me.do("PUT", instances+"/api-1/renew", ""); code != 404 {
		t.Errorf("a heartbeat of nobody: %d %s, want 404: register first", code, text)
	}
	me.want(t, http.StatusCreated, "POST", instances, body)
	if code, text := me.do("POST", instances, body); code != http.StatusConflict {
		t.Errorf("registered twice: %d %s", code, text)
	}
	quit, beating := make(chan struct{}), make(chan error, 1)
	var beats atomic.Int32
	go func() {
		tick := time.NewTicker(ttl / 16)
		defer tick.Stop()
		for {
			if code, text := me.do("PUT", instances+"/api-1/renew", ""); code != 200 {
				beating <- fmt.Errorf("heartbeat %d: %d %s", beats.Load(), code, text)
				return
			}
			beats.Add(1)
			select {
			case <-quit:
				beating <- nil
				return
			case <-tick.C:
			}
		}
	}()
	eventually(t, "a ready endpoint", func() error { return readyEndpoints(sys, t, ns, "api", 1) })
	url := "http://" + sys.clusterIP(t, ns, "api") + ":9000/"
	wantNames(t, url, "self")
	var in struct {
		Metadata struct{ ResourceVersion string }
		Status   struct{ Health struct{ State, By string } }
	}
	me.get(t, instances+"/api-1", &in)
	if in.Status.Health.State != "Passing" {
		t.Errorf("health: %+v", in.Status.Health)
	}
	// Longer than its TTL: heartbeats alone keep it, and none of them is a write.
	was := in.Metadata.ResourceVersion
	eventually(t, "heartbeats", func() error { return unless(beats.Load() > 20, "%d", beats.Load()) })
	wantNames(t, url, "self")
	me.get(t, instances+"/api-1", &in)
	if in.Metadata.ResourceVersion != was {
		t.Errorf("heartbeats wrote: resource version %s, then %s", was, in.Metadata.ResourceVersion)
	}
	close(quit)
	if err := <-beating; err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	eventually(t, "no endpoint", func() error { return readyEndpoints(sys, t, ns, "api", 0) })
	if took := time.Since(stopped); took < ttl/2 {
		t.Errorf("out after %v, before its TTL of %v", took, ttl)
	}
	eventually(t, "the Instance is deleted", func() error {
		code, text := me.do("GET", instances+"/api-1", "")
		return unless(code == 404, "%d %s", code, text)
	})
	// It comes back as the tutorial says: 404, so register again.
	if code, text := me.do("PUT", instances+"/api-1/renew", ""); code != 404 {
		t.Errorf("a heartbeat after that: %d %s", code, text)
	}
	me.want(t, http.StatusCreated, "POST", instances, body)
	wantNames(t, url, "self")
	me.want(t, 200, "DELETE", instances+"/api-1", "")
	eventually(t, "deregistered", func() error { return readyEndpoints(sys, t, ns, "api", 0) })
	// The token is good for that only.
	if code, text := me.do("GET", "/api/v1/namespaces/"+ns+"/secrets", ""); code != 403 {
		t.Errorf("a registrant reads secrets: %d %s", code, text)
	}
	if code, text := me.do("POST", strings.Replace(instances, ns, "default", 1), body); code != 403 {
		t.Errorf("a registrant registers elsewhere: %d %s", code, text)
	}
}

// Walkthrough 19, third part: somebody else registers and deregisters it; the
// server checks it.
func TestWalkthroughThirdParty(t *testing.T) {
	t.Parallel()
	sys, ns := common.namespace(t, "third")
	ip := sys.site.ip(20, 1)
	fp := func(code int, args ...string) result {
		t.Helper()
		r := finish(t, sys.fingerpost(t, append(args, "-n", ns)...))
		if r.code != code {
			t.Errorf("fingerpost %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
		}
		return r
	}
	serveAt(t, ip+":7001", "one")
	two := serveAt(t, ip+":7002", "two")
	fp(0, "register", "web", "--address", ip, "--port", "7001", "--service-port", "7000", "--zone", "z1", "--meta", "version=2")
	fp(0, "register", "web", "--address", ip, "--port", "7002", "--check", "http:/healthz", "--check-interval", "1s", "--check-timeout", "1s", "--check-fall", "2")
	vip := sys.clusterIP(t, ns, "web")
	url := "http://" + vip + ":7000/"
	wantNames(t, url, "one", "two")

	// Taken out of service, and back.
	fp(0, "register", "web", "--address", ip, "--port", "7001", "--state", "OutOfService", "--reason", "maintenance")
	wantNames(t, url, "two")
	if r := fp(0, "explain", "web"); !strings.Contains(r.out, "maintenance") {
		t.Errorf("explain does not say why:\n%s", r.out)
	}
	fp(0, "register", "web", "--address", ip, "--port", "7001")
	wantNames(t, url, "one", "two")

	// The server's own check finds it sick, well, and dead.
	post(t, "http://"+ip+":7002/fail")
	wantNames(t, url, "one")
	if r := fp(0, "explain", "web"); !strings.Contains(r.out, "503") {
		t.Errorf("explain does not say why:\n%s", r.out)
	}
	post(t, "http://"+ip+":7002/heal")
	wantNames(t, url, "one", "two")
	two.kill()
	wantNames(t, url, "one")

	fp(0, "deregister", "web", "--address", ip, "--port", "7001")
	eventually(t, "resolve tells that nothing alive is there", func() error {
		r := finish(t, sys.fingerpost(t, "resolve", "web", "-n", ns))
		return unless(r.code == 5, "exit %d\n%s%s", r.code, r.out, r.err)
	})
	fp(3, "deregister", "web", "--address", ip, "--port", "7001")
	fp(0, "deregister", "web", "--address", ip, "--port", "7002")
	var list struct{ Items []json.RawMessage }
	sys.api(t).get(t, "/apis/fingerpost.dev/v1alpha1/namespaces/"+ns+"/instances", &list)
	if len(list.Items) != 0 {
		t.Errorf("left behind: %s", list.Items)
	}
	// Held by a process that renews it: gone with the process.
	k := start(t, "register", sys.fingerpost(t, "register", "held", "-n", ns, "--address", ip, "--port", "7001", "--keep-alive"))
	if err := k.waitFor("registered as"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "held", func() error { return readyEndpoints(sys, t, ns, "held", 1) })
	k.stop()
	eventually(t, "released", func() error { return readyEndpoints(sys, t, ns, "held", 0) })
}

// TestKubeconfigIsPrivate: the administrator's credentials are for the owner.
func TestKubeconfigIsPrivate(t *testing.T) {
	t.Parallel()
	sys := common.system(t)
	for path, want := range map[string]os.FileMode{
		sys.kubeconfig():                      0o600,
		sys.data:                              0o700 | os.ModeDir,
		filepath.Join(sys.data, "pki/ca.key"): 0o600,
		filepath.Join(sys.data, "pki/sa.key"): 0o600,
	} {
		st, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if st.Mode() != want {
			t.Errorf("%s: mode %v, want %v", path, st.Mode(), want)
		}
	}
}
