package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

const adminText = `
apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: here, context: {cluster: c, user: u, namespace: shop}}
- {name: other, context: {cluster: d, user: u}}
clusters:
- {name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority: ca.crt}}
- {name: d, cluster: {server: "https://elsewhere:6443"}}
users:
- {name: u, user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}}
`

// dataDir makes a data directory with an administrator's kubeconfig.
func dataDir(t *testing.T) (home string) {
	dir, home := t.TempDir(), t.TempDir()
	t.Setenv("FINGERPOST_DATA", dir)
	t.Setenv("HOME", home)
	t.Setenv("KUBECONFIG", "")
	for name, text := range map[string]string{"admin.kubeconfig": adminText, "ca.crt": "the CA"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

func TestKubeconfigPrints(t *testing.T) {
	dataDir(t)
	for _, c := range []struct {
		args   []string
		server string
		token  string
	}{
		{nil, "https://127.0.0.1:6443", ""},
		{[]string{"--context", "other"}, "https://elsewhere:6443", ""},
		{[]string{"--server", "https://10.0.0.1:6443", "--token", "secret"}, "https://10.0.0.1:6443", "secret"},
	} {
		var out bytes.Buffer
		if code, chatter := invoke(t.Context(), &out, (*App).kubeconfigCmd, append([]string{"kubeconfig"}, c.args...)...); code != 0 {
			t.Fatal(code, chatter)
		}
		cfg, err := clientcmd.Load(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if cfg.CurrentContext != "fingerpost" || len(cfg.Contexts)+len(cfg.Clusters)+len(cfg.AuthInfos) != 3 {
			t.Errorf("%v: not exactly one context:\n%s", c.args, out.String())
			continue
		}
		cluster, user := cfg.Clusters["fingerpost"], cfg.AuthInfos["fingerpost"]
		if cluster.Server != c.server || user.Token != c.token {
			t.Errorf("%v: server %s, token %q", c.args, cluster.Server, user.Token)
		}
		if (len(user.ClientKeyData) == 0) != (c.token != "") {
			t.Errorf("%v: a token and a key together, or neither", c.args)
		}
		if c.server != "https://elsewhere:6443" && string(cluster.CertificateAuthorityData) != "the CA" {
			t.Errorf("%v: the CA is not in it:\n%s", c.args, out.String())
		}
	}
}

func TestKubeconfigMerges(t *testing.T) {
	home := dataDir(t)
	dir := filepath.Join(home, ".kube")
	merge := func(args ...string) (int, string) {
		return invoke(t.Context(), io.Discard, (*App).kubeconfigCmd, append([]string{"kubeconfig", "--merge"}, args...)...)
	}
	files := func() (names []string) {
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	if code, chatter := merge(); code != 0 || chatter != "" {
		t.Fatal(code, chatter)
	}
	if got := files(); len(got) != 1 {
		t.Fatalf("without a file before there is nothing to keep: %v", got)
	}
	// A file of somebody's own: its entries and its current context stay.
	path := filepath.Join(dir, "config")
	before := strings.ReplaceAll(adminText, "certificate-authority: ca.crt", "insecure-skip-tls-verify: true")
	if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	code, chatter := merge("--server", "https://10.0.0.1:6443")
	if code != 0 || !strings.Contains(chatter, "The file as it was: ") {
		t.Fatal(code, chatter)
	}
	backup := strings.TrimSpace(strings.TrimPrefix(chatter, "The file as it was: "))
	if b, err := os.ReadFile(backup); err != nil || string(b) != before {
		t.Errorf("the backup differs (%v)", err)
	}
	cfg, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.CurrentContext != "here" || len(cfg.Contexts) != 3 || cfg.Clusters["fingerpost"].Server != "https://10.0.0.1:6443" || cfg.Clusters["c"].Server != "https://127.0.0.1:6443" {
		t.Errorf("merged: %+v", cfg)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: others can read the key", st.Mode())
	}
	if code, chatter := merge("--server", "https://10.0.0.1:6443"); code != 0 || chatter != "" || len(files()) != 2 {
		t.Errorf("merging the same again: %d, %q, %v", code, chatter, files())
	}
	if code, _ := merge("--use"); code != 0 {
		t.Error(code)
	}
	if cfg, _ := clientcmd.LoadFromFile(path); cfg.CurrentContext != "fingerpost" {
		t.Errorf("--use: the current context is %s", cfg.CurrentContext)
	}
	// Trouble leaves the file alone.
	if err := os.WriteFile(path, []byte("no: [kubeconfig"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, chatter := merge(); code != ExitError || !strings.Contains(chatter, "stays as it is") {
		t.Error(code, chatter)
	}
	if b, _ := os.ReadFile(path); string(b) != "no: [kubeconfig" {
		t.Errorf("the file is now %q", b)
	}
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, chatter := merge(); code != ExitError || !strings.Contains(chatter, "remove the lock") {
		t.Error(code, chatter)
	}
}

func TestKubeconfigWithoutAServer(t *testing.T) {
	t.Setenv("FINGERPOST_DATA", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", "/nonexistent")
	if code, chatter := invoke(t.Context(), io.Discard, (*App).kubeconfigCmd, "kubeconfig"); code != ExitUnavailable || !strings.Contains(chatter, "fingerpost dev") {
		t.Error(code, chatter)
	}
	if code, _ := invoke(t.Context(), io.Discard, (*App).kubeconfigCmd, "kubeconfig", "--server", "10.0.0.1"); code != ExitUsage {
		t.Error(code)
	}
}
