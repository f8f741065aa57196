//go:build linux

package e2e

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestWebhooks: a server of the user's own changes what is created, and
// refuses what it does not like.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	sys, ns := common.namespace(t, "hooks")
	ca := newAuthority(t)
	var calls atomic.Int32
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, r *http.Request, response func(name string) map[string]any) {
		var review struct {
			Request struct {
				UID    string
				Object struct{ Metadata struct{ Name string } }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		calls.Add(1)
		res := response(review.Request.Object.Metadata.Name)
		res["uid"] = review.Request.UID
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": res})
	}
	mux.HandleFunc("POST /mutate", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, func(string) map[string]any {
			patch := `[{"op":"add","path":"/metadata/labels","value":{"touched":"yes"}}]`
			return map[string]any{"allowed": true, "patchType": "JSONPatch", "patch": base64.StdEncoding.EncodeToString([]byte(patch)), "warnings": []string{"the webhook was here"}}
		})
	})
	mux.HandleFunc("POST /validate", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, func(name string) map[string]any {
			return map[string]any{"allowed": !strings.HasPrefix(name, "bad"), "status": map[string]any{"message": "names that begin with bad bring bad luck"}}
		})
	})
	hook := httptest.NewUnstartedServer(mux)
	hook.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "hook", "127.0.0.1")}}
	hook.StartTLS()
	t.Cleanup(hook.Close)

	config := func(kind, path string) string {
		return fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: %sWebhookConfiguration
metadata: {name: %s}
webhooks:
- name: hook.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {url: "%s%s", caBundle: %s}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}
  rules: [{apiGroups: ["", fingerpost.dev], apiVersions: ["*"], operations: [CREATE], resources: [configmaps, instances]}]
`, kind, ns, hook.URL, path, base64.StdEncoding.EncodeToString(ca.pem), ns)
	}
	sys.apply(t, ns, config("Mutating", "/mutate")+"---"+config("Validating", "/validate"))
	t.Cleanup(func() {
		sys.must(t, "delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", ns)
	})
	n := 0
	eventually(t, "the webhook is asked", func() error {
		n++
		r := finish(t, sys.kubectl(t, "create", "configmap", fmt.Sprintf("good-%d", n), "-n", ns))
		touched := sys.must(t, "get", "configmap", fmt.Sprintf("good-%d", n), "-n", ns, "-o", "jsonpath={.metadata.labels.touched}")
		return unless(touched == "yes" && strings.Contains(r.err, "Warning: the webhook was here"), "%q %s", touched, r.err)
	})
	// The other configuration may be seen later.
	eventually(t, "kubectl create of what is refused", func() error {
		n++
		r := finish(t, sys.kubectl(t, "create", "configmap", fmt.Sprintf("bad-%d", n), "-n", ns))
		return unless(r.code == 1 && strings.Contains(r.err, `admission webhook "hook.example.com" denied the request: names that begin with bad bring bad luck`), "exit %d\n%s", r.code, r.err)
	})
	// Our own kind, and our own command.
	r := finish(t, sys.fingerpost(t, "register", "web", "-n", ns, "--address", "10.0.0.1", "--port", "80"))
	if r.code != 0 {
		t.Errorf("register: exit %d\n%s", r.code, r.err)
	}
	if got := sys.must(t, "get", "instances", "-n", ns, "-l", "touched=yes", "-o", "jsonpath={.items[*].spec.service}"); got != "web" {
		t.Errorf("Instances do not go through webhooks: %q", got)
	}
	// A webhook that is away refuses, as its failure policy says.
	hook.Close()
	r = finish(t, sys.kubectl(t, "create", "configmap", "later", "-n", ns))
	if r.code != 1 || !strings.Contains(r.err, "failed calling webhook") {
		t.Errorf("with the webhook away: exit %d\n%s", r.code, r.err)
	}
}
