package stream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// authority signs the certificates of a test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(t *testing.T, name pkix.Name) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: name, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})
}

// node is a node with one pod, whose commands are Go functions.
type node struct{ web net.Listener }

func (node) List() []*corev1.Pod {
	return []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"}}}
}

func (node) Container(namespace, pod, uid, container string, _ bool) (Container, error) {
	if namespace != "shop" || pod != "web" || uid != "" && uid != "u1" {
		return Container{}, fmt.Errorf("pod %s/%s: %w", namespace, pod, ErrNotFound)
	}
	if container != "main" {
		return Container{}, fmt.Errorf("container %s is not valid for pod web", container)
	}
	return Container{ID: runtime.ContainerID{PodUID: "u1", Name: container}}, nil
}

func (n node) Dial(ctx context.Context, _, _, _ string, port uint16) (net.Conn, error) {
	if port != 80 {
		return nil, errors.New("connection refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", n.web.Addr().String())
}

func (node) Exec(ctx context.Context, _ runtime.ContainerID, c runtime.ExecConfig) (int, error) {
	switch c.Args[0] {
	case "cat":
		_, err := io.Copy(c.Stdout, c.Stdin)
		fmt.Fprint(c.Stderr, "done")
		return 0, err
	case "exit":
		return 7, nil
	case "size":
		s := <-c.Resize
		fmt.Fprintf(c.Stdout, "%dx%d", s.Width, s.Height)
		return 0, nil
	case "wait":
		fmt.Fprint(c.Stdout, "waiting")
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 0, runtime.ErrCannotRun
}

func (node) Attach(_ context.Context, _ runtime.ContainerID, s runtime.Streams) error {
	fmt.Fprint(s.Stdout, "attached")
	return nil
}

type rig struct {
	url string
	ca  *authority
	cfg func(pkix.Name) *rest.Config
}

var apiServer = pkix.Name{CommonName: "kube-apiserver-kubelet-client"}

func startServer(t *testing.T) *rig {
	t.Helper()
	ca := newAuthority(t)
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = http.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	}()
	t.Cleanup(func() { _ = web.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM := ca.issue(t, pkix.Name{CommonName: "node"})
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Listener: l, Certificate: func() (*tls.Certificate, error) { return &cert, nil }, ClientCA: ca.pool,
		Users: []string{apiServer.CommonName}, Groups: []string{"system:masters"}, Pods: node{web}, Streamer: node{},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r := &rig{url: "https://" + l.Addr().String(), ca: ca}
	r.cfg = func(who pkix.Name) *rest.Config {
		c, k := ca.issue(t, who)
		return &rest.Config{Host: r.url, TLSClientConfig: rest.TLSClientConfig{
			CertData: c, KeyData: k, CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}),
		}}
	}
	return r
}

// each runs a test with both ways to stream.
func (r *rig) each(t *testing.T, path string, f func(t *testing.T, e remotecommand.Executor)) {
	t.Helper()
	u, err := url.Parse(r.url + path)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := remotecommand.NewWebSocketExecutorForProtocols(r.cfg(apiServer), "GET", u.String(), "v4.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	sp, err := remotecommand.NewSPDYExecutor(r.cfg(apiServer), "POST", u)
	if err != nil {
		t.Fatal(err)
	}
	// Version 4 has no way to close standard input, and no node takes version 5.
	if !strings.Contains(path, "input=1") {
		t.Run("websocket", func(t *testing.T) { f(t, ws) })
	}
	t.Run("spdy", func(t *testing.T) { f(t, sp) })
}

func TestExec(t *testing.T) {
	r := startServer(t)
	r.each(t, "/exec/shop/web/main?command=cat&input=1&output=1&error=1", func(t *testing.T, e remotecommand.Executor) {
		var out, errOut bytes.Buffer
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("text"), Stdout: &out, Stderr: &errOut})
		if err != nil || out.String() != "text" || errOut.String() != "done" {
			t.Fatalf("%v %q %q", err, &out, &errOut)
		}
	})
	r.each(t, "/exec/shop/web/u1/main?command=exit&output=1", func(t *testing.T, e remotecommand.Executor) {
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 7 {
			t.Fatalf("%v, want exit code 7", err)
		}
	})
	r.each(t, "/exec/shop/web/main?command=nonsense&output=1", func(t *testing.T, e remotecommand.Executor) {
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
		if err == nil || !strings.Contains(err.Error(), runtime.ErrCannotRun.Error()) {
			t.Fatalf("%v", err)
		}
	})
	r.each(t, "/exec/shop/web/main?command=size&output=1&input=1&tty=1", func(t *testing.T, e remotecommand.Executor) {
		var out bytes.Buffer
		size := sizes{{Width: 80, Height: 24}}
		in, w := io.Pipe()
		defer w.Close()
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: &size})
		if err != nil || out.String() != "80x24" {
			t.Fatalf("%v %q", err, &out)
		}
	})
	// The command ends when its client goes away.
	r.each(t, "/exec/shop/web/main?command=wait&output=1", func(t *testing.T, e remotecommand.Executor) {
		ctx, cancel := context.WithCancel(t.Context())
		pr, pw := io.Pipe()
		go func() {
			_, _ = io.ReadFull(pr, make([]byte, len("waiting")))
			cancel()
		}()
		if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: pw}); err == nil {
			t.Fatal("it ended without an error")
		}
	})
	r.each(t, "/attach/shop/web/main?output=1", func(t *testing.T, e remotecommand.Executor) {
		var out bytes.Buffer
		if err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out}); err != nil || out.String() != "attached" {
			t.Fatalf("%v %q", err, &out)
		}
	})
}

