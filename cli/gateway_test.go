package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/server"
	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/filter"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// typed runs a command line without a server.
func typed(t *testing.T, in string, args ...string) (code int, out, chatter string) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "nowhere"))
	var o, e bytes.Buffer
	code = Main(t.Context(), args, strings.NewReader(in), &o, &e)
	return code, o.String(), e.String()
}

func TestGatewayFlags(t *testing.T) {
	for _, tc := range []struct{ flags, says string }{
		{"--http=nonsense", `--http "nonsense"`},
		{"--http=:99999", "127.0.0.1:80"},
		{"--https=host.example.com:443", "--https"},
		{"--http= --https=", "give --http or --https"},
		{"--proxy-protocol-from=everybody", "--proxy-protocol-from"},
		{"--trusted-proxies=10.0.0.0/99", "--trusted-proxies"},
		{"--default-backend=web", "NAMESPACE/NAME"},
		{"--default-certificate=/tls", "NAMESPACE/NAME"},
		{"--publish-address=http://gate.example.com", "IP address or a host name"},
		{"--access-log=- --access-log-format=xml", "combined, plain or json"},
		{"--access-log=/nowhere/at/all", "no such file"},
		{"--drain=-1s", "--drain"},
		{"--max-connections=0", "--max-connections"},
		{"--metrics-address=9464", "--metrics-address"},
		{"--node-name=A_B", "--node-name"},
		{"--log-level=loud", "loud"},
		{"--nonsense", "--help"},
		{"word", "--help"},
	} {
		if code, _, says := typed(t, "", append([]string{"gateway"}, strings.Fields(tc.flags)...)...); code != ExitUsage || !strings.Contains(says, tc.says) {
			t.Errorf("%s: exit %d, want %d and %q: %s", tc.flags, code, ExitUsage, tc.says, says)
		}
	}
}

func TestDevGateway(t *testing.T) {
	changed := map[string]bool{}
	for _, tc := range []struct {
		privileged  bool
		http, other string
	}{{true, "127.0.0.1:80", "127.0.0.1:8080"}, {false, "127.0.0.1:8080", "127.0.0.1:18080"}} {
		var g server.GatewayConfig
		devGateway(&g, func(f string) bool { return changed[f] }, tc.privileged)
		if g.HTTP[0] != tc.http || g.Other[tc.http] != tc.other || len(g.HTTPS) != 1 {
			t.Errorf("privileged %v: %+v", tc.privileged, g)
		}
	}
	// What somebody chose has no second choice.
	changed["gateway-http"] = true
	g := server.GatewayConfig{HTTP: []string{"127.0.0.1:81"}}
	if devGateway(&g, func(f string) bool { return changed[f] }, true); g.HTTP[0] != "127.0.0.1:81" || g.Other["127.0.0.1:81"] != "" || len(g.Other) != 1 {
		t.Errorf("chosen: %+v", g)
	}
}

