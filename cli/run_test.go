package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process"
	"github.com/fingerpost/fingerpost/door/process/claim/claimtest"
	"github.com/fingerpost/fingerpost/internal/observe"
)

// playVariable makes the test binary play the process that is run.
const playVariable = "FINGERPOST_CLI_TEST_PLAY"

// TestPlay is not a test but the process that the others run.
func TestPlay(t *testing.T) {
	switch os.Getenv(playVariable) {
	case "serve":
		fmt.Println("serving with", os.Getenv("DB_SERVICE_HOST"))
		t.Log(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
		os.Exit(1)
	case "exit 7":
		os.Exit(7)
	}
}

// runAPI serves Instances and the Services of one namespace.
func runAPI(t *testing.T) (*claimtest.API, string) {
	api := &claimtest.API{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces/default/services" {
			api.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(&corev1.ServiceList{
			TypeMeta: metav1.TypeMeta{Kind: "ServiceList", APIVersion: "v1"},
			Items: []corev1.Service{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"},
				Spec:       corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"}, Ports: []corev1.ServicePort{{Port: 5432, Protocol: "TCP"}}},
			}},
		})
	}))
	t.Cleanup(srv.Close)
	return api, srv.URL
}

func TestRunRegistersAndStops(t *testing.T) {
	api, url := runAPI(t)
	up := make(chan struct{}, 1)
	api.OnChange = func(_ string, in *v1alpha1.Instance) {
		if in != nil && in.Spec.Claims[0].State == v1alpha1.ClaimUp {
			select {
			case up <- struct{}{}:
			default:
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out bytes.Buffer
	ended := make(chan int)
	go func() {
		code, chatter := invoke(ctx, &out, (*App).runCmd, "--kubeconfig", kubeconfigOf(t, url),
			"run", "--name", "web", "--port", "http=0", "--drain", "0", "--env", playVariable+"=serve", os.Args[0], "-test.run=^TestPlay$")
		if code != 0 {
			t.Errorf("exit %d: %s", code, chatter)
		}
		ended <- code
	}()
	<-up
	in := api.All()[0]
	if in.Spec.Service != "web" || in.Spec.Address != "127.0.0.1" || in.Spec.Ports[0].Name != "http" || in.Spec.NodeName != process.NodeName() {
		t.Errorf("registered: %+v", in.Spec)
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", in.Spec.Ports[0].Port))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	stop()
	<-ended
	if d := api.Dump(); d != "" {
		t.Errorf("left behind:\n%s", d)
	}
	if !strings.HasPrefix(out.String(), "serving with 10.96.0.9\n") {
		t.Errorf("the process printed %q", out.String())
	}
}

func TestRunExitCode(t *testing.T) {
	_, url := runAPI(t)
	cfg := kubeconfigOf(t, url)
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"--name", "web", "--port", "0", "--restart", "never", "-e", playVariable + "=exit 7", "--", os.Args[0], "-test.run=^TestPlay$"}, 7, "exit status 7"},
		{[]string{"--name", "web", "--port", "0"}, ExitUsage, "no command"},
		{[]string{"--port", "0", "--", "x"}, ExitUsage, "--name is missing"},
		{[]string{"--name", "web", "--", "x"}, ExitUsage, "--port is missing"},
		{[]string{"--name", "Web", "--port", "0", "--", "sh"}, ExitUsage, `would do`},
		{[]string{"--name", "web", "--port", "http=x", "--", "sh"}, ExitUsage, "--port"},
		{[]string{"--name", "web", "--port", "80", "--replicas", "2", "--", "sh"}, ExitUsage, "$PORT"},
		{[]string{"--name", "web", "--port", "0", "--ready", "ftp:/", "--", "sh"}, ExitUsage, "--ready"},
		{[]string{"--name", "web", "--port", "0", "--ready", "http:admin/x", "--", "sh"}, ExitUsage, `port "admin"`},
		{[]string{"--name", "web", "--port", "0", "--restart", "maybe", "--", "sh"}, ExitUsage, "restart policy"},
		{[]string{"--name", "web", "--port", "0", "--env", "X", "--", "sh"}, ExitUsage, "KEY=VALUE"},
		{[]string{"--name", "web", "--port", "0", "--address", "0.0.0.0", "--", "sh"}, ExitUsage, "--address"},
		{[]string{"--name", "web", "--port", "0", "--", "no-such-program-here"}, ExitUsage, "cannot run"},
		{[]string{"--name", "web", "--port", "0", "--nonsense", "--", "sh"}, ExitUsage, "unknown flag"},
	} {
		code, chatter := invoke(t.Context(), io.Discard, (*App).runCmd, append([]string{"--kubeconfig", cfg, "run"}, c.args...)...)
		if code != c.code || !strings.Contains(chatter, c.err) {
			t.Errorf("%q: exit %d, %q; want %d and %q", c.args, code, chatter, c.code, c.err)
		}
	}
}

func TestRunFlags(t *testing.T) {
	var f runFlags
	c := (&App{}).runCmd()
	// The flags are the command's own variables: parse by a second set.
	f = runFlags{
		name: "web", ports: []string{"http=0", "dns=53/udp"}, servicePort: 80, replicas: 1, restart: "never",
		ready: checkFlags{check: "http:http/ok", interval: 2 * time.Second, timeout: time.Second, rise: 1, fall: 4},
		place: placeFlags{address: "::ffff:10.0.0.1", zone: "a", weight: 5, hostname: "w-{n}"},
	}
	cfg, err := f.config([]string{"x", "y"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Address != netip.MustParseAddr("10.0.0.1") || cfg.Ready.Port != "http" || cfg.Ready.Fall != 4 || *cfg.Weight != 5 || cfg.DrainDelay >= 0 {
		t.Errorf("%+v", cfg)
	}
	if diff := cmp.Diff([]process.Port{{Name: "http", Protocol: "TCP"}, {Name: "dns", Number: 53, Protocol: "UDP"}}, cfg.Ports); diff != "" {
		t.Error(diff)
	}
	for ports, want := range map[string]string{"0": "tcp", "53/udp": ""} {
		f := runFlags{name: "web", ports: []string{ports}}
		cfg, err := f.config([]string{"x"})
		if err != nil || string(cfg.Ready.Type) != want {
			t.Errorf("--port %s: default ready check %q (%v), want %q", ports, cfg.Ready.Type, err, want)
		}
	}
	if err := c.ParseFlags([]string{"--name", "web", "./web", "--name", "mine"}); err != nil || !slices.Equal(c.Flags().Args(), []string{"./web", "--name", "mine"}) {
		t.Errorf("flags after the command are not the command's: %v, %v", c.Flags().Args(), err)
	}
}

// With the server away a start waits once and not again.
func TestServiceEnvOutlivesTheServer(t *testing.T) {
	_, url := runAPI(t)
	log, _ := observe.Logger(io.Discard, "text", "error")
	s, err := newServiceEnv(&rest.Config{Host: url}, "default", log)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.get(); !slices.Contains(got, "DB_SERVICE_HOST=10.96.0.9") {
		t.Fatalf("variables: %q", got)
	}
	gone, err := newServiceEnv(&rest.Config{Host: "http://127.0.0.1:1"}, "default", log)
	if err != nil {
		t.Fatal(err)
	}
	gone.known = []string{"A=1"}
	if got := gone.get(); !slices.Equal(got, []string{"A=1"}) {
		t.Errorf("server away: %q", got)
	}
}
