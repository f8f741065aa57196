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

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fakeServer serves lists that never change, and watches on which nothing
// happens.
func fakeServer(t *testing.T) string {
	t.Helper()
	ready, port, name := true, int32(8080), "http"
	meta := metav1.ListMeta{ResourceVersion: "7"}
	svc := corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.10", Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}},
	}}
	slice := discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	lists := map[string]any{
		"services":       &corev1.ServiceList{TypeMeta: metav1.TypeMeta{Kind: "ServiceList", APIVersion: "v1"}, ListMeta: meta, Items: []corev1.Service{svc}},
		"endpointslices": &discoveryv1.EndpointSliceList{TypeMeta: metav1.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"}, ListMeta: meta, Items: []discoveryv1.EndpointSlice{slice}},
		"namespaces":     &corev1.NamespaceList{TypeMeta: metav1.TypeMeta{Kind: "NamespaceList", APIVersion: "v1"}, ListMeta: meta, Items: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "default"}}}},
		"pods":           &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: meta},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		list, ok := lists[filepath.Base(r.URL.Path)]
		q := r.URL.Query()
		switch {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404})
		case q.Get("sendInitialEvents") == "true":
			w.WriteHeader(http.StatusUnprocessableEntity)
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonInvalid, Code: 422})
		case q.Get("watch") == "true":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			_ = json.NewEncoder(w).Encode(list)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// runMain runs a command line against a server.
func runMain(t *testing.T, server string, args ...string) string {
	t.Helper()
	cfg := filepath.Join(t.TempDir(), "config")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"a","contexts":[{"name":"a","context":{"cluster":"a"}}],"clusters":[{"name":"a","cluster":{"server":"` + server + `"}}]}`
	if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, chatter bytes.Buffer
	a := &App{In: strings.NewReader(""), Out: &out, Err: &chatter}
	root := a.root()
	for _, c := range []*cobra.Command{a.getCmd(), a.watchCmd(), a.resolveCmd(), a.explainCmd(), a.envCmd()} {
		if found, _, err := root.Find([]string{c.Name()}); err != nil || found == root {
			root.AddCommand(c)
		}
	}
	root.SetArgs(append([]string{"--kubeconfig", cfg}, args...))
	if args[0] == "__complete" { // takes flags after its own name
		root.SetArgs(append([]string{"__complete", "--kubeconfig", cfg}, args[1:]...))
	}
	err := root.ExecuteContext(t.Context())
	return withExit(&out, &chatter, err)
}

func TestCommandsAgainstAServer(t *testing.T) {
	server := fakeServer(t)
	for _, tt := range []struct{ args, want string }{
		{"get", "NAME   TYPE        ADDRESS      PORTS    READY   WHY   AGE\nweb    ClusterIP   10.96.0.10   80/TCP   1/1     -     -\n"},
		{"get ep web -o name", "endpoint/10.0.0.1:8080\n"},
		{"get services wbe", "[exit 3] service wbe not found in namespace default\nDid you mean web?\n"},
		{"get web", "[exit 2] \"web\" is not a kind: want services, endpoints, instances or namespaces.\nOne service is shown by: fingerpost get services web\n"},
		{"get -o xml", "[exit 2] invalid argument \"xml\" for \"-o, --output\" flag: want one of table, wide, json, yaml, name\nSee 'fingerpost get --help'.\n"},
		{"get instances", "[exit 3] " + server + " has no instances: it is not a Fingerpost server\n"},
		{"resolve web -o name", "10.96.0.10\n"},
		{"resolve nothing.here", "[exit 3] nothing.here does not exist (tried nothing.here.default.svc.cluster.local., nothing.here.svc.cluster.local., nothing.here.cluster.local., nothing.here.)\n"},
		{"resolve web --server nowhere", "[exit 2] --server nowhere: want an address with a port, like 127.0.0.1:53\n"},
		{"env --format docker", "WEB_PORT=tcp://10.96.0.10:80\n"},
		{"explain web.shop", "[exit 3] service web not found in namespace shop\nThere is no namespace shop.\nThere is one in namespace default: add -n default.\n"},
		{"__complete resolve ", "web\tClusterIP 1/1\n:4\n[stderr] Completion ended with directive: ShellCompDirectiveNoFileComp\n"},
		{"watch --timeout 50ms", "[stderr] Watching 1 service with 1 endpoint. Ctrl-C ends it.\n"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			args := strings.Split(tt.args, " ")
			got := runMain(t, server, args...)
			if args[0] == "env" {
				got = strings.Join(keep(strings.SplitAfter(got, "\n"), "WEB_PORT="), "")
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func keep(lines []string, prefix string) (out []string) {
	for _, l := range lines {
		if strings.HasPrefix(l, prefix) {
			out = append(out, l)
		}
	}
	return out
}

func TestNoServer(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	cfg := filepath.Join(t.TempDir(), "config")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"a","contexts":[{"name":"a","context":{"cluster":"a"}}],"clusters":[{"name":"a","cluster":{"server":"` + s.URL + `"}}]}`
	if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &App{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, kubeconfig: cfg}
	_, _, err := a.follow(t.Context(), "", 3*time.Second)
	got := withExit(&bytes.Buffer{}, nil, err)
	if !strings.HasPrefix(got, "[exit 4] ") || !strings.Contains(got, "connection refused") || !strings.Contains(got, "fingerpost dev") {
		t.Error(got)
	}
}
