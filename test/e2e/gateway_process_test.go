//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// gateway is a 'fingerpost gateway' of its own.
type gateway struct {
	*child
	*doorway
	sys *system
	obs string
}

// gatewayFile makes a kubeconfig that may do what a gateway needs, and no more.
func (s *system) gatewayFile(t testing.TB) string {
	t.Helper()
	const ns = "kube-system"
	s.must(t, "create", "serviceaccount", "gateway", "-n", ns)
	s.must(t, "create", "clusterrolebinding", "gateway", "--clusterrole=fingerpost:gateway", "--serviceaccount="+ns+":gateway")
	admin, err := clientcmd.LoadFromFile(s.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range admin.Clusters {
		cfg := clientcmdapi.NewConfig()
		cfg.Clusters["it"] = c
		cfg.AuthInfos["gateway"] = &clientcmdapi.AuthInfo{Token: strings.TrimSpace(s.must(t, "create", "token", "gateway", "-n", ns))}
		cfg.Contexts["it"] = &clientcmdapi.Context{Cluster: "it", AuthInfo: "gateway"}
		cfg.CurrentContext = "it"
		file := filepath.Join(t.TempDir(), "gateway.kubeconfig")
		if err := clientcmd.WriteToFile(*cfg, file); err != nil {
			t.Fatal(err)
		}
		return file
	}
	t.Fatal("the administrator's kubeconfig has no cluster")
	return ""
}

// gatewayAt starts one at an address of the site; it may not be ready yet.
func (s *system) gatewayAt(t testing.TB, host int, config string, more ...string) *gateway {
	t.Helper()
	d := &doorway{s.site.at(40, host, 8080), s.site.at(40, host, 8443), s.home}
	g := &gateway{doorway: d, sys: s, obs: s.site.at(40, host, 9464)}
	g.child = start(t, fmt.Sprint("gateway-", host), s.fingerpost(t, append([]string{"gateway", "--kubeconfig", config,
		"--http", d.http, "--https", d.https, "--metrics-address", g.obs}, more...)...))
	return g
}

func (g *gateway) ready(t testing.TB) {
	t.Helper()
	if err := g.waitFor("is ready"); err != nil {
		t.Fatal(err)
	}
}

// says runs 'fingerpost gateway WORDS' about it.
func (g *gateway) says(t testing.TB, code int, args ...string) result {
	t.Helper()
	r := finish(t, g.sys.fingerpost(t, append(append([]string{"gateway"}, args...), "--metrics-address", g.obs)...))
	if r.code != code {
		t.Errorf("fingerpost gateway %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	return r
}

// TestGatewayProcess: gateways as processes of their own, with the rights of
// the ClusterRole fingerpost:gateway, in front of a server that comes and goes.
func TestGatewayProcess(t *testing.T) {
	t.Parallel()
	const ns = "shop"
	sys := layout(newSite(t), 1, t.TempDir()).launch(t, "server")
	sys.makeNamespace(t, ns)
	a, b := listenEndpoint(t, sys.site, 10, 1, 9000, "a", nil, nil), listenEndpoint(t, sys.site, 10, 2, 9000, "b", nil, nil)
	config := sys.gatewayFile(t)
	sys.apply(t, ns, behind(t, "echo", a, b)+behind(t, "nobody")+rule{name: "web", host: "web.example.com"}.String()+
		rule{name: "empty", host: "empty.example.com", service: "nobody"}.String())
	log := filepath.Join(t.TempDir(), "access.log")
	one := sys.gatewayAt(t, 1, config, "--state-dir", t.TempDir(), "--proxy-protocol-from", sys.site.ip(60, 1)+"/32", "--access-log", log, "--access-log-format", "json")
	one.ready(t)
	one.comes(t, ask{"a request", []string{"http://web.example.com/"}, 200, nil, nil})
	ip := func(g *gateway) string { return strings.TrimSuffix(g.http, ":8080") }
	sys.wantStatus(t, ns, "web", ip(one))

	t.Run("asked", func(t *testing.T) { gatewayAsked(t, one, ip(one)) })

	t.Run("behind a load balancer", func(t *testing.T) { gatewayProxied(t, one, sys.site.ip(60, 1), log) })

	// A second one: both addresses are told, and one when it has gone.
	two := sys.gatewayAt(t, 2, config, "--publish-address", "two.example.com")
	two.ready(t)
	two.comes(t, ask{"of the second one", []string{"http://web.example.com/"}, 200, nil, nil})
	sys.wantStatus(t, ns, "web", ip(one), "two.example.com")
	two.signal(syscall.SIGTERM)
	if code := two.code(t); code != 0 {
		t.Errorf("the second one ended with %d:\n%s", code, tail(two.text(), 20))
	}
	sys.wantStatus(t, ns, "web", ip(one))

	// Without the server: the routes stay, and endpoints that die are left out.
	sys.stop()
	for range 5 {
		one.is(t, ask{"without the server", []string{"http://web.example.com/"}, 200, nil, nil})
	}
	if code, text := fetch("http://" + one.obs + "/readyz"); code != 200 {
		t.Errorf("/readyz of a gateway that serves without the server: %d %s", code, text)
	}
	b.close()
	for range 20 {
		one.is(t, ask{"without the server, with a dead endpoint", []string{"http://web.example.com/"}, 200, []string{"X-Endpoint: a"}, nil})
	}
	eventually(t, "explain says that an endpoint is left out", func() error { // for a while, and again after the next request
		one.is(t, ask{"without the server, with a dead endpoint", []string{"http://web.example.com/"}, 200, []string{"X-Endpoint: a"}, nil})
		r := one.says(t, 0, "explain", "http://web.example.com/")
		return unless(strings.Contains(r.out, "left out for"), "%s", r.out)
	})
	// A new one knows no routes, says so, and gets them when the server is back.
	three := sys.gatewayAt(t, 3, config)
	eventually(t, "503 of a gateway that knows nothing yet", func() error {
		r, err := three.curl(t, "http://web.example.com/")
		if err != nil {
			return err
		}
		return unless(r.status == 503 && r.header.Get("Retry-After") != "", "%v", r)
	})
	if code, text := fetch("http://" + three.obs + "/readyz"); code != 503 || !strings.Contains(text, "waiting for") {
		t.Errorf("/readyz of a gateway that knows nothing yet: %d %q", code, text)
	}
	if r := three.says(t, 4, "explain", "http://web.example.com/"); !strings.Contains(r.err, "not ready") {
		t.Errorf("explain does not say that the gateway is not ready:\n%s%s", r.out, r.err)
	}
	sys.launch(t, "server")
	three.ready(t)
	three.is(t, ask{"when it is ready", []string{"http://web.example.com/"}, 200, nil, nil})
	// And the first one follows again.
	sys.apply(t, ns, rule{name: "new", host: "new.example.com"}.String())
	for _, g := range []*gateway{one, three} {
		g.comes(t, ask{"a new route", []string{"http://new.example.com/"}, 200, nil, nil})
	}
	sys.wantStatus(t, ns, "new", ip(one), ip(three))
	t.Run("drain", func(t *testing.T) { gatewayDrains(t, three) })
	sys.wantStatus(t, ns, "new", ip(one))
}

// gatewayAsked: what a gateway says of itself.
func gatewayAsked(t *testing.T, g *gateway, ip string) {
	for _, tc := range []struct {
		code int
		args []string
		says []string
	}{
		{0, []string{"routes"}, []string{"HOST", "web.example.com", "Prefix /", "shop/echo:http", "shop/web"}},
		{0, []string{"routes", "web.example.com", "-o", "json"}, []string{`"host": "web.example.com"`}},
		{3, []string{"routes", "nobody.example.com"}, []string{"nobody.example.com"}},
		{0, []string{"explain", "http://web.example.com/a?b"}, []string{"shop/echo:http", ":9000"}},
		{0, []string{"explain", "web.example.com"}, []string{"chosen"}},
		{3, []string{"explain", "http://nobody.example.com/"}, []string{"404", "no rule matches"}},
		{5, []string{"explain", "http://empty.example.com/"}, []string{"nothing alive", "no ready endpoint"}},
		{2, []string{"explain", "http:///"}, []string{"want a URL"}},
		{2, []string{"explain", "http://web.example.com/", "--header", "X"}, []string{"Name: value"}},
		{2, []string{"explain"}, []string{"--help"}},
		{2, []string{"explain", "web.example.com", "-o", "xml"}, []string{"json"}},
	} {
		r := g.says(t, tc.code, tc.args...)
		for _, want := range tc.says {
			if !strings.Contains(r.out+r.err, want) {
				t.Errorf("fingerpost gateway %s does not say %q:\n%s%s", strings.Join(tc.args, " "), want, r.out, r.err)
			}
		}
	}
	code, text := fetch("http://" + g.obs + "/healthz")
	if code != 200 {
		t.Errorf("/healthz: %d %s", code, text)
	}
	for _, m := range []string{"fingerpost_gateway_", "nginx_ingress_controller_"} {
		if _, text := fetch("http://" + g.obs + "/metrics"); !strings.Contains(text, m) {
			t.Errorf("no metric %s…", m)
		}
	}
	// Nobody listens there.
	r := finish(t, g.sys.fingerpost(t, "gateway", "routes", "--metrics-address", ip+":1"))
	if r.code != 4 || !strings.Contains(r.err, "--metrics-address") {
		t.Errorf("no gateway: exit %d\n%s", r.code, r.err)
	}
	// Somebody listens there who is no gateway.
	r = finish(t, g.sys.fingerpost(t, "gateway", "routes", "--metrics-address", g.http))
	if r.code != 4 || !strings.Contains(r.err, "no gateway") {
		t.Errorf("another listener: exit %d\n%s", r.code, r.err)
	}
	// A port that is taken, and who else may have it.
	r = finish(t, g.sys.fingerpost(t, "gateway", "--kubeconfig", g.sys.kubeconfig(), "--http", g.http, "--https", ip+":0", "--metrics-address", ""))
	if r.code != 1 || !strings.Contains(r.err, g.http) || !strings.Contains(r.err, "choose another port") {
		t.Errorf("a port that is taken: exit %d\n%s", r.code, r.err)
	}
	if r := finish(t, g.sys.fingerpost(t, "gateway", "--kubeconfig", filepath.Join(t.TempDir(), "nowhere"), "--http", ip+":0", "--https", ip+":0", "--metrics-address", "")); r.code == 0 || !strings.Contains(r.err, "nowhere") {
		t.Errorf("a kubeconfig that is not there: exit %d\n%s", r.code, r.err)
	}
	for flag, say := range map[string]string{
		"--http=nonsense": "127.0.0.1:80", "--http=:99999": "--http", "--https=host.example.com:443": "--https", "--proxy-protocol-from=everybody": "--proxy-protocol-from",
		"--trusted-proxies=10.0.0.0/99": "--trusted-proxies", "--default-backend=web": "NAMESPACE/NAME", "--default-certificate=tls": "NAMESPACE/NAME",
		"--publish-address=http://x": "--publish-address", "--access-log=- --access-log-format=xml": "combined, plain or json", "--drain=-1s": "--drain",
		"--max-connections=0": "--max-connections", "--log-level=loud": "log", "--node-name=A_B": "--node-name", "--metrics-address=9464": "--metrics-address", "--nonsense": "--help",
		"--http= --https=": "--http",
	} {
		r := finish(t, g.sys.fingerpost(t, append([]string{"gateway"}, strings.Fields(flag)...)...))
		if r.code != 2 || !strings.Contains(r.err, say) {
			t.Errorf("fingerpost gateway %s: exit %d, want 2 and %q\n%s", flag, r.code, say, r.err)
		}
	}
}

// gatewayProxied: a load balancer that begins connections with a PROXY protocol
// header is believed, and nobody else.
func gatewayProxied(t *testing.T, g *gateway, balancer, log string) {
	say := func(from, begin string) string {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
		c, err := d.Dial("tcp", g.http)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, begin+"GET /proxied HTTP/1.1\r\nHost: web.example.com\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		all, _ := io.ReadAll(c) // refused connections end as they will
		return string(all)
	}
	const header = "PROXY TCP4 203.0.113.7 192.0.2.1 4711 80\r\n"
	if got := say(balancer, header); !strings.Contains(got, `"X-Real-Ip":["203.0.113.7"]`) {
		t.Errorf("of the load balancer: %s", got)
	}
	if got := say(g.sys.site.ip(60, 2), header); strings.Contains(got, "200 OK") {
		t.Errorf("of somebody else: %s", got)
	}
	if got := say(g.sys.site.ip(60, 2), ""); !strings.Contains(got, `"X-Real-Ip":["`+g.sys.site.ip(60, 2)+`"]`) {
		t.Errorf("without header: %s", got)
	}
	eventually(t, "the access log", func() error {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if !json.Valid([]byte(line)) {
				return halt{fmt.Errorf("a line that is no JSON: %s", line)}
			}
			if strings.Contains(line, "203.0.113.7") && strings.Contains(line, "/proxied") && strings.Contains(line, "web.example.com") {
				return nil
			}
		}
		return fmt.Errorf("no line of the request:\n%s", text)
	})
}

// stress is clients that keep their connections.
type stress struct {
	sent, failed atomic.Int64
	closed       atomic.Int64 // workers that found nobody listening any more
	mu           sync.Mutex
	why          []string
	wg           sync.WaitGroup
}

// stress asks with n clients until there is nobody to connect to.
func (d *doorway) stress(n int, host string) *stress {
	s := &stress{}
	for range n {
		s.wg.Go(func() {
			c := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer c.CloseIdleConnections()
			for {
				req, err := http.NewRequest(http.MethodGet, "http://"+d.http+"/", nil)
				if err != nil {
					return
				}
				req.Host = host
				res, err := c.Do(req)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if err == nil && res.StatusCode != 200 {
						err = errors.New(res.Status)
					}
				}
				if errors.Is(err, syscall.ECONNREFUSED) {
					s.closed.Add(1)
					return
				}
				s.sent.Add(1)
				if err != nil {
					s.failed.Add(1)
					s.mu.Lock()
					s.why = append(s.why, err.Error())
					s.mu.Unlock()
					return
				}
			}
		})
	}
	return s
}

// gatewayDrains: a gateway that is told to stop ends what is under way.
func gatewayDrains(t *testing.T, g *gateway) {
	load := g.stress(8, "web.example.com")
	eventually(t, "load", func() error { return unless(load.sent.Load() > 200, "%d", load.sent.Load()) })
	// A body that is on its way: the endpoint has asked for it.
	c, err := net.Dial("tcp", g.http)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: web.example.com\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	in := bufio.NewReader(c)
	for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} {
		if line, err := in.ReadString('\n'); err != nil || line != want {
			t.Fatalf("asked whether to send: %q %v", line, err)
		}
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGTERM)
	load.wg.Wait()
	if load.failed.Load() > 0 || load.closed.Load() != 8 {
		t.Errorf("%d of %d requests failed, %d of 8 clients found it closed: %v", load.failed.Load(), load.sent.Load(), load.closed.Load(), slices.Compact(load.why))
	}
	if g.ended() {
		t.Error("it ended with a request under way")
	}
	if _, err := io.WriteString(c, "world"); err != nil {
		t.Error(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	all, err := io.ReadAll(in)
	if err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200 ") || !strings.Contains(string(all), `"Body":10`) {
		t.Errorf("the request under way: %v\n%s", err, all)
	}
	if code := g.code(t); code != 0 {
		t.Errorf("it ended with %d:\n%s", code, tail(g.text(), 20))
	}
}

// TestGatewayLameduck: whoever looks at readiness has time to look elsewhere.
func TestGatewayLameduck(t *testing.T) {
	t.Parallel()
	sys, ns := common.namespace(t, "lameduck")
	config := filepath.Join(t.TempDir(), "config")
	if b, err := os.ReadFile(sys.kubeconfig()); err != nil || os.WriteFile(config, b, 0o600) != nil {
		t.Fatal(err)
	}
	a := listenEndpoint(t, sys.site, 41, 1, 9000, "a", nil, nil)
	sys.apply(t, ns, behind(t, "echo", a)+rule{name: "web", host: "lameduck.example.com"}.String())
	g := sys.gatewayAt(t, 9, config, "--lameduck", "8s", "--publish-address", "192.0.2.99")
	g.ready(t)
	g.comes(t, ask{"a request", []string{"http://lameduck.example.com/"}, 200, nil, nil})
	g.signal(syscall.SIGTERM)
	eventually(t, "/readyz says no", func() error {
		code, text := fetch("http://" + g.obs + "/readyz")
		if code == 0 {
			return halt{errors.New("it has ended: " + text)}
		}
		return unless(code == 503, "%d %s", code, text)
	})
	g.is(t, ask{"while it says so", []string{"http://lameduck.example.com/"}, 200, nil, nil})
	if code := g.code(t); code != 0 {
		t.Errorf("it ended with %d:\n%s", code, tail(g.text(), 20))
	}
}
