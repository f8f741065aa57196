package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process"
	"github.com/fingerpost/fingerpost/door/process/claim/claimtest"
)

// kubeconfigOf writes a kubeconfig for a server without credentials.
func kubeconfigOf(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"a","contexts":[{"name":"a","context":{"cluster":"a"}}],"clusters":[{"name":"a","cluster":{"server":"` + server + `"}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// invoke runs one command line and gives its exit code and what it printed.
func invoke(ctx context.Context, out io.Writer, make func(*App) *cobra.Command, args ...string) (code int, chatter string) {
	var errw bytes.Buffer
	a := &App{In: strings.NewReader(""), Out: out, Err: &errw}
	root, c := a.root(), make(a)
	if found, _, err := root.Find([]string{c.Name()}); err != nil || found == root {
		root.AddCommand(c)
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK, errw.String()
	}
	code = ExitError
	var coded *exitError
	if errors.As(err, &coded) {
		code = coded.code
	}
	return code, errw.String() + err.Error()
}

func TestRegisterRenewDeregister(t *testing.T) {
	api := &claimtest.API{}
	srv := httptest.NewServer(api)
	defer srv.Close()
	cfg := kubeconfigOf(t, srv.URL)
	for _, c := range []struct {
		args string
		code int
		out  string // begins with
		err  string // contains
		dump string
	}{
		{args: "register db --address 10.1.2.3 --port 5432", out: "db 10.1.2.3:5432 registered as db-",
			dump: "default/db 10.1.2.3:5432 cli db/10.1.2.3:5432 Up\n"},
		{args: "renew db", out: "db 10.1.2.3:5432 renewed: it does not expire\n"},
		{args: "register db --address 10.1.2.3 --port 5432 --state outofservice --reason upgrade", out: "db 10.1.2.3:5432 registered",
			dump: "default/db 10.1.2.3:5432 cli db/10.1.2.3:5432 OutOfService (upgrade)\n"},
		{args: "register db --address 10.1.2.4 --port 5432 --ttl 30s --id second", out: "db 10.1.2.4:5432 registered"},
		{args: "renew db", code: ExitUsage, err: "2 registrations match"},
		{args: "renew db --address 10.1.2.4", out: "db 10.1.2.4:5432 renewed: good for 30s\n"},
		{args: "renew db --id nobody", code: ExitNotFound, err: "no registration of db"},
		{args: "deregister db -n other", code: ExitNotFound, err: "in namespace other"},
		{args: "deregister db --id second", out: "db 10.1.2.4:5432 deregistered\n",
			dump: "default/db 10.1.2.3:5432 cli db/10.1.2.3:5432 OutOfService (upgrade)\n"},
		{args: "deregister db --port 5433", code: ExitNotFound, err: "no registration"},
		{args: "deregister db --all", out: "db 10.1.2.3:5432 deregistered\n", dump: " "},
		{args: "deregister db", code: ExitNotFound, err: "no registration"},
		{args: "register db --address 10.1.2.3", code: ExitUsage, err: "--port is missing"},
		{args: "register db --port 1", code: ExitUsage, err: "--address"},
		{args: "register db --address example.org --port 1", code: ExitUsage, err: "want the IP address"},
		{args: "register Db --address 10.1.2.3 --port 1", code: ExitUsage, err: "would do"},
		{args: "register db --address 10.1.2.3 --port 0", code: ExitUsage, err: "want the number"},
		{args: "register db --address 10.1.2.3 --port 1 --check exec:true", code: ExitUsage, err: "the server runs no commands"},
		{args: "register db --address 10.1.2.3 --port 1 --check tcp --check-timeout 2s", code: ExitUsage, err: "not shorter than the timeout"},
		{args: "register db --address 10.1.2.3 --port 1 --state Fine", code: ExitUsage, err: "want one of Up"},
		{args: "register db --address 10.1.2.3 --port 1 --ttl 10ms", code: ExitUsage, err: "at least 1s"},
		{args: "register", code: ExitUsage, err: "accepts 1 arg(s)"},
	} {
		var out bytes.Buffer
		verb := strings.Fields(c.args)[0]
		code, chatter := invoke(t.Context(), &out, func(a *App) *cobra.Command {
			return map[string]func() *cobra.Command{"register": a.registerCmd, "renew": a.renewCmd, "deregister": a.deregisterCmd}[verb]()
		}, append([]string{"--kubeconfig", cfg}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.HasPrefix(out.String(), c.out) || !strings.Contains(chatter, c.err) {
			t.Errorf("%s: exit %d, printed %q, %q; want %d, %q, %q", c.args, code, out.String(), chatter, c.code, c.out, c.err)
		}
		if got := api.Dump(); c.dump != "" && got != strings.TrimPrefix(c.dump, " ") {
			t.Errorf("%s: the API holds\n%swant\n%s", c.args, got, c.dump)
		}
	}
	srv.Close()
	if code, chatter := invoke(t.Context(), io.Discard, (*App).registerCmd, "--kubeconfig", cfg, "register", "db", "--address", "10.1.2.3", "--port", "1"); code != ExitUnavailable {
		t.Errorf("server away: exit %d, %q", code, chatter)
	}
}

func TestRegisterWritesWhatWasAsked(t *testing.T) {
	api := &claimtest.API{}
	srv := httptest.NewServer(api)
	defer srv.Close()
	code, chatter := invoke(t.Context(), io.Discard, (*App).registerCmd, "--kubeconfig", kubeconfigOf(t, srv.URL), "-n", "shop",
		"register", "web", "--address", "127.0.0.1", "--port", "http=8080", "--port", "dns=53/udp", "--service-port", "80",
		"--check", "https:http/healthz", "--check-interval", "2s", "--zone", "a", "--weight", "50", "--hostname", "w", "--meta", "v=2")
	if code != ExitOK {
		t.Fatal(code, chatter)
	}
	in := api.Find("shop", v1alpha1.InstanceName("web", "127.0.0.1", 8080))
	if in == nil {
		t.Fatal(api.Dump())
	}
	s := in.Spec
	if s.NodeName != process.NodeName() || s.Zone != "a" || *s.Weight != 50 || s.Hostname != "w" || s.Metadata["v"] != "2" {
		t.Errorf("spec: %+v", s)
	}
	if len(s.Ports) != 2 || s.Ports[1].Name != "dns" || s.Ports[1].Protocol != "UDP" {
		t.Errorf("ports: %+v", s.Ports)
	}
	if c := s.Check; c == nil || c.Scheme != "https" || c.Path != "/healthz" || c.Port.String() != "http" || c.Interval.Duration.String() != "2s" || c.Fall != 3 {
		t.Errorf("check: %+v", s.Check)
	}
	if in.Annotations["fingerpost.dev/service-port"] != "80" || s.Claims[0].TTL != nil {
		t.Errorf("annotations %v, claim %+v", in.Annotations, s.Claims[0])
	}
}

// awaited is a writer that tells when a text was written.
type awaited struct {
	text string
	seen chan struct{}
	buf  bytes.Buffer
}

func (w *awaited) Write(p []byte) (int, error) {
	before := strings.Contains(w.buf.String(), w.text)
	w.buf.Write(p)
	if !before && strings.Contains(w.buf.String(), w.text) {
		close(w.seen)
	}
	return len(p), nil
}

func TestRegisterKeepAlive(t *testing.T) {
	api := &claimtest.API{}
	srv := httptest.NewServer(api)
	defer srv.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := &awaited{text: "registered", seen: make(chan struct{})}
	ended := make(chan int)
	go func() {
		code, chatter := invoke(ctx, out, (*App).registerCmd, "--kubeconfig", kubeconfigOf(t, srv.URL),
			"register", "web", "--address", "10.0.0.1", "--port", "80", "--keep-alive")
		if code != 0 {
			t.Errorf("exit %d: %s", code, chatter)
		}
		ended <- code
	}()
	<-out.seen
	all := api.All()
	if len(all) != 1 || all[0].Spec.Claims[0].TTL.Duration != keepAliveTTL {
		t.Errorf("registered: %s", api.Dump())
	}
	stop()
	<-ended
	if d := api.Dump(); d != "" {
		t.Errorf("left behind:\n%s", d)
	}
}
