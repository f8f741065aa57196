//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGatewayKept: a gateway that is killed and starts while the API server is away
// serves what it knew: routes, certificates, passwords and endpoints. It says that
// they may be old, and follows the server when that is back.
func TestGatewayKept(t *testing.T) {
	t.Parallel()
	const ns = "kept"
	sys := layout(newSite(t), 1, t.TempDir()).launch(t, "server")
	sys.makeNamespace(t, ns)
	a := listenEndpoint(t, sys.site, 10, 1, 9000, "a", nil, nil)
	config := sys.gatewayFile(t)
	cert, key := keyPair(t, "kept.example.com")
	sys.must(t, "create", "secret", "tls", "cert", "-n", ns, "--cert="+cert, "--key="+key)
	sys.must(t, "create", "secret", "generic", "users", "-n", ns, "--from-literal=auth=foo:{PLAIN}bar")
	sys.must(t, "create", "secret", "generic", "bystander", "-n", ns, "--from-literal=word=nobody-refers-to-me")
	sys.apply(t, ns, behind(t, "echo", a)+
		rule{name: "kept", host: "kept.example.com", tls: "cert", annotations: []string{"auth-type: basic", "auth-secret: users"}}.String()+
		rule{name: "gone", host: "gone.example.com"}.String())
	state := t.TempDir()
	right := ask{"with the password", []string{"-u", "foo:bar", "https://kept.example.com/"}, 200, []string{"X-Endpoint: a"}, nil}
	nobody := ask{"without", []string{"https://kept.example.com/"}, 401, nil, []string{"X-Endpoint"}}

	one := sys.gatewayAt(t, 1, config, "--state-dir", state)
	one.ready(t)
	asked := one
	defer func() {
		if t.Failed() { // what it thinks
			r := finish(t, sys.fingerpost(t, "gateway", "explain", "http://gone.example.com/", "--metrics-address", asked.obs))
			t.Logf("explain:\n%s%s", r.out, r.err)
		}
	}()
	one.comes(t, right)
	one.comes(t, ask{"the other host", []string{"http://gone.example.com/"}, 200, nil, nil})
	if r := one.says(t, 0, "routes"); strings.Contains(r.err, "does not answer") {
		t.Errorf("routes of a server that answers are said to be old:\n%s", r.err)
	}
	// Both files are written within seconds of a change; kill -9 leaves no other chance.
	var file string
	eventually(t, "routes and endpoints on disk", func() error {
		for _, name := range []string{"catalog", "routes"} {
			file = filepath.Join(state, "nodes", node(t), name)
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if name == "routes" {
				if err := unless(strings.Contains(string(text), "gone.example.com") && strings.Contains(string(text), "foo:{PLAIN}bar"), "not all is in %s", file); err != nil {
					return err
				}
			} else if err := unless(strings.Contains(string(text), a.name), "the endpoint is not in %s", file); err != nil {
				return err
			}
		}
		return nil
	})
	if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), "nobody-refers-to-me") {
		t.Errorf("a Secret that no route needs is on disk: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has the mode %v: %v", file, info.Mode(), err)
	}
	one.kill()
	sys.stop()

	two := sys.gatewayAt(t, 1, config, "--state-dir", state)
	two.comes(t, right)
	two.is(t, nobody)
	two.is(t, ask{"http", []string{"http://kept.example.com/"}, 308, []string{"Location: https://kept.example.com"}, nil})
	two.ready(t)
	eventually(t, "routes are said to be old", func() error {
		r := two.says(t, 0, "routes")
		return unless(strings.Contains(r.out, "kept.example.com") && strings.Contains(r.err, "the API server does not answer"), "%s%s", r.out, r.err)
	})
	if _, text := fetch("http://" + two.obs + "/metrics"); !strings.Contains(text, "fingerpost_ingress_stale_seconds") || strings.Contains(text, "fingerpost_ingress_stale_seconds 0\n") {
		t.Error("the metrics do not say that routes are old")
	}

	// The server is back, and an Ingress has gone meanwhile.
	sys.launch(t, "server")
	sys.must(t, "delete", "ingress", "gone", "-n", ns)
	two.comes(t, ask{"what is gone", []string{"http://gone.example.com/"}, 404, nil, nil})
	two.is(t, right)
	eventually(t, "routes are fresh", func() error {
		r := two.says(t, 0, "routes")
		return unless(!strings.Contains(r.err, "does not answer"), "%s", r.err)
	})
	two.stop()

	// A file that is none is told, and does no harm.
	if err := os.WriteFile(file, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	three := sys.gatewayAt(t, 1, config, "--state-dir", state)
	three.ready(t)
	if !strings.Contains(three.text(), "the routes of the last run are not used") {
		t.Errorf("nothing is said of a file that is none:\n%s", tail(three.text(), 20))
	}
	three.comes(t, right)
}