type sizes []remotecommand.TerminalSize

func (s *sizes) Next() *remotecommand.TerminalSize {
	if len(*s) == 0 {
		return nil
	}
	z := (*s)[0]
	*s = (*s)[1:]
	return &z
}

func TestPortForward(t *testing.T) {
	r := startServer(t)
	rt, up, err := spdy.RoundTripperFor(r.cfg(apiServer))
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(r.url + "/portForward/shop/web")
	stop, ready := make(chan struct{}), make(chan struct{})
	defer close(stop)
	fw, err := portforward.New(spdy.NewDialer(up, &http.Client{Transport: rt}, "POST", u), []string{"0:80"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = fw.ForwardPorts() }()
	<-ready
	ports, err := fw.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "hello" {
		t.Fatalf("%q", b)
	}
}

func TestWhoMayCome(t *testing.T) {
	r := startServer(t)
	get := func(cfg *rest.Config, path string) (int, string) {
		t.Helper()
		c, err := rest.HTTPClientFor(cfg)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Get(r.url + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, text := get(r.cfg(apiServer), "/pods"); code != 200 || !strings.Contains(text, `"name":"web"`) {
		t.Errorf("the API server: %d %s", code, text)
	}
	if code, _ := get(r.cfg(pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}}), "/healthz"); code != 200 {
		t.Errorf("an administrator: %d", code)
	}
	if code, text := get(r.cfg(pkix.Name{CommonName: "system:node:other", Organization: []string{"system:nodes"}}), "/pods"); code != 403 {
		t.Errorf("another node: %d %s", code, text)
	}
	bare := r.cfg(apiServer)
	bare.CertData, bare.KeyData = nil, nil
	if code, text := get(bare, "/pods"); code != 0 {
		t.Errorf("without a certificate: %d %s", code, text)
	}
	strange := r.cfg(apiServer)
	strange.CertData, strange.KeyData = newAuthority(t).issue(t, apiServer)
	if code, text := get(strange, "/pods"); code != 0 {
		t.Errorf("with the certificate of another CA: %d %s", code, text)
	}
	for path, want := range map[string]int{
		"/exec/shop/web/main": 400, "/exec/shop/gone/main?command=x&output=1": 404, "/exec/shop/web/side?command=x&output=1": 400,
		"/containerLogs/shop/gone/main": 404, "/containerLogs/shop/web/main?tailLines=x": 400, "/containerLogs/shop/web/main": 200, "/nothing": 404,
	} {
		if code, text := get(r.cfg(apiServer), path); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, text, want)
		}
	}
}
