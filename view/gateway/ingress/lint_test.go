package ingress

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

const lintIn = `apiVersion: extensions/v1beta1
kind: Ingress
metadata:
  name: dashboard-ingress
  namespace: kube-system
  annotations:
    kubernetes.io/ingress.class: "nginx"
    nginx.ingress.kubernetes.io/rewrite-target: /$1
    nginx.ingress.kubernetes.io/configuration-snippet: |
      more_set_headers "A: b";
    nginx.ingress.kubernetes.io/secure-backends: "true"
    nginx.ingress.kubernetes.io/proxy-body-size: 8x
    nginx.ingress.kubernetes.io/enable-modsecurity: "false"
spec:
  tls:
  - hosts: [dashboard.example.com]
    secretName: ingress-secret
  rules:
  - host: dashboard.example.com
    http:
      paths:
      - path: /a/(.*)
        backend: {serviceName: kubernetes-dashboard, servicePort: 80}
  - host: other.example.com
    http:
      paths:
      - backend: {serviceName: kubernetes-dashboard, servicePort: web}
---
apiVersion: v1
kind: List
items:
- apiVersion: networking.k8s.io/v1beta1
  kind: Ingress
  metadata: {name: beta}
  spec: {backend: {serviceName: x, servicePort: http}}
- apiVersion: example.com/v1
  kind: Thing
  metadata: {name: none}
---
{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "new", "annotations": {"nginx.ingress.kubernetes.io/misspelt": "1"}}, "spec": {"ingressClassName": "other"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec: {template: {}, selector: {}}
`

func TestLint(t *testing.T) {
	for name, asJSON := range map[string]bool{"testdata/lint.txt": false, "testdata/lint.json": true} {
		var b bytes.Buffer
		n, err := Lint(strings.NewReader(lintIn), &b, LintOptions{Options: Options{Now: func() time.Time { return today }}, JSON: asJSON})
		if err != nil {
			t.Fatal(err)
		}
		if n != 4 { // snippet, size, misspelt, host without certificate
			t.Errorf("%d problems", n)
		}
		if asJSON && !json.Valid(b.Bytes()) {
			t.Error("it is no JSON")
		}
		if *update {
			if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, b.String(), want)
		}
	}
}

func TestLintClean(t *testing.T) {
	var b bytes.Buffer
	n, err := Lint(strings.NewReader(oneIngress), &b, LintOptions{})
	if n != 0 || err != nil {
		t.Errorf("%d, %v: %s", n, err, b.String())
	}
	if n, err := Lint(strings.NewReader(""), &b, LintOptions{JSON: true}); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestLintBad(t *testing.T) {
	for _, in := range []string{"kind: [", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nspec: 5\n", "a: b: c"} {
		if _, err := Lint(strings.NewReader(in), &bytes.Buffer{}, LintOptions{Name: "old.yaml"}); err == nil || !strings.Contains(err.Error(), "old.yaml") {
			t.Errorf("%q: %v", in, err)
		}
	}
}
