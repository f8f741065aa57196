//go:build linux

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// walkBrowser: a real browser is led from http to https, shows the page, and its
// script talks over a WebSocket, all through the gateway.
func walkBrowser(t *testing.T, c *cluster) {
	browser := ""
	for _, name := range []string{"chromium-headless-shell", "chromium", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			browser = p
			break
		}
	}
	if browser == "" {
		t.Skip("no browser is installed (hack/deps.sh installs chromium-headless-shell where Debian has it)")
	}
	m := c.server()
	ns := c.namespace(t, "browser")
	c.service(t, ns, "site", "site")
	cert, key := keyPair(t, "site.example.com")
	c.must(t, "create", "secret", "tls", "site", "-n", ns, "--cert", cert, "--key", key)
	c.apply(t, ns, `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: site}
spec:
  ingressClassName: nginx
  tls: [{hosts: [site.example.com], secretName: site}]
  rules:
  - {host: site.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: site, port: {name: http}}}}]}}
`)
	m.shows(t, "https://site.example.com/page", 200, "<!doctype html>")
	m.shows(t, "http://site.example.com/page", 308, "")
	// Browsers give up what they load when an interface comes or goes, as those of
	// pods do.
	err := pollFor(3*time.Minute, func() error {
		cmd := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
			"--user-data-dir="+t.TempDir(), "--ignore-certificate-errors", "--host-resolver-rules=MAP site.example.com 127.0.0.1",
			"--timeout=60000", "--dump-dom", "http://site.example.com/page")
		cmd.Env = environ(t, t.TempDir())
		r := m.finish(t, cmd)
		for _, want := range []string{"loaded from https://site.example.com/page<", "site heard hello<"} {
			if !strings.Contains(r.out, want) {
				return fmt.Errorf("the page does not say %q (exit %d):\n%s\n%s", want, r.code, r.out, tail(r.err, 20))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal("the page in a browser: ", err)
	}
}
