package apiserver

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/store"
)

// running is an API server of a test, with an administrator's client over TLS.
type running struct {
	*Server
	admin *kubernetes.Clientset
	rest  *restclient.Config
	stop  func()
}

// start runs a server on a store until the test ends, or stop is called.
func start(t *testing.T, st *store.Store, pkiDir string, live Liveness) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pki, err := LoadPKI(pkiDir, []string{"localhost"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	s, err := New(Config{
		Listener: l, Store: st, PKI: pki, Log: log, Liveness: live, NodeName: "here",
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/20")}, NodePorts: [2]int{30000, 32767},
		Advertise: netip.MustParseAddr("127.0.0.1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r := &running{Server: s}
	stopped := false
	r.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("server ended with %v", err)
			}
		}
	}
	t.Cleanup(r.stop)
	select {
	case <-s.Ready():
	case err := <-done:
		stopped = true
		t.Fatalf("server ended before it was ready: %v", err)
	case <-time.After(5 * time.Minute):
		t.Fatal("server is not ready after five minutes")
	}
	r.rest = &restclient.Config{Host: "https://" + l.Addr().String(), QPS: -1, TLSClientConfig: restclient.TLSClientConfig{CAData: pki.CACert, CertData: pki.Admin.Cert, KeyData: pki.Admin.Key}}
	if r.admin, err = kubernetes.NewForConfig(r.rest); err != nil {
		t.Fatal(err)
	}
	return r
}

func startOne(t *testing.T) *running {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Dir: dir, UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	return start(t, st, filepath.Join(dir, "pki"), nil)
}
