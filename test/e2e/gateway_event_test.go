//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGatewayEvents: whatever is wrong with an Ingress is said where its owner
// looks, and costs nobody else anything.
func TestGatewayEvents(t *testing.T) {
	t.Parallel()
	const ns = "bad"
	sys := dev(t)
	sys.makeNamespace(t, ns)
	d := sys.doorway()
	a := listenEndpoint(t, sys.site, 10, 1, 9000, "a", nil, nil)
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := keyPair(t, "other.example.com")
	_, otherKey := keyPair(t, "other.example.com")
	sys.must(t, "create", "secret", "tls", "wrong-name", "-n", ns, "--cert", cert, "--key", key)
	for name, files := range map[string][2]string{"garbage": {garbage, key}, "mismatch": {cert, otherKey}} {
		// kubectl create secret tls looks at what it is given.
		sys.must(t, "create", "secret", "generic", name, "-n", ns, "--type=kubernetes.io/tls", "--from-file=tls.crt="+files[0], "--from-file=tls.key="+files[1])
	}
	sys.apply(t, ns, behind(t, "echo", a)+rule{name: "good", host: "good.example.com"}.String()+rule{name: "good-old", host: "taken.example.com"}.String())
	d.comes(t, ask{"a good one", []string{"http://good.example.com/"}, 200, nil, nil})

	onPort := func(r rule, port string) string { return strings.Replace(r.String(), "{name: http}", port, 1) }
	cases := []struct {
		name, manifest string
		says           []string // in kubectl describe
		ask            *ask     // what clients get
	}{
		{"service", rule{name: "service", host: "service.example.com", service: "nobody"}.String(), []string{"Warning", "BackendUnusable", "bad/nobody", "does not exist"},
			&ask{"unknown service", []string{"http://service.example.com/"}, 503, nil, nil}},
		{"port", onPort(rule{name: "port", host: "port.example.com"}, "{number: 81}"), []string{"BackendUnusable", "81"},
			&ask{"unknown port", []string{"http://port.example.com/"}, 503, nil, nil}},
		{"port-name", onPort(rule{name: "port-name", host: "port-name.example.com"}, "{name: https}"), []string{"BackendUnusable", "https"}, nil},
		{"garbage", rule{name: "garbage", host: "garbage.example.com", tls: "garbage"}.String(), []string{"CertificateUnusable", "bad/garbage"},
			&ask{"a broken certificate: that of nobody", []string{"https://garbage.example.com/"}, 200, nil, nil}},
		{"mismatch", rule{name: "mismatch", host: "mismatch.example.com", tls: "mismatch"}.String(), []string{"CertificateUnusable", "bad/mismatch"}, nil},
		{"no-secret", rule{name: "no-secret", host: "no-secret.example.com", tls: "nowhere"}.String(), []string{"Warning", "bad/nowhere"}, nil},
		{"wrong-name", rule{name: "wrong-name", host: "wrong-name.example.com", tls: "wrong-name"}.String(), []string{"Warning", "wrong-name.example.com"}, nil},
		{"taken", rule{name: "taken", host: "taken.example.com", service: "spare"}.String(), []string{"HostPathTaken", "taken.example.com", "bad/good-old"},
			&ask{"of two with one host the older one", []string{"http://taken.example.com/"}, 200, []string{`"Name":"a"`}, nil}},
		{"snippet", rule{name: "snippet", host: "snippet.example.com", annotations: []string{"configuration-snippet: return 200;"}}.String(), []string{"SnippetRefused", "configuration-snippet"},
			&ask{"a snippet does nothing", []string{"http://snippet.example.com/"}, 200, []string{`"Name":"a"`}, nil}},
		{"snippet-auth", rule{name: "snippet-auth", host: "snippet-auth.example.com", annotations: []string{"auth-snippet: allow all;"}}.String(), []string{"SnippetRefused", "auth-snippet"},
			&ask{"a snippet that guards: closed", []string{"http://snippet-auth.example.com/"}, 503, nil, nil}},
		{"resource", `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: resource}
spec:
  ingressClassName: nginx
  rules:
  - {host: resource.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {resource: {apiGroup: storage.example.com, kind: Bucket, name: pictures}}}]}}
---
`, []string{"BackendUnusable", "Bucket"}, &ask{"a resource", []string{"http://resource.example.com/"}, 503, nil, nil}},
		{"value", rule{name: "value", host: "value.example.com", annotations: []string{"proxy-body-size: much"}}.String(), []string{"BadAnnotation", "proxy-body-size", "much"},
			&ask{"a bad value", []string{"http://value.example.com/"}, 200, nil, nil}},
		{"regex", rule{name: "regex", host: "regex.example.com", path: "/a(b", annotations: []string{"use-regex: true"}}.String(), []string{"Warning", "/a(b"},
			&ask{"a broken expression", []string{"http://regex.example.com/ab"}, 404, nil, nil}},
		{"unsupported", rule{name: "unsupported", host: "unsupported.example.com", annotations: []string{"mirror-target: https://mirror.example.com"}}.String(), []string{"UnsupportedAnnotation", "mirror-target"}, nil},
		{"unknown", rule{name: "unknown", host: "unknown.example.com", annotations: []string{"rewrite-traget: /"}}.String(), []string{"Warning", "rewrite-traget"}, nil},
		{"canary", rule{name: "canary", host: "canary.example.com", annotations: []string{"canary: true", "canary-weight: 10"}}.String(), []string{"CanaryUnused"}, nil},
		{"external", strings.Replace(rule{name: "external", host: "external.example.com", service: "outside"}.String(), "{name: http}", "{number: 80}", 1) + "apiVersion: v1\nkind: Service\nmetadata: {name: outside}\nspec: {type: ExternalName, externalName: localhost}\n---\n",
			[]string{"BackendUnusable", "ExternalName"}, &ask{"a name for something outside", []string{"http://external.example.com/"}, 503, nil, nil}},
		{"default-backend", rule{name: "default-backend", host: "default-backend.example.com", annotations: []string{"default-backend: nobody"}}.String(), []string{"Warning", "nobody"}, nil},
	}
	var all strings.Builder
	for _, c := range cases {
		all.WriteString(c.manifest)
	}
	sys.apply(t, ns, all.String())
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			eventually(t, "kubectl describe", func() error {
				text := sys.must(t, "describe", "ingress", "-n", ns, c.name)
				_, events, ok := strings.Cut(text, "Events:")
				if !ok {
					return fmt.Errorf("no events:\n%s", text)
				}
				for _, want := range c.says {
					if !strings.Contains(events, want) {
						return fmt.Errorf("the events do not say %q:\n%s", want, text)
					}
				}
				return nil
			})
			if c.ask != nil {
				d.comes(t, *c.ask)
			}
			d.is(t, ask{"a good one", []string{"http://good.example.com/"}, 200, []string{`"Name":"a"`}, nil})
		})
	}
	t.Run("good", func(t *testing.T) {
		t.Parallel()
		if text := sys.must(t, "describe", "ingress", "-n", ns, "good"); strings.Contains(text, "Warning") {
			t.Errorf("events of an Ingress that is right:\n%s", text)
		}
	})
}

