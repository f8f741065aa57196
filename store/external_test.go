package store

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// TestExternalWithTLS runs an etcd of its own with client certificates and
// uses it as an external one.
func TestExternalWithTLS(t *testing.T) {
	dir := t.TempDir()
	info, err := transport.SelfCert(zap.NewNop(), dir, []string{"127.0.0.1:0"}, 1, x509.ExtKeyUsageClientAuth)
	if err != nil {
		t.Fatal(err)
	}
	info.TrustedCAFile, info.ClientCertAuth = info.CertFile, true // it signed itself
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "p.sock")}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	cfg.ClientTLSInfo, cfg.UnsafeNoFsync = info, true
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	// Etcd connects to itself, so it must know its port. The kernel gives these to
	// nobody who does not ask for them.
	var free url.URL
	var e *embed.Etcd
	for range 100 {
		free = url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(18000))}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{free}, []url.URL{free}
		if e, err = embed.StartEtcd(cfg); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	<-e.Server.ReadyNotify()
	endpoint := free.String()

	s, err := Open(t.Context(), Config{Endpoints: []string{endpoint}, CAFile: info.CertFile, CertFile: info.CertFile, KeyFile: info.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Embedded || s.Direct() != nil || s.Guard.Full() != nil {
		t.Error("an external etcd is taken for an embedded one")
	}
	put(t, s, "a", "1")
	if v, _ := get(t, s, "a"); v != "1" {
		t.Errorf("a = %q, want 1", v)
	}
	file := filepath.Join(dir, "snap.db")
	if err := s.SaveSnapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	restored := t.TempDir()
	if _, err := RestoreSnapshot(file, restored, time.Now()); err != nil {
		t.Fatal(err)
	}
	r := open(t, restored)
	defer r.Close()
	if v, _ := get(t, r, "a"); v != "1" {
		t.Errorf("restored into an embedded one, a = %q, want 1", v)
	}

	other := filepath.Join(dir, "other.pem")
	if err := os.WriteFile(other, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"no client certificate": {Endpoints: []string{endpoint}, CAFile: info.CertFile},
		"no CA file":            {Endpoints: []string{endpoint}, CAFile: other, CertFile: info.CertFile, KeyFile: info.KeyFile},
		"another CA":            {Endpoints: []string{"https://localhost:" + free.Port()}, CAFile: info.CertFile, CertFile: info.CertFile, KeyFile: info.KeyFile},
		"half a pair":           {Endpoints: []string{endpoint}, CAFile: info.CertFile, CertFile: info.CertFile},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "etcd") {
				t.Errorf("got %v, want an error about etcd", err)
			} else if name == "another CA" && !strings.Contains(err.Error(), "certificate is") {
				t.Errorf("got %v, want the reason", err)
			}
		})
	}
}