// TestGatewayAsked: what a gateway says becomes an exit code.
func TestGatewayAsked(t *testing.T) {
	alive, dead := gateway.EndpointState{Address: "10.0.0.1:80"}, gateway.EndpointState{Address: "10.0.0.2:80", Ejected: 1e9, Failures: 7}
	backed := func(eps ...gateway.EndpointState) gateway.Explanation {
		return gateway.Explanation{Ready: true, Origin: "Ingress default/web rule 0", Backends: []gateway.BackendState{{Backend: "default/web:80", Weight: 1, Endpoints: eps}}}
	}
	var x gateway.Explanation
	var asked string
	mux := http.NewServeMux()
	mux.HandleFunc("GET /gateway/explain", func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.RawQuery
		_ = json.NewEncoder(w).Encode(x)
	})
	mux.HandleFunc("GET /gateway/routes", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode([]route.Description{{Host: "a.example.com", Kind: "Prefix", Path: "/", Target: "default/web:80", TLS: true}})
	})
	mux.HandleFunc("GET /gateway/stats", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(server.GatewayStats{RoutesStale: time.Now().Add(-time.Hour)})
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	at := strings.TrimPrefix(s.URL, "http://")
	for _, tc := range []struct {
		name string
		x    gateway.Explanation
		code int
		says string
	}{
		{"alive", backed(dead, alive), ExitOK, "left out for 1s after failures"},
		{"all left out", backed(dead), ExitNotReady, "nothing alive"},
		{"no endpoint", backed(), ExitNotReady, "nothing alive"},
		{"a problem", gateway.Explanation{Ready: true, Origin: "Ingress default/web rule 0", Problem: "the Service does not exist"}, ExitNotReady, "the Service does not exist"},
		{"answered by the gateway", gateway.Explanation{Ready: true, Origin: "Ingress default/web rule 0", Does: []filter.Told{{Text: "redirected", Answer: 308}}, Status: 308, Answer: "redirected"}, ExitOK, "1. redirected"},
		{"the gateway's own", gateway.Explanation{Ready: true, Status: 200, Answer: "200: /healthz"}, ExitOK, "answer    200: /healthz"},
		{"who is out", gateway.Explanation{Ready: true, Origin: "Ingress default/web rule 0", Answer: "that of one endpoint", Backends: []gateway.BackendState{{Backend: "default/web:80", Endpoints: []gateway.EndpointState{alive},
			Left: []gateway.LeftState{{Address: "10.0.0.9:80", Target: "Pod web-9", Why: "it is not ready: no answer (probe http)"}}}}}, ExitOK, "out: it is not ready: no answer (probe http)"},
		{"no rule", gateway.Explanation{Ready: true}, ExitNotFound, "no rule matches"},
		{"not ready", gateway.Explanation{Why: "the routes are not known yet"}, ExitUnavailable, "the routes are not known yet"},
	} {
		x = tc.x
		code, out, says := typed(t, "", "gateway", "explain", "a.example.com/x?y=z", "-X", "POST", "-H", "X-A: b", "--metrics-address", at)
		if code != tc.code || !strings.Contains(out+says, tc.says) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s%s", tc.name, code, tc.code, tc.says, out, says)
		}
		if want := "client=&header=X-A%3A+b&host=a.example.com&method=POST&path=%2Fx%3Fy%3Dz&scheme=http"; asked != want {
			t.Errorf("asked %s, want %s", asked, want)
		}
	}
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"routes", ExitOK, "a.example.com   Prefix /   default/web:80"},
		{"routes A.example.com -o json", ExitOK, `"tls": true`},
		{"routes b.example.com", ExitNotFound, "b.example.com"},
		{"explain http:///", ExitUsage, "want a URL"},
		{"explain a.example.com --client me", ExitUsage, "want an IP address"},
		{"routes", ExitOK, "the API server does not answer"},
		{"explain a.example.com -H nothing", ExitUsage, "Name: value"},
	} {
		code, out, says := typed(t, "", append(append([]string{"gateway"}, strings.Fields(tc.args)...), "--metrics-address", at)...)
		if code != tc.code || !strings.Contains(out+says, tc.says) {
			t.Errorf("gateway %s: exit %d, want %d and %q:\n%s%s", tc.args, code, tc.code, tc.says, out, says)
		}
	}
	s.Close()
	if code, _, says := typed(t, "", "gateway", "routes", "--metrics-address", at); code != ExitUnavailable || !strings.Contains(says, "--metrics-address") {
		t.Errorf("nobody there: exit %d: %s", code, says)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	if code, _, says := typed(t, "", "gateway", "routes", "--metrics-address", strings.TrimPrefix(other.URL, "http://")); code != ExitUnavailable || !strings.Contains(says, "has no gateway") {
		t.Errorf("somebody else there: exit %d: %s", code, says)
	}
}

func TestLintIngress(t *testing.T) {
	const good = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec: {ingressClassName: nginx, defaultBackend: {service: {name: web, port: {number: 80}}}}\n"
	const bad = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: extensions/v1beta1\n  kind: Ingress\n  metadata: {name: old, annotations: {nginx.ingress.kubernetes.io/server-snippet: x}}\n  spec: {backend: {serviceName: web, servicePort: 80}}\n"
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "in.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	asJSON := `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"j"},"spec":{"defaultBackend":{"service":{"name":"j","port":{"number":80}}},"rules":[{"host":"j.example.com"}]}}`
	for _, tc := range []struct {
		name, in string
		args     []string
		code     int
		says     string
	}{
		{"good", "", []string{"-f", file(good)}, ExitOK, "1 Ingress, 0 problems"},
		{"stdin", good, []string{"-f", "-"}, ExitOK, "default/web"},
		{"bad", "", []string{"-f", file(bad)}, ExitError, "NOT supported"},
		{"two files", "", []string{"-f", file(good), "-f", file(bad)}, ExitError, "2 Ingresses, "},
		{"JSON, then YAML", asJSON, []string{"-f", "-", "-f", file(good)}, ExitOK, "2 Ingresses, "},
		{"YAML, then JSON", asJSON, []string{"-f", file(good), "-f", "-"}, ExitOK, "2 Ingresses, "},
		{"as JSON", "", []string{"-f", file(bad), "-o", "json"}, ExitError, `"support": "NOT supported"`},
		{"nothing in it", "", []string{"-f", "-"}, ExitOK, "0 Ingresses, 0 problems"},
		{"another class", "", []string{"-f", file(good), "--class", "mine"}, ExitOK, "not ours"},
		{"no file", "", nil, ExitUsage, "-f FILE"},
		{"a file that is not there", "", []string{"-f", "/nowhere.yaml"}, ExitUsage, "/nowhere.yaml"},
		{"no YAML", "a: [b", []string{"-f", "-"}, ExitUsage, "stdin"},
		{"no Ingress", "kind: Ingress\napiVersion: networking.k8s.io/v1\nspec: 7\n", []string{"-f", "-"}, ExitUsage, "document 1"},
	} {
		code, out, says := typed(t, tc.in, append([]string{"lint", "ingress"}, tc.args...)...)
		if code != tc.code || !strings.Contains(out+says, tc.says) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s%s", tc.name, code, tc.code, tc.says, out, says)
		}
	}
}