// statusOf gives the addresses in the status of an Ingress.
func (s *system) statusOf(t testing.TB, ns, name string) []string {
	t.Helper()
	var v struct {
		Status struct {
			LoadBalancer struct {
				Ingress []struct{ IP, Hostname string }
			}
		}
	}
	s.api(t).get(t, "/apis/networking.k8s.io/v1/namespaces/"+ns+"/ingresses/"+name, &v)
	out := []string{}
	for _, i := range v.Status.LoadBalancer.Ingress {
		out = append(out, i.IP+i.Hostname)
	}
	slices.Sort(out)
	return out
}

func (s *system) wantStatus(t testing.TB, ns, name string, want ...string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, "status of the Ingress "+name, func() error {
		got := s.statusOf(t, ns, name)
		return unless(slices.Equal(got, want), "%v, want %v", got, want)
	})
}

// TestGatewayClass: whose an Ingress is, and what is said of that in its status.
func TestGatewayClass(t *testing.T) {
	t.Parallel()
	const ns = "class"
	sys := dev(t)
	sys.makeNamespace(t, ns)
	d := sys.doorway()
	me := strings.TrimSuffix(sys.http, ":8080")
	a := listenEndpoint(t, sys.site, 10, 1, 9000, "a", nil, nil)
	class := func(r rule, name string) string {
		line := "  ingressClassName: " + name + "\n"
		if name == "" {
			line = ""
		}
		return strings.Replace(r.String(), "  ingressClassName: nginx\n", line, 1)
	}
	mine, other := rule{name: "mine", host: "mine.example.com"}, rule{name: "other", host: "other.example.com"}
	none, old := rule{name: "none", host: "none.example.com"}, rule{name: "old", host: "old.example.com"}
	const classes = `
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: traefik}
spec: {controller: traefik.io/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: inside}
spec: {controller: fingerpost.dev/gateway}
---
`
	sys.apply(t, ns, behind(t, "echo", a)+classes+mine.String()+class(other, "traefik")+class(none, "")+class(old, "")+class(rule{name: "named", host: "named.example.com"}, "inside"))
	sys.must(t, "annotate", "ingress", "-n", ns, "old", "kubernetes.io/ingress.class=traefik")
	for _, name := range []string{"mine", "none", "named"} {
		sys.wantStatus(t, ns, name, me)
		d.comes(t, ask{name, []string{"http://" + name + ".example.com/"}, 200, nil, nil})
	}
	if text := sys.must(t, "get", "ingress", "-n", ns, "mine"); !strings.Contains(text, me) {
		t.Errorf("kubectl get ingress:\n%s", text)
	}
	d.comes(t, ask{"another's by annotation", []string{"http://old.example.com/"}, 404, nil, nil})
	d.comes(t, ask{"another's", []string{"http://other.example.com/"}, 404, nil, nil})
	if got := sys.statusOf(t, ns, "other"); len(got) != 0 {
		t.Errorf("the status of another's Ingress: %v", got)
	}

	// What its owner has written stays, if it is somebody else's.
	patch := func(name, body string) {
		t.Helper()
		sys.api(t).want(t, 200, "PATCH", "/apis/networking.k8s.io/v1/namespaces/"+ns+"/ingresses/"+name, body)
	}
	patchStatus := func(name, ip string) {
		t.Helper()
		sys.api(t).want(t, 200, "PATCH", "/apis/networking.k8s.io/v1/namespaces/"+ns+"/ingresses/"+name+"/status", `{"status":{"loadBalancer":{"ingress":[{"ip":"`+ip+`"}]}}}`)
	}
	patchStatus("other", "192.0.2.1")
	// Of ours it does not stay.
	patchStatus("mine", "192.0.2.2")
	sys.wantStatus(t, ns, "mine", me)
	sys.wantStatus(t, ns, "other", "192.0.2.1")
	// Given away, and taken over.
	patch("mine", `{"spec":{"ingressClassName":"traefik"}}`)
	sys.wantStatus(t, ns, "mine")
	d.comes(t, ask{"given away", []string{"http://mine.example.com/"}, 404, nil, nil})
	patch("other", `{"spec":{"ingressClassName":"nginx"}}`)
	sys.wantStatus(t, ns, "other", me)
	d.comes(t, ask{"taken over", []string{"http://other.example.com/"}, 200, nil, nil})
	// A default class of somebody else takes those without class.
	sys.must(t, "annotate", "ingressclass", "traefik", "ingressclass.kubernetes.io/is-default-class=true")
	sys.wantStatus(t, ns, "none")
	d.comes(t, ask{"of the default class", []string{"http://none.example.com/"}, 404, nil, nil})
	// The table says the same.
	r := finish(t, sys.fingerpost(t, "gateway", "routes", "--metrics-address", sys.obs, "-o", "json"))
	var rows []struct{ Host string }
	if err := json.Unmarshal([]byte(r.out), &rows); err != nil {
		t.Fatalf("%v\n%s%s", err, r.out, r.err)
	}
	var hosts []string
	for _, row := range rows {
		hosts = append(hosts, row.Host)
	}
	if want := []string{"named.example.com", "other.example.com"}; !slices.Equal(hosts, want) {
		t.Errorf("routes of %v, want %v", hosts, want)
	}
}
