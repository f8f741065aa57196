//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority is a CA for a test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	next int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{dir: t.TempDir(), key: key, next: 2}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, a.file("ca.pem"), string(a.pem))
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue writes NAME.pem and NAME-key.pem, good for clients and for a server at
// the address.
func (a *authority) issue(t testing.TB, name, ip string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.ParseIP(ip)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	a.next++
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	write(t, a.file(name+".pem"), string(certPEM))
	write(t, a.file(name+"-key.pem"), string(keyPEM))
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// startEtcd runs a real etcd, which wants client certificates of the
// authority, and gives its URL.
func startEtcd(t testing.TB, at *site, ca *authority) string {
	t.Helper()
	bin := os.Getenv("ETCD")
	if bin == "" {
		bin = filepath.Join(t.TempDir(), "etcd")
		if err := build(bin, "go.etcd.io/etcd/server/v3"); err != nil {
			t.Fatal(err)
		}
	}
	ca.issue(t, "etcd", at.ip(0, 9))
	url, peer := "https://"+at.at(0, 9, 2379), "http://"+at.at(0, 9, 2380)
	start(t, "etcd", exec.Command(bin, "--data-dir", t.TempDir(), "--log-level", "warn",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--cert-file", ca.file("etcd.pem"), "--key-file", ca.file("etcd-key.pem"), "--client-cert-auth", "--trusted-ca-file", ca.file("ca.pem")))
	eventually(t, "etcd listens", func() error {
		c, err := net.Dial("tcp", at.at(0, 9, 2379))
		if err == nil {
			c.Close()
		}
		return err
	})
	return url
}

// TestTwoServers: two API servers on one external etcd, over TLS. Both write
// at once, nothing is given out twice, and when one is killed the other goes
// on alone.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	at := newSite(t)
	ca := newAuthority(t)
	ca.issue(t, "client", at.ip(0, 9))
	url := startEtcd(t, at, ca)
	etcd := []string{"--etcd-endpoints", url, "--etcd-cafile", ca.file("ca.pem"), "--etcd-certfile", ca.file("client.pem"), "--etcd-keyfile", ca.file("client-key.pem")}

	refused := layout(at, 3, t.TempDir())
	if code, text := refused.refused(t, append(refused.args("server"), "--etcd-endpoints", url)...); code != 1 || !strings.Contains(text, "--etcd-cafile") {
		t.Errorf("without certificates: exit %d\n%s", code, tail(text, 10))
	}

	one := layout(at, 1, t.TempDir()).launch(t, "server", append(etcd, "--node-name", "one")...)
	two := layout(at, 2, t.TempDir())
	for _, f := range []string{"ca.crt", "ca.key", "sa.key"} { // what servers share, as the README says
		text, err := os.ReadFile(filepath.Join(one.data, "pki", f))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(two.data, "pki", f), string(text))
	}
	two.launch(t, "server", append(etcd, "--node-name", "two")...)
	eventually(t, "both are endpoints of default/kubernetes", func() error { return readyEndpoints(one, t, "default", "kubernetes", 2) })

	const workers, each = 4, 25
	var wg sync.WaitGroup
	for s, sys := range []*system{one, two} {
		api := sys.api(t)
		for w := range workers {
			wg.Go(func() {
				for i := range each {
					body := fmt.Sprintf(`{"metadata":{"name":"s-%d-%d-%d"},"spec":{"type":"NodePort","ports":[{"port":80}]}}`, s, w, i)
					if code, text := api.do("POST", "/api/v1/namespaces/default/services", body); code != http.StatusCreated {
						t.Errorf("server %d: %d %s", s+1, code, text)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	verifyAddresses(t, two.api(t))
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ Ports []struct{ NodePort int } }
		}
	}
	one.api(t).get(t, "/api/v1/services", &list)
	ports := map[int]string{}
	for _, s := range list.Items {
		for _, p := range s.Spec.Ports {
			if other := ports[p.NodePort]; other != "" && p.NodePort != 0 {
				t.Errorf("%s and %s both have node port %d", other, s.Metadata.Name, p.NodePort)
			}
			ports[p.NodePort] = s.Metadata.Name
		}
	}
	if len(list.Items) != 2*workers*each+1 {
		t.Errorf("%d services, want %d", len(list.Items), 2*workers*each+1)
	}
	// Addresses asked for at both at once: one gets it, and it is recorded. They
	// are of the part of the range that is not given out at random.
	for n := range 20 {
		ip := fmt.Sprintf("127.%d.0.%d", at.n, 10+n)
		codes := map[int]int{}
		var mu sync.Mutex
		for s, sys := range []*system{one, two} {
			api := sys.api(t)
			wg.Go(func() {
				code, _ := api.do("POST", "/api/v1/namespaces/default/services", fmt.Sprintf(`{"metadata":{"name":"asked-%d-%d"},"spec":{"clusterIP":%q,"ports":[{"port":80}]}}`, n, s, ip))
				mu.Lock()
				defer mu.Unlock()
				codes[code]++
			})
		}
		wg.Wait()
		if codes[http.StatusCreated] != 1 || codes[http.StatusUnprocessableEntity] != 1 {
			t.Errorf("%s asked for at both servers: %v", ip, codes)
		}
	}
	verifyAddresses(t, two.api(t))
	// A token of one is good at the other.
	token := strings.TrimSpace(one.must(t, "create", "token", "default"))
	r := finish(t, two.kubectl(t, "--kubeconfig=/dev/null", "--server=https://"+two.listen, "--insecure-skip-tls-verify", "--token="+token, "auth", "whoami"))
	if r.code != 0 || !strings.Contains(r.out, "system:serviceaccount:default:default") {
		t.Errorf("a token of the other server: exit %d\n%s%s", r.code, r.out, r.err)
	}

	one.kill()
	if r := finish(t, two.fingerpost(t, "register", "web", "--address", at.ip(30, 1), "--port", "80")); r.code != 0 {
		t.Errorf("register at the one left: exit %d\n%s", r.code, r.err)
	}
	eventually(t, "controllers go on", func() error { return readyEndpoints(two, t, "default", "web", 1) })
	// Its claim has a TTL of 30 s; leases start anew at the one left.
	if err := pollFor(30*time.Second+patience, func() error { return readyEndpoints(two, t, "default", "kubernetes", 1) }); err != nil {
		t.Errorf("the killed one is still an endpoint: %v", err)
	}
	verifyAddresses(t, two.api(t))
}
