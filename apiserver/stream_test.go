package apiserver

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	kubelet "k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// shout answers exec as a node would: what comes in goes out in capitals.
type shout struct{}

func (shout) ExecInContainer(_ context.Context, _, _, _ string, cmd []string, in io.Reader, out, err io.WriteCloser, _ bool, _ <-chan kubelet.TerminalSize, _ time.Duration) error {
	b, e := io.ReadAll(in)
	if e != nil {
		return e
	}
	if _, e := io.WriteString(out, strings.ToUpper(string(b))); e != nil {
		return e
	}
	_, e = io.WriteString(err, strings.Join(cmd, " "))
	return e
}

// Exec goes through the server to the node, over WebSocket, which kubectl tries
// first, and over SPDY.
func TestExec(t *testing.T) {
	r := startOne(t)
	ctx := t.Context()
	pair, err := r.PKI.Issue(x509.Certificate{}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, serving := nodeServing(t, r.PKI, pair)
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		opts, err := kubelet.NewOptions(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		kubelet.ServeExec(w, req, shout{}, "p", "", "c", req.URL.Query()["command"], opts, time.Minute, 2*time.Minute, kubelet.SupportedStreamingProtocols)
	}))
	node.TLS = nodeTLS(t, r.PKI, key, serving)
	node.StartTLS()
	defer node.Close()
	r.nodeAt(t, "a", node.Listener.Addr().(*net.TCPAddr).Port)
	r.pod(t, "pa", "a")

	target := r.admin.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name("pa").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: "c", Command: []string{"tr", "a", "A"}, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	for name, make := range map[string]func(*url.URL) (remotecommand.Executor, error){
		"WebSocket": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(r.rest, "GET", u.String())
		},
		"SPDY": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(r.rest, "POST", u)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := make(target)
			if err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			sctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
			defer cancel()
			if err := e.StreamWithContext(sctx, remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errs}); err != nil {
				t.Fatal(err)
			}
			if out.String() != "HELLO" || errs.String() != "tr a A" {
				t.Errorf("out %q, err %q", out.String(), errs.String())
			}
		})
	}
}

// nodeAt registers a node whose port is on this machine.
func (r *running) nodeAt(t *testing.T, name string, port int) {
	t.Helper()
	n, err := r.admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	if _, err := r.admin.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
