package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKubectlPassesThrough(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte("ok"))
	}))
	defer backend.Close()
	data, home := t.TempDir(), t.TempDir()
	t.Setenv("FINGERPOST_DATA", data)
	t.Setenv("HOME", home) // kubectl keeps a cache there
	t.Setenv("KUBECONFIG", "")
	if err := os.Rename(kubeconfigOf(t, backend.URL), filepath.Join(data, "admin.kubeconfig")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		out  string
		err  string
	}{
		{args: "kubectl version --client", out: "Client Version: "},
		{args: "kubectl --help", out: "kubectl controls the Kubernetes cluster manager"},
		{args: "kubectl get --raw /healthz", out: "ok"},
		{args: "-n shop kubectl create configmap x --dry-run=client -o yaml", out: "namespace: shop"},
		{args: "kubectl config current-context", out: "a\n"},
		{args: "kubectl get --raw /nothing", code: 1, err: "NotFound"},
		{args: "kubectl get -f /nonexistent", code: 1, err: "does not exist"},
		{args: "kubectl nonsense", code: 1, err: `unknown command "nonsense"`},
		{args: "kubectl diff -f /nonexistent", code: 2, err: "does not exist"}, // diff keeps 1 for differences
		{args: "kubectl get --nonsense", code: 1, err: "unknown flag: --nonsense"},
	} {
		var out bytes.Buffer
		code, chatter := invoke(t.Context(), &out, (*App).kubectlCmd, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(chatter, c.err) {
			t.Errorf("%s: exit %d, printed %q, %q; want %d, %q, %q", c.args, code, out.String(), chatter, c.code, c.out, c.err)
		}
	}
	if v, set := os.LookupEnv("KUBECONFIG"); !set || v != "" {
		t.Errorf("$KUBECONFIG is left as %q", v)
	}
}
